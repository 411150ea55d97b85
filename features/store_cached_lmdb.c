/* `lmdb:PATH` behind a cache of encoded records: a hit saves the record's parsing.
 *
 * Every committed transaction, of whichever process, has a number, and a record is true as long as that is
 * the last one: nobody has to tell of changes, and nothing outlives one. A fetch sees one state of the store,
 * as it does without a cache: where the store has moved on meanwhile, all of it is read anew.
 *
 * Any thread may fetch. What is missing is read on the caller's thread, which encodes it next: its rows are
 * kept, its records never are.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "features/cached_fetch.h"

typedef struct cached_lmdb {
    hr_cached cached;
    void *context; /* of hr_store__lmdb; owned */
    int source;    /* of the cache's covers */
} cached_lmdb;

static void nothing(hr_fetch *fetch) {
    (void)fetch;
}

/* Reads the records of these numbers (ascending); the state they are of, 0 where they could not be read. */
static uint64_t read_missing(cached_lmdb *store, hr_fetch *fetch, const uint32_t *missing, size_t n_missing) {
    const bool with_user = fetch->user_id != NULL && n_missing > 0 && missing[0] == 0;
    const char **ids = hr_arena_calloc(fetch->arena, n_missing, sizeof *ids);
    hr_fetch part = {.user_id = with_user ? fetch->user_id : NULL,
                     .item_ids = ids,
                     .deadline_ns = fetch->deadline_ns,
                     .arena = fetch->arena,
                     .done = nothing};
    if (ids == NULL) {
        hr_fetch__fail(fetch, HR_RESOURCE_EXHAUSTED, "the call's memory is too small for its records");
        return 0;
    }
    for (size_t k = with_user; k < n_missing; k++) ids[part.n_items++] = hr_fetch__slot(fetch, missing[k]).id;
    hr_store__lmdb.fetch(store->context, &part);
    if (part.error.code != HR_OK) hr_fetch__fail(fetch, part.error.code, part.error.message);
    const hr_cover cover =
        hr_cache_cover_of_state(hr_record_cache_covers(store->cached.cache), store->source, part.state);
    const size_t n_read = part.n_items > 0 && part.items == NULL ? 0 : n_missing;
    for (size_t k = 0; k < n_read; k++) {
        hr_record *record = hr_fetch__slot(fetch, missing[k]).record;
        *record = *hr_fetch__slot(&part, k).record;
        record->cover = record->answered ? cover : 0;
    }
    hr_record_cache_count(store->cached.cache, n_read, 0, 0);
    return part.state;
}

static void cached_lmdb_fetch(void *context, hr_fetch *fetch) {
    cached_lmdb *store = context;
    uint32_t *missing;
    if (fetch->schema == NULL) {
        hr_store__lmdb.fetch(store->context, fetch);
        return;
    }
    if (hr_cached_begin(&store->cached, fetch, &missing)) {
        hr_cache_covers *covers = hr_record_cache_covers(store->cached.cache);
        const uint64_t state = hr_store__lmdb.state(store->context);
        const hr_cover cover = hr_cache_cover_of_state(covers, store->source, state);
        const size_t n = hr_fetch__count(fetch);
        size_t n_missing = hr_cached_look_up_all(&store->cached, fetch, hr_clock_ns(), missing);
        const uint64_t read = n_missing == 0 ? state : read_missing(store, fetch, missing, n_missing);
        const bool moved_on = read != state || !hr_cache_cover_lasts(covers, cover);
        if (moved_on && n_missing < n && fetch->error.code == HR_OK) {
            for (uint32_t i = 0; i < n; i++) missing[i] = i;
            read_missing(store, fetch, missing, n);
        }
    }
    fetch->done(fetch);
}

static void cached_lmdb_stats(void *context, hr_cache_stats *stats) {
    const cached_lmdb *store = context;
    hr_record_cache_stats(store->cached.cache, stats);
}

static void cached_lmdb_close(void *context) {
    cached_lmdb *store = context;
    hr_store__lmdb.close(store->context);
    hr_cached_destroy(&store->cached);
    free(store);
}

hr_status hr_store__open_cached_lmdb(const hr_store_uri *uri, const hr_store_options *options, void **context,
                                     hr_error *err) {
    cached_lmdb *store = calloc(1, sizeof *store);
    if (store == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "cache: out of memory");
    hr_status status = hr_cached_init(&store->cached, options, err);
    if (status == HR_OK) status = hr_store__open_lmdb(uri, &store->context, err);
    if (status != HR_OK) {
        hr_cached_destroy(&store->cached);
        free(store);
        return status;
    }
    store->source = hr_cache_source_open(hr_record_cache_covers(store->cached.cache)); /* the only one */
    *context = store;
    return HR_OK;
}

const hr_store_i hr_store__cached_lmdb = {.synchronous = true,
                                          .fetch = cached_lmdb_fetch,
                                          .close = cached_lmdb_close,
                                          .cache_stats = cached_lmdb_stats};
