/* One call on the C core: see rpc_call.h for its life and the thread rule.
 *
 * Events come as (tag, ok). `fire_*` below turn them into the method's callbacks and give back the reference
 * that the event held. RECV_CLOSE_ON_SERVER is a batch of its own, so that a cancel is seen at once. */
#include "service/rpc_call.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "proto/unpack.h"
#include "service/rpc_tsan.h"
#include "service/server_state.h"

static void fire_accept(hr_rpc_tag *tag, bool ok);
static void fire_close(hr_rpc_tag *tag, bool ok);
static void fire_read(hr_rpc_tag *tag, bool ok);
static void fire_send(hr_rpc_tag *tag, bool ok);

static const char *method_name(const hr_rpc_method *method) {
    return method->path == NULL ? "any other" : method->path;
}

static void list_add(hr_server *server, hr_rpc *rpc) {
    pthread_mutex_lock(&server->lock);
    rpc->next = server->calls;
    if (rpc->next != NULL) rpc->next->previous = rpc;
    server->calls = rpc;
    pthread_mutex_unlock(&server->lock);
}

static void list_remove(hr_server *server, hr_rpc *rpc) {
    pthread_mutex_lock(&server->lock);
    if (rpc->previous != NULL) rpc->previous->next = rpc->next;
    if (rpc->next != NULL) rpc->next->previous = rpc->previous;
    if (server->calls == rpc) server->calls = rpc->next;
    if (server->calls == NULL) pthread_cond_signal(&server->idle);
    pthread_mutex_unlock(&server->lock);
}

static void rpc_free(hr_rpc *rpc) {
    hr_server *server = rpc->server;
    bool was_open = rpc->call != NULL;
    if (was_open && rpc->method->release != NULL) rpc->method->release(rpc);
    if (was_open && rpc->method->streaming) atomic_fetch_sub(&server->n_streams, 1);
    if (was_open) grpc_call_unref(rpc->call);
    grpc_byte_buffer_destroy(rpc->payload);
    grpc_byte_buffer_destroy(rpc->incoming);
    grpc_byte_buffer_destroy(rpc->outgoing);
    grpc_metadata_array_destroy(&rpc->metadata);
    grpc_call_details_destroy(&rpc->details);
    list_remove(server, rpc); /* from here on nobody else knows the call, and the server may be gone */
    pthread_mutex_destroy(&rpc->lock);
    free(rpc);
}

void hr_rpc_ref(hr_rpc *rpc) {
    atomic_fetch_add_explicit(&rpc->refs, 1, memory_order_relaxed);
}

void hr_rpc_unref(hr_rpc *rpc) {
    if (atomic_fetch_sub_explicit(&rpc->refs, 1, memory_order_acq_rel) == 1) rpc_free(rpc);
}

static hr_rpc *rpc_create(hr_poller *poller, const hr_rpc_method *method, void *registered) {
    hr_rpc *rpc = calloc(1, method->nbytes);
    if (rpc == NULL) return NULL;
    rpc->server = poller->server;
    rpc->poller = poller;
    rpc->method = method;
    rpc->registered = registered;
    atomic_init(&rpc->refs, 1); /* the accept event's */
    grpc_metadata_array_init(&rpc->metadata);
    grpc_call_details_init(&rpc->details);
    pthread_mutex_init(&rpc->lock, NULL);
    rpc->accept_tag = (hr_rpc_tag){.fire = fire_accept, .owner = rpc};
    rpc->close_tag = (hr_rpc_tag){.fire = fire_close, .owner = rpc};
    rpc->read_tag = (hr_rpc_tag){.fire = fire_read, .owner = rpc};
    rpc->send_tag = (hr_rpc_tag){.fire = fire_send, .owner = rpc};
    return rpc;
}

bool hr_rpc_request(hr_poller *poller, const hr_rpc_method *method, void *registered) {
    hr_server *server = poller->server;
    hr_rpc *rpc = rpc_create(poller, method, registered);
    if (rpc == NULL) {
        hr_log(HR_LOG_ERROR, "out of memory: one call fewer can be accepted at a time",
               HR_LOG_STR("method", method_name(method)));
        return false;
    }
    list_add(server, rpc);
    HR_RPC_RELEASE(&rpc->accept_tag);
    grpc_call_error refused =
        method->path == NULL
            ? grpc_server_request_call(server->core, &rpc->call, &rpc->details, &rpc->metadata, poller->queue,
                                       poller->queue, &rpc->accept_tag)
            : grpc_server_request_registered_call(server->core, registered, &rpc->call, &rpc->deadline,
                                                  &rpc->metadata,
                                                  method->takes_payload ? &rpc->payload : NULL, poller->queue,
                                                  poller->queue, &rpc->accept_tag);
    if (refused == GRPC_CALL_OK) return true;
    hr_log(HR_LOG_ERROR, "the core refused to wait for a call",
           HR_LOG_STR("why", grpc_call_error_to_string(refused)));
    hr_rpc_unref(rpc);
    return false;
}

/* Starts a batch whose event will hold a reference. That the core refuses one is a mistake of ours and brings
 * no event; the call is cancelled, so that the close event ends it. */
static void start_batch(hr_rpc *rpc, const grpc_op *ops, size_t n_ops, hr_rpc_tag *tag) {
    hr_rpc_ref(rpc);
    HR_RPC_RELEASE(tag);
    grpc_call_error refused = grpc_call_start_batch(rpc->call, ops, n_ops, tag, NULL);
    if (refused == GRPC_CALL_OK) return;
    hr_log(HR_LOG_ERROR, "the core refused a batch", HR_LOG_STR("why", grpc_call_error_to_string(refused)),
           HR_LOG_STR("method", method_name(rpc->method)));
    grpc_call_cancel(rpc->call, NULL);
    hr_rpc_unref(rpc); /* never the last: the caller holds one */
}

/* Where the list was empty the poller may be asleep: an empty batch's event comes at once and wakes it. The
 * call is ours to start it on until the end of this, for the poller may have answered it by then. */
void hr_rpc_post(hr_rpc *rpc, void (*run)(hr_rpc *rpc)) {
    hr_poller *poller = rpc->poller;
    if (atomic_exchange(&rpc->is_posted, true)) return;
    rpc->posted = run;
    hr_rpc_ref(rpc); /* the list's */
    hr_rpc_ref(rpc);
    hr_rpc *others = atomic_load(&poller->posted);
    do {
        rpc->next_posted = others;
    } while (!atomic_compare_exchange_weak(&poller->posted, &others, rpc));
    if (others == NULL) {
        HR_RPC_RELEASE(&poller->posted_tag);
        grpc_call_start_batch(rpc->call, NULL, 0, &poller->posted_tag, NULL);
    }
    hr_rpc_unref(rpc);
}

void hr_rpc_run_posted(hr_poller *poller) {
    hr_rpc *newest = atomic_exchange(&poller->posted, NULL), *oldest = NULL;
    while (newest != NULL) {
        hr_rpc *rpc = newest;
        newest = rpc->next_posted;
        rpc->next_posted = oldest;
        oldest = rpc;
    }
    while (oldest != NULL) {
        hr_rpc *rpc = oldest;
        oldest = rpc->next_posted;
        void (*run)(hr_rpc * rpc) = rpc->posted;
        atomic_store(&rpc->is_posted, false);
        run(rpc);
        hr_rpc_unref(rpc);
    }
}

static void watch_close(hr_rpc *rpc) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    op.data.recv_close_on_server.cancelled = &rpc->closed_cancelled;
    start_batch(rpc, &op, 1, &rpc->close_tag);
}

/* Streams are counted from here to the call's end; true where this one is past the limit. */
static bool is_past_stream_limit(hr_rpc *rpc) {
    hr_server *server = rpc->server;
    return atomic_fetch_add(&server->n_streams, 1) >= server->options.max_open_calls;
}

static void start_streaming(hr_rpc *rpc) {
    bool refused = is_past_stream_limit(rpc);
    pthread_mutex_lock(&rpc->lock);
    if (refused) {
        hr_error err;
        hr_error_set(&err, HR_RESOURCE_EXHAUSTED, "%u streams are open already, the most this server takes",
                     rpc->server->options.max_open_calls);
        hr_rpc_end(rpc, NULL, err.code, err.message, NULL);
    } else {
        rpc->method->start(rpc);
        rpc->started = true;
        if (!rpc->ended) rpc->method->advance(rpc);
    }
    pthread_mutex_unlock(&rpc->lock);
}

static void fire_accept(hr_rpc_tag *tag, bool ok) {
    hr_rpc *rpc = tag->owner;
    if (ok) {
        if (!atomic_load(&rpc->server->closing)) hr_rpc_request(rpc->poller, rpc->method, rpc->registered);
        watch_close(rpc);
        if (rpc->method->streaming)
            start_streaming(rpc);
        else
            rpc->method->start(rpc);
    }
    hr_rpc_unref(rpc);
}

static void fire_close(hr_rpc_tag *tag, bool ok) {
    (void)ok; /* the core always gives true here */
    hr_rpc *rpc = tag->owner;
    if (rpc->method->streaming) {
        pthread_mutex_lock(&rpc->lock);
        rpc->cancelled = true;
        if (rpc->started && !rpc->ended) rpc->method->advance(rpc);
        rpc->ended = true;
        pthread_mutex_unlock(&rpc->lock);
    } else if (rpc->closed_cancelled && rpc->method->cancel != NULL) {
        rpc->method->cancel(rpc);
    }
    hr_rpc_unref(rpc);
}

static void enter(hr_rpc *rpc) {
    if (rpc->method->streaming) pthread_mutex_lock(&rpc->lock);
}

/* On with the stream after an event. */
static void leave(hr_rpc *rpc) {
    if (!rpc->method->streaming) return;
    if (rpc->started && !rpc->ended) rpc->method->advance(rpc);
    pthread_mutex_unlock(&rpc->lock);
}

static void fire_read(hr_rpc_tag *tag, bool ok) {
    (void)ok; /* no message says as much */
    hr_rpc *rpc = tag->owner;
    enter(rpc);
    grpc_byte_buffer *message = rpc->incoming;
    rpc->incoming = NULL;
    rpc->reading = false;
    rpc->on_read(rpc, message);
    grpc_byte_buffer_destroy(message);
    leave(rpc);
    hr_rpc_unref(rpc);
}

static void fire_send(hr_rpc_tag *tag, bool ok) {
    hr_rpc *rpc = tag->owner;
    enter(rpc);
    grpc_byte_buffer_destroy(rpc->outgoing);
    rpc->outgoing = NULL;
    rpc->sending = false;
    if (rpc->on_sent != NULL) rpc->on_sent(rpc, ok);
    leave(rpc);
    hr_rpc_unref(rpc);
}

void hr_rpc_advance(hr_rpc *rpc) {
    enter(rpc);
    leave(rpc);
}

/* A call that is not streaming is sent by its poller alone, which this is. */
static bool is_stalled(hr_rpc *rpc, uint64_t before_ns) {
    enter(rpc);
    bool stalled = rpc->sending && rpc->send_begun_ns < before_ns;
    if (rpc->method->streaming) pthread_mutex_unlock(&rpc->lock);
    return stalled;
}

void hr_rpc_cancel_stalled(hr_poller *poller, uint64_t before_ns) {
    hr_server *server = poller->server;
    pthread_mutex_lock(&server->lock);
    for (hr_rpc *rpc = server->calls; rpc != NULL; rpc = rpc->next) {
        if (rpc->poller != poller || !is_stalled(rpc, before_ns)) continue;
        hr_log(HR_LOG_WARN, "a client does not take its answer: call cancelled",
               HR_LOG_STR("method", method_name(rpc->method)));
        grpc_call_cancel_with_status(rpc->call, GRPC_STATUS_CANCELLED, "the answers were not taken", NULL);
    }
    pthread_mutex_unlock(&server->lock);
}

/* Adds what precedes any first message or status. */
static size_t add_metadata_op(hr_rpc *rpc, grpc_op *ops, size_t n_ops) {
    if (rpc->metadata_sent) return n_ops;
    rpc->metadata_sent = true;
    ops[n_ops].op = GRPC_OP_SEND_INITIAL_METADATA;
    return n_ops + 1;
}

static size_t add_message_op(hr_rpc *rpc, grpc_byte_buffer *message, grpc_op *ops, size_t n_ops) {
    if (message == NULL) return n_ops;
    rpc->outgoing = message;
    ops[n_ops].op = GRPC_OP_SEND_MESSAGE;
    ops[n_ops].data.send_message.send_message = message;
    return n_ops + 1;
}

void hr_rpc_send(hr_rpc *rpc, grpc_byte_buffer *message, void (*on_sent)(hr_rpc *rpc, bool ok)) {
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    size_t n_ops = add_metadata_op(rpc, ops, 0);
    n_ops = add_message_op(rpc, message, ops, n_ops);
    rpc->sending = true;
    rpc->send_begun_ns = hr_clock_ns();
    rpc->on_sent = on_sent;
    start_batch(rpc, ops, n_ops, &rpc->send_tag);
}

void hr_rpc_end(hr_rpc *rpc, grpc_byte_buffer *message, hr_status code, const char *text,
                void (*on_sent)(hr_rpc *rpc, bool ok)) {
    grpc_op ops[3];
    memset(ops, 0, sizeof ops);
    size_t n_ops = add_metadata_op(rpc, ops, 0);
    n_ops = add_message_op(rpc, message, ops, n_ops);
    grpc_slice details = grpc_slice_from_copied_string(text);
    ops[n_ops].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[n_ops].data.send_status_from_server.status = (grpc_status_code)hr_status_grpc_code(code);
    ops[n_ops].data.send_status_from_server.status_details = &details;
    n_ops++;
    rpc->sending = true;
    rpc->send_begun_ns = hr_clock_ns();
    rpc->ended = true;
    rpc->on_sent = on_sent;
    start_batch(rpc, ops, n_ops, &rpc->send_tag);
    grpc_slice_unref(details); /* the batch took its own reference */
}

void hr_rpc_read(hr_rpc *rpc, void (*on_read)(hr_rpc *rpc, grpc_byte_buffer *message)) {
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &rpc->incoming;
    rpc->reading = true;
    rpc->on_read = on_read;
    start_batch(rpc, &op, 1, &rpc->read_tag);
}

grpc_byte_buffer *hr_rpc_pack(const ProtobufCMessage *message) {
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice); /* the buffer has its own reference */
    return buffer;
}

hr_status hr_rpc_unpack(const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer,
                        hr_arena *arena, ProtobufCMessage **message, hr_error *err) {
    if (buffer == NULL) return hr_error_set(err, HR_UNIMPLEMENTED, "the call carries no request message");
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    grpc_slice joined = grpc_empty_slice();
    const grpc_slice *bytes = &joined;
    if (slices->count == 1) {
        bytes = &slices->slices[0];
    } else {
        grpc_byte_buffer_reader reader;
        if (!grpc_byte_buffer_reader_init(&reader, buffer))
            return hr_error_set(err, HR_INVALID_ARGUMENT, "the request message cannot be read");
        joined = grpc_byte_buffer_reader_readall(&reader);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    hr_status status = hr_proto_unpack(descriptor, GRPC_SLICE_START_PTR(*bytes), GRPC_SLICE_LENGTH(*bytes),
                                       arena, message, err);
    grpc_slice_unref(joined);
    return status;
}

uint64_t hr_rpc_deadline_ns(const hr_rpc *rpc) {
    static const int64_t FAR_S = 1000000000; /* some 30 years: no deadline */
    gpr_timespec left = gpr_time_sub(rpc->deadline, gpr_now(rpc->deadline.clock_type));
    if (left.tv_sec >= FAR_S) return UINT64_MAX;
    uint64_t now_ns = hr_clock_ns();
    if (left.tv_sec < 0) return now_ns;
    return now_ns + (uint64_t)left.tv_sec * 1000000000u + (uint64_t)left.tv_nsec;
}
