/* A fetch that is answered from a cache as far as that goes: see cached_fetch.h. */
#include "features/cached_fetch.h"

#include "base/clock.h"

/* --- life ----------------------------------------------------------------------------------------------- */

static void keep_row(hr_row_keeper *keeper, const hr_row_offer *offer) {
    hr_cached *cached = (hr_cached *)keeper; /* its first member */
    if (offer->record->version == 0 && offer->record->cover == 0) return;
    const hr_schema *schema = offer->fetch->schema;
    const hr_record_key key =
        hr_record_cache_key(cached->cache, schema->fingerprint, offer->entity, offer->id);
    hr_record_cache_put_row(cached->cache, &key, offer, hr_row_words(schema, offer->entity), hr_clock_ns());
}

hr_status hr_cached_init(hr_cached *cached, const hr_store_options *options, hr_error *err) {
    const hr_record_cache_options of_cache = {.nbytes = options->cache_nbytes,
                                              .ttl_ms = options->cache_ttl_ms,
                                              .max_stale_ms = options->cache_max_stale_ms};
    cached->keeper.keep = keep_row;
    return hr_record_cache_create(&of_cache, &cached->cache, err);
}

void hr_cached_destroy(hr_cached *cached) {
    hr_record_cache_destroy(cached->cache);
}

/* --- rows ----------------------------------------------------------------------------------------------- */

static void fail_for_room(hr_fetch *fetch) {
    hr_fetch__fail(fetch, HR_RESOURCE_EXHAUSTED, "the call's memory is too small for its records");
}

static bool rows_create(hr_fetch *fetch) {
    for (hr_entity entity = HR_ENTITY_USER; entity <= HR_ENTITY_ITEM; entity++) {
        const size_t n = entity == HR_ENTITY_USER ? 1 : fetch->n_items;
        const size_t nbytes = hr_row_words(fetch->schema, entity) * sizeof(uint32_t);
        if (n == 0 || nbytes <= SIZE_MAX / n) fetch->rows[entity] = hr_arena_alloc(fetch->arena, n * nbytes);
        if (fetch->rows[entity] == NULL) {
            fail_for_room(fetch);
            return false;
        }
    }
    return true;
}

/* Where the row of record number i goes. */
static uint32_t *row_of(const hr_fetch *fetch, hr_entity entity, size_t i) {
    if (entity == HR_ENTITY_USER) return fetch->rows[HR_ENTITY_USER];
    return fetch->rows[HR_ENTITY_ITEM] +
           (i - (fetch->user_id != NULL)) * hr_row_words(fetch->schema, HR_ENTITY_ITEM);
}

hr_record_key hr_cached_key(const hr_cached *cached, hr_fetch *fetch, size_t i) {
    const hr_fetch_slot slot = hr_fetch__slot(fetch, i);
    return hr_record_cache_key(cached->cache, fetch->schema->fingerprint, slot.entity, slot.id);
}

hr_record_cache_found hr_cached_look_up(hr_cached *cached, hr_fetch *fetch, size_t i,
                                        const hr_record_key *key, bool stale_too, uint64_t now_ns) {
    hr_record *record = hr_fetch__slot(fetch, i).record;
    const size_t n_words = hr_row_words(fetch->schema, key->entity);
    hr_record_cache_found found = hr_record_cache_get(
        cached->cache, key, stale_too, now_ns, row_of(fetch, key->entity, i), n_words, fetch->arena, record);
    if (found == HR_CACHE_NO_ROOM) fail_for_room(fetch);
    return found;
}

void hr_cached_stand_in(hr_cached *cached, hr_fetch *fetch, size_t i, const hr_record_key *key) {
    const uint64_t now_ns = hr_clock_ns();
    /* Another fetch may have had an answer meanwhile. */
    if (hr_cached_look_up(cached, fetch, i, key, false, now_ns) == HR_CACHE_FOUND) return;
    if (hr_cached_look_up(cached, fetch, i, key, true, now_ns) != HR_CACHE_FOUND) return;
    hr_record *record = hr_fetch__slot(fetch, i).record;
    record->answered = false;
    record->stale = true;
    record->version = 0;
    hr_record_cache_count(cached->cache, 0, 0, 1);
}

size_t hr_cached_look_up_all(hr_cached *cached, hr_fetch *fetch, uint64_t now_ns, uint32_t *missing) {
    const hr_record_wanted items = {.fingerprint = fetch->schema->fingerprint,
                                    .entity = HR_ENTITY_ITEM,
                                    .ids = fetch->item_ids,
                                    .n = fetch->n_items,
                                    .n_words = hr_row_words(fetch->schema, HR_ENTITY_ITEM),
                                    .rows = fetch->rows[HR_ENTITY_ITEM],
                                    .records = fetch->items,
                                    .arena = fetch->arena};
    size_t n_missing = 0;
    bool no_room = false;
    if (fetch->user_id != NULL) {
        const hr_record_key user = hr_cached_key(cached, fetch, 0);
        if (hr_cached_look_up(cached, fetch, 0, &user, false, now_ns) == HR_CACHE_ABSENT)
            missing[n_missing++] = 0;
    }
    const size_t n_users_missing = n_missing;
    n_missing += hr_record_cache_get_many(cached->cache, &items, now_ns, missing + n_missing, &no_room);
    for (size_t i = n_users_missing; fetch->user_id != NULL && i < n_missing; i++) missing[i]++;
    if (no_room) fail_for_room(fetch);
    return n_missing;
}

bool hr_cached_begin(hr_cached *cached, hr_fetch *fetch, uint32_t **missing) {
    if (!hr_fetch__begin(fetch)) return false;
    *missing = hr_arena_calloc(fetch->arena, hr_fetch__count(fetch), sizeof **missing);
    if (*missing == NULL) fail_for_room(fetch);
    if (*missing == NULL || !rows_create(fetch)) return false;
    fetch->keeper = &cached->keeper;
    return true;
}
