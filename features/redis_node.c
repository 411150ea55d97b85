/* A Redis server as the reads see it: see redis_node.h. */
#include "features/redis_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    LANE_RECORDS = 4096,         /* under way on a connection: a few milliseconds' work of a server */
    LANE_NBYTES = 8 << 20,       /* of their answers */
    WAITING_RECORDS = 256 << 10, /* of a node; past it reads are refused */
    MAX_UNSENT_NBYTES = 64 << 20,
    SAY_AGAIN_NS = 1000000000
};

/* --- the server's state, as the log tells it ------------------------------------------------------------ */

/* Down for another reason than was said: worth a line, but not many. */
static bool is_worth_saying(const hr_redis_node *node, const char *reason) {
    return strcmp(node->said, reason) != 0 && hr_clock_ns() - node->said_ns >= SAY_AGAIN_NS;
}

static void set_health(hr_redis_node *node, int now, const char *reason) {
    int before = node->health;
    if (before == HR_NODE_DOWN && now == HR_NODE_REFUSING) return;
    const bool again = now == before && now == HR_NODE_DOWN && is_worth_saying(node, reason);
    if (now == before && !again) return;
    node->health = now;
    node->said_ns = hr_clock_ns();
    snprintf(node->said, sizeof node->said, "%s", reason);
    const hr_log_field server = HR_LOG_STR("server", node->label);
    if (again)
        hr_log(HR_LOG_WARN, "redis still cannot be reached", server, HR_LOG_STR("reason", reason));
    else if (now == HR_NODE_DOWN)
        hr_log(HR_LOG_WARN, before == HR_NODE_UNKNOWN ? "redis cannot be reached" : "redis connection lost",
               server, HR_LOG_STR("reason", reason));
    else if (now == HR_NODE_REFUSING)
        hr_log(HR_LOG_WARN, "redis refuses to answer", server, HR_LOG_STR("reason", reason));
    else if (before == HR_NODE_DOWN)
        hr_log(HR_LOG_INFO, "redis connection restored", server);
    else
        hr_log(HR_LOG_INFO, before == HR_NODE_REFUSING ? "redis answers again" : "redis connected", server);
}

/* A server may refuse some reads (of an ACL's other keys, say) and answer others: it counts as refusing until
 * it has not refused for a while, so that the log does not tell of each. */
static bool still_refuses(const hr_redis_node *node) {
    return node->health == HR_NODE_REFUSING && hr_clock_ns() - node->refused_ns < SAY_AGAIN_NS;
}

bool hr_redis_node_is_ready(const hr_redis_node *node) {
    for (size_t i = 0; i < node->n_lanes; i++)
        if (hr_redis_connection_is_ready(node->lanes[i].connection)) return true;
    return false;
}

static bool accepts(const hr_redis_node *node) {
    for (size_t i = 0; i < node->n_lanes; i++)
        if (hr_redis_connection_accepts(node->lanes[i].connection)) return true;
    return false;
}

const char *hr_redis_node_refusal(const hr_redis_node *node, uint64_t now_ns) {
    if (!accepts(node)) return node->failure[0] != '\0' ? node->failure : "not connected";
    return hr_redis_breaker_admits(&node->breaker, now_ns) ? NULL : node->failure;
}

/* --- room ----------------------------------------------------------------------------------------------- */

static bool has_room(const hr_redis_node *node, const hr_redis_lane *lane, size_t n_records) {
    size_t n = lane->n_records + n_records;
    if (hr_redis_connection_unsent_nbytes(lane->connection) > MAX_UNSENT_NBYTES) return false;
    return lane->n_records == 0 || (n <= LANE_RECORDS && (double)n * node->record_nbytes <= LANE_NBYTES);
}

hr_redis_lane *hr_redis_node_lane(hr_redis_node *node, size_t n_records) {
    hr_redis_lane *best = NULL;
    bool best_ready = false;
    for (size_t k = 0; k < node->n_lanes; k++) {
        hr_redis_lane *lane = &node->lanes[(node->next_lane + k) % node->n_lanes];
        if (!hr_redis_connection_accepts(lane->connection) || !has_room(node, lane, n_records)) continue;
        bool ready = hr_redis_connection_is_ready(lane->connection);
        if (best != NULL &&
            (ready < best_ready || (ready == best_ready && lane->n_records >= best->n_records)))
            continue;
        best = lane;
        best_ready = ready;
    }
    if (node->n_lanes > 0) node->next_lane = (node->next_lane + 1) % node->n_lanes;
    return best;
}

bool hr_redis_node_wait(hr_redis_node *node, hr_redis_waiter *waiter) {
    if (node->n_waiting_records + waiter->n_records > WAITING_RECORDS && node->first_waiting != NULL)
        return false;
    waiter->next = NULL;
    *node->last_waiting = waiter;
    node->last_waiting = &waiter->next;
    node->n_waiting_records += waiter->n_records;
    return true;
}

bool hr_redis_node_has_waiters(const hr_redis_node *node) {
    return node->first_waiting != NULL;
}

/* In order of coming, as far as there is room; all of them where the node cannot be asked. */
static void let_waiters_go(hr_redis_node *node) {
    if (node->letting_go) return;
    node->letting_go = true;
    while (node->first_waiting != NULL) {
        hr_redis_waiter *waiter = node->first_waiting;
        bool goes = hr_redis_node_refusal(node, hr_clock_ns()) == NULL;
        hr_redis_lane *lane = goes ? hr_redis_node_lane(node, waiter->n_records) : NULL;
        if (goes && lane == NULL) break;
        node->first_waiting = waiter->next;
        if (node->first_waiting == NULL) node->last_waiting = &node->first_waiting;
        node->n_waiting_records -= waiter->n_records;
        waiter->go(waiter, lane);
    }
    node->letting_go = false;
}

void hr_redis_lane_take(hr_redis_lane *lane, size_t n_records) {
    lane->n_records += n_records;
}

void hr_redis_lane_give(hr_redis_lane *lane, size_t n_records) {
    lane->n_records -= n_records;
    if (lane->node->first_waiting != NULL) let_waiters_go(lane->node);
}

/* --- does it answer? ------------------------------------------------------------------------------------ */

static void on_probe(uv_timer_t *timer);

static void wait_for_probe(hr_redis_node *node) {
    uv_timer_start(&node->probe, on_probe, hr_redis_breaker_wait_ms(&node->breaker), 0);
}

static void probe_finish(const hr_redis_command *command, const hr_redis_result *result) {
    hr_redis_node *node = command->context;
    node->probe_sent = false;
    if (result->outcome == HR_REDIS_ANSWERED) hr_redis_breaker_half_open(&node->breaker);
}

static void on_probe(uv_timer_t *timer) {
    static const hr_redis_command_i probe_i = {.text = NULL, .finish = probe_finish};
    hr_redis_node *node = timer->data;
    if (node->breaker.state != HR_BREAKER_OPEN) return;
    wait_for_probe(node);
    for (size_t i = 0; i < node->n_lanes && !node->probe_sent; i++) {
        hr_redis_connection *c = node->lanes[i].connection;
        if (!hr_redis_connection_is_ready(c)) continue;
        const hr_redis_command ping = {&probe_i, node, 0, HR_REDIS_STATUS_REPLY};
        hr_redis_begin(c, 1);
        hr_redis_text(c, "PING", 4, NULL, 0);
        node->probe_sent = hr_redis_commit(c, &ping) == HR_OK;
    }
}

void hr_redis_node_answered(hr_redis_node *node, uint64_t took_ns, size_t n_records, size_t nbytes,
                            bool too_late) {
    const bool was_closed = node->breaker.state == HR_BREAKER_CLOSED;
    if (!too_late) hr_redis_breaker_answered(&node->breaker);
    hr_redis_latency_add(&node->latency, took_ns);
    if (n_records > 0) node->record_nbytes += ((double)nbytes / (double)n_records - node->record_nbytes) / 16;
    if (!still_refuses(node)) set_health(node, HR_NODE_UP, "");
    if (!was_closed && node->breaker.state == HR_BREAKER_CLOSED)
        hr_log(HR_LOG_INFO, "redis is asked again", HR_LOG_STR("server", node->label));
}

void hr_redis_node_failed(hr_redis_node *node, const char *reason) {
    if (node->breaker.state != HR_BREAKER_OPEN) snprintf(node->failure, sizeof node->failure, "%s", reason);
    const bool was_closed = node->breaker.state == HR_BREAKER_CLOSED;
    if (!hr_redis_breaker_failed(&node->breaker)) return;
    snprintf(node->failure, sizeof node->failure, "not asked after %u failures in a row, the last: %s",
             node->breaker.n_failures, reason);
    hr_redis_count(&node->of->counts->breaker_opens, 1);
    if (was_closed)
        hr_log(HR_LOG_WARN, "redis does not answer and is not asked for a while",
               HR_LOG_STR("server", node->label), HR_LOG_STR("reason", reason));
    wait_for_probe(node);
    let_waiters_go(node);
}

void hr_redis_node_refused(hr_redis_node *node, const char *reason) {
    node->refused_ns = hr_clock_ns();
    snprintf(node->refusal, sizeof node->refusal, "%s", reason);
    set_health(node, HR_NODE_REFUSING, reason);
}

/* --- its life ------------------------------------------------------------------------------------------- */

/* A handshake ends in a PING: whoever is ready has answered one. */
static void lane_changed(void *context, bool ready, const char *reason) {
    hr_redis_node *node = ((hr_redis_lane *)context)->node;
    hr_redis_count(ready ? &node->of->counts->connects : &node->of->counts->disconnects, 1);
    if (ready) {
        if (node->health != HR_NODE_REFUSING) set_health(node, HR_NODE_UP, "");
        hr_redis_breaker_half_open(&node->breaker);
    } else if (!hr_redis_node_is_ready(node)) {
        snprintf(node->failure, sizeof node->failure, "%s", reason);
        set_health(node, HR_NODE_DOWN, reason);
    }
    if (node->of->changed != NULL && ready == hr_redis_node_is_ready(node))
        node->of->changed(node->of->context, node, ready);
    let_waiters_go(node);
}

static bool open_lanes(hr_redis_node *node) {
    const hr_store_uri *uri = node->of->uri;
    const hr_redis_server server = {
        .host = node->address.host,
        .port = node->address.port,
        .db = uri->db,
        .user = uri->user,
        .password = uri->password,
        .connect_timeout_ms = node->of->options->connect_timeout_ms,
        .stall_timeout_ms = node->of->options->command_timeout_ms,
        .readonly = node->of->readonly,
    };
    for (; node->n_lanes < node->of->options->n_connections; node->n_lanes++) {
        hr_redis_lane *lane = &node->lanes[node->n_lanes];
        lane->node = node;
        const hr_redis_listener listener = {.changed = lane_changed, .context = lane};
        lane->connection = hr_redis_connection_create(node->of->loop, &server, listener);
        if (lane->connection == NULL) return false;
    }
    if (node->of->cache == NULL) return true;
    node->cover = hr_redis_cover_create(node->of->loop, &server, uri, node->label,
                                        node->of->options->cache_heartbeat_ms, node->of->cache);
    return node->cover != NULL;
}

hr_redis_node *hr_redis_node_create(const hr_redis_nodes *of, const hr_address *address) {
    hr_redis_node *node = calloc(1, sizeof *node);
    if (node == NULL) return NULL;
    char text[HR_ADDRESS_TEXT_SIZE];
    hr_address_format(address, text);
    snprintf(node->label, sizeof node->label, "redis %s", text);
    node->of = of;
    node->address = *address;
    node->last_waiting = &node->first_waiting;
    node->breaker = hr_redis_breaker_init(of->options->command_timeout_ms * UINT64_C(1000000));
    node->probe.data = node;
    uv_timer_init(of->loop, &node->probe); /* cannot fail */
    if (open_lanes(node)) return node;
    hr_redis_node_close(node);
    return NULL;
}

static void on_probe_closed(uv_handle_t *handle) {
    free(handle->data);
}

void hr_redis_node_close(hr_redis_node *node) {
    if (node == NULL) return;
    snprintf(node->failure, sizeof node->failure, "it is no longer asked");
    for (size_t i = 0; i < node->n_lanes; i++) hr_redis_connection_close(node->lanes[i].connection);
    node->n_lanes = 0;
    let_waiters_go(node);
    hr_redis_cover_close(node->cover);
    uv_close((uv_handle_t *)&node->probe, on_probe_closed);
}

void hr_redis_node_flush(hr_redis_node *node) {
    for (size_t i = 0; i < node->n_lanes; i++) hr_redis_flush(node->lanes[i].connection);
}
