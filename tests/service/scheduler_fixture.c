/* See scheduler_fixture.h. */
#include "tests/service/scheduler_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

const hr_scheduler_options sched_defaults = {
    .n_workers = 1,
    .max_batch_rows = BATCH_ROWS,
    .split_rows = SPLIT_ROWS,
    .max_calls = 10000,
    .max_rows = 10000000,
    .max_call_rows = 1000,
    .max_wait_ns = UINT64_MAX,
};

void sched_open(fixture *f, const hr_scheduler_options *options) {
    memset(f, 0, sizeof *f);
    f->batch.parts = f->parts;
    assert_int_equal(hr_scheduler_create(options, &f->scheduler, &f->err), HR_OK);
}

void sched_close(fixture *f) {
    hr_scheduler_close(f->scheduler);
    assert_false(hr_scheduler_take(f->scheduler, &f->batch));
    hr_scheduler_destroy(f->scheduler);
}

test_call *sched_call(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns) {
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

hr_status sched_admit(fixture *f, test_call *call) {
    return hr_scheduler_admit(f->scheduler, &call->scheduled, false, &f->refusal, &f->err);
}

test_call *sched_add(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns) {
    test_call *call = sched_call(f, n_rows, class, deadline_ns);
    if (sched_admit(f, call) != HR_OK) fail_msg("%s", f->err.message);
    return call;
}

/* Asks for one more, which is refused for this reason. */
void sched_expect_refused(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns,
                          hr_refusal refusal) {
    test_call *call = sched_call(f, n_rows, class, deadline_ns);
    assert_int_not_equal(sched_admit(f, call), HR_OK);
    assert_int_equal(f->refusal, refusal);
    assert_null(call->slot);
    free(call);
}

void sched_expect_part(const fixture *f, uint32_t i, const test_call *call, uint32_t first, uint32_t n_rows) {
    assert_true(i < f->batch.n_parts);
    assert_ptr_equal(f->parts[i].call, &call->scheduled);
    assert_int_equal(f->parts[i].first, first);
    assert_int_equal(f->parts[i].n_rows, n_rows);
}

void sched_take(fixture *f) {
    assert_true(hr_scheduler_take(f->scheduler, &f->batch));
}

/* Takes the only call handed back off the batch. */
void sched_expect_ended(fixture *f, test_call *call, hr_status code) {
    assert_ptr_equal(f->batch.ended, &call->scheduled);
    assert_null(call->scheduled.next);
    assert_int_equal(call->scheduled.error.code, code);
    assert_null(call->slot);
    f->batch.ended = NULL;
    free(call);
}

uint32_t sched_free_ended(fixture *f) {
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
void sched_compute(fixture *f) {
    hr_scheduler_launch(f->scheduler, &f->batch);
    hr_scheduler_done(f->scheduler, &f->batch);
}

uint64_t sched_waiting_rows(fixture *f) {
    hr_scheduler_counts counts;
    hr_scheduler_count(f->scheduler, &counts);
    return counts.waiting_rows;
}

void sched_compute_all(fixture *f) {
    while (sched_waiting_rows(f) > 0) {
        sched_take(f);
        sched_free_ended(f);
        for (uint32_t i = f->batch.n_parts; i-- > 0;)
            if (f->parts[i].first == 0 && !f->parts[i].whole)
                hr_scheduler_opened(f->scheduler, f->parts[i].call);
        sched_compute(f);
        sched_free_ended(f);
    }
}

void sched_wait_until(uint64_t ns) {
    while (hr_clock_ns() < ns) sched_yield();
}

void *sched_share(void *arg) {
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

void sched_wait_for_idle(fixture *f, uint32_t n) {
    hr_scheduler_counts counts;
    do {
        sched_yield();
        hr_scheduler_count(f->scheduler, &counts);
    } while (counts.idle_workers < n);
}
