/* What the pipeline tells of its work, to whoever counts it (metrics, exposure records).
 *
 * Thread rule: the callbacks run on the pipeline's, the store's or a submitter's thread, several side by
 * side; they must not block. Everything pointed to is borrowed for the call.
 */
#ifndef HOMERANK_SERVICE_CALL_REPORT_H
#define HOMERANK_SERVICE_CALL_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* How urgent a call is: a later class yields to the earlier ones. */
typedef enum hr_call_class {
    HR_CLASS_NORMAL, /* RankRequest.priority 0 */
    HR_CLASS_BATCH,  /* RankRequest.priority 1 */
    HR_CLASS_SHADOW, /* of the service's own: what nobody waits for */
    HR_CLASS_COUNT
} hr_call_class;

/* Why a call was refused before any work was done for it. */
typedef enum hr_refusal {
    HR_REFUSAL_NONE,     /* it was admitted, whatever became of it; or cancelled before that */
    HR_REFUSAL_INVALID,  /* a bad request, one too large, or a model that is not served */
    HR_REFUSAL_CALLS,    /* the queue holds as many calls as it may */
    HR_REFUSAL_ITEMS,    /* the queue holds as many items as it may */
    HR_REFUSAL_WAIT,     /* it would have waited longer than a call may */
    HR_REFUSAL_DEADLINE, /* it would not have made its deadline */
    HR_REFUSAL_DRAINING, /* the server is shutting down */
    HR_REFUSAL_COUNT
} hr_refusal;

/* One submitted call, told exactly once, before its `done`. Times of stages it did not reach are zero. */
typedef struct hr_call_report {
    hr_status code;
    hr_refusal refusal;
    const char *model; /* "name@version"; NULL where none was resolved */
    uint32_t n_items;
    hr_call_class priority;
    uint64_t queue_ns;    /* waiting: admitted and neither fetched, encoded nor computed */
    uint64_t features_ns; /* in the store */
    uint64_t encode_ns;   /* its batches being encoded, and none computed */
    uint64_t model_ns;    /* forward, fusion and ranking */
    uint64_t total_ns;    /* from received_ns */
    bool user_missing, store_failed;
    uint32_t items_missing, items_stale, values_invalid;
} hr_call_report;

/* One batch that a worker ran through one model. */
typedef struct hr_batch_report {
    const char *model; /* "name@version" */
    uint32_t n_rows, n_calls;
    uint64_t forward_ns;
} hr_batch_report;

typedef struct hr_pipeline_observer {
    void *arg;
    void (*call)(void *arg, const hr_call_report *report);
    void (*batch)(void *arg, const hr_batch_report *report);
} hr_pipeline_observer;

#endif
