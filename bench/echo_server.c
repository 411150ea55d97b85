/* The limit of one-item calls: a bare server on the gRPC core that takes Ranker/Rank and answers bytes of a
 * given size, doing nothing else.
 *
 *     echo_server NBYTES [POLLERS]
 *
 * prints "listening PORT" and serves until its stdin ends. One completion queue and thread per poller, slots
 * that are used again, one batch a call: what any server on the core must do at least.
 */
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_SLOTS = 256, MAX_POLLERS = 64, MAX_NBYTES = 16 << 20 };

/* A call that is waited for, or under way. */
typedef struct slot {
    bool answering;
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *payload;
    int cancelled;
} slot;

typedef struct poller {
    grpc_completion_queue *queue;
    pthread_t thread;
    slot slots[N_SLOTS];
} poller;

static grpc_server *server;
static void *rank;
static grpc_slice answer;
static poller pollers[MAX_POLLERS];

static void wait_for_call(poller *p, slot *s) {
    s->answering = false;
    grpc_metadata_array_init(&s->metadata);
    grpc_server_request_registered_call(server, rank, &s->call, &s->deadline, &s->metadata, &s->payload,
                                        p->queue, p->queue, s);
}

static void send_answer(slot *s) {
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&answer, 1);
    grpc_op ops[4];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = message;
    ops[2].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[2].data.send_status_from_server.status = GRPC_STATUS_OK;
    ops[3].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[3].data.recv_close_on_server.cancelled = &s->cancelled;
    s->answering = true;
    grpc_call_start_batch(s->call, ops, 4, s, NULL);
    grpc_byte_buffer_destroy(message);
}

static void *poll_run(void *arg) {
    poller *p = arg;
    for (;;) {
        grpc_event event = grpc_completion_queue_next(p->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN) return NULL;
        slot *s = event.tag;
        if (!s->answering && event.success) {
            send_answer(s);
            continue;
        }
        grpc_byte_buffer_destroy(s->payload);
        s->payload = NULL;
        grpc_metadata_array_destroy(&s->metadata);
        if (s->call != NULL) grpc_call_unref(s->call);
        s->call = NULL;
        if (event.success) wait_for_call(p, s);
    }
}

/* A RankResponse whose request_id fills it up to nbytes, as far as its length's own bytes let it. */
static grpc_slice make_answer(size_t nbytes) {
    size_t n_head = nbytes < 130 ? 2 : nbytes < 16388 ? 3 : 5, n_id = nbytes > n_head ? nbytes - n_head : 0;
    grpc_slice slice = grpc_slice_malloc(n_head + n_id);
    uint8_t *at = GRPC_SLICE_START_PTR(slice);
    memset(at, 'x', n_head + n_id);
    *at++ = 0x0a;
    for (size_t i = 1, left = n_id; i < n_head; i++, left >>= 7)
        *at++ = (uint8_t)((left & 0x7f) | (i + 1 < n_head ? 0x80 : 0));
    return slice;
}

static int serve(size_t nbytes, int n_pollers) {
    grpc_init();
    answer = make_answer(nbytes);
    server = grpc_server_create(NULL, NULL);
    for (int i = 0; i < n_pollers; i++) {
        pollers[i].queue = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server, pollers[i].queue, NULL);
    }
    rank = grpc_server_register_method(server, "/homerank.v1.Ranker/Rank", NULL,
                                       GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    grpc_server_credentials *insecure = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(server, "127.0.0.1:0", insecure);
    grpc_server_credentials_release(insecure);
    if (port <= 0) {
        fprintf(stderr, "echo_server: no port\n");
        return 1;
    }
    grpc_server_start(server);
    for (int i = 0; i < n_pollers; i++) {
        for (int s = 0; s < N_SLOTS; s++) wait_for_call(&pollers[i], &pollers[i].slots[s]);
        pthread_create(&pollers[i].thread, NULL, poll_run, &pollers[i]);
    }
    printf("listening %d\n", port);
    fflush(stdout);
    char ignored[256];
    while (read(STDIN_FILENO, ignored, sizeof ignored) > 0) continue;
    return 0; /* the process's end ends the rest */
}

int main(int argc, char **argv) {
    long nbytes = argc > 1 ? atol(argv[1]) : 0, n_pollers = argc > 2 ? atol(argv[2]) : 1;
    if (argc < 2 || argc > 3 || nbytes < 2 || nbytes > MAX_NBYTES || n_pollers < 1 ||
        n_pollers > MAX_POLLERS) {
        fprintf(stderr, "usage: echo_server NBYTES [POLLERS], found %d arguments\n", argc - 1);
        return 2;
    }
    return serve((size_t)nbytes, (int)n_pollers);
}
