/* Shadow scoring: see shadow.h.
 *
 * A shadow lives in the arena of the request that it follows, which goes back when it is done. */
#include "service/shadow.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "service/shadow_compare.h"

enum { COMPARED, REFUSED, FAILED, DROPPED, N_RESULTS };
static const char *const results[N_RESULTS] = {"compared", "refused", "failed", "dropped"};

enum { MILLION = 1000000, N_BOUNDS = 12 };
static const uint64_t distance_bounds[N_BOUNDS] = {100,    1000,   5000,   10000,  20000,   50000,
                                                   100000, 200000, 500000, 750000, 1000000, 2000000};
static const uint64_t overlap_bounds[] = {0,      100000, 200000, 300000, 400000, 500000,
                                          600000, 700000, 800000, 900000, 1000000};

enum { ENDS, DISTANCE, OVERLAP, DIFFERENCE, N_FAMILIES };
static const hr_metric_family families[N_FAMILIES] = {
    [ENDS] = {.name = "homerank_shadows_total",
              .help = "Shadows of answered requests, by what came of them.",
              .kind = HR_METRIC_COUNTER,
              .label = "result",
              .values = results,
              .n_values = N_RESULTS},
    [DISTANCE] = {.name = "homerank_shadow_rank_distance",
                  .help = "1 less the rank correlation of a shadow's order with the answer's.",
                  .kind = HR_METRIC_HISTOGRAM,
                  .bounds = distance_bounds,
                  .n_bounds = N_BOUNDS,
                  .divisor = MILLION},
    [OVERLAP] = {.name = "homerank_shadow_top10_overlap",
                 .help = "Share of the answer's ten best items among the shadow's.",
                 .kind = HR_METRIC_HISTOGRAM,
                 .bounds = overlap_bounds,
                 .n_bounds = sizeof overlap_bounds / sizeof overlap_bounds[0],
                 .divisor = MILLION},
    [DIFFERENCE] = {.name = "homerank_shadow_output_difference",
                    .help = "Mean absolute difference of a task's outputs, of each task of both models.",
                    .kind = HR_METRIC_HISTOGRAM,
                    .bounds = distance_bounds,
                    .n_bounds = N_BOUNDS,
                    .divisor = MILLION},
};

struct hr_shadow {
    hr_pipeline *pipeline;   /* borrowed */
    hr_exposures *exposures; /* borrowed, or NULL */
    hr_metric_set *metrics;  /* owned */
    size_t max_nbytes;
    atomic_size_t nbytes;  /* of the arenas that shadows hold, as they were answered */
    pthread_mutex_t lock;  /* guards the rest */
    pthread_cond_t none;   /* there is no call any more */
    hr_shadow_call *calls; /* in the pipeline */
};

/* In its own arena. */
struct hr_shadow_call {
    hr_rank_call call; /* first: the pipeline hands it back */
    hr_shadow *shadow;
    Homerank__V1__RankRequest request; /* the answered one's, but for the model and what is asked for */
    hr_scored answered;                /* holds a reference of its model */
    const char *version;               /* of the experiments */
    size_t held;                       /* of the arena, counted in shadow->nbytes */
    size_t nbytes;
    hr_shadow_give_back give_back;
    void *give_back_arg;
    hr_shadow_call *previous, *next;
};

hr_shadow *hr_shadow_create(hr_pipeline *pipeline, hr_exposures *exposures, size_t max_nbytes) {
    hr_shadow *shadow = calloc(1, sizeof *shadow);
    if (shadow == NULL) return NULL;
    shadow->pipeline = pipeline;
    shadow->exposures = exposures;
    shadow->max_nbytes = max_nbytes;
    shadow->metrics = hr_metric_set_create(families, N_FAMILIES, NULL, 0);
    if (shadow->metrics == NULL) {
        free(shadow);
        return NULL;
    }
    pthread_mutex_init(&shadow->lock, NULL);
    pthread_cond_init(&shadow->none, NULL);
    return shadow;
}

void hr_shadow_close(hr_shadow *shadow) {
    if (shadow == NULL) return;
    pthread_mutex_lock(&shadow->lock);
    for (hr_shadow_call *c = shadow->calls; c != NULL; c = c->next)
        hr_pipeline_cancel(shadow->pipeline, &c->call);
    while (shadow->calls != NULL) pthread_cond_wait(&shadow->none, &shadow->lock);
    pthread_mutex_unlock(&shadow->lock);
    hr_metric_set_destroy(shadow->metrics);
    pthread_cond_destroy(&shadow->none);
    pthread_mutex_destroy(&shadow->lock);
    free(shadow);
}

/* All of the items, all of the tasks, of the shadow's model: experiments have no more to say. */
static void change_request(Homerank__V1__RankRequest *request, const char *model) {
    request->model = (char *)model;
    request->top_k = 0;
    request->n_tasks = 0;
    request->n_forced_variations = 0;
    request->attributes = (char *)protobuf_c_empty_string;
    request->priority = 0; /* the class is the call's own */
}

/* A shadow holds its request's memory while the answer is sent, to a client that may be slow, and while it
 * waits behind all other work. */
static bool hold(hr_shadow *shadow, size_t nbytes) {
    if (atomic_fetch_add(&shadow->nbytes, nbytes) + nbytes <= shadow->max_nbytes) return true;
    atomic_fetch_sub(&shadow->nbytes, nbytes);
    return false;
}

hr_shadow_call *hr_shadow_prepare(hr_shadow *shadow, hr_rank_call *answered, size_t nbytes,
                                  hr_shadow_give_back give_back, void *arg) {
    hr_shadow_call *c = hr_arena_calloc(answered->arena, 1, sizeof *c);
    const size_t held = hr_arena_used(answered->arena);
    if (c == NULL || !hold(shadow, held)) {
        hr_metric_count(shadow->metrics, ENDS, DROPPED, 1);
        return NULL;
    }
    c->shadow = shadow;
    c->request = *answered->request;
    change_request(&c->request, answered->shadow_model);
    c->answered = (hr_scored){.model = hr_model_ref((hr_model *)answered->model),
                              .scores = answered->scores,
                              .outputs = answered->outputs};
    c->version = answered->experiments_version;
    c->held = held;
    c->nbytes = nbytes;
    c->give_back = give_back;
    c->give_back_arg = arg;
    c->call.request = &c->request;
    c->call.arena = answered->arena;
    c->call.deadline_ns = UINT64_MAX;
    c->call.priority = HR_CLASS_SHADOW;
    answered->arena = NULL;
    return c;
}

static void release(hr_shadow_call *c) {
    atomic_fetch_sub(&c->shadow->nbytes, c->held);
    c->give_back(c->give_back_arg, c->call.arena, c->nbytes); /* c is gone */
}

void hr_shadow_drop(hr_shadow_call *c) {
    hr_metric_count(c->shadow->metrics, ENDS, DROPPED, 1);
    hr_model_unref((hr_model *)c->answered.model);
    release(c);
}

static uint64_t millionths(double x) {
    return (uint64_t)(x * MILLION + 0.5);
}

static void count(hr_shadow *shadow, const hr_shadow_difference *d) {
    if (d->has_correlation) hr_metric_observe(shadow->metrics, DISTANCE, millionths(1 - d->rank_correlation));
    hr_metric_observe(shadow->metrics, OVERLAP, millionths(d->top_overlap));
    for (uint32_t t = 0; t < d->n_tasks; t++)
        if (d->differences[t] < MILLION)
            hr_metric_observe(shadow->metrics, DIFFERENCE, millionths(d->differences[t]));
}

static void log_difference(const hr_shadow_call *c, const hr_shadow_difference *d) {
    const hr_shadow_line line = {
        .request_id = c->request.request_id,
        .user_id = c->request.user_id,
        .model = hr_model_label(c->answered.model),
        .shadow_model = c->call.response->model,
        .file = c->version,
        .n_items = (uint32_t)c->request.n_item_ids,
        .has_correlation = d->has_correlation,
        .rank_correlation = d->rank_correlation,
        .top_overlap = d->top_overlap,
        .tasks = d->tasks,
        .differences = d->differences,
        .n_tasks = d->n_tasks,
    };
    hr_exposure_lines *made = hr_shadow_line_make(&line, hr_clock_wall_us());
    if (made != NULL)
        hr_exposures_log(c->shadow->exposures, made);
    else
        hr_log(HR_LOG_ERROR, "out of memory for a shadow's line");
}

static int compare(hr_shadow_call *c) {
    const hr_scored shadowed = {.model = c->call.model, .scores = c->call.scores, .outputs = c->call.outputs};
    hr_shadow_difference d;
    if (!hr_shadow_compare(&c->answered, &shadowed, (uint32_t)c->request.n_item_ids, c->call.arena, &d))
        return FAILED;
    count(c->shadow, &d);
    if (c->shadow->exposures != NULL) log_difference(c, &d);
    return COMPARED;
}

static int result_of(hr_shadow_call *c) {
    switch (c->call.error.code) {
    case HR_OK: return compare(c);
    case HR_RESOURCE_EXHAUSTED:
    case HR_UNAVAILABLE: return REFUSED;
    case HR_CANCELLED: return DROPPED;
    default:
        hr_log(HR_LOG_DEBUG, "a shadow failed", HR_LOG_STR("model", c->request.model),
               HR_LOG_STR("reason", c->call.error.message));
        return FAILED;
    }
}

static void on_done(hr_rank_call *call) {
    hr_shadow_call *c = (hr_shadow_call *)call;
    hr_shadow *shadow = c->shadow;
    hr_metric_count(shadow->metrics, ENDS, (uint32_t)result_of(c), 1);
    hr_model_unref((hr_model *)c->answered.model); /* the last one may take its time: not under the lock */
    pthread_mutex_lock(&shadow->lock);
    if (c->previous != NULL) c->previous->next = c->next;
    if (c->next != NULL) c->next->previous = c->previous;
    if (shadow->calls == c) shadow->calls = c->next;
    release(c); /* before the close may go on: what the memory goes back to may end with it */
    if (shadow->calls == NULL) pthread_cond_signal(&shadow->none);
    pthread_mutex_unlock(&shadow->lock);
}

void hr_shadow_start(hr_shadow_call *c) {
    hr_shadow *shadow = c->shadow;
    pthread_mutex_lock(&shadow->lock);
    c->next = shadow->calls;
    if (c->next != NULL) c->next->previous = c;
    shadow->calls = c;
    pthread_mutex_unlock(&shadow->lock);
    c->call.received_ns = hr_clock_ns();
    c->call.done = on_done;
    hr_pipeline_submit(shadow->pipeline, &c->call);
}

void hr_shadow_collect(hr_metrics_text *text, void *arg) {
    hr_shadow *shadow = arg;
    hr_metric_sets_print(text, families, N_FAMILIES, &shadow->metrics, 1);
}
