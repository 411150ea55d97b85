/* Connections and calls: see load_rpc.h. */
#include "service/load_rpc.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <string.h>

#include "service/load_answer.h"
#include "service/rpc_tsan.h"

static gpr_timespec in_ms(int64_t ms) {
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

static grpc_arg int_arg(const char *key, int value) {
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

hr_status hr_load_connection_open(hr_load_connection *connection, const char *target,
                                  grpc_completion_queue *queue, hr_error *err) {
    enum { CONNECT_TIMEOUT_MS = 10000 };
    /* Channels of one target share a connection unless told not to; a proxy of the environment is for other
     * traffic. */
    grpc_arg args[] = {
        int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1),
        int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
    };
    const grpc_channel_args all = {.num_args = sizeof args / sizeof args[0], .args = args};
    grpc_channel_credentials *insecure = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(target, insecure, &all);
    grpc_channel_credentials_release(insecure);
    connection->channel = channel;
    connection->rank = grpc_channel_register_call(channel, "/homerank.v1.Ranker/Rank", NULL, NULL);
    const gpr_timespec until = in_ms(CONNECT_TIMEOUT_MS);
    grpc_connectivity_state state = grpc_channel_check_connectivity_state(channel, 1);
    while (state == GRPC_CHANNEL_IDLE || state == GRPC_CHANNEL_CONNECTING) {
        grpc_channel_watch_connectivity_state(channel, state, until, queue, NULL);
        grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (!event.success) break;
        state = grpc_channel_check_connectivity_state(channel, 1);
    }
    if (state == GRPC_CHANNEL_READY) return HR_OK;
    return hr_error_set(err, HR_UNAVAILABLE, "target %s: cannot connect",
                        hr_quote(target, strlen(target)).text);
}

void hr_load_connection_close(hr_load_connection *connection) {
    if (connection->channel != NULL) grpc_channel_destroy(connection->channel);
    connection->channel = NULL;
}

grpc_call *hr_load_call_open(const hr_load_connection *connection, grpc_completion_queue *queue,
                             uint32_t timeout_ms) {
    gpr_timespec deadline = timeout_ms == 0 ? gpr_inf_future(GPR_CLOCK_MONOTONIC) : in_ms(timeout_ms);
    return grpc_channel_create_registered_call(connection->channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                               connection->rank, deadline, NULL);
}

bool hr_load_call_start(hr_load_call *call, const hr_load_request *request) {
    grpc_slice bytes = grpc_slice_from_static_buffer(request->data, request->nbytes);
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&bytes, 1);
    grpc_metadata_array_init(&call->initial);
    grpc_metadata_array_init(&call->trailing);
    call->answer = NULL;
    call->details = grpc_empty_slice();
    grpc_op ops[6];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = message;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &call->answer;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &call->trailing;
    ops[5].data.recv_status_on_client.status = &call->code;
    ops[5].data.recv_status_on_client.status_details = &call->details;
    grpc_call *core = call->core; /* from here on the call may be over, and used again */
    HR_RPC_RELEASE(call);
    grpc_call_error refused = grpc_call_start_batch(core, ops, 6, call, NULL);
    grpc_byte_buffer_destroy(message);
    return refused == GRPC_CALL_OK;
}

static hr_load_end end_of(grpc_status_code code, bool was_due) {
    switch (code) {
    case GRPC_STATUS_OK: return HR_LOAD_ANSWERED;
    case GRPC_STATUS_RESOURCE_EXHAUSTED:
    case GRPC_STATUS_UNAVAILABLE: return HR_LOAD_REFUSED;
    case GRPC_STATUS_DEADLINE_EXCEEDED: return was_due ? HR_LOAD_LATE : HR_LOAD_REFUSED;
    case GRPC_STATUS_CANCELLED: return HR_LOAD_CANCELLED;
    default: return HR_LOAD_FAILED;
    }
}

/* Reads the answer where it lies; only one that came in pieces is put together first. */
static void read_answer(const grpc_byte_buffer *answer, hr_load_outcome *outcome) {
    const grpc_slice_buffer *pieces = &answer->data.raw.slice_buffer;
    if (pieces->count == 1) {
        hr_load_answer_read(GRPC_SLICE_START_PTR(pieces->slices[0]), GRPC_SLICE_LENGTH(pieces->slices[0]),
                            outcome);
        return;
    }
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, (grpc_byte_buffer *)answer)) return;
    grpc_slice whole = grpc_byte_buffer_reader_readall(&reader);
    hr_load_answer_read(GRPC_SLICE_START_PTR(whole), GRPC_SLICE_LENGTH(whole), outcome);
    grpc_slice_unref(whole);
    grpc_byte_buffer_reader_destroy(&reader);
}

void hr_load_call_read(const hr_load_call *call, bool was_due, hr_load_outcome *outcome) {
    outcome->code = (int)call->code < HR_LOAD_STATUSES ? (int)call->code : (int)GRPC_STATUS_UNKNOWN;
    outcome->end = end_of(call->code, was_due);
    outcome->text = (const char *)GRPC_SLICE_START_PTR(call->details);
    outcome->text_nbytes = GRPC_SLICE_LENGTH(call->details);
    if (outcome->end == HR_LOAD_ANSWERED && call->answer != NULL) read_answer(call->answer, outcome);
}

void hr_load_call_clear(hr_load_call *call) {
    grpc_byte_buffer_destroy(call->answer);
    grpc_slice_unref(call->details);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_metadata_array_destroy(&call->initial);
}
