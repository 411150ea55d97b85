/* The server's own metrics and readiness over HTTP: see monitor.h. */
#include "service/monitor.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics_process.h"
#include "kernels/backend.h"
#include "service/http.h"
#include "service/repository_metrics.h"
#include "service/service_metrics.h"

enum { MAX_AGE_MS = 10000 }; /* of a connection; as long as Prometheus waits for an answer */

typedef enum phase { STARTING, SERVING, STOPPING } phase;

struct hr_monitor {
    const char *version; /* borrowed */
    hr_metrics *metrics;
    hr_service_metrics *service;
    hr_http *http;             /* NULL once closed */
    hr_repository *repository; /* borrowed; set before SERVING */
    _Atomic(phase) phase;
};

static void collect_build(hr_metrics_text *text, void *arg) {
    const hr_monitor *monitor = arg;
    const hr_label labels[] = {{"version", monitor->version}, {"backends", hr_backend_names()}};
    hr_metrics_text_family(text, HR_METRIC_GAUGE, "homerank_build_info", "1, for what this binary is.");
    hr_metrics_text_sample(text, 1, labels, 2);
}

/* What /readyz says of the models. */
typedef struct models_words {
    size_t n_models;
    char *words; /* [HR_HTTP_WORDS_SIZE] a line for each degraded one, cut where it does not fit */
} models_words;

static void describe_model(const hr_model *model, void *arg) {
    models_words *to = arg;
    to->n_models++;
    if (!hr_engine_is_degraded(hr_model_engine(model))) return;
    size_t n = strlen(to->words);
    snprintf(to->words + n, HR_HTTP_WORDS_SIZE - n,
             "\ndegraded: %s is computed by the CPU, its device failed", hr_model_label(model));
}

/* A failed device is no reason to send the calls elsewhere, for the CPU answers them: but it is said. */
static bool is_ready(void *arg, char words[HR_HTTP_WORDS_SIZE]) {
    static const char *const why_not[] = {
        [STARTING] = "the server is starting", [STOPPING] = "the server is shutting down"};
    hr_monitor *monitor = arg;
    phase now = atomic_load(&monitor->phase);
    models_words models = {.words = words};
    snprintf(words, HR_HTTP_WORDS_SIZE, "%s", now == SERVING ? "ready" : why_not[now]);
    if (now != SERVING) return false;
    hr_repository_visit(monitor->repository, describe_model, &models);
    if (models.n_models == 0) snprintf(words, HR_HTTP_WORDS_SIZE, "no model is served");
    return models.n_models > 0;
}

static hr_status start(const char *listen, hr_monitor *monitor, hr_error *err) {
    hr_metrics *metrics = monitor->metrics = hr_metrics_create();
    if (metrics == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "metrics: no memory");
    const hr_http_options http = {
        .listen = listen, .max_age_ms = MAX_AGE_MS, .metrics = metrics, .ready = is_ready, .arg = monitor};
    hr_status status = hr_metrics_add(metrics, collect_build, monitor, err);
    if (status == HR_OK) status = hr_service_metrics_create(metrics, &monitor->service, err);
    if (status == HR_OK) status = hr_metrics_add(metrics, hr_metrics_process_collect, NULL, err);
    if (status == HR_OK) status = hr_http_start(&http, &monitor->http, err);
    return status;
}

hr_status hr_monitor_start(const char *listen, const char *version, hr_monitor **monitor, hr_error *err) {
    *monitor = NULL;
    if (listen[0] == '\0') return HR_OK;
    hr_monitor *made = calloc(1, sizeof *made);
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "monitor: no memory");
    made->version = version;
    hr_status status = start(listen, made, err);
    if (status != HR_OK) {
        hr_monitor_destroy(made);
        return status;
    }
    *monitor = made;
    return HR_OK;
}

const hr_pipeline_observer *hr_monitor_observer(hr_monitor *monitor) {
    return monitor == NULL ? NULL : hr_service_metrics_observer(monitor->service);
}

hr_metrics *hr_monitor_metrics(hr_monitor *monitor) {
    return monitor == NULL ? NULL : monitor->metrics;
}

uint16_t hr_monitor_port(const hr_monitor *monitor) {
    return monitor == NULL ? 0 : hr_http_port(monitor->http);
}

hr_status hr_monitor_serving(hr_monitor *monitor, hr_repository *repository, hr_pipeline *pipeline,
                             hr_server *server, hr_error *err) {
    if (monitor == NULL) return HR_OK;
    hr_status status = hr_metrics_add(monitor->metrics, hr_server_collect, server, err);
    if (status == HR_OK)
        status = hr_metrics_add(monitor->metrics, hr_repository_metrics_collect, repository, err);
    if (status != HR_OK) return status;
    hr_service_metrics_watch(monitor->service, repository, pipeline);
    monitor->repository = repository;
    atomic_store(&monitor->phase, SERVING);
    return HR_OK;
}

void hr_monitor_stopping(hr_monitor *monitor) {
    if (monitor != NULL) atomic_store(&monitor->phase, STOPPING);
}

void hr_monitor_close(hr_monitor *monitor) {
    if (monitor == NULL) return;
    hr_http_stop(monitor->http);
    monitor->http = NULL;
}

void hr_monitor_destroy(hr_monitor *monitor) {
    if (monitor == NULL) return;
    hr_monitor_close(monitor);
    hr_service_metrics_destroy(monitor->service);
    hr_metrics_destroy(monitor->metrics);
    free(monitor);
}
