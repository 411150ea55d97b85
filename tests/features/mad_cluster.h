/* A Redis Cluster gone mad, for tests: a few listeners on loopback that answer as Redis does, and now and
 * then with whatever a server, or somebody in its place, may say: redirections to anyone, maps that change
 * each time, errors, half answers, none, other shapes, closed connections, changes of any key, all of it
 * drawn by a seed. What it does hand out as a record is always the record's own key, so that no answer can be
 * taken for another's. It has a thread of its own. */
#ifndef HOMERANK_TESTS_FEATURES_MAD_CLUSTER_H
#define HOMERANK_TESTS_FEATURES_MAD_CLUSTER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAD_NODES = 5, MAD_MAX_CLIENTS = 256 };

typedef struct mad_client mad_client;

typedef struct mad_cluster {
    uint16_t ports[MAD_NODES];
    char uri[128]; /* redis-cluster://..., of two of them */
    unsigned odds; /* one answer in so many is not as it should be */
    int listeners[MAD_NODES];
    mad_client *clients[MAD_MAX_CLIENTS]; /* the thread's, as all below */
    size_t n_clients;
    uint64_t random;
    atomic_bool stops;
    pthread_t thread;
} mad_cluster;

/* Fails the test where it cannot listen. */
void mad_cluster_start(mad_cluster *cluster, uint64_t seed, unsigned odds);
void mad_cluster_stop(mad_cluster *cluster); /* closes every connection */

#endif
