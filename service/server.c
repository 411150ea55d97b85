/* The server's life: queues, pollers, methods, the port; and the shutdown. See server.h.
 *
 * Start: everything that can fail comes before the port is bound, so that a failure needs no shutdown.
 * Shutdown: `stopping` first (Rank is refused, streams wind up, health says NOT_SERVING). The core, once told
 * to shut down, ends a call it has not handed over with CANCELLED; so callers are turned away by our own
 * UNAVAILABLE until no more come. Then `closing` (no slot is requested again), the core's shutdown with the
 * pollers still running, after the grace time cancel_all_calls, and the wait for the core's word and for
 * every call to be freed; only then destroy, shut the queues down, join. */
#include "service/server.h"

#include <assert.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "service/rpc_log.h"
#include "service/rpc_tsan.h"
#include "service/server_address.h"
#include "service/server_state.h"

/* The catch-all comes last: it has no registration. */
#define METHODS_OF_ALL                                                                                       \
    &hr_health_check_method, &hr_health_watch_method, &hr_reflection_method, &hr_unknown_method
static const hr_rpc_method *const RANKER_METHODS[] = {
    &hr_rank_method,
    &hr_rank_stream_method,
    METHODS_OF_ALL,
};
static const hr_rpc_method *const ADMIN_METHODS[] = {
    &hr_admin_methods[0], &hr_admin_methods[1], &hr_admin_methods[2],
    &hr_admin_methods[3], &hr_admin_methods[4], METHODS_OF_ALL,
};
enum { MAX_METHODS = 16 };

#define SERVICE(text, table)                                                                                 \
    { .name = (text), .methods = (table), .n_methods = sizeof(table) / sizeof *(table) }
static const hr_service RANKER = SERVICE("homerank.v1.Ranker", RANKER_METHODS);
static const hr_service ADMIN = SERVICE("homerank.v1.Admin", ADMIN_METHODS);

bool hr_server_has_service(const hr_server *server, const char *name) {
    size_t length = strlen(name);
    for (size_t m = 0; m < server->service->n_methods; m++) {
        const char *path = server->service->methods[m]->path;
        if (path != NULL && strncmp(path + 1, name, length) == 0 && path[1 + length] == '/') return true;
    }
    return false;
}

bool hr_server_is_stopping(const hr_server *server) {
    return atomic_load(&server->stopping);
}

uint16_t hr_server_port(const hr_server *server) {
    return server->port;
}

void hr_server_count(const hr_server *server, hr_server_counts *counts) {
    counts->accepted = atomic_load(&server->accepted);
    counts->answered = atomic_load(&server->answered);
    counts->cancelled = atomic_load(&server->cancelled);
    counts->refused = atomic_load(&server->refused);
    for (size_t code = 0; code < HR_GRPC_CODES; code++)
        counts->refused_by_code[code] = atomic_load(&server->refused_by_code[code]);
    counts->n_open = atomic_load(&server->n_open);
    counts->n_streams = atomic_load(&server->n_streams);
}

void hr_server_collect(hr_metrics_text *text, void *server) {
    hr_server_counts counts;
    hr_server_count(server, &counts);
    hr_metrics_text_counter(text, "homerank_server_accepted_total",
                            "Rank requests and stream messages handed to the pipeline.",
                            (double)counts.accepted);
    hr_metrics_text_counter(text, "homerank_server_answered_total",
                            "Accepted ones whose answer or error was sent.", (double)counts.answered);
    hr_metrics_text_counter(text, "homerank_server_cancelled_total",
                            "Accepted ones whose client or stream was gone before that.",
                            (double)counts.cancelled);
    hr_metrics_text_family(
        text, HR_METRIC_COUNTER, "homerank_server_refused_total",
        "Requests never accepted: malformed, past a limit of the server, or while it stops.");
    for (size_t code = 0; code < HR_GRPC_CODES; code++) {
        const hr_label label = {"code", hr_grpc_code_names[code]};
        if (label.value == NULL || code == 0) continue;
        hr_metrics_text_sample(text, (double)counts.refused_by_code[code], &label, 1);
    }
    hr_metrics_text_gauge(text, "homerank_server_open_requests",
                          "Accepted ones that are neither answered nor cancelled.", counts.n_open);
    hr_metrics_text_gauge(text, "homerank_server_open_streams", "Open streams, of every service.",
                          counts.n_streams);
}

/* ---- Arenas ---- */

hr_arena *hr_poller_take_arena(hr_poller *poller) {
    pthread_mutex_lock(&poller->arenas_lock);
    hr_arena *arena = poller->n_arenas > 0 ? poller->arenas[--poller->n_arenas] : NULL;
    pthread_mutex_unlock(&poller->arenas_lock);
    return arena != NULL ? arena : hr_arena_create(poller->server->options.max_call_nbytes);
}

void hr_poller_put_arena(hr_poller *poller, hr_arena *arena) {
    hr_arena_reset(arena);
    pthread_mutex_lock(&poller->arenas_lock);
    if (poller->n_arenas < HR_POLLER_IDLE_ARENAS) {
        poller->arenas[poller->n_arenas++] = arena;
        arena = NULL;
    }
    pthread_mutex_unlock(&poller->arenas_lock);
    hr_arena_destroy(arena);
}

/* ---- Pollers ---- */

static void fire(const grpc_event *event) {
    hr_rpc_tag *tag = event->tag;
    HR_RPC_ACQUIRE(tag);
    tag->fire(tag, event->success != 0);
}

static gpr_timespec in_ms(uint64_t ms) {
    if (ms == 0) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis((int64_t)ms, GPR_TIMESPAN));
}

/* Every so often it looks for clients that take no answers: the core tells of a dead peer, not of one that
 * lives and does not read. */
static void *poller_run(void *arg) {
    enum { LOOKS = 4 }; /* in the time that a client may take */
    hr_poller *poller = arg;
    const uint64_t stall_ms = poller->server->options.stall_ms, look_ms = (stall_ms + LOOKS - 1) / LOOKS;
    uint64_t next_look_ns = stall_ms > 0 ? hr_clock_ns() + look_ms * 1000000u : UINT64_MAX;
    for (;;) {
        grpc_event event = grpc_completion_queue_next(poller->queue, in_ms(look_ms), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN) return NULL;
        if (event.type == GRPC_OP_COMPLETE) fire(&event);
        const uint64_t now_ns = hr_clock_ns();
        if (now_ns < next_look_ns) continue;
        hr_rpc_cancel_stalled(poller, now_ns - stall_ms * 1000000u);
        next_look_ns = now_ns + look_ms * 1000000u;
    }
}

static void *poller_main(void *poller) {
    hr_thread_answer();
    return poller_run(poller);
}

static void fire_posted(hr_rpc_tag *tag, bool ok) {
    (void)ok;
    hr_rpc_run_posted(tag->owner);
}

static hr_status start_pollers(hr_server *server, hr_error *err) {
    uint32_t n = server->options.n_pollers;
    server->pollers = calloc(n, sizeof *server->pollers);
    if (server->pollers == NULL)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "server: no memory for its pollers");
    for (; server->n_pollers < n; server->n_pollers++) {
        hr_poller *poller = &server->pollers[server->n_pollers];
        poller->server = server;
        poller->posted_tag = (hr_rpc_tag){.fire = fire_posted, .owner = poller};
        poller->queue = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server->core, poller->queue, NULL);
        pthread_mutex_init(&poller->arenas_lock, NULL);
        hr_status status = hr_thread_start(&poller->thread, "hr-poller", poller_main, poller, err);
        if (status == HR_OK) continue;
        grpc_completion_queue_shutdown(poller->queue);
        poller_run(poller); /* drains what nobody else will */
        grpc_completion_queue_destroy(poller->queue);
        pthread_mutex_destroy(&poller->arenas_lock);
        return status;
    }
    return HR_OK;
}

static void stop_pollers(hr_server *server) {
    for (uint32_t i = 0; i < server->n_pollers; i++) grpc_completion_queue_shutdown(server->pollers[i].queue);
    for (uint32_t i = 0; i < server->n_pollers; i++) {
        hr_poller *poller = &server->pollers[i];
        pthread_join(poller->thread, NULL);
        grpc_completion_queue_destroy(poller->queue);
        while (poller->n_arenas > 0) hr_arena_destroy(poller->arenas[--poller->n_arenas]);
        pthread_mutex_destroy(&poller->arenas_lock);
    }
    free(server->pollers);
}

/* ---- Start ---- */

static int clamp_int(uint64_t value) {
    return value > INT_MAX ? INT_MAX : (int)value;
}

static grpc_arg int_arg(const char *key, int value) {
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

/* Against abuse: bounded messages, headers and streams per connection; pings no oftener than every 10 s,
 * which lets through the keepalive of ordinary clients; a connection whose peer is gone is found within 80 s.
 * Messages are taken uncompressed only, for the core unpacks others without a bound on what comes out. */
static grpc_server *create_core(const hr_server_options *options) {
    enum { MAX_METADATA_NBYTES = 16384, STREAMS_BEYOND_OPEN_CALLS = 64 };
    grpc_arg args[] = {
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, clamp_int(options->max_message_nbytes)),
        int_arg(GRPC_ARG_MAX_METADATA_SIZE, MAX_METADATA_NBYTES),
        /* more than the open calls, so that the limit is told by a status and not by silence */
        int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                clamp_int((uint64_t)options->max_open_calls + STREAMS_BEYOND_OPEN_CALLS)),
        int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE),
        int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0), /* a port in use is an error */
        int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0), /* its counts and traces, which nobody can ask for */
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, 60000),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000),
        int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000),
        int_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10000),
    };
    const grpc_channel_args all = {.num_args = sizeof args / sizeof args[0], .args = args};
    return grpc_server_create(&all, NULL);
}

static hr_status bind_port(hr_server *server, const char *listen, const hr_address *address, hr_error *err) {
    grpc_server_credentials *insecure = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(server->core, listen, insecure);
    grpc_server_credentials_release(insecure);
    if (port <= 0) return hr_error_set(err, HR_IO, "listen %s: %s", listen, hr_address_bind_failure(address));
    server->port = (uint16_t)port;
    return HR_OK;
}

/* Registers the methods, opens the port and waits for calls. */
static hr_status open_for_calls(hr_server *server, const char *listen, const hr_address *address,
                                hr_error *err) {
    const hr_service *service = server->service;
    void *registered[MAX_METHODS] = {NULL};
    assert(service->n_methods <= MAX_METHODS);
    for (size_t m = 0; m < service->n_methods; m++) {
        const hr_rpc_method *method = service->methods[m];
        if (method->path == NULL) continue;
        registered[m] = grpc_server_register_method(
            server->core, method->path, NULL,
            method->takes_payload ? GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER : GRPC_SRM_PAYLOAD_NONE, 0);
    }
    hr_status status = bind_port(server, listen, address, err);
    if (status != HR_OK) return status;
    grpc_server_start(server->core);
    for (uint32_t p = 0; p < server->n_pollers; p++)
        for (size_t m = 0; m < service->n_methods; m++)
            for (uint32_t i = 0; i < service->methods[m]->n_slots; i++)
                hr_rpc_request(&server->pollers[p], service->methods[m], registered[m]);
    return HR_OK;
}

static void fire_core_is_shut(hr_rpc_tag *tag, bool ok) {
    (void)ok;
    hr_server *server = tag->owner;
    pthread_mutex_lock(&server->lock);
    server->core_is_shut = true;
    pthread_cond_signal(&server->idle);
    pthread_mutex_unlock(&server->lock);
}

static hr_server *create(const hr_server_options *options, const hr_service *service, void *served) {
    hr_server *server = calloc(1, sizeof *server);
    if (server == NULL) return NULL;
    hr_rpc_log_install();
    grpc_init();
    server->options = *options;
    server->options.listen = NULL;
    server->service = service;
    server->served = served;
    server->shutdown_tag = (hr_rpc_tag){.fire = fire_core_is_shut, .owner = server};
    pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    server->core = create_core(options);
    return server;
}

/* The core is shut down or has no port yet, and no call is left. */
static void destroy(hr_server *server) {
    if (server->core != NULL) grpc_server_destroy(server->core);
    stop_pollers(server);
    hr_reflection_destroy(server->reflection);
    pthread_cond_destroy(&server->idle);
    pthread_mutex_destroy(&server->lock);
    grpc_shutdown();
    free(server);
}

static hr_status start(const hr_server_options *options, const hr_service *service, void *served,
                       hr_server **server, hr_error *err) {
    hr_address address;
    hr_status status = hr_address_parse("listen", options->listen, &address, err);
    if (status != HR_OK) return status;
    hr_server *made = create(options, service, served);
    if (made == NULL || made->core == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "server: no memory");
    if (status == HR_OK) status = hr_reflection_create(&made->reflection, err);
    if (status == HR_OK) status = start_pollers(made, err);
    if (status == HR_OK) status = open_for_calls(made, options->listen, &address, err);
    if (status != HR_OK) {
        if (made != NULL) destroy(made);
        return status;
    }
    hr_log(HR_LOG_INFO, "serving gRPC", HR_LOG_STR("service", service->name),
           HR_LOG_STR("listen", options->listen), HR_LOG_INT("port", made->port),
           HR_LOG_INT("pollers", made->n_pollers));
    *server = made;
    return HR_OK;
}

static hr_status start_quietly(const hr_server_options *options, const hr_service *service, void *served,
                               hr_server **server, hr_error *err) {
    assert(options->n_pollers >= 1 && options->max_open_calls >= 1);
    /* The core makes threads of its own; signals are the main thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    hr_status status = start(options, service, served, server, err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

hr_status hr_server_start(const hr_server_options *options, hr_pipeline *pipeline, hr_server **server,
                          hr_error *err) {
    return start_quietly(options, &RANKER, pipeline, server, err);
}

hr_status hr_server_start_admin(const hr_server_options *options, hr_repository *repository,
                                hr_server **server, hr_error *err) {
    return start_quietly(options, &ADMIN, repository, server, err);
}

/* ---- Shutdown ---- */

/* Lets every streaming call see that the server is stopping. */
static void wind_up_streams(hr_server *server) {
    pthread_mutex_lock(&server->lock);
    for (hr_rpc *rpc = server->calls; rpc != NULL; rpc = rpc->next) {
        if (rpc->method->streaming) hr_rpc_advance(rpc);
    }
    pthread_mutex_unlock(&server->lock);
}

/* Waits until the core is shut and all calls are freed; false past the time. */
static bool wait_until_idle(hr_server *server, const struct timespec *until) {
    int timed_out = 0;
    pthread_mutex_lock(&server->lock);
    while (!(server->core_is_shut && server->calls == NULL) && timed_out == 0) {
        if (until == NULL)
            pthread_cond_wait(&server->idle, &server->lock);
        else
            timed_out = pthread_cond_timedwait(&server->idle, &server->lock, until);
    }
    bool idle = server->core_is_shut && server->calls == NULL;
    pthread_mutex_unlock(&server->lock);
    return idle;
}

/* Returns once the accepted calls are done and the callers know: none was refused for a while, or they will
 * not learn. Not later than until_ns. */
static void turn_callers_away(hr_server *server, uint64_t until_ns) {
    enum { SLICE_MS = 100, MAX_IDLE_SLICES = 10 };
    for (uint32_t n_idle_slices = 0; n_idle_slices < MAX_IDLE_SLICES;) {
        unsigned long long n_refused = atomic_load(&server->refused);
        bool was_idle = atomic_load(&server->n_open) == 0;
        uint64_t now_ns = hr_clock_ns();
        if (now_ns >= until_ns) return;
        uint64_t slice_ns = until_ns - now_ns < SLICE_MS * 1000000u ? until_ns - now_ns : SLICE_MS * 1000000u;
        nanosleep(&(struct timespec){.tv_nsec = (long)slice_ns}, NULL);
        if (was_idle && atomic_load(&server->refused) == n_refused) return;
        n_idle_slices += was_idle;
    }
}

void hr_server_stop(hr_server *server) {
    uint64_t until_ns = hr_clock_ns() + (uint64_t)server->options.grace_ms * 1000000u;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                             .tv_nsec = (long)(until_ns % 1000000000u)};
    hr_log(HR_LOG_INFO, "gRPC stops: no new calls", HR_LOG_STR("service", server->service->name),
           HR_LOG_INT("open", atomic_load(&server->n_open)),
           HR_LOG_INT("grace_ms", server->options.grace_ms));
    atomic_store(&server->stopping, true);
    wind_up_streams(server);
    turn_callers_away(server, until_ns);
    atomic_store(&server->closing, true);
    HR_RPC_RELEASE(&server->shutdown_tag);
    grpc_server_shutdown_and_notify(server->core, server->pollers[0].queue, &server->shutdown_tag);
    if (!wait_until_idle(server, &until)) {
        hr_log(HR_LOG_WARN, "the grace time is over: cancelling",
               HR_LOG_INT("open", atomic_load(&server->n_open)));
        grpc_server_cancel_all_calls(server->core);
        wait_until_idle(server, NULL);
    }
    hr_server_counts counts;
    hr_server_count(server, &counts);
    hr_log(HR_LOG_INFO, "gRPC stopped", HR_LOG_STR("service", server->service->name),
           HR_LOG_INT("accepted", counts.accepted), HR_LOG_INT("answered", counts.answered),
           HR_LOG_INT("cancelled", counts.cancelled), HR_LOG_INT("refused", counts.refused));
}

void hr_server_shutdown(hr_server *server) {
    if (!hr_server_is_stopping(server)) hr_server_stop(server);
    destroy(server);
}
