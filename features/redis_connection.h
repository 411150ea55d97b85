/* One connection to one Redis server: resolve, connect, authenticate, pipeline commands, reconnect.
 *
 * libuv moves the bytes and hiredis' reader parses the replies, whose texts are handed out where they lie in
 * the read buffer: no reply objects are made. (hiredis' own asynchronous context resolves names on the loop's
 * thread, has no timeouts, and allocates twice per record.)
 *
 * Thread rule: everything here runs on the loop's thread, callbacks too; they may send commands but not
 * close. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_CONNECTION_H
#define HOMERANK_FEATURES_REDIS_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/status.h"

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
} hr_redis_server;

typedef enum hr_redis_outcome {
    HR_REDIS_ANSWERED, /* a reply of the expected shape; its elements have been handed out */
    HR_REDIS_REFUSED,  /* an error reply; reason is its text, from outside */
    HR_REDIS_LOST      /* the connection failed; some elements may have been handed out */
} hr_redis_outcome;

typedef struct hr_redis_command_i {
    /* Text number `index` of the reply's array; text is NULL for nil, borrowed during the call. */
    void (*element)(const hr_redis_command *command, size_t index, const char *text, size_t nbytes);
    /* Exactly once per command sent, in the order of sending. reason is NULL where answered. */
    void (*finish)(const hr_redis_command *command, hr_redis_outcome outcome, const char *reason);
} hr_redis_command_i;

enum { HR_REDIS_STATUS_REPLY = -1 };

/* A command's reply is a status, or an array of n_elements texts and nils; any other means that the two ends
 * do not understand each other, and ends the connection. */
struct hr_redis_command {
    const hr_redis_command_i *i;
    void *context;
    size_t first;   /* the sender's own */
    int n_elements; /* or HR_REDIS_STATUS_REPLY */
};

struct redisReply; /* hiredis' */

/* changed: told at every change: ready, or why not (reason is printable).
 * message: NULL; or the connection is a subscriber's: once it is ready, every reply is a message, handed out
 * whole and borrowed during the call, and its commands are committed without a struct. */
typedef struct hr_redis_listener {
    void (*changed)(void *context, bool ready, const char *reason);
    void *context;
    void (*message)(void *context, const struct redisReply *message);
} hr_redis_listener;

/* Connects at once and for ever. NULL when out of memory. */
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

/* To send a command: begin, its parts, commit; then flush once for all commands at hand. A text is head and
 * tail joined. commit queues the command (copied; NULL: a subscriber's), or, on OUT_OF_MEMORY, nothing, and
 * `finish` is not called. */
void hr_redis_begin(hr_redis_connection *connection, size_t n_texts);
void hr_redis_text(hr_redis_connection *connection, const char *head, size_t head_nbytes, const char *tail,
                   size_t tail_nbytes);
hr_status hr_redis_commit(hr_redis_connection *connection, const hr_redis_command *command);
void hr_redis_flush(hr_redis_connection *connection);

#endif
