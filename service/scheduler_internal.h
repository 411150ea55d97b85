/* The scheduler's inside, for its own files: scheduler.c moves calls, scheduler_admit.c judges them. */
#ifndef HOMERANK_SERVICE_SCHEDULER_INTERNAL_H
#define HOMERANK_SERVICE_SCHEDULER_INTERNAL_H

#include <pthread.h>

#include "service/scheduler.h"

/* The calls of one model. */
struct hr_lane {
    const void *model;
    uint32_t n_calls; /* that have this lane; 0: it is free */
    hr_deadline_tree trees[HR_CLASS_COUNT];
    uint64_t n_rows[HR_CLASS_COUNT];   /* of the calls in each tree, those not taken */
    uint64_t since_ns[HR_CLASS_COUNT]; /* when that last became more than 0 */
    hr_lane *next;
};

struct hr_scheduler {
    hr_scheduler_options options; /* constant */
    pthread_mutex_t lock;         /* guards the rest */
    pthread_cond_t work;          /* there is something to take; CLOCK_MONOTONIC */
    pthread_cond_t idle;          /* n_live became 0 */
    hr_lane *lanes, *free_lanes;  /* owned */
    uint64_t sequence;
    bool draining, closed;

    uint32_t n_calls[HR_CLASS_COUNT]; /* that have a place: admitted, and neither ended nor given up */
    uint64_t n_rows[HR_CLASS_COUNT];  /* of those */
    uint32_t n_live;                  /* admitted and not ended */
    uint32_t n_untouched;             /* of those, without a row taken */
    uint64_t n_untaken;               /* rows of all calls that were not taken */
    hr_scheduled *ended;              /* to be handed back by the next take */

    uint64_t ready_rows[HR_CLASS_COUNT]; /* in the trees of all lanes */
    uint64_t pending_ns[HR_CLASS_COUNT]; /* work of calls that are not ready */
    uint64_t owed_ns;                    /* to the batch class */

    uint32_t n_waiting;          /* workers with nothing to do */
    bool overloaded;             /* a call was refused for its wait, and no worker waited since */
    uint32_t n_busy;             /* workers with a batch */
    uint64_t busy_until_ns;      /* the sum of when their batches should be done, modulo 2^64 */
    double mean_ns, mean_square; /* of the normal calls' service times S, all workers on one */
    uint32_t n_means;
};

/* Why a call is refused, in numbers: the words are found outside the lock. */
typedef struct hr_verdict {
    hr_status status; /* HR_OK: it is not */
    hr_refusal refusal;
    uint64_t found, most; /* calls, items, or nanoseconds of waiting */
    uint64_t own_ns, left_ns;
} hr_verdict;

/* What all rows of the call take one worker, as measured so far. */
uint64_t hr_scheduler__work_ns(const hr_scheduler *scheduler, const hr_scheduled *call);

/* Judges a call by what there is now; sets its work and its place in the order. Under the lock. */
hr_verdict hr_scheduler__judge(hr_scheduler *scheduler, hr_scheduled *call);

/* The verdict in words. */
void hr_scheduler__explain(const hr_verdict *verdict, hr_error *err);

#endif
