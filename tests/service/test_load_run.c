/* The load generator against a running server: what it sends is what the server counts, however it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "service/load.h"
#include "tests/service/server_fixture.h"

enum { RESOURCE_EXHAUSTED = 8, NOT_FOUND = 5 };

/* While the gate is shut a call is answered, with defaults, when three quarters of its time are gone. */
enum { NEAR_DEADLINE_MS = 4000 };

typedef struct load {
    char target[32];
    hr_load_options options;
    hr_load_plan plan;
    hr_load_requests *requests;
    hr_load_stats *stats;
} load;

static void load_prepare(load *l, uint16_t port, const char *phases, uint32_t n_in_flight,
                         const char *model) {
    const hr_load_requests_options requests = {.in = "",
                                               .sizes = "1,5",
                                               .item_ids = "v0..v99",
                                               .users = "u0..u9",
                                               .zipf = "1",
                                               .n_requests = 16,
                                               .seed = 1,
                                               .model = model};
    hr_error err;
    memset(l, 0, sizeof *l);
    snprintf(l->target, sizeof l->target, "127.0.0.1:%u", port);
    l->options = (hr_load_options){.target = l->target,
                                   .n_connections = 3,
                                   .n_threads = 2,
                                   .timeout_ms = 60000,
                                   .max_in_flight = 1000,
                                   .seed = 1};
    l->plan.n_in_flight = n_in_flight;
    assert_int_equal(hr_load_plan_read_phases(&l->plan, phases, 0, &err), HR_OK);
    assert_int_equal(hr_load_requests_create(&requests, &l->requests, &err), HR_OK);
}

static void load_run(load *l) {
    hr_error err;
    if (hr_load_run(&l->options, &l->plan, l->requests, &l->stats, &err) != HR_OK)
        fail_msg("%s", err.message);
}

static void load_end(load *l) {
    hr_load_stats_destroy(l->stats);
    hr_load_requests_destroy(l->requests);
}

static const hr_load_counts *counts_of(const load *l, uint32_t phase) {
    return &l->stats->phases[phase].counts;
}

/* The server's own counts, once it has heard of the end of every call. */
static hr_server_counts settled(fixture *f, uint64_t n_accepted) {
    fixture_wait_accepted(f, n_accepted);
    fixture_round_trip(f);
    hr_server_counts counts;
    hr_server_count(f->server, &counts);
    return counts;
}

static void an_open_loop_sends_at_its_rate_and_counts_every_answer(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    load l;
    load_prepare(&l, hr_server_port(f->server), "400:0.5,0:0.2,100:0.5", 0, "");
    load_run(&l);
    uint64_t sent = 0, answered = 0;
    for (uint32_t p = 0; p < 3; p++) {
        sent += hr_load_counts_sent(counts_of(&l, p));
        answered += counts_of(&l, p)->by_end[HR_LOAD_ANSWERED];
    }
    assert_int_equal(sent, answered);
    /* Poisson with mean 200 and 50: six standard deviations */
    assert_in_range(hr_load_counts_sent(counts_of(&l, 0)), 116, 284);
    assert_int_equal(hr_load_counts_sent(counts_of(&l, 1)), 0);
    assert_in_range(hr_load_counts_sent(counts_of(&l, 2)), 8, 92);
    assert_int_equal(settled(f, answered).answered, answered);
    const hr_load_phase_stats *phase = &l.stats->phases[0];
    assert_int_equal(phase->answered.count, counts_of(&l, 0)->by_end[HR_LOAD_ANSWERED]);
    assert_int_equal(phase->stages[HR_LOAD_TOTAL].count, phase->answered.count);
    assert_true(phase->stages[HR_LOAD_TOTAL].sum <= phase->answered.sum); /* the server's part of the whole */
    assert_true(counts_of(&l, 0)->n_items > phase->answered.count);       /* of 1 and 5 items */
    load_end(&l);
}

static void a_closed_loop_keeps_that_many_in_flight(void **state) {
    enum { IN_FLIGHT = 7 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(
        f); /* what was sent stays in flight until its deadline is near, longer than the phase */
    load l;
    load_prepare(&l, hr_server_port(f->server), "0:0.3", IN_FLIGHT, "");
    l.options.timeout_ms = NEAR_DEADLINE_MS;
    load_run(&l);
    assert_int_equal(hr_load_counts_sent(counts_of(&l, 0)), IN_FLIGHT);
    assert_int_equal(counts_of(&l, 0)->by_end[HR_LOAD_ANSWERED], IN_FLIGHT);
    load_end(&l);
    fixture_open_gate(f);
    load_prepare(&l, hr_server_port(f->server), "0:0.3", IN_FLIGHT, "");
    load_run(&l);
    assert_true(counts_of(&l, 0)->by_end[HR_LOAD_ANSWERED] > IN_FLIGHT);
    assert_int_equal(hr_load_counts_sent(counts_of(&l, 0)), counts_of(&l, 0)->by_end[HR_LOAD_ANSWERED]);
    load_end(&l);
}

static void what_cannot_be_sent_is_counted(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    load l;
    load_prepare(&l, hr_server_port(f->server), "200:0.5", 0, "");
    l.options.timeout_ms = NEAR_DEADLINE_MS;
    l.options.max_in_flight = 10;
    load_run(&l);
    const hr_load_counts *counts = counts_of(&l, 0);
    assert_int_equal(hr_load_counts_sent(counts), 10);
    assert_true(counts->not_sent > 20);
    assert_int_equal(counts->by_end[HR_LOAD_ANSWERED], 10);
    load_end(&l);
}

static void cancels_are_under_way_and_counted(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    load l;
    load_prepare(&l, hr_server_port(f->server), "200:0.5", 0, "");
    l.options.cancel_percent = 100;
    load_run(&l);
    const hr_load_counts *counts = counts_of(&l, 0);
    assert_true(counts->by_end[HR_LOAD_CANCELLED] > 20);
    assert_int_equal(counts->by_end[HR_LOAD_CANCELLED], hr_load_counts_sent(counts));
    fixture_open_gate(f);
    load_end(&l);
}

static void refusals_and_failures_keep_their_status_and_text(void **state) {
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.max_open_calls = 1;
    fixture_serve(f, &options);
    load l;
    load_prepare(&l, hr_server_port(f->server), "0:0.3", 8, "");
    load_run(&l);
    const hr_load_phase_stats *phase = &l.stats->phases[0];
    assert_true(phase->counts.by_end[HR_LOAD_REFUSED] > 0);
    assert_int_equal(phase->by_status[RESOURCE_EXHAUSTED], phase->counts.by_end[HR_LOAD_REFUSED]);
    assert_int_equal(phase->refused.count, phase->counts.by_end[HR_LOAD_REFUSED]);
    assert_non_null(strstr(l.stats->texts[RESOURCE_EXHAUSTED], "the most it takes"));
    load_end(&l);
    load_prepare(&l, hr_server_port(f->server), "50:0.2", 0, "nobody");
    load_run(&l);
    phase = &l.stats->phases[0];
    assert_int_equal(phase->counts.by_end[HR_LOAD_FAILED] + phase->counts.by_end[HR_LOAD_REFUSED],
                     hr_load_counts_sent(&phase->counts));
    assert_true(phase->by_status[NOT_FOUND] > 0);
    load_end(&l);
}

static void a_stop_ends_the_run_early(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    atomic_bool stop = true;
    load l;
    load_prepare(&l, hr_server_port(f->server), "1:3600", 0, "");
    l.options.stop = &stop;
    load_run(&l);
    assert_int_equal(hr_load_counts_sent(counts_of(&l, 0)), 0);
    load_end(&l);
}

static void a_server_that_is_not_there_is_said(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    load l;
    load_prepare(&l, hr_server_port(f->server), "1:1", 0, "");
    fixture_stop(f);
    hr_error err;
    assert_int_equal(hr_load_run(&l.options, &l.plan, l.requests, &l.stats, &err), HR_UNAVAILABLE);
    assert_non_null(strstr(err.message, l.target));
    load_end(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(an_open_loop_sends_at_its_rate_and_counts_every_answer),
        FIXTURE_TEST(a_closed_loop_keeps_that_many_in_flight),
        FIXTURE_TEST(what_cannot_be_sent_is_counted),
        FIXTURE_TEST(cancels_are_under_way_and_counted),
        FIXTURE_TEST(refusals_and_failures_keep_their_status_and_text),
        FIXTURE_TEST(a_stop_ends_the_run_early),
        FIXTURE_TEST(a_server_that_is_not_there_is_said),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
