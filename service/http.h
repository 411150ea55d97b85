/* The HTTP listener for those who watch the server: /metrics (Prometheus' text), /healthz (the process
 * lives), /readyz (it may be sent calls). GET and HEAD only, one request a connection.
 *
 * One thread of its own. Its callers are not trusted: at most HR_HTTP_MAX_CONNECTIONS, each ended max_age_ms
 * after it came, whatever it is doing; what is not HTTP, or asks for too much, is refused by libmicrohttpd.
 */
#ifndef HOMERANK_SERVICE_HTTP_H
#define HOMERANK_SERVICE_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/metrics.h"
#include "base/status.h"

enum { HR_HTTP_MAX_CONNECTIONS = 32, HR_HTTP_WORDS_SIZE = 1024 };

typedef struct hr_http hr_http;

typedef struct hr_http_options {
    const char *listen;  /* HOST:PORT, port 0 = any free one; borrowed for the call */
    uint32_t max_age_ms; /* of a connection */
    hr_metrics *metrics; /* borrowed until the stop */
    /* Whether calls may be sent, and the words that /readyz says of it: a line or more. On the HTTP thread.
     */
    bool (*ready)(void *arg, char words[HR_HTTP_WORDS_SIZE]);
    void *arg;
} hr_http_options;

/* Errors: IO "http HOST:PORT: ...", INVALID_ARGUMENT (not HOST:PORT), OUT_OF_MEMORY, RESOURCE_EXHAUSTED. */
hr_status hr_http_start(const hr_http_options *options, hr_http **http, hr_error *err);

/* The port bound. */
uint16_t hr_http_port(const hr_http *http);

/* Takes no more connections, gives those at hand a second to finish, and frees it. NULL is allowed. */
void hr_http_stop(hr_http *http);

#endif
