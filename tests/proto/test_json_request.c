/* Requests and values from JSON (DESIGN 5, "JSON form"): the mapping, table by table, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proto/json.h"

typedef Homerank__V1__RankRequest rank_request;
typedef Homerank__V1__FeatureValue feature_value;

static int make_arena(void **state) {
    *state = hr_arena_create(1 << 20);
    return *state == NULL;
}

static int destroy_arena(void **state) {
    hr_arena_destroy(*state);
    return 0;
}

static json_t *parse(const char *text) {
    hr_error err = {.message = ""};
    json_t *value = NULL;
    hr_json_parse(text, strlen(text), &value, &err);
    if (value == NULL) fail_msg("%s: %s", text, err.message);
    return value;
}

static const rank_request *request_of(hr_arena *arena, const char *text) {
    hr_error err = {.message = ""};
    rank_request *request = NULL;
    json_t *value = parse(text);
    hr_status status = hr_json_to_request(value, arena, &request, &err);
    json_decref(value);
    if (status != HR_OK) fail_msg("%s: %s", text, err.message);
    return request;
}

static void assert_refused(hr_arena *arena, const char *text, const char *message) {
    hr_error err = {.message = ""};
    rank_request *request = NULL;
    json_t *value = parse(text);
    hr_status status = hr_json_to_request(value, arena, &request, &err);
    json_decref(value);
    assert_string_equal(err.message, message);
    assert_int_equal(status, HR_INVALID_ARGUMENT);
}

/* A value as text: n:NUMBER, i:ID, [i:ID,...], [n:NUMBER,...], or none. */
static void describe(const feature_value *value, char *out, size_t size) {
    size_t n = 0;
    switch (value->kind_case) {
    case HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER: snprintf(out, size, "n:%.17g", value->number); break;
    case HOMERANK__V1__FEATURE_VALUE__KIND_ID: snprintf(out, size, "i:%s", value->id); break;
    case HOMERANK__V1__FEATURE_VALUE__KIND_IDS:
        n += (size_t)snprintf(out, size, "ids");
        for (size_t i = 0; i < value->ids->n_values; i++)
            n += (size_t)snprintf(out + n, size - n, "|%s", value->ids->values[i]);
        break;
    case HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS:
        n += (size_t)snprintf(out, size, "numbers");
        for (size_t i = 0; i < value->numbers->n_values; i++)
            n += (size_t)snprintf(out + n, size - n, "|%.17g", value->numbers->values[i]);
        break;
    default: snprintf(out, size, "none"); break;
    }
}

static void every_json_value_becomes_the_value_that_design_5_says(void **state) {
    static const struct {
        const char *json, *value;
    } rows[] = {
        {"\"abc\"", "i:abc"},
        {"\"7\"", "i:7"},
        {"\"1,2\"", "i:1,2"},
        {"\"\"", "i:"},
        {"\"caf\\u00e9\"", "i:caf\xC3\xA9"},
        {"7", "i:7"},
        {"-7", "i:-7"},
        {"0", "i:0"},
        {"-0", "i:0"},
        {"9223372036854775807", "i:9223372036854775807"},
        {"-9223372036854775808", "i:-9223372036854775808"},
        {"7.0", "n:7"},
        {"7e0", "n:7"},
        {"0.25", "n:0.25"},
        {"-1e300", "n:-1.0000000000000001e+300"},
        {"null", "none"},
        {"[]", "ids"},
        {"[\"a\", \"b\"]", "ids|a|b"},
        {"[1, 2, 3]", "ids|1|2|3"},
        {"[1, \"b\", null]", "ids|1|b|"},
        {"[1, null]", "ids|1|"},
        {"[null]", "ids|"},
        {"[\"a\", 7.0, 7e2, -0.0]", "ids|a|7|700|0"},
        {"[\"a\", 0.1, 1.5e-7]", "ids|a|0.1|1.5e-07"},
        {"[0.5, 1]", "numbers|0.5|1"},
        {"[1.0]", "numbers|1"},
        {"[0.5, null]", "numbers|0.5|nan"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[256], found[256];
        snprintf(text, sizeof text, "{\"context\": {\"f\": %s}}", rows[i].json);
        const rank_request *request = request_of(*state, text);
        assert_int_equal(request->n_context, 1);
        assert_string_equal(request->context[0]->key, "f");
        describe(request->context[0]->value, found, sizeof found);
        assert_string_equal(found, rows[i].value);
    }
}

static void all_keys_of_a_request_are_read(void **state) {
    const rank_request *request = request_of(
        *state, "{\"request_id\": \"r1\", \"user_id\": \"u1\", \"item_ids\": [\"a\", 2, \"a\"],"
                " \"context\": {\"tab\": 1, \"hour\": 13.5}, \"user_features\": {\"history\": [1, 2]},"
                " \"item_features\": [{\"x\": 1.5}, null, {}], \"top_k\": 10, \"model\": \"home@3\","
                " \"attributes\": {\"country\": \"de\", \"n\": [1, {\"a\": null}]},"
                " \"forced_variations\": {\"exp\": 2, \"other\": -1}, \"tasks\": [\"click\", \"like\"],"
                " \"priority\": 1, \"strict_features\": true}");
    assert_string_equal(request->request_id, "r1");
    assert_string_equal(request->user_id, "u1");
    assert_int_equal(request->n_item_ids, 3);
    assert_string_equal(request->item_ids[0], "a");
    assert_string_equal(request->item_ids[1], "2");
    assert_string_equal(request->item_ids[2], "a");
    assert_int_equal(request->n_context, 2);
    assert_string_equal(request->context[1]->key, "hour");
    assert_true(request->context[1]->value->number == 13.5);
    assert_int_equal(request->n_user_features, 1);
    assert_string_equal(request->user_features[0]->key, "history");
    assert_string_equal(request->user_features[0]->value->ids->values[1], "2");
    assert_int_equal(request->n_item_features, 3);
    assert_int_equal(request->item_features[0]->n_features, 1);
    assert_string_equal(request->item_features[0]->features[0]->key, "x");
    assert_true(request->item_features[0]->features[0]->value->number == 1.5);
    assert_int_equal(request->item_features[1]->n_features, 0);
    assert_int_equal(request->item_features[2]->n_features, 0);
    assert_int_equal(request->top_k, 10);
    assert_string_equal(request->model, "home@3");
    assert_string_equal(request->attributes, "{\"country\":\"de\",\"n\":[1,{\"a\":null}]}");
    assert_int_equal(request->n_forced_variations, 2);
    assert_string_equal(request->forced_variations[1]->key, "other");
    assert_int_equal(request->forced_variations[1]->value, -1);
    assert_int_equal(request->n_tasks, 2);
    assert_string_equal(request->tasks[1], "like");
    assert_int_equal(request->priority, 1);
    assert_true(request->strict_features);
}

static void what_is_read_can_go_over_the_wire(void **state) {
    const rank_request *request = request_of(
        *state, "{\"user_id\": 5, \"item_ids\": [1], \"context\": {\"a\": null, \"b\": [1.5, null]},"
                " \"user_features\": {\"c\": [\"x\", null]}, \"item_features\": [{\"d\": 2}]}");
    size_t nbytes = homerank__v1__rank_request__get_packed_size(request);
    uint8_t *bytes = hr_arena_alloc(*state, nbytes);
    assert_int_equal(homerank__v1__rank_request__pack(request, bytes), nbytes);
    rank_request *again = homerank__v1__rank_request__unpack(NULL, nbytes, bytes);
    assert_non_null(again);
    assert_string_equal(again->user_id, "5");
    assert_int_equal(again->context[0]->value->kind_case, HOMERANK__V1__FEATURE_VALUE__KIND__NOT_SET);
    assert_true(isnan(again->context[1]->value->numbers->values[1]));
    assert_string_equal(again->user_features[0]->value->ids->values[1], "");
    homerank__v1__rank_request__free_unpacked(again, NULL);
}

static void ids_may_be_integers_and_null_is_not_given(void **state) {
    const rank_request *request =
        request_of(*state, "{\"request_id\": 12, \"user_id\": -3, \"model\": null,"
                           " \"item_features\": null, \"attributes\": null, \"top_k\": null}");
    assert_string_equal(request->request_id, "12");
    assert_string_equal(request->user_id, "-3");
    assert_string_equal(request->model, "");
    assert_string_equal(request->attributes, "");
    assert_int_equal(request->n_item_features, 0);
    request = request_of(*state, "{}");
    assert_string_equal(request->user_id, "");
    assert_int_equal(request->n_item_ids, 0);
    assert_false(request->strict_features);
}

static void wrong_values_are_refused_by_key(void **state) {
    static const struct {
        const char *json, *message;
    } rows[] = {
        {"[]", "expected an object, found a list"},
        {"7", "expected an object, found 7"},
        {"{\"users\": 1}", "request: unknown key \"users\""},
        {"{\"\": 1}", "request: unknown key \"\""},
        {"{\"user_id\": 1.5}", "user_id: expected a string or an integer, found 1.5"},
        {"{\"user_id\": true}", "user_id: expected a string or an integer, found true"},
        {"{\"request_id\": {}}", "request_id: expected a string or an integer, found an object"},
        {"{\"item_ids\": \"a\"}", "item_ids: expected a list of ids, found \"a\""},
        {"{\"item_ids\": [\"a\", null]}", "item_ids[1]: expected a string or an integer, found null"},
        {"{\"item_ids\": [1, 2, [3]]}", "item_ids[2]: expected a string or an integer, found a list"},
        {"{\"context\": []}", "context: expected an object {feature: value}, found a list"},
        {"{\"context\": {\"f\": true}}",
         "context.f: expected a string, a number, a list or null, found true"},
        {"{\"context\": {\"f\": {}}}",
         "context.f: expected a string, a number, a list or null, found an object"},
        {"{\"context\": {\"a b\\n\": {}}}",
         "context[\"a b\\x0a\"]: expected a string, a number, a list or null, found an object"},
        {"{\"user_features\": {\"f\": [1, false]}}",
         "user_features.f[1]: expected a string, a number or null, found false"},
        {"{\"item_features\": {}}",
         "item_features: expected a list of objects {feature: value}, found an object"},
        {"{\"item_features\": [{}, 1]}", "item_features[1]: expected an object {feature: value}, found 1"},
        {"{\"item_features\": [{}, {}, {\"f\": [[]]}]}",
         "item_features[2].f[0]: expected a string, a number or null, found a list"},
        {"{\"top_k\": -1}", "top_k: expected an integer from 0 to 4294967295, found -1"},
        {"{\"top_k\": 4294967296}", "top_k: expected an integer from 0 to 4294967295, found 4294967296"},
        {"{\"top_k\": 1.0}", "top_k: expected an integer from 0 to 4294967295, found 1"},
        {"{\"priority\": \"1\"}", "priority: expected an integer from 0 to 4294967295, found \"1\""},
        {"{\"model\": 3}", "model: expected a string, found 3"},
        {"{\"attributes\": \"{}\"}", "attributes: expected an object, found \"{}\""},
        {"{\"forced_variations\": []}",
         "forced_variations: expected an object {experiment: variation}, found a list"},
        {"{\"forced_variations\": {\"e\": 2147483648}}",
         "forced_variations.e: expected a 32-bit integer, found 2147483648"},
        {"{\"forced_variations\": {\"e\": \"1\"}}",
         "forced_variations.e: expected a 32-bit integer, found \"1\""},
        {"{\"tasks\": [\"click\", 1]}", "tasks[1]: expected a string, found 1"},
        {"{\"tasks\": \"click\"}", "tasks: expected a list of task names, found \"click\""},
        {"{\"strict_features\": 1}", "strict_features: expected true or false, found 1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_refused(*state, rows[i].json, rows[i].message);
}

static void long_keys_and_texts_leave_the_error_one_whole_line(void **state) {
    char text[2000];
    size_t n = (size_t)snprintf(text, sizeof text, "{\"item_features\": [{\"");
    memset(text + n, 'k', 900);
    n += 900;
    snprintf(text + n, sizeof text - n, "\": [{}]}]}");
    hr_error err;
    rank_request *request;
    json_t *value = parse(text);
    assert_int_equal(hr_json_to_request(value, *state, &request, &err), HR_INVALID_ARGUMENT);
    json_decref(value);
    assert_non_null(
        strstr(err.message, "kkk...\"][0]: expected a string, a number or null, found an object"));
}

static void text_that_is_not_strict_json_is_refused_by_place(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t nbytes;
        const char *message;
    } rows[] = {
#define ROW(text, message) {text, sizeof text - 1, message}
        ROW("", "not valid JSON: at byte 0: unexpected token"),
        ROW("{\"a\": 1, \"a\": 2}", "not valid JSON: at byte 12: duplicate object key"),
        ROW("{} x", "not valid JSON: at byte 4: end of file expected"),
        ROW("{\"a\": \"\xFF\"}", "not valid JSON: at byte 7: unable to decode byte 0xff"),
        ROW("{\"a\": \"\\u0000\"}",
            "not valid JSON: at byte 14: \\u0000 is not allowed without JSON_ALLOW_NUL"),
        ROW("{\"a\0b\": 1}", "not valid JSON: at byte 3: control character 0x0"),
        ROW("{\"a\": 9223372036854775808}", "not valid JSON: at byte 25: too big integer"),
        ROW("{\"a\": 1e999}", "not valid JSON: at byte 11: real number overflow"),
        ROW("{\"a\": NaN}", "not valid JSON: at byte 9: invalid token"),
        ROW("{\"a\": \"\\ud800\"}", "not valid JSON: at byte 14: invalid Unicode '\\uD800'"),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        hr_error err = {.message = ""};
        json_t *value = NULL;
        assert_int_equal(hr_json_parse(rows[i].text, rows[i].nbytes, &value, &err), HR_INVALID_ARGUMENT);
        assert_null(value);
        assert_string_equal(err.message, rows[i].message);
    }
    static char deep[100000];
    memset(deep, '[', sizeof deep);
    hr_error err;
    json_t *value;
    assert_int_equal(hr_json_parse(deep, sizeof deep, &value, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "maximum parsing depth reached"));
}

static void every_smaller_arena_is_refused_without_harm(void **state) {
    (void)state;
    json_t *value =
        parse("{\"request_id\": 1, \"item_ids\": [1, \"b\"], \"context\": {\"a\": [1, 2], \"b\": [0.5]},"
              " \"user_features\": {\"c\": \"x\"}, \"item_features\": [{\"d\": 2}, {}],"
              " \"attributes\": {\"k\": [1]}, \"forced_variations\": {\"e\": 1}, \"tasks\": [\"t\"]}");
    size_t n_refused = 0;
    for (size_t cap = 0;; cap += 16) {
        hr_error err;
        rank_request *request;
        hr_arena *arena = hr_arena_create(cap);
        hr_status status = hr_json_to_request(value, arena, &request, &err);
        hr_arena_destroy(arena);
        if (status == HR_OK) break;
        assert_int_equal(status, HR_RESOURCE_EXHAUSTED);
        n_refused++;
    }
    assert_in_range(n_refused, 30, 1000);
    json_decref(value);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_arena, destroy_arena)
    const struct CMUnitTest tests[] = {
        TEST(every_json_value_becomes_the_value_that_design_5_says),
        TEST(all_keys_of_a_request_are_read),
        TEST(what_is_read_can_go_over_the_wire),
        TEST(ids_may_be_integers_and_null_is_not_given),
        TEST(wrong_values_are_refused_by_key),
        TEST(long_keys_and_texts_leave_the_error_one_whole_line),
        TEST(text_that_is_not_strict_json_is_refused_by_place),
        TEST(every_smaller_arena_is_refused_without_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
