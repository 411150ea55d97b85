/* A Redis Cluster: its nodes, and which of them is asked for a slot.
 *
 * The map comes from any node that answers (CLUSTER SHARDS, or CLUSTER SLOTS before 7.0), over a connection
 * of its own: when the store opens, every ten seconds, and at once after whatever shows that it has changed
 * (a redirection, a lost master), but at most ten times a second and one at a time. While a master cannot be
 * reached it is asked for again and again: a failover is seen within a quarter of a second of its election.
 *
 * Thread rule: the loop's thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_CLUSTER_H
#define HOMERANK_FEATURES_REDIS_CLUSTER_H

#include "features/redis_node.h"
#include "features/redis_slots.h"

typedef struct hr_redis_cluster hr_redis_cluster;

/* `of` is borrowed; its `changed` is the cluster's. `told` is called when the first map is known, and when
 * nobody could be asked for it. NULL when out of memory. */
hr_redis_cluster *hr_redis_cluster_create(hr_redis_nodes *of, void (*told)(void *context), void *context);

/* Closes its nodes (see hr_redis_node_close); the loop frees the rest. NULL is allowed. */
void hr_redis_cluster_close(hr_redis_cluster *cluster);

/* Is it worth waiting for the first map? True until it has been told. */
bool hr_redis_cluster_is_unknown(const hr_redis_cluster *cluster);

/* The node to ask for a slot; NULL: there is none, for this reason (printable, borrowed until the next call).
 */
hr_redis_node *hr_redis_cluster_route(hr_redis_cluster *cluster, uint16_t slot, const char **reason);

/* Another node that can answer for the same slots, to be asked beside this one; NULL: there is none now. */
hr_redis_node *hr_redis_cluster_second(hr_redis_cluster *cluster, const hr_redis_node *node);

/* A node says that another serves the slot: from now on that one is asked. NULL when out of memory. */
hr_redis_node *hr_redis_cluster_moved(hr_redis_cluster *cluster, uint16_t slot, const hr_address *to);

/* The node of an address, made where it is new. NULL when out of memory, or where there are too many. */
hr_redis_node *hr_redis_cluster_node(hr_redis_cluster *cluster, const hr_address *address);

/* The map may be out of date. */
void hr_redis_cluster_doubt(hr_redis_cluster *cluster);

void hr_redis_cluster_flush(hr_redis_cluster *cluster);

#endif
