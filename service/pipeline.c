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
#include "service/ranking.h"
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
    hr_model *model; /* one reference */
    hr_ranking_choice choice;
    hr_fetch fetch;
    uint64_t fetch_begun_ns, fetch_done_ns;
    uint64_t features_ns, model_ns;
} call_state;

static hr_status admit(hr_pipeline *pipeline, const hr_rank_call *call, hr_error *err) {
    const size_t n_items = call->request->n_item_ids;
    hr_status status = HR_OK;
    pthread_mutex_lock(&pipeline->admission);
    if (atomic_load(&pipeline->draining))
        status = hr_error_set(err, HR_UNAVAILABLE, "the server is shutting down");
    else if (pipeline->n_calls >= pipeline->options.max_queued_calls)
        status = hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the queue is full: %" PRIu32 " calls are waiting",
                              pipeline->n_calls);
    else if (pipeline->n_items + n_items > pipeline->options.max_queued_items)
        status = hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                              "the queue is full: %" PRIu64 " items are waiting, at most %" PRIu64 " may",
                              pipeline->n_items, pipeline->options.max_queued_items);
    else {
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
    hr_model *model = state->model;
    if (status == HR_OK) call->error.code = HR_OK;
    pthread_mutex_lock(&pipeline->admission);
    pipeline->n_calls--;
    pipeline->n_items -= call->request->n_item_ids;
    pthread_mutex_unlock(&pipeline->admission);
    call->done(call); /* the call and its state may be gone now */
    hr_model_unref(model);
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
    const hr_encoder *encoder = hr_servable_encoder(state->model);
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
    const char *label = hr_model_label(state->model);
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
    hr_status status =
        hr_request_encode(hr_servable_encoder(state->model), hr_model_schema(state->model), call->request,
                          &state->fetch, call->arena, scratch, slice, &n_invalid, &call->error);
    if (status != HR_OK) return status;
    slice->logits = hr_arena_calloc(call->arena, (size_t)slice->n_rows * hr_model_plan(state->model)->n_tasks,
                                    sizeof *slice->logits);
    if (slice->logits == NULL)
        return hr_error_set(&call->error, HR_RESOURCE_EXHAUSTED,
                            "the scores exceed the request's memory cap");
    call->response->features->values_invalid = n_invalid;
    state->features_ns = state->fetch_done_ns - state->fetch_begun_ns + hr_clock_ns() - begun_ns;
    return HR_OK;
}

static hr_status rank(call_state *state, const float *logits) {
    hr_rank_call *call = state->call;
    uint32_t n_not_finite;
    hr_status status = hr_ranking_fill(state->model, call->request, &state->choice, logits, call->arena,
                                       call->response, &n_not_finite, &call->error);
    if (status != HR_OK || n_not_finite == 0) return status;
    char text[96];
    snprintf(text, sizeof text, "%" PRIu32 " items have a score or output that is not finite and rank last",
             n_not_finite);
    return add_warning(call, text);
}

static void fill_timing(const call_state *state) {
    const hr_rank_call *call = state->call;
    Homerank__V1__Timing *timing = call->response->timing;
    const uint64_t total_ns = hr_clock_ns() - call->received_ns;
    const uint64_t worked_ns = state->features_ns + state->model_ns;
    timing->queue_us = (total_ns > worked_ns ? total_ns - worked_ns : 0) / 1000;
    timing->features_us = state->features_ns / 1000;
    timing->model_us = state->model_ns / 1000;
    timing->total_us = total_ns / 1000;
}

static hr_status work(worker *w, call_state *state) {
    hr_rank_call *call = state->call;
    hr_status status = still_wanted(call, "a worker took it");
    if (status != HR_OK) return status;
    if (hr_store_is_synchronous(w->pipeline->store)) fetch_start(state, fetch_done);

    hr_slice slice;
    status = response_create(state);
    if (status == HR_OK) status = report_features(state);
    if (status == HR_OK) status = encode(state, w->scratch, &slice);
    if (status == HR_OK) status = still_wanted(call, "it was scored");
    if (status != HR_OK) return status;

    uint64_t begun_ns = hr_clock_ns();
    status = hr_model_forward(state->model, w->index, &slice, 1, &call->error);
    if (status == HR_OK) status = rank(state, slice.logits);
    state->model_ns = hr_clock_ns() - begun_ns;
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
static hr_status prepare(hr_pipeline *pipeline, hr_rank_call *call, call_state **out) {
    hr_error *err = &call->error;
    hr_status status = still_wanted(call, "it was accepted");
    if (status == HR_OK)
        status = hr_request_check(call->request, pipeline->options.max_items, pipeline->options.max_id_nbytes,
                                  err);
    if (status != HR_OK) return status;
    call_state *state = hr_arena_calloc(call->arena, 1, sizeof *state);
    if (state == NULL) return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the request exceeds its memory cap");
    state->pipeline = pipeline;
    state->call = call;
    status = hr_repository_acquire(pipeline->repository, call->request->model, &state->model, err);
    if (status != HR_OK) return status;
    status = hr_ranking_tasks(state->model, call->request, call->arena, &state->choice, err);
    if (status == HR_OK) status = admit(pipeline, call, err);
    if (status != HR_OK) hr_model_unref(state->model);
    *out = state;
    return status;
}

void hr_pipeline_submit(hr_pipeline *pipeline, hr_rank_call *call) {
    call_state *state = NULL;
    call->response = NULL;
    call->error.code = HR_OK;
    if (prepare(pipeline, call, &state) != HR_OK) {
        call->done(call);
        return;
    }
    call->state = state;
    if (!hr_store_is_synchronous(pipeline->store))
        fetch_start(state, fetch_done_queue);
    else if (!hr_queue_try_push(pipeline->ready, call))
        finish(state, hr_error_set(&call->error, HR_INTERNAL, "the queue refused an admitted call"));
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
