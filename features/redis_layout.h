/* How records lie in Redis (DESIGN 5): their keys, the command that reads them, and what its texts are.
 *
 * Thread rule: the loop's thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_LAYOUT_H
#define HOMERANK_FEATURES_REDIS_LAYOUT_H

#include "features/redis_connection.h"
#include "features/store_internal.h"

/* The beginnings of keys, by entity: "{prefix}:user:". */
typedef struct hr_redis_keys {
    char head[2][HR_STORE_PREFIX_SIZE + 8];
    size_t head_nbytes[2];
} hr_redis_keys;

void hr_redis_keys_init(hr_redis_keys *keys, const char *prefix);

/* The slot of a record's key (redis_slots.h). */
uint16_t hr_redis_keys_slot(const hr_redis_keys *keys, const hr_fetch_slot *slot);

/* What has been received of an answer. Zeroed before each. */
typedef struct hr_redis_filling {
    char *text;            /* where the text under way goes; arena; NULL: nowhere */
    hr_field_text *fields; /* of the record so far; arena */
} hr_redis_filling;

typedef struct hr_redis_layout {
    /* How many records one command reads. Where that is more than one, each text of its answer is a record's;
     * else each is a field of the one record. */
    size_t max_records;
    /* (optional) False: nothing of the record is wanted; it is there, and empty. */
    bool (*asks)(const hr_fetch *fetch, const hr_fetch_slot *slot);
    /* Begins the command for these n records of the fetch and puts its texts, to be committed. What its
     * answer is (hr_redis_command.n_elements). */
    int (*put)(hr_redis_connection *connection, const hr_redis_keys *keys, hr_fetch *fetch,
               const uint32_t *records, size_t n);
    /* Takes a piece of a record's text, number `field` of n_fields, into the arena; false where that is full.
     */
    bool (*text)(hr_redis_filling *filling, hr_arena *arena, hr_record *record, size_t field, size_t n_fields,
                 const hr_redis_piece *piece);
    /* (optional) The command is answered. */
    void (*whole)(const hr_redis_filling *filling, hr_record *record);
} hr_redis_layout;

extern const hr_redis_layout hr_redis_layout_packed; /* MGET, or GET of one */
extern const hr_redis_layout hr_redis_layout_hash;   /* HMGET */

#endif
