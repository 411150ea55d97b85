/* The load generator's connections and calls on the gRPC core. Inside the load generator only. */
#ifndef HOMERANK_SERVICE_LOAD_RPC_H
#define HOMERANK_SERVICE_LOAD_RPC_H

#include <grpc/grpc.h>
#include <stdbool.h>
#include <stdint.h>

#include "service/load_requests.h"
#include "service/load_stats.h"

typedef struct hr_load_connection {
    grpc_channel *channel;
    void *rank; /* the channel's handle of Ranker/Rank */
} hr_load_connection;

/* A TCP connection of its own, ready when this returns; waits on the queue, which nobody else may do
 * meanwhile. On failure it is still to be closed. Errors: UNAVAILABLE. */
hr_status hr_load_connection_open(hr_load_connection *connection, const char *target,
                                  grpc_completion_queue *queue, hr_error *err);
void hr_load_connection_close(hr_load_connection *connection); /* never opened is allowed */

/* A call and what it receives: used by one thread at a time, between start and clear the core's. */
typedef struct hr_load_call {
    struct hr_load_call *next, *older; /* the user's lists */
    grpc_call *core;                   /* owned; NULL: not in use */
    uint64_t intended_ns, sent_ns;     /* hr_clock_ns; the user's */
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *answer;
    grpc_status_code code;
    grpc_slice details;
} hr_load_call;

/* The core's call, not yet started, for call->core. timeout_ms 0: no deadline. */
grpc_call *hr_load_call_open(const hr_load_connection *connection, grpc_completion_queue *queue,
                             uint32_t timeout_ms);

/* Sends the request; the queue's one event of it has the call as its tag. False: there will be none. */
bool hr_load_call_start(hr_load_call *call, const hr_load_request *request);

/* What became of it, but for the times. was_due: its deadline had come. */
void hr_load_call_read(const hr_load_call *call, bool was_due, hr_load_outcome *outcome);

/* Frees what came; call->core is left to the user. */
void hr_load_call_clear(hr_load_call *call);

#endif
