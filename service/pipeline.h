/* The ranking pipeline: the way of one request from a decoded RankRequest to a RankResponse (DESIGN 3),
 * without gRPC, so that the server and `homerank score` run the very same code.
 *
 *   submit -> validate -> assign -> admit -> fetch records -> scheduler.h -> workers: encode, forward
 *          -> the last of them: fuse, rank -> done
 *
 * Thread rule: any thread may submit. `done` is called exactly once per call: on the submitter's thread where
 * the call is refused at once, else on a worker's. Between submit and done the call belongs to the pipeline.
 */
#ifndef HOMERANK_SERVICE_PIPELINE_H
#define HOMERANK_SERVICE_PIPELINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "features/store.h"
#include "model/repository.h"
#include "proto/homerank.pb-c.h"
#include "service/call_report.h"
#include "service/experiments/experiments_watch.h"

typedef struct hr_pipeline hr_pipeline;

/* All zero before it is filled in. */
typedef struct hr_rank_call hr_rank_call;
struct hr_rank_call {
    /* In; the caller's, unchanged until done. */
    const Homerank__V1__RankRequest *request; /* strings valid UTF-8 without NUL; lives in arena */
    hr_arena *arena;                          /* the call's memory; its cap bounds the call */
    uint64_t received_ns;                     /* hr_clock_ns, when the call arrived */
    uint64_t deadline_ns;                     /* hr_clock_ns; UINT64_MAX: none */
    hr_call_class priority;
    bool patient;          /* its caller is held back by other means: it is not refused for max_queue_ns */
    atomic_bool cancelled; /* set by hr_pipeline_cancel */
    void (*done)(hr_rank_call *call);
    void *arg;
    /* Out. */
    hr_error error;                       /* code HR_OK: response is set */
    Homerank__V1__RankResponse *response; /* arena */
    const char *experiments_version;      /* of the file behind response->experiments; arena; "": none */
    const char *shadow_model;             /* that shall rank it too, once it is answered; arena; NULL: none */
    const hr_model *model;                /* that ranked it; borrowed in `done` */
    const float *scores, *outputs;        /* hr_ranking_scores of all its items; arena */
    /* The pipeline's own. */
    struct hr_scheduled *scheduled;
};

/* The CPU's largest block, and the smallest whose speed is near it: see kernels/onednn/onednn.c. */
enum { HR_DEFAULT_BATCH_ROWS = 128, HR_DEFAULT_SPLIT_ROWS = 32 };

typedef struct hr_pipeline_options {
    uint32_t n_workers;        /* = hr_model_options.n_workers of the repository */
    uint32_t max_items;        /* per request */
    uint32_t max_id_nbytes;    /* user and item ids */
    uint32_t max_queued_calls; /* calls accepted and not yet finished; past it RESOURCE_EXHAUSTED */
    uint64_t max_queued_items; /* items of those calls together */
    uint64_t max_queue_ns;     /* a call that would wait longer is refused; 0: automatic, UINT64_MAX: none */
    uint32_t max_batch_rows;   /* of a forward pass; 0: HR_DEFAULT_BATCH_ROWS */
    uint32_t split_rows; /* idle workers share what is there in parts of no less; 0: HR_DEFAULT_SPLIT_ROWS */
    uint32_t max_queue_delay_us;       /* a free worker waits as long for a batch to fill */
    bool strict_features;              /* a store that cannot answer is UNAVAILABLE for every call */
    hr_experiments_watch *experiments; /* borrowed; NULL: none */
    bool allow_forced_variations;
    const hr_pipeline_observer *observer; /* borrowed; NULL: nobody is told */
} hr_pipeline_options;

/* The repository (opened with hr_servable_prepare) and the store are borrowed and must outlive the pipeline.
 * Starts the worker threads. Errors: INVALID_ARGUMENT (an option), OUT_OF_MEMORY, RESOURCE_EXHAUSTED. */
hr_status hr_pipeline_create(const hr_pipeline_options *options, hr_repository *repository, hr_store *store,
                             hr_pipeline **pipeline, hr_error *err);

/* Waits until every submitted call is done, then stops the workers. No other thread is in hr_pipeline_submit
 * or hr_pipeline_cancel any more. NULL is allowed. */
void hr_pipeline_destroy(hr_pipeline *pipeline);

void hr_pipeline_submit(hr_pipeline *pipeline, hr_rank_call *call);

/* Gives a submitted call up, from any thread, at any time at which the struct is there: work not yet begun is
 * dropped. It is done with CANCELLED, unless it was done otherwise first; never on this thread. */
void hr_pipeline_cancel(hr_pipeline *pipeline, hr_rank_call *call);

/* Since its creation. Every submitted call is counted once as answered, refused, cancelled or failed, before
 * its `done`: with none in flight the four add up to submitted. */
typedef struct hr_pipeline_counts {
    uint64_t submitted;
    uint64_t answered;     /* HR_OK */
    uint64_t refused;      /* before any work was done: hr_refusal */
    uint64_t cancelled;    /* by hr_pipeline_cancel */
    uint64_t failed;       /* admitted, and ended by another error (a passed deadline among them) */
    uint32_t in_flight;    /* calls admitted and not yet counted as one of these */
    uint32_t queued_calls; /* of those in flight: no worker has begun with it */
    uint64_t queued_rows;  /* items of calls in flight that no worker has taken */
} hr_pipeline_counts;

/* Any thread. */
void hr_pipeline_count(hr_pipeline *pipeline, hr_pipeline_counts *counts);

/* Refuses new calls with UNAVAILABLE from now on (the accepted ones finish). */
void hr_pipeline_drain(hr_pipeline *pipeline);

#endif
