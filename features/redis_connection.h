/* One connection to one Redis server: resolve, connect, authenticate, pipeline commands, reconnect.
 *
 * libuv moves the bytes; a reader (redis_reader.h) hands the replies' texts out where they lie in the read
 * buffer: no reply objects are made, but for replies of any shape and published messages (redis_value.h).
 *
 * Thread rule: everything here runs on the loop's thread, callbacks too. `finish`, `changed` and `message`
 * may send commands and close connections, this one too. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_CONNECTION_H
#define HOMERANK_FEATURES_REDIS_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/status.h"
#include "features/redis_value.h"

typedef struct hr_redis_connection hr_redis_connection;
typedef struct hr_redis_command hr_redis_command;

/* Where to connect, and as whom; texts are borrowed for the connection's life. */
typedef struct hr_redis_server {
    const char *host;
    uint16_t port;
    uint32_t db;
    const char *user;            /* "": none */
    const char *password;        /* "": none */
    uint32_t connect_timeout_ms; /* name to first answered PING */
    uint32_t stall_timeout_ms;   /* commands wait and not a byte comes: the connection is given up */
    bool readonly;               /* of a cluster: READONLY, so that a replica answers reads */
} hr_redis_server;

typedef enum hr_redis_outcome {
    HR_REDIS_ANSWERED, /* a reply of the expected shape; its texts have been handed out */
    HR_REDIS_REFUSED,  /* an error reply; reason is its text, from outside, cut at HR_REDIS_LINE_SIZE */
    HR_REDIS_LOST      /* the connection failed; some texts may have been handed out */
} hr_redis_outcome;

/* Borrowed during the call. */
typedef struct hr_redis_result {
    hr_redis_outcome outcome;
    const char *reason;          /* NULL where answered */
    const hr_redis_value *value; /* HR_REDIS_ANY_REPLY, answered: the reply; else NULL */
} hr_redis_result;

typedef struct hr_redis_command_i {
    /* A piece of text number `index` of the reply's array (0 where it is a text alone). Nils are not told:
     * what has not come when the command is answered is nil. May not send or close. */
    void (*text)(const hr_redis_command *command, size_t index, const hr_redis_piece *piece);
    /* Exactly once per command sent, in the order of sending. */
    void (*finish)(const hr_redis_command *command, const hr_redis_result *result);
} hr_redis_command_i;

/* What a command's reply is: an array of n_elements texts and nils, or one of these. Any other means that the
 * two ends do not understand each other, and ends the connection. */
enum {
    HR_REDIS_STATUS_REPLY = -1,
    HR_REDIS_TEXT_REPLY = -2, /* a text or nil */
    HR_REDIS_ANY_REPLY = -3   /* handed to `finish` as a value */
};
enum { HR_REDIS_MAX_VALUE_NBYTES = 64 << 20 }; /* the memory of such a value, or of a message */

struct hr_redis_command {
    const hr_redis_command_i *i;
    void *context;
    size_t first;   /* the sender's own */
    int n_elements; /* or one of the above */
};

/* changed: told at every change: ready, or why not (reason is printable).
 * message: NULL; or the connection is a subscriber's: once it is ready, every reply is a message, handed out
 * whole and borrowed during the call, and its commands are committed without a struct. */
typedef struct hr_redis_listener {
    void (*changed)(void *context, bool ready, const char *reason);
    void *context;
    void (*message)(void *context, const hr_redis_value *message);
} hr_redis_listener;

/* Connects at once and for ever; the listener is not called before it returns. NULL when out of memory. */
hr_redis_connection *hr_redis_connection_create(uv_loop_t *loop, const hr_redis_server *server,
                                                hr_redis_listener listener);

/* Finishes its commands as LOST and closes; the memory is freed by the loop, which must run on until its
 * handles are closed. The listener is not called any more. NULL is allowed. */
void hr_redis_connection_close(hr_redis_connection *connection);

/* Gives a connection up that only its user knows to be dead: it is made anew, after the backoff. A no-op
 * where it is down. */
void hr_redis_connection_give_up(hr_redis_connection *connection, const char *reason);

/* Ready; or making its very first attempt, when commands wait for how that ends. */
bool hr_redis_connection_accepts(const hr_redis_connection *connection);
bool hr_redis_connection_is_ready(const hr_redis_connection *connection);

/* Why it is not ready; "" where it is not known (yet). */
const char *hr_redis_connection_reason(const hr_redis_connection *connection);

size_t hr_redis_connection_n_unanswered(const hr_redis_connection *connection);
size_t hr_redis_connection_unsent_nbytes(const hr_redis_connection *connection);
uint64_t hr_redis_connection_read_nbytes(const hr_redis_connection *connection); /* ever */

/* To send a command: begin, its parts, commit; then flush once for all commands at hand. A text is head and
 * tail joined. commit queues the command (copied; NULL: a subscriber's), or, on OUT_OF_MEMORY, nothing, and
 * `finish` is not called. */
void hr_redis_begin(hr_redis_connection *connection, size_t n_texts);
void hr_redis_text(hr_redis_connection *connection, const char *head, size_t head_nbytes, const char *tail,
                   size_t tail_nbytes);
hr_status hr_redis_commit(hr_redis_connection *connection, const hr_redis_command *command);
void hr_redis_flush(hr_redis_connection *connection);

#endif
