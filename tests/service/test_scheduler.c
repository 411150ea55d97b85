/* The scheduler without models: what is admitted, in which order and in which parts rows are taken, and that
 * every call is handed back once. Times of batches are given, not measured, wherever they matter. */
#include "service/scheduler.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/thread.h"

#define MS UINT64_C(1000000)
enum { BATCH_ROWS = 128, SPLIT_ROWS = 32, NEVER = 0 };

static const hr_scheduler_options DEFAULTS = {
    .n_workers = 1,
    .max_batch_rows = BATCH_ROWS,
    .split_rows = SPLIT_ROWS,
    .max_calls = 10000,
    .max_rows = 10000000,
    .max_call_rows = 1000,
    .max_wait_ns = UINT64_MAX,
};

typedef struct test_call {
    hr_scheduled scheduled; /* first */
    hr_scheduled *slot;
    atomic_bool cancelled;
} test_call;

/* One worker's batch, and the models' times. */
typedef struct fixture {
    hr_scheduler *scheduler;
    hr_part parts[BATCH_ROWS];
    hr_batch batch;
    hr_service_time time, other_time;
    hr_refusal refusal;
    hr_error err;
} fixture;

static void open_scheduler(fixture *f, const hr_scheduler_options *options) {
    memset(f, 0, sizeof *f);
    f->batch.parts = f->parts;
    assert_int_equal(hr_scheduler_create(options, &f->scheduler, &f->err), HR_OK);
}

static void close_scheduler(fixture *f) {
    hr_scheduler_close(f->scheduler);
    assert_false(hr_scheduler_take(f->scheduler, &f->batch));
    hr_scheduler_destroy(f->scheduler);
}

static test_call *make_call(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns) {
    test_call *call = calloc(1, sizeof *call);
    assert_non_null(call);
    call->scheduled = (hr_scheduled){
        .model = &f->time,
        .time = &f->time,
        .n_rows = n_rows,
        .class = class,
        .received_ns = hr_clock_ns(),
        .deadline_ns = deadline_ns == NEVER ? UINT64_MAX : deadline_ns,
        .cancelled = &call->cancelled,
        .slot = &call->slot,
    };
    return call;
}

static hr_status admit(fixture *f, test_call *call) {
    return hr_scheduler_admit(f->scheduler, &call->scheduled, false, &f->refusal, &f->err);
}

static test_call *add(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns) {
    test_call *call = make_call(f, n_rows, class, deadline_ns);
    if (admit(f, call) != HR_OK) fail_msg("%s", f->err.message);
    return call;
}

/* Asks for one more, which is refused for this reason. */
static void expect_refused(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns,
                           hr_refusal refusal) {
    test_call *call = make_call(f, n_rows, class, deadline_ns);
    assert_int_not_equal(admit(f, call), HR_OK);
    assert_int_equal(f->refusal, refusal);
    assert_null(call->slot);
    free(call);
}

static void expect_part(const fixture *f, uint32_t i, const test_call *call, uint32_t first,
                        uint32_t n_rows) {
    assert_true(i < f->batch.n_parts);
    assert_ptr_equal(f->parts[i].call, &call->scheduled);
    assert_int_equal(f->parts[i].first, first);
    assert_int_equal(f->parts[i].n_rows, n_rows);
}

static void take(fixture *f) {
    assert_true(hr_scheduler_take(f->scheduler, &f->batch));
}

/* Takes the only call handed back off the batch. */
static void expect_ended(fixture *f, test_call *call, hr_status code) {
    assert_ptr_equal(f->batch.ended, &call->scheduled);
    assert_null(call->scheduled.next);
    assert_int_equal(call->scheduled.error.code, code);
    assert_null(call->slot);
    f->batch.ended = NULL;
    free(call);
}

static uint32_t free_ended(fixture *f) {
    uint32_t n = 0;
    while (f->batch.ended != NULL) {
        hr_scheduled *next = f->batch.ended->next;
        free(f->batch.ended);
        f->batch.ended = next;
        n++;
    }
    return n;
}

/* The batch taken is computed. */
static void compute(fixture *f) {
    hr_scheduler_launch(f->scheduler, &f->batch);
    hr_scheduler_done(f->scheduler, &f->batch);
}

static void compute_all(fixture *f) {
    hr_scheduler_counts counts;
    for (;;) {
        hr_scheduler_count(f->scheduler, &counts);
        if (counts.waiting_rows == 0) return;
        take(f);
        free_ended(f);
        for (uint32_t i = f->batch.n_parts; i-- > 0;)
            if (f->parts[i].first == 0 && !f->parts[i].whole)
                hr_scheduler_opened(f->scheduler, f->parts[i].call);
        compute(f);
        free_ended(f);
    }
}

static void wait_until(uint64_t ns) {
    while (hr_clock_ns() < ns) sched_yield();
}

/* ---- Batches ---- */

static void calls_of_one_model_share_a_batch(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    test_call *calls[3], *other;
    calls[0] = add(&f, 10, HR_CLASS_NORMAL, NEVER);
    other = make_call(&f, 5, HR_CLASS_NORMAL, NEVER);
    other->scheduled.model = &f.other_time;
    assert_int_equal(admit(&f, other), HR_OK);
    calls[1] = add(&f, 20, HR_CLASS_NORMAL, NEVER);
    calls[2] = add(&f, 30, HR_CLASS_NORMAL, NEVER);
    take(&f);
    assert_int_equal(f.batch.n_parts, 3);
    for (uint32_t i = 0; i < 3; i++) expect_part(&f, i, calls[i], 0, 10 + 10 * i);
    assert_true(f.parts[0].whole);
    assert_int_equal(hr_scheduler_launch(f.scheduler, &f.batch), 60);
    hr_scheduler_done(f.scheduler, &f.batch);
    assert_int_equal(free_ended(&f), 3);
    take(&f);
    assert_int_equal(f.batch.n_parts, 1);
    expect_part(&f, 0, other, 0, 5);
    compute(&f);
    expect_ended(&f, other, HR_OK);
    close_scheduler(&f);
}

static void a_call_that_does_not_fit_is_cut_and_its_rest_taken_once_it_is_open(void **state) {
    (void)state;
    fixture f;
    hr_part more_parts[BATCH_ROWS];
    hr_batch more = {.parts = more_parts};
    open_scheduler(&f, &DEFAULTS);
    test_call *small = add(&f, 28, HR_CLASS_NORMAL, NEVER), *large = add(&f, 300, HR_CLASS_NORMAL, NEVER);
    test_call *after = add(&f, 7, HR_CLASS_NORMAL, NEVER);
    take(&f);
    assert_int_equal(f.batch.n_parts, 2);
    expect_part(&f, 0, small, 0, 28);
    expect_part(&f, 1, large, 0, 100);
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
    compute(&f);
    expect_ended(&f, small, HR_OK);
    take(&f); /* the last rows; done before those in the middle */
    expect_part(&f, 0, large, 228, 72);
    compute(&f);
    assert_null(f.batch.ended);
    more.ended = NULL;
    hr_scheduler_launch(f.scheduler, &more);
    hr_scheduler_done(f.scheduler, &more);
    assert_ptr_equal(more.ended, &large->scheduled);
    assert_int_equal(large->scheduled.error.code, HR_OK);
    free(large);
    close_scheduler(&f);
}

/* ---- Order ---- */

static void the_earliest_deadline_goes_first_and_none_is_a_second(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    const uint64_t now_ns = hr_clock_ns();
    enum { N = 6 };
    /* each fills a batch, so that one is taken at a time */
    const uint64_t deadlines[N] = {now_ns + 60000 * MS, NEVER,
                                   now_ns + 30000 * MS, now_ns + 500 * MS,
                                   now_ns + 400 * MS,   now_ns + 500 * MS};
    const int order[N] = {4, 3, 5, 1, 2, 0};
    test_call *calls[N];
    for (int i = 0; i < N; i++) calls[i] = add(&f, BATCH_ROWS, HR_CLASS_NORMAL, deadlines[i]);
    for (int i = 0; i < N; i++) {
        take(&f);
        assert_int_equal(f.batch.n_parts, 1);
        expect_part(&f, 0, calls[order[i]], 0, BATCH_ROWS);
        compute(&f);
        expect_ended(&f, calls[order[i]], HR_OK);
    }
    close_scheduler(&f);
}

static void classes_are_not_mixed_and_go_in_their_order(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    test_call *shadow = add(&f, 1, HR_CLASS_SHADOW, NEVER), *batch = add(&f, 2, HR_CLASS_BATCH, NEVER);
    test_call *normal = add(&f, 3, HR_CLASS_NORMAL, NEVER), *order[] = {normal, batch, shadow};
    for (uint32_t i = 0; i < 3; i++) {
        take(&f);
        assert_int_equal(f.batch.n_parts, 1);
        expect_part(&f, 0, order[i], 0, 3 - i);
        compute(&f);
        expect_ended(&f, order[i], HR_OK);
    }
    close_scheduler(&f);
}

static void batch_calls_get_a_tenth_of_the_time_and_shadow_calls_what_is_left(void **state) {
    enum { N = 1000, ROUNDS = 500 };
    (void)state;
    fixture f;
    uint32_t n_taken[HR_CLASS_COUNT] = {0};
    open_scheduler(&f, &DEFAULTS);
    for (int i = 0; i < N; i++)
        for (hr_call_class c = 0; c < HR_CLASS_COUNT; c++) add(&f, BATCH_ROWS, c, NEVER);
    for (int i = 0; i < ROUNDS; i++) {
        hr_service_time_add(&f.time, BATCH_ROWS, 1000, 1); /* keeps what it takes much the same */
        take(&f);
        assert_int_equal(f.batch.n_parts, 1);
        n_taken[f.parts[0].call->class]++;
        compute(&f);
        free_ended(&f);
    }
    assert_in_range(n_taken[HR_CLASS_BATCH], ROUNDS / 20, ROUNDS / 6);
    assert_int_equal(n_taken[HR_CLASS_SHADOW], 0);
    compute_all(&f);
    close_scheduler(&f);
}

/* ---- Idle workers ---- */

enum { N_IDLE = 3 };

/* A worker that takes parts, waits for the others' at the barrier, and notes how many rows it got. */
typedef struct sharer {
    hr_scheduler *scheduler;
    pthread_barrier_t *all_have_some;
    pthread_t thread;
    hr_part parts[BATCH_ROWS];
    uint32_t n_rows;
} sharer;

static void *share(void *arg) {
    sharer *s = arg;
    hr_batch batch = {.parts = s->parts};
    if (!hr_scheduler_take(s->scheduler, &batch)) return NULL;
    s->n_rows = batch.n_rows;
    if (batch.parts[0].first == 0) hr_scheduler_opened(s->scheduler, batch.parts[0].call);
    pthread_barrier_wait(s->all_have_some);
    hr_scheduler_launch(s->scheduler, &batch);
    hr_scheduler_done(s->scheduler, &batch);
    return NULL;
}

static void wait_for_idle(fixture *f, uint32_t n) {
    hr_scheduler_counts counts;
    do {
        sched_yield();
        hr_scheduler_count(f->scheduler, &counts);
    } while (counts.idle_workers < n);
}

static void a_call_is_shared_by_all_that_are_idle(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.n_workers = N_IDLE;
    open_scheduler(&f, &options);
    pthread_barrier_t all_have_some;
    pthread_barrier_init(&all_have_some, NULL, N_IDLE);
    sharer sharers[N_IDLE];
    for (int i = 0; i < N_IDLE; i++) {
        sharers[i] = (sharer){.scheduler = f.scheduler, .all_have_some = &all_have_some};
        assert_int_equal(hr_thread_start(&sharers[i].thread, "sharer", share, &sharers[i], NULL), HR_OK);
    }
    wait_for_idle(&f, N_IDLE);
    test_call *call = add(&f, 96, HR_CLASS_NORMAL, NEVER); /* less than a batch */
    for (int i = 0; i < N_IDLE; i++) pthread_join(sharers[i].thread, NULL);
    for (int i = 0; i < N_IDLE; i++) assert_int_equal(sharers[i].n_rows, 96 / N_IDLE);
    assert_null(call->slot);
    free(call);
    pthread_barrier_destroy(&all_have_some);
    close_scheduler(&f);
}

static void a_batch_may_be_waited_for_until_it_is_full(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_delay_ns = 3600000 * MS;
    open_scheduler(&f, &options);
    pthread_barrier_t alone;
    pthread_barrier_init(&alone, NULL, 1);
    sharer waiter = {.scheduler = f.scheduler, .all_have_some = &alone};
    assert_int_equal(hr_thread_start(&waiter.thread, "waiter", share, &waiter, NULL), HR_OK);
    test_call *calls[4];
    for (int i = 0; i < 3; i++) calls[i] = add(&f, 40, HR_CLASS_NORMAL, NEVER);
    wait_for_idle(&f, 1);
    hr_scheduler_counts counts;
    hr_scheduler_count(f.scheduler, &counts);
    assert_int_equal(counts.waiting_rows, 120);
    calls[3] = add(&f, 8, HR_CLASS_NORMAL, NEVER);
    pthread_join(waiter.thread, NULL);
    assert_int_equal(waiter.n_rows, BATCH_ROWS);
    for (int i = 0; i < 4; i++) free(calls[i]);
    pthread_barrier_destroy(&alone);
    close_scheduler(&f);
}

static void a_delay_that_is_over_is_over(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_delay_ns = 20 * MS;
    open_scheduler(&f, &options);
    uint64_t begun_ns = hr_clock_ns();
    test_call *call = add(&f, 1, HR_CLASS_NORMAL, NEVER);
    take(&f);
    assert_true(hr_clock_ns() - begun_ns >= 20 * MS);
    compute(&f);
    expect_ended(&f, call, HR_OK);
    close_scheduler(&f);
}

/* ---- Room ---- */

static void calls_and_rows_are_bounded_and_those_that_end_make_room(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_calls = 2;
    options.max_rows = 100;
    options.max_call_rows = 100;
    open_scheduler(&f, &options);
    test_call *first = add(&f, 60, HR_CLASS_NORMAL, NEVER);
    expect_refused(&f, 41, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_ITEMS);
    assert_string_equal(f.err.message, "the queue is full: 60 items are waiting, at most 100 may");
    test_call *second = add(&f, 40, HR_CLASS_NORMAL, NEVER);
    expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_CALLS);
    assert_string_equal(f.err.message, "the queue is full: 2 calls are waiting, at most 2 may");
    take(&f); /* taken, they still have their places */
    expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_CALLS);
    compute(&f);
    assert_int_equal(free_ended(&f), 2);
    (void)first, (void)second;
    add(&f, 100, HR_CLASS_NORMAL, NEVER);
    compute_all(&f);
    close_scheduler(&f);
}

static void later_classes_leave_room_for_earlier_ones(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_calls = 8;
    open_scheduler(&f, &options);
    for (int i = 0; i < 2; i++) add(&f, 1, HR_CLASS_SHADOW, NEVER);
    expect_refused(&f, 1, HR_CLASS_SHADOW, NEVER, HR_REFUSAL_CALLS);
    for (int i = 0; i < 2; i++) add(&f, 1, HR_CLASS_BATCH, NEVER);
    expect_refused(&f, 1, HR_CLASS_BATCH, NEVER, HR_REFUSAL_CALLS);
    for (int i = 0; i < 4; i++) add(&f, 1, HR_CLASS_NORMAL, NEVER);
    expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_CALLS);
    compute_all(&f);
    close_scheduler(&f);
}

/* ---- Deadlines ---- */

static void a_passed_deadline_is_refused(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    expect_refused(&f, 1, HR_CLASS_NORMAL, hr_clock_ns(), HR_REFUSAL_DEADLINE);
    assert_int_equal(f.err.code, HR_DEADLINE_EXCEEDED);
    assert_non_null(strstr(f.err.message, "passed"));
    close_scheduler(&f);
}

/* A batch takes 10 s: what must be done in 5 is refused, by a measurement that is recent. */
static void a_call_that_would_not_make_its_deadline_is_refused(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    uint64_t now_ns = hr_clock_ns();
    add(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 5000 * MS); /* nothing is known yet */
    compute_all(&f);
    memset(&f.time, 0, sizeof f.time);
    hr_service_time_add(&f.time, BATCH_ROWS, 10000 * MS, now_ns);
    expect_refused(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 5000 * MS, HR_REFUSAL_DEADLINE);
    assert_non_null(strstr(f.err.message, "0.0 ms of waiting and 10000.0 of computing"));
    add(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 15000 * MS);
    add(&f, BATCH_ROWS / 4, HR_CLASS_NORMAL, now_ns + 5000 * MS); /* goes first, and takes 2.5 s */
    expect_refused(&f, BATCH_ROWS / 4, HR_CLASS_NORMAL, now_ns + 5000 * MS, HR_REFUSAL_DEADLINE);
    assert_non_null(strstr(f.err.message, "2500.0 ms of waiting and 2500.0 of computing"));
    compute_all(&f);
    close_scheduler(&f);
}

static void only_work_that_goes_first_counts_as_ahead(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    uint64_t now_ns = hr_clock_ns();
    hr_service_time_add(&f.time, BATCH_ROWS, 10000 * MS, now_ns);
    for (int i = 0; i < 10; i++) add(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 1000000 * MS);
    for (int i = 0; i < 10; i++) add(&f, BATCH_ROWS, HR_CLASS_BATCH, NEVER);
    add(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 15000 * MS);
    expect_refused(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 16000 * MS, HR_REFUSAL_DEADLINE);
    expect_refused(&f, BATCH_ROWS, HR_CLASS_BATCH, now_ns + 200000 * MS, HR_REFUSAL_DEADLINE);
    add(&f, BATCH_ROWS, HR_CLASS_BATCH, now_ns + 230000 * MS);
    compute_all(&f);
    close_scheduler(&f);
}

static void an_old_measurement_refuses_nobody(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    uint64_t now_ns = hr_clock_ns();
    hr_service_time_add(&f.time, BATCH_ROWS, 200 * MS, now_ns - 3000 * MS);
    add(&f, 1000, HR_CLASS_NORMAL, now_ns + 1000 * MS); /* takes 1.5 s */
    take(&f);
    hr_scheduler_fail(f.scheduler, f.parts[0].call, 0, &(hr_error){.code = HR_INTERNAL});
    compute(&f);
    assert_int_equal(free_ended(&f), 1);
    hr_service_time_add(&f.time, BATCH_ROWS, 200 * MS, now_ns);
    expect_refused(&f, 1000, HR_CLASS_NORMAL, now_ns + 1000 * MS, HR_REFUSAL_DEADLINE);
    close_scheduler(&f);
}

static void an_expired_call_is_dropped_when_it_would_be_taken(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    uint64_t until_ns = hr_clock_ns() + 50 * MS;
    test_call *late = add(&f, 3, HR_CLASS_NORMAL, until_ns), *other = add(&f, 4, HR_CLASS_NORMAL, NEVER);
    wait_until(until_ns);
    take(&f);
    expect_ended(&f, late, HR_DEADLINE_EXCEEDED);
    assert_int_equal(f.batch.n_parts, 1);
    expect_part(&f, 0, other, 0, 4);
    compute(&f);
    expect_ended(&f, other, HR_OK);
    close_scheduler(&f);
}

static void an_expired_call_is_dropped_when_it_would_be_computed(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    uint64_t until_ns = hr_clock_ns() + 50 * MS;
    test_call *late = add(&f, 300, HR_CLASS_NORMAL, until_ns);
    take(&f);
    hr_scheduler_opened(f.scheduler, &late->scheduled);
    wait_until(until_ns);
    assert_int_equal(hr_scheduler_launch(f.scheduler, &f.batch), 0);
    hr_scheduler_done(f.scheduler, &f.batch);
    expect_ended(&f, late, HR_DEADLINE_EXCEEDED); /* and so is its rest, which nobody took */
    hr_scheduler_counts counts;
    hr_scheduler_count(f.scheduler, &counts);
    assert_int_equal(counts.waiting_rows, 0);
    close_scheduler(&f);
}

/* ---- Waiting too long ---- */

/* Admits calls that take 10 ms each until one is refused; how many were admitted. */
static uint32_t fill_queue(fixture *f, hr_call_class class) {
    test_call *call = make_call(f, BATCH_ROWS, class, NEVER);
    uint32_t n = 0;
    for (; admit(f, call) == HR_OK; call = make_call(f, BATCH_ROWS, class, NEVER)) n++;
    assert_int_equal(f->refusal, HR_REFUSAL_WAIT);
    assert_int_equal(f->err.code, HR_RESOURCE_EXHAUSTED);
    free(call);
    return n;
}

static void take_one(fixture *f) {
    take(f);
    hr_scheduler_done(f->scheduler, &f->batch);
    free_ended(f);
    memset(&f->time, 0, sizeof f->time); /* as long as before, whatever it took */
    hr_service_time_add(&f->time, BATCH_ROWS, 10 * MS, 1);
}

static void a_call_that_would_wait_too_long_is_refused(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_wait_ns = 55 * MS;
    open_scheduler(&f, &options);
    hr_service_time_add(&f.time, BATCH_ROWS, 10 * MS, 1);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 6);
    assert_string_equal(f.err.message, "the queue is full: a call would wait 60.0 ms, at most 55.0 may be");
    take_one(&f);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 1);
    compute_all(&f);
    close_scheduler(&f);
}

/* Ten times what a call takes, and 200 ms for a burst, until one was refused. */
static void the_automatic_bound_holds_once_it_was_reached(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_wait_ns = 0;
    open_scheduler(&f, &options);
    hr_service_time_add(&f.time, BATCH_ROWS, 10 * MS, 1);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 31);
    for (int i = 0; i < 20; i++) {
        take_one(&f);
        expect_refused(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_WAIT);
    }
    take_one(&f);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 1);
    for (int i = 0; i < 30; i++) add(&f, BATCH_ROWS, HR_CLASS_BATCH, NEVER); /* who wait by trade */
    expect_refused(&f, BATCH_ROWS, HR_CLASS_SHADOW, NEVER, HR_REFUSAL_WAIT);
    compute_all(&f);
    close_scheduler(&f);
}

static void a_worker_with_nothing_to_do_ends_the_overload(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_wait_ns = 0;
    open_scheduler(&f, &options);
    hr_service_time_add(&f.time, BATCH_ROWS, 10 * MS, 1);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 31);
    while (f.batch.n_parts == 0 || f.parts[0].call != NULL) { /* empties the queue */
        hr_scheduler_counts counts;
        hr_scheduler_count(f.scheduler, &counts);
        if (counts.waiting_rows == 0) break;
        take_one(&f);
    }
    pthread_barrier_t alone;
    pthread_barrier_init(&alone, NULL, 1);
    sharer idle = {.scheduler = f.scheduler, .all_have_some = &alone};
    assert_int_equal(hr_thread_start(&idle.thread, "idle", share, &idle, NULL), HR_OK);
    wait_for_idle(&f, 1);
    test_call *call = add(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER);
    pthread_join(idle.thread, NULL);
    free(call);
    pthread_barrier_destroy(&alone);
    memset(&f.time, 0, sizeof f.time);
    hr_service_time_add(&f.time, BATCH_ROWS, 10 * MS, 1);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 31);
    compute_all(&f);
    close_scheduler(&f);
}

/* ---- Cancelling and failing ---- */

static void a_cancelled_call_leaves_the_queue_at_once(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_calls = 1;
    open_scheduler(&f, &options);
    test_call *first = add(&f, 10, HR_CLASS_NORMAL, NEVER);
    expect_refused(&f, 10, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_CALLS);
    hr_scheduler_cancel(f.scheduler, &first->slot);
    assert_null(first->slot);
    hr_scheduler_cancel(f.scheduler, &first->slot); /* no more to do */
    test_call *second = add(&f, 20, HR_CLASS_NORMAL, NEVER);
    take(&f);
    expect_ended(&f, first, HR_CANCELLED);
    assert_int_equal(f.batch.n_parts, 1);
    expect_part(&f, 0, second, 0, 20);
    compute(&f);
    expect_ended(&f, second, HR_OK);
    close_scheduler(&f);
}

static void a_call_cancelled_before_it_comes_is_not_admitted(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    test_call *call = make_call(&f, 1, HR_CLASS_NORMAL, NEVER);
    atomic_store(&call->cancelled, true);
    assert_int_equal(admit(&f, call), HR_CANCELLED);
    assert_int_equal(f.refusal, HR_REFUSAL_NONE);
    free(call);
    close_scheduler(&f);
}

static void a_call_cancelled_in_its_fetch_ends_with_the_fetch(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_calls = 1;
    open_scheduler(&f, &options);
    test_call *call = make_call(&f, 10, HR_CLASS_NORMAL, NEVER);
    assert_int_equal(hr_scheduler_admit(f.scheduler, &call->scheduled, true, &f.refusal, &f.err), HR_OK);
    hr_scheduler_cancel(f.scheduler, &call->slot);
    assert_non_null(call->slot); /* the store has it */
    test_call *second = add(&f, 10, HR_CLASS_NORMAL, NEVER);
    take(&f);
    assert_null(f.batch.ended);
    expect_part(&f, 0, second, 0, 10);
    hr_scheduler_ready(f.scheduler, &call->scheduled);
    compute(&f);
    expect_ended(&f, second, HR_OK);
    take(&f);
    assert_int_equal(f.batch.n_parts, 0);
    expect_ended(&f, call, HR_CANCELLED);
    close_scheduler(&f);
}

static void a_call_cancelled_while_it_is_computed_ends_with_its_parts(void **state) {
    (void)state;
    fixture f;
    open_scheduler(&f, &DEFAULTS);
    test_call *call = add(&f, 300, HR_CLASS_NORMAL, NEVER);
    take(&f);
    hr_scheduler_opened(f.scheduler, &call->scheduled);
    assert_int_equal(hr_scheduler_launch(f.scheduler, &f.batch), BATCH_ROWS);
    hr_scheduler_cancel(f.scheduler, &call->slot);
    hr_scheduler_counts counts;
    hr_scheduler_count(f.scheduler, &counts);
    assert_int_equal(counts.waiting_rows, 0);
    hr_scheduler_done(f.scheduler, &f.batch);
    expect_ended(&f, call, HR_CANCELLED);
    close_scheduler(&f);
}

/* Rows 128 on fail first, rows 0 on after them: whichever worker was faster, the caller hears of row 0. */
static void a_call_that_fails_twice_tells_the_first_rows_error(void **state) {
    (void)state;
    fixture f;
    hr_part more_parts[BATCH_ROWS];
    hr_batch more = {.parts = more_parts};
    open_scheduler(&f, &DEFAULTS);
    test_call *call = add(&f, 1000, HR_CLASS_NORMAL, NEVER);
    take(&f);
    hr_scheduler_opened(f.scheduler, &call->scheduled);
    assert_true(hr_scheduler_take(f.scheduler, &more));
    const hr_error late = {.code = HR_INVALID_ARGUMENT, .message = "row 130"};
    const hr_error early = {.code = HR_INVALID_ARGUMENT, .message = "row 3"};
    hr_scheduler_fail(f.scheduler, more_parts[0].call, more_parts[0].first, &late);
    hr_scheduler_fail(f.scheduler, f.parts[0].call, f.parts[0].first, &early);
    assert_int_equal(hr_scheduler_launch(f.scheduler, &more), 0);
    hr_scheduler_done(f.scheduler, &more);
    assert_null(more.ended);
    compute(&f);
    assert_string_equal(call->scheduled.error.message, "row 3");
    expect_ended(&f, call, HR_INVALID_ARGUMENT);
    close_scheduler(&f);
}

/* ---- The end ---- */

static void a_draining_scheduler_refuses_and_finishes_what_it_has(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = DEFAULTS;
    options.max_delay_ns = 3600000 * MS;
    open_scheduler(&f, &options);
    test_call *call = add(&f, 1, HR_CLASS_NORMAL, NEVER);
    hr_scheduler_drain(f.scheduler);
    expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_DRAINING);
    assert_int_equal(f.err.code, HR_UNAVAILABLE);
    take(&f); /* without the delay */
    compute(&f);
    expect_ended(&f, call, HR_OK);
    close_scheduler(&f);
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
    hr_scheduler_options options = DEFAULTS;
    options.n_workers = WORKERS;
    options.max_calls = 300;
    options.max_wait_ns = 0;
    open_scheduler(&f, &options);
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
        cmocka_unit_test(batch_calls_get_a_tenth_of_the_time_and_shadow_calls_what_is_left),
        cmocka_unit_test(a_call_is_shared_by_all_that_are_idle),
        cmocka_unit_test(a_batch_may_be_waited_for_until_it_is_full),
        cmocka_unit_test(a_delay_that_is_over_is_over),
        cmocka_unit_test(calls_and_rows_are_bounded_and_those_that_end_make_room),
        cmocka_unit_test(later_classes_leave_room_for_earlier_ones),
        cmocka_unit_test(a_passed_deadline_is_refused),
        cmocka_unit_test(a_call_that_would_not_make_its_deadline_is_refused),
        cmocka_unit_test(only_work_that_goes_first_counts_as_ahead),
        cmocka_unit_test(an_old_measurement_refuses_nobody),
        cmocka_unit_test(an_expired_call_is_dropped_when_it_would_be_taken),
        cmocka_unit_test(an_expired_call_is_dropped_when_it_would_be_computed),
        cmocka_unit_test(a_call_that_would_wait_too_long_is_refused),
        cmocka_unit_test(the_automatic_bound_holds_once_it_was_reached),
        cmocka_unit_test(a_worker_with_nothing_to_do_ends_the_overload),
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
