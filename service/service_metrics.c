/* The ranking's metrics: see service_metrics.h. Two tables of families: what has a model's labels, in sets
 * that come and go with its versions, and what has none. */
#include "service/service_metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics_group.h"

#define N_OF(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

#define MODEL_IDLE_NS (UINT64_C(600) * 1000000000u)

/* ---- The families ---- */

static const char *const REFUSALS[HR_REFUSAL_COUNT] = {
    [HR_REFUSAL_INVALID] = "invalid", [HR_REFUSAL_CALLS] = "queue_calls", [HR_REFUSAL_ITEMS] = "queue_items",
    [HR_REFUSAL_WAIT] = "queue_wait", [HR_REFUSAL_DEADLINE] = "deadline", [HR_REFUSAL_DRAINING] = "draining",
};
enum { MISS_REFUSED, MISS_EXPIRED };
static const char *const MISSES[] = {[MISS_REFUSED] = "refused", [MISS_EXPIRED] = "expired"};
enum { ENTITY_USER, ENTITY_ITEM };
static const char *const ENTITIES[] = {[ENTITY_USER] = "user", [ENTITY_ITEM] = "item"};

#define US(n) (UINT64_C(n) * 1000u)
#define MS(n) (UINT64_C(n) * 1000000u)
static const uint64_t DURATIONS_NS[] = {
    US(10), US(25), US(50),  US(100), US(250), US(500),  MS(1),    MS(2) + US(500), MS(5),    MS(10),
    MS(25), MS(50), MS(100), MS(250), MS(500), MS(1000), MS(2500), MS(5000),        MS(10000)};
static const uint64_t ROWS[] = {1,   2,    4,    8,    16,   32,    64,    128,  256,
                                512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};
static const uint64_t CALLS[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

#define COUNTER(n, h) .name = "homerank_" n, .help = (h), .kind = HR_METRIC_COUNTER
#define BY(l, array)  .label = (l), .values = (array), .n_values = N_OF(array)
#define BY_CODE       .label = "code", .values = hr_grpc_code_names, .n_values = HR_GRPC_CODES
#define HISTOGRAM(n, h, b)                                                                                   \
    .name = "homerank_" n, .help = (h), .kind = HR_METRIC_HISTOGRAM, .bounds = (b), .n_bounds = N_OF(b)
#define SECONDS(n, h) HISTOGRAM(n, h, DURATIONS_NS), .divisor = 1000000000u

/* By model and version. The first is all that calls without a model have. */
enum {
    REQUESTS,
    SHADOWS,
    ITEMS,
    TOTAL,
    QUEUE,
    FEATURES,
    ENCODE,
    MODEL,
    BATCH_ROWS,
    BATCH_CALLS,
    BATCH_FORWARD,
    N_MODEL_FAMILIES
};
static const hr_metric_family MODEL_FAMILIES[N_MODEL_FAMILIES] = {
    [REQUESTS] = {COUNTER("requests_total", "Rank requests that reached the pipeline, by gRPC status."),
                  BY_CODE},
    [SHADOWS] = {COUNTER("shadow_requests_total", "Requests of the service's own, by gRPC status."), BY_CODE},
    [ITEMS] = {COUNTER("items_total", "Items of the requests that were answered.")},
    [TOTAL] = {SECONDS("request_duration_seconds",
                       "Time of an admitted request from its arrival to its answer or error.")},
    [QUEUE] = {SECONDS("request_queue_seconds", "Time of a request in none of the stages below: waiting.")},
    [FEATURES] = {SECONDS("request_features_seconds", "Time of a request in the feature store.")},
    [ENCODE] = {SECONDS("request_encode_seconds", "Time of a request's encoding.")},
    [MODEL] = {SECONDS("request_model_seconds", "Time of a request in the network, fusion and ranking.")},
    [BATCH_ROWS] = {HISTOGRAM("batch_rows", "Rows of a batch that a worker ran.", ROWS)},
    [BATCH_CALLS] = {HISTOGRAM("batch_calls", "Requests with rows in a batch.", CALLS)},
    [BATCH_FORWARD] = {SECONDS("batch_forward_seconds", "Time of a batch in the network.")},
};

enum {
    REFUSED,
    DEADLINE_MISSES,
    STORE_ERRORS,
    RECORDS_MISSING,
    RECORDS_STALE,
    VALUES_INVALID,
    DEFAULTED,
    N_FAMILIES
};
static const hr_metric_family FAMILIES[N_FAMILIES] = {
    [REFUSED] = {COUNTER("requests_refused_total", "Requests refused before any work was done for them."),
                 BY("reason", REFUSALS)},
    [DEADLINE_MISSES] =
        {COUNTER("deadline_misses_total",
                 "Requests that would not have made their deadline (refused), or did not (expired)."),
         BY("how", MISSES)},
    [STORE_ERRORS] = {COUNTER("store_errors_total",
                              "Requests for which the store could not answer, or not for all records.")},
    [RECORDS_MISSING] = {COUNTER("records_missing_total", "Records that the store did not have or not give."),
                         BY("entity", ENTITIES)},
    [RECORDS_STALE] = {COUNTER("records_stale_total", "Records of items used beyond their time.")},
    [VALUES_INVALID] = {COUNTER("values_invalid_total", "Stored values that could not be used.")},
    [DEFAULTED] = {COUNTER(
        "requests_with_defaults_total",
        "Answered requests for which defaults stood in for missing records or invalid values.")},
};

/* ---- Recording ---- */

struct hr_service_metrics {
    hr_pipeline_observer observer;
    hr_metric_group *models; /* by "name@version"; "": no model */
    hr_metric_set *all;
    pthread_mutex_t watched;   /* guards the rest */
    hr_repository *repository; /* borrowed; NULL until the watch */
    hr_pipeline *pipeline;     /* borrowed; NULL until the watch */
};

static void labels_of(const char *key, char *name, size_t size, hr_label labels[2]) {
    snprintf(name, size, "%s", key == NULL ? "@other" : key);
    char *at = key == NULL ? NULL : strrchr(name, '@');
    if (at != NULL) *at = '\0';
    labels[0] = (hr_label){"model", name};
    labels[1] = (hr_label){"version", at == NULL ? "" : at + 1};
}

static hr_metric_set *make_set(const char *key) {
    char name[512];
    hr_label labels[2];
    labels_of(key, name, sizeof name, labels);
    bool no_model = key != NULL && key[0] == '\0';
    return hr_metric_set_create(MODEL_FAMILIES, no_model ? REQUESTS + 1 : N_MODEL_FAMILIES, labels, 2);
}

/* A stage that was not reached has no time. */
static void observe_stage(hr_metric_set *set, uint32_t family, uint64_t duration_ns) {
    if (duration_ns > 0) hr_metric_observe(set, family, duration_ns);
}

static void record_model(hr_metric_group *models, const hr_call_report *report) {
    hr_metric_set *set = hr_metric_group_enter(models, report->model != NULL ? report->model : "");
    const uint32_t code = (uint32_t)hr_status_grpc_code(report->code);
    if (report->model != NULL && report->priority == HR_CLASS_SHADOW) {
        hr_metric_count(set, SHADOWS, code, 1);
    } else {
        hr_metric_count(set, REQUESTS, code, 1);
        if (report->model != NULL && report->refusal == HR_REFUSAL_NONE) {
            if (report->code == HR_OK) hr_metric_count(set, ITEMS, 0, report->n_items);
            hr_metric_observe(set, TOTAL, report->total_ns);
            observe_stage(set, QUEUE, report->queue_ns);
            observe_stage(set, FEATURES, report->features_ns);
            observe_stage(set, ENCODE, report->encode_ns);
            observe_stage(set, MODEL, report->model_ns);
        }
    }
    hr_metric_group_leave(models);
}

static void record_features(hr_metric_set *all, const hr_call_report *report) {
    bool defaulted = report->user_missing || report->items_missing > 0 || report->values_invalid > 0;
    if (report->store_failed) hr_metric_count(all, STORE_ERRORS, 0, 1);
    if (report->user_missing) hr_metric_count(all, RECORDS_MISSING, ENTITY_USER, 1);
    if (report->items_missing > 0) hr_metric_count(all, RECORDS_MISSING, ENTITY_ITEM, report->items_missing);
    if (report->items_stale > 0) hr_metric_count(all, RECORDS_STALE, 0, report->items_stale);
    if (report->values_invalid > 0) hr_metric_count(all, VALUES_INVALID, 0, report->values_invalid);
    if (defaulted && report->code == HR_OK) hr_metric_count(all, DEFAULTED, 0, 1);
}

static void on_call(void *arg, const hr_call_report *report) {
    hr_service_metrics *metrics = arg;
    bool is_refused = report->refusal != HR_REFUSAL_NONE;
    record_model(metrics->models, report);
    if (report->priority == HR_CLASS_SHADOW) return;
    if (is_refused) hr_metric_count(metrics->all, REFUSED, report->refusal, 1);
    if (report->code == HR_DEADLINE_EXCEEDED)
        hr_metric_count(metrics->all, DEADLINE_MISSES, is_refused ? MISS_REFUSED : MISS_EXPIRED, 1);
    record_features(metrics->all, report);
}

static void on_batch(void *arg, const hr_batch_report *report) {
    hr_service_metrics *metrics = arg;
    hr_metric_set *set = hr_metric_group_enter(metrics->models, report->model);
    hr_metric_observe(set, BATCH_ROWS, report->n_rows);
    hr_metric_observe(set, BATCH_CALLS, report->n_calls);
    hr_metric_observe(set, BATCH_FORWARD, report->forward_ns);
    hr_metric_group_leave(metrics->models);
}

/* ---- Printing ---- */

typedef struct printer {
    hr_metrics_text *text;
    hr_service_metrics *metrics;
} printer;

static void print_degraded(const hr_model *model, void *arg) {
    char name[512];
    hr_label labels[2];
    labels_of(hr_model_label(model), name, sizeof name, labels);
    hr_metrics_text_sample(arg, hr_engine_is_degraded(hr_model_engine(model)), labels, 2);
}

static void print_model(const hr_model *model, void *arg) {
    const printer *p = arg;
    char name[512];
    hr_label labels[4];
    const hr_engine *engine = hr_model_engine(model);
    labels_of(hr_model_label(model), name, sizeof name, labels);
    labels[2] = (hr_label){"backend", hr_engine_backend(engine)};
    labels[3] = (hr_label){"precision", hr_precision_name(hr_engine_precision(engine))};
    hr_metrics_text_sample(p->text, 1, labels, 4);
    hr_metric_group_keep(p->metrics->models, hr_model_label(model));
}

static void print_queue(hr_metrics_text *text, hr_pipeline *pipeline) {
    hr_pipeline_counts counts;
    hr_pipeline_count(pipeline, &counts);
    hr_metrics_text_gauge(text, "homerank_in_flight_requests", "Requests admitted and not yet answered.",
                          counts.in_flight);
    hr_metrics_text_gauge(text, "homerank_queue_requests", "Requests in flight that wait for a worker.",
                          counts.queued_calls);
    hr_metrics_text_gauge(text, "homerank_queue_items",
                          "Items of requests in flight that no worker has taken.",
                          (double)counts.queued_rows);
}

static void print_watched(hr_metrics_text *text, hr_service_metrics *metrics) {
    pthread_mutex_lock(&metrics->watched);
    if (metrics->repository != NULL) {
        printer p = {text, metrics};
        hr_metrics_text_family(text, HR_METRIC_GAUGE, "homerank_model_info",
                               "1 for each version that is served.");
        hr_repository_visit(metrics->repository, print_model, &p);
        hr_metrics_text_family(text, HR_METRIC_GAUGE, "homerank_model_degraded",
                               "1 for a version that the CPU computes because its device failed, else 0.");
        hr_repository_visit(metrics->repository, print_degraded, text);
        print_queue(text, metrics->pipeline);
    }
    pthread_mutex_unlock(&metrics->watched);
}

static void collect(hr_metrics_text *text, void *arg) {
    hr_service_metrics *metrics = arg;
    hr_metric_set *sets[HR_METRIC_GROUP_MAX + 1];
    print_watched(text, metrics);
    hr_metric_group_keep(metrics->models, "");
    hr_metric_group_sweep(metrics->models, hr_clock_ns(), MODEL_IDLE_NS);
    size_t n_sets = hr_metric_group_list(metrics->models, sets);
    hr_metric_sets_print(text, MODEL_FAMILIES, N_MODEL_FAMILIES, sets, n_sets);
    hr_metric_sets_print(text, FAMILIES, N_FAMILIES, &metrics->all, 1);
}

/* ---- Life ---- */

hr_status hr_service_metrics_create(hr_metrics *metrics, hr_service_metrics **out, hr_error *err) {
    *out = NULL;
    hr_service_metrics *made = calloc(1, sizeof *made);
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "metrics: no memory");
    made->observer = (hr_pipeline_observer){.arg = made, .call = on_call, .batch = on_batch};
    pthread_mutex_init(&made->watched, NULL);
    made->models = hr_metric_group_create(make_set);
    made->all = hr_metric_set_create(FAMILIES, N_FAMILIES, NULL, 0);
    hr_status status = made->models == NULL || made->all == NULL
                           ? hr_error_set(err, HR_OUT_OF_MEMORY, "metrics: no memory")
                           : hr_metrics_add(metrics, collect, made, err);
    if (status != HR_OK) {
        hr_service_metrics_destroy(made);
        return status;
    }
    *out = made;
    return HR_OK;
}

void hr_service_metrics_destroy(hr_service_metrics *metrics) {
    if (metrics == NULL) return;
    hr_metric_group_destroy(metrics->models);
    hr_metric_set_destroy(metrics->all);
    pthread_mutex_destroy(&metrics->watched);
    free(metrics);
}

const hr_pipeline_observer *hr_service_metrics_observer(const hr_service_metrics *metrics) {
    return &metrics->observer;
}

void hr_service_metrics_watch(hr_service_metrics *metrics, hr_repository *repository, hr_pipeline *pipeline) {
    pthread_mutex_lock(&metrics->watched);
    metrics->repository = repository;
    metrics->pipeline = pipeline;
    pthread_mutex_unlock(&metrics->watched);
}
