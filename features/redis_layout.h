/* How records lie in Redis (DESIGN 5): their keys, the command that reads them, and what its texts are.
 *
 * Thread rule: the loop's thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_LAYOUT_H
#define HOMERANK_FEATURES_REDIS_LAYOUT_H

#include "features/redis_connection.h"
#include "features/store_internal.h"

/* How keys are made: `{prefix}:{entity}:{id}`, or as Feast makes them. */
typedef struct hr_redis_keys {
    const hr_feast_options *feast;          /* NULL: by prefix */
    char head[2][HR_STORE_PREFIX_SIZE + 8]; /* by entity: "{prefix}:user:" */
    size_t head_nbytes[2];
    char *room; /* for one of Feast's, owned */
    size_t room_nbytes;
} hr_redis_keys;

/* The uri is borrowed. */
void hr_redis_keys_init(hr_redis_keys *keys, const hr_store_uri *uri);
void hr_redis_keys_clear(hr_redis_keys *keys);

/* The slot of a record's key (redis_slots.h). */
uint16_t hr_redis_keys_slot(hr_redis_keys *keys, const hr_fetch_slot *slot);

/* What has been received of an answer. Zeroed before each. */
typedef struct hr_redis_filling {
    char *text;            /* where the text under way goes; arena; NULL: nowhere */
    hr_field_text *fields; /* of the record so far; arena */
} hr_redis_filling;

typedef struct hr_redis_layout {
    /* (optional) Prepares what the commands of a fetch share (fetch->store_private, in its arena). False
     * where there is no memory for it. */
    bool (*begin)(hr_redis_keys *keys, hr_fetch *fetch);
    /* How many records one command reads. Where that is more than one, each text of its answer is a record's;
     * else each is a field of the one record. */
    size_t max_records;
    /* (optional) False: the record need not be asked for, it is of the kind *known and empty. */
    bool (*asks)(hr_redis_keys *keys, const hr_fetch *fetch, const hr_fetch_slot *slot,
                 hr_record_kind *known);
    /* Begins the command for these n records of the fetch and puts its texts, to be committed. What its
     * answer is (hr_redis_command.n_elements). */
    int (*put)(hr_redis_connection *connection, hr_redis_keys *keys, hr_fetch *fetch, const uint32_t *records,
               size_t n);
    /* Takes a piece of a record's text, number `field` of n_fields, into the arena; false where that is full.
     */
    bool (*text)(hr_redis_filling *filling, hr_arena *arena, hr_record *record, size_t field, size_t n_fields,
                 const hr_redis_piece *piece);
    /* (optional) The command is answered. How many parts of the record were too old to be taken. */
    size_t (*whole)(const hr_redis_filling *filling, const hr_fetch *fetch, const hr_fetch_slot *slot);
} hr_redis_layout;

extern const hr_redis_layout hr_redis_layout_packed; /* MGET, or GET of one */
extern const hr_redis_layout hr_redis_layout_hash;   /* HMGET */
extern const hr_redis_layout hr_redis_layout_feast;  /* HMGET of a Feast online store */

/* What hash and feast share. */
bool hr_redis_layout__field_text(hr_redis_filling *filling, hr_arena *arena, hr_record *record, size_t field,
                                 size_t n_fields, const hr_redis_piece *piece);

#endif
