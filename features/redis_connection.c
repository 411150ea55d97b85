/* One connection to one Redis server: see redis_connection.h.
 *
 *            create                                                   answers to the handshake
 *   DOWN ----------------> RESOLVING --> CONNECTING --> HANDSHAKE --------------------------> READY
 *    ^  backoff is over        |              |             |                                   |
 *    +-------------------------+--------------+-------------+-----------------------------------+
 *                 fail(): anything goes wrong; every command unanswered is LOST
 *
 * One timer serves all states: the connect timeout, the look for a stall (READY), the backoff (DOWN).
 * Bytes to send gather in `out`; a write takes all of it and the next one waits until that is done, so that
 * the commands of many fetches leave in one system call.
 */
#include "features/redis_connection.h"

#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "features/redis_auth.h"

enum {
    READ_NBYTES = 256 << 10,
    READER_KEEP_NBYTES = 1 << 20, /* the reader frees an empty buffer larger than this */
    MAX_REPLY_NBYTES = 640 << 20, /* unparsed; a Redis value has at most 512 MB */
    MAX_MESSAGE_ELEMENTS = 4 << 20,
    FIRST_BACKOFF_MS = 20,
    MAX_BACKOFF_MS = 1000,
    STEADY_NS = 1000000000, /* ready for so long, a connection has proved itself */
    KEEPALIVE_S = 15,
    REASON_SIZE = 160
};

typedef enum state { DOWN, RESOLVING, CONNECTING, HANDSHAKE, READY } state;

typedef struct buffer {
    char *data;
    size_t nbytes, capacity;
} buffer;

/* What the reader has seen of the reply it is in. */
typedef struct reply {
    bool is_error;
    char text[REASON_SIZE];     /* the error's */
    char mismatch[REASON_SIZE]; /* not empty: the reply is not what was asked for */
} reply;

struct hr_redis_connection {
    uv_loop_t *loop;
    hr_redis_server server;
    hr_redis_listener listener;
    state state;
    bool closing, failed_once;
    bool resolving, tcp_open, writing; /* under way in the loop: resolve, tcp, write */
    bool out_of_memory;                /* while the command from mark on was built */
    bool waited_before;                /* commands were unanswered at the last look for a stall */
    uint32_t backoff_ms;
    char reason[REASON_SIZE];
    reply reply;

    uv_timer_t timer;
    uint64_t jitter; /* xorshift state */
    uint64_t ready_since_ns;
    uint64_t n_read, n_read_before; /* bytes ever read; the same at the last look for a stall */

    uv_getaddrinfo_t resolve;
    struct addrinfo *addresses, *next_address; /* owned list, and the one to try if this one fails */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;

    buffer out, sending; /* gathered; being written */
    size_t mark;         /* where the command being built begins in out */

    hr_redis_command *fifo; /* ring of capacity fifo_capacity, a power of two */
    size_t fifo_head, fifo_count, fifo_capacity;

    redisReader *reader;
    redisReplyObjectFunctions *plain; /* hiredis' own, which build a message; static */
    char *read_buffer;                /* READ_NBYTES */
};

static void on_timer(uv_timer_t *timer);
static void fail(hr_redis_connection *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- bytes and commands to send ------------------------------------------------------------------------- */

static void out_append(hr_redis_connection *c, const void *bytes, size_t nbytes) {
    buffer *b = &c->out;
    if (nbytes > b->capacity - b->nbytes) {
        size_t capacity = (b->nbytes + nbytes) * 2 + 4096;
        char *grown = realloc(b->data, capacity);
        if (grown == NULL) {
            c->out_of_memory = true;
            return;
        }
        b->data = grown;
        b->capacity = capacity;
    }
    memcpy(b->data + b->nbytes, bytes, nbytes);
    b->nbytes += nbytes;
}

static void out_append_length(hr_redis_connection *c, char type, size_t n) {
    char text[24];
    char *at = text + sizeof text;
    *--at = '\n';
    *--at = '\r';
    do *--at = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    *--at = type;
    out_append(c, at, (size_t)(text + sizeof text - at));
}

void hr_redis_begin(hr_redis_connection *c, size_t n_texts) {
    c->mark = c->out.nbytes;
    c->out_of_memory = false;
    out_append_length(c, '*', n_texts);
}

void hr_redis_text(hr_redis_connection *c, const char *head, size_t head_nbytes, const char *tail,
                   size_t tail_nbytes) {
    out_append_length(c, '$', head_nbytes + tail_nbytes);
    out_append(c, head, head_nbytes);
    if (tail_nbytes > 0) out_append(c, tail, tail_nbytes);
    out_append(c, "\r\n", 2);
}

static bool fifo_reserve(hr_redis_connection *c) {
    if (c->fifo_count < c->fifo_capacity) return true;
    size_t capacity = c->fifo_capacity == 0 ? 64 : c->fifo_capacity * 2;
    hr_redis_command *grown = malloc(capacity * sizeof *grown);
    if (grown == NULL) return false;
    for (size_t i = 0; i < c->fifo_count; i++)
        grown[i] = c->fifo[(c->fifo_head + i) & (c->fifo_capacity - 1)];
    free(c->fifo);
    c->fifo = grown;
    c->fifo_capacity = capacity;
    c->fifo_head = 0;
    return true;
}

static hr_redis_command fifo_pop(hr_redis_connection *c) {
    hr_redis_command command = c->fifo[c->fifo_head];
    c->fifo_head = (c->fifo_head + 1) & (c->fifo_capacity - 1);
    c->fifo_count--;
    return command;
}

hr_status hr_redis_commit(hr_redis_connection *c, const hr_redis_command *command) {
    if (c->out_of_memory || (command != NULL && !fifo_reserve(c))) {
        c->out.nbytes = c->mark;
        return HR_OUT_OF_MEMORY;
    }
    if (command != NULL) c->fifo[(c->fifo_head + c->fifo_count++) & (c->fifo_capacity - 1)] = *command;
    return HR_OK;
}

static void on_written(uv_write_t *request, int rc) {
    hr_redis_connection *c = request->data;
    c->writing = false;
    if (c->state == DOWN) return;
    if (rc < 0) {
        fail(c, "cannot send: %s", uv_strerror(rc));
        return;
    }
    hr_redis_flush(c);
}

void hr_redis_flush(hr_redis_connection *c) {
    if (c->writing || c->out.nbytes == 0 || c->state < HANDSHAKE) return;
    buffer full = c->out;
    c->out = c->sending;
    c->out.nbytes = 0;
    c->sending = full;
    uv_buf_t bytes = {.base = full.data, .len = full.nbytes};
    c->writing = true;
    int rc = uv_write(&c->write, (uv_stream_t *)&c->tcp, &bytes, 1, on_written);
    if (rc < 0) {
        c->writing = false;
        fail(c, "cannot send: %s", uv_strerror(rc));
    }
}

/* --- replies -------------------------------------------------------------------------------------------- */

/* hiredis' reader builds replies through these functions. They hand texts on and build nothing: an object is
 * just "not NULL", and NULL makes the reader stop with an error. Messages alone are built, as hiredis does.
 */
static char an_object;

static bool is_message(const hr_redis_connection *c) {
    return c->listener.message != NULL && c->state == READY;
}

static void *mismatch(hr_redis_connection *c, const char *found) {
    if (c->reply.mismatch[0] != '\0') return NULL;
    const hr_redis_command *command = c->fifo_count > 0 ? &c->fifo[c->fifo_head] : NULL;
    char expected[48] = "no reply";
    if (command != NULL && command->n_elements == HR_REDIS_STATUS_REPLY) strcpy(expected, "a status");
    if (command != NULL && command->n_elements >= 0)
        snprintf(expected, sizeof expected, "an array of %d texts", command->n_elements);
    snprintf(c->reply.mismatch, sizeof c->reply.mismatch, "expected %s, found %s", expected, found);
    return NULL;
}

static void *on_element(hr_redis_connection *c, const redisReadTask *task, const char *text, size_t nbytes) {
    const hr_redis_command *command = &c->fifo[c->fifo_head]; /* on_array has checked that there is one */
    command->i->element(command, (size_t)task->idx, text, nbytes);
    return &an_object;
}

static void *on_text(const redisReadTask *task, char *text, size_t nbytes) {
    hr_redis_connection *c = task->privdata;
    if (is_message(c)) return c->plain->createString(task, text, nbytes);
    if (task->parent != NULL)
        return task->type == REDIS_REPLY_STRING ? on_element(c, task, text, nbytes)
                                                : mismatch(c, "a status or error in an array");
    if (c->fifo_count == 0) return mismatch(c, hr_quote(text, nbytes).text);
    if (task->type == REDIS_REPLY_ERROR) {
        c->reply.is_error = true;
        size_t n = nbytes < sizeof c->reply.text - 1 ? nbytes : sizeof c->reply.text - 1;
        memcpy(c->reply.text, text, n);
        c->reply.text[n] = '\0';
        return &an_object;
    }
    if (task->type == REDIS_REPLY_STATUS && c->fifo[c->fifo_head].n_elements == HR_REDIS_STATUS_REPLY)
        return &an_object;
    return mismatch(c, hr_quote(text, nbytes).text);
}

static void *on_array(const redisReadTask *task, int n_elements) {
    hr_redis_connection *c = task->privdata;
    if (is_message(c) && n_elements <= MAX_MESSAGE_ELEMENTS) return c->plain->createArray(task, n_elements);
    if (task->parent == NULL && c->fifo_count > 0 && c->fifo[c->fifo_head].n_elements == n_elements)
        return &an_object;
    char found[48];
    snprintf(found, sizeof found, task->parent == NULL ? "an array of %d" : "an array of %d in an array",
             n_elements);
    return mismatch(c, found);
}

static void *on_integer(const redisReadTask *task, long long value) {
    hr_redis_connection *c = task->privdata;
    return is_message(c) ? c->plain->createInteger(task, value) : mismatch(c, "an integer");
}

static void *on_nil(const redisReadTask *task) {
    hr_redis_connection *c = task->privdata;
    if (is_message(c)) return c->plain->createNil(task);
    return task->parent != NULL ? on_element(c, task, NULL, 0) : mismatch(c, "nil");
}

static void on_free(void *object) {
    if (object != &an_object) freeReplyObject(object);
}

static redisReplyObjectFunctions reply_functions = {on_text, on_array, on_integer, on_nil, on_free};

/* Parses what has come; finishes every command whose reply is complete, and hands out every message. */
static void parse_replies(hr_redis_connection *c) {
    while (c->state >= HANDSHAKE) {
        void *object = NULL;
        if (redisReaderGetReply(c->reader, &object) != REDIS_OK) {
            fail(c, "not a valid reply: %s",
                 c->reply.mismatch[0] != '\0' ? c->reply.mismatch : c->reader->errstr);
            return;
        }
        if (object == NULL) {
            if (c->reader->len - c->reader->pos > MAX_REPLY_NBYTES)
                fail(c, "a value is larger than Redis allows");
            return;
        }
        if (object != &an_object) {
            c->listener.message(c->listener.context, object);
            freeReplyObject(object);
            continue;
        }
        bool is_error = c->reply.is_error;
        c->reply.is_error = false;
        hr_redis_command command = fifo_pop(c);
        command.i->finish(&command, is_error ? HR_REDIS_REFUSED : HR_REDIS_ANSWERED,
                          is_error ? c->reply.text : NULL);
    }
}

static void on_read_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *bytes) {
    (void)suggested;
    hr_redis_connection *c = handle->data;
    *bytes = uv_buf_init(c->read_buffer, READ_NBYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes) {
    hr_redis_connection *c = stream->data;
    if (c->state < HANDSHAKE || n == 0) return;
    if (n < 0) {
        fail(c, "%s", n == UV_EOF ? "the server closed the connection" : uv_strerror((int)n));
        return;
    }
    c->n_read += (uint64_t)n;
    if (redisReaderFeed(c->reader, bytes->base, (size_t)n) != REDIS_OK) {
        fail(c, "%s", c->reader->errstr);
        return;
    }
    parse_replies(c);
}

/* --- handshake ------------------------------------------------------------------------------------------ */

enum { AUTH, SELECT, PING };

static void handshake_finish(const hr_redis_command *command, hr_redis_outcome outcome, const char *reason) {
    static const char *const names[] = {"AUTH", "SELECT", "PING"};
    hr_redis_connection *c = command->context;
    if (outcome == HR_REDIS_LOST) return;
    if (outcome == HR_REDIS_REFUSED) {
        size_t n = strlen(reason);
        hr_quoted shown = command->first == AUTH ? hr_redis_auth_refusal(reason, n) : hr_quote(reason, n);
        fail(c, "%s refused: %s", names[command->first], shown.text);
        return;
    }
    if (command->first != PING) return;
    c->state = READY;
    c->reason[0] = '\0';
    c->ready_since_ns = hr_clock_ns();
    c->n_read_before = c->n_read;
    c->waited_before = false;
    uint32_t tick_ms = c->server.stall_timeout_ms;
    uv_timer_start(&c->timer, on_timer, tick_ms, tick_ms);
    c->listener.changed(c->listener.context, true, "");
}

static const hr_redis_command_i handshake_i = {.element = NULL, .finish = handshake_finish};

static void put(hr_redis_connection *c, const char *text) {
    hr_redis_text(c, text, strlen(text), NULL, 0);
}

static hr_status commit_handshake(hr_redis_connection *c, size_t step) {
    const hr_redis_command command = {&handshake_i, c, step, HR_REDIS_STATUS_REPLY};
    return hr_redis_commit(c, &command);
}

/* First in `out` and in the fifo: commands that came while this attempt was made follow. PING tells a server
 * that is there from one that merely accepts connections, or is still loading. */
static hr_status put_handshake(hr_redis_connection *c) {
    hr_status status = HR_OK;
    if (c->server.password[0] != '\0') {
        bool user = c->server.user[0] != '\0';
        hr_redis_begin(c, user ? 3 : 2);
        put(c, "AUTH");
        if (user) put(c, c->server.user);
        put(c, c->server.password);
        status = commit_handshake(c, AUTH);
    }
    if (status == HR_OK && c->server.db != 0) {
        char db[16];
        snprintf(db, sizeof db, "%u", c->server.db);
        hr_redis_begin(c, 2);
        put(c, "SELECT");
        put(c, db);
        status = commit_handshake(c, SELECT);
    }
    if (status == HR_OK) {
        hr_redis_begin(c, 1);
        put(c, "PING");
        status = commit_handshake(c, PING);
    }
    return status;
}

/* --- the way up ------------------------------------------------------------------------------------------
 */

static void connect_next(hr_redis_connection *c);
static void settle(hr_redis_connection *c);

static void on_tcp_closed(uv_handle_t *handle) {
    hr_redis_connection *c = handle->data;
    c->tcp_open = false;
    if (c->state == CONNECTING)
        connect_next(c);
    else
        settle(c);
}

static void address_failed(hr_redis_connection *c, int rc) {
    if (c->next_address != NULL && c->tcp_open)
        uv_close((uv_handle_t *)&c->tcp, on_tcp_closed);
    else
        fail(c, "cannot connect: %s", uv_strerror(rc));
}

static void on_connected(uv_connect_t *request, int rc) {
    hr_redis_connection *c = request->data;
    if (c->state != CONNECTING) return;
    if (rc == 0) rc = uv_read_start((uv_stream_t *)&c->tcp, on_read_alloc, on_read);
    if (rc < 0) {
        address_failed(c, rc);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, KEEPALIVE_S);
    c->state = HANDSHAKE;
    hr_redis_flush(c);
}

static void connect_to(hr_redis_connection *c, const struct sockaddr *address) {
    int rc = uv_tcp_init(c->loop, &c->tcp);
    c->tcp_open = rc == 0;
    if (rc == 0) rc = uv_tcp_connect(&c->connect, &c->tcp, address, on_connected);
    if (rc < 0) address_failed(c, rc);
}

static void connect_next(hr_redis_connection *c) {
    const struct addrinfo *address = c->next_address;
    c->next_address = address->ai_next;
    connect_to(c, address->ai_addr);
}

static void on_resolved(uv_getaddrinfo_t *request, int rc, struct addrinfo *addresses) {
    hr_redis_connection *c = request->data;
    c->resolving = false;
    c->addresses = addresses;
    if (c->state != RESOLVING) {
        settle(c);
    } else if (rc < 0 || addresses == NULL) {
        fail(c, "cannot resolve the host: %s", rc < 0 ? uv_strerror(rc) : "it has no address");
    } else {
        c->state = CONNECTING;
        c->next_address = addresses;
        connect_next(c);
    }
}

static void resolve(hr_redis_connection *c) {
    char port[8];
    snprintf(port, sizeof port, "%u", c->server.port);
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    c->state = RESOLVING;
    int rc = uv_getaddrinfo(c->loop, &c->resolve, on_resolved, c->server.host, port, &hints);
    c->resolving = rc == 0;
    if (rc < 0) fail(c, "cannot resolve the host: %s", uv_strerror(rc));
}

static void start_attempt(hr_redis_connection *c) {
    struct sockaddr_storage address;
    c->state = CONNECTING;
    memset(&c->reply, 0, sizeof c->reply);
    uv_timer_start(&c->timer, on_timer, c->server.connect_timeout_ms, 0);
    c->reader = redisReaderCreate();
    if (c->reader == NULL || put_handshake(c) != HR_OK) {
        fail(c, "out of memory");
        return;
    }
    c->plain = c->reader->fn;
    c->reader->fn = &reply_functions;
    c->reader->privdata = c;
    c->reader->maxbuf = READER_KEEP_NBYTES;
    if (uv_ip4_addr(c->server.host, c->server.port, (struct sockaddr_in *)&address) == 0 ||
        uv_ip6_addr(c->server.host, c->server.port, (struct sockaddr_in6 *)&address) == 0)
        connect_to(c, (const struct sockaddr *)&address);
    else
        resolve(c);
}

/* --- the way down ----------------------------------------------------------------------------------------
 */

static void on_timer_closed(uv_handle_t *handle) {
    hr_redis_connection *c = handle->data;
    free(c->out.data);
    free(c->sending.data);
    free(c->fifo);
    free(c->read_buffer);
    free(c);
}

/* Between half of delay_ms and all of it, so that many clients do not come back in step. */
static uint32_t with_jitter(hr_redis_connection *c, uint32_t delay_ms) {
    c->jitter ^= c->jitter << 13;
    c->jitter ^= c->jitter >> 7;
    c->jitter ^= c->jitter << 17;
    return delay_ms / 2 + (uint32_t)(c->jitter % (delay_ms / 2 + 1));
}

/* Goes on from DOWN once nothing of the failed attempt is under way: waits for the next one, or ends. */
static void settle(hr_redis_connection *c) {
    if (c->state != DOWN || c->tcp_open || c->resolving || uv_is_closing((uv_handle_t *)&c->timer)) return;
    uv_freeaddrinfo(c->addresses);
    c->addresses = NULL;
    c->next_address = NULL;
    if (c->closing)
        uv_close((uv_handle_t *)&c->timer, on_timer_closed);
    else
        uv_timer_start(&c->timer, on_timer, with_jitter(c, c->backoff_ms), 0);
}

static void lose_commands(hr_redis_connection *c) {
    while (c->fifo_count > 0) {
        hr_redis_command command = fifo_pop(c);
        command.i->finish(&command, HR_REDIS_LOST, c->reason);
    }
}

static void fail(hr_redis_connection *c, const char *format, ...) {
    if (c->state == DOWN) return;
    va_list args;
    va_start(args, format);
    vsnprintf(c->reason, sizeof c->reason, format, args);
    va_end(args);
    bool steady = c->state == READY && hr_clock_ns() - c->ready_since_ns >= STEADY_NS;
    c->backoff_ms = steady ? FIRST_BACKOFF_MS : c->backoff_ms * 2;
    if (c->backoff_ms > MAX_BACKOFF_MS) c->backoff_ms = MAX_BACKOFF_MS;
    c->state = DOWN;
    c->failed_once = true;
    c->out.nbytes = 0;
    if (c->reader != NULL) redisReaderFree(c->reader);
    c->reader = NULL;
    uv_timer_stop(&c->timer);
    if (c->resolving) uv_cancel((uv_req_t *)&c->resolve);
    if (c->tcp_open && !uv_is_closing((uv_handle_t *)&c->tcp))
        uv_close((uv_handle_t *)&c->tcp, on_tcp_closed);
    if (!c->closing) c->listener.changed(c->listener.context, false, c->reason);
    lose_commands(c);
    settle(c);
}

/* A server that is stopped, or a network that swallows packets: commands wait, and since the last look, when
 * they waited too, not a byte has come. */
static void look_for_stall(hr_redis_connection *c) {
    bool waits = c->fifo_count > 0;
    if (waits && c->waited_before && c->n_read == c->n_read_before) {
        fail(c, "no answer for %u ms", c->server.stall_timeout_ms);
        return;
    }
    c->waited_before = waits;
    c->n_read_before = c->n_read;
}

static void on_timer(uv_timer_t *timer) {
    hr_redis_connection *c = timer->data;
    if (c->state == DOWN)
        start_attempt(c);
    else if (c->state == READY)
        look_for_stall(c);
    else
        fail(c, "no connection within %u ms", c->server.connect_timeout_ms);
}

hr_redis_connection *hr_redis_connection_create(uv_loop_t *loop, const hr_redis_server *server,
                                                hr_redis_listener listener) {
    hr_redis_connection *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->read_buffer = malloc(READ_NBYTES);
    if (c->read_buffer == NULL || uv_timer_init(loop, &c->timer) != 0) {
        free(c->read_buffer);
        free(c);
        return NULL;
    }
    c->loop = loop;
    c->server = *server;
    c->listener = listener;
    c->backoff_ms = FIRST_BACKOFF_MS;
    c->jitter = (hr_clock_ns() ^ (uint64_t)(uintptr_t)c) | 1;
    c->timer.data = c->tcp.data = c->connect.data = c->write.data = c->resolve.data = c;
    start_attempt(c);
    return c;
}

void hr_redis_connection_close(hr_redis_connection *c) {
    if (c == NULL) return;
    c->closing = true;
    uv_timer_stop(&c->timer);
    if (c->state == DOWN)
        settle(c);
    else
        fail(c, "the store is being closed");
}

void hr_redis_connection_give_up(hr_redis_connection *c, const char *reason) {
    fail(c, "%s", reason);
}

bool hr_redis_connection_is_ready(const hr_redis_connection *c) {
    return c->state == READY;
}

bool hr_redis_connection_accepts(const hr_redis_connection *c) {
    return c->state == READY || (c->state != DOWN && !c->failed_once);
}

const char *hr_redis_connection_reason(const hr_redis_connection *c) {
    return c->reason;
}

size_t hr_redis_connection_n_unanswered(const hr_redis_connection *c) {
    return c->fifo_count;
}

size_t hr_redis_connection_unsent_nbytes(const hr_redis_connection *c) {
    return c->out.nbytes;
}
