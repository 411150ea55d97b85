/* A real Redis Cluster for tests: see redis_cluster.h. */
#include "tests/features/redis_cluster.h"

#include <hiredis/hiredis.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "features/redis_slots.h"

enum { PATIENCE_S = 60 };

typedef int condition(const redis_cluster *cluster, const void *arg);

/* Waits, with a look every few milliseconds, until the condition holds. Returns whether it does by then. */
static int holds_within(time_t seconds, condition *holds, const redis_cluster *cluster, const void *arg) {
    time_t end = time(NULL) + seconds;
    while (!holds(cluster, arg)) {
        if (time(NULL) > end) return 0;
        usleep(10000);
    }
    return 1;
}

static void wait_until(condition *holds, const redis_cluster *cluster, const void *arg, const char *what) {
    if (!holds_within(PATIENCE_S, holds, cluster, arg))
        fail_msg("the cluster: no %s after %d s", what, PATIENCE_S);
}

static int says(const redis_server *node, const char *command, const char *words) {
    redisReply *reply = redis_server_ask(node, command);
    int said = reply != NULL && reply->type == REDIS_REPLY_STRING && strstr(reply->str, words) != NULL;
    freeReplyObject(reply);
    return said;
}

/* How many replicas in step the node knows of: `health online` in CLUSTER SHARDS. */
static int knows_replicas(const redis_server *node, size_t n) {
    redisReply *reply = redis_server_ask(node, "CLUSTER SHARDS");
    size_t n_online = 0;
    for (size_t s = 0; reply != NULL && s < reply->elements; s++) {
        const redisReply *nodes = reply->element[s]->element[3];
        for (size_t k = 0; k < nodes->elements; k++) {
            const redisReply *of = nodes->element[k];
            n_online += strcmp(of->element[of->elements - 5]->str, "replica") == 0 &&
                        strcmp(of->element[of->elements - 1]->str, "online") == 0;
        }
    }
    freeReplyObject(reply);
    return n_online == n;
}

static int all_is_well(const redis_cluster *cluster, const void *arg) {
    (void)arg;
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++) {
        const redis_server *node = &cluster->nodes[i];
        if (!says(node, "CLUSTER INFO", "cluster_state:ok") ||
            !says(node, "CLUSTER INFO", "cluster_slots_ok:16384") ||
            !says(node, "CLUSTER INFO", "cluster_known_nodes:6") ||
            says(node, "INFO replication", "master_link_status:down") || !knows_replicas(node, 3))
            return 0;
    }
    return 1;
}

static void start_node(redis_cluster *cluster, int i) {
    snprintf(cluster->texts[i][0], sizeof cluster->texts[i][0], "node-%d.conf", i);
    snprintf(cluster->texts[i][1], sizeof cluster->texts[i][1], "%u", redis_server_free_port());
    const char *const options[] = {"--dir",
                                   cluster->folder,
                                   "--cluster-enabled",
                                   "yes",
                                   "--cluster-node-timeout",
                                   "1000",
                                   "--cluster-config-file",
                                   cluster->texts[i][0],
                                   "--cluster-port",
                                   cluster->texts[i][1],
                                   "--repl-diskless-sync-delay",
                                   "0",
                                   "--repl-ping-replica-period",
                                   "1",
                                   NULL};
    redis_server_start_with(&cluster->nodes[i], options);
}

void redis_cluster_start(redis_cluster *cluster) {
    memset(cluster, 0, sizeof *cluster);
    snprintf(cluster->folder, sizeof cluster->folder, "/tmp/homerank-cluster-XXXXXX");
    assert_non_null(mkdtemp(cluster->folder));
    char command[512] = "redis-cli --cluster create --cluster-replicas 1 --cluster-yes";
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++) {
        start_node(cluster, i);
        size_t n = strlen(command);
        snprintf(command + n, sizeof command - n, " 127.0.0.1:%u", cluster->nodes[i].port);
    }
    strcat(command, " >/dev/null");
    if (system(command) != 0) fail_msg("%s failed", command);
    wait_until(all_is_well, cluster, NULL, "well-being");
    snprintf(cluster->uri, sizeof cluster->uri, "redis-cluster://127.0.0.1:%u,127.0.0.1:%u,127.0.0.1:%u",
             cluster->nodes[0].port, cluster->nodes[1].port, cluster->nodes[2].port);
}

void redis_cluster_stop(redis_cluster *cluster) {
    char command[128];
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++) redis_server_kill(&cluster->nodes[i]);
    snprintf(command, sizeof command, "rm -rf %s", cluster->folder);
    if (system(command) != 0) fail_msg("%s failed", command);
}

static int node_of_port(const redis_cluster *cluster, long long port) {
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++)
        if (cluster->nodes[i].port == port) return i;
    return -1;
}

/* Number `which` of the nodes that CLUSTER SLOTS has for the slot, as this node sees it. */
static int seen_by(const redis_cluster *cluster, int node, unsigned slot, size_t which) {
    redisReply *reply = redis_server_ask(&cluster->nodes[node], "CLUSTER SLOTS");
    int found = -1;
    for (size_t r = 0; reply != NULL && r < reply->elements; r++) {
        const redisReply *range = reply->element[r];
        if (range->element[0]->integer > slot || range->element[1]->integer < slot) continue;
        if (2 + which < range->elements)
            found = node_of_port(cluster, range->element[2 + which]->element[1]->integer);
    }
    freeReplyObject(reply);
    return found;
}

static int first_seen(const redis_cluster *cluster, unsigned slot, size_t which) {
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++)
        if (cluster->nodes[i].pid != 0) return seen_by(cluster, i, slot, which);
    return -1;
}

int redis_cluster_master(const redis_cluster *cluster, unsigned slot) {
    return first_seen(cluster, slot, 0);
}

int redis_cluster_replica(const redis_cluster *cluster, unsigned slot) {
    return first_seen(cluster, slot, 1);
}

unsigned redis_cluster_slot(const redis_cluster *cluster, const char *key) {
    redisReply *reply = redis_server_ask(&cluster->nodes[0], "CLUSTER KEYSLOT %s", key);
    assert_true(reply != NULL && reply->type == REDIS_REPLY_INTEGER);
    unsigned slot = (unsigned)reply->integer;
    freeReplyObject(reply);
    return slot;
}

void redis_cluster_do(const redis_cluster *cluster, const char *command) {
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++) redis_server_do(&cluster->nodes[i], command);
}

/* Which node serves each slot, as the first one sees it. */
static void read_owners(const redis_cluster *cluster, int owners[REDIS_CLUSTER_SLOTS]) {
    redisReply *reply = redis_server_ask(&cluster->nodes[0], "CLUSTER SLOTS");
    assert_true(reply != NULL && reply->type == REDIS_REPLY_ARRAY);
    for (size_t r = 0; r < reply->elements; r++) {
        const redisReply *range = reply->element[r];
        for (long long slot = range->element[0]->integer; slot <= range->element[1]->integer; slot++)
            owners[slot] = node_of_port(cluster, range->element[2]->element[1]->integer);
    }
    freeReplyObject(reply);
}

void redis_cluster_load(const redis_cluster *cluster, const char *head, unsigned n, int as_hashes) {
    static int owners[REDIS_CLUSTER_SLOTS];
    unsigned n_sent[REDIS_CLUSTER_NODES] = {0};
    redisContext *to[REDIS_CLUSTER_NODES];
    read_owners(cluster, owners);
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++) to[i] = redisConnect("127.0.0.1", cluster->nodes[i].port);
    for (unsigned i = 0; i < n; i++) {
        char key[128];
        snprintf(key, sizeof key, "%s%u", head, i);
        int owner = owners[hr_redis_key_slot(key, strlen(key), "", 0)];
        redisAppendCommand(to[owner], as_hashes ? "HSET %s f value%u" : "SET %s value%u", key, i);
        n_sent[owner]++;
    }
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++) {
        for (; n_sent[i] > 0; n_sent[i]--) {
            redisReply *reply = NULL;
            assert_int_equal(redisGetReply(to[i], (void **)&reply), REDIS_OK);
            if (reply->type == REDIS_REPLY_ERROR) fail_msg("load: %s", reply->str);
            freeReplyObject(reply);
        }
        redisFree(to[i]);
    }
}

/* Do all that run see another master of the slot than `before`, and, where it is said, this one? */
typedef struct outcome {
    unsigned slot;
    int before, after; /* after: -1: whoever it is */
} outcome;

static int is_agreed(const redis_cluster *cluster, const void *arg) {
    const outcome *of = arg;
    for (int i = 0; i < REDIS_CLUSTER_NODES; i++) {
        if (cluster->nodes[i].pid == 0) continue;
        int master = seen_by(cluster, i, of->slot, 0);
        if (master == -1 || master == of->before || (of->after != -1 && master != of->after) ||
            !says(&cluster->nodes[i], "CLUSTER INFO", "cluster_state:ok"))
            return 0;
    }
    return 1;
}

void redis_cluster_wait_for_election(const redis_cluster *cluster, unsigned slot, int before) {
    const outcome of = {slot, before, -1};
    wait_until(is_agreed, cluster, &of, "election");
}

void redis_cluster_restart(redis_cluster *cluster, int node) {
    redis_server_restart(&cluster->nodes[node]);
    wait_until(all_is_well, cluster, NULL, "well-being");
}

/* --- moving slots --------------------------------------------------------------------------------------- */

static void node_id(const redis_cluster *cluster, int node, char id[64]) {
    redisReply *reply = redis_server_ask(&cluster->nodes[node], "CLUSTER MYID");
    assert_true(reply != NULL && reply->type == REDIS_REPLY_STRING);
    snprintf(id, 64, "%s", reply->str);
    freeReplyObject(reply);
}

void redis_cluster_move_begin(const redis_cluster *cluster, unsigned slot, int from, int to) {
    char from_id[64], to_id[64];
    node_id(cluster, from, from_id);
    node_id(cluster, to, to_id);
    redis_server_do(&cluster->nodes[to], "CLUSTER SETSLOT %u IMPORTING %s", slot, from_id);
    redis_server_do(&cluster->nodes[from], "CLUSTER SETSLOT %u MIGRATING %s", slot, to_id);
}

void redis_cluster_move_keys(const redis_cluster *cluster, unsigned slot, int from, int to, unsigned n) {
    redisReply *keys = redis_server_ask(&cluster->nodes[from], "CLUSTER GETKEYSINSLOT %u %u", slot, n);
    assert_true(keys != NULL && keys->type == REDIS_REPLY_ARRAY);
    for (size_t i = 0; i < keys->elements; i++)
        redis_server_do(&cluster->nodes[from], "MIGRATE 127.0.0.1 %u %s 0 5000", cluster->nodes[to].port,
                        keys->element[i]->str);
    freeReplyObject(keys);
}

void redis_cluster_move_end(const redis_cluster *cluster, unsigned slot, int from, int to) {
    char to_id[64];
    node_id(cluster, to, to_id);
    redis_cluster_move_keys(cluster, slot, from, to, 1000000);
    redis_server_do(&cluster->nodes[to], "CLUSTER SETSLOT %u NODE %s", slot, to_id);
    redis_server_do(&cluster->nodes[from], "CLUSTER SETSLOT %u NODE %s", slot, to_id);
    const outcome of = {slot, from, to};
    /* Of two masters of one epoch the old one may be who then takes a higher, and to others it stays the
     * slot's until the new one's is higher still. */
    for (int s = 0; s < PATIENCE_S && !holds_within(1, is_agreed, cluster, &of); s++)
        redis_server_do(&cluster->nodes[to], "CLUSTER BUMPEPOCH");
    if (!is_agreed(cluster, &of)) fail_msg("the cluster: no agreement on a slot's move");
}
