/* Feast's names and values: they are what the real Feast wrote; what is none of its values is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "features/feast_value.h"
#include "proto/json.h"
#include "tests/features/feast_golden.h"

static hr_arena *arena;

static int begin(void **state) {
    (void)state;
    arena = hr_arena_create(1 << 20);
    return arena == NULL;
}

static int end(void **state) {
    (void)state;
    hr_arena_destroy(arena);
    return 0;
}

static void keys_are_those_that_feast_wrote(void **state) {
    (void)state;
    json_t *lines = feast_golden_read(), *line;
    size_t i;
    json_array_foreach(lines, i, line) {
        const hr_feast_options options = feast_golden_options(line);
        const hr_entity entity = feast_golden_entity(line);
        const char *id = feast_golden_text(line, "id");
        uint8_t expected[512];
        char key[HR_FEAST_KEY_EXTRA + 64], decimal[24];
        size_t n = feast_golden_bytes(json_object_get(line, "key"), expected, sizeof expected), n_id = 0;
        assert_int_equal(hr_feast_key_write(&options, entity, id, key), n);
        assert_memory_equal(key, expected, n);
        const char *back = hr_feast_key_id(&options, entity, key, n, decimal, &n_id);
        assert_non_null(back);
        assert_int_equal(n_id, strlen(id));
        assert_memory_equal(back, id, n_id);
        assert_null(hr_feast_key_id(&options, 1 - entity, key, n, decimal, &n_id));
        for (size_t cut = 0; cut < n; cut++)
            assert_null(hr_feast_key_id(&options, entity, key, cut, decimal, &n_id));
    }
    json_decref(lines);
}

static json_t *json_of(const Homerank__V1__FeatureValue *value) {
    Homerank__V1__FeatureMap map = HOMERANK__V1__FEATURE_MAP__INIT;
    Homerank__V1__FeatureMap__FeaturesEntry entry = HOMERANK__V1__FEATURE_MAP__FEATURES_ENTRY__INIT,
                                            *entries[] = {&entry};
    char name[] = "f";
    entry.key = name;
    entry.value = (Homerank__V1__FeatureValue *)value;
    map.features = entries;
    map.n_features = 1;
    json_t *all = hr_json_from_features(&map), *one = json_incref(json_object_get(all, "f"));
    json_decref(all);
    return one;
}

static void expect_decoded(const char *name, const json_t *hex, const json_t *read) {
    uint8_t bytes[512];
    const size_t n = feast_golden_bytes(hex, bytes, sizeof bytes);
    const Homerank__V1__FeatureValue *value;
    hr_error err = {0};
    hr_status status = hr_feast_value_decode(bytes, n, arena, &value, &err);
    json_t *expected = feast_golden_expected(read);
    assert_int_equal(status, expected != NULL ? HR_OK : HR_INVALID_ARGUMENT);
    json_t *found = value != NULL ? json_of(value) : NULL;
    if (!json_equal(found, expected) && expected != NULL)
        fail_msg("%s: expected %s, found %s", name, json_dumps(expected, JSON_ENCODE_ANY),
                 json_dumps(found, JSON_ENCODE_ANY));
    json_decref(expected);
    json_decref(found);
}

static void values_are_those_that_feast_reads(void **state) {
    (void)state;
    json_t *lines = feast_golden_read(), *line, *read;
    const char *name;
    size_t i, n_values = 0;
    json_array_foreach(lines, i, line) {
        const hr_feast_options options = feast_golden_options(line);
        const json_t *fields = json_object_get(line, "fields");
        json_object_foreach(json_object_get(line, "read"), name, read) {
            uint8_t field[HR_FEAST_FIELD_NBYTES];
            char hex[9];
            assert_true(hr_feast_field(&options, feast_golden_entity(line), name, arena, field));
            snprintf(hex, sizeof hex, "%02x%02x%02x%02x", field[0], field[1], field[2], field[3]);
            if (json_object_get(fields, hex) == NULL) fail_msg("%s: no field %s", name, hex);
            expect_decoded(name, json_object_get(fields, hex), read);
            n_values++;
        }
    }
    assert_true(n_values > 100);
    json_decref(lines);
}

static void a_field_without_a_view_is_its_entitys(void **state) {
    (void)state;
    const hr_feast_options options = {.entities = {{.view = "user_profile"}, {.view = "item_stats"}}};
    uint8_t plain[HR_FEAST_FIELD_NBYTES], full[HR_FEAST_FIELD_NBYTES], other[HR_FEAST_FIELD_NBYTES];
    size_t n;
    assert_true(hr_feast_field(&options, HR_ENTITY_USER, "age", arena, plain));
    assert_true(hr_feast_field(&options, HR_ENTITY_ITEM, "user_profile:age", arena, full));
    assert_true(hr_feast_field(&options, HR_ENTITY_ITEM, "age", arena, other));
    assert_memory_equal(plain, full, sizeof plain);
    assert_memory_not_equal(plain, other, sizeof plain);
    const char *view = hr_feast_view(&options, HR_ENTITY_ITEM, "age", &n);
    assert_int_equal(n, 10);
    assert_memory_equal(view, "item_stats", n);
    view = hr_feast_view(&options, HR_ENTITY_ITEM, "a:b:c", &n);
    assert_int_equal(n, 1);
    assert_memory_equal(view, "a", n);
    hr_arena *tiny = hr_arena_create(16);
    assert_false(hr_feast_field(&options, HR_ENTITY_USER, "age", tiny, plain));
    hr_arena_destroy(tiny);
}

static void ids_that_are_no_integer_have_no_key(void **state) {
    (void)state;
    static const struct {
        const char *id;
        bool int32, int64;
    } cases[] = {
        {"0", true, true},
        {"-1", true, true},
        {"2147483647", true, true},
        {"-2147483648", true, true},
        {"2147483648", false, true},
        {"-2147483649", false, true},
        {"9223372036854775807", false, true},
        {"-9223372036854775808", false, true},
        {"9223372036854775808", false, false},
        {"-9223372036854775809", false, false},
        {"10000000000000000000", false, false},
        {"18446744073709551617", false, false},
        {"", false, false},
        {"-", false, false},
        {"-0", false, false},
        {"007", false, false},
        {"+7", false, false},
        {"7 ", false, false},
        {"7.0", false, false},
        {"u7", false, false},
    };
    hr_feast_options options = {.project = "p", .version = 3, .entities = {{.join_key = "k"}}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int wide = 0; wide < 2; wide++) {
            char key[HR_FEAST_KEY_EXTRA + 32], decimal[24];
            options.entities[HR_ENTITY_USER].id_type = wide ? HR_FEAST_INT64 : HR_FEAST_INT32;
            size_t n = hr_feast_key_write(&options, HR_ENTITY_USER, cases[i].id, key), n_id = 0;
            if ((n > 0) != (wide ? cases[i].int64 : cases[i].int32)) fail_msg("%s: %zu", cases[i].id, n);
            if (n == 0) continue;
            const char *back = hr_feast_key_id(&options, HR_ENTITY_USER, key, n, decimal, &n_id);
            assert_non_null(back);
            assert_int_equal(n_id, strlen(cases[i].id));
            assert_memory_equal(back, cases[i].id, n_id);
        }
    }
}

#define BYTES(text) text, sizeof(text) - 1

/* Kinds that the golden file has none of. expected: JSON, or NULL where it is refused. */
static void every_kind_of_value_is_read_or_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t nbytes;
        const char *expected;
    } cases[] = {
        {BYTES("\x1a\x02hi"), NULL},                      /* int32 of the wrong wire type */
        {BYTES("\x98\x01\x00"), "null"},                  /* null_val */
        {BYTES("\xa2\x01\x00"), NULL},                    /* map_val */
        {BYTES("\xba\x01\x03\x0a\x01x"), "[\"x\"]"},      /* string_set */
        {BYTES("\xc2\x01\x04\x0a\x02\x07\x08"), "[7,8]"}, /* int32_set */
        {BYTES("\x6a\x04\x08\x07\x08\x08"), "[7,8]"},     /* int32_list, not packed */
        {BYTES("\x82\x02\x02{}"), NULL},                  /* json */
        {BYTES("\xa2\x02\x01u"), "\"u\""},                /* uuid */
        {BYTES("\xe2\x02\x04"
               "1.50"),
         "\"1.50\""},                                            /* decimal */
        {BYTES("\x29\x00\x00\x00\x00\x00\x00\xf8\x7f"), "null"}, /* a double's NaN */
        {BYTES("\x92\x01\x0c\x0a\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), "[null]"}, /* no time */
        {BYTES("\x12\x02"
               "a\0"),
         NULL},                        /* a NUL in a string */
        {BYTES("\x12\x01\xff"), NULL}, /* not UTF-8 */
        {BYTES("\x12\x05"
               "abc"),
         NULL},                                /* cut off */
        {BYTES("\x5a\x03\x0a\x01\xff"), NULL}, /* a list's bytes that are no text */
        {BYTES("\x12\x01"
               "a\x20\x05"),
         "5"},                            /* the last of two kinds counts */
        {BYTES("\xfa\x3f\x01x"), "null"}, /* a kind yet to come */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const Homerank__V1__FeatureValue *value;
        hr_error err = {0};
        hr_status status =
            hr_feast_value_decode((const uint8_t *)cases[i].bytes, cases[i].nbytes, arena, &value, &err);
        if ((status == HR_OK) != (cases[i].expected != NULL)) fail_msg("case %zu: %s", i, err.message);
        if (status != HR_OK) {
            assert_int_equal(status, HR_INVALID_ARGUMENT);
            assert_true(err.message[0] != '\0');
            assert_null(value);
            continue;
        }
        json_t *found = json_of(value), *expected = json_loads(cases[i].expected, JSON_DECODE_ANY, NULL);
        if (!json_equal(found, expected))
            fail_msg("case %zu: expected %s, found %s", i, cases[i].expected,
                     json_dumps(found, JSON_ENCODE_ANY));
        json_decref(found);
        json_decref(expected);
    }
}

static void a_value_larger_than_its_memory_is_an_error(void **state) {
    (void)state;
    /* int64_list_val of 4003 bytes: 4000 zeros, packed */
    const uint8_t head[] = {0x72, 0xa3, 0x1f, 0x0a, 0xa0, 0x1f};
    uint8_t whole[sizeof head + 4000] = {0};
    memcpy(whole, head, sizeof head);
    hr_arena *small = hr_arena_create(40000);
    const Homerank__V1__FeatureValue *value;
    assert_int_equal(hr_feast_value_decode(whole, sizeof whole, small, &value, NULL), HR_RESOURCE_EXHAUSTED);
    assert_null(value);
    hr_arena_destroy(small);
    assert_int_equal(hr_feast_value_decode(whole, sizeof whole, arena, &value, NULL), HR_OK);
    assert_int_equal(value->ids->n_values, 4000);
}

static void a_views_time_is_read_in_seconds(void **state) {
    (void)state;
    int64_t seconds = 0;
    assert_true(hr_feast_time_read((const uint8_t *)BYTES("\x08\xc0\xdd\xc8\xb1\x06"), &seconds));
    assert_int_equal(seconds, 1714564800);
    assert_true(hr_feast_time_read((const uint8_t *)BYTES("\x08\x05\x10\x07"), &seconds));
    assert_int_equal(seconds, 5);
    assert_false(hr_feast_time_read((const uint8_t *)BYTES("\x08\xc0"), &seconds));
    assert_false(hr_feast_time_read((const uint8_t *)BYTES("\x0a\x01x"), &seconds));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_those_that_feast_wrote),
        cmocka_unit_test_setup_teardown(values_are_those_that_feast_reads, begin, end),
        cmocka_unit_test_setup_teardown(a_field_without_a_view_is_its_entitys, begin, end),
        cmocka_unit_test(ids_that_are_no_integer_have_no_key),
        cmocka_unit_test_setup_teardown(every_kind_of_value_is_read_or_refused, begin, end),
        cmocka_unit_test_setup_teardown(a_value_larger_than_its_memory_is_an_error, begin, end),
        cmocka_unit_test(a_views_time_is_read_in_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
