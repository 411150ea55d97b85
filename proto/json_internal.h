/* What the JSON readers share; inside proto only. */
#ifndef HOMERANK_PROTO_JSON_INTERNAL_H
#define HOMERANK_PROTO_JSON_INTERNAL_H

#include "proto/json.h"

/* Where in the JSON text a value stands: a chain on the stack, spelled out only for an error
 * ("item_features[3].history[2]"). */
typedef struct hr_json_at hr_json_at;
struct hr_json_at {
    const hr_json_at *up; /* NULL: the value is a member of the outermost object */
    const char *key;      /* NULL: the value is an element of a list */
    size_t index;
};

/* INVALID_ARGUMENT "where: expected ..., found ...". at may be NULL: the outermost value. */
hr_status hr_json_refuse__(const hr_json_at *at, const char *expected, const json_t *found, hr_error *err);

/* RESOURCE_EXHAUSTED: the arena's cap is reached (or memory is out). */
hr_status hr_json_no_room__(const hr_json_at *at, hr_error *err);

/* The text of an id, in the arena: a string, or an integer's decimal text. */
hr_status hr_json_id__(const json_t *value, const hr_json_at *at, hr_arena *arena, char **id, hr_error *err);

/* The members of {feature: value}, as two columns in the arena. */
typedef struct hr_json_features {
    size_t n;
    char **keys;                        /* (n) */
    Homerank__V1__FeatureValue *values; /* (n) */
} hr_json_features;

/* value is an object, or null for none. */
hr_status hr_json_features__(const json_t *value, const hr_json_at *at, hr_arena *arena,
                             hr_json_features *features, hr_error *err);

/* A FeatureMap message of them. */
hr_status hr_json_feature_map__(const json_t *value, const hr_json_at *at, hr_arena *arena,
                                Homerank__V1__FeatureMap *map, hr_error *err);

#endif
