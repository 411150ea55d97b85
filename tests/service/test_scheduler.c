/* The scheduler without models: in which order and in which parts rows are taken, and that every call is
 * handed back once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/thread.h"
#include "tests/service/scheduler_fixture.h"

/* ---- Batches ---- */

static void calls_of_one_model_share_a_batch(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    test_call *calls[3], *other;
    calls[0] = sched_add(&f, 10, HR_CLASS_NORMAL, NEVER);
    other = sched_call(&f, 5, HR_CLASS_NORMAL, NEVER);
    other->scheduled.model = &f.other_time;
    assert_int_equal(sched_admit(&f, other), HR_OK);
    calls[1] = sched_add(&f, 20, HR_CLASS_NORMAL, NEVER);
    calls[2] = sched_add(&f, 30, HR_CLASS_NORMAL, NEVER);
    sched_take(&f);
    assert_int_equal(f.batch.n_parts, 3);
    for (uint32_t i = 0; i < 3; i++) sched_expect_part(&f, i, calls[i], 0, 10 + 10 * i);
    assert_true(f.parts[0].whole);
    assert_int_equal(hr_scheduler_launch(f.scheduler, &f.batch), 60);
    hr_scheduler_done(f.scheduler, &f.batch);
    assert_int_equal(sched_free_ended(&f), 3);
    sched_take(&f);
    assert_int_equal(f.batch.n_parts, 1);
    sched_expect_part(&f, 0, other, 0, 5);
    sched_compute(&f);
    sched_expect_ended(&f, other, HR_OK);
    sched_close(&f);
}

static void a_call_that_does_not_fit_is_cut_and_its_rest_taken_once_it_is_open(void **state) {
    (void)state;
    fixture f;
    hr_part more_parts[BATCH_ROWS];
    hr_batch more = {.parts = more_parts};
    sched_open(&f, &sched_defaults);
    test_call *small = sched_add(&f, 28, HR_CLASS_NORMAL, NEVER),
              *large = sched_add(&f, 300, HR_CLASS_NORMAL, NEVER);
    test_call *after = sched_add(&f, 7, HR_CLASS_NORMAL, NEVER);
    sched_take(&f);
    assert_int_equal(f.batch.n_parts, 2);
    sched_expect_part(&f, 0, small, 0, 28);
    sched_expect_part(&f, 1, large, 0, 100);
    assert_false(f.parts[1].whole);
    assert_true(hr_scheduler_take(f.scheduler, &more)); /* another worker, before the large one is open */
    assert_int_equal(more.n_parts, 1);
    assert_ptr_equal(more_parts[0].call, &after->scheduled);
    hr_scheduler_launch(f.scheduler, &more);
    hr_scheduler_done(f.scheduler, &more);
    free(after);
    hr_scheduler_opened(f.scheduler, &large->scheduled);
    assert_true(hr_scheduler_take(f.scheduler, &more));
    assert_int_equal(more.n_parts, 1);
    assert_ptr_equal(more_parts[0].call, &large->scheduled);
    assert_int_equal(more_parts[0].first, 100);
    assert_int_equal(more_parts[0].n_rows, 128);
    sched_compute(&f);
    sched_expect_ended(&f, small, HR_OK);
    sched_take(&f); /* the last rows; done before those in the middle */
    sched_expect_part(&f, 0, large, 228, 72);
    sched_compute(&f);
    assert_null(f.batch.ended);
    more.ended = NULL;
    hr_scheduler_launch(f.scheduler, &more);
    hr_scheduler_done(f.scheduler, &more);
    assert_ptr_equal(more.ended, &large->scheduled);
    assert_int_equal(large->scheduled.error.code, HR_OK);
    free(large);
    sched_close(&f);
}

/* ---- Order ---- */

static void the_earliest_deadline_goes_first_and_none_is_a_second(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    const uint64_t now_ns = hr_clock_ns();
    enum { N = 6 };
    /* each fills a batch, so that one is taken at a time */
    const uint64_t deadlines[N] = {now_ns + 60000 * MS, NEVER,
                                   now_ns + 30000 * MS, now_ns + 500 * MS,
                                   now_ns + 400 * MS,   now_ns + 500 * MS};
    const int order[N] = {4, 3, 5, 1, 2, 0};
    test_call *calls[N];
    for (int i = 0; i < N; i++) calls[i] = sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, deadlines[i]);
    for (int i = 0; i < N; i++) {
        sched_take(&f);
        assert_int_equal(f.batch.n_parts, 1);
        sched_expect_part(&f, 0, calls[order[i]], 0, BATCH_ROWS);
        sched_compute(&f);
        sched_expect_ended(&f, calls[order[i]], HR_OK);
    }
    sched_close(&f);
}

static void classes_are_not_mixed_and_go_in_their_order(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    test_call *shadow = sched_add(&f, 1, HR_CLASS_SHADOW, NEVER),
              *batch = sched_add(&f, 2, HR_CLASS_BATCH, NEVER);
    test_call *normal = sched_add(&f, 3, HR_CLASS_NORMAL, NEVER), *order[] = {normal, batch, shadow};
    for (uint32_t i = 0; i < 3; i++) {
        sched_take(&f);
        assert_int_equal(f.batch.n_parts, 1);
        sched_expect_part(&f, 0, order[i], 0, 3 - i);
        sched_compute(&f);
        sched_expect_ended(&f, order[i], HR_OK);
    }
    sched_close(&f);
}

/* A normal call that comes meanwhile goes next, before the shadow's rest. */
static void a_shadow_call_lets_others_in_every_few_rows(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    test_call *shadow = sched_add(&f, SPLIT_ROWS + 5, HR_CLASS_SHADOW, NEVER);
    sched_take(&f);
    assert_int_equal(f.batch.n_parts, 1);
    sched_expect_part(&f, 0, shadow, 0, SPLIT_ROWS);
    hr_scheduler_opened(f.scheduler, &shadow->scheduled);
    test_call *normal = sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER);
    sched_compute(&f);
    sched_take(&f);
    sched_expect_part(&f, 0, normal, 0, BATCH_ROWS);
    sched_compute(&f);
    sched_expect_ended(&f, normal, HR_OK);
    sched_take(&f);
    sched_expect_part(&f, 0, shadow, SPLIT_ROWS, 5);
    sched_compute(&f);
    sched_expect_ended(&f, shadow, HR_OK);
    sched_close(&f);
}

static void batch_calls_get_a_tenth_of_the_time_and_shadow_calls_what_is_left(void **state) {
    enum { N = 1000, ROUNDS = 500 };
    (void)state;
    fixture f;
    uint32_t n_taken[HR_CLASS_COUNT] = {0};
    sched_open(&f, &sched_defaults);
    for (int i = 0; i < N; i++)
        for (hr_call_class c = 0; c < HR_CLASS_COUNT; c++) sched_add(&f, BATCH_ROWS, c, NEVER);
    for (int i = 0; i < ROUNDS; i++) {
        hr_service_time_add(&f.time, BATCH_ROWS, 1000, 1); /* keeps what it takes much the same */
        sched_take(&f);
        assert_int_equal(f.batch.n_parts, 1);
        n_taken[f.parts[0].call->class]++;
        sched_compute(&f);
        sched_free_ended(&f);
    }
    assert_in_range(n_taken[HR_CLASS_BATCH], ROUNDS / 20, ROUNDS / 6);
    assert_int_equal(n_taken[HR_CLASS_SHADOW], 0);
    sched_compute_all(&f);
    sched_close(&f);
}

/* ---- Idle workers ---- */

enum { N_IDLE = 3 };

static void a_call_is_shared_by_all_that_are_idle(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.n_workers = N_IDLE;
    sched_open(&f, &options);
    pthread_barrier_t all_have_some;
    pthread_barrier_init(&all_have_some, NULL, N_IDLE);
    sharer sharers[N_IDLE];
    for (int i = 0; i < N_IDLE; i++) {
        sharers[i] = (sharer){.scheduler = f.scheduler, .all_have_some = &all_have_some};
        assert_int_equal(hr_thread_start(&sharers[i].thread, "sharer", sched_share, &sharers[i], NULL),
                         HR_OK);
    }
    sched_wait_for_idle(&f, N_IDLE);
    test_call *call = sched_add(&f, 96, HR_CLASS_NORMAL, NEVER); /* less than a batch */
    for (int i = 0; i < N_IDLE; i++) pthread_join(sharers[i].thread, NULL);
    for (int i = 0; i < N_IDLE; i++) assert_int_equal(sharers[i].n_rows, 96 / N_IDLE);
    assert_null(call->slot);
    free(call);
    pthread_barrier_destroy(&all_have_some);
    sched_close(&f);
}

static void a_batch_may_be_waited_for_until_it_is_full(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_delay_ns = 3600000 * MS;
    sched_open(&f, &options);
    pthread_barrier_t alone;
    pthread_barrier_init(&alone, NULL, 1);
    sharer waiter = {.scheduler = f.scheduler, .all_have_some = &alone};
    assert_int_equal(hr_thread_start(&waiter.thread, "waiter", sched_share, &waiter, NULL), HR_OK);
    test_call *calls[4];
    for (int i = 0; i < 3; i++) calls[i] = sched_add(&f, 40, HR_CLASS_NORMAL, NEVER);
    sched_wait_for_idle(&f, 1);
    assert_int_equal(sched_waiting_rows(&f), 120);
    calls[3] = sched_add(&f, 8, HR_CLASS_NORMAL, NEVER);
    pthread_join(waiter.thread, NULL);
    assert_int_equal(waiter.n_rows, BATCH_ROWS);
    for (int i = 0; i < 4; i++) free(calls[i]);
    pthread_barrier_destroy(&alone);
    sched_close(&f);
}

static void a_delay_that_is_over_is_over(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_delay_ns = 20 * MS;
    sched_open(&f, &options);
    uint64_t begun_ns = hr_clock_ns();
    test_call *call = sched_add(&f, 1, HR_CLASS_NORMAL, NEVER);
    sched_take(&f);
    assert_true(hr_clock_ns() - begun_ns >= 20 * MS);
    sched_compute(&f);
    sched_expect_ended(&f, call, HR_OK);
    sched_close(&f);
}

/* ---- Cancelling and failing ---- */

static void a_cancelled_call_leaves_the_queue_at_once(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_calls = 1;
    sched_open(&f, &options);
    test_call *first = sched_add(&f, 10, HR_CLASS_NORMAL, NEVER);
    sched_expect_refused(&f, 10, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_CALLS);
    hr_scheduler_cancel(f.scheduler, &first->slot);
    assert_null(first->slot);
    hr_scheduler_cancel(f.scheduler, &first->slot); /* no more to do */
    test_call *second = sched_add(&f, 20, HR_CLASS_NORMAL, NEVER);
    sched_take(&f);
    sched_expect_ended(&f, first, HR_CANCELLED);
    assert_int_equal(f.batch.n_parts, 1);
    sched_expect_part(&f, 0, second, 0, 20);
    sched_compute(&f);
    sched_expect_ended(&f, second, HR_OK);
    sched_close(&f);
}

static void a_call_cancelled_before_it_comes_is_not_admitted(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    test_call *call = sched_call(&f, 1, HR_CLASS_NORMAL, NEVER);
    atomic_store(&call->cancelled, true);
    assert_int_equal(sched_admit(&f, call), HR_CANCELLED);
    assert_int_equal(f.refusal, HR_REFUSAL_NONE);
    free(call);
    sched_close(&f);
}

static void a_call_cancelled_in_its_fetch_ends_with_the_fetch(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_calls = 1;
    sched_open(&f, &options);
    test_call *call = sched_call(&f, 10, HR_CLASS_NORMAL, NEVER);
    assert_int_equal(hr_scheduler_admit(f.scheduler, &call->scheduled, true, &f.refusal, &f.err), HR_OK);
    hr_scheduler_cancel(f.scheduler, &call->slot);
    assert_non_null(call->slot); /* the store has it */
    test_call *second = sched_add(&f, 10, HR_CLASS_NORMAL, NEVER);
    sched_take(&f);
    assert_null(f.batch.ended);
    sched_expect_part(&f, 0, second, 0, 10);
    hr_scheduler_ready(f.scheduler, &call->scheduled);
    sched_compute(&f);
    sched_expect_ended(&f, second, HR_OK);
    sched_take(&f);
    assert_int_equal(f.batch.n_parts, 0);
    sched_expect_ended(&f, call, HR_CANCELLED);
    sched_close(&f);
}

static void a_call_cancelled_while_it_is_computed_ends_with_its_parts(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    test_call *call = sched_add(&f, 300, HR_CLASS_NORMAL, NEVER);
    sched_take(&f);
    hr_scheduler_opened(f.scheduler, &call->scheduled);
    assert_int_equal(hr_scheduler_launch(f.scheduler, &f.batch), BATCH_ROWS);
    hr_scheduler_cancel(f.scheduler, &call->slot);
    assert_int_equal(sched_waiting_rows(&f), 0);
    hr_scheduler_done(f.scheduler, &f.batch);
    sched_expect_ended(&f, call, HR_CANCELLED);
    sched_close(&f);
}

/* Rows 128 on fail first, rows 0 on after them: whichever worker was faster, the caller hears of row 0. */
static void a_call_that_fails_twice_tells_the_first_rows_error(void **state) {
    (void)state;
    fixture f;
    hr_part more_parts[BATCH_ROWS];
    hr_batch more = {.parts = more_parts};
    sched_open(&f, &sched_defaults);
    test_call *call = sched_add(&f, 1000, HR_CLASS_NORMAL, NEVER);
    sched_take(&f);
    hr_scheduler_opened(f.scheduler, &call->scheduled);
    assert_true(hr_scheduler_take(f.scheduler, &more));
    const hr_error late = {.code = HR_INVALID_ARGUMENT, .message = "row 130"};
    const hr_error early = {.code = HR_INVALID_ARGUMENT, .message = "row 3"};
    hr_scheduler_fail(f.scheduler, more_parts[0].call, more_parts[0].first, &late);
    hr_scheduler_fail(f.scheduler, f.parts[0].call, f.parts[0].first, &early);
    assert_int_equal(hr_scheduler_launch(f.scheduler, &more), 0);
    hr_scheduler_done(f.scheduler, &more);
    assert_null(more.ended);
    sched_compute(&f);
    assert_string_equal(call->scheduled.error.message, "row 3");
    sched_expect_ended(&f, call, HR_INVALID_ARGUMENT);
    sched_close(&f);
}

/* ---- The end ---- */

static void a_draining_scheduler_refuses_and_finishes_what_it_has(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_delay_ns = 3600000 * MS;
    sched_open(&f, &options);
    test_call *call = sched_add(&f, 1, HR_CLASS_NORMAL, NEVER);
    hr_scheduler_drain(f.scheduler);
    sched_expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_DRAINING);
    assert_int_equal(f.err.code, HR_UNAVAILABLE);
    sched_take(&f); /* without the delay */
    sched_compute(&f);
    sched_expect_ended(&f, call, HR_OK);
    sched_close(&f);
}

/* ---- All at once ---- */

enum { SUBMITTERS = 3, WORKERS = 3, CALLS_EACH = 4000 };

typedef struct storm_call {
    test_call call;                  /* first */
    atomic_uint n_ended, n_computed; /* times handed back; rows computed */
    bool admitted;
} storm_call;

typedef struct storm {
    fixture *f;
    storm_call *calls; /* (SUBMITTERS * CALLS_EACH) */
    atomic_uint next_submitter;
} storm;

/* One in four is cancelled at once, one in four a little later, one in eight has a deadline that may pass. */
static void submit_one(storm *s, storm_call *c, storm_call *earlier, uint64_t random) {
    fixture *f = s->f;
    hr_refusal refusal;
    hr_error err;
    const bool fetching = random & 1, hurried = (random >> 1 & 7) == 0;
    c->call.scheduled = (hr_scheduled){
        .model = random >> 4 & 1 ? &f->time : &f->other_time,
        .time = random >> 4 & 1 ? &f->time : &f->other_time,
        .n_rows = 1 + (uint32_t)(random >> 8) % 400,
        .class = (hr_call_class)(random >> 5 & 7) % HR_CLASS_COUNT,
        .received_ns = hr_clock_ns(),
        .deadline_ns = hurried ? hr_clock_ns() + (random >> 32) % MS : UINT64_MAX,
        .cancelled = &c->call.cancelled,
        .slot = &c->call.slot,
    };
    c->admitted = hr_scheduler_admit(f->scheduler, &c->call.scheduled, fetching, &refusal, &err) == HR_OK;
    if (random >> 17 & 1) {
        storm_call *victim = random >> 18 & 1 ? c : earlier;
        atomic_store(&victim->call.cancelled, true);
        hr_scheduler_cancel(f->scheduler, &victim->call.slot);
    }
    if (c->admitted && fetching) hr_scheduler_ready(f->scheduler, &c->call.scheduled);
}

static void *submit_many(void *arg) {
    storm *s = arg;
    uint32_t submitter = atomic_fetch_add(&s->next_submitter, 1);
    storm_call *mine = s->calls + (size_t)submitter * CALLS_EACH;
    uint64_t random = submitter;
    for (uint32_t i = 0; i < CALLS_EACH; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        submit_one(s, &mine[i], &mine[i < 20 ? 0 : i - 20], random >> 7);
    }
    return NULL;
}

static void end_all(hr_batch *batch) {
    for (hr_scheduled *next; batch->ended != NULL; batch->ended = next) {
        next = batch->ended->next;
        atomic_fetch_add(&((storm_call *)batch->ended)->n_ended, 1);
    }
}

static void *work(void *arg) {
    storm *s = arg;
    hr_part parts[BATCH_ROWS];
    hr_batch batch = {.parts = parts};
    while (hr_scheduler_take(s->f->scheduler, &batch)) {
        end_all(&batch);
        if (batch.n_parts == 0) continue;
        for (uint32_t i = batch.n_parts; i-- > 0;)
            if (parts[i].first == 0 && !parts[i].whole) hr_scheduler_opened(s->f->scheduler, parts[i].call);
        hr_scheduler_launch(s->f->scheduler, &batch);
        for (uint32_t i = 0; i < batch.n_parts; i++)
            if (parts[i].launched)
                atomic_fetch_add(&((storm_call *)parts[i].call)->n_computed, parts[i].n_rows);
        hr_scheduler_done(s->f->scheduler, &batch);
        end_all(&batch);
    }
    return NULL;
}

static void every_call_is_handed_back_once_and_every_row_computed_once(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.n_workers = WORKERS;
    options.max_calls = 300;
    options.max_wait_ns = 0;
    sched_open(&f, &options);
    storm s = {.f = &f, .calls = calloc((size_t)SUBMITTERS * CALLS_EACH, sizeof *s.calls)};
    assert_non_null(s.calls);
    pthread_t submitters[SUBMITTERS], workers[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(hr_thread_start(&workers[i], "worker", work, &s, NULL), HR_OK);
    for (int i = 0; i < SUBMITTERS; i++)
        assert_int_equal(hr_thread_start(&submitters[i], "submitter", submit_many, &s, NULL), HR_OK);
    for (int i = 0; i < SUBMITTERS; i++) pthread_join(submitters[i], NULL);
    hr_scheduler_close(f.scheduler);
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    uint32_t n_ok = 0, n_dropped = 0;
    for (size_t i = 0; i < (size_t)SUBMITTERS * CALLS_EACH; i++) {
        storm_call *c = &s.calls[i];
        const hr_scheduled *scheduled = &c->call.scheduled;
        assert_int_equal(atomic_load(&c->n_ended), c->admitted);
        assert_true(atomic_load(&c->n_computed) <= scheduled->n_rows);
        if (!c->admitted) continue;
        bool ok = scheduled->error.code == HR_OK;
        if (ok) assert_int_equal(atomic_load(&c->n_computed), scheduled->n_rows);
        n_ok += ok;
        n_dropped += !ok;
    }
    assert_true(n_ok > 0 && n_dropped > 0);
    hr_scheduler_counts counts;
    hr_scheduler_count(f.scheduler, &counts);
    assert_int_equal(counts.waiting_calls, 0);
    assert_int_equal(counts.waiting_rows, 0);
    hr_scheduler_destroy(f.scheduler);
    free(s.calls);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_of_one_model_share_a_batch),
        cmocka_unit_test(a_call_that_does_not_fit_is_cut_and_its_rest_taken_once_it_is_open),
        cmocka_unit_test(the_earliest_deadline_goes_first_and_none_is_a_second),
        cmocka_unit_test(classes_are_not_mixed_and_go_in_their_order),
        cmocka_unit_test(a_shadow_call_lets_others_in_every_few_rows),
        cmocka_unit_test(batch_calls_get_a_tenth_of_the_time_and_shadow_calls_what_is_left),
        cmocka_unit_test(a_call_is_shared_by_all_that_are_idle),
        cmocka_unit_test(a_batch_may_be_waited_for_until_it_is_full),
        cmocka_unit_test(a_delay_that_is_over_is_over),
        cmocka_unit_test(a_cancelled_call_leaves_the_queue_at_once),
        cmocka_unit_test(a_call_cancelled_before_it_comes_is_not_admitted),
        cmocka_unit_test(a_call_cancelled_in_its_fetch_ends_with_the_fetch),
        cmocka_unit_test(a_call_cancelled_while_it_is_computed_ends_with_its_parts),
        cmocka_unit_test(a_call_that_fails_twice_tells_the_first_rows_error),
        cmocka_unit_test(a_draining_scheduler_refuses_and_finishes_what_it_has),
        cmocka_unit_test(every_call_is_handed_back_once_and_every_row_computed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
