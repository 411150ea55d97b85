/* A gRPC server on the C core: one listener with the Ranker (Rank, RankStream) or with the Admin, and with
 * Health and ServerReflection.
 *
 * N completion queues with one poller thread each. A call's state is freed when its count of pending
 * operations is zero. Nothing blocks a poller: ranking goes to the pipeline, whose worker sends the answer,
 * and what changes the models to the repository, whose thread does.
 */
#ifndef HOMERANK_SERVICE_SERVER_H
#define HOMERANK_SERVICE_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "base/metrics_text.h"
#include "base/status.h"
#include "model/repository.h"
#include "service/exposures/exposures.h"
#include "service/pipeline.h"
#include "service/shadow.h"

typedef struct hr_server hr_server;

typedef struct hr_server_options {
    const char *listen; /* HOST:PORT, port 0 = any free one; borrowed for the call */
    uint32_t n_pollers;
    uint32_t max_message_nbytes; /* of a request; compressed ones are refused */
    uint32_t max_open_calls;     /* unary calls and stream messages in the server together; as many streams */
    uint32_t max_call_nbytes;    /* cap of one call's arena */
    uint64_t max_open_nbytes;    /* decoded requests in the server together */
    uint32_t grace_ms;           /* at shutdown, for accepted calls to finish */
    uint32_t stall_ms;           /* a call whose client takes no answer for as long is cancelled; 0: none */
    hr_exposures *exposures; /* where sent answers' assignments go; borrowed until hr_server_stop; or NULL */
    hr_shadow *shadow;       /* what ranks answered requests once more; closed between hr_server_stop and
                                hr_server_shutdown; or NULL */
} hr_server_options;

/* Binds, starts the pollers and serves. The pipeline is borrowed and must outlive the server.
 * Errors: IO "listen HOST:PORT: ..." (a port in use), INVALID_ARGUMENT (not HOST:PORT), OUT_OF_MEMORY. */
hr_status hr_server_start(const hr_server_options *options, hr_pipeline *pipeline, hr_server **server,
                          hr_error *err);

/* The same with homerank.v1.Admin, over the repository. Its calls are not among the counts below. */
hr_status hr_server_start_admin(const hr_server_options *options, hr_repository *repository,
                                hr_server **server, hr_error *err);

/* The port bound. */
uint16_t hr_server_port(const hr_server *server);

/* Rank requests, unary or messages of a stream. Once the server is idle accepted = answered + cancelled; a
 * refused one was never accepted. */
typedef struct hr_server_counts {
    uint64_t accepted;                       /* handed to the pipeline */
    uint64_t answered;                       /* its answer, or its error, was sent */
    uint64_t cancelled;                      /* the client was gone, or its stream had ended, before that */
    uint64_t refused;                        /* malformed, past a limit, or while shutting down */
    uint64_t refused_by_code[HR_GRPC_CODES]; /* those, by gRPC's number of their status */
    uint32_t n_open;                         /* accepted, and neither answered nor cancelled */
    uint32_t n_streams;                      /* open streams, of every service */
} hr_server_counts;

/* Any thread. */
void hr_server_count(const hr_server *server, hr_server_counts *counts);

/* Prints the counts; a collector (hr_metrics_add) whose arg is the server. */
void hr_server_collect(hr_metrics_text *text, void *server);

/* Graceful shutdown: health NOT_SERVING, no new calls, the accepted ones finish within grace_ms, then the
 * rest is cancelled; returns when no call is left. The server still counts. Once. */
void hr_server_stop(hr_server *server);

/* Stops the server where it was not stopped, ends the pollers and frees it. */
void hr_server_shutdown(hr_server *server);

#endif
