/* Keys, and the layouts packed and hash: see redis_layout.h. */
#include "features/redis_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "features/redis_slots.h"

enum { KEYS_PER_MGET = 2000 }; /* a longer one would keep the server from its other clients for too long */

void hr_redis_keys_init(hr_redis_keys *keys, const hr_store_uri *uri) {
    *keys = (hr_redis_keys){.feast = uri->layout == HR_LAYOUT_FEAST ? &uri->feast : NULL};
    for (hr_entity e = HR_ENTITY_USER; e <= HR_ENTITY_ITEM; e++)
        keys->head_nbytes[e] =
            (size_t)snprintf(keys->head[e], sizeof keys->head[e], "%s:%s:", uri->prefix, hr_entity__name(e));
}

void hr_redis_keys_clear(hr_redis_keys *keys) {
    free(keys->room);
}

uint16_t hr_redis_keys_slot(hr_redis_keys *keys, const hr_fetch_slot *slot) {
    if (keys->feast != NULL)
        return hr_redis_key_slot(
            keys->room, hr_feast_key_write(keys->feast, slot->entity, slot->id, keys->room), NULL, 0);
    return hr_redis_key_slot(keys->head[slot->entity], keys->head_nbytes[slot->entity], slot->id,
                             strlen(slot->id));
}

static void put_key(hr_redis_connection *connection, const hr_redis_keys *keys, const hr_fetch_slot *slot) {
    hr_redis_text(connection, keys->head[slot->entity], keys->head_nbytes[slot->entity], slot->id,
                  strlen(slot->id));
}

/* Copies a piece to where its text goes: arena memory of its own, with a NUL behind it. False where there is
 * none. */
static bool take_piece(hr_redis_filling *filling, hr_arena *arena, const hr_redis_piece *piece) {
    if (piece->offset == 0) {
        filling->text = hr_arena_alloc(arena, piece->total + 1);
        if (filling->text != NULL) filling->text[piece->total] = '\0';
    }
    if (filling->text == NULL) return false;
    memcpy(filling->text + piece->offset, piece->bytes, piece->nbytes);
    return true;
}

static bool is_last(const hr_redis_piece *piece) {
    return piece->offset + piece->nbytes == piece->total;
}

/* --- packed --------------------------------------------------------------------------------------------- */

static int packed_put(hr_redis_connection *connection, hr_redis_keys *keys, hr_fetch *fetch,
                      const uint32_t *records, size_t n) {
    hr_redis_begin(connection, 1 + n);
    hr_redis_text(connection, n == 1 ? "GET" : "MGET", n == 1 ? 3 : 4, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        const hr_fetch_slot slot = hr_fetch__slot(fetch, records[i]);
        put_key(connection, keys, &slot);
    }
    return n == 1 ? HR_REDIS_TEXT_REPLY : (int)n;
}

static bool packed_text(hr_redis_filling *filling, hr_arena *arena, hr_record *record, size_t field,
                        size_t n_fields, const hr_redis_piece *piece) {
    (void)field;
    (void)n_fields;
    if (!take_piece(filling, arena, piece)) return false;
    if (!is_last(piece)) return true;
    record->kind = HR_RECORD_PACKED;
    record->data = (const uint8_t *)filling->text;
    record->nbytes = piece->total;
    return true;
}

const hr_redis_layout hr_redis_layout_packed = {
    .max_records = KEYS_PER_MGET, .put = packed_put, .text = packed_text};

/* --- hash ----------------------------------------------------------------------------------------------- */

/* A record of which no field is wanted is there. */
static bool hash_asks(hr_redis_keys *keys, const hr_fetch *fetch, const hr_fetch_slot *slot,
                      hr_record_kind *known) {
    (void)keys;
    *known = HR_RECORD_FIELDS;
    const hr_field_list *fields = fetch->fields[slot->entity];
    return fields != NULL && fields->n_names > 0;
}

static int hash_put(hr_redis_connection *connection, hr_redis_keys *keys, hr_fetch *fetch,
                    const uint32_t *records, size_t n) {
    (void)n; /* 1 */
    const hr_fetch_slot slot = hr_fetch__slot(fetch, records[0]);
    const hr_field_list *fields = fetch->fields[slot.entity];
    hr_redis_begin(connection, 2 + fields->n_names);
    hr_redis_text(connection, "HMGET", 5, NULL, 0);
    put_key(connection, keys, &slot);
    for (size_t f = 0; f < fields->n_names; f++)
        hr_redis_text(connection, fields->names[f], strlen(fields->names[f]), NULL, 0);
    return (int)fields->n_names;
}

/* The fields of a record appear with its first text: a hash of which none is there is no record. */
bool hr_redis_layout__field_text(hr_redis_filling *filling, hr_arena *arena, hr_record *record, size_t field,
                                 size_t n_fields, const hr_redis_piece *piece) {
    (void)record;
    if (filling->fields == NULL) filling->fields = hr_arena_calloc(arena, n_fields, sizeof *filling->fields);
    if (filling->fields == NULL || !take_piece(filling, arena, piece)) return false;
    if (is_last(piece)) filling->fields[field] = (hr_field_text){filling->text, piece->total};
    return true;
}

static size_t hash_whole(const hr_redis_filling *filling, const hr_fetch *fetch, const hr_fetch_slot *slot) {
    (void)fetch;
    if (filling->fields == NULL) return 0;
    slot->record->fields = filling->fields;
    slot->record->kind = HR_RECORD_FIELDS;
    return 0;
}

const hr_redis_layout hr_redis_layout_hash = {.max_records = 1,
                                              .asks = hash_asks,
                                              .put = hash_put,
                                              .text = hr_redis_layout__field_text,
                                              .whole = hash_whole};
