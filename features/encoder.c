/* The feature encoder's plan and bindings: which fields are read, and which value stands for each. See
 * encoder.h; encoder_row.c turns bound values into a row. */
#include "features/encoder.h"

#include <string.h>
#include <xxhash.h>

#include "features/encoder_internal.h"
#include "features/feast_value.h"
#include "proto/unpack.h"

/* A schema of 65,536 features with the longest hash tables stays far below it. */
enum { ENCODER_MAX_NBYTES = 64 << 20 };

static const char *own_id_field(hr_entity entity) {
    if (entity == HR_ENTITY_CONTEXT) return NULL;
    return entity == HR_ENTITY_USER ? "user_id" : "item_id";
}

/* The bucket where the name is or would go. */
static uint32_t *find_bucket(const hr_entity_plan *plan, const char *name) {
    uint32_t i = (uint32_t)XXH3_64bits(name, strlen(name)) & plan->bucket_mask;
    while (plan->buckets[i] != 0 && strcmp(plan->fields.names[plan->buckets[i] - 1], name) != 0)
        i = (i + 1) & plan->bucket_mask;
    return &plan->buckets[i];
}

static bool allocate_plan(hr_arena *arena, const hr_schema *schema, hr_entity entity, hr_entity_plan *plan,
                          const char ***names) {
    uint32_t n = 0, n_buckets = 4;
    for (uint32_t i = 0; i < schema->n_features; i++) n += schema->features[i].entity == entity;
    while (n_buckets < 2 * n) n_buckets *= 2;
    *names = hr_arena_calloc(arena, n, sizeof **names);
    plan->fields.names = *names;
    plan->steps = hr_arena_calloc(arena, n, sizeof *plan->steps);
    plan->buckets = hr_arena_calloc(arena, n_buckets, sizeof *plan->buckets);
    plan->bucket_mask = n_buckets - 1;
    plan->n_index = schema->rows[entity].n_index;
    return *names != NULL && plan->steps != NULL && plan->buckets != NULL;
}

static bool has_table(const hr_feature *feature) {
    return feature->kind == HR_FEATURE_ID || feature->kind == HR_FEATURE_IDS ||
           feature->kind == HR_FEATURE_BUCKET;
}

static bool plan_entity(hr_arena *arena, const hr_schema *schema, hr_entity entity, hr_entity_plan *plan) {
    const char **names, *own_id = own_id_field(entity);
    if (!allocate_plan(arena, schema, entity, plan, &names)) return false;
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *feature = &schema->features[i];
        if (feature->entity != entity) continue;
        hr_encoder_step *step = &plan->steps[plan->n_steps++];
        step->feature = feature;
        if (has_table(feature)) step->table = &schema->tables[feature->table];
        step->binding = HR_BINDING_OWN_ID;
        if (own_id != NULL && strcmp(feature->field, own_id) == 0) continue;
        uint32_t *bucket = find_bucket(plan, feature->field);
        if (*bucket == 0) {
            names[plan->fields.n_names++] = feature->field;
            *bucket = (uint32_t)plan->fields.n_names;
        }
        step->binding = *bucket - 1;
    }
    return true;
}

hr_status hr_encoder_create(const hr_schema *schema, hr_encoder **encoder, hr_error *err) {
    *encoder = NULL;
    hr_arena *arena = hr_arena_create(ENCODER_MAX_NBYTES);
    hr_encoder *made = arena == NULL ? NULL : hr_arena_calloc(arena, 1, sizeof *made);
    bool ok = made != NULL;
    for (int entity = 0; ok && entity < HR_ENTITY_COUNT; entity++)
        ok = plan_entity(arena, schema, (hr_entity)entity, &made->plans[entity]);
    if (!ok) {
        hr_arena_destroy(arena);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "features: expected memory for the encoder, found none");
    }
    made->arena = arena;
    *encoder = made;
    return HR_OK;
}

void hr_encoder_destroy(hr_encoder *encoder) {
    if (encoder == NULL) return;
    hr_arena_destroy(encoder->arena);
}

const hr_field_list *hr_encoder_fields(const hr_encoder *encoder, hr_entity entity) {
    return &encoder->plans[entity].fields;
}

void hr_bind(const hr_encoder *encoder, hr_entity entity, hr_binding *bindings, const char *name,
             const Homerank__V1__FeatureValue *value, bool is_inline) {
    uint32_t bucket = *find_bucket(&encoder->plans[entity], name);
    if (bucket == 0) return;
    bindings[bucket - 1] = (hr_binding){.value = value, .is_inline = is_inline};
}

static hr_status bind_packed(const hr_encoder *encoder, hr_entity entity, hr_binding *bindings,
                             const hr_record *record, hr_arena *arena, uint32_t *n_invalid, hr_error *err) {
    ProtobufCMessage *message;
    hr_status status = hr_proto_unpack(&homerank__v1__feature_map__descriptor, record->data, record->nbytes,
                                       arena, &message, err);
    if (status == HR_INVALID_ARGUMENT) {
        ++*n_invalid;
        return HR_OK;
    }
    if (status != HR_OK) return status;
    const Homerank__V1__FeatureMap *map = (const Homerank__V1__FeatureMap *)message;
    for (size_t i = 0; i < map->n_features; i++)
        hr_bind(encoder, entity, bindings, map->features[i]->key, map->features[i]->value, false);
    return HR_OK;
}

static void bind_fields(const hr_encoder *encoder, hr_entity entity, hr_binding *bindings,
                        const hr_record *record) {
    for (size_t i = 0; i < encoder->plans[entity].fields.n_names; i++)
        bindings[i] = (hr_binding){.plain = record->fields[i].text, .plain_nbytes = record->fields[i].nbytes};
}

/* What is no feature's value counts, and is missing. */
static hr_status bind_values(const hr_encoder *encoder, hr_entity entity, hr_binding *bindings,
                             const hr_record *record, hr_arena *arena, uint32_t *n_invalid, hr_error *err) {
    for (size_t i = 0; i < encoder->plans[entity].fields.n_names; i++) {
        const hr_field_text *field = &record->fields[i];
        bindings[i] = (hr_binding){.value = NULL};
        if (field->text == NULL) continue;
        hr_status status = hr_feast_value_decode((const uint8_t *)field->text, field->nbytes, arena,
                                                 &bindings[i].value, err);
        if (status == HR_INVALID_ARGUMENT)
            ++*n_invalid;
        else if (status != HR_OK)
            return status;
    }
    return HR_OK;
}

hr_status hr_bind_record(const hr_encoder *encoder, hr_entity entity, hr_binding *bindings,
                         const hr_record *record, hr_arena *arena, uint32_t *n_invalid, hr_error *err) {
    switch (record->kind) {
    case HR_RECORD_MISSING:
    case HR_RECORD_ROW: break; /* there is nothing to bind */
    case HR_RECORD_PACKED: return bind_packed(encoder, entity, bindings, record, arena, n_invalid, err);
    case HR_RECORD_FIELDS: bind_fields(encoder, entity, bindings, record); break;
    case HR_RECORD_VALUES: return bind_values(encoder, entity, bindings, record, arena, n_invalid, err);
    }
    return HR_OK;
}
