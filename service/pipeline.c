/* The ranking pipeline: see pipeline.h.
 *
 * A call is admitted (bounded by calls and items), its records are fetched, it waits in one queue, and one
 * worker takes it through encoding, forward and ranking. A store that answers asynchronously is asked by the
 * submitter and its own thread queues the call; a synchronous one may block, so the worker asks it.
 */
#include "service/pipeline.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/queue.h"
#include "base/thread.h"
#include "service/assignment.h"
#include "service/request_check.h"
#include "service/request_encode.h"
#include "service/servable.h"

enum { SCRATCH_CAP_NBYTES = 32 << 20 };

typedef struct worker {
    hr_pipeline *pipeline;
    uint32_t index;
    pthread_t thread;
    hr_arena *scratch; /* owned; one record's unpacked values at a time */
} worker;

struct hr_pipeline {
    hr_pipeline_options options;
    hr_repository *repository;
    hr_store *store;
    hr_queue *ready; /* of hr_rank_call; holds every admitted call, so that a push never fails */
    worker *workers;
    uint32_t n_started;
    atomic_bool draining;
    atomic_ullong submitted, answered, refused, cancelled, failed; /* hr_pipeline_counts */
    atomic_uint queued_calls;
    atomic_ullong queued_rows;
    pthread_mutex_t admission; /* guards the counts */
    pthread_cond_t idle;       /* n_unfinished became 0 */
    uint32_t n_calls;          /* admitted, and not yet through */
    uint64_t n_items;          /* of those */
    uint32_t n_unfinished;     /* those, and the ones whose `done` has not returned */
};

/* A call's way through the pipeline; in the call's arena. */
typedef struct call_state {
    hr_pipeline *pipeline;
    hr_rank_call *call;
    hr_assignment assignment; /* owned */
    hr_fetch fetch;
    uint64_t fetch_begun_ns, fetch_done_ns;
    hr_call_report report;
} call_state;

/* Tells the observer of a call that will be done now, and counts it. */
static void report_call(hr_pipeline *pipeline, const hr_rank_call *call, hr_call_report *report) {
    const hr_pipeline_observer *observer = pipeline->options.observer;
    report->code = call->error.code;
    report->n_items = (uint32_t)call->request->n_item_ids;
    report->priority = call->priority;
    report->total_ns = hr_clock_ns() - call->received_ns;
    if (report->refusal != HR_REFUSAL_NONE)
        atomic_fetch_add(&pipeline->refused, 1);
    else if (report->code == HR_OK)
        atomic_fetch_add(&pipeline->answered, 1);
    else
        atomic_fetch_add(report->code == HR_CANCELLED ? &pipeline->cancelled : &pipeline->failed, 1);
    if (observer != NULL) observer->call(observer->arg, report);
}

static hr_status admit(hr_pipeline *pipeline, const hr_rank_call *call, hr_refusal *refusal, hr_error *err) {
    const size_t n_items = call->request->n_item_ids;
    hr_status status = HR_OK;
    pthread_mutex_lock(&pipeline->admission);
    if (atomic_load(&pipeline->draining)) {
        *refusal = HR_REFUSAL_DRAINING;
        status = hr_error_set(err, HR_UNAVAILABLE, "the server is shutting down");
    } else if (pipeline->n_calls >= pipeline->options.max_queued_calls) {
        *refusal = HR_REFUSAL_CALLS;
        status = hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the queue is full: %" PRIu32 " calls are waiting",
                              pipeline->n_calls);
    } else if (pipeline->n_items + n_items > pipeline->options.max_queued_items) {
        *refusal = HR_REFUSAL_ITEMS;
        status = hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                              "the queue is full: %" PRIu64 " items are waiting, at most %" PRIu64 " may",
                              pipeline->n_items, pipeline->options.max_queued_items);
    } else {
        pipeline->n_calls++;
        pipeline->n_unfinished++;
        pipeline->n_items += n_items;
    }
    pthread_mutex_unlock(&pipeline->admission);
    return status;
}

/* Hands an admitted call back. There is room for the next one before its caller hears of it, so that as many
 * calls as may be queued can be kept under way; the answer's task names are the model's until it is done. */
static void finish(call_state *state, hr_status status) {
    hr_pipeline *pipeline = state->pipeline;
    hr_rank_call *call = state->call;
    hr_assignment assignment = state->assignment;
    if (status == HR_OK) call->error.code = HR_OK;
    pthread_mutex_lock(&pipeline->admission);
    pipeline->n_calls--;
    pipeline->n_items -= call->request->n_item_ids;
    pthread_mutex_unlock(&pipeline->admission);
    report_call(pipeline, call, &state->report);
    call->done(call); /* the call and its state may be gone now */
    hr_assignment_release(&assignment);
    pthread_mutex_lock(&pipeline->admission);
    if (--pipeline->n_unfinished == 0) pthread_cond_broadcast(&pipeline->idle);
    pthread_mutex_unlock(&pipeline->admission);
}

static hr_status still_wanted(hr_rank_call *call, const char *stage) {
    if (atomic_load(&call->cancelled))
        return hr_error_set(&call->error, HR_CANCELLED, "cancelled by the caller before %s", stage);
    if (hr_clock_ns() >= call->deadline_ns)
        return hr_error_set(&call->error, HR_DEADLINE_EXCEEDED, "the deadline passed before %s", stage);
    return HR_OK;
}

static void fetch_start(call_state *state, void (*done)(hr_fetch *fetch)) {
    const Homerank__V1__RankRequest *request = state->call->request;
    const hr_encoder *encoder = hr_servable_encoder(state->assignment.model);
    hr_fetch *fetch = &state->fetch;
    fetch->user_id = request->user_id;
    fetch->item_ids = (const char *const *)request->item_ids;
    fetch->n_items = request->n_item_ids;
    fetch->fields[HR_ENTITY_USER] = hr_encoder_fields(encoder, HR_ENTITY_USER);
    fetch->fields[HR_ENTITY_ITEM] = hr_encoder_fields(encoder, HR_ENTITY_ITEM);
    fetch->deadline_ns = state->call->deadline_ns;
    fetch->arena = state->call->arena;
    fetch->done = done;
    fetch->arg = state;
    state->fetch_begun_ns = hr_clock_ns();
    hr_store_fetch(state->pipeline->store, fetch);
}

static void fetch_done(hr_fetch *fetch) {
    call_state *state = fetch->arg;
    state->fetch_done_ns = hr_clock_ns();
    state->report.features_ns = state->fetch_done_ns - state->fetch_begun_ns;
}

static void fetch_done_queue(hr_fetch *fetch) {
    call_state *state = fetch->arg;
    hr_pipeline *pipeline = state->pipeline;
    fetch_done(fetch);
    if (!hr_queue_try_push(pipeline->ready, state->call))
        finish(state, hr_error_set(&state->call->error, HR_INTERNAL, "the queue refused an admitted call"));
}

static uint32_t count_missing(const hr_fetch *fetch) {
    uint32_t n_missing = 0;
    for (size_t i = 0; i < fetch->n_items; i++)
        n_missing += fetch->items == NULL || fetch->items[i].kind == HR_RECORD_MISSING;
    return n_missing;
}

static hr_status add_warning(hr_rank_call *call, const char *text) {
    Homerank__V1__RankResponse *response = call->response;
    char *copy = hr_arena_strndup(call->arena, text, strlen(text));
    if (copy == NULL)
        return hr_error_set(&call->error, HR_RESOURCE_EXHAUSTED,
                            "the answer exceeds the request's memory cap");
    response->warnings[response->n_warnings++] = copy;
    return HR_OK;
}

/* What the caller is told of the features, and whether they may be used at all. */
static hr_status report_features(call_state *state) {
    hr_rank_call *call = state->call;
    const hr_fetch *fetch = &state->fetch;
    Homerank__V1__FeatureStatus *features = call->response->features;
    features->user_found = fetch->user.kind != HR_RECORD_MISSING;
    features->items_missing = count_missing(fetch);
    state->report.user_missing = !features->user_found;
    state->report.items_missing = features->items_missing;
    state->report.store_failed = fetch->error.code != HR_OK;
    if (fetch->error.code == HR_OK) return HR_OK;
    if (call->request->strict_features || state->pipeline->options.strict_features)
        return hr_error_set(&call->error, HR_UNAVAILABLE, "features: %s", fetch->error.message);
    features->store_error = (char *)fetch->error.message;
    char text[HR_ERROR_MESSAGE_SIZE + 64];
    snprintf(text, sizeof text, "features: defaults used where the store did not answer: %s",
             fetch->error.message);
    return add_warning(call, text);
}

static hr_status response_create(call_state *state) {
    enum { MAX_WARNINGS = 4 };
    hr_rank_call *call = state->call;
    Homerank__V1__RankResponse *response = hr_arena_alloc(call->arena, sizeof *response);
    Homerank__V1__FeatureStatus *features = hr_arena_alloc(call->arena, sizeof *features);
    Homerank__V1__Timing *timing = hr_arena_alloc(call->arena, sizeof *timing);
    char **warnings = hr_arena_calloc(call->arena, MAX_WARNINGS, sizeof *warnings);
    const char *label = hr_model_label(state->assignment.model);
    char *model = hr_arena_strndup(call->arena, label, strlen(label));
    if (response == NULL || features == NULL || timing == NULL || warnings == NULL || model == NULL)
        return hr_error_set(&call->error, HR_RESOURCE_EXHAUSTED,
                            "the answer exceeds the request's memory cap");
    homerank__v1__rank_response__init(response);
    homerank__v1__feature_status__init(features);
    homerank__v1__timing__init(timing);
    response->request_id = call->request->request_id;
    response->model = model;
    response->features = features;
    response->timing = timing;
    response->warnings = warnings;
    call->response = response;
    return HR_OK;
}

static hr_status encode(call_state *state, hr_arena *scratch, hr_slice *slice) {
    hr_rank_call *call = state->call;
    uint64_t begun_ns = hr_clock_ns();
    uint32_t n_invalid;
    hr_status status = hr_request_encode(
        hr_servable_encoder(state->assignment.model), hr_model_schema(state->assignment.model), call->request,
        &state->fetch, call->arena, scratch, slice, &n_invalid, &call->error);
    if (status != HR_OK) return status;
    slice->logits =
        hr_arena_calloc(call->arena, (size_t)slice->n_rows * hr_model_plan(state->assignment.model)->n_tasks,
                        sizeof *slice->logits);
    if (slice->logits == NULL)
        return hr_error_set(&call->error, HR_RESOURCE_EXHAUSTED,
                            "the scores exceed the request's memory cap");
    call->response->features->values_invalid = state->report.values_invalid = n_invalid;
    state->report.encode_ns = hr_clock_ns() - begun_ns;
    return HR_OK;
}

static hr_status rank(call_state *state, const float *logits) {
    hr_rank_call *call = state->call;
    uint32_t n_not_finite;
    hr_status status = hr_ranking_fill(state->assignment.model, call->request, &state->assignment.choice,
                                       logits, call->arena, call->response, &n_not_finite, &call->error);
    if (status != HR_OK || n_not_finite == 0) return status;
    char text[96];
    snprintf(text, sizeof text, "%" PRIu32 " items have a score or output that is not finite and rank last",
             n_not_finite);
    return add_warning(call, text);
}

static void fill_timing(call_state *state) {
    const hr_rank_call *call = state->call;
    hr_call_report *report = &state->report;
    Homerank__V1__Timing *timing = call->response->timing;
    const uint64_t total_ns = hr_clock_ns() - call->received_ns;
    const uint64_t worked_ns = report->features_ns + report->encode_ns + report->model_ns;
    report->queue_ns = total_ns > worked_ns ? total_ns - worked_ns : 0;
    timing->queue_us = report->queue_ns / 1000;
    timing->features_us = (report->features_ns + report->encode_ns) / 1000;
    timing->model_us = report->model_ns / 1000;
    timing->total_us = total_ns / 1000;
}

static hr_status forward(worker *w, call_state *state, const hr_slice *slice) {
    const hr_pipeline_observer *observer = w->pipeline->options.observer;
    const hr_model *model = state->assignment.model;
    uint64_t begun_ns = hr_clock_ns();
    hr_status status = hr_model_forward(model, w->index, slice, 1, &state->call->error);
    state->report.model_ns = hr_clock_ns() - begun_ns;
    if (observer == NULL || status != HR_OK) return status;
    observer->batch(observer->arg, &(hr_batch_report){.model = hr_model_label(model),
                                                      .n_rows = slice->n_rows,
                                                      .n_calls = 1,
                                                      .forward_ns = state->report.model_ns});
    return HR_OK;
}

static hr_status work(worker *w, call_state *state) {
    hr_rank_call *call = state->call;
    atomic_fetch_sub(&w->pipeline->queued_calls, 1);
    atomic_fetch_sub(&w->pipeline->queued_rows, call->request->n_item_ids);
    hr_status status = still_wanted(call, "a worker took it");
    if (status != HR_OK) return status;
    if (hr_store_is_synchronous(w->pipeline->store)) fetch_start(state, fetch_done);

    hr_slice slice;
    status = response_create(state);
    if (status == HR_OK) status = report_features(state);
    if (status == HR_OK) status = encode(state, w->scratch, &slice);
    if (status == HR_OK) status = still_wanted(call, "it was scored");
    if (status != HR_OK) return status;

    status = forward(w, state, &slice);
    uint64_t begun_ns = hr_clock_ns();
    if (status == HR_OK) status = rank(state, slice.logits);
    state->report.model_ns += hr_clock_ns() - begun_ns;
    if (status == HR_OK) fill_timing(state);
    return status;
}

static void *worker_run(void *arg) {
    worker *w = arg;
    hr_rank_call *call;
    while ((call = hr_queue_pop(w->pipeline->ready)) != NULL) finish(call->state, work(w, call->state));
    return NULL;
}

/* Everything that may refuse a call before it is admitted. */
static hr_status prepare(hr_pipeline *pipeline, hr_rank_call *call, call_state **out,
                         hr_call_report *report) {
    hr_error *err = &call->error;
    hr_status status = still_wanted(call, "it was accepted");
    if (status != HR_OK) {
        report->refusal = status == HR_CANCELLED ? HR_REFUSAL_NONE : HR_REFUSAL_DEADLINE;
        return status;
    }
    report->refusal = HR_REFUSAL_INVALID;
    status =
        hr_request_check(call->request, pipeline->options.max_items, pipeline->options.max_id_nbytes, err);
    if (status != HR_OK) return status;
    call_state *state = hr_arena_calloc(call->arena, 1, sizeof *state);
    if (state == NULL) return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the request exceeds its memory cap");
    state->pipeline = pipeline;
    state->call = call;
    status = hr_assignment_make(pipeline->repository, call->request, call->arena, &state->assignment, err);
    if (status != HR_OK) return status;
    state->report.model = hr_model_label(state->assignment.model);
    report->refusal = HR_REFUSAL_NONE;
    *out = state;
    return admit(pipeline, call, &report->refusal, err);
}

static void refuse(hr_pipeline *pipeline, hr_rank_call *call, call_state *state, hr_call_report *report) {
    hr_assignment assignment = state == NULL ? (hr_assignment){0} : state->assignment;
    if (state != NULL) report->model = state->report.model;
    report_call(pipeline, call, report);
    call->done(call);
    hr_assignment_release(&assignment);
}

void hr_pipeline_submit(hr_pipeline *pipeline, hr_rank_call *call) {
    call_state *state = NULL;
    hr_call_report report = {0};
    call->response = NULL;
    call->error.code = HR_OK;
    atomic_fetch_add(&pipeline->submitted, 1);
    if (prepare(pipeline, call, &state, &report) != HR_OK) {
        refuse(pipeline, call, state, &report);
        return;
    }
    call->state = state;
    atomic_fetch_add(&pipeline->queued_calls, 1);
    atomic_fetch_add(&pipeline->queued_rows, call->request->n_item_ids);
    if (!hr_store_is_synchronous(pipeline->store))
        fetch_start(state, fetch_done_queue);
    else if (!hr_queue_try_push(pipeline->ready, call))
        finish(state, hr_error_set(&call->error, HR_INTERNAL, "the queue refused an admitted call"));
}

void hr_pipeline_cancel(hr_pipeline *pipeline, hr_rank_call *call) {
    (void)pipeline;
    atomic_store(&call->cancelled, true);
}

void hr_pipeline_count(hr_pipeline *pipeline, hr_pipeline_counts *counts) {
    counts->submitted = atomic_load(&pipeline->submitted);
    counts->answered = atomic_load(&pipeline->answered);
    counts->refused = atomic_load(&pipeline->refused);
    counts->cancelled = atomic_load(&pipeline->cancelled);
    counts->failed = atomic_load(&pipeline->failed);
    counts->queued_calls = atomic_load(&pipeline->queued_calls);
    counts->queued_rows = atomic_load(&pipeline->queued_rows);
    pthread_mutex_lock(&pipeline->admission);
    counts->in_flight = pipeline->n_calls;
    pthread_mutex_unlock(&pipeline->admission);
}

static hr_status workers_start(hr_pipeline *pipeline, hr_error *err) {
    for (uint32_t i = 0; i < pipeline->options.n_workers; i++) {
        worker *w = &pipeline->workers[i];
        *w = (worker){.pipeline = pipeline, .index = i, .scratch = hr_arena_create(SCRATCH_CAP_NBYTES)};
        if (w->scratch == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "worker %" PRIu32, i);
        char name[24];
        snprintf(name, sizeof name, "worker-%" PRIu32, i);
        hr_status status = hr_thread_start(&w->thread, name, worker_run, w, err);
        if (status != HR_OK) {
            hr_arena_destroy(w->scratch);
            return status;
        }
        pipeline->n_started++;
    }
    return HR_OK;
}

hr_status hr_pipeline_create(const hr_pipeline_options *options, hr_repository *repository, hr_store *store,
                             hr_pipeline **out, hr_error *err) {
    if (options->n_workers == 0 || options->max_items == 0 || options->max_queued_calls == 0 ||
        options->max_queued_items < options->max_items)
        return hr_error_set(
            err, HR_INVALID_ARGUMENT,
            "pipeline: expected workers, items and calls of at least 1 and a queue for at least one "
            "largest request (%" PRIu32 " items), found one of %" PRIu64,
            options->max_items, options->max_queued_items);
    hr_pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (pipeline == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "pipeline");
    pipeline->options = *options;
    pipeline->repository = repository;
    pipeline->store = store;
    pthread_mutex_init(&pipeline->admission, NULL);
    pthread_cond_init(&pipeline->idle, NULL);
    pipeline->ready = hr_queue_create(options->max_queued_calls);
    pipeline->workers = calloc(options->n_workers, sizeof *pipeline->workers);
    hr_status status = pipeline->ready == NULL || pipeline->workers == NULL
                           ? hr_error_set(err, HR_OUT_OF_MEMORY, "pipeline: a queue of %" PRIu32 " calls",
                                          options->max_queued_calls)
                           : workers_start(pipeline, err);
    if (status != HR_OK) {
        hr_pipeline_destroy(pipeline);
        return status;
    }
    *out = pipeline;
    return HR_OK;
}

void hr_pipeline_drain(hr_pipeline *pipeline) {
    atomic_store(&pipeline->draining, true);
}

void hr_pipeline_destroy(hr_pipeline *pipeline) {
    if (pipeline == NULL) return;
    hr_pipeline_drain(pipeline);
    pthread_mutex_lock(&pipeline->admission);
    while (pipeline->n_unfinished > 0) pthread_cond_wait(&pipeline->idle, &pipeline->admission);
    pthread_mutex_unlock(&pipeline->admission);
    if (pipeline->ready != NULL) hr_queue_close(pipeline->ready);
    for (uint32_t i = 0; i < pipeline->n_started; i++) {
        pthread_join(pipeline->workers[i].thread, NULL);
        hr_arena_destroy(pipeline->workers[i].scratch);
    }
    hr_queue_destroy(pipeline->ready);
    free(pipeline->workers);
    pthread_cond_destroy(&pipeline->idle);
    pthread_mutex_destroy(&pipeline->admission);
    free(pipeline);
}
