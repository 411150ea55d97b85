/* Redis Cluster's rules, without any I/O: which slot a key is in, who serves which slots, and what the errors
 * mean that a node answers with. Source: the Redis Cluster specification; CLUSTER SHARDS (since 7.0) and
 * CLUSTER SLOTS.
 *
 * Thread rule: any thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_SLOTS_H
#define HOMERANK_FEATURES_REDIS_SLOTS_H

#include "base/arena.h"
#include "base/status.h"
#include "features/redis_value.h"
#include "features/store_uri.h"

enum { HR_REDIS_N_SLOTS = 16384, HR_REDIS_MAX_SHARDS = 1024, HR_REDIS_NO_SHARD = 0xFFFF };

/* The slot of the key that head and tail joined are: CRC16 (XMODEM) mod 16384 of the key, or of what stands
 * between its first '{' and the '}' after it, where that is not empty. */
uint16_t hr_redis_key_slot(const char *head, size_t head_nbytes, const char *tail, size_t tail_nbytes);

/* --- the map -------------------------------------------------------------------------------------------- */

/* Those who serve a range of slots: nodes[0] is the master, the others its replicas. Arena. */
typedef struct hr_redis_shard {
    const hr_address *nodes;
    size_t n_nodes; /* at least 1 */
} hr_redis_shard;

typedef struct hr_redis_map {
    hr_redis_shard *shards; /* (n_shards), arena */
    size_t n_shards;
    uint16_t shard_of[HR_REDIS_N_SLOTS]; /* or HR_REDIS_NO_SHARD: nobody serves it */
} hr_redis_map;

/* Read the answer of `CLUSTER SHARDS`, or of `CLUSTER SLOTS`. A node that does not say its address is reached
 * as the one that was asked. Replicas that are not online, and nodes without a port, are left out.
 * Errors: INVALID_ARGUMENT (what was expected and found), RESOURCE_EXHAUSTED (arena). */
hr_status hr_redis_map_read_shards(const hr_redis_value *answer, const char *asked_host, hr_arena *arena,
                                   hr_redis_map *map, hr_error *err);
hr_status hr_redis_map_read_slots(const hr_redis_value *answer, const char *asked_host, hr_arena *arena,
                                  hr_redis_map *map, hr_error *err);

/* --- errors of nodes ------------------------------------------------------------------------------------ */

typedef enum hr_redis_refusal_kind {
    HR_REDIS_MOVED,        /* another node serves the slot: address */
    HR_REDIS_ASK,          /* this once another node is to be asked, after ASKING: address */
    HR_REDIS_TRY_AGAIN,    /* TRYAGAIN: of several keys, while their slot moves */
    HR_REDIS_CLUSTER_DOWN, /* CLUSTERDOWN: the cluster, or the slot, is not served now */
    HR_REDIS_CANNOT_SERVE, /* LOADING, MASTERDOWN: this node not yet */
    HR_REDIS_WRONG_TYPE,   /* of this key's value */
    HR_REDIS_OTHER_REFUSAL
} hr_redis_refusal_kind;

typedef struct hr_redis_refusal {
    hr_redis_refusal_kind kind;
    uint16_t slot;      /* MOVED, ASK */
    hr_address address; /* MOVED, ASK */
} hr_redis_refusal;

/* What an error reply means; asked_host as above. A redirection that cannot be read is OTHER. */
hr_redis_refusal hr_redis_refusal_read(const char *text, const char *asked_host);

#endif
