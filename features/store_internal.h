/* What a kind of store implements, and what all of them share. Private to features/. */
#ifndef HOMERANK_FEATURES_STORE_INTERNAL_H
#define HOMERANK_FEATURES_STORE_INTERNAL_H

#include <stdbool.h>

#include "features/record_cache.h"
#include "features/store.h"
#include "features/store_uri.h"

/* A kind of store: these functions and a context (the store's own state). */
typedef struct hr_store_i {
    bool synchronous;
    void (*fetch)(void *context, hr_fetch *fetch); /* see hr_store_fetch */
    void (*close)(void *context);                  /* see hr_store_close */
    /* (optional) The number of the store's state, which grows with every change: see hr_fetch.state. */
    uint64_t (*state)(void *context);
    /* (optional) see hr_store_cache_stats; NULL: it has no cache */
    void (*cache_stats)(void *context, hr_cache_stats *stats);
    /* (optional) Adds to zeroed counts; false, as without it: nothing is counted. */
    bool (*count)(const void *context, hr_store_counts *counts);
} hr_store_i;

extern const hr_store_i hr_store__none; /* its context is NULL */
extern const hr_store_i hr_store__lmdb;
extern const hr_store_i hr_store__redis;
extern const hr_store_i hr_store__cached; /* redis, behind a cache */
extern const hr_store_i hr_store__cached_lmdb;

/* The uri is borrowed during the call. */
hr_status hr_store__open_lmdb(const hr_store_uri *uri, void **context, hr_error *err);
/* cache: what its records are kept in and what hears of their changes; NULL: none. Borrowed. */
hr_status hr_store__open_redis(const hr_store_uri *uri, const hr_store_options *options,
                               hr_record_cache *cache, void **context, hr_error *err);
hr_status hr_store__open_cached(const hr_store_uri *uri, const hr_store_options *options, void **context,
                                hr_error *err);
hr_status hr_store__open_cached_lmdb(const hr_store_uri *uri, const hr_store_options *options, void **context,
                                     hr_error *err);

/* Resets what a fetch gives out: everything MISSING, no error. False (and fetch->error) where the arena is
 * full. */
bool hr_fetch__begin(hr_fetch *fetch);

/* The records of a fetch in the order in which stores ask for them: the user's, if wanted, then the items'.
 */
static inline size_t hr_fetch__count(const hr_fetch *fetch) {
    return fetch->n_items + (fetch->user_id != NULL);
}

/* Record number i of that order: where it goes to, whose it is, and of which id. */
typedef struct hr_fetch_slot {
    hr_record *record;
    hr_entity entity;
    const char *id;
} hr_fetch_slot;
static inline hr_fetch_slot hr_fetch__slot(hr_fetch *fetch, size_t i) {
    if (fetch->user_id != NULL) {
        if (i == 0) return (hr_fetch_slot){&fetch->user, HR_ENTITY_USER, fetch->user_id};
        i--;
    }
    return (hr_fetch_slot){&fetch->items[i], HR_ENTITY_ITEM, fetch->item_ids[i]};
}

/* Copies a packed value into the fetch's arena; where that is full the record stays MISSING and the fetch has
 * an error. */
void hr_fetch__take_packed(hr_fetch *fetch, hr_record *record, const void *data, size_t nbytes);

/* Sets the fetch's error unless it has one already: the first says why the rest is missing. */
void hr_fetch__fail(hr_fetch *fetch, hr_status code, const char *message);

#endif
