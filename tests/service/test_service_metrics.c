/* What is counted of the ranking: each report in its families, and a real pipeline's calls. */
#include "service/service_metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/metrics_group.h"
#include "base/thread.h"
#include "tests/service/tiny_service.h"

typedef struct fixture {
    hr_metrics *registry;
    hr_service_metrics *metrics;
    const hr_pipeline_observer *observer;
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->registry = hr_metrics_create();
    assert_int_equal(hr_service_metrics_create(f->registry, &f->metrics, NULL), HR_OK);
    f->observer = hr_service_metrics_observer(f->metrics);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    hr_service_metrics_destroy(f->metrics);
    hr_metrics_destroy(f->registry);
    free(f);
    return 0;
}

/* *text is to be freed. */
static void print(const fixture *f, char **text) {
    size_t nbytes;
    assert_int_equal(hr_metrics_print(f->registry, text, &nbytes, NULL), HR_OK);
}

/* The sample's value, of all that is printed now; fails where there is none. */
static double value(const fixture *f, const char *sample) {
    char *text, line[256];
    print(f, &text);
    snprintf(line, sizeof line, "\n%s ", sample);
    const char *at = strstr(text, line);
    if (at == NULL) fail_msg("no %s in:\n%s", sample, text);
    double found = at == NULL ? 0 : strtod(at + strlen(line), NULL);
    free(text);
    return found;
}

static bool has(const fixture *f, const char *part) {
    char *text;
    print(f, &text);
    bool found = strstr(text, part) != NULL;
    free(text);
    return found;
}

#define assert_value(f, sample, expected)                                                                    \
    do {                                                                                                     \
        double found_ = value(f, sample);                                                                    \
        if (found_ != (expected)) fail_msg("%s: %.17g, expected %g", sample, found_, (double)(expected));    \
    } while (0)

static void tell(const fixture *f, hr_call_report report) {
    f->observer->call(f->observer->arg, &report);
}

#define HOME     "{model=\"home\",version=\"3\"}"
#define HOME_(l) "{model=\"home\",version=\"3\"," l "}"

static void an_answered_call_is_counted_with_its_stages(void **state) {
    fixture *f = *state;
    tell(f, (hr_call_report){.model = "home@3",
                             .n_items = 40,
                             .queue_ns = 2000,
                             .features_ns = 300000,
                             .encode_ns = 40000,
                             .model_ns = 5000000,
                             .total_ns = 5342000});
    assert_value(f, "homerank_requests_total" HOME_("code=\"OK\""), 1);
    assert_value(f, "homerank_items_total" HOME, 40);
    assert_value(f, "homerank_request_duration_seconds_sum" HOME, 0.005342);
    assert_value(f, "homerank_request_duration_seconds_bucket" HOME_("le=\"0.005\""), 0);
    assert_value(f, "homerank_request_duration_seconds_bucket" HOME_("le=\"0.01\""), 1);
    assert_value(f, "homerank_request_queue_seconds_bucket" HOME_("le=\"1e-05\""), 1);
    assert_value(f, "homerank_request_features_seconds_sum" HOME, 0.0003);
    assert_value(f, "homerank_request_encode_seconds_sum" HOME, 4e-05);
    assert_value(f, "homerank_request_model_seconds_sum" HOME, 0.005);
    assert_value(f, "homerank_requests_with_defaults_total", 0);
    assert_value(f, "homerank_deadline_misses_total{how=\"expired\"}", 0);
}

static void a_call_without_a_model_is_counted_by_its_code_alone(void **state) {
    fixture *f = *state;
    tell(f,
         (hr_call_report){.code = HR_NOT_FOUND, .refusal = HR_REFUSAL_INVALID, .n_items = 3, .total_ns = 9});
    tell(f, (hr_call_report){.code = HR_CANCELLED, .n_items = 3, .total_ns = 9});
    assert_value(f, "homerank_requests_total{model=\"\",version=\"\",code=\"NOT_FOUND\"}", 1);
    assert_value(f, "homerank_requests_total{model=\"\",version=\"\",code=\"CANCELLED\"}", 1);
    assert_value(f, "homerank_requests_refused_total{reason=\"invalid\"}", 1);
    assert_false(has(f, "homerank_request_duration_seconds_count{"));
    assert_false(has(f, "homerank_items_total{"));
}

static void a_refused_call_has_a_reason_and_no_duration(void **state) {
    fixture *f = *state;
    static const struct {
        hr_refusal refusal;
        hr_status code;
        const char *reason;
    } rows[] = {
        {HR_REFUSAL_INVALID, HR_INVALID_ARGUMENT, "invalid"},
        {HR_REFUSAL_CALLS, HR_RESOURCE_EXHAUSTED, "queue_calls"},
        {HR_REFUSAL_ITEMS, HR_RESOURCE_EXHAUSTED, "queue_items"},
        {HR_REFUSAL_WAIT, HR_RESOURCE_EXHAUSTED, "queue_wait"},
        {HR_REFUSAL_DEADLINE, HR_DEADLINE_EXCEEDED, "deadline"},
        {HR_REFUSAL_DRAINING, HR_UNAVAILABLE, "draining"},
    };
    _Static_assert(sizeof rows / sizeof rows[0] == HR_REFUSAL_COUNT - 1, "one row a reason");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char sample[96];
        snprintf(sample, sizeof sample, "homerank_requests_refused_total{reason=\"%s\"}", rows[i].reason);
        tell(f, (hr_call_report){
                    .code = rows[i].code, .refusal = rows[i].refusal, .model = "home@3", .total_ns = 9});
        assert_value(f, sample, 1);
    }
    assert_value(f, "homerank_requests_total" HOME_("code=\"RESOURCE_EXHAUSTED\""), 3);
    assert_value(f, "homerank_deadline_misses_total{how=\"refused\"}", 1);
    assert_value(f, "homerank_deadline_misses_total{how=\"expired\"}", 0);
    assert_value(f, "homerank_request_duration_seconds_count" HOME, 0);
}

static void a_stage_that_was_not_reached_is_not_observed(void **state) {
    fixture *f = *state;
    tell(f,
         (hr_call_report){
             .code = HR_DEADLINE_EXCEEDED, .model = "home@3", .n_items = 7, .features_ns = 5, .total_ns = 9});
    assert_value(f, "homerank_request_duration_seconds_count" HOME, 1);
    assert_value(f, "homerank_request_features_seconds_count" HOME, 1);
    assert_value(f, "homerank_request_model_seconds_count" HOME, 0);
    assert_value(f, "homerank_items_total" HOME, 0);
    assert_value(f, "homerank_deadline_misses_total{how=\"expired\"}", 1);
}

static void what_the_store_did_not_have_is_counted(void **state) {
    fixture *f = *state;
    tell(f, (hr_call_report){.model = "home@3",
                             .user_missing = true,
                             .store_failed = true,
                             .items_missing = 4,
                             .items_stale = 3,
                             .values_invalid = 2});
    tell(f, (hr_call_report){
                .code = HR_UNAVAILABLE, .model = "home@3", .store_failed = true, .items_missing = 1});
    tell(f, (hr_call_report){.model = "home@3", .items_stale = 1});
    assert_value(f, "homerank_store_errors_total", 2);
    assert_value(f, "homerank_records_missing_total{entity=\"user\"}", 1);
    assert_value(f, "homerank_records_missing_total{entity=\"item\"}", 5);
    assert_value(f, "homerank_records_stale_total", 4);
    assert_value(f, "homerank_values_invalid_total", 2);
    assert_value(f, "homerank_requests_with_defaults_total", 1);
}

static void a_batch_is_counted_for_its_model(void **state) {
    fixture *f = *state;
    const hr_batch_report report = {.model = "home@3", .n_rows = 500, .n_calls = 3, .forward_ns = 1000};
    f->observer->batch(f->observer->arg, &report);
    assert_value(f, "homerank_batch_rows_sum" HOME, 500);
    assert_value(f, "homerank_batch_rows_bucket" HOME_("le=\"256\""), 0);
    assert_value(f, "homerank_batch_rows_bucket" HOME_("le=\"512\""), 1);
    assert_value(f, "homerank_batch_calls_sum" HOME, 3);
    assert_value(f, "homerank_batch_forward_seconds_sum" HOME, 1e-06);
}

static void the_services_own_calls_are_counted_apart(void **state) {
    fixture *f = *state;
    tell(f,
         (hr_call_report){.model = "home@3", .priority = HR_CLASS_SHADOW, .total_ns = 9, .items_missing = 1});
    assert_value(f, "homerank_shadow_requests_total" HOME_("code=\"OK\""), 1);
    assert_value(f, "homerank_requests_total" HOME_("code=\"OK\""), 0);
    assert_value(f, "homerank_request_duration_seconds_count" HOME, 0);
    assert_value(f, "homerank_records_missing_total{entity=\"item\"}", 0);
}

static void versions_past_the_limit_share_a_series(void **state) {
    fixture *f = *state;
    assert_true(has(f, "code=\"OK\"")); /* "" has a place already */
    for (int i = 0; i < HR_METRIC_GROUP_MAX + 4; i++) {
        char label[32];
        snprintf(label, sizeof label, "home@%d", i + 1);
        tell(f, (hr_call_report){.model = label});
    }
    assert_value(f, "homerank_requests_total{model=\"home\",version=\"63\",code=\"OK\"}", 1);
    assert_value(f, "homerank_requests_total{model=\"@other\",version=\"\",code=\"OK\"}", 5);
    assert_false(has(f, "version=\"64\""));
}

enum { N_THREADS = 8, N_EACH = 2000 };

static void *tell_many(void *arg) {
    const fixture *f = arg;
    for (uint32_t i = 0; i < N_EACH; i++) {
        char label[32];
        snprintf(label, sizeof label, "home@%u", i % 5 + 1);
        tell(f, (hr_call_report){.code = i % 10 == 0 ? HR_CANCELLED : HR_OK,
                                 .model = label,
                                 .n_items = 2,
                                 .model_ns = 1000 + i,
                                 .total_ns = 2000 + i});
    }
    return NULL;
}

static void calls_told_by_many_threads_add_up(void **state) {
    fixture *f = *state;
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(hr_thread_start(&threads[i], "teller", tell_many, f, NULL), HR_OK);
    for (int i = 0; i < 20; i++) has(f, "homerank_requests_total");
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    assert_value(f, "homerank_requests_total{model=\"home\",version=\"1\",code=\"OK\"}",
                 N_THREADS * N_EACH / 10.0);
    assert_value(f, "homerank_requests_total{model=\"home\",version=\"1\",code=\"CANCELLED\"}",
                 N_THREADS * N_EACH / 10.0);
    assert_value(f, "homerank_requests_total{model=\"home\",version=\"2\",code=\"OK\"}",
                 N_THREADS * N_EACH / 5.0);
    assert_value(f, "homerank_items_total{model=\"home\",version=\"2\"}", N_THREADS * N_EACH / 5.0 * 2);
    assert_value(f, "homerank_request_duration_seconds_count{model=\"home\",version=\"5\"}",
                 N_THREADS * N_EACH / 5.0);
}

/* ---- A real pipeline ---- */

static void a_pipelines_calls_models_and_queue_are_told(void **state) {
    fixture *f = *state;
    tiny_service *s = NULL;
    hr_pipeline *pipeline = NULL;
    assert_int_equal(tiny_service_setup((void **)&s), 0);
    hr_pipeline_options options = tiny_pipeline_options;
    options.observer = f->observer;
    assert_int_equal(hr_pipeline_create(&options, s->repository, s->store, &pipeline, NULL), HR_OK);
    assert_false(has(f, "homerank_model_info"));
    hr_service_metrics_watch(f->metrics, s->repository, pipeline);
    assert_value(
        f, "homerank_model_info{model=\"tiny\",version=\"1\",backend=\"reference\",precision=\"f32\"}", 1);
    assert_value(f, "homerank_requests_total{model=\"tiny\",version=\"1\",code=\"OK\"}", 0);
    assert_value(f, "homerank_queue_requests", 0);

    hr_arena *arena = hr_arena_create(16 << 20);
    hr_rank_call call = {.deadline_ns = UINT64_MAX};
    const char *good = "{\"user_id\":\"u\",\"item_ids\":[\"a\",\"b\",\"c\"]}";
    const char *unknown = "{\"user_id\":\"u\",\"item_ids\":[\"a\"],\"model\":\"other\"}";
    assert_int_equal(tiny_rank(pipeline, tiny_request(arena, good), arena, &call), HR_OK);
    assert_int_equal(tiny_rank(pipeline, tiny_request(arena, unknown), arena, &call), HR_NOT_FOUND);
    assert_value(f, "homerank_requests_total{model=\"tiny\",version=\"1\",code=\"OK\"}", 1);
    assert_value(f, "homerank_requests_total{model=\"\",version=\"\",code=\"NOT_FOUND\"}", 1);
    assert_value(f, "homerank_items_total{model=\"tiny\",version=\"1\"}", 3);
    assert_value(f, "homerank_batch_rows_sum{model=\"tiny\",version=\"1\"}", 3);
    assert_value(f, "homerank_request_model_seconds_count{model=\"tiny\",version=\"1\"}", 1);
    assert_value(f, "homerank_records_missing_total{entity=\"item\"}", 3);
    assert_value(f, "homerank_queue_items", 0);
    hr_pipeline_destroy(pipeline);
    tiny_service_teardown((void **)&s);
    hr_arena_destroy(arena);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_answered_call_is_counted_with_its_stages),
        TEST(a_call_without_a_model_is_counted_by_its_code_alone),
        TEST(a_refused_call_has_a_reason_and_no_duration),
        TEST(a_stage_that_was_not_reached_is_not_observed),
        TEST(what_the_store_did_not_have_is_counted),
        TEST(a_batch_is_counted_for_its_model),
        TEST(the_services_own_calls_are_counted_apart),
        TEST(versions_past_the_limit_share_a_series),
        TEST(calls_told_by_many_threads_add_up),
        TEST(a_pipelines_calls_models_and_queue_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
