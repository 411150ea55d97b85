/* The ranking pipeline: see pipeline.h.
 *
 * The submitter checks a call and has it admitted; its records are fetched; the scheduler hands its rows to
 * the workers, and the one that computed the last of them ranks and answers. A store that answers
 * asynchronously is asked by the submitter and its own thread says that the call is ready; a synchronous one
 * may block, so the worker that opens the call asks it.
 *
 * While a worker is in the forward pass of one batch, others open and encode the next: with a backend whose
 * forward passes wait for a device, more workers than cores keep it busy.
 */
#include "service/pipeline.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/thread.h"
#include "service/pipeline_call.h"
#include "service/scheduler.h"

enum { SCRATCH_CAP_NBYTES = 32 << 20 };

typedef struct worker {
    hr_pipeline *pipeline;
    uint32_t index;
    pthread_t thread;
    hr_arena *scratch; /* owned; one record's unpacked values at a time */
    hr_batch batch;
    hr_part *parts;   /* (max_batch_rows) owned */
    hr_slice *slices; /* (max_batch_rows) owned */
} worker;

struct hr_pipeline {
    hr_pipeline_options options;
    hr_repository *repository;
    hr_store *store;
    hr_scheduler *scheduler;
    worker *workers;
    uint32_t n_started;
    atomic_ullong submitted, answered, refused, cancelled, failed; /* hr_pipeline_counts */
};

/* ---- The end of a call ---- */

/* Counts a call that will be done now, and tells the observer. */
static void report_call(hr_pipeline *pipeline, const hr_rank_call *call, hr_call_report *report) {
    const hr_pipeline_observer *observer = pipeline->options.observer;
    report->code = call->error.code;
    report->n_items = (uint32_t)call->request->n_item_ids;
    report->priority = call->priority;
    if (report->refusal != HR_REFUSAL_NONE)
        atomic_fetch_add(&pipeline->refused, 1);
    else if (report->code == HR_OK)
        atomic_fetch_add(&pipeline->answered, 1);
    else
        atomic_fetch_add(report->code == HR_CANCELLED ? &pipeline->cancelled : &pipeline->failed, 1);
    if (observer != NULL) observer->call(observer->arg, report);
}

/* Hands back a call that the scheduler is through with. The answer's task names are the model's until it is
 * done. */
static void finish(hr_pipeline *pipeline, hr_call_state *state) {
    hr_rank_call *call = state->call;
    hr_assignment assignment = state->assignment;
    call->error = state->scheduled.error;
    if (call->error.code == HR_OK) hr_call_answer(state, &call->error);
    hr_call_clock(state);
    report_call(pipeline, call, &state->report);
    call->done(call); /* the call and its state may be gone now */
    hr_assignment_release(&assignment);
}

/* Refuses a call; state is NULL where it had none yet. */
static void refuse(hr_pipeline *pipeline, hr_rank_call *call, hr_call_state *state, hr_refusal refusal) {
    hr_assignment assignment = {0};
    hr_call_report report = {.refusal = refusal, .total_ns = hr_clock_ns() - call->received_ns};
    if (state != NULL) {
        assignment = state->assignment;
        report.model = state->report.model;
    }
    report_call(pipeline, call, &report);
    call->done(call);
    hr_assignment_release(&assignment);
}

static void finish_ended(worker *w) {
    while (w->batch.ended != NULL) {
        hr_scheduled *ended = w->batch.ended;
        w->batch.ended = ended->next;
        finish(w->pipeline, (hr_call_state *)ended);
    }
}

/* ---- Submitting ---- */

static void fetch_done(hr_fetch *fetch) {
    hr_call_fetched(fetch->arg);
}

static void fetch_done_ready(hr_fetch *fetch) {
    hr_call_state *state = fetch->arg;
    hr_pipeline *pipeline = state->owner;
    hr_call_fetched(state);
    hr_scheduler_ready(pipeline->scheduler, &state->scheduled);
}

void hr_pipeline_submit(hr_pipeline *pipeline, hr_rank_call *call) {
    hr_call_state *state = NULL;
    hr_refusal refusal = HR_REFUSAL_INVALID;
    const bool fetching = !hr_store_is_synchronous(pipeline->store);
    call->response = NULL;
    call->experiments_version = "";
    call->shadow_model = NULL;
    call->error.code = HR_OK;
    atomic_fetch_add(&pipeline->submitted, 1);
    hr_status status = hr_call_prepare(&pipeline->options, pipeline->repository, call, &state, &call->error);
    if (status == HR_OK) {
        state->owner = pipeline;
        status = hr_scheduler_admit(pipeline->scheduler, &state->scheduled, fetching, &refusal, &call->error);
    }
    if (status != HR_OK)
        refuse(pipeline, call, state, refusal);
    else if (fetching)
        hr_call_fetch(state, pipeline->store, fetch_done_ready);
}

void hr_pipeline_cancel(hr_pipeline *pipeline, hr_rank_call *call) {
    atomic_store(&call->cancelled, true);
    hr_scheduler_cancel(pipeline->scheduler, &call->scheduled);
}

void hr_pipeline_count(hr_pipeline *pipeline, hr_pipeline_counts *counts) {
    counts->answered = atomic_load(&pipeline->answered);
    counts->refused = atomic_load(&pipeline->refused);
    counts->cancelled = atomic_load(&pipeline->cancelled);
    counts->failed = atomic_load(&pipeline->failed);
    counts->submitted = atomic_load(&pipeline->submitted); /* last: never less than the four together */
    counts->in_flight = (uint32_t)(counts->submitted - counts->answered - counts->refused -
                                   counts->cancelled - counts->failed);
    hr_scheduler_counts waiting;
    hr_scheduler_count(pipeline->scheduler, &waiting);
    counts->queued_calls = waiting.waiting_calls;
    counts->queued_rows = waiting.waiting_rows;
}

/* ---- Workers ---- */

static hr_status open_call(worker *w, hr_call_state *state, hr_error *err) {
    hr_pipeline *pipeline = w->pipeline;
    if (hr_store_is_synchronous(pipeline->store)) hr_call_fetch(state, pipeline->store, fetch_done);
    return hr_call_open(state, pipeline->options.strict_features, w->scratch, err);
}

static void prepare_part(worker *w, const hr_part *part) {
    hr_scheduler *scheduler = w->pipeline->scheduler;
    hr_call_state *state = (hr_call_state *)part->call;
    hr_error err;
    hr_status status = part->first == 0 ? open_call(w, state, &err) : HR_OK;
    if (status == HR_OK && part->first == 0 && !part->whole) hr_scheduler_opened(scheduler, part->call);
    if (status == HR_OK) status = hr_call_encode_items(state, part->first, part->n_rows, w->scratch, &err);
    if (status != HR_OK) hr_scheduler_fail(scheduler, part->call, part->first, &err);
}

static uint32_t gather_slices(worker *w) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->batch.n_parts; i++) {
        const hr_part *part = &w->parts[i];
        if (!part->launched) continue;
        w->slices[n++] = hr_call_slice((const hr_call_state *)part->call, part->first, part->n_rows);
    }
    return n;
}

static void forward(worker *w) {
    const hr_pipeline_observer *observer = w->pipeline->options.observer;
    const hr_model *model = ((const hr_call_state *)w->parts[0].call)->assignment.model;
    const uint32_t n_slices = gather_slices(w);
    hr_error err;
    uint64_t begun_ns = hr_clock_ns();
    hr_status status = hr_model_forward(model, w->index, w->slices, n_slices, &err);
    if (status == HR_OK && observer != NULL)
        observer->batch(observer->arg, &(hr_batch_report){.model = hr_model_label(model),
                                                          .n_rows = w->batch.n_rows,
                                                          .n_calls = n_slices,
                                                          .forward_ns = hr_clock_ns() - begun_ns});
    for (uint32_t i = 0; status != HR_OK && i < w->batch.n_parts; i++)
        if (w->parts[i].launched)
            hr_scheduler_fail(w->pipeline->scheduler, w->parts[i].call, w->parts[i].first, &err);
}

static void *worker_run(void *arg) {
    worker *w = arg;
    hr_scheduler *scheduler = w->pipeline->scheduler;
    hr_thread_compute(); /* a refusal must not wait for a core that computes */
    while (hr_scheduler_take(scheduler, &w->batch)) {
        finish_ended(w);
        if (w->batch.n_parts == 0) continue;
        /* From the last, which may be the first of a call that others can take from once it is open. */
        for (uint32_t i = w->batch.n_parts; i-- > 0;) prepare_part(w, &w->parts[i]);
        if (hr_scheduler_launch(scheduler, &w->batch) > 0) forward(w);
        hr_scheduler_done(scheduler, &w->batch);
        finish_ended(w);
    }
    return NULL;
}

/* ---- Life ---- */

static void worker_clear(worker *w) {
    hr_arena_destroy(w->scratch);
    free(w->parts);
    free(w->slices);
}

static hr_status worker_start(hr_pipeline *pipeline, uint32_t index, hr_error *err) {
    worker *w = &pipeline->workers[index];
    const uint32_t max_rows = pipeline->options.max_batch_rows;
    char name[24];
    *w = (worker){.pipeline = pipeline,
                  .index = index,
                  .scratch = hr_arena_create(SCRATCH_CAP_NBYTES),
                  .parts = calloc(max_rows, sizeof *w->parts),
                  .slices = calloc(max_rows, sizeof *w->slices)};
    w->batch.parts = w->parts;
    hr_status status = HR_OK;
    if (w->scratch == NULL || w->parts == NULL || w->slices == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "worker %" PRIu32, index);
    snprintf(name, sizeof name, "worker-%" PRIu32, index);
    if (status == HR_OK) status = hr_thread_start(&w->thread, name, worker_run, w, err);
    if (status != HR_OK) worker_clear(w);
    return status;
}

static hr_status check_options(const hr_pipeline_options *options, hr_error *err) {
    if (options->n_workers > 0 && options->max_items > 0 && options->max_queued_calls > 0 &&
        options->max_queued_items >= options->max_items)
        return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "pipeline: expected workers, items and calls of at least 1 and a queue for at least "
                        "one largest request (%" PRIu32 " items), found one of %" PRIu64,
                        options->max_items, options->max_queued_items);
}

static void set_defaults(hr_pipeline_options *options) {
    if (options->max_batch_rows == 0) options->max_batch_rows = HR_DEFAULT_BATCH_ROWS;
    if (options->split_rows == 0) options->split_rows = HR_DEFAULT_SPLIT_ROWS;
    if (options->split_rows > options->max_batch_rows) options->split_rows = options->max_batch_rows;
}

static hr_status start(hr_pipeline *pipeline, hr_error *err) {
    const hr_pipeline_options *options = &pipeline->options;
    const hr_scheduler_options scheduler = {
        .n_workers = options->n_workers,
        .max_batch_rows = options->max_batch_rows,
        .split_rows = options->split_rows,
        .max_delay_ns = (uint64_t)options->max_queue_delay_us * 1000,
        .max_calls = options->max_queued_calls,
        .max_rows = options->max_queued_items,
        .max_call_rows = options->max_items,
        .max_wait_ns = options->max_queue_ns,
    };
    hr_status status = hr_scheduler_create(&scheduler, &pipeline->scheduler, err);
    if (status != HR_OK) return status;
    pipeline->workers = calloc(options->n_workers, sizeof *pipeline->workers);
    if (pipeline->workers == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "pipeline");
    for (; status == HR_OK && pipeline->n_started < options->n_workers; pipeline->n_started++) {
        status = worker_start(pipeline, pipeline->n_started, err);
        if (status != HR_OK) break;
    }
    return status;
}

hr_status hr_pipeline_create(const hr_pipeline_options *options, hr_repository *repository, hr_store *store,
                             hr_pipeline **out, hr_error *err) {
    hr_status status = check_options(options, err);
    if (status != HR_OK) return status;
    hr_pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (pipeline == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "pipeline");
    pipeline->options = *options;
    set_defaults(&pipeline->options);
    pipeline->repository = repository;
    pipeline->store = store;
    status = start(pipeline, err);
    if (status != HR_OK) {
        hr_pipeline_destroy(pipeline);
        return status;
    }
    *out = pipeline;
    return HR_OK;
}

void hr_pipeline_drain(hr_pipeline *pipeline) {
    hr_scheduler_drain(pipeline->scheduler);
}

void hr_pipeline_destroy(hr_pipeline *pipeline) {
    if (pipeline == NULL) return;
    if (pipeline->scheduler != NULL) hr_scheduler_close(pipeline->scheduler);
    for (uint32_t i = 0; i < pipeline->n_started; i++) {
        pthread_join(pipeline->workers[i].thread, NULL);
        worker_clear(&pipeline->workers[i]);
    }
    hr_scheduler_destroy(pipeline->scheduler);
    free(pipeline->workers);
    free(pipeline);
}
