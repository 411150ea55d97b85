/* The ranking pipeline: the way of one request from a decoded RankRequest to a RankResponse (DESIGN 3),
 * without gRPC, so that the server and `homerank score` run the very same code.
 *
 *   submit -> validate -> resolve the model -> fetch records -> queue -> worker: encode, forward, fuse, rank
 * -> done
 *
 * Thread rule: any thread may submit. `done` is called exactly once per call: on the submitter's thread where
 * the call is refused at once, else on a worker's (or, refused after its fetch, on the store's).
 * Between submit and done the call belongs to the pipeline, except `cancelled`.
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

typedef struct hr_pipeline hr_pipeline;

typedef struct hr_rank_call hr_rank_call;
struct hr_rank_call {
    /* In; the caller's, unchanged until done. */
    const Homerank__V1__RankRequest *request; /* strings valid UTF-8 without NUL; lives in arena */
    hr_arena *arena;                          /* the call's memory; its cap bounds the call */
    uint64_t received_ns;                     /* hr_clock_ns, when the call arrived */
    uint64_t deadline_ns;                     /* hr_clock_ns; UINT64_MAX: none */
    atomic_bool cancelled; /* may be set by any thread at any time: work not yet begun is dropped */
    void (*done)(hr_rank_call *call);
    void *arg;
    /* Out. */
    hr_error error;                       /* code HR_OK: response is set */
    Homerank__V1__RankResponse *response; /* arena */
    /* The pipeline's own. */
    void *state;
};

typedef struct hr_pipeline_options {
    uint32_t n_workers;        /* = hr_model_options.n_workers of the repository */
    uint32_t max_items;        /* per request */
    uint32_t max_id_nbytes;    /* user and item ids */
    uint32_t max_queued_calls; /* calls accepted and not yet finished; past it RESOURCE_EXHAUSTED */
    uint64_t max_queued_items; /* items of those calls together */
    bool strict_features;      /* a store that cannot answer is UNAVAILABLE for every call */
} hr_pipeline_options;

/* The repository (opened with hr_servable_prepare) and the store are borrowed and must outlive the pipeline.
 * Starts the worker threads. Errors: INVALID_ARGUMENT (an option), OUT_OF_MEMORY, RESOURCE_EXHAUSTED. */
hr_status hr_pipeline_create(const hr_pipeline_options *options, hr_repository *repository, hr_store *store,
                             hr_pipeline **pipeline, hr_error *err);

/* Waits until every submitted call is done, then stops the workers. */
void hr_pipeline_destroy(hr_pipeline *pipeline); /* NULL is allowed */

void hr_pipeline_submit(hr_pipeline *pipeline, hr_rank_call *call);

/* Refuses new calls with UNAVAILABLE from now on (the accepted ones finish). */
void hr_pipeline_drain(hr_pipeline *pipeline);

#endif
