/* The tests' gRPC client: see rpc_peer.h. */
#include "tests/service/rpc_peer.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/rpc_log.h"
#include "service/rpc_tsan.h"

enum { WAIT_S = 60 };

struct peer {
    grpc_channel *channel;
    grpc_completion_queue *queue;
    peer_call *calls; /* open; a list */
};

struct peer_call {
    peer *owner;
    peer_call *previous, *next; /* of the owner's */
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_status_code code;
    grpc_slice details;
    char start_tag, status_tag, step_tag; /* addresses only */
};

static peer *connect_with(uint16_t port, grpc_compression_algorithm compression) {
    peer *p = calloc(1, sizeof *p);
    char target[32];
    snprintf(target, sizeof target, "127.0.0.1:%u", port);
    hr_rpc_log_install();
    grpc_init();
    grpc_arg args[] = {
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, .value.integer = -1},
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_HTTP_PROXY, .value.integer = 0},
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, .value.integer = 1},
        /* windows stay as small as they begin: what is not read is soon not sent */
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_HTTP2_BDP_PROBE, .value.integer = 0},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM,
         .value.integer = (int)compression},
    };
    const grpc_channel_args all = {.num_args = sizeof args / sizeof args[0], .args = args};
    grpc_channel_credentials *insecure = grpc_insecure_credentials_create();
    p->channel = grpc_channel_create(target, insecure, &all);
    grpc_channel_credentials_release(insecure);
    p->queue = grpc_completion_queue_create_for_pluck(NULL);
    return p;
}

peer *peer_connect(uint16_t port) {
    return connect_with(port, GRPC_COMPRESS_NONE);
}

peer *peer_connect_gzip(uint16_t port) {
    return connect_with(port, GRPC_COMPRESS_GZIP);
}

void peer_close(peer *p) {
    while (p->calls != NULL) { /* what a failed test left open */
        peer_cancel(p->calls);
        peer_finish(p->calls, NULL);
    }
    grpc_channel_destroy(p->channel);
    grpc_completion_queue_shutdown(p->queue);
    grpc_completion_queue_pluck(p->queue, NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_completion_queue_destroy(p->queue);
    grpc_shutdown();
    free(p);
}

static bool wait_for(peer *p, void *tag) {
    gpr_timespec until =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(WAIT_S, GPR_TIMESPAN));
    grpc_event event = grpc_completion_queue_pluck(p->queue, tag, until, NULL);
    if (event.type != GRPC_OP_COMPLETE) {
        fprintf(stderr, "a step of a call did not end within %d s\n", WAIT_S);
        abort();
    }
    HR_RPC_ACQUIRE(tag);
    return event.success != 0;
}

static void start(peer_call *call, const grpc_op *ops, size_t n_ops, void *tag) {
    HR_RPC_RELEASE(tag);
    if (grpc_call_start_batch(call->call, ops, n_ops, tag, NULL) != GRPC_CALL_OK) abort();
}

peer_call *peer_open(peer *p, const char *path, uint32_t timeout_ms) {
    peer_call *call = calloc(1, sizeof *call);
    gpr_timespec until = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    if (timeout_ms > 0)
        until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    call->owner = p;
    call->next = p->calls;
    if (call->next != NULL) call->next->previous = call;
    p->calls = call;
    grpc_slice method = grpc_slice_from_copied_string(path);
    call->call = grpc_channel_create_call(p->channel, NULL, GRPC_PROPAGATE_DEFAULTS, p->queue, method, NULL,
                                          until, NULL);
    grpc_slice_unref(method);
    grpc_metadata_array_init(&call->initial);
    grpc_metadata_array_init(&call->trailing);
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
    start(call, ops, 2, &call->start_tag);
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[0].data.recv_status_on_client.trailing_metadata = &call->trailing;
    ops[0].data.recv_status_on_client.status = &call->code;
    ops[0].data.recv_status_on_client.status_details = &call->details;
    start(call, ops, 1, &call->status_tag);
    return call;
}

static bool send_slice(peer_call *call, grpc_slice slice) {
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_SEND_MESSAGE;
    op.data.send_message.send_message = message;
    start(call, &op, 1, &call->step_tag);
    bool ok = wait_for(call->owner, &call->step_tag);
    grpc_byte_buffer_destroy(message);
    return ok;
}

bool peer_send(peer_call *call, const void *bytes, size_t nbytes) {
    return send_slice(call, grpc_slice_from_copied_buffer(bytes, nbytes));
}

bool peer_send_message(peer_call *call, const ProtobufCMessage *message) {
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    return send_slice(call, slice);
}

void peer_half_close(peer_call *call) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    start(call, &op, 1, &call->step_tag);
    wait_for(call->owner, &call->step_tag);
}

void peer_cancel(peer_call *call) {
    grpc_call_cancel(call->call, NULL);
}

void *peer_receive(peer_call *call, const ProtobufCMessageDescriptor *descriptor) {
    grpc_byte_buffer *message = NULL;
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &message;
    start(call, &op, 1, &call->step_tag);
    wait_for(call->owner, &call->step_tag);
    if (message == NULL) return NULL;
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, message)) abort();
    grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(message);
    ProtobufCMessage *unpacked =
        protobuf_c_message_unpack(descriptor, NULL, GRPC_SLICE_LENGTH(bytes), GRPC_SLICE_START_PTR(bytes));
    grpc_slice_unref(bytes);
    if (unpacked == NULL) abort();
    return unpacked;
}

int peer_finish(peer_call *call, char text[512]) {
    wait_for(call->owner, &call->status_tag);
    wait_for(call->owner, &call->start_tag);
    int code = (int)call->code;
    if (text != NULL)
        snprintf(text, 512, "%.*s", (int)GRPC_SLICE_LENGTH(call->details),
                 (const char *)GRPC_SLICE_START_PTR(call->details));
    grpc_slice_unref(call->details);
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_call_unref(call->call);
    if (call->previous != NULL) call->previous->next = call->next;
    if (call->next != NULL) call->next->previous = call->previous;
    if (call->owner->calls == call) call->owner->calls = call->next;
    free(call);
    return code;
}

int peer_unary(peer *p, const char *path, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *descriptor, void **answer, char text[512]) {
    peer_call *call = peer_open(p, path, 0);
    peer_send_message(call, request);
    peer_half_close(call);
    *answer = peer_receive(call, descriptor);
    return peer_finish(call, text);
}
