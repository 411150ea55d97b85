/* A Redis server as the reads see it: a few connections, how much is under way on each, who waits for room,
 * and whether it answers at all.
 *
 * What is sent cannot be called back, so what is under way on a connection is bounded, by records and by the
 * bytes that their answers will probably have; past that reads wait here, where their deadline still reaches
 * them. A node that is down, or that has failed several reads in a row (redis_breaker.h), is not asked: its
 * reads fail at once.
 *
 * Thread rule: the loop's thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_NODE_H
#define HOMERANK_FEATURES_REDIS_NODE_H

#include "features/redis_breaker.h"
#include "features/redis_connection.h"
#include "features/redis_counts.h"
#include "features/redis_cover.h"
#include "features/store_uri.h"

enum { HR_REDIS_MAX_LANES = 64 };

typedef struct hr_redis_node hr_redis_node;

/* What all nodes of a store share; borrowed for their lives. */
typedef struct hr_redis_nodes {
    uv_loop_t *loop;
    const char *name; /* of the store, for errors and the log: "redis HOST:PORT", "redis cluster ..." */
    const hr_store_uri *uri; /* user, password, database */
    const hr_store_options *options;
    bool readonly; /* replicas are read too */
    hr_redis_counts *counts;
    hr_record_cache *cache; /* NULL, or what is to hear of changed records */
    /* (optional) A node's first connection is ready, or its last one is lost. */
    void (*changed)(void *context, hr_redis_node *node, bool ready);
    void *context;
} hr_redis_nodes;

/* A connection, and the records that are under way on it. */
typedef struct hr_redis_lane {
    hr_redis_node *node;
    hr_redis_connection *connection; /* owned */
    size_t n_records;
} hr_redis_lane;

/* One that waits for room for n_records. Its `go` is called once: with a lane, or NULL where the node cannot
 * be asked any more; it may send, and wait again. */
typedef struct hr_redis_waiter hr_redis_waiter;
struct hr_redis_waiter {
    void (*go)(hr_redis_waiter *waiter, hr_redis_lane *lane);
    size_t n_records;
    hr_redis_waiter *next;
};

struct hr_redis_node {
    const hr_redis_nodes *of;
    hr_address address;
    char label[HR_ADDRESS_TEXT_SIZE + 8]; /* "redis HOST:PORT", for errors and the log */
    hr_redis_lane lanes[HR_REDIS_MAX_LANES];
    size_t n_lanes, next_lane;
    hr_redis_waiter *first_waiting, **last_waiting;
    size_t n_waiting_records;
    bool letting_go;       /* in the loop over those who wait */
    hr_redis_cover *cover; /* of cached records; NULL: there is no cache */
    hr_redis_breaker breaker;
    hr_redis_latency latency;
    uv_timer_t probe; /* while the breaker is open */
    bool probe_sent;
    double record_nbytes;         /* of an answer, on the average */
    char failure[160];            /* the last, printable */
    char refusal[160];            /* likewise */
    char said[160];               /* by the log, of why it is down */
    uint64_t said_ns, refused_ns; /* when it said that; when the last read was refused */
    enum { HR_NODE_UNKNOWN, HR_NODE_UP, HR_NODE_DOWN, HR_NODE_REFUSING } health; /* as the log tells it */
    /* Whoever routes reads may use these. */
    size_t shard;
    bool wanted;
    bool lost_slots; /* to others; its cover does not tell of them any more */
    double hedge_credit;
    uint64_t wave;
    void *wave_part;
};

/* Connects at once. NULL when out of memory. */
hr_redis_node *hr_redis_node_create(const hr_redis_nodes *of, const hr_address *address);

/* Commands under way are lost, waiters go with NULL; the loop frees the rest. `changed` is not called any
 * more. NULL is allowed. */
void hr_redis_node_close(hr_redis_node *node);

/* Why it may not be asked now; NULL: it may. Borrowed until the node changes. */
const char *hr_redis_node_refusal(const hr_redis_node *node, uint64_t now_ns);
bool hr_redis_node_is_ready(const hr_redis_node *node); /* a connection is */

/* The lane with the fewest records under way and room for n more; NULL where there is none now. */
hr_redis_lane *hr_redis_node_lane(hr_redis_node *node, size_t n_records);

/* Waits for such a lane, behind those who wait already; false where too many do. */
bool hr_redis_node_wait(hr_redis_node *node, hr_redis_waiter *waiter);
bool hr_redis_node_has_waiters(const hr_redis_node *node);

/* Records are under way on the lane; they no longer are. */
void hr_redis_lane_take(hr_redis_lane *lane, size_t n_records);
void hr_redis_lane_give(hr_redis_lane *lane, size_t n_records);

/* A read was answered: after so long, with so many bytes; too late: it had been said to have failed. Or it
 * failed: refused as a whole, or not in time. */
void hr_redis_node_answered(hr_redis_node *node, uint64_t took_ns, size_t n_records, size_t nbytes,
                            bool too_late);
void hr_redis_node_failed(hr_redis_node *node, const char *reason);
void hr_redis_node_refused(hr_redis_node *node, const char *reason); /* some of it: the log tells why */

/* Writes what has been committed. */
void hr_redis_node_flush(hr_redis_node *node);

#endif
