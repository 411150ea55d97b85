/* Which rows run next: the queue between the calls that wait and the workers that compute (DESIGN 3, step 5).
 *
 * A call is admitted or refused at once; when its records are there it is ready; a worker that is free takes
 * a batch: rows of as many calls of one model as fit. A call larger than a batch is taken in parts, by as
 * many workers as are free, and ends with its last part. Nothing waits for a batch to fill, unless asked to.
 *
 * Order. Classes first: normal before batch before shadow, and no batch mixes them. Within a class the
 * earliest deadline goes first; a call without one is ordered as if it had a second. Ready batch calls are
 * owed a tenth of the time that normal ones take while they wait, so they never starve; shadow calls are owed
 * nothing.
 *
 * Parts. A batch holds up to max_batch_rows. Where other workers are idle, what is ready is shared with them,
 * in parts of at least split_rows: a lone call of 500 items is computed by all of them at once. Shadow rows are
 * taken no more than split_rows at a time, so that other work need not wait long for a worker that has some.
 *
 * Admission. Bounds on calls and rows hold for all classes together; batch calls may fill half of each,
 * shadow calls a quarter. A call whose deadline is before the time at which it could be done at the earliest
 * is refused: by the work ahead of it, what runs, and its own work, as measured (service_time.h; a
 * measurement older than a second and four batches refuses nobody). And a call that would wait too long is
 * refused: past max_wait_ns, or, where that is automatic, past nine times E[S^2] / E[S] of the calls' own
 * service times S, which is the scale of the waiting time in any queue (Pollaczek-Khinchine), and never less
 * than 10 ms. At 70 % load that refuses hardly anybody; at overload it keeps those that are admitted within
 * twice of that load's tail. A burst may wait 40 ms more: until a call is refused for its wait, and again
 * once a worker finds nothing to do. Batch calls and patient ones, whose caller is held back by other means,
 * may wait as long as they like.
 *
 * Everything takes O(log n) of the calls waiting, times the number of models that have some. Nothing is
 * allocated but a few words when more models than ever before have calls at once.
 *
 * Thread rule: any thread may call anything, but a batch belongs to one worker. A call (hr_scheduled) belongs
 * to the scheduler from its admission until it is handed back in hr_batch.ended. One lock guards all.
 */
#ifndef HOMERANK_SERVICE_SCHEDULER_H
#define HOMERANK_SERVICE_SCHEDULER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "service/call_report.h"
#include "service/deadline_tree.h"
#include "service/service_time.h"

typedef struct hr_scheduler hr_scheduler;
typedef struct hr_scheduled hr_scheduled;
typedef struct hr_lane hr_lane;

/* One call in the scheduler; all zero before it is filled in. */
struct hr_scheduled {
    /* In; unchanged until it ended. */
    const void *model;     /* its identity only: a batch has rows of one */
    hr_service_time *time; /* of that model; borrowed */
    uint32_t n_rows;       /* >= 1 */
    hr_call_class class;
    uint64_t received_ns;
    uint64_t deadline_ns;         /* hr_clock_ns; UINT64_MAX: none */
    bool patient;                 /* not refused for its wait */
    const atomic_bool *cancelled; /* borrowed; set before hr_scheduler_cancel */
    hr_scheduled **slot;          /* borrowed; points to the call while the scheduler has it, else NULL */
    /* Out, once it ended. */
    hr_error error;        /* code HR_OK: every row was computed */
    uint64_t computing_ns; /* the time during which at least one batch with its rows was computed */
    uint64_t preparing_ns; /* the time during which none was, but at least one was opened and encoded */
    hr_scheduled *next;    /* in hr_batch.ended */
    /* The scheduler's own. */
    hr_deadline_node node; /* in a tree of its lane while rows of it may be taken */
    hr_lane *lane;
    uint64_t work_ns;     /* of all its rows */
    uint32_t n_left;      /* rows that no worker took; they are its last ones */
    uint32_t n_parts;     /* taken and not done */
    uint32_t n_computing; /* of those, launched */
    uint32_t error_row;   /* which row's error it is: the first one's is kept */
    uint64_t since_ns;    /* of the two times */
    bool fetching, opened, counted, in_tree, pending;
};

/* Rows [first, first + n_rows) of a call. The part with row 0 opens the call: it makes what the rows share,
 * and tells hr_scheduler_opened where that is not the whole call. */
typedef struct hr_part {
    hr_scheduled *call;
    uint32_t first, n_rows;
    bool whole;    /* all of the call's rows */
    bool launched; /* by hr_scheduler_launch */
} hr_part;

/* What a worker works on; the worker's own, zero at first but for `parts`. */
typedef struct hr_batch {
    hr_part *parts; /* (max_batch_rows) the worker's */
    uint32_t n_parts;
    uint32_t n_rows;     /* of all parts; after the launch, of those launched */
    hr_scheduled *ended; /* calls handed back, linked by next; the worker takes them off */
    /* The scheduler's own. */
    uint64_t taken_ns, expected_ns;
} hr_batch;

typedef struct hr_scheduler_options {
    uint32_t n_workers;
    uint32_t max_batch_rows;
    uint32_t split_rows;    /* at most max_batch_rows */
    uint64_t max_delay_ns;  /* a free worker waits as long for more rows of a model, unless a batch is full */
    uint32_t max_calls;     /* admitted and not ended, or given up */
    uint64_t max_rows;      /* of those */
    uint32_t max_call_rows; /* of the largest call: always admitted where nothing else is */
    uint64_t max_wait_ns;   /* 0: automatic; UINT64_MAX: none */
} hr_scheduler_options;

/* Errors: OUT_OF_MEMORY. */
hr_status hr_scheduler_create(const hr_scheduler_options *options, hr_scheduler **scheduler, hr_error *err);
/* No call is left, no worker and no admission inside; NULL is allowed. */
void hr_scheduler_destroy(hr_scheduler *scheduler);

/* Takes the call in, ready at once or, where fetching, once hr_scheduler_ready says so. Errors, with *refusal
 * saying why (NONE: it is cancelled): UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, CANCELLED,
 * OUT_OF_MEMORY. */
hr_status hr_scheduler_admit(hr_scheduler *scheduler, hr_scheduled *call, bool fetching, hr_refusal *refusal,
                             hr_error *err);
void hr_scheduler_ready(hr_scheduler *scheduler, hr_scheduled *call);

/* The call in *slot, if any, is given up: its place is free at once, rows that are not launched are dropped,
 * and it is handed back with CANCELLED as soon as no thread works on it. */
void hr_scheduler_cancel(hr_scheduler *scheduler, hr_scheduled *const *slot);

/* A worker's round: take; open, encode; launch; compute; done. */

/* Waits for rows to compute or calls to hand back; false: the scheduler is closed. */
bool hr_scheduler_take(hr_scheduler *scheduler, hr_batch *batch);

/* The rest of the call may be taken by others. */
void hr_scheduler_opened(hr_scheduler *scheduler, hr_scheduled *call);

/* The call fails by `error`, found in a part with this first row; what is left of it is dropped. Of several
 * such errors the one of the first rows stays, whichever was found first. */
void hr_scheduler_fail(hr_scheduler *scheduler, hr_scheduled *call, uint32_t first_row,
                       const hr_error *error);

/* Drops the parts whose calls were cancelled, failed or are past their deadline; the others begin to be
 * computed. Returns their number of rows. */
uint32_t hr_scheduler_launch(hr_scheduler *scheduler, hr_batch *batch);

/* The batch is through; calls that have no more parts are handed back in batch->ended. */
void hr_scheduler_done(hr_scheduler *scheduler, hr_batch *batch);

/* Refuses calls from now on with UNAVAILABLE. */
void hr_scheduler_drain(hr_scheduler *scheduler);

/* Drains, waits until every call has ended, and lets the workers go. */
void hr_scheduler_close(hr_scheduler *scheduler);

typedef struct hr_scheduler_counts {
    uint32_t waiting_calls; /* admitted, and no worker has begun with it */
    uint64_t waiting_rows;  /* of admitted calls, not taken by any worker */
    uint32_t idle_workers;  /* that wait for something to take */
} hr_scheduler_counts;
void hr_scheduler_count(hr_scheduler *scheduler, hr_scheduler_counts *counts);

#endif
