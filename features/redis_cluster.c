/* A Redis Cluster: see redis_cluster.h.
 *
 * Shards hold their nodes by pointer, the master first. A map that is taken replaces all shards; nodes it
 * does not name are closed, and what was under way on them is asked for again.
 */
#include "features/redis_cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    MAX_NODES = 1024,
    MAX_SHARD_NODES = 8,      /* a master and as many replicas as are read, at most */
    REFRESH_MS = 10000,       /* of a map that nobody doubts */
    REFRESH_CACHED_MS = 1000, /* the same where records are cached: a cover ends with its slots */
    REFRESH_DOUBTED_MS = 200, /* while a master cannot be reached, or a slot has none */
    MIN_REFRESH_MS = 100,     /* from one to the next */
    FIRST_RETRY_MS = 50,      /* where nobody could be asked */
    MAX_RETRY_MS = 1000,
    MAX_ASKING_MS = 500, /* of one node, to connect and to answer; then another is asked */
    MAP_ARENA_NBYTES = 64 << 20,
    REASON_SIZE = 320
};

typedef struct shard {
    hr_redis_node *nodes[MAX_SHARD_NODES]; /* borrowed; [0] is the master */
    size_t n_nodes;
} shard;

struct hr_redis_cluster {
    hr_redis_nodes *of;
    void (*told)(void *context);
    void *context;
    hr_redis_node *nodes[MAX_NODES]; /* owned */
    size_t n_nodes;
    shard shards[HR_REDIS_MAX_SHARDS];
    size_t n_shards;
    uint16_t shard_of[HR_REDIS_N_SLOTS]; /* or HR_REDIS_NO_SHARD */
    size_t n_masters, n_slots;           /* of the last map: its shards, and the slots that have one */
    bool known, was_told, closing;
    bool alone;               /* nobody could be asked the last time */
    char reason[REASON_SIZE]; /* why there is no map, or no node for a slot */

    uv_timer_t timer;                /* to the next refresh */
    uint64_t refreshed_ns;           /* when the last one began */
    hr_redis_connection *connection; /* over which the map is asked for; NULL: it is not */
    hr_address asked;
    bool asked_slots;                     /* by CLUSTER SLOTS */
    bool doubted;                         /* while it was asked for */
    size_t candidate, first;              /* how far this refresh has come in trying; where it began */
    hr_redis_backoff steady, soon, retry; /* to the next, by how the last one ended */
};

/* --- nodes ---------------------------------------------------------------------------------------------- */

static hr_redis_node *find_node(hr_redis_cluster *cluster, const hr_address *address) {
    for (size_t i = 0; i < cluster->n_nodes; i++) {
        const hr_address *of = &cluster->nodes[i]->address;
        if (of->port == address->port && strcmp(of->host, address->host) == 0) return cluster->nodes[i];
    }
    return NULL;
}

hr_redis_node *hr_redis_cluster_node(hr_redis_cluster *cluster, const hr_address *address) {
    hr_redis_node *node = find_node(cluster, address);
    if (node != NULL || cluster->n_nodes == MAX_NODES || cluster->closing) return node;
    node = hr_redis_node_create(cluster->of, address);
    if (node == NULL) return NULL;
    node->shard = HR_REDIS_NO_SHARD;
    cluster->nodes[cluster->n_nodes++] = node;
    return node;
}

/* They leave the cluster before they are closed: what is under way on them is routed anew then. */
static void close_unwanted(hr_redis_cluster *cluster) {
    hr_redis_node *unwanted[MAX_NODES];
    size_t n_unwanted = 0, n = 0;
    for (size_t i = 0; i < cluster->n_nodes; i++) {
        hr_redis_node *node = cluster->nodes[i];
        if (node->wanted)
            cluster->nodes[n++] = node;
        else
            unwanted[n_unwanted++] = node;
    }
    cluster->n_nodes = n;
    for (size_t i = 0; i < n_unwanted; i++) hr_redis_node_close(unwanted[i]);
}

/* --- routing -------------------------------------------------------------------------------------------- */

bool hr_redis_cluster_is_unknown(const hr_redis_cluster *cluster) {
    return !cluster->was_told;
}

static size_t under_way(const hr_redis_node *node) {
    size_t n = node->n_waiting_records;
    for (size_t i = 0; i < node->n_lanes; i++) n += node->lanes[i].n_records;
    return n;
}

/* The one with the least under way of the shard's nodes from `first` on that may be asked. */
static hr_redis_node *least_busy(const shard *s, size_t first, const hr_redis_node *but) {
    const uint64_t now_ns = hr_clock_ns();
    hr_redis_node *best = NULL;
    for (size_t i = first; i < s->n_nodes; i++) {
        hr_redis_node *node = s->nodes[i];
        if (node == but || hr_redis_node_refusal(node, now_ns) != NULL) continue;
        if (best == NULL || under_way(node) < under_way(best)) best = node;
    }
    return best;
}

hr_redis_node *hr_redis_cluster_route(hr_redis_cluster *cluster, uint16_t slot, const char **reason) {
    const uint16_t index = cluster->shard_of[slot];
    if (index == HR_REDIS_NO_SHARD) {
        if (cluster->known)
            snprintf(cluster->reason, sizeof cluster->reason, "%.280s: nobody serves slot %u",
                     cluster->of->name, slot);
        *reason = cluster->reason;
        hr_redis_cluster_doubt(cluster);
        return NULL;
    }
    const shard *s = &cluster->shards[index];
    hr_redis_node *node = cluster->of->uri->read_replicas ? least_busy(s, 1, NULL) : NULL;
    if (node == NULL && s->n_nodes > 1 && hr_redis_node_refusal(s->nodes[0], hr_clock_ns()) != NULL)
        node = least_busy(s, 1, NULL); /* a replica, where they are known, rather than nobody */
    return node != NULL ? node : s->nodes[0];
}

hr_redis_node *hr_redis_cluster_second(hr_redis_cluster *cluster, const hr_redis_node *node) {
    if (node->shard == HR_REDIS_NO_SHARD) return NULL;
    return least_busy(&cluster->shards[node->shard], 0, node);
}

/* The shard of which the node is the master, made where there is none; NO_SHARD where there are too many. */
static size_t shard_of_master(hr_redis_cluster *cluster, hr_redis_node *node) {
    if (node->shard != HR_REDIS_NO_SHARD && cluster->shards[node->shard].nodes[0] == node) return node->shard;
    if (cluster->n_shards == HR_REDIS_MAX_SHARDS) return HR_REDIS_NO_SHARD;
    cluster->shards[cluster->n_shards] = (shard){.nodes = {node}, .n_nodes = 1};
    node->shard = cluster->n_shards;
    return cluster->n_shards++;
}

static void mark_lost(hr_redis_cluster *cluster, uint16_t of) {
    if (of == HR_REDIS_NO_SHARD) return;
    for (size_t i = 0; i < cluster->shards[of].n_nodes; i++) cluster->shards[of].nodes[i]->lost_slots = true;
}

hr_redis_node *hr_redis_cluster_moved(hr_redis_cluster *cluster, uint16_t slot, const hr_address *to) {
    hr_redis_cluster_doubt(cluster);
    hr_redis_node *node = hr_redis_cluster_node(cluster, to);
    if (node == NULL) return NULL;
    size_t index = shard_of_master(cluster, node);
    if (index == HR_REDIS_NO_SHARD || cluster->shard_of[slot] == index) return node;
    mark_lost(cluster, cluster->shard_of[slot]);
    cluster->shard_of[slot] = (uint16_t)index;
    return node;
}

/* --- taking a map --------------------------------------------------------------------------------------- */

static bool take_shard(hr_redis_cluster *cluster, const hr_redis_shard *from, shard *to) {
    const bool replicas = cluster->of->readonly;
    to->n_nodes = 0;
    for (size_t i = 0; i < from->n_nodes && to->n_nodes < (replicas ? MAX_SHARD_NODES : 1); i++) {
        hr_redis_node *node = hr_redis_cluster_node(cluster, &from->nodes[i]);
        if (node == NULL) return false;
        node->wanted = true;
        node->shard = (size_t)(to - cluster->shards);
        to->nodes[to->n_nodes++] = node;
    }
    return true;
}

static void log_map(const hr_redis_cluster *cluster, size_t n_masters_before, size_t n_slots_before) {
    if (cluster->n_masters == n_masters_before && cluster->n_slots == n_slots_before) return;
    const hr_log_field server = HR_LOG_STR("server", cluster->of->name);
    const hr_log_field masters = HR_LOG_INT("masters", cluster->n_masters),
                       slots = HR_LOG_INT("slots", cluster->n_slots);
    if (cluster->n_slots < HR_REDIS_N_SLOTS)
        hr_log(HR_LOG_WARN, "redis cluster does not serve every slot", server, masters, slots);
    else
        hr_log(HR_LOG_INFO, "redis cluster known", server, masters, slots);
}

static bool is_master(const hr_redis_node *node, const hr_redis_map *map, uint16_t of) {
    if (of == HR_REDIS_NO_SHARD) return false;
    const hr_address *master = &map->shards[of].nodes[0];
    return node->address.port == master->port && strcmp(node->address.host, master->host) == 0;
}

/* Marks those that serve a slot and, by the map, will not. */
static void compare_map(hr_redis_cluster *cluster, const hr_redis_map *map) {
    uint16_t before = HR_REDIS_NO_SHARD, after = HR_REDIS_NO_SHARD; /* of the last slot looked at */
    for (size_t slot = 0; slot < HR_REDIS_N_SLOTS; slot++) {
        if (cluster->shard_of[slot] == before && map->shard_of[slot] == after) continue;
        before = cluster->shard_of[slot];
        after = map->shard_of[slot];
        if (before != HR_REDIS_NO_SHARD && !is_master(cluster->shards[before].nodes[0], map, after))
            mark_lost(cluster, before);
    }
}

static void renew_covers(hr_redis_cluster *cluster) {
    for (size_t i = 0; i < cluster->n_nodes; i++) {
        if (cluster->nodes[i]->lost_slots) hr_redis_cover_renew(cluster->nodes[i]->cover);
        cluster->nodes[i]->lost_slots = false;
    }
}

/* False when out of memory, or where there are too many nodes: the cluster then has what it could take. */
static bool take_map(hr_redis_cluster *cluster, const hr_redis_map *map) {
    const size_t n_masters_before = cluster->n_masters, n_slots_before = cluster->n_slots;
    bool whole = true;
    compare_map(cluster, map);
    renew_covers(cluster);
    for (size_t i = 0; i < cluster->n_nodes; i++) {
        cluster->nodes[i]->wanted = false;
        cluster->nodes[i]->shard = HR_REDIS_NO_SHARD;
    }
    cluster->n_shards = cluster->n_masters = map->n_shards;
    for (size_t i = 0; i < map->n_shards; i++)
        whole = take_shard(cluster, &map->shards[i], &cluster->shards[i]) && whole;
    cluster->n_slots = 0;
    for (size_t slot = 0; slot < HR_REDIS_N_SLOTS; slot++) {
        uint16_t of = map->shard_of[slot];
        if (of != HR_REDIS_NO_SHARD && cluster->shards[of].n_nodes == 0) of = HR_REDIS_NO_SHARD;
        cluster->shard_of[slot] = of;
        cluster->n_slots += of != HR_REDIS_NO_SHARD;
    }
    hr_redis_count(&cluster->of->counts->maps, 1);
    log_map(cluster, n_masters_before, n_slots_before);
    close_unwanted(cluster);
    return whole;
}

/* --- asking for it -------------------------------------------------------------------------------------- */

static void ask_next(hr_redis_cluster *cluster);

static void on_timer(uv_timer_t *timer) {
    hr_redis_cluster *cluster = timer->data;
    cluster->refreshed_ns = hr_clock_ns();
    cluster->doubted = false;
    cluster->candidate = 0;
    cluster->first++;
    ask_next(cluster);
}

/* Never sooner than MIN_REFRESH_MS after the last; a refresh that is due sooner stays. */
static void refresh_later(hr_redis_cluster *cluster, uint64_t after_ms) {
    if (cluster->closing || cluster->connection != NULL) return;
    const uint64_t since_ms = (hr_clock_ns() - cluster->refreshed_ns) / 1000000;
    if (since_ms + after_ms < MIN_REFRESH_MS) after_ms = MIN_REFRESH_MS - since_ms;
    if (uv_is_active((uv_handle_t *)&cluster->timer) && uv_timer_get_due_in(&cluster->timer) <= after_ms)
        return;
    uv_timer_start(&cluster->timer, on_timer, after_ms, 0);
}

void hr_redis_cluster_doubt(hr_redis_cluster *cluster) {
    cluster->doubted = true;
    if (!cluster->alone) refresh_later(cluster, 0);
}

static bool is_healthy(const hr_redis_cluster *cluster) {
    for (size_t i = 0; i < cluster->n_shards; i++)
        if (cluster->shards[i].n_nodes == 0 || !hr_redis_node_is_ready(cluster->shards[i].nodes[0]))
            return false;
    return cluster->n_slots == HR_REDIS_N_SLOTS;
}

static void tell(hr_redis_cluster *cluster) {
    if (cluster->was_told) return;
    cluster->was_told = true;
    cluster->told(cluster->context);
}

static void stop_asking(hr_redis_cluster *cluster) {
    hr_redis_connection_close(cluster->connection);
    cluster->connection = NULL;
}

static void nobody_answered(hr_redis_cluster *cluster) {
    hr_log(cluster->was_told ? HR_LOG_DEBUG : HR_LOG_WARN, "redis cluster has no node to ask for its map",
           HR_LOG_STR("server", cluster->of->name), HR_LOG_STR("reason", cluster->reason));
    cluster->alone = true;
    refresh_later(cluster, hr_redis_backoff_next_ms(&cluster->retry));
    tell(cluster);
}

static void candidate_failed(hr_redis_cluster *cluster, const char *reason) {
    char text[HR_ADDRESS_TEXT_SIZE];
    hr_address_format(&cluster->asked, text);
    snprintf(cluster->reason, sizeof cluster->reason, "redis cluster: %.200s: %.100s", text, reason);
    stop_asking(cluster);
    ask_next(cluster);
}

static void send_question(hr_redis_cluster *cluster, bool slots);

static void take_answer(hr_redis_cluster *cluster, const hr_redis_value *answer) {
    hr_error err = {.code = HR_OK};
    hr_arena *arena = hr_arena_create(MAP_ARENA_NBYTES);
    hr_redis_map *map = malloc(sizeof *map);
    hr_status status = HR_OUT_OF_MEMORY;
    if (arena != NULL && map != NULL)
        status = (cluster->asked_slots ? hr_redis_map_read_slots : hr_redis_map_read_shards)(
            answer, cluster->asked.host, arena, map, &err);
    if (status == HR_OK) {
        stop_asking(cluster);
        hr_redis_backoff_reset(&cluster->retry);
        cluster->known = true;
        cluster->alone = false;
        bool whole = take_map(cluster, map);
        bool fine = whole && !cluster->doubted && is_healthy(cluster);
        refresh_later(cluster, hr_redis_backoff_next_ms(fine ? &cluster->steady : &cluster->soon));
        tell(cluster);
    } else {
        candidate_failed(cluster, err.code != HR_OK ? err.message : "out of memory");
    }
    free(map);
    hr_arena_destroy(arena);
}

static void question_finish(const hr_redis_command *command, const hr_redis_result *result) {
    hr_redis_cluster *cluster = command->context;
    if (result->outcome == HR_REDIS_ANSWERED)
        take_answer(cluster, result->value);
    else if (result->outcome == HR_REDIS_REFUSED && !cluster->asked_slots)
        send_question(cluster, true); /* a server before 7.0 */
    else if (result->outcome == HR_REDIS_REFUSED)
        candidate_failed(cluster, hr_quote(result->reason, strlen(result->reason)).text);
}

static void send_question(hr_redis_cluster *cluster, bool slots) {
    static const hr_redis_command_i question_i = {.text = NULL, .finish = question_finish};
    const hr_redis_command question = {&question_i, cluster, 0, HR_REDIS_ANY_REPLY};
    cluster->asked_slots = slots;
    hr_redis_begin(cluster->connection, 2);
    hr_redis_text(cluster->connection, "CLUSTER", 7, NULL, 0);
    hr_redis_text(cluster->connection, slots ? "SLOTS" : "SHARDS", slots ? 5 : 6, NULL, 0);
    if (hr_redis_commit(cluster->connection, &question) == HR_OK)
        hr_redis_flush(cluster->connection);
    else
        candidate_failed(cluster, "out of memory");
}

static void connection_changed(void *context, bool ready, const char *reason) {
    hr_redis_cluster *cluster = context;
    if (ready)
        send_question(cluster, false);
    else
        candidate_failed(cluster, reason);
}

/* First the nodes that answer, then the others, then the servers of the URI; each time from another one on.
 * False where number `candidate` is nobody. */
static bool choose_candidate(hr_redis_cluster *cluster) {
    size_t k = cluster->candidate, n = cluster->n_nodes;
    if (k >= 2 * n) {
        cluster->asked =
            cluster->of->uri->servers[(k - 2 * n + cluster->first) % cluster->of->uri->n_servers];
        return true;
    }
    const hr_redis_node *node = cluster->nodes[(k + cluster->first) % n];
    bool answers = hr_redis_node_is_ready(node) && node->breaker.state == HR_BREAKER_CLOSED;
    cluster->asked = node->address;
    return answers == (k < n);
}

static void ask_next(hr_redis_cluster *cluster) {
    const hr_redis_nodes *of = cluster->of;
    while (cluster->candidate < 2 * cluster->n_nodes + of->uri->n_servers) {
        bool chosen = choose_candidate(cluster);
        cluster->candidate++;
        if (!chosen) continue;
        const uint32_t connect_ms = of->options->connect_timeout_ms,
                       answer_ms = of->options->command_timeout_ms;
        const hr_redis_server server = {
            .host = cluster->asked.host,
            .port = cluster->asked.port,
            .user = of->uri->user,
            .password = of->uri->password,
            .connect_timeout_ms = connect_ms < MAX_ASKING_MS ? connect_ms : MAX_ASKING_MS,
            .stall_timeout_ms = answer_ms < MAX_ASKING_MS ? answer_ms : MAX_ASKING_MS,
        };
        const hr_redis_listener listener = {.changed = connection_changed, .context = cluster};
        cluster->connection = hr_redis_connection_create(of->loop, &server, listener);
        if (cluster->connection != NULL) return;
    }
    nobody_answered(cluster);
}

/* --- its life ------------------------------------------------------------------------------------------- */

static void node_changed(void *context, hr_redis_node *node, bool ready) {
    (void)node;
    if (!ready) hr_redis_cluster_doubt(context);
}

hr_redis_cluster *hr_redis_cluster_create(hr_redis_nodes *of, void (*told)(void *context), void *context) {
    hr_redis_cluster *cluster = calloc(1, sizeof *cluster);
    if (cluster == NULL) return NULL;
    of->changed = node_changed;
    of->context = cluster;
    cluster->of = of;
    cluster->told = told;
    cluster->context = context;
    const uint32_t refresh_ms = of->cache != NULL ? REFRESH_CACHED_MS : REFRESH_MS;
    cluster->steady = hr_redis_backoff_init(refresh_ms, refresh_ms);
    cluster->soon = hr_redis_backoff_init(REFRESH_DOUBTED_MS, REFRESH_DOUBTED_MS);
    cluster->retry = hr_redis_backoff_init(FIRST_RETRY_MS, MAX_RETRY_MS);
    for (size_t slot = 0; slot < HR_REDIS_N_SLOTS; slot++) cluster->shard_of[slot] = HR_REDIS_NO_SHARD;
    cluster->timer.data = cluster;
    uv_timer_init(of->loop, &cluster->timer); /* cannot fail */
    uv_timer_start(&cluster->timer, on_timer, 0, 0);
    return cluster;
}

static void on_timer_closed(uv_handle_t *handle) {
    free(handle->data);
}

void hr_redis_cluster_close(hr_redis_cluster *cluster) {
    if (cluster == NULL) return;
    cluster->closing = true;
    stop_asking(cluster);
    for (size_t i = 0; i < cluster->n_nodes; i++) cluster->nodes[i]->wanted = false;
    close_unwanted(cluster);
    uv_close((uv_handle_t *)&cluster->timer, on_timer_closed);
}

void hr_redis_cluster_flush(hr_redis_cluster *cluster) {
    for (size_t i = 0; i < cluster->n_nodes; i++) hr_redis_node_flush(cluster->nodes[i]);
}
