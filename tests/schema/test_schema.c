/* The schema: what config.json may say of tables and features, and the layout that follows (MODEL.md 3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema/schema.h"

/* MODEL.md's own example. */
static const char example_tables[] = "{\"user\": {\"rows\": 20000, \"dim\": 16, \"index\": \"hash\"},"
                                     " \"video\": {\"rows\": 8001, \"dim\": 16, \"index\": \"direct\"},"
                                     " \"age\": {\"rows\": 6, \"dim\": 4, \"index\": \"direct\"},"
                                     " \"tab\": {\"rows\": 16, \"dim\": 8, \"index\": \"direct\"}}";
static const char example_features[] =
    "[{\"name\": \"user_id\", \"entity\": \"user\", \"kind\": \"id\", \"table\": \"user\"},"
    " {\"name\": \"history\", \"entity\": \"user\", \"kind\": \"ids\", \"table\": \"video\", \"pool\": "
    "\"sum\","
    "  \"max_length\": 20},"
    " {\"name\": \"video_id\", \"entity\": \"item\", \"field\": \"item_id\", \"kind\": \"id\", \"table\": "
    "\"video\"},"
    " {\"name\": \"duration\", \"entity\": \"item\", \"kind\": \"number\", \"log1p\": true, \"mean\": 10.2, "
    "\"std\": 1.1},"
    " {\"name\": \"age_days\", \"entity\": \"item\", \"kind\": \"bucket\", \"boundaries\": [1, 3, 7, 30],"
    "  \"table\": \"age\"},"
    " {\"name\": \"vision\", \"entity\": \"item\", \"kind\": \"numbers\", \"length\": 64},"
    " {\"name\": \"tab\", \"entity\": \"context\", \"kind\": \"id\", \"table\": \"tab\"}]";

static hr_status create(const char *tables, const char *features, hr_schema **schema, hr_error *err) {
    json_t *tables_json = json_loads(tables, JSON_DECODE_ANY, NULL);
    json_t *features_json = json_loads(features, JSON_DECODE_ANY, NULL);
    assert_non_null(tables_json);
    assert_non_null(features_json);
    hr_status status = hr_schema_create(tables_json, features_json, schema, err);
    json_decref(tables_json);
    json_decref(features_json);
    return status;
}

static hr_schema *create_ok(const char *tables, const char *features) {
    hr_schema *schema;
    hr_error err = {0};
    if (create(tables, features, &schema, &err) != HR_OK) fail_msg("%s", err.message);
    return schema;
}

static void the_example_is_read_in_full(void **state) {
    (void)state;
    hr_schema *schema = create_ok(example_tables, example_features);
    assert_int_equal(schema->n_tables, 4);
    assert_int_equal(schema->n_features, 7);
    const hr_feature *history = &schema->features[1], *duration = &schema->features[3];
    assert_string_equal(schema->tables[history->table].name, "video");
    assert_int_equal(schema->tables[history->table].rows, 8001);
    assert_int_equal(schema->tables[history->table].index, HR_INDEX_DIRECT);
    assert_int_equal(history->pool, HR_POOL_SUM);
    assert_int_equal(history->max_length, 20);
    assert_string_equal(schema->features[2].name, "video_id");
    assert_string_equal(schema->features[2].field, "item_id");
    assert_string_equal(duration->field, "duration");
    assert_true(duration->log1p && duration->mean == 10.2 && duration->std == 1.1);
    assert_int_equal(schema->features[4].n_boundaries, 4);
    assert_true(schema->features[4].boundaries[3] == 30);
    assert_int_equal(schema->features[5].length, 64);
    assert_int_equal(schema->features[6].entity, HR_ENTITY_CONTEXT);
    hr_schema_destroy(schema);
}

static void words_of_a_row_and_elements_of_v_follow_the_features_order(void **state) {
    (void)state;
    hr_schema *schema = create_ok(example_tables, example_features);
    static const struct {
        uint32_t slot, vector_offset, width;
    } expected[] = {{0, 0, 16}, {1, 16, 16}, {0, 32, 16}, {0, 48, 1}, {1, 49, 4}, {1, 53, 64}, {0, 117, 8}};
    for (uint32_t i = 0; i < schema->n_features; i++) {
        assert_int_equal(schema->features[i].slot, expected[i].slot);
        assert_int_equal(schema->features[i].vector_offset, expected[i].vector_offset);
        assert_int_equal(schema->features[i].width, expected[i].width);
    }
    assert_int_equal(schema->width, 125);
    assert_int_equal(schema->rows[HR_ENTITY_USER].n_index, 1 + 1 + 20);
    assert_int_equal(schema->rows[HR_ENTITY_USER].n_dense, 0);
    assert_int_equal(schema->rows[HR_ENTITY_ITEM].n_index, 2);
    assert_int_equal(schema->rows[HR_ENTITY_ITEM].n_dense, 65);
    assert_int_equal(hr_row_words(schema, HR_ENTITY_CONTEXT), 1);
    hr_schema_destroy(schema);
}

static void defaults_are_the_pages(void **state) {
    (void)state;
    hr_schema *schema =
        create_ok("{\"t\": {\"rows\": 2, \"dim\": 1, \"index\": \"hash\"}}",
                  "[{\"name\": \"a\", \"entity\": \"user\", \"kind\": \"ids\", \"table\": \"t\"},"
                  " {\"name\": \"b\", \"entity\": \"user\", \"kind\": \"number\"},"
                  " {\"name\": \"c\", \"entity\": \"user\", \"kind\": \"bucket\","
                  "  \"boundaries\": [], \"table\": \"t\"}]");
    assert_int_equal(schema->features[0].pool, HR_POOL_MEAN);
    assert_int_equal(schema->features[0].max_length, 50);
    assert_false(schema->features[1].log1p);
    assert_true(schema->features[1].mean == 0 && schema->features[1].std == 1);
    assert_int_equal(schema->features[2].n_boundaries, 0);
    hr_schema_destroy(schema);
}

#define TABLE(rows)   "{\"t\": {\"rows\": " rows ", \"dim\": 4, \"index\": \"hash\"}}"
#define FEATURE(rest) "[{\"name\": \"f\", \"entity\": \"item\", " rest "}]"
#define ID            "\"kind\": \"id\", \"table\": \"t\""

static void what_is_wrong_is_refused_and_named(void **state) {
    (void)state;
    static const struct {
        const char *tables, *features, *message;
    } cases[] = {
        {"[]", "[]", "tables: expected an object, found an array"},
        {"{\"1t\": {}}", "[]", "tables: expected a name [A-Za-z_][A-Za-z0-9_-]*, found \"1t\""},
        {"{\"t\": 3}", "[]", "tables \"t\": expected an object, found 3"},
        {"{\"t\": {\"rows\": 2, \"dim\": 1}}", "[]",
         "tables \"t\": index: expected hash or direct, found nothing"},
        {"{\"t\": {\"rows\": 2, \"dim\": 1, \"index\": \"hash\", \"init\": 0}}", "[]",
         "tables \"t\": unknown key \"init\", expected rows, dim or index"},
        {TABLE("1"), "[]", "tables \"t\": rows: expected an integer from 2 to 2147483647, found 1"},
        {TABLE("2147483648"), "[]",
         "tables \"t\": rows: expected an integer from 2 to 2147483647, found 2147483648"},
        {TABLE("3.0"), "[]", "tables \"t\": rows: expected an integer from 2 to 2147483647, found 3.0"},
        {"{\"t\": {\"rows\": 2, \"dim\": 0, \"index\": \"hash\"}}", "[]",
         "tables \"t\": dim: expected an integer from 1 to 65536, found 0"},
        {"{\"t\": {\"rows\": 2, \"dim\": 1, \"index\": \"Hash\"}}", "[]",
         "tables \"t\": index: expected hash or direct, found \"Hash\""},
        {TABLE("9"), "{}", "features: expected an array, found an object"},
        {TABLE("9"), "[]", "features: expected 1 to 65536 features, found 0"},
        {TABLE("9"), "[3]", "features[0]: expected an object, found 3"},
        {TABLE("9"), "[{\"name\": \"f\"}]",
         "features[0] \"f\": kind: expected id, ids, number, bucket or numbers, found nothing"},
        {TABLE("9"), FEATURE("\"kind\": \"text\""),
         "features[0] \"f\": kind: expected id, ids, number, bucket or numbers, found \"text\""},
        {TABLE("9"), "[{\"kind\": \"id\", \"entity\": \"item\", \"table\": \"t\"}]",
         "features[0]: name: expected a name [A-Za-z_][A-Za-z0-9_-]*, found nothing"},
        {TABLE("9"), "[{\"name\": \"a b\", \"kind\": \"id\", \"entity\": \"item\", \"table\": \"t\"}]",
         "features[0] \"a b\": name: expected a name [A-Za-z_][A-Za-z0-9_-]*, found \"a b\""},
        {TABLE("9"), "[{\"name\": \"f\", \"kind\": \"id\", \"entity\": \"video\", \"table\": \"t\"}]",
         "features[0] \"f\": entity: expected user, item or context, found \"video\""},
        {TABLE("9"), FEATURE("\"kind\": \"id\""),
         "features[0] \"f\": table: expected a name [A-Za-z_][A-Za-z0-9_-]*, found nothing"},
        {TABLE("9"), FEATURE("\"kind\": \"id\", \"table\": \"u\""),
         "features[0] \"f\": table: expected the name of one of tables, found \"u\""},
        {TABLE("9"), FEATURE(ID ", \"field\": \"\""),
         "features[0] \"f\": field: expected a non-empty string, found \"\""},
        {TABLE("9"), FEATURE(ID ", \"pool\": \"mean\""),
         "features[0] \"f\": unknown key \"pool\", expected name, entity, field, kind or table"},
        {TABLE("9"), FEATURE("\"kind\": \"ids\", \"table\": \"t\", \"max_length\": 0"),
         "features[0] \"f\": max_length: expected an integer from 1 to 100000, found 0"},
        {TABLE("9"), FEATURE("\"kind\": \"ids\", \"table\": \"t\", \"pool\": \"max\""),
         "features[0] \"f\": pool: expected mean or sum, found \"max\""},
        {TABLE("9"), FEATURE("\"kind\": \"number\", \"table\": \"t\""),
         "features[0] \"f\": unknown key \"table\", expected name, entity, field, kind, log1p, mean or std"},
        {TABLE("9"), FEATURE("\"kind\": \"number\", \"std\": 0"),
         "features[0] \"f\": std: expected a finite number > 0, found 0"},
        {TABLE("9"), FEATURE("\"kind\": \"number\", \"std\": -1"),
         "features[0] \"f\": std: expected a finite number > 0, found -1"},
        {TABLE("9"), FEATURE("\"kind\": \"number\", \"mean\": \"1\""),
         "features[0] \"f\": mean: expected a finite number, found \"1\""},
        {TABLE("9"), FEATURE("\"kind\": \"number\", \"log1p\": 1"),
         "features[0] \"f\": log1p: expected true or false, found 1"},
        {TABLE("9"), FEATURE("\"kind\": \"bucket\", \"table\": \"t\""),
         "features[0] \"f\": boundaries: expected an array, found nothing"},
        {TABLE("9"), FEATURE("\"kind\": \"bucket\", \"table\": \"t\", \"boundaries\": [1, null]"),
         "features[0] \"f\": boundaries: expected a finite number, found null"},
        {TABLE("9"), FEATURE("\"kind\": \"bucket\", \"table\": \"t\", \"boundaries\": [1, 2, 2.0]"),
         "features[0] \"f\": boundaries: expected strictly increasing numbers, found 2.0 after 2"},
        {TABLE("4"), FEATURE("\"kind\": \"bucket\", \"table\": \"t\", \"boundaries\": [1, 2, 3]"),
         "features[0] \"f\": table: expected at least 5 rows for 3 boundaries, found 4 in \"t\""},
        {TABLE("9"), FEATURE("\"kind\": \"bucket\", \"table\": \"t\", \"boundaries\": [1], \"length\": 2"),
         "features[0] \"f\": unknown key \"length\", expected name, entity, field, kind, boundaries or "
         "table"},
        {TABLE("9"), FEATURE("\"kind\": \"numbers\""),
         "features[0] \"f\": length: expected an integer from 1 to 65536, found nothing"},
        {TABLE("9"), FEATURE("\"kind\": \"numbers\", \"length\": 65537"),
         "features[0] \"f\": length: expected an integer from 1 to 65536, found 65537"},
        {TABLE("9"),
         "[{\"name\": \"f\", \"entity\": \"item\", " ID "}, {\"name\": \"g\", \"entity\": \"item\", " ID
         "}, {\"name\": \"f\", \"entity\": \"user\", " ID "}]",
         "features: expected unique names, found \"f\" twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        hr_schema *schema = NULL;
        hr_error err = {0};
        assert_int_equal(create(cases[i].tables, cases[i].features, &schema, &err), HR_INVALID_ARGUMENT);
        assert_null(schema);
        assert_string_equal(err.message, cases[i].message);
    }
}

static void sums_past_the_bounds_are_refused(void **state) {
    (void)state;
    json_t *tables = json_object(), *features = json_array();
    hr_schema *schema;
    hr_error err;
    for (int i = 0; i < 17; i++) {
        if (i == 16) assert_int_equal(hr_schema_create(tables, features, &schema, &err), HR_OK);
        if (i == 16) hr_schema_destroy(schema);
        json_array_append_new(features,
                              json_pack("{s:o, s:s, s:s, s:i}", "name", json_sprintf("f%d", i), "entity",
                                        i % 2 ? "user" : "item", "kind", "numbers", "length", 65536));
    }
    assert_int_equal(hr_schema_create(tables, features, &schema, &err), HR_INVALID_ARGUMENT);
    assert_non_null(
        strstr(err.message, "features[16] \"f16\": expected a vector of at most 1048576 elements"));
    json_decref(features);
    json_decref(tables);
}

static void fingerprints_are_equal_exactly_where_schemas_are(void **state) {
    (void)state;
    static const char tables[] = "{\"a\": {\"rows\": 9, \"dim\": 2, \"index\": \"hash\"},"
                                 " \"b\": {\"rows\": 9, \"dim\": 2, \"index\": \"hash\"}}";
    static const char features[] =
        "[{\"name\": \"f\", \"entity\": \"item\", \"kind\": \"ids\", \"table\": \"a\"},"
        " {\"name\": \"g\", \"entity\": \"item\", \"kind\": \"number\", \"mean\": 0}]";
    static const char same_tables[] = "{\"b\": {\"rows\": 9, \"index\": \"hash\", \"dim\": 2},"
                                      " \"a\": {\"rows\": 9, \"dim\": 2, \"index\": \"hash\"}}";
    static const char same_features[] =
        "[{\"name\": \"f\", \"entity\": \"item\", \"kind\": \"ids\", \"table\": \"a\", \"max_length\": 50,"
        "  \"pool\": \"mean\", \"field\": \"f\"},"
        " {\"name\": \"g\", \"entity\": \"item\", \"kind\": \"number\", \"mean\": -0.0, \"std\": 1.0, "
        "\"log1p\": false}]";
    /* One text of the schema for another. */
    static const char *const changes[][2] = {
        {"\"rows\": 9", "\"rows\": 8"},
        {"\"dim\": 2", "\"dim\": 3"},
        {"\"hash\"", "\"direct\""},
        {"\"name\": \"f\"", "\"name\": \"h\""},
        {"\"entity\": \"item\"", "\"entity\": \"user\""},
        {"\"table\": \"a\"", "\"table\": \"b\""},
        {"\"mean\": 0", "\"mean\": 1"},
        {"\"mean\": 0", "\"std\": 2"},
        {"\"mean\": 0", "\"log1p\": true"},
        {"\"table\": \"a\"", "\"table\": \"a\", \"pool\": \"sum\""},
        {"\"table\": \"a\"", "\"table\": \"a\", \"max_length\": 51"},
        {"\"table\": \"a\"", "\"table\": \"a\", \"field\": \"x\""},
    };
    hr_schema *first = create_ok(tables, features), *second = create_ok(same_tables, same_features);
    assert_true(first->fingerprint == second->fingerprint);
    hr_schema_destroy(second);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char text[2][sizeof features + sizeof tables];
        const char *from[2] = {tables, features};
        for (int j = 0; j < 2; j++) {
            const char *at = strstr(from[j], changes[i][0]);
            if (at == NULL) at = from[j] + strlen(from[j]);
            bool found = *at != '\0';
            snprintf(text[j], sizeof text[j], "%.*s%s%s", (int)(at - from[j]), from[j],
                     found ? changes[i][1] : "", found ? at + strlen(changes[i][0]) : "");
        }
        second = create_ok(text[0], text[1]);
        assert_true(first->fingerprint != second->fingerprint);
        hr_schema_destroy(second);
    }
    hr_schema_destroy(first);
}

static void the_kuairand_model_reads_376_elements(void **state) {
    (void)state;
    const char *shared = getenv("HOMERANK_SHARED");
    if (shared == NULL) skip();
    char path[4096];
    snprintf(path, sizeof path, "%s/models/kuairand/1/config.json", shared);
    json_error_t json_error;
    json_t *config = json_load_file(path, JSON_REJECT_DUPLICATES, &json_error);
    if (config == NULL) fail_msg("%s: %s", path, json_error.text);
    hr_schema *schema;
    hr_error err;
    if (hr_schema_create(json_object_get(config, "tables"), json_object_get(config, "features"), &schema,
                         &err) != HR_OK)
        fail_msg("%s", err.message);
    json_decref(config);
    assert_int_equal(schema->width, 376);
    hr_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_read_in_full),
        cmocka_unit_test(words_of_a_row_and_elements_of_v_follow_the_features_order),
        cmocka_unit_test(defaults_are_the_pages),
        cmocka_unit_test(what_is_wrong_is_refused_and_named),
        cmocka_unit_test(sums_past_the_bounds_are_refused),
        cmocka_unit_test(fingerprints_are_equal_exactly_where_schemas_are),
        cmocka_unit_test(the_kuairand_model_reads_376_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
