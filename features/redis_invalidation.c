/* Server-assisted invalidation: see redis_invalidation.h.
 *
 *   DOWN --ready--> CLIENT ID --> CLIENT TRACKING --> SUBSCRIBE --> COVERED     each step by its answer
 *    ^                  |               |                 |            |
 *    +------------------+---------------+-----------------+------------+
 *       the connection is lost; no answer within the heartbeat; an answer that is none of these
 *
 * A server that refuses a step (too old, or an ACL) is asked again after RETRY_MS: a refusal hardly ends by
 * itself. The timer beats twice in a heartbeat; nothing heard between two beats, though a PING was sent on
 * the first, is the end.
 */
#include "features/redis_invalidation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { RETRY_MS = 30000 };

static const char channel[] = "__redis__:invalidate";

typedef enum state { DOWN, ASKING_ID, TRACKING, SUBSCRIBING, COVERED, REFUSED } state;

struct hr_redis_invalidation {
    hr_redis_connection *connection;
    hr_redis_invalidation_listener listener;
    const char *prefix;
    size_t prefix_nbytes;
    uint32_t heartbeat_ms;
    uv_timer_t timer;
    state state;
    bool heard; /* since the last beat */
};

static void put(hr_redis_invalidation *in, const char *text) {
    hr_redis_text(in->connection, text, strlen(text), NULL, 0);
}

/* Sends the command that was begun and put; the next state waits for its answer. */
static void commit(hr_redis_invalidation *in, state next) {
    if (hr_redis_commit(in->connection, NULL) != HR_OK) {
        hr_redis_connection_give_up(in->connection, "out of memory");
        return;
    }
    in->state = next;
    hr_redis_flush(in->connection);
}

static void ask(hr_redis_invalidation *in, const char *const *words, size_t n_words, state next) {
    hr_redis_begin(in->connection, n_words);
    for (size_t i = 0; i < n_words; i++) put(in, words[i]);
    commit(in, next);
}

static void ask_tracking(hr_redis_invalidation *in, const char *id) {
    const char *const words[] = {"CLIENT", "TRACKING", "ON", "REDIRECT", id, "BCAST", "PREFIX"};
    hr_redis_begin(in->connection, 8);
    for (size_t i = 0; i < 7; i++) put(in, words[i]);
    hr_redis_text(in->connection, in->prefix, in->prefix_nbytes, NULL, 0);
    commit(in, TRACKING);
}

static void on_beat(uv_timer_t *timer) {
    hr_redis_invalidation *in = timer->data;
    if (in->state == DOWN) return;
    if (in->state == REFUSED || !in->heard) {
        char reason[64];
        snprintf(reason, sizeof reason, "no answer within the heartbeat of %u ms", in->heartbeat_ms);
        hr_redis_connection_give_up(in->connection, in->state == REFUSED ? "trying again" : reason);
        return;
    }
    in->heard = false;
    const char *const ping[] = {"PING"};
    ask(in, ping, 1, in->state);
}

static void connection_changed(void *context, bool ready, const char *reason) {
    hr_redis_invalidation *in = context;
    if (ready) {
        const char *const words[] = {"CLIENT", "ID"};
        const uint64_t half_ms = in->heartbeat_ms / 2;
        in->heard = true;
        uv_timer_start(&in->timer, on_beat, half_ms, half_ms);
        ask(in, words, 2, ASKING_ID);
        return;
    }
    bool told = in->state == REFUSED;
    in->state = DOWN;
    uv_timer_stop(&in->timer);
    if (!told) in->listener.covered(in->listener.context, false, reason);
}

/* --- messages ------------------------------------------------------------------------------------------- */

static bool is_text(const hr_redis_value *reply, const char *text) {
    return (reply->type == HR_REDIS_TEXT || reply->type == HR_REDIS_STATUS) &&
           strcasecmp(reply->text, text) == 0;
}

/* An array of three that begins with the word and the channel; else NULL: its last element. */
static const hr_redis_value *last_of(const hr_redis_value *message, const char *word) {
    if (message->type != HR_REDIS_ARRAY || message->n_elements != 3) return NULL;
    if (!is_text(&message->elements[0], word) || !is_text(&message->elements[1], channel)) return NULL;
    return &message->elements[2];
}

static bool is_pong(const hr_redis_value *message) {
    return is_text(message, "PONG") || (message->type == HR_REDIS_ARRAY && message->n_elements == 2 &&
                                        is_text(&message->elements[0], "pong"));
}

static void refused(hr_redis_invalidation *in, const hr_redis_value *error) {
    in->state = REFUSED;
    uv_timer_start(&in->timer, on_beat, RETRY_MS, 0);
    in->listener.covered(in->listener.context, false, hr_quote(error->text, error->nbytes).text);
}

/* False where a key is not a text: then none is told. */
static bool tell_keys(hr_redis_invalidation *in, const hr_redis_value *keys) {
    for (size_t i = 0; i < keys->n_elements; i++)
        if (keys->elements[i].type != HR_REDIS_TEXT) return false;
    for (size_t i = 0; i < keys->n_elements; i++)
        in->listener.changed(in->listener.context, keys->elements[i].text, keys->elements[i].nbytes);
    return true;
}

/* False where it is nothing that belongs there. */
static bool take_invalidation(hr_redis_invalidation *in, const hr_redis_value *message) {
    const hr_redis_value *keys = last_of(message, "message");
    if (keys == NULL) return is_pong(message);
    if (keys->type == HR_REDIS_ARRAY) return tell_keys(in, keys);
    if (keys->type != HR_REDIS_NIL) return false;
    in->listener.emptied(in->listener.context);
    return true;
}

static bool take_answer(hr_redis_invalidation *in, const hr_redis_value *message) {
    if (is_pong(message)) return true;
    if (in->state == ASKING_ID && message->type == HR_REDIS_INTEGER) {
        char id[24];
        snprintf(id, sizeof id, "%" PRId64, message->integer);
        ask_tracking(in, id);
        return true;
    }
    if (in->state == TRACKING && is_text(message, "OK")) {
        const char *const words[] = {"SUBSCRIBE", channel};
        ask(in, words, 2, SUBSCRIBING);
        return true;
    }
    if (in->state == SUBSCRIBING && last_of(message, "subscribe") != NULL) {
        in->state = COVERED;
        in->listener.covered(in->listener.context, true, "");
        return true;
    }
    return false;
}

static void take_message(void *context, const hr_redis_value *message) {
    hr_redis_invalidation *in = context;
    in->heard = true;
    if (in->state == REFUSED) return;
    if (message->type == HR_REDIS_ERROR && in->state != COVERED)
        refused(in, message);
    else if (!(in->state == COVERED ? take_invalidation(in, message) : take_answer(in, message)))
        hr_redis_connection_give_up(in->connection, "not a valid answer to tracking or message of it");
}

/* --- its life ------------------------------------------------------------------------------------------- */

static void on_timer_closed(uv_handle_t *handle) {
    free(handle->data);
}

hr_redis_invalidation *hr_redis_invalidation_create(uv_loop_t *loop, const hr_redis_server *server,
                                                    const char *prefix, size_t prefix_nbytes,
                                                    uint32_t heartbeat_ms,
                                                    hr_redis_invalidation_listener listener) {
    hr_redis_invalidation *in = calloc(1, sizeof *in);
    if (in == NULL) return NULL;
    in->listener = listener;
    in->prefix = prefix;
    in->prefix_nbytes = prefix_nbytes;
    in->heartbeat_ms = heartbeat_ms;
    in->timer.data = in;
    uv_timer_init(loop, &in->timer); /* cannot fail */
    const hr_redis_listener of_connection = {connection_changed, in, take_message};
    in->connection = hr_redis_connection_create(loop, server, of_connection);
    if (in->connection != NULL) return in;
    uv_close((uv_handle_t *)&in->timer, on_timer_closed);
    return NULL;
}

void hr_redis_invalidation_close(hr_redis_invalidation *in) {
    if (in == NULL) return;
    hr_redis_connection_close(in->connection);
    uv_close((uv_handle_t *)&in->timer, on_timer_closed);
}
