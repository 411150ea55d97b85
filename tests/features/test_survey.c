/* Surveys of stores: every record is counted once for what it has, whichever store and layout it lies in;
 * what cannot be read, or is of no use to the model, is told apart. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "features/loader.h"
#include "features/survey.h"
#include "tests/features/feast_golden.h"
#include "tests/features/redis_server.h"

enum { N_ITEMS = 2500, N_USERS = 1500 };
enum { CITY, AGE, OWN_ID, TAGS, PRICE, ALSO_PRICE, GENRE, HOUR, N_FEATURES };

static const char tables_json[] = "{\"h\": {\"rows\": 1000, \"dim\": 2, \"index\": \"hash\"},"
                                  " \"d\": {\"rows\": 12, \"dim\": 2, \"index\": \"direct\"}}";
static const char features_json[] =
    "[{\"name\": \"city\", \"entity\": \"user\", \"kind\": \"id\", \"table\": \"h\"},"
    " {\"name\": \"age\", \"entity\": \"user\", \"kind\": \"number\"},"
    " {\"name\": \"user_id\", \"entity\": \"user\", \"kind\": \"id\", \"table\": \"h\"},"
    " {\"name\": \"tags\", \"entity\": \"item\", \"kind\": \"ids\", \"table\": \"h\"},"
    " {\"name\": \"price\", \"entity\": \"item\", \"kind\": \"number\"},"
    " {\"name\": \"also_price\", \"field\": \"price\", \"entity\": \"item\", \"kind\": \"number\", "
    "\"log1p\": true},"
    " {\"name\": \"genre\", \"entity\": \"item\", \"kind\": \"id\", \"table\": \"d\"},"
    " {\"name\": \"hour\", \"entity\": \"context\", \"kind\": \"id\", \"table\": \"d\"}]";

static redis_server server;
static hr_schema *schema;
static char folder[256], in_path[300], lmdb_uri[300];

static int start(void **state) {
    (void)state;
    const char *dir = getenv("TEST_TMPDIR");
    signal(SIGPIPE, SIG_IGN);
    redis_server_start(&server, "");
    json_t *tables = json_loads(tables_json, 0, NULL), *features = json_loads(features_json, 0, NULL);
    hr_error err = {0};
    if (hr_schema_create(tables, features, &schema, &err) != HR_OK) fail_msg("%s", err.message);
    json_decref(tables);
    json_decref(features);
    snprintf(folder, sizeof folder, "%s/survey-%d", dir != NULL ? dir : "/tmp", (int)getpid());
    assert_int_equal(mkdir(folder, 0777), 0);
    snprintf(in_path, sizeof in_path, "%s/in.jsonl", folder);
    snprintf(lmdb_uri, sizeof lmdb_uri, "lmdb:%s/store", folder);
    return 0;
}

static int stop(void **state) {
    (void)state;
    hr_schema_destroy(schema);
    redis_server_kill(&server);
    return 0;
}

/* Of users all have a city, every third an age, which is no number for 10 of them. Of items every second has
 * a price; genres go beyond their table for all but the first 11. */
static void write_records(void) {
    FILE *file = fopen(in_path, "w");
    for (int i = 0; i < N_USERS; i++) {
        fprintf(file, "{\"entity\":\"user\",\"id\":\"u%d\",\"features\":{\"city\":\"c%d\",\"user_id\":\"x\"",
                i, i % 7);
        if (i % 3 == 0) fprintf(file, i < 30 ? ",\"age\":\"old\"" : ",\"age\":%d", i % 90);
        fputs("}}\n", file);
    }
    for (int i = 0; i < N_ITEMS; i++) {
        fprintf(file, "{\"entity\":\"item\",\"id\":%d,\"features\":{\"genre\":%d,\"tags\":[\"a\",\"b\"]", i,
                i);
        if (i % 2 == 0) fprintf(file, ",\"price\":%d.5", i);
        fputs("}}\n", file);
    }
    assert_int_equal(fclose(file), 0);
}

static void load_into(const char *store) {
    hr_load_options options = {.store = store, .in = in_path};
    hr_load_result result;
    hr_error err = {0};
    if (hr_features_load(&options, &result, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(result.n_records, N_USERS + N_ITEMS);
}

static hr_survey survey_of(const char *store, uint64_t sample) {
    const hr_survey_options options = {.store = store, .sample = sample};
    hr_survey survey;
    hr_error err = {0};
    if (hr_survey_take(&options, schema, &survey, &err) != HR_OK) fail_msg("%s", err.message);
    return survey;
}

static void every_record_is_counted_for_what_it_has(void **state) {
    (void)state;
    char packed[256], hash[256];
    snprintf(packed, sizeof packed, "%s?prefix=a%%5B*%%3F", server.uri); /* wildcards of SCAN's */
    snprintf(hash, sizeof hash, "%s?layout=hash", server.uri);
    const char *const stores[] = {lmdb_uri, packed, hash};
    write_records();
    redis_server_do(&server, "SET hr:other:1 x");
    redis_server_do(&server, "SET az:item:1 x");
    for (size_t i = 0; i < 3; i++) {
        load_into(stores[i]);
        hr_survey survey = survey_of(stores[i], 0);
        const hr_survey_feature *of = survey.features;
        assert_true(survey.whole);
        assert_int_equal(survey.entities[HR_ENTITY_USER].n_records, N_USERS);
        assert_int_equal(survey.entities[HR_ENTITY_ITEM].n_records, N_ITEMS);
        assert_int_equal(survey.entities[HR_ENTITY_USER].n_unreadable, 0);
        assert_true(survey.entities[HR_ENTITY_ITEM].nbytes > 5 * N_ITEMS);
        assert_true(survey.entities[HR_ENTITY_ITEM].max_nbytes * N_ITEMS >=
                    survey.entities[HR_ENTITY_ITEM].nbytes);
        assert_int_equal(of[CITY].n_present, N_USERS);
        assert_int_equal(of[CITY].n_unknown, 0);
        assert_int_equal(of[AGE].n_present, N_USERS / 3);
        assert_int_equal(of[AGE].n_wrong, 10);
        assert_int_equal(of[OWN_ID].n_present, 0);
        assert_int_equal(of[TAGS].n_present, N_ITEMS);
        assert_int_equal(of[PRICE].n_present, N_ITEMS / 2);
        assert_int_equal(of[ALSO_PRICE].n_present, N_ITEMS / 2);
        assert_int_equal(of[GENRE].n_present, N_ITEMS);
        assert_int_equal(of[GENRE].n_unknown, N_ITEMS - 11);
        assert_int_equal(of[HOUR].n_present, 0);
        hr_survey_clear(&survey);
    }
}

static void a_sample_is_one(void **state) {
    (void)state;
    char packed[256];
    snprintf(packed, sizeof packed, "%s?prefix=a%%5B*%%3F", server.uri);
    const char *const stores[] = {lmdb_uri, packed};
    for (size_t i = 0; i < 2; i++) {
        hr_survey survey = survey_of(stores[i], 100);
        assert_false(survey.whole);
        for (int e = 0; e < 2; e++)
            assert_true(survey.entities[e].n_records >= 100 && survey.entities[e].n_records < N_USERS);
        hr_survey_clear(&survey);
    }
}

static void what_cannot_be_read_is_counted_apart(void **state) {
    (void)state;
    char uri[256];
    redis_server_do(&server, "FLUSHALL");
    redis_server_do(&server, "SET hr:user:1 %b", "\x0a\xff", (size_t)2);
    redis_server_do(&server, "HSET hr:user:2 city x");
    redis_server_do(&server, "SET hr:item: x");
    hr_survey survey = survey_of(server.uri, 0);
    assert_int_equal(survey.entities[HR_ENTITY_USER].n_records, 0);
    assert_int_equal(survey.entities[HR_ENTITY_USER].n_unreadable, 2); /* no message; a hash */
    assert_int_equal(survey.entities[HR_ENTITY_ITEM].n_records, 0);
    hr_survey_clear(&survey);
    snprintf(uri, sizeof uri, "%s?layout=hash", server.uri);
    survey = survey_of(uri, 0);
    assert_int_equal(survey.entities[HR_ENTITY_USER].n_records, 1);
    assert_int_equal(survey.entities[HR_ENTITY_USER].n_unreadable, 1);
    hr_survey_clear(&survey);
}

static void a_feast_store_can_be_surveyed(void **state) {
    (void)state;
    json_t *lines = feast_golden_read(), *line, *hex;
    const char *field_hex;
    char uri[512];
    size_t i;
    redis_server_do(&server, "FLUSHALL");
    redis_server_do(&server, "SET hr:user:1 x");
    json_array_foreach(lines, i, line) {
        uint8_t key[512], field[64], value[512];
        const size_t n_key = feast_golden_bytes(json_object_get(line, "key"), key, sizeof key);
        json_object_foreach(json_object_get(line, "fields"), field_hex, hex) {
            json_t *name = json_string(field_hex);
            const size_t n_field = feast_golden_bytes(name, field, sizeof field);
            redis_server_do(&server, "HSET %b %b %b", key, n_key, field, n_field, value,
                            feast_golden_bytes(hex, value, sizeof value));
            json_decref(name);
        }
    }
    json_decref(lines);
    snprintf(uri, sizeof uri,
             "%s?layout=feast&project=shop&user_view=user_profile&item_view=item_stats&item_type=int64",
             server.uri);
    hr_survey survey = survey_of(uri, 0);
    assert_int_equal(survey.entities[HR_ENTITY_USER].n_records, 3); /* not those of version 2 */
    assert_int_equal(survey.entities[HR_ENTITY_ITEM].n_records, 2);
    assert_int_equal(survey.features[AGE].n_present, 2);
    assert_int_equal(survey.features[CITY].n_present, 2);
    assert_int_equal(survey.features[PRICE].n_present, 2);
    assert_int_equal(survey.features[GENRE].n_present, 0);
    hr_survey_clear(&survey);
}

static void what_cannot_be_surveyed_is_named(void **state) {
    (void)state;
    static const struct {
        const char *uri;
        hr_status status;
    } cases[] = {{"none:", HR_INVALID_ARGUMENT},
                 {"redis-cluster://127.0.0.1:1", HR_UNAVAILABLE},
                 {"redis://127.0.0.1:1", HR_UNAVAILABLE},
                 {"lmdb:/nonexistent", HR_NOT_FOUND},
                 {"what", HR_INVALID_ARGUMENT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const hr_survey_options options = {.store = cases[i].uri};
        hr_survey survey;
        hr_error err = {0};
        assert_int_equal(hr_survey_take(&options, schema, &survey, &err), cases[i].status);
        assert_true(err.message[0] != '\0');
    }
    const atomic_bool stop = true;
    const hr_survey_options options = {.store = server.uri, .stop = &stop};
    hr_survey survey;
    assert_int_equal(hr_survey_take(&options, schema, &survey, NULL), HR_CANCELLED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_record_is_counted_for_what_it_has),
        cmocka_unit_test(a_sample_is_one),
        cmocka_unit_test(what_cannot_be_read_is_counted_apart),
        cmocka_unit_test(a_feast_store_can_be_surveyed),
        cmocka_unit_test(what_cannot_be_surveyed_is_named),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
