/* From a request and its fetched records to encoded rows: see request_encode.h. */
#include "service/request_encode.h"

#include <string.h>

typedef struct encoding {
    const hr_encoder *encoder;
    hr_arena *scratch;    /* one record's unpacked values at a time */
    hr_binding *bindings; /* as many as the entity with the most fields has */
    uint32_t *n_invalid;
} encoding;

static size_t most_fields(const hr_encoder *encoder) {
    size_t most = 1;
    for (int entity = 0; entity < HR_ENTITY_COUNT; entity++) {
        size_t n = hr_encoder_fields(encoder, entity)->n_names;
        if (n > most) most = n;
    }
    return most;
}

static void clear_bindings(encoding *e, hr_entity entity) {
    memset(e->bindings, 0, hr_encoder_fields(e->encoder, entity)->n_names * sizeof *e->bindings);
}

/* Starts a row with the stored record's values. A record too large for the scratch memory counts as invalid,
 * like any other record that cannot be read: a store's content never fails a call. */
static void bind_stored(encoding *e, hr_entity entity, const hr_record *record) {
    clear_bindings(e, entity);
    hr_arena_reset(e->scratch);
    if (record == NULL) return;
    if (record->invalid) ++*e->n_invalid;
    if (record->kind == HR_RECORD_MISSING) return;
    if (hr_bind_record(e->encoder, entity, e->bindings, record, e->scratch, e->n_invalid, NULL) != HR_OK) {
        ++*e->n_invalid;
        clear_bindings(e, entity);
    }
}

static hr_status encode_user(encoding *e, const Homerank__V1__RankRequest *request, const hr_fetch *records,
                             void *row, hr_error *err) {
    bind_stored(e, HR_ENTITY_USER, records == NULL ? NULL : &records->user);
    for (size_t i = 0; i < request->n_user_features; i++) {
        const Homerank__V1__RankRequest__UserFeaturesEntry *entry = request->user_features[i];
        hr_bind(e->encoder, HR_ENTITY_USER, e->bindings, entry->key, entry->value, true);
    }
    hr_status status =
        hr_encode_row(e->encoder, HR_ENTITY_USER, request->user_id, e->bindings, row, e->n_invalid, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "user_features");
}

static hr_status encode_context(encoding *e, const Homerank__V1__RankRequest *request, void *row,
                                hr_error *err) {
    clear_bindings(e, HR_ENTITY_CONTEXT);
    for (size_t i = 0; i < request->n_context; i++) {
        const Homerank__V1__RankRequest__ContextEntry *entry = request->context[i];
        hr_bind(e->encoder, HR_ENTITY_CONTEXT, e->bindings, entry->key, entry->value, true);
    }
    hr_status status =
        hr_encode_row(e->encoder, HR_ENTITY_CONTEXT, NULL, e->bindings, row, e->n_invalid, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "context");
}

static hr_status encode_item(encoding *e, const Homerank__V1__RankRequest *request, size_t i,
                             const hr_fetch *records, void *row, hr_error *err) {
    bind_stored(e, HR_ENTITY_ITEM, records == NULL || records->items == NULL ? NULL : &records->items[i]);
    if (request->n_item_features > 0) {
        const Homerank__V1__FeatureMap *map = request->item_features[i];
        for (size_t j = 0; j < map->n_features; j++)
            hr_bind(e->encoder, HR_ENTITY_ITEM, e->bindings, map->features[j]->key, map->features[j]->value,
                    true);
    }
    hr_status status =
        hr_encode_row(e->encoder, HR_ENTITY_ITEM, request->item_ids[i], e->bindings, row, e->n_invalid, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "item_features[%zu]", i);
}

hr_status hr_request_encode(const hr_encoder *encoder, const hr_schema *schema,
                            const Homerank__V1__RankRequest *request, const hr_fetch *records,
                            hr_arena *arena, hr_arena *scratch, hr_slice *slice, uint32_t *n_invalid,
                            hr_error *err) {
    const size_t item_nbytes = hr_row_words(schema, HR_ENTITY_ITEM) * sizeof(uint32_t);
    void *user = hr_arena_calloc(arena, hr_row_words(schema, HR_ENTITY_USER), sizeof(uint32_t));
    void *context = hr_arena_calloc(arena, hr_row_words(schema, HR_ENTITY_CONTEXT), sizeof(uint32_t));
    unsigned char *items = hr_arena_calloc(arena, request->n_item_ids, item_nbytes);
    encoding e = {.encoder = encoder, .scratch = scratch, .n_invalid = n_invalid};
    e.bindings = hr_arena_calloc(arena, most_fields(encoder), sizeof *e.bindings);
    if (user == NULL || context == NULL || items == NULL || e.bindings == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                            "the request's %zu encoded items exceed its memory cap", request->n_item_ids);
    *n_invalid = 0;
    hr_status status = encode_user(&e, request, records, user, err);
    if (status == HR_OK) status = encode_context(&e, request, context, err);
    for (size_t i = 0; status == HR_OK && i < request->n_item_ids; i++)
        status = encode_item(&e, request, i, records, items + i * item_nbytes, err);
    slice->user = user;
    slice->context = context;
    slice->items = items;
    slice->n_rows = (uint32_t)request->n_item_ids;
    return status;
}
