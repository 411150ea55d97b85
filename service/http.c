/* The HTTP listener: see http.h. libmicrohttpd speaks the protocol; the loop around it is ours, for a
 * connection's age is bounded here: the library's timeout is one of silence, which a byte now and then
 * evades. */
#include "service/http.h"

#include <limits.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "service/server_address.h"

enum { CONNECTION_NBYTES = 16384, TICK_MS = 250 };

#define LINGER_NS UINT64_C(1000000000)

static const char TEXT_TYPE[] = "text/plain; charset=utf-8";
static const char METRICS_TYPE[] = "text/plain; version=0.0.4; charset=utf-8";

/* The HTTP thread's. */
typedef struct open_connection {
    int fd; /* the library's; -1: no connection here */
    uint64_t since_ns;
} open_connection;

struct hr_http {
    hr_http_options options; /* without `listen` */
    struct MHD_Daemon *daemon;
    uint16_t port;
    int stop_fd; /* an eventfd: written once */
    pthread_t thread;
    open_connection open[HR_HTTP_MAX_CONNECTIONS];
    uint32_t n_open;
};

/* ---- Answers ---- */

typedef struct MHD_Connection connection;

/* body goes as `mode` says, even where it cannot be sent. */
static enum MHD_Result reply(connection *to, unsigned code, const char *type, const char *body, size_t nbytes,
                             enum MHD_ResponseMemoryMode mode) {
    struct MHD_Response *response = MHD_create_response_from_buffer(nbytes, (char *)body, mode);
    if (response == NULL) {
        if (mode == MHD_RESPMEM_MUST_FREE) free((char *)body);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(to, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result reply_line(connection *to, unsigned code, const char *line) {
    char text[HR_HTTP_WORDS_SIZE + 1];
    int n = snprintf(text, sizeof text, "%s\n", line);
    return reply(to, code, TEXT_TYPE, text, (size_t)n, MHD_RESPMEM_MUST_COPY);
}

static enum MHD_Result reply_metrics(const hr_http *http, connection *to) {
    char *text;
    size_t nbytes;
    hr_error err;
    if (hr_metrics_print(http->options.metrics, &text, &nbytes, &err) != HR_OK)
        return reply_line(to, MHD_HTTP_INTERNAL_SERVER_ERROR, err.message);
    return reply(to, MHD_HTTP_OK, METRICS_TYPE, text, nbytes, MHD_RESPMEM_MUST_FREE);
}

static enum MHD_Result reply_ready(const hr_http *http, connection *to) {
    char words[HR_HTTP_WORDS_SIZE];
    bool ready = http->options.ready(http->options.arg, words);
    return reply_line(to, ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, words);
}

/* Answered at the first call, when the headers are there: a body is not waited for. */
static enum MHD_Result on_request(void *cls, connection *to, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_nbytes,
                                  void **context) {
    const hr_http *http = cls;
    (void)version, (void)upload, (void)upload_nbytes, (void)context;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return reply_line(to, MHD_HTTP_METHOD_NOT_ALLOWED, "expected GET or HEAD");
    if (strcmp(url, "/metrics") == 0) return reply_metrics(http, to);
    if (strcmp(url, "/healthz") == 0) return reply_line(to, MHD_HTTP_OK, "alive");
    if (strcmp(url, "/readyz") == 0) return reply_ready(http, to);
    return reply_line(to, MHD_HTTP_NOT_FOUND, "expected /metrics, /healthz or /readyz");
}

/* ---- The loop ---- */

static void on_connection(void *cls, connection *which, void **context,
                          enum MHD_ConnectionNotificationCode what) {
    hr_http *http = cls;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        open_connection *closed = *context;
        if (closed != NULL) closed->fd = -1;
        http->n_open -= closed != NULL;
        return;
    }
    for (size_t i = 0; i < HR_HTTP_MAX_CONNECTIONS; i++) {
        if (http->open[i].fd >= 0) continue;
        http->open[i] = (open_connection){
            .fd = MHD_get_connection_info(which, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
            .since_ns = hr_clock_ns(),
        };
        *context = &http->open[i];
        http->n_open++;
        return;
    }
}

/* The library then finds them closed. */
static void end_old_connections(hr_http *http) {
    const uint64_t now_ns = hr_clock_ns(), max_ns = http->options.max_age_ms * UINT64_C(1000000);
    for (size_t i = 0; i < HR_HTTP_MAX_CONNECTIONS; i++) {
        const open_connection *old = &http->open[i];
        if (old->fd >= 0 && now_ns - old->since_ns > max_ns) shutdown(old->fd, SHUT_RDWR);
    }
}

/* Waits for traffic or the stop, and does what is to be done. True where the stop was asked for. */
static bool turn(hr_http *http) {
    unsigned long long wait_ms = INT_MAX;
    bool is_bounded = MHD_get_timeout(http->daemon, &wait_ms) == MHD_YES;
    if (http->n_open > 0 && (!is_bounded || wait_ms > TICK_MS)) {
        wait_ms = TICK_MS;
        is_bounded = true;
    }
    struct pollfd watched[] = {
        {.fd = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, .events = POLLIN},
        {.fd = http->stop_fd, .events = POLLIN},
    };
    poll(watched, 2, is_bounded ? (int)wait_ms : -1);
    end_old_connections(http);
    /* Once more where a connection ended: past its limit the library listens again only as a run begins. */
    uint32_t n_before;
    do {
        n_before = http->n_open;
        MHD_run(http->daemon);
    } while (http->n_open < n_before);
    return watched[1].revents != 0;
}

static void *serve(void *arg) {
    hr_http *http = arg;
    eventfd_t value;
    while (!turn(http)) continue;
    eventfd_read(http->stop_fd, &value);
    close(MHD_quiesce_daemon(http->daemon)); /* the listening socket is ours now */
    const uint64_t until_ns = hr_clock_ns() + LINGER_NS;
    while (http->n_open > 0 && hr_clock_ns() < until_ns) turn(http);
    return NULL;
}

/* ---- Life ---- */

/* The library's own words, on what its callers did wrong. */
__attribute__((format(printf, 2, 0))) static void on_log(void *cls, const char *format, va_list args) {
    char text[256];
    (void)cls;
    if (!hr_log_enabled(HR_LOG_DEBUG)) return;
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    hr_log(HR_LOG_DEBUG, "http", HR_LOG_STR("said", text));
}

static void destroy(hr_http *http) {
    if (http->daemon != NULL) MHD_stop_daemon(http->daemon);
    if (http->stop_fd >= 0) close(http->stop_fd);
    free(http);
}

/* Takes the listening socket. */
static hr_status start_daemon(hr_http *http, int listen_fd, hr_error *err) {
    http->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (http->stop_fd >= 0)
        http->daemon = MHD_start_daemon(
            MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER,
            on_log, NULL, MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_CONNECTION_LIMIT,
            (unsigned)HR_HTTP_MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_NBYTES,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
    if (http->daemon != NULL) return HR_OK;
    close(listen_fd);
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "http: cannot start the listener");
}

static hr_status start(const hr_http_options *options, hr_http *http, hr_error *err) {
    hr_address address;
    int fd;
    hr_status status = hr_address_parse("http", options->listen, &address, err);
    if (status != HR_OK) return status;
    if (hr_address_listen(&address, &fd, &http->port, err) != HR_OK)
        return hr_error_prefix(err, "http %s", options->listen);
    status = start_daemon(http, fd, err);
    if (status == HR_OK) status = hr_thread_start(&http->thread, "hr-http", serve, http, err);
    return status;
}

hr_status hr_http_start(const hr_http_options *options, hr_http **http, hr_error *err) {
    hr_http *made = calloc(1, sizeof *made);
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "http: no memory");
    made->options = *options;
    made->options.listen = NULL;
    made->stop_fd = -1;
    for (size_t i = 0; i < HR_HTTP_MAX_CONNECTIONS; i++) made->open[i].fd = -1;
    hr_status status = start(options, made, err);
    if (status != HR_OK) {
        destroy(made);
        return status;
    }
    hr_log(HR_LOG_INFO, "serving HTTP", HR_LOG_STR("listen", options->listen),
           HR_LOG_INT("port", made->port));
    *http = made;
    return HR_OK;
}

uint16_t hr_http_port(const hr_http *http) {
    return http->port;
}

void hr_http_stop(hr_http *http) {
    if (http == NULL) return;
    if (eventfd_write(http->stop_fd, 1) != 0) hr_log(HR_LOG_ERROR, "http: cannot be stopped");
    pthread_join(http->thread, NULL);
    destroy(http);
}
