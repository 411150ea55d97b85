/* What the encoder's own files share; nothing outside includes it. */
#ifndef HOMERANK_FEATURES_ENCODER_INTERNAL_H
#define HOMERANK_FEATURES_ENCODER_INTERNAL_H

#include "features/encoder.h"

/* The binding of a feature that reads the id asked for. */
enum { HR_BINDING_OWN_ID = UINT32_MAX };

/* One feature's part of an entity's row. */
typedef struct hr_encoder_step {
    const hr_feature *feature; /* the schema's */
    const hr_table *table;     /* the schema's; id, ids and bucket */
    uint32_t binding;          /* index in the entity's field list, or HR_BINDING_OWN_ID */
} hr_encoder_step;

/* What is read of one entity. */
typedef struct hr_entity_plan {
    hr_field_list fields;   /* names are the schema's */
    uint32_t *buckets;      /* (bucket_mask + 1) open addressing by name: 1 + index in fields, 0 where free */
    uint32_t bucket_mask;   /* a power of two, at least twice the fields, minus 1 */
    hr_encoder_step *steps; /* (n_steps) in the schema's order */
    uint32_t n_steps;
    uint32_t n_index; /* words of a row before its dense part */
} hr_entity_plan;

struct hr_encoder {
    hr_entity_plan plans[HR_ENTITY_COUNT];
    hr_arena *arena; /* owns all of the above */
};

#endif
