/* `homerank serve`: opens the store and the models, starts the pipeline and the server, waits for a signal.
 *
 * Signals are the main thread's: SIGTERM and SIGINT are blocked before gRPC starts threads of its own and
 * taken by sigwait. After the first, the accepted calls have --grace-ms to finish; a second ends the process
 * at once.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "features/store.h"
#include "model/repository.h"
#include "service/commands.h"
#include "service/pipeline.h"
#include "service/servable.h"
#include "service/server.h"

/* What runs, in the order it was started. */
typedef struct serving {
    hr_store *store;
    hr_repository *repository;
    hr_pipeline *pipeline;
    hr_server *server;
} serving;

static hr_status open_store(const hr_options *options, serving *s, hr_error *err) {
    hr_store_options store = hr_store_defaults;
    store.connect_timeout_ms = options->store_connect_timeout_ms;
    store.command_timeout_ms = options->store_timeout_ms;
    store.n_connections = options->store_connections;
    store.read_only = true;
    return hr_store_open(options->store, &store, &s->store, err);
}

static hr_status open_models(const hr_options *options, serving *s, hr_error *err) {
    hr_repository_options repository = {
        .model = {.backend = options->backend, .n_workers = options->threads},
        .default_model = options->default_model,
        .prepare = hr_servable_prepare,
    };
    hr_status status = hr_precision_parse(options->precision, &repository.model.precision, err);
    return status ? status : hr_repository_open(options->models, &repository, &s->repository, err);
}

static hr_status start_pipeline(const hr_options *options, serving *s, hr_error *err) {
    hr_pipeline_options pipeline = {
        .n_workers = options->threads,
        .max_items = options->max_items,
        .max_id_nbytes = options->max_id_bytes,
        .max_queued_calls = options->max_queued_calls,
        .max_queued_items = options->max_queued_items,
        .strict_features = options->strict_features,
    };
    return hr_pipeline_create(&pipeline, s->repository, s->store, &s->pipeline, err);
}

static hr_status start_server(const hr_options *options, serving *s, hr_error *err) {
    hr_server_options server = {
        .listen = options->listen,
        .n_pollers = options->pollers,
        .max_message_nbytes = options->max_message_bytes,
        .max_open_calls = options->max_open_calls,
        .max_call_nbytes = options->max_call_bytes,
        .grace_ms = options->grace_ms,
    };
    return hr_server_start(&server, s->pipeline, &s->server, err);
}

/* Stops what runs, last started first. */
static void stop(serving *s) {
    if (s->server) hr_server_shutdown(s->server);
    hr_pipeline_destroy(s->pipeline);
    hr_repository_close(s->repository);
    hr_store_close(s->store);
}

/* What the `listening` line says of the models. */
typedef struct models_text {
    char labels[512];  /* "home@2, mmoe@1", cut where it does not fit */
    char backend[128]; /* how they run */
} models_text;

static void describe_model(const hr_model *model, void *arg) {
    models_text *text = arg;
    size_t n = strlen(text->labels);
    snprintf(text->labels + n, sizeof text->labels - n, "%s%s", n ? ", " : "", hr_model_label(model));
    if (!text->backend[0]) hr_engine_describe(hr_model_engine(model), text->backend, sizeof text->backend);
}

/* The line that says the server may be called: others wait for it, and find the port here. */
static void log_listening(const hr_options *options, const serving *s) {
    models_text text = {0};
    hr_repository_visit(s->repository, describe_model, &text);
    const char *colon = strrchr(options->listen, ':');
    int n_host = colon ? (int)(colon - options->listen) : 0;
    char address[512];
    snprintf(address, sizeof address, "%.*s:%u", n_host, options->listen, hr_server_port(s->server));
    hr_log(HR_LOG_INFO, "listening", HR_LOG_STR("address", address),
           HR_LOG_STR("store", hr_store_label(s->store)), HR_LOG_STR("backend", text.backend),
           HR_LOG_INT("threads", options->threads), HR_LOG_STR("models", text.labels));
}

static void wait_for_signal(const sigset_t *signals) {
    int signal_number = 0;
    sigwait(signals, &signal_number);
    hr_log(HR_LOG_INFO, "shutting down",
           HR_LOG_STR("signal", signal_number == SIGINT ? "SIGINT" : "SIGTERM"));
    pthread_sigmask(SIG_UNBLOCK, signals, NULL);
}

int hr_command_serve(const hr_options *options) {
    serving s = {0};
    hr_error err;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    signal(SIGPIPE, SIG_IGN);

    hr_status status = open_store(options, &s, &err);
    if (!status) status = open_models(options, &s, &err);
    if (!status) status = start_pipeline(options, &s, &err);
    if (!status) {
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
        status = start_server(options, &s, &err);
    }
    if (!status) {
        log_listening(options, &s);
        wait_for_signal(&signals);
    }
    stop(&s);
    if (status) return hr_command_fail(&err);
    hr_log(HR_LOG_INFO, "stopped");
    return 0;
}
