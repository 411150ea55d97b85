/* A scheduler without models for its tests: calls that are nothing but their rows, and one worker's rounds,
 * step by step. What goes wrong fails the test. */
#ifndef HOMERANK_TESTS_SERVICE_SCHEDULER_FIXTURE_H
#define HOMERANK_TESTS_SERVICE_SCHEDULER_FIXTURE_H

#include <pthread.h>
#include <stdint.h>

#include "service/scheduler.h"

#define MS UINT64_C(1000000)
enum { BATCH_ROWS = 128, SPLIT_ROWS = 32, NEVER = 0 };

/* One worker, batches of BATCH_ROWS, room enough, no bound on waiting. */
extern const hr_scheduler_options sched_defaults;

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

void sched_open(fixture *f, const hr_scheduler_options *options);
void sched_close(fixture *f); /* every call has ended */

/* A call of the model `time`, on the heap. deadline_ns NEVER: none. */
test_call *sched_call(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns);
hr_status sched_admit(fixture *f, test_call *call);
test_call *sched_add(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns); /* both */

/* Asks for one more, which is refused for this reason. */
void sched_expect_refused(fixture *f, uint32_t n_rows, hr_call_class class, uint64_t deadline_ns,
                          hr_refusal refusal);

void sched_take(fixture *f);
void sched_expect_part(const fixture *f, uint32_t i, const test_call *call, uint32_t first, uint32_t n_rows);
void sched_compute(fixture *f);     /* the batch taken */
void sched_compute_all(fixture *f); /* all that waits, and frees the calls */

/* Takes the only call handed back off the batch, and frees it. */
void sched_expect_ended(fixture *f, test_call *call, hr_status code);
uint32_t sched_free_ended(fixture *f); /* how many they were */

uint64_t sched_waiting_rows(fixture *f);
void sched_wait_until(uint64_t ns);
void sched_wait_for_idle(fixture *f, uint32_t n); /* so many workers */

/* A worker for one round: takes a part, waits for the others' at the barrier, and notes how many rows it got.
 */
typedef struct sharer {
    hr_scheduler *scheduler;
    pthread_barrier_t *all_have_some;
    pthread_t thread;
    hr_part parts[BATCH_ROWS];
    uint32_t n_rows;
} sharer;
void *sched_share(void *arg); /* a thread's; of a sharer */

#endif
