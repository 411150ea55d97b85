/* Lines of records: usual ones take the short way, and rows of CSV are the records that they say. That both
 * ways of a line agree is fuzzed (tests/fuzz/load_line_fuzz.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "features/load_csv.h"
#include "features/load_pack.h"
#include "proto/json.h"

static hr_arena *arena;

static int begin(void **state) {
    (void)state;
    arena = hr_arena_create(4 << 20);
    return arena == NULL;
}

static int end(void **state) {
    (void)state;
    hr_arena_destroy(arena);
    return 0;
}

/* Whether a line takes the short way; if so, to the record that the long one makes. */
static bool is_packed(const char *line) {
    hr_load_packer packer = {.packed = NULL};
    hr_load_line parsed;
    char *text = strdup(line);
    const bool taken = hr_load_pack(&packer, text, strlen(line));
    if (taken) {
        hr_error err = {0};
        if (hr_load_line_parse(line, strlen(line), arena, &parsed, &err) != HR_OK)
            fail_msg("%s", err.message);
        uint8_t packed[1024];
        assert_int_equal(homerank__v1__feature_map__pack(parsed.features, packed), packer.nbytes);
        assert_memory_equal(packed, packer.packed, packer.nbytes);
        assert_string_equal(packer.id, parsed.id);
        assert_int_equal(packer.entity, parsed.entity);
    } else {
        assert_string_equal(text, line);
    }
    hr_load_packer_clear(&packer);
    free(text);
    return taken;
}

static void usual_lines_take_the_short_way(void **state) {
    (void)state;
    static const char *const lines[] = {
        "{\"entity\":\"user\",\"id\":\"7\",\"features\":{\"city\":\"Bergen\",\"age\":31,\"x\":0.1,\"n\":null}"
        "}",
        "{\"entity\":\"item\",\"id\":12,\"features\":{\"t\":[\"p\",\"q\"],\"i\":[1,22,null],\"v\":[1,-2.25,"
        "null]}}",
        " { \"id\" : \"\xc3\xa9\" , \"features\" : { \"a\" : [ ] , \"b\" : -5e-3 } , \"entity\" : \"item\" "
        "} ",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"z\":0,\"i\":-123456789012345678,\"e\":\"\"}}",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!is_packed(lines[i])) fail_msg("%s", lines[i]);
}

static void other_lines_are_left_to_the_long_way(void **state) {
    (void)state;
    static const char *const lines[] = {
        "",
        "{}",
        "{\"entity\":\"user\",\"id\":\"a\\\"b\",\"features\":{}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":1,\"a\":2}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"id\":\"2\",\"features\":{}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":1234567890123456789}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":-0}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":01}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":1e999}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":[1.5,\"x\"]}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":[\"x\",1.5]}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":true}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":{}}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"\":1}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":\"\xff\"}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":[1,}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":1,}}",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{}} x",
        "{\"entity\":\"user\",\"id\":\"1\",\"features\":{}",
        "{\"entity\":\"user\",\"id\":1.5,\"features\":{}}",
        "{\"entity\":\"user\",\"id\":null,\"features\":{}}",
        "{\"entity\":\"video\",\"id\":\"1\",\"features\":{}}",
        "{\"entity\":\"user\",\"id\":\"1\"}",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (is_packed(lines[i])) fail_msg("%s", lines[i]);
}

/* --- CSV -------------------------------------------------------------------------------------------------
 */

static const hr_csv_header *header_of(const char *text, const hr_entity *entity) {
    const hr_csv_header *header;
    hr_error err = {0};
    char *copy = hr_arena_strndup(arena, text, strlen(text));
    if (hr_csv_header_read(copy, strlen(text), entity, arena, &header, &err) != HR_OK)
        fail_msg("%s", err.message);
    return header;
}

static void expect_row(const hr_csv_header *header, const char *row, const char *id, hr_entity entity,
                       const char *expected) {
    hr_load_line line;
    hr_error err = {0};
    char *copy = hr_arena_strndup(arena, row, strlen(row));
    if (hr_csv_row_read(header, copy, strlen(row), arena, &line, &err) != HR_OK)
        fail_msg("%s: %s", row, err.message);
    json_t *found = hr_json_from_features(line.features), *wanted = json_loads(expected, 0, NULL);
    assert_string_equal(line.id, id);
    assert_int_equal(line.entity, entity);
    if (!json_equal(found, wanted))
        fail_msg("%s: expected %s, found %s", row, expected, json_dumps(found, 0));
    json_decref(found);
    json_decref(wanted);
}

static void rows_are_the_records_that_they_say(void **state) {
    (void)state;
    const hr_csv_header *header = header_of("\xef\xbb\xbf"
                                            "entity,id,city,price:number,tags:ids,\"v:numbers\",a:b",
                                            NULL);
    expect_row(header, "user,7,Bergen,9.50,p,1,x", "7", HR_ENTITY_USER,
               "{\"city\":\"Bergen\",\"price\":9.5,\"tags\":[\"p\"],\"v\":[1.0],\"a:b\":\"x\"}");
    expect_row(header, "item,\"a,b\",\"say \"\"hi\"\"\",-1e3,\"p,q,,3\",\"0.5,,2\",", "a,b", HR_ENTITY_ITEM,
               "{\"city\":\"say "
               "\\\"hi\\\"\",\"price\":-1000.0,\"tags\":[\"p\",\"q\",null,\"3\"],\"v\":[0.5,null,2.0]}");
    expect_row(header, "item,1,\"two\nlines\",,\"\",,31", "1", HR_ENTITY_ITEM,
               "{\"city\":\"two\\nlines\",\"a:b\":31}");
    expect_row(header, "item,1,007,,,,1.5", "1", HR_ENTITY_ITEM, "{\"city\":\"007\",\"a:b\":\"1.5\"}");
    static const hr_entity user = HR_ENTITY_USER;
    expect_row(header_of("id,x", &user), "5,y", "5", HR_ENTITY_USER, "{\"x\":\"y\"}");
    expect_row(header_of("id", &user), "5", "5", HR_ENTITY_USER, "{}");
}

static void what_is_wrong_with_a_file_of_csv_is_said(void **state) {
    (void)state;
    static const hr_entity user = HR_ENTITY_USER;
    static const struct {
        const char *header, *row; /* row NULL: the header is wrong */
        const char *said;
    } cases[] = {
        {"entity,city", NULL, "expected a column id"},
        {"id,city", NULL, "expected a column entity, or --entity"},
        {"entity,id,a,a:number", NULL, "\"a\": given twice"},
        {"entity,id,,a", NULL, "column 3: expected a name"},
        {"entity,id,\"a", NULL, "closing '\"'"},
        {"entity,id,\xff", NULL, "UTF-8"},
        {"entity,id,a", "user,1", "expected 3 cells as in the header, found fewer"},
        {"entity,id,a", "user,1,2,3", "expected 3 cells as in the header, found more"},
        {"entity,id,a", "", "entity: expected user or item"},
        {"entity,id,a", "video,1,2", "entity: expected user or item, found \"video\""},
        {"entity,id,a", "user,,2", "id: expected a text"},
        {"entity,id,a", "user,1,\"x", "closing '\"'"},
        {"entity,id,a", "user,1,\"x\"y", "',' after a closing '\"'"},
        {"entity,id,a", "user,1,x\"y\"", "'\"' around the whole cell"},
        {"entity,id,a", "user,1,\xc3", "UTF-8"},
        {"entity,id,a:number", "user,1,x", "column \"a\": expected a decimal number, found \"x\""},
        {"entity,id,a:number", "user,1,nan", "decimal number"},
        {"entity,id,a:numbers", "user,1,\"1,x\"", "column \"a\": expected a decimal number, found \"x\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const hr_csv_header *header = NULL;
        hr_load_line line;
        hr_error err = {0};
        char *text = hr_arena_strndup(arena, cases[i].header, strlen(cases[i].header));
        hr_status status = hr_csv_header_read(text, strlen(text), NULL, arena, &header, &err);
        if (cases[i].row != NULL) {
            assert_int_equal(status, HR_OK);
            text = hr_arena_strndup(arena, cases[i].row, strlen(cases[i].row));
            status = hr_csv_row_read(header, text, strlen(text), arena, &line, &err);
        }
        assert_int_equal(status, HR_INVALID_ARGUMENT);
        if (strstr(err.message, cases[i].said) == NULL) fail_msg("case %zu: %s", i, err.message);
    }
    const hr_csv_header *header;
    hr_error err = {0};
    char both[] = "entity,id", nul[] = "entity,id,a", row[] = "user,1,\0x";
    assert_int_equal(hr_csv_header_read(both, 9, &user, arena, &header, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "no column entity with --entity"));
    hr_load_line line;
    assert_int_equal(hr_csv_header_read(nul, 11, NULL, arena, &header, &err), HR_OK);
    assert_int_equal(hr_csv_row_read(header, row, 9, arena, &line, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "NUL"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(usual_lines_take_the_short_way, begin, end),
        cmocka_unit_test_setup_teardown(other_lines_are_left_to_the_long_way, begin, end),
        cmocka_unit_test_setup_teardown(rows_are_the_records_that_they_say, begin, end),
        cmocka_unit_test_setup_teardown(what_is_wrong_with_a_file_of_csv_is_said, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
