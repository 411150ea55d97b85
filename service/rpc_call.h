/* One call on the C core: its state, its pending operations, and the batches it starts.
 *
 * A method is a table (hr_rpc_method); a call of it is a struct whose first member is an hr_rpc. Per poller
 * and method some calls are kept requested ("slots"); one that arrives is replaced at once.
 *
 * Life: `refs` counts the events still to come and the work under way; the call is freed when it is zero. A
 * batch that the core refuses to start brings no event and takes no reference. Thread rule: events run on the
 * poller that owns the call's queue. Other threads post their work to it (an answer) or hold the server's
 * list lock (the shutdown), and touch a streaming call's state under `lock`.
 */
#ifndef HOMERANK_SERVICE_RPC_CALL_H
#define HOMERANK_SERVICE_RPC_CALL_H

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/status.h"
#include "service/server.h"

typedef struct hr_poller hr_poller;
typedef struct hr_rpc hr_rpc;

/* What a completion queue's event carries. */
typedef struct hr_rpc_tag hr_rpc_tag;
struct hr_rpc_tag {
    void (*fire)(hr_rpc_tag *tag, bool ok);
    void *owner; /* an hr_rpc, or the server for its shutdown */
};

typedef struct hr_rpc_method {
    const char *path;        /* "/package.Service/Method"; NULL: whatever has no entry of its own */
    uint32_t n_slots;        /* per poller, >= 1 */
    size_t nbytes;           /* of a call's struct, zeroed when made */
    bool takes_payload;      /* one request message, delivered with the call */
    bool streaming;          /* long-lived: counted against the limit of open streams, ended at shutdown */
    void (*start)(hr_rpc *); /* a call has come; on the poller. A streaming one: with lock held */
    /* (streaming only) lock held: do what can be done next, seeing cancelled and the server's stopping.
     * Called after start, after every event of the call, at its cancel and at shutdown; not once `ended`. */
    void (*advance)(hr_rpc *);
    void (*cancel)(hr_rpc *);  /* (optional, not streaming) the client is gone or the deadline passed */
    void (*release)(hr_rpc *); /* (optional) before the call is freed */
} hr_rpc_method;

struct hr_rpc {
    hr_server *server;           /* borrowed */
    hr_poller *poller;           /* borrowed; its queue carries the call's events */
    const hr_rpc_method *method; /* static */
    void *registered;            /* the core's handle of the method; NULL for the catch-all */
    atomic_uint refs;

    grpc_call *call; /* owned; NULL until one has come */
    gpr_timespec deadline;
    grpc_metadata_array metadata; /* the client's initial metadata; owned */
    grpc_call_details details;    /* of the catch-all method; owned */
    grpc_byte_buffer *payload;    /* owned; NULL: none was sent, or taken already */
    int closed_cancelled;         /* written by the core until the close event */
    bool metadata_sent;

    hr_rpc_tag accept_tag, close_tag, read_tag, send_tag;
    grpc_byte_buffer *outgoing; /* owned, while sending */
    grpc_byte_buffer *incoming; /* owned, written by the core while reading */
    uint64_t send_begun_ns;     /* hr_clock_ns; of what is being sent */
    void (*on_sent)(hr_rpc *rpc, bool ok);
    void (*on_read)(hr_rpc *rpc, grpc_byte_buffer *message);

    pthread_mutex_t lock; /* guards the rest for streaming calls */
    bool started;
    bool reading, sending; /* a read, a message or the final status is in flight */
    bool ended;            /* the final status is sent or cannot be */
    bool cancelled;        /* the client is gone or the deadline passed */

    atomic_bool is_posted;
    void (*posted)(hr_rpc *rpc); /* what hr_rpc_post was asked to run */
    hr_rpc *next_posted;         /* in the poller's list of those */

    hr_rpc *previous, *next; /* in the server's list of all that are requested or open; its lock */
};

/* Makes a call and requests it from the core. False, having logged it, where memory is short. */
bool hr_rpc_request(hr_poller *poller, const hr_rpc_method *method, void *registered);

void hr_rpc_ref(hr_rpc *rpc);
void hr_rpc_unref(hr_rpc *rpc);

/* Lets the call's poller run(rpc), soon, and once for all that is posted until then: the same run always. For
 * threads that have made an answer, and hold a reference: if they sent it themselves they would fight over
 * the connection with the poller that reads from it; and a poller is woken once for all that has come. */
void hr_rpc_post(hr_rpc *rpc, void (*run)(hr_rpc *rpc));

/* What was posted to the poller; its own thread. */
void hr_rpc_run_posted(hr_poller *poller);

/* Cancels the poller's calls whose client has not taken what is being sent since before_ns: their places are
 * for those that read. The poller's own thread. */
void hr_rpc_cancel_stalled(hr_poller *poller, uint64_t before_ns);

/* Runs method->advance under the lock where it may run. For threads that hold a reference or the list lock.
 */
void hr_rpc_advance(hr_rpc *rpc);

/* The three below start a batch; a streaming call's caller holds the lock, and its callback runs with it
 * held. Callbacks run on the poller. Where the core refuses the batch, the call is cancelled and no callback
 * comes. */

/* Sends one message, which becomes the call's. At most one send or end at a time (`sending`). on_sent may be
 * NULL; ok is false where it could not be written. */
void hr_rpc_send(hr_rpc *rpc, grpc_byte_buffer *message, void (*on_sent)(hr_rpc *rpc, bool ok));

/* Sends the final status, after message where one is given, and sets `ended`. Otherwise as hr_rpc_send. */
void hr_rpc_end(hr_rpc *rpc, grpc_byte_buffer *message, hr_status code, const char *text,
                void (*on_sent)(hr_rpc *rpc, bool ok));

/* Reads the next message; on_read gets it, borrowed for the call, or NULL: the client sends no more. */
void hr_rpc_read(hr_rpc *rpc, void (*on_read)(hr_rpc *rpc, grpc_byte_buffer *message));

/* The message packed into a byte buffer of one slice; never NULL. */
grpc_byte_buffer *hr_rpc_pack(const ProtobufCMessage *message);

/* Checks and unpacks a received message; buffer NULL (no message came) is UNIMPLEMENTED, as gRPC wants it. */
hr_status hr_rpc_unpack(const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer,
                        hr_arena *arena, ProtobufCMessage **message, hr_error *err);

/* The call's deadline on hr_clock_ns's clock; UINT64_MAX: none. */
uint64_t hr_rpc_deadline_ns(const hr_rpc *rpc);

#define HR_RPC_SHUTTING_DOWN "the server is shutting down"

#endif
