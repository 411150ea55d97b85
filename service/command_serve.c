/* `homerank serve`: opens the store and the models, starts the pipeline and the server, waits for a signal.
 *
 * Signals are the main thread's: SIGTERM, SIGINT and SIGHUP are blocked before gRPC starts threads of its own
 * and taken by sigtimedwait. SIGHUP reads the experiments file again. After the first of the others, the
 * accepted calls have --grace-ms to finish; a second ends the process at once.
 */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "service/commands.h"
#include "service/monitor.h"
#include "service/runtime.h"
#include "service/server.h"
#include "service/store_metrics.h"

/* What happens of answers that were sent. */
typedef struct after_answers {
    hr_exposures *exposures; /* or NULL */
    hr_shadow *shadow;
} after_answers;

static hr_status open_exposures(const hr_options *options, hr_exposures **exposures, hr_error *err) {
    const hr_exposures_options log = {
        .path = options->exposures,
        .stream = options->exposure_stream,
        .stream_maxlen = options->exposure_stream_maxlen,
        .max_file_nbytes = options->exposures_max_bytes,
        .max_file_age_s = options->exposures_max_age_s,
        .max_waiting_nbytes = options->exposures_buffer_bytes,
        .grace_ms = options->grace_ms,
    };
    if (log.path[0] == '\0' && log.stream[0] == '\0') return HR_OK;
    return hr_exposures_open(&log, exposures, err);
}

static hr_status open_after(const hr_options *options, hr_pipeline *pipeline, hr_monitor *monitor,
                            after_answers *after, hr_error *err) {
    hr_metrics *metrics = hr_monitor_metrics(monitor);
    *after = (after_answers){0};
    hr_status status = open_exposures(options, &after->exposures, err);
    if (status) return status;
    after->shadow = hr_shadow_create(pipeline, after->exposures, options->max_open_bytes / 4);
    if (after->shadow == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for shadows");
    if (after->exposures != NULL)
        status = hr_metrics_add(metrics, hr_exposures_collect, after->exposures, err);
    return status ? status : hr_metrics_add(metrics, hr_shadow_collect, after->shadow, err);
}

static void close_after(after_answers *after) {
    hr_shadow_close(after->shadow);
    hr_exposures_close(after->exposures);
}

enum { STALL_MS = 10000 }; /* for a client to take an answer */

static hr_status start_server(const hr_options *options, hr_pipeline *pipeline, const after_answers *after,
                              hr_server **started, hr_error *err) {
    hr_server_options server = {
        .listen = options->listen,
        .n_pollers = options->pollers,
        .max_message_nbytes = options->max_message_bytes,
        .max_open_calls = options->max_open_calls,
        .max_call_nbytes = options->max_call_bytes,
        .max_open_nbytes = options->max_open_bytes,
        .grace_ms = options->grace_ms,
        .stall_ms = STALL_MS,
        .exposures = after->exposures,
        .shadow = after->shadow,
    };
    return hr_server_start(&server, pipeline, started, err);
}

/* Its calls are few and small, and some wait for a model to load. */
static hr_status start_admin(const hr_options *options, hr_repository *repository, hr_server **started,
                             hr_error *err) {
    if (options->admin[0] == '\0') return HR_OK;
    hr_server_options server = {
        .listen = options->admin,
        .n_pollers = 1,
        .max_message_nbytes = 64 << 10,
        .max_open_calls = 64,
        .max_call_nbytes = 16 << 20,
        .max_open_nbytes = 64 << 20,
        .grace_ms = options->grace_ms,
        .stall_ms = STALL_MS,
    };
    return hr_server_start_admin(&server, repository, started, err);
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
static void log_listening(const hr_options *options, const hr_runtime *runtime, const hr_server *server) {
    models_text text = {0};
    hr_repository_visit(runtime->repository, describe_model, &text);
    const char *colon = strrchr(options->listen, ':');
    int n_host = colon ? (int)(colon - options->listen) : 0;
    char address[512];
    snprintf(address, sizeof address, "%.*s:%u", n_host, options->listen, hr_server_port(server));
    hr_log(HR_LOG_INFO, "listening", HR_LOG_STR("address", address),
           HR_LOG_STR("store", hr_store_label(runtime->store)), HR_LOG_STR("backend", text.backend),
           HR_LOG_INT("threads", options->threads), HR_LOG_STR("models", text.labels));
}

/* SIGHUP reads the experiments again; the others end it. Every minute meanwhile what malloc holds and nobody
 * uses goes back to the system: each thread's heap has its own worst moment, and would stay as large. */
static void wait_for_signal(const sigset_t *signals, const hr_runtime *runtime) {
    const struct timespec minute = {.tv_sec = 60};
    int signal_number;
    do {
        signal_number = sigtimedwait(signals, NULL, &minute);
        if (signal_number < 0) malloc_trim(0);
        if (signal_number == SIGHUP && runtime->experiments != NULL)
            hr_experiments_watch_reload(runtime->experiments);
    } while (signal_number < 0 || signal_number == SIGHUP);
    hr_log(HR_LOG_INFO, "shutting down",
           HR_LOG_STR("signal", signal_number == SIGINT ? "SIGINT" : "SIGTERM"));
    pthread_sigmask(SIG_UNBLOCK, signals, NULL);
}

/* From the first listener to the last. At the end no model changes any more; the Admin tells of them until
 * the last call is done; the monitor sees the server's end, and is closed before what it shows. */
static hr_status serve(const hr_options *options, hr_runtime *runtime, hr_monitor *monitor, hr_error *err) {
    after_answers after;
    hr_server *server = NULL, *admin = NULL;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    hr_status status = open_after(options, runtime->pipeline, monitor, &after, err);
    if (!status && runtime->experiments != NULL)
        status = hr_metrics_add(hr_monitor_metrics(monitor), hr_experiments_watch_collect,
                                runtime->experiments, err);
    if (!status) status = start_server(options, runtime->pipeline, &after, &server, err);
    if (!status) status = start_admin(options, runtime->repository, &admin, err);
    if (!status)
        status = hr_metrics_add(hr_monitor_metrics(monitor), hr_store_metrics_collect, runtime->store, err);
    if (!status) status = hr_monitor_serving(monitor, runtime->repository, runtime->pipeline, server, err);
    if (!status) {
        log_listening(options, runtime, server);
        wait_for_signal(&signals, runtime);
    }
    hr_monitor_stopping(monitor);
    hr_repository_drain(runtime->repository);
    if (server != NULL) hr_server_stop(server);
    if (admin != NULL) hr_server_shutdown(admin);
    hr_monitor_close(monitor);
    close_after(&after);
    if (server != NULL) hr_server_shutdown(server);
    return status;
}

/* What is large, a model's memory above all, is mapped apart, and unmapped when it is freed; left alone,
 * malloc would soon take blocks of up to 32 MiB from the heaps of threads. */
static void keep_heaps_small(void) {
    enum { MAPPED_FROM_NBYTES = 256 << 10, TRIMMED_FROM_NBYTES = 1 << 20 };
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_NBYTES);
    mallopt(M_TRIM_THRESHOLD, TRIMMED_FROM_NBYTES);
}

int hr_command_serve(const hr_options *options) {
    hr_monitor *monitor;
    hr_runtime runtime;
    hr_error err;
    keep_heaps_small();
    signal(SIGPIPE, SIG_IGN);
    hr_status status = hr_monitor_start(options->http, HR_VERSION, &monitor, &err);
    if (status) return hr_command_fail(&err);
    status = hr_runtime_start(options, hr_monitor_observer(monitor), &runtime, &err);
    if (!status) {
        status = serve(options, &runtime, monitor, &err);
        hr_runtime_stop(&runtime);
    }
    hr_monitor_destroy(monitor);
    if (status) return hr_command_fail(&err);
    hr_log(HR_LOG_INFO, "stopped");
    return 0;
}
