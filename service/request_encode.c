/* From a request and its fetched records to encoded rows: see request_encode.h. */
#include "service/request_encode.h"

#include <string.h>

typedef struct encoding {
    const hr_encoder *encoder;
    const hr_fetch *fetch; /* NULL: no records */
    hr_arena *scratch;     /* one record's bindings, counts and unpacked values at a time */
    hr_binding *bindings;  /* of the entity, in scratch */
    uint32_t *n_wrong;     /* hr_encode_stored's counts of the row, in scratch */
    uint32_t *n_invalid;
} encoding;

static const hr_record no_record = {.kind = HR_RECORD_MISSING};

/* Starts a row: no field has a value. */
static hr_status begin_row(encoding *e, hr_entity entity, hr_error *err) {
    hr_arena_reset(e->scratch);
    e->bindings =
        hr_arena_calloc(e->scratch, hr_encoder_fields(e->encoder, entity)->n_names, sizeof *e->bindings);
    e->n_wrong = hr_arena_calloc(e->scratch, hr_encoder_n_counts(e->encoder, entity), sizeof *e->n_wrong);
    if (e->bindings != NULL && e->n_wrong != NULL) return HR_OK;
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the fields of one record exceed the encoder's memory");
}

/* Starts a row with the stored record's values. A record too large for the scratch memory counts as invalid,
 * like any other record that cannot be read: a store's content never fails a call. */
static hr_status bind_stored(encoding *e, hr_entity entity, const hr_record *record, hr_error *err) {
    uint32_t n_own = record->invalid;
    hr_status status = begin_row(e, entity, err);
    if (status != HR_OK) return status;
    if (hr_bind_record(e->encoder, entity, e->bindings, record, e->scratch, &n_own, NULL) != HR_OK) {
        n_own++;
        status = begin_row(e, entity, err);
    }
    if (status == HR_OK) e->n_wrong[0] = n_own;
    return status;
}

/* Encodes a record and offers the row to the store's cache. *n_wrong: the row's counts, in scratch; NULL
 * where all are zero. */
static hr_status encode_record(encoding *e, hr_entity entity, const char *id, const hr_record *record,
                               void *row, const uint32_t **n_wrong, hr_error *err) {
    hr_status status = bind_stored(e, entity, record, err);
    if (status != HR_OK) return status;
    const uint32_t sum =
        e->n_wrong[0] + hr_encode_stored(e->encoder, entity, id, e->bindings, row, e->n_wrong);
    *e->n_invalid += sum;
    *n_wrong = sum > 0 ? e->n_wrong : NULL;
    if (e->fetch == NULL) return HR_OK;
    hr_fetch_keep_row(&(hr_row_offer){.fetch = e->fetch,
                                      .record = record,
                                      .entity = entity,
                                      .id = id,
                                      .row = row,
                                      .n_wrong = *n_wrong,
                                      .n_wrong_counts = hr_encoder_n_counts(e->encoder, entity)});
    return HR_OK;
}

/* Makes the row as it is stored, which a cache may have done already, and clears the bindings for what is
 * given inline. *n_wrong: as above. */
static hr_status stored_row(encoding *e, hr_entity entity, const char *id, const hr_record *record, void *row,
                            const uint32_t **n_wrong, hr_error *err) {
    if (record->row == NULL) {
        hr_status status = encode_record(e, entity, id, record, row, n_wrong, err);
        const size_t n_names = hr_encoder_fields(e->encoder, entity)->n_names;
        if (status == HR_OK) memset(e->bindings, 0, n_names * sizeof *e->bindings);
        return status;
    }
    *n_wrong = record->n_wrong;
    for (size_t i = 0; *n_wrong != NULL && i < hr_encoder_n_counts(e->encoder, entity); i++)
        *e->n_invalid += (*n_wrong)[i];
    return begin_row(e, entity, err);
}

static hr_status encode_user(encoding *e, const Homerank__V1__RankRequest *request, void *row,
                             hr_error *err) {
    const hr_record *record = e->fetch == NULL ? &no_record : &e->fetch->user;
    const uint32_t *n_wrong;
    hr_status status = stored_row(e, HR_ENTITY_USER, request->user_id, record, row, &n_wrong, err);
    if (status != HR_OK || request->n_user_features == 0) return status;
    for (size_t i = 0; i < request->n_user_features; i++) {
        const Homerank__V1__RankRequest__UserFeaturesEntry *entry = request->user_features[i];
        hr_bind(e->encoder, HR_ENTITY_USER, e->bindings, entry->key, entry->value, true);
    }
    status = hr_encode_inline(e->encoder, HR_ENTITY_USER, e->bindings, row, n_wrong, e->n_invalid, err);
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

static hr_status encode_item(encoding *e, const Homerank__V1__RankRequest *request, size_t i, void *row,
                             hr_error *err) {
    const bool fetched = e->fetch != NULL && e->fetch->items != NULL;
    const hr_record *record = fetched ? &e->fetch->items[i] : &no_record;
    const Homerank__V1__FeatureMap *map = request->n_item_features > 0 ? request->item_features[i] : NULL;
    const bool given = map != NULL && map->n_features > 0;
    if (!given && record->row != NULL && record->n_wrong == NULL) return HR_OK; /* cached, and that is all */
    const uint32_t *n_wrong;
    hr_status status = stored_row(e, HR_ENTITY_ITEM, request->item_ids[i], record, row, &n_wrong, err);
    if (status != HR_OK || !given) return status;
    for (size_t j = 0; j < map->n_features; j++)
        hr_bind(e->encoder, HR_ENTITY_ITEM, e->bindings, map->features[j]->key, map->features[j]->value,
                true);
    status = hr_encode_inline(e->encoder, HR_ENTITY_ITEM, e->bindings, row, n_wrong, e->n_invalid, err);
    return status == HR_OK ? HR_OK : hr_error_prefix(err, "item_features[%zu]", i);
}

/* Where n rows of the entity go: to the fetch's own, where cached ones lie already, or to new ones. */
static void *rows_of(const hr_schema *schema, hr_entity entity, size_t n, const hr_fetch *fetch,
                     hr_arena *arena) {
    if (fetch != NULL && fetch->rows[entity] != NULL) return fetch->rows[entity];
    return hr_arena_calloc(arena, n, hr_row_words(schema, entity) * sizeof(uint32_t));
}

hr_status hr_request_encode_shared(const hr_encoder *encoder, const hr_schema *schema,
                                   const Homerank__V1__RankRequest *request, const hr_fetch *records,
                                   hr_arena *arena, hr_arena *scratch, hr_slice *slice, uint32_t *n_invalid,
                                   hr_error *err) {
    void *user = rows_of(schema, HR_ENTITY_USER, 1, records, arena);
    void *context = hr_arena_calloc(arena, hr_row_words(schema, HR_ENTITY_CONTEXT), sizeof(uint32_t));
    void *items = rows_of(schema, HR_ENTITY_ITEM, request->n_item_ids, records, arena);
    if (user == NULL || context == NULL || items == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                            "the request's %zu encoded items exceed its memory cap", request->n_item_ids);
    *slice =
        (hr_slice){.user = user, .context = context, .items = items, .n_rows = (uint32_t)request->n_item_ids};
    *n_invalid = 0;
    encoding e = {.encoder = encoder, .fetch = records, .scratch = scratch, .n_invalid = n_invalid};
    hr_status status = encode_user(&e, request, user, err);
    return status == HR_OK ? encode_context(&e, request, context, err) : status;
}

hr_status hr_request_encode_items(const hr_encoder *encoder, const hr_schema *schema,
                                  const Homerank__V1__RankRequest *request, const hr_fetch *records,
                                  hr_arena *scratch, const hr_slice *slice, uint32_t first, uint32_t n,
                                  uint32_t *n_invalid, hr_error *err) {
    const size_t item_nbytes = hr_row_words(schema, HR_ENTITY_ITEM) * sizeof(uint32_t);
    unsigned char *items = (unsigned char *)slice->items; /* constant to those who compute, but not yet */
    encoding e = {.encoder = encoder, .fetch = records, .scratch = scratch, .n_invalid = n_invalid};
    hr_status status = HR_OK;
    *n_invalid = 0;
    for (uint32_t i = first; status == HR_OK && i < first + n; i++)
        status = encode_item(&e, request, i, items + i * item_nbytes, err);
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
