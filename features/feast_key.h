/* The names in a Feast online store in Redis: a record is a hash, its key is made of the entity's join key,
 * the id and the project; a feature's field is a hash of "VIEW:FEATURE"; a view's time is in "_ts:VIEW".
 *
 * Source: Feast (github.com/feast-dev/feast), sdk/python/feast/infra/key_encoding_utils.py
 * (serialize_entity_key, versions 2 and 3) and online_stores/helpers.py (_redis_key, _mmh3).
 *
 * Any thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_FEAST_KEY_H
#define HOMERANK_FEATURES_FEAST_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "schema/schema.h"

typedef enum hr_feast_id_type { HR_FEAST_STRING, HR_FEAST_INT64, HR_FEAST_INT32 } hr_feast_id_type;

enum { HR_FEAST_NAME_SIZE = 129, HR_FEAST_FIELD_NBYTES = 4 };

/* How an entity is kept: all texts NUL-terminated. */
typedef struct hr_feast_entity {
    char join_key[HR_FEAST_NAME_SIZE]; /* the one join key of its views */
    hr_feast_id_type id_type;
    char view[HR_FEAST_NAME_SIZE]; /* of the features whose field names none */
} hr_feast_entity;

typedef struct hr_feast_options {
    char project[HR_FEAST_NAME_SIZE];
    uint32_t version;            /* of the entity keys' serialisation: 2 or 3 */
    uint32_t max_age_s;          /* values of a view that is older are missing; 0: any age will do */
    hr_feast_entity entities[2]; /* USER and ITEM */
} hr_feast_options;

/* The longest beginning of an entity's keys, and of all of a key but the id's text. */
enum {
    HR_FEAST_HEAD_SIZE = 12 + HR_FEAST_NAME_SIZE,
    HR_FEAST_KEY_EXTRA = HR_FEAST_HEAD_SIZE + 16 + HR_FEAST_NAME_SIZE
};

/* Writes the key of a record to key[HR_FEAST_KEY_EXTRA + strlen(id)], any bytes, and returns its length; 0
 * where there can be no such record: the id is not the shortest decimal form of an integer of the id's type.
 */
size_t hr_feast_key_write(const hr_feast_options *options, hr_entity entity, const char *id, char *key);

/* The id in a key, as text (not NUL-terminated where it lies in the key, else in decimal[24]); NULL where it
 * is no key of this entity. */
const char *hr_feast_key_id(const hr_feast_options *options, hr_entity entity, const char *key, size_t nbytes,
                            char decimal[24], size_t *id_nbytes);

/* What all keys of an entity begin with, and those of others hardly ever, to head[HR_FEAST_HEAD_SIZE]; its
 * length. */
size_t hr_feast_key_head(const hr_feast_options *options, hr_entity entity, char *head);

/* The view of a schema's field: what comes before its first ':', else the entity's own. *nbytes is its
 * length. */
const char *hr_feast_view(const hr_feast_options *options, hr_entity entity, const char *field,
                          size_t *nbytes);

/* The name of a schema's field in a hash: murmur3 of "VIEW:FEATURE", little-endian. The arena is for what
 * that takes; false where it is full. */
bool hr_feast_field(const hr_feast_options *options, hr_entity entity, const char *field, hr_arena *arena,
                    uint8_t name[HR_FEAST_FIELD_NBYTES]);

#endif
