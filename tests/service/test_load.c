/* Properties of the load generator's parts that need no server: its plan, its draws, its requests, its
 * counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> /* after what it needs */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/homerank.pb-c.h"
#include "service/load_answer.h"
#include "service/load_plan.h"
#include "service/load_random.h"
#include "service/load_requests.h"
#include "service/load_stats.h"
#include "service/load_text.h"

static const hr_load_requests_options DEFAULTS = {
    .in = "",
    .sizes = "3",
    .item_ids = "v0..v9",
    .users = "u5..u7",
    .zipf = "1",
    .n_requests = 10,
    .seed = 1,
    .model = "",
};

/* ---- Texts ---- */

static void phases_follow_each_other_behind_a_warm_up(void **state) {
    (void)state;
    hr_load_plan plan = {0};
    hr_error err;
    assert_int_equal(hr_load_plan_read_phases(&plan, "70:10,200:0.5,0:2", 3, &err), HR_OK);
    assert_int_equal(plan.n_phases, 4);
    assert_true(plan.phases[0].warm_up);
    assert_float_equal(plan.phases[0].rate, 70, 0);
    assert_int_equal(plan.phases[1].begin_ns, 3000000000);
    assert_int_equal(plan.phases[2].end_ns, 13500000000);
    assert_int_equal(hr_load_plan_end_ns(&plan), 15500000000);
    assert_int_equal(hr_load_plan_phase_at(&plan, 0), 0);
    assert_int_equal(hr_load_plan_phase_at(&plan, 2999999999), 0);
    assert_int_equal(hr_load_plan_phase_at(&plan, 3000000000), 1);
    assert_int_equal(hr_load_plan_phase_at(&plan, UINT64_MAX), 3);
}

static void phases_of_a_wrong_form_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",      "70",    "70:",       ":5",        "70:0",    "-1:5",           "1e3:5",
        "inf:5", "70:5,", "70:5;80:5", "2000000:1", "1:90000", "1:80000,1:80000"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        hr_load_plan plan = {0};
        hr_error err;
        if (hr_load_plan_read_phases(&plan, bad[i], 0, &err) != HR_INVALID_ARGUMENT) fail_msg("%s", bad[i]);
        assert_non_null(strstr(err.message, "expected"));
    }
}

static void a_range_gives_its_ids(void **state) {
    (void)state;
    hr_load_range range;
    hr_error err;
    char id[HR_LOAD_ID_SIZE];
    assert_int_equal(hr_load_read_range("item-98..item-101", &range, &err), HR_OK);
    assert_int_equal(range.n, 4);
    hr_load_range_id(&range, 3, id);
    assert_string_equal(id, "item-101");
    assert_int_equal(hr_load_read_range("7..7", &range, &err), HR_OK);
    hr_load_range_id(&range, 0, id);
    assert_string_equal(id, "7");
}

static void a_range_of_a_wrong_form_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",         "v0",      "v0..",  "..v9",    "v0..w9",        "v9..v0",
                                      "v00..v09", "v0..v9x", "v..v9", "v0...v9", "v0..v99999999", "v0..9"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        hr_load_range range;
        hr_error err;
        if (hr_load_read_range(bad[i], &range, &err) != HR_INVALID_ARGUMENT) fail_msg("%s", bad[i]);
    }
}

/* ---- Draws ---- */

static void zipf_draws_have_their_probabilities(void **state) {
    (void)state;
    enum { N = 50, DRAWS = 200000 };
    static const double exponents[] = {0, 0.5, 1, 2};
    for (size_t e = 0; e < sizeof exponents / sizeof exponents[0]; e++) {
        hr_load_random random = {.state = 7};
        hr_load_zipf zipf;
        hr_load_zipf_init(&zipf, N, exponents[e]);
        double counts[N] = {0}, sum = 0;
        for (int i = 0; i < DRAWS; i++) {
            uint64_t k = hr_load_zipf_draw(&zipf, &random);
            assert_true(k < N);
            counts[k]++;
        }
        for (int k = 0; k < N; k++) sum += pow(k + 1, -exponents[e]);
        for (int k = 0; k < N; k++) {
            double expected = DRAWS * pow(k + 1, -exponents[e]) / sum;
            if (fabs(counts[k] - expected) > 5 * sqrt(expected) + 1)
                fail_msg("exponent %g: %d drawn %g times, expected %g", exponents[e], k, counts[k], expected);
        }
    }
}

static void a_single_item_is_always_drawn(void **state) {
    (void)state;
    hr_load_random random = {.state = 1};
    hr_load_zipf zipf;
    hr_load_zipf_init(&zipf, 1, 1);
    for (int i = 0; i < 1000; i++) assert_int_equal(hr_load_zipf_draw(&zipf, &random), 0);
}

static void times_between_arrivals_are_exponential(void **state) {
    (void)state;
    enum { DRAWS = 200000 };
    hr_load_random random = {.state = 3};
    double sum = 0, longer = 0;
    for (int i = 0; i < DRAWS; i++) {
        double x = hr_load_random_exponential(&random, 10);
        assert_true(x >= 0 && isfinite(x));
        sum += x;
        longer += x > 10;
    }
    assert_float_equal(sum / DRAWS, 10, 0.15);
    assert_float_equal(longer / DRAWS, exp(-1), 0.005);
}

/* ---- Requests ---- */

static Homerank__V1__RankRequest *unpack(const hr_load_requests *requests, uint64_t index) {
    const hr_load_request *request = hr_load_requests_get(requests, index);
    Homerank__V1__RankRequest *message =
        homerank__v1__rank_request__unpack(NULL, request->nbytes, request->data);
    assert_non_null(message);
    assert_int_equal(message->n_item_ids, request->n_items);
    return message;
}

static void made_up_requests_have_distinct_items_of_the_range(void **state) {
    (void)state;
    hr_load_requests_options options = DEFAULTS;
    options.sizes = "1,10"; /* 10: all there are */
    options.model = "home@2";
    options.priority = 1;
    hr_load_requests *requests;
    hr_error err;
    assert_int_equal(hr_load_requests_create(&options, &requests, &err), HR_OK);
    assert_int_equal(hr_load_requests_count(requests), 10);
    bool sizes_seen[11] = {false};
    for (uint64_t r = 0; r < 10; r++) {
        Homerank__V1__RankRequest *message = unpack(requests, r);
        bool seen[10] = {false};
        for (size_t i = 0; i < message->n_item_ids; i++) {
            int number = atoi(message->item_ids[i] + 1);
            assert_true(message->item_ids[i][0] == 'v' && number >= 0 && number <= 9 && !seen[number]);
            seen[number] = true;
        }
        sizes_seen[message->n_item_ids] = true;
        assert_true(strcmp(message->user_id, "u5") >= 0 && strcmp(message->user_id, "u7") <= 0);
        assert_string_equal(message->model, "home@2");
        assert_int_equal(message->priority, 1);
        homerank__v1__rank_request__free_unpacked(message, NULL);
    }
    assert_true(sizes_seen[1] && sizes_seen[10]);
    assert_ptr_equal(hr_load_requests_get(requests, 3), hr_load_requests_get(requests, 13));
    hr_load_requests_destroy(requests);
}

static void the_same_seed_makes_the_same_requests(void **state) {
    (void)state;
    hr_load_requests_options options = DEFAULTS;
    hr_load_requests *first, *again, *other;
    hr_error err;
    assert_int_equal(hr_load_requests_create(&options, &first, &err), HR_OK);
    assert_int_equal(hr_load_requests_create(&options, &again, &err), HR_OK);
    options.seed = 2;
    assert_int_equal(hr_load_requests_create(&options, &other, &err), HR_OK);
    bool differs = false;
    for (uint64_t r = 0; r < 10; r++) {
        const hr_load_request *a = hr_load_requests_get(first, r), *b = hr_load_requests_get(again, r);
        const hr_load_request *c = hr_load_requests_get(other, r);
        assert_int_equal(a->nbytes, b->nbytes);
        assert_memory_equal(a->data, b->data, a->nbytes);
        differs = differs || a->nbytes != c->nbytes || memcmp(a->data, c->data, a->nbytes) != 0;
    }
    assert_true(differs);
    hr_load_requests_destroy(other);
    hr_load_requests_destroy(again);
    hr_load_requests_destroy(first);
}

static void more_items_than_ids_are_refused(void **state) {
    (void)state;
    hr_load_requests_options options = DEFAULTS;
    options.sizes = "11";
    hr_load_requests *requests = NULL;
    hr_error err;
    assert_int_equal(hr_load_requests_create(&options, &requests, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message,
                        "--item-ids: expected at least the 11 ids of a request's items, found 10");
}

/* A file of that text; its name, to be unlinked and freed. */
static char *write_file(const char *text) {
    const char *folder = getenv("TEST_TMPDIR");
    char *path = NULL;
    assert_true(asprintf(&path, "%s/load-XXXXXX", folder ? folder : "/tmp") > 0);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static hr_status read_requests(const char *text, const char *model, hr_load_requests **requests,
                               hr_error *err) {
    char *path = write_file(text);
    hr_load_requests_options options = DEFAULTS;
    options.in = path;
    options.n_requests = 2;
    options.model = model;
    hr_status status = hr_load_requests_create(&options, requests, err);
    unlink(path);
    free(path);
    return status;
}

static void requests_of_a_file_are_sent_as_they_are(void **state) {
    (void)state;
    hr_load_requests *requests;
    hr_error err;
    assert_int_equal(
        read_requests("{\"user_id\":\"a\",\"item_ids\":[\"x\",7],\"model\":\"m\",\"context\":{\"h\":1.5}}\n"
                      "{\"user_id\":\"b\",\"item_ids\":[\"y\"]}\n"
                      "not read any more\n",
                      "", &requests, &err),
        HR_OK);
    assert_int_equal(hr_load_requests_count(requests), 2);
    Homerank__V1__RankRequest *message = unpack(requests, 0);
    assert_string_equal(message->user_id, "a");
    assert_string_equal(message->item_ids[1], "7");
    assert_string_equal(message->model, "m");
    assert_int_equal(message->n_context, 1);
    homerank__v1__rank_request__free_unpacked(message, NULL);
    hr_load_requests_destroy(requests);

    assert_int_equal(
        read_requests("{\"user_id\":\"a\",\"item_ids\":[\"x\"],\"model\":\"m\"}\n", "other", &requests, &err),
        HR_OK);
    message = unpack(requests, 0);
    assert_string_equal(message->model, "other");
    homerank__v1__rank_request__free_unpacked(message, NULL);
    hr_load_requests_destroy(requests);
}

static void a_bad_line_is_named(void **state) {
    (void)state;
    hr_load_requests *requests = NULL;
    hr_error err;
    assert_int_equal(
        read_requests("{\"user_id\":\"a\",\"item_ids\":[\"x\"]}\n{\"user\":1}\n", "", &requests, &err),
        HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, ":2: "));
    assert_int_equal(read_requests("", "", &requests, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "expected requests, found none"));
}

/* ---- Answers and counts ---- */

static void items_and_timing_are_read_off_an_answer(void **state) {
    (void)state;
    char *items[] = {(char *)"a", (char *)"b"};
    float scores[] = {1, 2};
    Homerank__V1__Timing timing = HOMERANK__V1__TIMING__INIT;
    timing.queue_us = 1;
    timing.features_us = 300;
    timing.total_us = UINT64_MAX;
    Homerank__V1__RankResponse answer = HOMERANK__V1__RANK_RESPONSE__INIT;
    answer.request_id = (char *)"r";
    answer.item_ids = items;
    answer.n_item_ids = 2;
    answer.scores = scores;
    answer.n_scores = 2;
    answer.timing = &timing;
    uint8_t packed[256];
    size_t nbytes = homerank__v1__rank_response__pack(&answer, packed);
    hr_load_outcome outcome = {0};
    hr_load_answer_read(packed, nbytes, &outcome);
    assert_int_equal(outcome.n_items, 2);
    assert_true(outcome.has_timing);
    assert_int_equal(outcome.stage_us[HR_LOAD_QUEUE], 1);
    assert_int_equal(outcome.stage_us[HR_LOAD_FEATURES], 300);
    assert_int_equal(outcome.stage_us[HR_LOAD_MODEL], 0);
    assert_true(outcome.stage_us[HR_LOAD_TOTAL] == UINT64_MAX);
    /* bytes from outside: cut anywhere, nothing is read past the end (asan) */
    for (size_t n = 1; n < nbytes; n++) {
        uint8_t *cut = malloc(n);
        memcpy(cut, packed, n);
        hr_load_answer_read(cut, n, &outcome);
        free(cut);
    }
}

static void a_call_counts_once_where_it_was_to_be_sent(void **state) {
    (void)state;
    hr_load_plan plan = {0};
    hr_error err;
    assert_int_equal(hr_load_plan_read_phases(&plan, "1:1.5,2:1.5", 0, &err), HR_OK);
    hr_load_stats *one = hr_load_stats_create(&plan), *two = hr_load_stats_create(&plan);
    assert_int_equal(one->n_intervals, 3);
    const hr_load_outcome answered = {.intended_ns = 1400000000, .latency_ns = 5000000000, .n_items = 4};
    const hr_load_outcome refused = {.intended_ns = 2000000000,
                                     .latency_ns = 7000,
                                     .end = HR_LOAD_REFUSED,
                                     .code = 8,
                                     .text = "fullest",
                                     .text_nbytes = 4};
    hr_load_stats_record(one, &answered);
    hr_load_stats_record(two, &refused);
    hr_load_stats_not_sent(two, 2999999999);
    hr_load_stats_merge(one, two);
    assert_int_equal(one->phases[0].counts.by_end[HR_LOAD_ANSWERED], 1);
    assert_int_equal(one->phases[0].counts.n_items, 4);
    assert_int_equal(hr_load_counts_sent(&one->phases[1].counts), 1);
    assert_int_equal(one->phases[1].by_status[8], 1);
    assert_int_equal(one->phases[1].counts.not_sent, 1);
    assert_int_equal(one->phases[1].refused.max, 7000);
    assert_int_equal(one->intervals[1].answered.max, 5000000000);
    assert_int_equal(one->intervals[2].counts.by_end[HR_LOAD_REFUSED], 1);
    assert_string_equal(one->texts[8], "full");
    assert_string_equal(hr_load_status_name(8), "RESOURCE_EXHAUSTED");
    assert_string_equal(hr_load_status_name(16), "UNAUTHENTICATED");
    hr_load_stats_destroy(two);
    hr_load_stats_destroy(one);
}

static void a_long_plan_has_longer_intervals(void **state) {
    (void)state;
    hr_load_plan plan = {0};
    hr_error err;
    assert_int_equal(hr_load_plan_read_phases(&plan, "1:1801", 0, &err), HR_OK);
    hr_load_stats *stats = hr_load_stats_create(&plan);
    assert_int_equal(stats->interval_ns, 4000000000);
    assert_int_equal(stats->n_intervals, 451);
    hr_load_stats_destroy(stats);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phases_follow_each_other_behind_a_warm_up),
        cmocka_unit_test(phases_of_a_wrong_form_are_refused),
        cmocka_unit_test(a_range_gives_its_ids),
        cmocka_unit_test(a_range_of_a_wrong_form_is_refused),
        cmocka_unit_test(zipf_draws_have_their_probabilities),
        cmocka_unit_test(a_single_item_is_always_drawn),
        cmocka_unit_test(times_between_arrivals_are_exponential),
        cmocka_unit_test(made_up_requests_have_distinct_items_of_the_range),
        cmocka_unit_test(the_same_seed_makes_the_same_requests),
        cmocka_unit_test(more_items_than_ids_are_refused),
        cmocka_unit_test(requests_of_a_file_are_sent_as_they_are),
        cmocka_unit_test(a_bad_line_is_named),
        cmocka_unit_test(items_and_timing_are_read_off_an_answer),
        cmocka_unit_test(a_call_counts_once_where_it_was_to_be_sent),
        cmocka_unit_test(a_long_plan_has_longer_intervals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
