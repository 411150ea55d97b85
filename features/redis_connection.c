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

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "features/redis_auth.h"
#include "features/redis_backoff.h"
#include "features/redis_output.h"

enum {
    READ_NBYTES = 64 << 10,
    FIRST_BACKOFF_MS = 20,
    MAX_BACKOFF_MS = 1000,
    STEADY_NS = 1000000000, /* ready for so long, a connection has proved itself */
    KEEPALIVE_S = 15,
    REASON_SIZE = 160
};

typedef enum state { DOWN, RESOLVING, CONNECTING, HANDSHAKE, READY } state;

struct hr_redis_connection {
    uv_loop_t *loop;
    hr_redis_server server;
    hr_redis_listener listener;
    state state;
    bool creating, closing, failed_once;
    bool resolving, tcp_open, writing; /* under way in the loop: resolve, tcp, write */
    bool waited_before;                /* commands were unanswered at the last look for a stall */
    char reason[REASON_SIZE];
    hr_redis_backoff backoff;

    uv_timer_t timer;
    uint64_t ready_since_ns;
    uint64_t n_read, n_read_before; /* bytes ever read; the same at the last look for a stall */

    uv_getaddrinfo_t resolve;
    struct addrinfo *addresses, *next_address; /* owned list, and the one to try if this one fails */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;

    hr_redis_output out, sending; /* gathered; being written */
    hr_redis_command *fifo;       /* ring of capacity fifo_capacity, a power of two */
    size_t fifo_head, fifo_count, fifo_capacity;

    hr_redis_reader reader;
    char *read_buffer; /* READ_NBYTES */
    /* Of the reply that is being read. */
    bool is_error;
    char error[HR_REDIS_LINE_SIZE];
    char mismatch[REASON_SIZE]; /* not empty: the reply is not what was asked for */
    hr_arena *values;           /* owned; the tree's; NULL until the first is built */
    hr_redis_tree tree;
};

static void on_timer(uv_timer_t *timer);
static void fail(hr_redis_connection *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- bytes and commands to send ------------------------------------------------------------------------- */

void hr_redis_begin(hr_redis_connection *c, size_t n_texts) {
    hr_redis_output_begin(&c->out, n_texts);
}

void hr_redis_text(hr_redis_connection *c, const char *head, size_t head_nbytes, const char *tail,
                   size_t tail_nbytes) {
    hr_redis_output_text(&c->out, head, head_nbytes, tail, tail_nbytes);
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
    hr_status status = hr_redis_output_end(&c->out);
    if (status != HR_OK) return status;
    if (command == NULL) return HR_OK;
    if (!fifo_reserve(c)) {
        hr_redis_output_take_back(&c->out);
        return HR_OUT_OF_MEMORY;
    }
    c->fifo[(c->fifo_head + c->fifo_count++) & (c->fifo_capacity - 1)] = *command;
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
    hr_redis_output full = c->out;
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

static const hr_redis_command *current(const hr_redis_connection *c) {
    return c->fifo_count > 0 ? &c->fifo[c->fifo_head] : NULL;
}

static bool mismatch(hr_redis_connection *c, const char *found) {
    const hr_redis_command *command = current(c);
    char expected[48] = "no reply";
    if (command != NULL && command->n_elements == HR_REDIS_STATUS_REPLY) strcpy(expected, "a status");
    if (command != NULL && command->n_elements == HR_REDIS_TEXT_REPLY) strcpy(expected, "a text");
    if (command != NULL && command->n_elements >= 0)
        snprintf(expected, sizeof expected, "an array of %d texts", command->n_elements);
    snprintf(c->mismatch, sizeof c->mismatch, "expected %s, found %s", expected, found);
    return false;
}

static bool is_subscriber(const hr_redis_connection *c) {
    return c->listener.message != NULL && c->state == READY;
}

/* Is this reply, of whatever shape, built as a tree? With its first event the tree begins. */
static bool builds_value(hr_redis_connection *c, hr_redis_place place) {
    const hr_redis_command *command = current(c);
    bool wanted = command != NULL && command->n_elements == HR_REDIS_ANY_REPLY;
    if (!wanted && !is_subscriber(c)) return false;
    if (place.depth == 0) {
        if (c->values == NULL) c->values = hr_arena_create(HR_REDIS_MAX_VALUE_NBYTES);
        if (c->values != NULL) hr_arena_reset(c->values);
        hr_redis_tree_begin(&c->tree, c->values);
    }
    return true;
}

static bool built(hr_redis_connection *c, bool fits) {
    if (!fits) snprintf(c->mismatch, sizeof c->mismatch, "a reply too large, or out of memory");
    return fits;
}

static bool on_array(void *context, hr_redis_place place, size_t n_elements) {
    hr_redis_connection *c = context;
    if (builds_value(c, place))
        return built(c, c->values != NULL && hr_redis_tree_array(&c->tree, place, n_elements));
    const hr_redis_command *command = current(c);
    if (place.depth == 0 && command != NULL && command->n_elements >= 0 &&
        (size_t)command->n_elements == n_elements)
        return true;
    char found[48];
    snprintf(found, sizeof found, place.depth == 0 ? "an array of %zu" : "an array of %zu in an array",
             n_elements);
    return mismatch(c, found);
}

static bool on_text(void *context, hr_redis_place place, const hr_redis_piece *piece) {
    hr_redis_connection *c = context;
    const hr_redis_command *command = current(c);
    if (command != NULL &&
        (command->n_elements >= 0 ? place.depth == 1 : command->n_elements == HR_REDIS_TEXT_REPLY)) {
        command->i->text(command, place.index, piece);
        return true;
    }
    if (builds_value(c, place))
        return built(c, c->values != NULL && hr_redis_tree_text(&c->tree, place, piece));
    return mismatch(c, hr_quote(piece->bytes, piece->nbytes).text);
}

/* An error is a reply to any command. */
static bool on_line(void *context, hr_redis_place place, bool is_error, const char *text, size_t nbytes) {
    hr_redis_connection *c = context;
    const hr_redis_command *command = current(c);
    if (place.depth == 0 && is_error && command != NULL) {
        c->is_error = true;
        memcpy(c->error, text, nbytes); /* a reader cuts lines to fit */
        c->error[nbytes] = '\0';
        return true;
    }
    if (builds_value(c, place))
        return built(c, c->values != NULL && hr_redis_tree_line(&c->tree, place, is_error, text, nbytes));
    if (place.depth > 0) return mismatch(c, "a status or error in an array");
    if (command != NULL && command->n_elements == HR_REDIS_STATUS_REPLY) return true;
    return mismatch(c, hr_quote(text, nbytes).text);
}

static bool on_integer(void *context, hr_redis_place place, int64_t value) {
    hr_redis_connection *c = context;
    if (!builds_value(c, place)) return mismatch(c, "an integer");
    hr_redis_tree_integer(&c->tree, place, value);
    return true;
}

static bool on_nil(void *context, hr_redis_place place) {
    hr_redis_connection *c = context;
    const hr_redis_command *command = current(c);
    if (command != NULL &&
        (command->n_elements >= 0 ? place.depth == 1 : command->n_elements == HR_REDIS_TEXT_REPLY))
        return true;
    return builds_value(c, place) || mismatch(c, "nil"); /* what a tree holds at first is nil */
}

/* A reply is whole: a message, or it finishes its command. */
static bool on_end(void *context) {
    hr_redis_connection *c = context;
    if (is_subscriber(c)) {
        c->listener.message(c->listener.context, &c->tree.root);
        return c->state >= HANDSHAKE;
    }
    if (c->fifo_count == 0) return mismatch(c, "a reply");
    bool is_error = c->is_error;
    c->is_error = false;
    hr_redis_command command = fifo_pop(c);
    bool is_value = !is_error && command.n_elements == HR_REDIS_ANY_REPLY;
    const hr_redis_result result = {is_error ? HR_REDIS_REFUSED : HR_REDIS_ANSWERED,
                                    is_error ? c->error : NULL, is_value ? &c->tree.root : NULL};
    command.i->finish(&command, &result);
    return c->state >= HANDSHAKE;
}

static const hr_redis_reader_i reader_i = {on_array, on_text, on_line, on_integer, on_nil, on_end};

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
    hr_redis_read read = hr_redis_reader_feed(&c->reader, bytes->base, (size_t)n);
    if (read == HR_REDIS_READ_INVALID) fail(c, "not a valid reply: %s", c->reader.error);
    if (read == HR_REDIS_READ_STOPPED) fail(c, "not a valid reply: %s", c->mismatch);
}

/* --- handshake ------------------------------------------------------------------------------------------ */

enum { AUTH, SELECT, READONLY, PING };

static void handshake_finish(const hr_redis_command *command, const hr_redis_result *result) {
    static const char *const names[] = {"AUTH", "SELECT", "READONLY", "PING"};
    hr_redis_connection *c = command->context;
    if (result->outcome == HR_REDIS_LOST) return;
    if (result->outcome == HR_REDIS_REFUSED) {
        const char *reason = result->reason;
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

static const hr_redis_command_i handshake_i = {.text = NULL, .finish = handshake_finish};

/* One command of the handshake: up to three words; NULL ends them. */
static hr_status put_step(hr_redis_connection *c, size_t step, const char *const words[3]) {
    size_t n = 0;
    while (n < 3 && words[n] != NULL) n++;
    hr_redis_begin(c, n);
    for (size_t i = 0; i < n; i++) hr_redis_text(c, words[i], strlen(words[i]), NULL, 0);
    const hr_redis_command command = {&handshake_i, c, step, HR_REDIS_STATUS_REPLY};
    return hr_redis_commit(c, &command);
}

/* First in `out` and in the fifo: commands that came while this attempt was made follow. PING tells a server
 * that is there from one that merely accepts connections, or is still loading. */
static hr_status put_handshake(hr_redis_connection *c) {
    const hr_redis_server *to = &c->server;
    char db[16];
    snprintf(db, sizeof db, "%u", to->db);
    const bool named = to->user[0] != '\0';
    const struct {
        bool wanted;
        const char *words[3];
    } steps[] = {
        [AUTH] = {to->password[0] != '\0',
                  {"AUTH", named ? to->user : to->password, named ? to->password : NULL}},
        [SELECT] = {to->db != 0, {"SELECT", db}},
        [READONLY] = {to->readonly, {"READONLY"}},
        [PING] = {true, {"PING"}},
    };
    hr_status status = HR_OK;
    for (size_t step = AUTH; step <= PING && status == HR_OK; step++)
        if (steps[step].wanted) status = put_step(c, step, steps[step].words);
    return status;
}

/* --- the way up ----------------------------------------------------------------------------------------- */

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
    c->is_error = false;
    c->mismatch[0] = '\0';
    hr_redis_reader_init(&c->reader, &reader_i, c);
    uv_timer_start(&c->timer, on_timer, c->server.connect_timeout_ms, 0);
    if (put_handshake(c) != HR_OK) {
        fail(c, "out of memory");
        return;
    }
    if (uv_ip4_addr(c->server.host, c->server.port, (struct sockaddr_in *)&address) == 0 ||
        uv_ip6_addr(c->server.host, c->server.port, (struct sockaddr_in6 *)&address) == 0)
        connect_to(c, (const struct sockaddr *)&address);
    else
        resolve(c);
}

/* --- the way down --------------------------------------------------------------------------------------- */

static void on_timer_closed(uv_handle_t *handle) {
    hr_redis_connection *c = handle->data;
    hr_redis_output_free(&c->out);
    hr_redis_output_free(&c->sending);
    hr_arena_destroy(c->values);
    free(c->fifo);
    free(c->read_buffer);
    free(c);
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
        uv_timer_start(&c->timer, on_timer, hr_redis_backoff_next_ms(&c->backoff), 0);
}

static void lose_commands(hr_redis_connection *c) {
    while (c->fifo_count > 0) {
        hr_redis_command command = fifo_pop(c);
        const hr_redis_result lost = {HR_REDIS_LOST, c->reason, NULL};
        command.i->finish(&command, &lost);
    }
}

static void fail(hr_redis_connection *c, const char *format, ...) {
    if (c->state == DOWN) return;
    va_list args;
    va_start(args, format);
    vsnprintf(c->reason, sizeof c->reason, format, args);
    va_end(args);
    bool steady = c->state == READY && hr_clock_ns() - c->ready_since_ns >= STEADY_NS;
    if (steady) hr_redis_backoff_reset(&c->backoff);
    c->state = DOWN;
    c->failed_once = true;
    c->out.nbytes = 0;
    uv_timer_stop(&c->timer);
    if (c->resolving) uv_cancel((uv_req_t *)&c->resolve);
    if (c->tcp_open && !uv_is_closing((uv_handle_t *)&c->tcp))
        uv_close((uv_handle_t *)&c->tcp, on_tcp_closed);
    if (!c->creating && !c->closing) c->listener.changed(c->listener.context, false, c->reason);
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
    c->backoff = hr_redis_backoff_init(FIRST_BACKOFF_MS, MAX_BACKOFF_MS);
    c->timer.data = c->tcp.data = c->connect.data = c->write.data = c->resolve.data = c;
    c->creating = true;
    start_attempt(c);
    c->creating = false;
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

uint64_t hr_redis_connection_read_nbytes(const hr_redis_connection *c) {
    return c->n_read;
}
