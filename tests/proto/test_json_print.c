/* Records and answers as JSON. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/json.h"

/* Takes value's reference. */
static void assert_json(json_t *value, size_t flags, const char *expected) {
    assert_non_null(value);
    char *text = json_dumps(value, flags);
    json_decref(value);
    assert_string_equal(text, expected);
    free(text);
}

/* Reads {"f": value} as a record and prints it. */
static json_t *there_and_back(hr_arena *arena, const char *text) {
    hr_error err;
    json_t *value = NULL;
    Homerank__V1__FeatureMap *map = NULL;
    assert_int_equal(hr_json_parse(text, strlen(text), &value, &err), HR_OK);
    assert_int_equal(hr_json_to_features(value, arena, &map, &err), HR_OK);
    json_decref(value);
    return hr_json_from_features(map);
}

static void a_loaded_record_prints_as_it_was(void **state) {
    (void)state;
    static const char *const records[] = {
        "{}",
        "{\"a\":7,\"b\":-7,\"c\":0,\"d\":9223372036854775807,\"e\":-9223372036854775808}",
        "{\"a\":\"abc\",\"b\":\"007\",\"c\":\"-0\",\"d\":\"1.5\",\"e\":\"\",\"f\":\"9223372036854775808\","
        "\"g\":\"+1\",\"h\":\"-\"}",
        "{\"a\":0.25,\"b\":7.0,\"c\":-1.5e-7,\"d\":1e300}",
        "{\"a\":null}",
        "{\"a\":[],\"b\":[1,2,null],\"c\":[\"a\",\"7\",null],\"d\":[\"007\"]}",
        "{\"a\":[0.5,1.0,null],\"b\":[1.0]}",
        "{\"caf\xC3\xA9 \\\"x\\\"\":\"\xF0\x9F\x98\x80\"}",
    };
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        hr_arena *arena = hr_arena_create(1 << 16);
        json_t *expected = json_loads(records[i], 0, NULL), *found = there_and_back(arena, records[i]);
        if (!json_equal(expected, found))
            fail_msg("%s became %s", records[i], json_dumps(found, JSON_COMPACT));
        json_decref(expected);
        json_decref(found);
        hr_arena_destroy(arena);
    }
}

static void integers_in_strings_and_values_that_json_lacks_are_printed_plainly(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 16);
    assert_json(there_and_back(arena, "{\"a\":\"7\",\"b\":[\"1\",2],\"c\":[\"1\",\"x\"],\"d\":[null,null]}"),
                JSON_COMPACT, "{\"a\":7,\"b\":[1,2],\"c\":[\"1\",\"x\"],\"d\":[null,null]}");
    Homerank__V1__FeatureValue number = HOMERANK__V1__FEATURE_VALUE__INIT;
    number.kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER;
    number.number = (double)NAN;
    Homerank__V1__FeatureMap__FeaturesEntry entries[3] = {HOMERANK__V1__FEATURE_MAP__FEATURES_ENTRY__INIT,
                                                          HOMERANK__V1__FEATURE_MAP__FEATURES_ENTRY__INIT,
                                                          HOMERANK__V1__FEATURE_MAP__FEATURES_ENTRY__INIT};
    Homerank__V1__FeatureMap__FeaturesEntry *list[] = {&entries[0], &entries[1], &entries[2]};
    entries[0].key = "nan", entries[0].value = &number;
    entries[1].key = "absent"; /* an entry without a value on the wire */
    entries[2].key = "nan", entries[2].value = &number;
    Homerank__V1__FeatureMap map = HOMERANK__V1__FEATURE_MAP__INIT;
    map.n_features = 3, map.features = list;
    assert_json(hr_json_from_features(&map), JSON_COMPACT, "{\"nan\":null,\"absent\":null}");
    hr_arena_destroy(arena);
}

static void make_response(Homerank__V1__RankResponse *response) {
    static char *items[] = {"b", "a"}, *tasks[] = {"click", "like"};
    static float scores[] = {0.1f, NAN}, task_scores[] = {0.1f, 1.0f, INFINITY, 16777217.0f / 3};
    homerank__v1__rank_response__init(response);
    response->request_id = "r\"1";
    response->model = "home@3";
    response->n_item_ids = 2, response->item_ids = items;
    response->n_scores = 2, response->scores = scores;
    response->n_tasks = 2, response->tasks = tasks;
    response->n_task_scores = 4, response->task_scores = task_scores;
}

static void an_answer_lists_its_items_best_first(void **state) {
    (void)state;
    Homerank__V1__RankResponse response;
    make_response(&response);
    assert_json(hr_json_from_response(&response, false), HR_JSON_RESPONSE_FLAGS,
                "{\"request_id\":\"r\\\"1\",\"model\":\"home@3\",\"items\":["
                "{\"item_id\":\"b\",\"score\":0.100000001,\"tasks\":{\"click\":0.100000001,\"like\":1.0}},"
                "{\"item_id\":\"a\",\"score\":null,\"tasks\":{\"click\":null,\"like\":5592405.5}}]}");
}

static void details_are_given_on_demand(void **state) {
    (void)state;
    Homerank__V1__RankResponse response = HOMERANK__V1__RANK_RESPONSE__INIT;
    Homerank__V1__Assignment assignment = HOMERANK__V1__ASSIGNMENT__INIT, *assignments[] = {&assignment};
    Homerank__V1__FeatureStatus status = HOMERANK__V1__FEATURE_STATUS__INIT;
    Homerank__V1__Timing timing = HOMERANK__V1__TIMING__INIT;
    char *warnings[] = {"a score is not finite"};
    assignment.experiment = "exp", assignment.variation = 1, assignment.bucket = 0.25;
    assignment.in_experiment = 1, assignment.variation_key = "treatment";
    status.user_found = 1, status.items_missing = 2, status.items_stale = 3, status.values_invalid = 4;
    status.store_error = "down";
    timing.queue_us = 1, timing.features_us = 2, timing.model_us = 3, timing.total_us = UINT64_MAX;
    response.n_experiments = 1, response.experiments = assignments;
    response.features = &status, response.timing = &timing;
    response.n_warnings = 1, response.warnings = warnings;
    assert_json(
        hr_json_from_response(&response, true), HR_JSON_RESPONSE_FLAGS,
        "{\"request_id\":\"\",\"model\":\"\",\"items\":[],\"experiments\":[{\"experiment\":\"exp\","
        "\"variation\":1,"
        "\"bucket\":0.25,\"in_experiment\":true,\"variation_key\":\"treatment\"}],\"features\":{\"user_"
        "found\":true,"
        "\"items_missing\":2,\"items_stale\":3,\"values_invalid\":4,\"store_error\":\"down\"},"
        "\"timing\":{\"queue_us\":1,\"features_us\":2,\"model_us\":3,\"total_us\":9223372036854775807},"
        "\"warnings\":[\"a score is not finite\"]}");
}

static void lists_that_do_not_fit_each_other_are_null_where_short(void **state) {
    (void)state;
    Homerank__V1__RankResponse response;
    make_response(&response);
    response.n_scores = 1;
    response.n_task_scores = 3;
    assert_json(hr_json_from_response(&response, false), HR_JSON_RESPONSE_FLAGS,
                "{\"request_id\":\"r\\\"1\",\"model\":\"home@3\",\"items\":["
                "{\"item_id\":\"b\",\"score\":0.100000001,\"tasks\":{\"click\":0.100000001,\"like\":1.0}},"
                "{\"item_id\":\"a\",\"score\":null,\"tasks\":{\"click\":null,\"like\":null}}]}");
}

static void nine_digits_give_every_float_back(void **state) {
    (void)state;
    uint32_t bits = 1;
    for (int i = 0; i < 20000; i++) {
        bits = bits * 1664525u + 1013904223u;
        float value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value)) continue;
        char text[64];
        json_t *number = json_real((double)value);
        text[json_dumpb(number, text, sizeof text - 1, HR_JSON_RESPONSE_FLAGS | JSON_ENCODE_ANY)] = '\0';
        json_decref(number);
        assert_true((float)strtod(text, NULL) == value);
    }
}

static int n_allocations_left;

static void *limited_malloc(size_t nbytes) {
    return n_allocations_left-- > 0 ? malloc(nbytes) : NULL;
}

static void out_of_memory_is_null_and_leaks_nothing(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 16);
    const char *text = "{\"a\":[1,2],\"b\":[0.5],\"c\":\"x\",\"d\":1.5}";
    hr_error err;
    json_t *value, *printed = NULL;
    Homerank__V1__FeatureMap *map;
    Homerank__V1__RankResponse response;
    make_response(&response);
    assert_int_equal(hr_json_parse(text, strlen(text), &value, &err), HR_OK);
    assert_int_equal(hr_json_to_features(value, arena, &map, &err), HR_OK);
    json_decref(value);
    json_set_alloc_funcs(limited_malloc, free);
    int n_failures = 0;
    for (int limit = 0; printed == NULL; limit++) {
        n_allocations_left = limit;
        printed = hr_json_from_features(map);
        n_failures += printed == NULL;
    }
    json_decref(printed);
    printed = NULL;
    for (int limit = 0; printed == NULL; limit++) {
        n_allocations_left = limit;
        printed = hr_json_from_response(&response, true);
        n_failures += printed == NULL;
    }
    json_decref(printed);
    json_set_alloc_funcs(malloc, free);
    assert_true(n_failures > 30);
    hr_arena_destroy(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loaded_record_prints_as_it_was),
        cmocka_unit_test(integers_in_strings_and_values_that_json_lacks_are_printed_plainly),
        cmocka_unit_test(an_answer_lists_its_items_best_first),
        cmocka_unit_test(details_are_given_on_demand),
        cmocka_unit_test(lists_that_do_not_fit_each_other_are_null_where_short),
        cmocka_unit_test(nine_digits_give_every_float_back),
        cmocka_unit_test(out_of_memory_is_null_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
