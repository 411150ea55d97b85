/* grpc.health.v1.Health: SERVING for the whole server ("") and for its service until the shutdown begins.
 *
 * Watch sends the status at once and again when it changes; an unknown service is SERVICE_UNKNOWN and the
 * stream stays open. At shutdown NOT_SERVING is sent, then the stream ends with UNAVAILABLE. */
#include <string.h>

#include "proto/health.pb-c.h"
#include "service/server_state.h"

typedef Grpc__Health__V1__HealthCheckRequest health_request;
typedef Grpc__Health__V1__HealthCheckResponse health_response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;

#define UNKNOWN_SERVICE GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

typedef struct health_watch {
    hr_rpc rpc; /* first */
    bool is_known;
    bool is_sent; /* some status was */
    serving_status last;
} health_watch;

/* Reads the payload's service name: *is_known says whether it is one of ours. */
static hr_status read_service(hr_rpc *rpc, bool *is_known, hr_error *err) {
    hr_arena *arena = hr_poller_take_arena(rpc->poller);
    if (arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for one more request");
    ProtobufCMessage *message = NULL;
    hr_status status = hr_rpc_unpack(&grpc__health__v1__health_check_request__descriptor, rpc->payload, arena,
                                     &message, err);
    if (status == HR_OK) {
        const char *name = ((const health_request *)message)->service;
        *is_known = name[0] == '\0' || strcmp(name, rpc->server->service->name) == 0;
    }
    hr_poller_put_arena(rpc->poller, arena);
    return status;
}

static serving_status current_status(const hr_server *server) {
    return hr_server_is_stopping(server)
               ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
               : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
}

static grpc_byte_buffer *pack_status(serving_status status) {
    health_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = status;
    return hr_rpc_pack(&response.base);
}

static void check_start(hr_rpc *rpc) {
    hr_error err;
    bool is_known = false;
    hr_status status = read_service(rpc, &is_known, &err);
    if (status == HR_OK && !is_known)
        status = hr_error_set(&err, HR_NOT_FOUND, "no such service here; known: \"\" and \"%s\"",
                              rpc->server->service->name);
    if (status == HR_OK)
        hr_rpc_end(rpc, pack_status(current_status(rpc->server)), HR_OK, "", NULL);
    else
        hr_rpc_end(rpc, NULL, status, err.message, NULL);
}

const hr_rpc_method hr_health_check_method = {
    .path = "/grpc.health.v1.Health/Check",
    .n_slots = 4,
    .nbytes = sizeof(hr_rpc),
    .takes_payload = true,
    .start = check_start,
};

static void watch_start(hr_rpc *rpc) {
    hr_error err;
    hr_status status = read_service(rpc, &((health_watch *)rpc)->is_known, &err);
    if (status != HR_OK) hr_rpc_end(rpc, NULL, status, err.message, NULL);
}

static void watch_advance(hr_rpc *rpc) {
    health_watch *watch = (health_watch *)rpc;
    if (rpc->cancelled || rpc->sending) return;
    serving_status now = watch->is_known ? current_status(rpc->server) : UNKNOWN_SERVICE;
    if (!watch->is_sent || watch->last != now) {
        watch->is_sent = true;
        watch->last = now;
        hr_rpc_send(rpc, pack_status(now), NULL);
    } else if (hr_server_is_stopping(rpc->server)) {
        hr_rpc_end(rpc, NULL, HR_UNAVAILABLE, HR_RPC_SHUTTING_DOWN, NULL);
    }
}

const hr_rpc_method hr_health_watch_method = {
    .path = "/grpc.health.v1.Health/Watch",
    .n_slots = 4,
    .nbytes = sizeof(health_watch),
    .takes_payload = true,
    .streaming = true,
    .start = watch_start,
    .advance = watch_advance,
};
