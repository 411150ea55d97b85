/* From a request and its fetched records to encoded rows: see request_encode.h. */
#include "service/request_encode.h"

#include <string.h>

typedef struct encoding {
    const hr_encoder *encoder;
    hr_arena *scratch;    /* one record's bindings and unpacked values at a time */
    hr_binding *bindings; /* of the entity, in scratch */
    uint32_t *n_invalid;
} encoding;

/* Starts a row: no field has a value. */
static hr_status begin_row(encoding *e, hr_entity entity, hr_error *err) {
    hr_arena_reset(e->scratch);
    e->bindings =
        hr_arena_calloc(e->scratch, hr_encoder_fields(e->encoder, entity)->n_names, sizeof *e->bindings);
    if (e->bindings != NULL) return HR_OK;
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the fields of one record exceed the encoder's memory");
}

/* Starts a row with the stored record's values. A record too large for the scratch memory counts as invalid,
 * like any other record that cannot be read: a store's content never fails a call. */
static hr_status bind_stored(encoding *e, hr_entity entity, const hr_record *record, hr_error *err) {
    hr_status status = begin_row(e, entity, err);
    if (status != HR_OK || record == NULL) return status;
    if (record->invalid) ++*e->n_invalid;
    if (record->kind == HR_RECORD_MISSING) return HR_OK;
    if (hr_bind_record(e->encoder, entity, e->bindings, record, e->scratch, e->n_invalid, NULL) == HR_OK)
        return HR_OK;
    ++*e->n_invalid;
    return begin_row(e, entity, err);
}

static hr_status encode_user(encoding *e, const Homerank__V1__RankRequest *request, const hr_fetch *records,
                             void *row, hr_error *err) {
    hr_status status = bind_stored(e, HR_ENTITY_USER, records == NULL ? NULL : &records->user, err);
    if (status != HR_OK) return status;
    for (size_t i = 0; i < request->n_user_features; i++) {
        const Homerank__V1__RankRequest__UserFeaturesEntry *entry = request->user_features[i];
        hr_bind(e->encoder, HR_ENTITY_USER, e->bindings, entry->key, entry->value, true);
    }
    status = hr_encode_row(e->encoder, HR_ENTITY_USER, request->user_id, e->bindings, row, e->n_invalid, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "user_features");
}

static hr_status encode_context(encoding *e, const Homerank__V1__RankRequest *request, void *row,
                                hr_error *err) {
    hr_status status = begin_row(e, HR_ENTITY_CONTEXT, err);
    if (status != HR_OK) return status;
    for (size_t i = 0; i < request->n_context; i++) {
        const Homerank__V1__RankRequest__ContextEntry *entry = request->context[i];
        hr_bind(e->encoder, HR_ENTITY_CONTEXT, e->bindings, entry->key, entry->value, true);
    }
    status = hr_encode_row(e->encoder, HR_ENTITY_CONTEXT, NULL, e->bindings, row, e->n_invalid, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "context");
}

static hr_status encode_item(encoding *e, const Homerank__V1__RankRequest *request, size_t i,
                             const hr_fetch *records, void *row, hr_error *err) {
    bool stored = records != NULL && records->items != NULL;
    hr_status status = bind_stored(e, HR_ENTITY_ITEM, stored ? &records->items[i] : NULL, err);
    if (status != HR_OK) return status;
    if (request->n_item_features > 0) {
        const Homerank__V1__FeatureMap *map = request->item_features[i];
        for (size_t j = 0; j < map->n_features; j++)
            hr_bind(e->encoder, HR_ENTITY_ITEM, e->bindings, map->features[j]->key, map->features[j]->value,
                    true);
    }
    status =
        hr_encode_row(e->encoder, HR_ENTITY_ITEM, request->item_ids[i], e->bindings, row, e->n_invalid, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "item_features[%zu]", i);
}

hr_status hr_request_encode_shared(const hr_encoder *encoder, const hr_schema *schema,
                                   const Homerank__V1__RankRequest *request, const hr_fetch *records,
                                   hr_arena *arena, hr_arena *scratch, hr_slice *slice, uint32_t *n_invalid,
                                   hr_error *err) {
    const size_t item_nbytes = hr_row_words(schema, HR_ENTITY_ITEM) * sizeof(uint32_t);
    void *user = hr_arena_calloc(arena, hr_row_words(schema, HR_ENTITY_USER), sizeof(uint32_t));
    void *context = hr_arena_calloc(arena, hr_row_words(schema, HR_ENTITY_CONTEXT), sizeof(uint32_t));
    void *items = hr_arena_calloc(arena, request->n_item_ids, item_nbytes);
    if (user == NULL || context == NULL || items == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                            "the request's %zu encoded items exceed its memory cap", request->n_item_ids);
    *slice =
        (hr_slice){.user = user, .context = context, .items = items, .n_rows = (uint32_t)request->n_item_ids};
    *n_invalid = 0;
    encoding e = {.encoder = encoder, .scratch = scratch, .n_invalid = n_invalid};
    hr_status status = encode_user(&e, request, records, user, err);
    return status == HR_OK ? encode_context(&e, request, context, err) : status;
}

hr_status hr_request_encode_items(const hr_encoder *encoder, const hr_schema *schema,
                                  const Homerank__V1__RankRequest *request, const hr_fetch *records,
                                  hr_arena *scratch, const hr_slice *slice, uint32_t first, uint32_t n,
                                  uint32_t *n_invalid, hr_error *err) {
    const size_t item_nbytes = hr_row_words(schema, HR_ENTITY_ITEM) * sizeof(uint32_t);
    unsigned char *items = (unsigned char *)slice->items; /* constant to those who compute, but not yet */
    encoding e = {.encoder = encoder, .scratch = scratch, .n_invalid = n_invalid};
    hr_status status = HR_OK;
    *n_invalid = 0;
    for (uint32_t i = first; status == HR_OK && i < first + n; i++)
        status = encode_item(&e, request, i, records, items + i * item_nbytes, err);
    return status;
}

hr_status hr_request_encode(const hr_encoder *encoder, const hr_schema *schema,
                            const Homerank__V1__RankRequest *request, const hr_fetch *records,
                            hr_arena *arena, hr_arena *scratch, hr_slice *slice, uint32_t *n_invalid,
                            hr_error *err) {
    uint32_t n_invalid_items = 0;
    hr_status status =
        hr_request_encode_shared(encoder, schema, request, records, arena, scratch, slice, n_invalid, err);
    if (status == HR_OK)
        status = hr_request_encode_items(encoder, schema, request, records, scratch, slice, 0, slice->n_rows,
                                         &n_invalid_items, err);
    *n_invalid += n_invalid_items;
    return status;
}
