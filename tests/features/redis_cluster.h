/* A real Redis Cluster for tests: three masters and three replicas on loopback ports, made by redis-cli. It
 * takes some seconds to form, so that a test file starts one for all of its tests. One thread at a time. */
#ifndef HOMERANK_TESTS_FEATURES_REDIS_CLUSTER_H
#define HOMERANK_TESTS_FEATURES_REDIS_CLUSTER_H

#include "tests/features/redis_server.h"

enum { REDIS_CLUSTER_NODES = 6, REDIS_CLUSTER_SLOTS = 16384 };

typedef struct redis_cluster {
    redis_server nodes[REDIS_CLUSTER_NODES];
    char folder[64];                         /* of what the nodes remember */
    char texts[REDIS_CLUSTER_NODES][2][128]; /* of the nodes' options */
    char uri[256];                           /* redis-cluster://, of the first three nodes */
} redis_cluster;

/* Starts it and waits until every node knows that all is well, and replicas are in step. */
void redis_cluster_start(redis_cluster *cluster);
void redis_cluster_stop(redis_cluster *cluster);

/* The node that serves a slot, and one that replicates it, as the first node that answers sees it; -1: none.
 */
int redis_cluster_master(const redis_cluster *cluster, unsigned slot);
int redis_cluster_replica(const redis_cluster *cluster, unsigned slot);

/* The slot of a key, as a node says. */
unsigned redis_cluster_slot(const redis_cluster *cluster, const char *key);

/* Sets the keys "{head}0" ... "{head}{n-1}" to "value0" ..., or, as hashes, their field f to it. */
void redis_cluster_load(const redis_cluster *cluster, const char *head, unsigned n, int as_hashes);

/* Runs a command on every node. */
void redis_cluster_do(const redis_cluster *cluster, const char *command);

/* Waits until another node than `before` is the slot's master, in the eyes of all that run. */
void redis_cluster_wait_for_election(const redis_cluster *cluster, unsigned slot, int before);

/* Starts a killed node again, with what it knew of the cluster, and waits until all is well. */
void redis_cluster_restart(redis_cluster *cluster, int node);

/* A slot's move from one master to another, in steps; the last waits until all nodes know of it, without
 * which the next move could end in two masters that both claim the slot. */
void redis_cluster_move_begin(const redis_cluster *cluster, unsigned slot, int from, int to);
void redis_cluster_move_keys(const redis_cluster *cluster, unsigned slot, int from, int to, unsigned n);
void redis_cluster_move_end(const redis_cluster *cluster, unsigned slot, int from, int to);

#endif
