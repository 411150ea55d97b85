/* The blocking client: see client.h. Each call has a queue of its own, so that threads do not meet. */
#include "service/client.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "proto/unpack.h"
#include "service/rpc_log.h"
#include "service/rpc_tsan.h"
#include "service/server_address.h"

struct hr_client {
    grpc_channel *channel;
};

/* What one call receives; all owned. */
typedef struct outcome {
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *answer; /* NULL: none came */
    grpc_status_code code;
    grpc_slice details;
} outcome;

hr_status hr_client_create(const char *target, hr_client **client, hr_error *err) {
    hr_address address;
    hr_status status = hr_address_parse("target", target, &address, err);
    if (status != HR_OK) return status;
    hr_client *made = calloc(1, sizeof *made);
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "client of %s: no memory", target);
    hr_rpc_log_install();
    grpc_init();
    /* An answer is as large as its request asked for; a proxy of the environment is for other traffic. */
    grpc_arg args[] = {
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, .value.integer = -1},
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_HTTP_PROXY, .value.integer = 0},
    };
    const grpc_channel_args all = {.num_args = sizeof args / sizeof args[0], .args = args};
    grpc_channel_credentials *insecure = grpc_insecure_credentials_create();
    made->channel = grpc_channel_create(target, insecure, &all);
    grpc_channel_credentials_release(insecure);
    *client = made;
    return HR_OK;
}

void hr_client_destroy(hr_client *client) {
    if (client == NULL) return;
    grpc_channel_destroy(client->channel);
    grpc_shutdown();
    free(client);
}

static gpr_timespec deadline_in(uint32_t timeout_ms) {
    if (timeout_ms == 0) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

/* Everything of a unary call in one batch, then its one event. False: the core refused the batch. */
static bool run_batch(grpc_call *call, grpc_completion_queue *queue, grpc_byte_buffer *request,
                      outcome *got) {
    grpc_op ops[6];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &got->initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &got->answer;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &got->trailing;
    ops[5].data.recv_status_on_client.status = &got->code;
    ops[5].data.recv_status_on_client.status_details = &got->details;
    HR_RPC_RELEASE(got);
    if (grpc_call_start_batch(call, ops, 6, got, NULL) != GRPC_CALL_OK) return false;
    grpc_completion_queue_pluck(queue, got, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    HR_RPC_ACQUIRE(got);
    return true;
}

static void run_call(hr_client *client, const Homerank__V1__RankRequest *request, uint32_t timeout_ms,
                     outcome *got) {
    grpc_slice bytes = grpc_slice_malloc(protobuf_c_message_get_packed_size(&request->base));
    protobuf_c_message_pack(&request->base, GRPC_SLICE_START_PTR(bytes));
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&bytes, 1);
    grpc_completion_queue *queue = grpc_completion_queue_create_for_pluck(NULL);
    grpc_call *call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                               grpc_slice_from_static_string("/homerank.v1.Ranker/Rank"),
                                               NULL, deadline_in(timeout_ms), NULL);
    if (!run_batch(call, queue, message, got)) {
        got->code = GRPC_STATUS_INTERNAL;
        got->details = grpc_slice_from_static_string("the gRPC core refused the call");
    }
    grpc_call_unref(call);
    grpc_completion_queue_shutdown(queue);
    grpc_completion_queue_pluck(queue, NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL); /* its shutdown */
    grpc_completion_queue_destroy(queue);
    grpc_byte_buffer_destroy(message);
    grpc_slice_unref(bytes);
}

/* The first of our statuses with this gRPC code; INTERNAL for a code of none. */
static hr_status status_of(grpc_status_code code) {
    for (int s = HR_OK; s <= HR_UNAUTHENTICATED; s++)
        if (hr_status_grpc_code((hr_status)s) == (int)code) return (hr_status)s;
    return HR_INTERNAL;
}

/* The server's text as it is where it is printable UTF-8, quoted otherwise. */
static hr_status set_failure(const outcome *got, hr_error *err) {
    const uint8_t *text = GRPC_SLICE_START_PTR(got->details);
    size_t nbytes = GRPC_SLICE_LENGTH(got->details);
    hr_status status = status_of(got->code);
    bool printable = hr_utf8_valid(text, nbytes);
    for (size_t i = 0; i < nbytes; i++) printable = printable && text[i] >= 0x20 && text[i] != 0x7f;
    if (nbytes == 0)
        return hr_error_set(err, status, "the server answered status %d without a text", got->code);
    if (!printable) return hr_error_set(err, status, "%s", hr_quote(text, nbytes).text);
    return hr_error_set(err, status, "%.*s", (int)(nbytes < 4096 ? nbytes : 4096), (const char *)text);
}

static hr_status read_answer(grpc_byte_buffer *answer, hr_arena *arena, Homerank__V1__RankResponse **response,
                             hr_error *err) {
    grpc_byte_buffer_reader reader;
    if (answer == NULL || !grpc_byte_buffer_reader_init(&reader, answer))
        return hr_error_set(err, HR_INTERNAL, "the server answered OK without a RankResponse");
    grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    ProtobufCMessage *message = NULL;
    hr_status status = hr_proto_unpack(&homerank__v1__rank_response__descriptor, GRPC_SLICE_START_PTR(bytes),
                                       GRPC_SLICE_LENGTH(bytes), arena, &message, err);
    grpc_slice_unref(bytes);
    *response = (Homerank__V1__RankResponse *)message;
    if (status == HR_INVALID_ARGUMENT) {
        err->code = HR_INTERNAL;
        status = hr_error_prefix(err, "the server's answer is no RankResponse");
    }
    return status;
}

hr_status hr_client_rank(hr_client *client, const Homerank__V1__RankRequest *request, uint32_t timeout_ms,
                         hr_arena *arena, Homerank__V1__RankResponse **response, hr_error *err) {
    outcome got = {.details = grpc_empty_slice()};
    grpc_metadata_array_init(&got.initial);
    grpc_metadata_array_init(&got.trailing);
    run_call(client, request, timeout_ms, &got);
    hr_status status =
        got.code == GRPC_STATUS_OK ? read_answer(got.answer, arena, response, err) : set_failure(&got, err);
    grpc_byte_buffer_destroy(got.answer);
    grpc_slice_unref(got.details);
    grpc_metadata_array_destroy(&got.trailing);
    grpc_metadata_array_destroy(&got.initial);
    return status;
}
