/* The layout feast against a real redis-server that holds what the real Feast wrote: what Feast reads is what
 * the model gets; values that are too old, ids that no key can have and other people's keys are missing; a
 * change is seen through the cache. */
#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "features/encoder.h"
#include "features/feast_value.h"
#include "proto/json.h"
#include "tests/features/feast_golden.h"
#include "tests/features/redis_server.h"

enum { ARENA_NBYTES = 16 << 20 };

static redis_server server;
static json_t *golden;
static hr_arena *arena;

static int start(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    redis_server_start(&server, "");
    golden = feast_golden_read();
    return 0;
}

static int stop(void **state) {
    (void)state;
    json_decref(golden);
    redis_server_kill(&server);
    return 0;
}

static int begin(void **state) {
    (void)state;
    redis_server_do(&server, "FLUSHALL");
    arena = hr_arena_create(ARENA_NBYTES);
    return arena == NULL;
}

static int end(void **state) {
    (void)state;
    hr_arena_destroy(arena);
    return 0;
}

static void set_field(const json_t *line, const void *field, size_t n_field, const void *value,
                      size_t n_value) {
    uint8_t key[512];
    const size_t n_key = feast_golden_bytes(json_object_get(line, "key"), key, sizeof key);
    redis_server_do(&server, "HSET %b %b %b", key, n_key, field, n_field, value, n_value);
}

/* Puts what Feast wrote there, of one version of its keys. */
static void restore(int version) {
    json_t *line, *hex;
    const char *field_hex;
    size_t i;
    json_array_foreach(golden, i, line) {
        if (json_integer_value(json_object_get(line, "version")) != version) continue;
        json_object_foreach(json_object_get(line, "fields"), field_hex, hex) {
            uint8_t field[64], value[512];
            json_t *name = json_string(field_hex);
            const size_t n_field = feast_golden_bytes(name, field, sizeof field);
            set_field(line, field, n_field, value, feast_golden_bytes(hex, value, sizeof value));
            json_decref(name);
        }
    }
}

/* The time of a line's view, so many seconds from now. */
static void set_time(const json_t *line, const char *view, int64_t from_now) {
    char field[64];
    uint8_t value[16];
    size_t n = 0;
    snprintf(field, sizeof field, "_ts:%s", view);
    value[n++] = 0x08;
    uint64_t seconds = (uint64_t)(time(NULL) + from_now);
    for (; seconds >= 0x80; seconds >>= 7) value[n++] = (uint8_t)(seconds | 0x80);
    value[n++] = (uint8_t)seconds;
    set_field(line, field, strlen(field), value, n);
}

static const json_t *line_of(int version, const char *entity, const char *id) {
    json_t *line;
    size_t i;
    json_array_foreach(golden, i, line) {
        if (json_integer_value(json_object_get(line, "version")) == version &&
            strcmp(feast_golden_text(line, "entity"), entity) == 0 &&
            strcmp(feast_golden_text(line, "id"), id) == 0)
            return line;
    }
    fail_msg("no %s %s of version %d", entity, id, version);
    return NULL;
}

static hr_store *open_store(int version, const char *more, size_t cache_nbytes) {
    char uri[512];
    hr_store *store;
    hr_error err = {0};
    hr_store_options options = hr_store_defaults;
    options.command_timeout_ms = options.connect_timeout_ms = 20000;
    options.cache_nbytes = cache_nbytes;
    snprintf(uri, sizeof uri,
             "%s?layout=feast&project=shop&version=%d&user_view=user_profile&item_view=item_stats&item_type="
             "int64%s",
             server.uri, version, more);
    if (hr_store_open(uri, &options, &store, &err) != HR_OK) fail_msg("%s", err.message);
    return store;
}

/* --- what is there ---------------------------------------------------------------------------------------
 */

static void expect_field(const hr_field_text *field, const char *name, const json_t *read) {
    const Homerank__V1__FeatureValue *value = NULL;
    json_t *expected = feast_golden_expected(read);
    if (field->text == NULL) fail_msg("%s: missing", name);
    hr_status status =
        hr_feast_value_decode((const uint8_t *)field->text, field->nbytes, arena, &value, NULL);
    assert_int_equal(status, expected != NULL ? HR_OK : HR_INVALID_ARGUMENT);
    if (value != NULL && value->kind_case == HOMERANK__V1__FEATURE_VALUE__KIND_ID && json_is_string(expected))
        assert_string_equal(value->id, json_string_value(expected));
    json_decref(expected);
}

/* One record by its own fetch, all that Feast read of it. */
static void expect_record(hr_store *store, const json_t *line) {
    enum { MAX_NAMES = 32 };
    const char *names[MAX_NAMES], *name, *id = feast_golden_text(line, "id");
    const json_t *reads[MAX_NAMES];
    json_t *read;
    hr_field_list fields = {names, 0};
    json_object_foreach(json_object_get(line, "read"), name, read) {
        reads[fields.n_names] = read;
        names[fields.n_names++] = name;
    }
    const bool user = feast_golden_entity(line) == HR_ENTITY_USER;
    hr_fetch fetch = {.user_id = user ? id : NULL,
                      .item_ids = &id,
                      .n_items = user ? 0 : 1,
                      .fields = {&fields, &fields},
                      .deadline_ns = UINT64_MAX,
                      .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    if (fetch.error.code != HR_OK) fail_msg("%s", fetch.error.message);
    const hr_record *record = user ? &fetch.user : &fetch.items[0];
    assert_int_equal(record->kind, HR_RECORD_VALUES);
    assert_true(record->answered);
    for (size_t f = 0; f < fields.n_names; f++) expect_field(&record->fields[f], names[f], reads[f]);
}

static void what_feast_wrote_is_there(void **state) {
    (void)state;
    for (int version = 2; version <= 3; version++) {
        redis_server_do(&server, "FLUSHALL");
        restore(version);
        hr_store *store = open_store(version, "", 0);
        json_t *line;
        size_t i, n = 0;
        json_array_foreach(golden, i, line) {
            if (json_integer_value(json_object_get(line, "version")) != version) continue;
            expect_record(store, line);
            n++;
        }
        assert_int_equal(n, 5);
        hr_store_close(store);
    }
}

static hr_fetch fetch_some(hr_store *store, const hr_field_list *fields, const char *user,
                           const char *const *items, size_t n_items) {
    hr_fetch fetch = {.user_id = user,
                      .item_ids = items,
                      .n_items = n_items,
                      .fields = {fields, fields},
                      .deadline_ns = UINT64_MAX,
                      .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    return fetch;
}

static void what_is_not_there_is_missing(void **state) {
    (void)state;
    static const char *const items[] = {
        "7", "8", "007", "seven", "", "99999999999999999999", "-1099511627776"};
    const char *names[] = {"price"};
    const hr_field_list fields = {names, 1}, none = {names, 0};
    restore(3);
    hr_store *store = open_store(3, "", 0);
    hr_fetch fetch = fetch_some(store, &fields, "nobody", items, 7);
    assert_int_equal(fetch.error.code, HR_OK);
    assert_int_equal(fetch.user.kind, HR_RECORD_MISSING);
    assert_true(fetch.user.answered);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(fetch.items[i].kind, i == 0 || i == 6 ? HR_RECORD_VALUES : HR_RECORD_MISSING);
        assert_true(fetch.items[i].answered);
    }
    fetch = fetch_some(store, &none, "nobody", items, 3);
    assert_int_equal(fetch.user.kind, HR_RECORD_VALUES); /* nothing is wanted: nothing is missing */
    assert_int_equal(fetch.items[2].kind, HR_RECORD_MISSING);
    hr_store_close(store);
    const char *other_names[] = {"item_stats:nothing"};
    const hr_field_list others = {other_names, 1};
    store = open_store(2, "", 0); /* keys of another version */
    fetch = fetch_some(store, &fields, NULL, items, 1);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_MISSING);
    hr_store_close(store);
    store = open_store(3, "", 0);
    fetch = fetch_some(store, &others, NULL, items, 1);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_MISSING);
    hr_store_close(store);
}

static void a_key_of_another_type_is_an_invalid_record(void **state) {
    (void)state;
    static const char *const items[] = {"7", "-1099511627776"};
    const char *names[] = {"price"};
    const hr_field_list fields = {names, 1};
    restore(3);
    uint8_t key[512];
    size_t n = feast_golden_bytes(json_object_get(line_of(3, "item", "7"), "key"), key, sizeof key);
    redis_server_do(&server, "SET %b x", key, n);
    hr_store *store = open_store(3, "", 0);
    hr_fetch fetch = fetch_some(store, &fields, NULL, items, 2);
    assert_int_equal(fetch.error.code, HR_OK);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_MISSING);
    assert_true(fetch.items[0].invalid);
    assert_int_equal(fetch.items[1].kind, HR_RECORD_VALUES);
    hr_store_close(store);
}

/* --- age -------------------------------------------------------------------------------------------------
 */

static uint64_t n_expired(hr_store *store) {
    hr_store_counts counts;
    hr_store_count(store, &counts);
    return counts.expired;
}

static void values_of_a_view_that_is_too_old_are_missing(void **state) {
    (void)state;
    const char *names[] = {"user_again:age", "city", "user_profile:small"};
    const hr_field_list fields = {names, 3};
    const json_t *line = line_of(3, "user", "u1");
    restore(3);
    hr_store *store = open_store(3, "&max_age=3600", 0), *any_age = open_store(3, "", 0);
    hr_fetch fetch = fetch_some(store, &fields, "u1", NULL, 0);
    assert_int_equal(fetch.user.kind, HR_RECORD_MISSING); /* Feast wrote both views long ago */
    assert_int_equal(n_expired(store), 2);
    fetch = fetch_some(any_age, &fields, "u1", NULL, 0);
    assert_int_equal(fetch.user.kind, HR_RECORD_VALUES);

    set_time(line, "user_profile", -3000);
    fetch = fetch_some(store, &fields, "u1", NULL, 0);
    assert_int_equal(fetch.user.kind, HR_RECORD_VALUES);
    assert_null(fetch.user.fields[0].text);
    assert_non_null(fetch.user.fields[1].text);
    assert_non_null(fetch.user.fields[2].text);
    assert_int_equal(n_expired(store), 3);

    set_time(line, "user_again", +100); /* another clock */
    set_time(line, "user_profile", -4000);
    fetch = fetch_some(store, &fields, "u1", NULL, 0);
    assert_non_null(fetch.user.fields[0].text);
    assert_null(fetch.user.fields[1].text);
    assert_null(fetch.user.fields[2].text);
    assert_int_equal(n_expired(store), 4);

    set_field(line, "_ts:user_again", 14, "\x08\xff", 2); /* no time at all */
    fetch = fetch_some(store, &fields, "u1", NULL, 0);
    assert_int_equal(fetch.user.kind, HR_RECORD_MISSING);
    hr_store_close(store);
    hr_store_close(any_age);
}

/* --- what the model gets ---------------------------------------------------------------------------------
 */

static const char tables_json[] = "{\"h\": {\"rows\": 1000, \"dim\": 2, \"index\": \"hash\"}}";
static const char features_json[] =
    "[{\"name\": \"age\", \"entity\": \"user\", \"kind\": \"number\"},"
    " {\"name\": \"age_id\", \"field\": \"user_again:age\", \"entity\": \"user\", \"kind\": \"id\", "
    "\"table\": \"h\"},"
    " {\"name\": \"city\", \"entity\": \"user\", \"kind\": \"id\", \"table\": \"h\"},"
    " {\"name\": \"spent\", \"entity\": \"user\", \"kind\": \"number\"},"
    " {\"name\": \"rate\", \"entity\": \"user\", \"kind\": \"number\"},"
    " {\"name\": \"member\", \"entity\": \"user\", \"kind\": \"number\"},"
    " {\"name\": \"seen\", \"entity\": \"user\", \"kind\": \"number\"},"
    " {\"name\": \"tags\", \"entity\": \"user\", \"kind\": \"ids\", \"table\": \"h\"},"
    " {\"name\": \"visits\", \"entity\": \"user\", \"kind\": \"ids\", \"table\": \"h\"},"
    " {\"name\": \"vector\", \"entity\": \"user\", \"kind\": \"numbers\", \"length\": 3},"
    " {\"name\": \"price\", \"entity\": \"item\", \"kind\": \"number\"},"
    " {\"name\": \"kind\", \"entity\": \"item\", \"kind\": \"id\", \"table\": \"h\"}]";

static hr_schema *schema;
static hr_encoder *encoder;

static void make_encoder(void) {
    json_t *tables = json_loads(tables_json, 0, NULL), *features = json_loads(features_json, 0, NULL);
    hr_error err = {0};
    if (hr_schema_create(tables, features, &schema, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(hr_encoder_create(schema, &encoder, &err), HR_OK);
    json_decref(tables);
    json_decref(features);
}

static void free_encoder(void) {
    hr_encoder_destroy(encoder);
    hr_schema_destroy(schema);
}

/* What Feast read, as a request would give it: {field of the schema: value}. */
static json_t *given_of(const json_t *line, hr_entity entity) {
    const hr_field_list *fields = hr_encoder_fields(encoder, entity);
    json_t *given = json_object();
    for (size_t f = 0; f < fields->n_names; f++) {
        char name[200];
        const char *view = entity == HR_ENTITY_USER ? "user_profile:" : "item_stats:";
        snprintf(name, sizeof name, "%s%s", strchr(fields->names[f], ':') ? "" : view, fields->names[f]);
        const json_t *read = json_object_get(json_object_get(line, "read"), name);
        assert_non_null(read);
        json_object_set_new(given, fields->names[f], feast_golden_expected(read));
    }
    return given;
}

static void the_model_gets_what_feast_reads(void **state) {
    (void)state;
    enum { MAX_WORDS = 512 };
    restore(3);
    make_encoder();
    hr_store *store = open_store(3, "", 0);
    json_t *line;
    size_t i;
    json_array_foreach(golden, i, line) {
        if (json_integer_value(json_object_get(line, "version")) != 3) continue;
        const hr_entity entity = feast_golden_entity(line);
        const char *id = feast_golden_text(line, "id");
        uint32_t stored[MAX_WORDS] = {0}, expected[MAX_WORDS] = {0}, n_invalid = 0;
        hr_binding bindings[32] = {{0}}, inline_bindings[32] = {{0}};
        hr_error err = {0};
        hr_fetch fetch = {.user_id = entity == HR_ENTITY_USER ? id : NULL,
                          .item_ids = &id,
                          .n_items = entity == HR_ENTITY_ITEM,
                          .fields = {hr_encoder_fields(encoder, HR_ENTITY_USER),
                                     hr_encoder_fields(encoder, HR_ENTITY_ITEM)},
                          .deadline_ns = UINT64_MAX,
                          .arena = arena};
        hr_store_fetch_wait(store, &fetch);
        const hr_record *record = entity == HR_ENTITY_USER ? &fetch.user : &fetch.items[0];
        assert_int_equal(hr_bind_record(encoder, entity, bindings, record, arena, &n_invalid, &err), HR_OK);
        assert_int_equal(hr_encode_row(encoder, entity, id, bindings, stored, &n_invalid, &err), HR_OK);

        json_t *given = given_of(line, entity);
        Homerank__V1__FeatureMap *map;
        assert_int_equal(hr_json_to_features(given, arena, &map, &err), HR_OK);
        for (size_t f = 0; f < map->n_features; f++)
            hr_bind(encoder, entity, inline_bindings, map->features[f]->key, map->features[f]->value, false);
        uint32_t n_invalid_given = 0;
        assert_int_equal(
            hr_encode_row(encoder, entity, id, inline_bindings, expected, &n_invalid_given, &err), HR_OK);
        assert_int_equal(n_invalid, n_invalid_given);
        assert_memory_equal(stored, expected, hr_row_words(schema, entity) * sizeof *stored);
        json_decref(given);
    }
    hr_store_close(store);
    free_encoder();
}

/* --- the cache -------------------------------------------------------------------------------------------
 */

/* The price of item 7 as its row has it, the row kept where it came without. */
static float price_of_7(hr_store *store) {
    static const char *const items[] = {"7"};
    uint32_t row[64] = {0}, n_wrong[16] = {0};
    hr_arena *own = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = {
        .item_ids = items,
        .n_items = 1,
        .fields = {hr_encoder_fields(encoder, HR_ENTITY_USER), hr_encoder_fields(encoder, HR_ENTITY_ITEM)},
        .schema = schema,
        .deadline_ns = UINT64_MAX,
        .arena = own};
    hr_store_fetch_wait(store, &fetch);
    if (fetch.error.code != HR_OK) fail_msg("%s", fetch.error.message);
    const hr_record *record = &fetch.items[0];
    const uint32_t *words = record->row;
    if (words == NULL) {
        hr_binding bindings[16] = {{0}};
        hr_error err = {0};
        assert_int_equal(hr_bind_record(encoder, HR_ENTITY_ITEM, bindings, record, own, &n_wrong[0], &err),
                         HR_OK);
        hr_encode_stored(encoder, HR_ENTITY_ITEM, "7", bindings, row, n_wrong);
        const hr_row_offer offer = {
            &fetch, record, HR_ENTITY_ITEM, "7", row, n_wrong, hr_encoder_n_counts(encoder, HR_ENTITY_ITEM)};
        hr_fetch_keep_row(&offer);
        words = row;
    }
    float price;
    memcpy(&price, words + schema->rows[HR_ENTITY_ITEM].n_index, sizeof price);
    hr_arena_destroy(own);
    return price;
}

static void a_change_is_seen_through_the_cache(void **state) {
    (void)state;
    const uint64_t end_ns = hr_clock_ns() + UINT64_C(20000000000);
    for (int version = 2; version <= 3; version++) {
        redis_server_do(&server, "FLUSHALL");
        restore(version);
        make_encoder();
        hr_store *store = open_store(version, "", 1 << 20);
        hr_cache_stats stats = {0};
        while (stats.n_hits == 0) { /* cached once the server tells of changes */
            assert_true(price_of_7(store) == 9.75f);
            assert_true(hr_store_cache_stats(store, &stats));
            if (hr_clock_ns() > end_ns) fail_msg("nothing is cached");
        }
        const hr_feast_options options = feast_golden_options(line_of(version, "item", "7"));
        uint8_t field[HR_FEAST_FIELD_NBYTES];
        assert_true(hr_feast_field(&options, HR_ENTITY_ITEM, "price", arena, field));
        set_field(line_of(version, "item", "7"), field, sizeof field, "\x29\x00\x00\x00\x00\x00\x00\x10\x40",
                  9);
        while (price_of_7(store) != 4.0f)
            if (hr_clock_ns() > end_ns) fail_msg("the change is not seen");
        assert_true(hr_store_cache_stats(store, &stats));
        assert_true(stats.n_invalidations > 0);
        hr_store_close(store);
        free_encoder();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_feast_wrote_is_there, begin, end),
        cmocka_unit_test_setup_teardown(what_is_not_there_is_missing, begin, end),
        cmocka_unit_test_setup_teardown(a_key_of_another_type_is_an_invalid_record, begin, end),
        cmocka_unit_test_setup_teardown(values_of_a_view_that_is_too_old_are_missing, begin, end),
        cmocka_unit_test_setup_teardown(the_model_gets_what_feast_reads, begin, end),
        cmocka_unit_test_setup_teardown(a_change_is_seen_through_the_cache, begin, end),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
