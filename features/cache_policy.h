/* Which entry a full cache gives up: S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: "FIFO queues are all you need
 * for cache eviction", SOSP 2023), counted in bytes.
 *
 * New entries go through a small queue of a tenth of the bytes; those asked for again while they are in it,
 * or soon after they left it (a table of ghosts remembers), go to the main queue, where each hit earns
 * another round, up to three. So a scan passes through the small queue and harms nobody, and a hit writes one
 * byte: no list is touched. It stays within a percentage point of W-TinyLFU's hit rate, and beats LRU's
 * (docs/features.md has figures).
 *
 * Every operation is O(1), a victim amortised and bounded. Nodes are the caller's, part of its entries.
 * Thread rule: one thread at a time (a shard's lock), but for hits: any, though one of two at once may not
 * count. Private to features/.
 */
#ifndef HOMERANK_FEATURES_CACHE_POLICY_H
#define HOMERANK_FEATURES_CACHE_POLICY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { HR_CACHE_MAX_HITS = 3 };

typedef struct hr_cache_node hr_cache_node;
struct hr_cache_node {
    hr_cache_node *newer, *older; /* in its queue */
    uint64_t hash;                /* the entry's, set by the caller before it is inserted */
    size_t nbytes;                /* likewise; what the entry takes in all */
    uint8_t queue;                /* hr_cache_queue_id */
    _Atomic uint8_t n_hits;       /* since it came to its queue, at most HR_CACHE_MAX_HITS */
};

typedef struct hr_cache_queue {
    hr_cache_node *newest, *oldest;
    size_t nbytes, n_nodes;
} hr_cache_queue;

typedef enum hr_cache_queue_id { HR_CACHE_SMALL, HR_CACHE_MAIN, HR_CACHE_QUEUES } hr_cache_queue_id;

/* An entry given up: 32 bits of its hash, and when, in entries given up. All zero: none. */
typedef struct hr_cache_ghost {
    uint32_t mark, when;
} hr_cache_ghost;

typedef struct hr_cache_policy {
    size_t capacity_nbytes;
    hr_cache_queue queues[HR_CACHE_QUEUES];
    hr_cache_ghost *ghosts; /* (n_ghosts), in sets of a few; borrowed */
    size_t n_ghosts;
    uint32_t n_given_up;
} hr_cache_policy;

/* ghosts: all zero, borrowed for the policy's life. n_ghosts: a power of two, at least 4, about the entries
 * that the capacity holds. */
void hr_cache_policy_init(hr_cache_policy *policy, size_t capacity_nbytes, hr_cache_ghost *ghosts,
                          size_t n_ghosts);

/* Takes a node of which hash and nbytes are set; the capacity may be passed: give up victims until there is
 * none. */
void hr_cache_policy_insert(hr_cache_policy *policy, hr_cache_node *node);

void hr_cache_policy_remove(hr_cache_policy *policy, hr_cache_node *node);

/* Puts a node of which nbytes is set in the place of another of the same hash. */
void hr_cache_policy_replace(hr_cache_policy *policy, hr_cache_node *before, hr_cache_node *now);

/* Within the capacity: NULL. Else the node to give up, already removed. */
hr_cache_node *hr_cache_policy_victim(hr_cache_policy *policy);

static inline void hr_cache_policy_hit(hr_cache_node *node) {
    const uint8_t n_hits = atomic_load_explicit(&node->n_hits, memory_order_relaxed);
    if (n_hits < HR_CACHE_MAX_HITS)
        atomic_store_explicit(&node->n_hits, (uint8_t)(n_hits + 1), memory_order_relaxed);
}

static inline size_t hr_cache_policy_nbytes(const hr_cache_policy *policy) {
    return policy->queues[HR_CACHE_SMALL].nbytes + policy->queues[HR_CACHE_MAIN].nbytes;
}

#endif
