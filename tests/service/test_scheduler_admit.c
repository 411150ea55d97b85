/* Who is admitted to the scheduler: room, deadlines, waits. Times of batches are given, not measured,
 * wherever they matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/thread.h"
#include "tests/service/scheduler_fixture.h"

/* ---- Room ---- */

static void calls_and_rows_are_bounded_and_those_that_end_make_room(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_calls = 2;
    options.max_rows = 100;
    options.max_call_rows = 100;
    sched_open(&f, &options);
    test_call *first = sched_add(&f, 60, HR_CLASS_NORMAL, NEVER);
    sched_expect_refused(&f, 41, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_ITEMS);
    assert_string_equal(f.err.message, "the queue is full: 60 items are waiting, at most 100 may");
    test_call *second = sched_add(&f, 40, HR_CLASS_NORMAL, NEVER);
    sched_expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_CALLS);
    assert_string_equal(f.err.message, "the queue is full: 2 calls are waiting, at most 2 may");
    sched_take(&f); /* taken, they still have their places */
    sched_expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_CALLS);
    sched_compute(&f);
    assert_int_equal(sched_free_ended(&f), 2);
    (void)first, (void)second;
    sched_add(&f, 100, HR_CLASS_NORMAL, NEVER);
    sched_compute_all(&f);
    sched_close(&f);
}

static void later_classes_leave_room_for_earlier_ones(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_calls = 8;
    sched_open(&f, &options);
    for (int i = 0; i < 2; i++) sched_add(&f, 1, HR_CLASS_SHADOW, NEVER);
    sched_expect_refused(&f, 1, HR_CLASS_SHADOW, NEVER, HR_REFUSAL_CALLS);
    for (int i = 0; i < 2; i++) sched_add(&f, 1, HR_CLASS_BATCH, NEVER);
    sched_expect_refused(&f, 1, HR_CLASS_BATCH, NEVER, HR_REFUSAL_CALLS);
    for (int i = 0; i < 4; i++) sched_add(&f, 1, HR_CLASS_NORMAL, NEVER);
    sched_expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_CALLS);
    sched_compute_all(&f);
    sched_close(&f);
}

/* ---- Deadlines ---- */

static void a_passed_deadline_is_refused(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    sched_expect_refused(&f, 1, HR_CLASS_NORMAL, hr_clock_ns(), HR_REFUSAL_DEADLINE);
    assert_int_equal(f.err.code, HR_DEADLINE_EXCEEDED);
    assert_non_null(strstr(f.err.message, "passed"));
    sched_close(&f);
}

/* A batch takes 10 s: what must be done in 5 is refused, by a measurement that is recent. */
static void a_call_that_would_not_make_its_deadline_is_refused(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    uint64_t now_ns = hr_clock_ns();
    sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 5000 * MS); /* nothing is known yet */
    sched_compute_all(&f);
    memset(&f.time, 0, sizeof f.time);
    hr_service_time_add(&f.time, BATCH_ROWS, 10000 * MS, now_ns);
    sched_expect_refused(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 5000 * MS, HR_REFUSAL_DEADLINE);
    assert_non_null(strstr(f.err.message, "0.0 ms of waiting and 10000.0 of computing"));
    sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 15000 * MS);
    sched_add(&f, BATCH_ROWS / 4, HR_CLASS_NORMAL, now_ns + 5000 * MS); /* goes first, and takes 2.5 s */
    sched_expect_refused(&f, BATCH_ROWS / 4, HR_CLASS_NORMAL, now_ns + 5000 * MS, HR_REFUSAL_DEADLINE);
    assert_non_null(strstr(f.err.message, "2500.0 ms of waiting and 2500.0 of computing"));
    sched_compute_all(&f);
    sched_close(&f);
}

static void only_work_that_goes_first_counts_as_ahead(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    uint64_t now_ns = hr_clock_ns();
    hr_service_time_add(&f.time, BATCH_ROWS, 10000 * MS, now_ns);
    for (int i = 0; i < 10; i++) sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 1000000 * MS);
    for (int i = 0; i < 10; i++) sched_add(&f, BATCH_ROWS, HR_CLASS_BATCH, NEVER);
    sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 15000 * MS);
    sched_expect_refused(&f, BATCH_ROWS, HR_CLASS_NORMAL, now_ns + 16000 * MS, HR_REFUSAL_DEADLINE);
    sched_expect_refused(&f, BATCH_ROWS, HR_CLASS_BATCH, now_ns + 200000 * MS, HR_REFUSAL_DEADLINE);
    sched_add(&f, BATCH_ROWS, HR_CLASS_BATCH, now_ns + 230000 * MS);
    sched_compute_all(&f);
    sched_close(&f);
}

static void a_batch_that_runs_counts_as_ahead(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_wait_ns = 100 * MS;
    sched_open(&f, &options);
    hr_service_time_add(&f.time, BATCH_ROWS, 10000 * MS, hr_clock_ns());
    sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER);
    sched_take(&f); /* for 10 s, as far as is known */
    sched_expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_WAIT);
    sched_expect_refused(&f, 1, HR_CLASS_NORMAL, hr_clock_ns() + 8000 * MS, HR_REFUSAL_DEADLINE);
    sched_compute(&f);
    sched_free_ended(&f);
    sched_add(&f, 1, HR_CLASS_NORMAL, NEVER);
    sched_compute_all(&f);
    sched_close(&f);
}

/* As after a swap: what came before the new version's first batch was through is work nevertheless. */
static void calls_of_a_model_not_yet_measured_are_weighed_once_it_is(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_wait_ns = 100 * MS;
    sched_open(&f, &options);
    for (int i = 0; i < 11; i++) sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER);
    test_call *late = sched_call(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER);
    assert_int_equal(hr_scheduler_admit(f.scheduler, &late->scheduled, true, &f.refusal, &f.err),
                     HR_OK); /* fetching */
    sched_take(&f);
    sched_wait_until(hr_clock_ns() + 30 * MS);
    sched_compute(&f);
    assert_int_equal(sched_free_ended(&f), 1);
    sched_expect_refused(&f, 1, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_WAIT); /* 10 batches of 30 ms */
    for (int i = 0; i < 10; i++) {
        sched_take(&f);
        sched_compute(&f);
        sched_free_ended(&f);
    }
    sched_add(&f, 1, HR_CLASS_NORMAL, NEVER);
    hr_scheduler_ready(f.scheduler, &late->scheduled);
    sched_compute_all(&f);
    sched_close(&f);
}

static void an_old_measurement_refuses_nobody(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    uint64_t now_ns = hr_clock_ns();
    hr_service_time_add(&f.time, BATCH_ROWS, 200 * MS, now_ns - 3000 * MS);
    sched_add(&f, 1000, HR_CLASS_NORMAL, now_ns + 1000 * MS); /* takes 1.5 s */
    sched_take(&f);
    hr_scheduler_fail(f.scheduler, f.parts[0].call, 0, &(hr_error){.code = HR_INTERNAL});
    sched_compute(&f);
    assert_int_equal(sched_free_ended(&f), 1);
    hr_service_time_add(&f.time, BATCH_ROWS, 200 * MS, now_ns);
    sched_expect_refused(&f, 1000, HR_CLASS_NORMAL, now_ns + 1000 * MS, HR_REFUSAL_DEADLINE);
    sched_close(&f);
}

static void an_expired_call_is_dropped_when_it_would_be_taken(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    uint64_t until_ns = hr_clock_ns() + 50 * MS;
    test_call *late = sched_add(&f, 3, HR_CLASS_NORMAL, until_ns),
              *other = sched_add(&f, 4, HR_CLASS_NORMAL, NEVER);
    sched_wait_until(until_ns);
    sched_take(&f);
    sched_expect_ended(&f, late, HR_DEADLINE_EXCEEDED);
    assert_int_equal(f.batch.n_parts, 1);
    sched_expect_part(&f, 0, other, 0, 4);
    sched_compute(&f);
    sched_expect_ended(&f, other, HR_OK);
    sched_close(&f);
}

static void an_expired_call_is_dropped_when_it_would_be_computed(void **state) {
    (void)state;
    fixture f;
    sched_open(&f, &sched_defaults);
    uint64_t until_ns = hr_clock_ns() + 50 * MS;
    test_call *late = sched_add(&f, 300, HR_CLASS_NORMAL, until_ns);
    sched_take(&f);
    hr_scheduler_opened(f.scheduler, &late->scheduled);
    sched_wait_until(until_ns);
    assert_int_equal(hr_scheduler_launch(f.scheduler, &f.batch), 0);
    hr_scheduler_done(f.scheduler, &f.batch);
    sched_expect_ended(&f, late, HR_DEADLINE_EXCEEDED); /* and so is its rest, which nobody took */
    assert_int_equal(sched_waiting_rows(&f), 0);
    sched_close(&f);
}

/* ---- Waiting too long ---- */

/* Admits calls that take 10 ms each until one is refused; how many were admitted. */
static uint32_t fill_queue(fixture *f, hr_call_class class) {
    test_call *call = sched_call(f, BATCH_ROWS, class, NEVER);
    uint32_t n = 0;
    for (; sched_admit(f, call) == HR_OK; call = sched_call(f, BATCH_ROWS, class, NEVER)) n++;
    assert_int_equal(f->refusal, HR_REFUSAL_WAIT);
    assert_int_equal(f->err.code, HR_RESOURCE_EXHAUSTED);
    free(call);
    return n;
}

static void take_one(fixture *f) {
    sched_take(f);
    hr_scheduler_done(f->scheduler, &f->batch);
    sched_free_ended(f);
    memset(&f->time, 0, sizeof f->time); /* as long as before, whatever it took */
    hr_service_time_add(&f->time, BATCH_ROWS, 10 * MS, 1);
}

static void a_call_that_would_wait_too_long_is_refused(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_wait_ns = 55 * MS;
    sched_open(&f, &options);
    hr_service_time_add(&f.time, BATCH_ROWS, 10 * MS, 1);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 6);
    assert_string_equal(f.err.message, "the queue is full: a call would wait 60.0 ms, at most 55.0 may be");
    take_one(&f);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 1);
    sched_compute_all(&f);
    sched_close(&f);
}

/* Nine times what a call takes, and 40 ms for a burst, until one was refused. */
static void the_automatic_bound_holds_once_it_was_reached(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_wait_ns = 0;
    sched_open(&f, &options);
    hr_service_time_add(&f.time, BATCH_ROWS, 10 * MS, 1);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 14);
    for (int i = 0; i < 4; i++) {
        take_one(&f);
        sched_expect_refused(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER, HR_REFUSAL_WAIT);
    }
    take_one(&f);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 1);
    for (int i = 0; i < 30; i++) sched_add(&f, BATCH_ROWS, HR_CLASS_BATCH, NEVER); /* who wait by trade */
    test_call *patient = sched_call(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER);
    patient->scheduled.patient = true;
    assert_int_equal(sched_admit(&f, patient), HR_OK);
    sched_expect_refused(&f, BATCH_ROWS, HR_CLASS_SHADOW, NEVER, HR_REFUSAL_WAIT);
    sched_compute_all(&f);
    sched_close(&f);
}

static void a_worker_with_nothing_to_do_ends_the_overload(void **state) {
    (void)state;
    fixture f;
    hr_scheduler_options options = sched_defaults;
    options.max_wait_ns = 0;
    sched_open(&f, &options);
    hr_service_time_add(&f.time, BATCH_ROWS, 10 * MS, 1);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 14);
    while (sched_waiting_rows(&f) > 0) take_one(&f);
    pthread_barrier_t alone;
    pthread_barrier_init(&alone, NULL, 1);
    sharer idle = {.scheduler = f.scheduler, .all_have_some = &alone};
    assert_int_equal(hr_thread_start(&idle.thread, "idle", sched_share, &idle, NULL), HR_OK);
    sched_wait_for_idle(&f, 1);
    test_call *call = sched_add(&f, BATCH_ROWS, HR_CLASS_NORMAL, NEVER);
    pthread_join(idle.thread, NULL);
    free(call);
    pthread_barrier_destroy(&alone);
    memset(&f.time, 0, sizeof f.time);
    hr_service_time_add(&f.time, BATCH_ROWS, 10 * MS, 1);
    assert_int_equal(fill_queue(&f, HR_CLASS_NORMAL), 14);
    sched_compute_all(&f);
    sched_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_and_rows_are_bounded_and_those_that_end_make_room),
        cmocka_unit_test(later_classes_leave_room_for_earlier_ones),
        cmocka_unit_test(a_passed_deadline_is_refused),
        cmocka_unit_test(a_call_that_would_not_make_its_deadline_is_refused),
        cmocka_unit_test(only_work_that_goes_first_counts_as_ahead),
        cmocka_unit_test(a_batch_that_runs_counts_as_ahead),
        cmocka_unit_test(calls_of_a_model_not_yet_measured_are_weighed_once_it_is),
        cmocka_unit_test(an_old_measurement_refuses_nobody),
        cmocka_unit_test(an_expired_call_is_dropped_when_it_would_be_taken),
        cmocka_unit_test(an_expired_call_is_dropped_when_it_would_be_computed),
        cmocka_unit_test(a_call_that_would_wait_too_long_is_refused),
        cmocka_unit_test(the_automatic_bound_holds_once_it_was_reached),
        cmocka_unit_test(a_worker_with_nothing_to_do_ends_the_overload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
