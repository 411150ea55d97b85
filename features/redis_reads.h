/* Fetches as reads of Redis: each is cut into parts, one for every node that its records are on; the parts
 * run side by side, and the fetch is done when every record is answered, or at its deadline, or when no node
 * can be asked any more, whichever is first. Then it is never touched again; what is answered later is passed
 * over.
 *
 *   op (a fetch) --< part (its records of one node) --< command (MGET of a slot's keys, or one record's)
 *
 * What a node cannot answer for is asked for again in a new part, at most a few times a record: of whom the
 * node named (MOVED, ASK), of another (the connection was lost, the node cannot serve), or soon (TRYAGAIN,
 * CLUSTERDOWN). Where hedging is on, a part that takes longer than 95 % of its node's is asked of another
 * node beside it, for at most a tenth of the parts; a record takes the first answer.
 *
 * Thread rule: the loop's thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_READS_H
#define HOMERANK_FEATURES_REDIS_READS_H

#include "features/redis_cluster.h"
#include "features/redis_layout.h"

typedef struct hr_redis_reads hr_redis_reads;

/* All borrowed for its life; one of node and cluster is set before the first fetch. */
typedef struct hr_redis_reads_config {
    uv_loop_t *loop;
    const char *name; /* of the store, for errors */
    const hr_store_uri *uri;
    const hr_store_options *options;
    hr_redis_counts *counts;
} hr_redis_reads_config;

/* NULL when out of memory. */
hr_redis_reads *hr_redis_reads_create(const hr_redis_reads_config *config);

/* Who is asked: the one server, or the cluster. */
void hr_redis_reads_of_node(hr_redis_reads *reads, hr_redis_node *node);
void hr_redis_reads_of_cluster(hr_redis_reads *reads, hr_redis_cluster *cluster);

/* Sees to a fetch (see hr_store_fetch). What it sends is not flushed. */
void hr_redis_reads_start(hr_redis_reads *reads, hr_fetch *fetch);

/* The cluster has told (redis_cluster.h): starts the fetches that waited for it. */
void hr_redis_reads_resume(hr_redis_reads *reads);

/* Every fetch is done, later ones at once; nodes are to be closed next. The loop frees nothing: */
void hr_redis_reads_close(hr_redis_reads *reads);

/* After the loop has ended. NULL is allowed. */
void hr_redis_reads_destroy(hr_redis_reads *reads);

#endif
