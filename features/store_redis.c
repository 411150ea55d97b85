/* `redis://`: records from one Redis server, over a few pipelined connections on one event loop thread.
 *
 * A fetch goes from its caller's thread to the loop's through a lock-free list. There it becomes an
 * operation: packed records are one MGET (or a few, where it is very large), hash records one HMGET each, all
 * on one connection. The operation ends when every command is answered, or at its timeout, whichever is
 * first, and then its fetch is done: exactly once, and never touched again. Answers that come later find the
 * operation without a fetch and are dropped.
 *
 * A server that is down costs nobody time: no connection that accepts commands, and the fetch is done at
 * once. The log tells the server's changes of state, not the requests that met them.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "features/redis_connection.h"
#include "features/redis_cover.h"
#include "features/store_internal.h"

enum {
    KEYS_PER_MGET = 2000,         /* a longer one would keep the server from its other clients for too long */
    MAX_UNSENT_NBYTES = 64 << 20, /* per connection; past it fetches are refused */
    MAX_CONNECTIONS = 64
};

typedef struct redis_store redis_store;

/* A fetch under way. The loop thread's. Kept for reuse until the store is closed: its timer may not just be
 * freed. */
typedef struct operation {
    redis_store *store;
    hr_fetch *fetch;     /* NULL once done */
    size_t n_unanswered; /* commands that may still call back; the operation is free when it is 0 and fetch
                            NULL */
    bool by_deadline;    /* the call's deadline comes before the command timeout */
    bool arena_full;     /* a text found no room: that record, and those behind it, stay MISSING */
    char *filling;       /* where the text that is being received goes; arena; NULL: nowhere */
    uv_timer_t timer;
    struct operation *next_free;
    struct operation *next; /* of all operations */
} operation;

typedef enum health { UNKNOWN, UP, DOWN, REFUSING } health;

struct redis_store {
    hr_store_uri uri; /* the connections borrow its texts */
    hr_store_options options;
    char server[HR_STORE_HOST_SIZE + 16];       /* "redis HOST:PORT", for errors */
    char key_head[2][HR_STORE_PREFIX_SIZE + 8]; /* by entity: "{prefix}:user:" */
    size_t key_head_nbytes[2];

    /* Shared between threads. */
    _Atomic(hr_fetch *) submitted; /* last in, first out, by hr_fetch.next */
    atomic_bool closing;
    uv_async_t wake;

    /* The loop thread's. */
    pthread_t thread;
    uv_loop_t loop;
    hr_redis_connection *connections[MAX_CONNECTIONS];
    size_t n_connections, next_connection;
    hr_redis_cover *cover; /* NULL: there is no cache */
    operation *operations, *free_operations;
    health health;
};

/* --- the server's state, as the log tells it ----------------------------------------------------------- */

static void set_health(redis_store *store, health now, const char *reason) {
    health before = store->health;
    if (before == now || (before == DOWN && now == REFUSING)) return;
    store->health = now;
    const hr_log_field server = HR_LOG_STR("server", store->server);
    if (now == DOWN)
        hr_log(HR_LOG_WARN, before == UNKNOWN ? "redis cannot be reached" : "redis connection lost", server,
               HR_LOG_STR("reason", reason));
    else if (now == REFUSING)
        hr_log(HR_LOG_WARN, "redis refuses to answer", server, HR_LOG_STR("reason", reason));
    else if (before == DOWN)
        hr_log(HR_LOG_INFO, "redis connection restored", server);
    else
        hr_log(HR_LOG_INFO, before == REFUSING ? "redis answers again" : "redis connected", server);
}

static void connection_changed(void *context, bool ready, const char *reason) {
    redis_store *store = context;
    if (ready) {
        if (store->health != REFUSING) set_health(store, UP, "");
        return;
    }
    for (size_t i = 0; i < store->n_connections; i++)
        if (hr_redis_connection_is_ready(store->connections[i])) return;
    set_health(store, DOWN, reason);
}

/* --- operations ----------------------------------------------------------------------------------------- */

static operation *operation_take(redis_store *store) {
    operation *op = store->free_operations;
    if (op != NULL) {
        store->free_operations = op->next_free;
        return op;
    }
    op = calloc(1, sizeof *op);
    if (op == NULL) return NULL;
    uv_timer_init(&store->loop, &op->timer); /* cannot fail */
    op->timer.data = op;
    op->store = store;
    op->next = store->operations;
    store->operations = op;
    return op;
}

static void operation_release_if_over(operation *op) {
    if (op->fetch != NULL || op->n_unanswered > 0) return;
    op->next_free = op->store->free_operations;
    op->store->free_operations = op;
}

/* The one place where a fetch that became an operation is done. */
static void operation_done(operation *op) {
    hr_fetch *fetch = op->fetch;
    op->fetch = NULL;
    op->filling = NULL;
    uv_timer_stop(&op->timer);
    fetch->done(fetch);
}

/* "redis HOST:PORT: reason"; the first reason counts. */
static void fetch_fail(const redis_store *store, hr_fetch *fetch, hr_status code, const char *reason) {
    if (fetch->error.code == HR_OK) hr_error_set(&fetch->error, code, "%s: %s", store->server, reason);
}

static void on_timeout(uv_timer_t *timer) {
    operation *op = timer->data;
    char reason[64] = "the call's deadline came before the answer";
    if (!op->by_deadline)
        snprintf(reason, sizeof reason, "no answer within %" PRIu32 " ms",
                 op->store->options.command_timeout_ms);
    fetch_fail(op->store, op->fetch, HR_DEADLINE_EXCEEDED, reason);
    operation_done(op);
    operation_release_if_over(op);
}

static void command_finish(const hr_redis_command *command, const hr_redis_result *result) {
    operation *op = command->context;
    redis_store *store = op->store;
    op->n_unanswered--;
    if (result->outcome == HR_REDIS_ANSWERED) set_health(store, UP, "");
    if (result->outcome == HR_REDIS_REFUSED) {
        hr_quoted quoted = hr_quote(result->reason, strlen(result->reason));
        set_health(store, REFUSING, quoted.text);
        if (op->fetch != NULL) fetch_fail(store, op->fetch, HR_UNAVAILABLE, quoted.text);
    }
    if (result->outcome == HR_REDIS_LOST && op->fetch != NULL)
        fetch_fail(store, op->fetch, HR_UNAVAILABLE, result->reason);
    if (op->fetch != NULL && op->n_unanswered == 0) operation_done(op);
    operation_release_if_over(op);
}

/* Copies a piece to where its text goes: arena memory of its own, NUL-terminated. The text when it is whole,
 * else NULL. */
static const char *take_piece(operation *op, const hr_redis_piece *piece) {
    if (piece->offset == 0) {
        op->filling = hr_arena_alloc(op->fetch->arena, piece->total + 1);
        op->arena_full |= op->filling == NULL;
        if (op->filling == NULL)
            hr_fetch__fail(op->fetch, HR_RESOURCE_EXHAUSTED,
                           "the call's memory is too small for its records");
        else
            op->filling[piece->total] = '\0';
    }
    if (op->filling == NULL) return NULL;
    memcpy(op->filling + piece->offset, piece->bytes, piece->nbytes);
    return piece->offset + piece->nbytes == piece->total ? op->filling : NULL;
}

/* --- packed: MGET --------------------------------------------------------------------------------------- */

static void packed_text(const hr_redis_command *command, size_t index, const hr_redis_piece *piece) {
    operation *op = command->context;
    if (op->fetch == NULL) return;
    const char *text = take_piece(op, piece);
    if (text == NULL) return;
    hr_record *record = hr_fetch__slot(op->fetch, command->first + index).record;
    record->kind = HR_RECORD_PACKED;
    record->answered = true;
    record->data = (const uint8_t *)text;
    record->nbytes = piece->total;
}

/* What has not come is nil, unless there was no room for it. */
static void packed_finish(const hr_redis_command *command, const hr_redis_result *result) {
    operation *op = command->context;
    const bool answered = result->outcome == HR_REDIS_ANSWERED && op->fetch != NULL && !op->arena_full;
    for (int i = 0; answered && i < command->n_elements; i++)
        hr_fetch__slot(op->fetch, command->first + (size_t)i).record->answered = true;
    command_finish(command, result);
}

static const hr_redis_command_i packed_i = {packed_text, packed_finish};

/* Of a record that is read now. */
static void put_key(redis_store *store, hr_redis_connection *connection, hr_fetch_slot slot) {
    slot.record->cover = hr_redis_cover_now(store->cover);
    hr_redis_text(connection, store->key_head[slot.entity], store->key_head_nbytes[slot.entity], slot.id,
                  strlen(slot.id));
}

static hr_status send_mget(operation *op, hr_redis_connection *connection, size_t first, size_t n) {
    hr_redis_begin(connection, 1 + n);
    hr_redis_text(connection, "MGET", 4, NULL, 0);
    for (size_t i = 0; i < n; i++) put_key(op->store, connection, hr_fetch__slot(op->fetch, first + i));
    const hr_redis_command command = {&packed_i, op, first, (int)n};
    return hr_redis_commit(connection, &command);
}

static hr_status send_packed(operation *op, hr_redis_connection *connection) {
    size_t n_records = hr_fetch__count(op->fetch);
    hr_status status = HR_OK;
    for (size_t first = 0; first < n_records && status == HR_OK; first += KEYS_PER_MGET) {
        size_t n = n_records - first < KEYS_PER_MGET ? n_records - first : KEYS_PER_MGET;
        status = send_mget(op, connection, first, n);
        op->n_unanswered += status == HR_OK;
    }
    return status;
}

/* --- hash: HMGET ---------------------------------------------------------------------------------------- */

/* The fields of a record appear with its first text: a hash of which none is there is no record. */
static hr_field_text *hash_fields(operation *op, const hr_fetch_slot *slot, size_t n_fields) {
    if (slot->record->fields == NULL)
        slot->record->fields = hr_arena_calloc(op->fetch->arena, n_fields, sizeof *slot->record->fields);
    return (hr_field_text *)slot->record->fields; /* ours until the fetch is done */
}

static void hash_text(const hr_redis_command *command, size_t index, const hr_redis_piece *piece) {
    operation *op = command->context;
    if (op->fetch == NULL || op->arena_full) return;
    hr_fetch_slot slot = hr_fetch__slot(op->fetch, command->first);
    hr_field_text *fields = hash_fields(op, &slot, (size_t)command->n_elements);
    const char *text = take_piece(op, piece);
    op->arena_full |= fields == NULL;
    if (fields != NULL && text != NULL) fields[index] = (hr_field_text){text, piece->total};
}

static void hash_finish(const hr_redis_command *command, const hr_redis_result *result) {
    operation *op = command->context;
    static const char wrong_type[] = "WRONGTYPE ";
    bool wrong = result->outcome == HR_REDIS_REFUSED &&
                 strncmp(result->reason, wrong_type, sizeof wrong_type - 1) == 0;
    if (op->fetch != NULL) {
        hr_record *record = hr_fetch__slot(op->fetch, command->first).record;
        if (result->outcome == HR_REDIS_ANSWERED && record->fields != NULL && !op->arena_full)
            record->kind = HR_RECORD_FIELDS;
        record->answered = (result->outcome == HR_REDIS_ANSWERED && !op->arena_full) || wrong;
        record->invalid = wrong;
    }
    const hr_redis_result answered = {HR_REDIS_ANSWERED, NULL, NULL}; /* about this record, not the server */
    command_finish(command, wrong ? &answered : result);
}

static const hr_redis_command_i hash_i = {hash_text, hash_finish};

static hr_status send_hmget(operation *op, hr_redis_connection *connection, size_t i,
                            const hr_field_list *fields) {
    hr_fetch_slot slot = hr_fetch__slot(op->fetch, i);
    hr_redis_begin(connection, 2 + fields->n_names);
    hr_redis_text(connection, "HMGET", 5, NULL, 0);
    put_key(op->store, connection, slot);
    for (size_t f = 0; f < fields->n_names; f++)
        hr_redis_text(connection, fields->names[f], strlen(fields->names[f]), NULL, 0);
    const hr_redis_command command = {&hash_i, op, i, (int)fields->n_names};
    return hr_redis_commit(connection, &command);
}

/* A record of which no field is wanted is there, with none: nothing of it is missing. */
static hr_status send_hash(operation *op, hr_redis_connection *connection) {
    size_t n_records = hr_fetch__count(op->fetch);
    hr_status status = HR_OK;
    for (size_t i = 0; i < n_records && status == HR_OK; i++) {
        hr_fetch_slot slot = hr_fetch__slot(op->fetch, i);
        const hr_field_list *fields = op->fetch->fields[slot.entity];
        if (fields == NULL || fields->n_names == 0) {
            slot.record->kind = HR_RECORD_FIELDS;
            slot.record->answered = true;
            continue;
        }
        status = send_hmget(op, connection, i, fields);
        op->n_unanswered += status == HR_OK;
    }
    return status;
}

/* --- starting a fetch ----------------------------------------------------------------------------------- */

/* The ready connection with the fewest commands before us; else one that is making its first attempt. */
static hr_redis_connection *choose_connection(redis_store *store) {
    hr_redis_connection *best = NULL;
    if (store->n_connections == 0) return NULL; /* shut down */
    for (size_t k = 0; k < store->n_connections; k++) {
        hr_redis_connection *c = store->connections[(store->next_connection + k) % store->n_connections];
        if (!hr_redis_connection_accepts(c)) continue;
        bool readier = best != NULL && hr_redis_connection_is_ready(c) && !hr_redis_connection_is_ready(best);
        bool as_ready = best != NULL && hr_redis_connection_is_ready(c) == hr_redis_connection_is_ready(best);
        if (best == NULL || readier ||
            (as_ready && hr_redis_connection_n_unanswered(c) < hr_redis_connection_n_unanswered(best)))
            best = c;
    }
    store->next_connection = (store->next_connection + 1) % store->n_connections;
    return best;
}

static const char *down_reason(const redis_store *store) {
    for (size_t i = 0; i < store->n_connections; i++) {
        const char *reason = hr_redis_connection_reason(store->connections[i]);
        if (reason[0] != '\0') return reason;
    }
    return "not connected";
}

/* Sets op->by_deadline and returns the timeout; rounded up, so that a timeout is never early. */
static uint64_t timeout_ms(operation *op, uint64_t now_ns) {
    uint64_t left_ns = op->fetch->deadline_ns - now_ns;
    uint64_t most_ns = op->store->options.command_timeout_ms * UINT64_C(1000000);
    op->by_deadline = left_ns < most_ns;
    return ((op->by_deadline ? left_ns : most_ns) + 999999) / 1000000;
}

static void operation_start(operation *op, hr_redis_connection *connection, uint64_t now_ns) {
    redis_store *store = op->store;
    uv_timer_start(&op->timer, on_timeout, timeout_ms(op, now_ns), 0);
    op->n_unanswered = 1; /* held while commands are sent */
    hr_status status =
        store->uri.layout == HR_LAYOUT_HASH ? send_hash(op, connection) : send_packed(op, connection);
    if (status != HR_OK) fetch_fail(store, op->fetch, status, "out of memory for the request");
    op->n_unanswered--;
    if (op->n_unanswered == 0) operation_done(op);
    operation_release_if_over(op);
}

static void start_fetch(redis_store *store, hr_fetch *fetch) {
    uint64_t now_ns = hr_clock_ns();
    hr_redis_connection *connection = choose_connection(store);
    operation *op = NULL;
    if (!hr_fetch__begin(fetch)) {
        /* it has its error */
    } else if (atomic_load(&store->closing)) {
        fetch_fail(store, fetch, HR_UNAVAILABLE, "the store is being closed");
    } else if (now_ns >= fetch->deadline_ns) {
        fetch_fail(store, fetch, HR_DEADLINE_EXCEEDED,
                   "the call's deadline came before its records were asked for");
    } else if (connection == NULL) {
        fetch_fail(store, fetch, HR_UNAVAILABLE, down_reason(store));
    } else if (hr_redis_connection_unsent_nbytes(connection) > MAX_UNSENT_NBYTES) {
        fetch_fail(store, fetch, HR_RESOURCE_EXHAUSTED, "too many requests wait to be sent");
    } else if ((op = operation_take(store)) == NULL) {
        fetch_fail(store, fetch, HR_OUT_OF_MEMORY, "out of memory");
    }
    if (op == NULL) {
        fetch->done(fetch);
        return;
    }
    op->fetch = fetch;
    op->arena_full = false;
    operation_start(op, connection, now_ns);
}

static void redis_fetch(void *context, hr_fetch *fetch) {
    redis_store *store = context;
    fetch->next = atomic_load_explicit(&store->submitted, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&store->submitted, &fetch->next, fetch,
                                                  memory_order_release, memory_order_relaxed)) {
    }
    uv_async_send(&store->wake);
}

static void start_submitted(redis_store *store) {
    hr_fetch *last = atomic_exchange_explicit(&store->submitted, NULL, memory_order_acquire);
    hr_fetch *in_order = NULL;
    while (last != NULL) {
        hr_fetch *next = last->next;
        last->next = in_order;
        in_order = last;
        last = next;
    }
    uv_update_time(&store->loop);
    while (in_order != NULL) {
        hr_fetch *next = in_order->next; /* a fetch that is done is no longer ours */
        start_fetch(store, in_order);
        in_order = next;
    }
    for (size_t i = 0; i < store->n_connections; i++) hr_redis_flush(store->connections[i]);
}

/* --- the loop thread, opening and closing --------------------------------------------------------------- */

/* Closing: every operation loses its commands, so every fetch is done; with its last handle the loop ends. */
static void shut_down(redis_store *store) {
    for (size_t i = 0; i < store->n_connections; i++) hr_redis_connection_close(store->connections[i]);
    store->n_connections = 0;
    hr_redis_cover_close(store->cover);
    store->cover = NULL;
    for (operation *op = store->operations; op != NULL; op = op->next)
        uv_close((uv_handle_t *)&op->timer, NULL);
    uv_close((uv_handle_t *)&store->wake, NULL);
}

static void on_wake(uv_async_t *wake) {
    redis_store *store = wake->data;
    bool closing = atomic_load(&store->closing);
    start_submitted(store);
    if (closing && !uv_is_closing((uv_handle_t *)wake)) shut_down(store);
}

static void *loop_main(void *arg) {
    redis_store *store = arg;
    uv_run(&store->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void redis_close(void *context) {
    redis_store *store = context;
    atomic_store(&store->closing, true);
    uv_async_send(&store->wake);
    pthread_join(store->thread, NULL);
    uv_loop_close(&store->loop);
    while (store->operations != NULL) {
        operation *next = store->operations->next;
        free(store->operations);
        store->operations = next;
    }
    free(store);
}

static void init_texts(redis_store *store, const hr_store_uri *uri) {
    store->uri = *uri;
    bool ipv6 = strchr(uri->host, ':') != NULL;
    snprintf(store->server, sizeof store->server, "redis %s%s%s:%u", ipv6 ? "[" : "", uri->host,
             ipv6 ? "]" : "", uri->port);
    for (hr_entity e = HR_ENTITY_USER; e <= HR_ENTITY_ITEM; e++)
        store->key_head_nbytes[e] = (size_t)snprintf(store->key_head[e], sizeof store->key_head[e],
                                                     "%s:%s:", uri->prefix, hr_entity__name(e));
}

static hr_status open_connections(redis_store *store, hr_record_cache *cache, hr_error *err) {
    const hr_redis_server server = {
        .host = store->uri.host,
        .port = store->uri.port,
        .db = store->uri.db,
        .user = store->uri.user,
        .password = store->uri.password,
        .connect_timeout_ms = store->options.connect_timeout_ms,
        .stall_timeout_ms = store->options.command_timeout_ms,
    };
    const hr_redis_listener listener = {.changed = connection_changed, .context = store};
    for (size_t i = 0; i < store->options.n_connections; i++) {
        hr_redis_connection *c = hr_redis_connection_create(&store->loop, &server, listener);
        if (c == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", store->server);
        store->connections[store->n_connections++] = c;
    }
    if (cache == NULL) return HR_OK;
    store->cover = hr_redis_cover_create(&store->loop, &server, store->uri.prefix, store->server,
                                         store->options.cache_heartbeat_ms, cache);
    if (store->cover == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", store->server);
    return HR_OK;
}

hr_status hr_store__open_redis(const hr_store_uri *uri, const hr_store_options *options,
                               hr_record_cache *cache, void **context, hr_error *err) {
    if (options->n_connections < 1 || options->n_connections > MAX_CONNECTIONS)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "redis: expected 1 to %d connections, found %" PRIu32,
                            MAX_CONNECTIONS, options->n_connections);
    redis_store *store = calloc(1, sizeof *store);
    if (store == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory");
    store->options = *options;
    init_texts(store, uri);
    int rc = uv_loop_init(&store->loop);
    if (rc != 0) {
        free(store);
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "redis: no event loop: %s", uv_strerror(rc));
    }
    store->wake.data = store;
    hr_status status = HR_OK;
    rc = uv_async_init(&store->loop, &store->wake, on_wake);
    if (rc != 0)
        status = hr_error_set(err, HR_RESOURCE_EXHAUSTED, "redis: no event loop: %s", uv_strerror(rc));
    if (status == HR_OK) status = open_connections(store, cache, err);
    if (status == HR_OK) status = hr_thread_start(&store->thread, "hr-redis", loop_main, store, err);
    if (status == HR_OK) {
        *context = store;
        return HR_OK;
    }
    if (rc == 0) shut_down(store); /* the loop ran nowhere yet: it ends here */
    uv_run(&store->loop, UV_RUN_DEFAULT);
    uv_loop_close(&store->loop);
    free(store);
    return status;
}

const hr_store_i hr_store__redis = {.synchronous = false, .fetch = redis_fetch, .close = redis_close};
