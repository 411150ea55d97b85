/* A fetch that is answered from a cache as far as that goes: what the stores behind a cache share.
 *
 * Thread rule: any thread, a fetch by one at a time. Private to features/.
 */
#ifndef HOMERANK_FEATURES_CACHED_FETCH_H
#define HOMERANK_FEATURES_CACHED_FETCH_H

#include "features/record_cache.h"
#include "features/store_internal.h"

/* The first member of a store behind a cache. */
typedef struct hr_cached {
    hr_row_keeper keeper;
    hr_record_cache *cache; /* owned */
} hr_cached;

/* Makes the cache of the options. Errors: hr_record_cache_create's. */
hr_status hr_cached_init(hr_cached *cached, const hr_store_options *options, hr_error *err);
void hr_cached_destroy(hr_cached *cached); /* also one that was never made, all zero */

/* Begins a fetch with a schema: its records, room for its rows, and *missing, room for the numbers of all its
 * records. False, and fetch->error, where the arena is full. */
bool hr_cached_begin(hr_cached *cached, hr_fetch *fetch, uint32_t **missing);

hr_record_key hr_cached_key(const hr_cached *cached, hr_fetch *fetch, size_t i);

/* Looks for record number i; stale_too: also for one past its time. Where there is no room the fetch has the
 * error. */
hr_record_cache_found hr_cached_look_up(hr_cached *cached, hr_fetch *fetch, size_t i,
                                        const hr_record_key *key, bool stale_too, uint64_t now_ns);

/* Takes all that is cached; the numbers of the other records go to missing. */
size_t hr_cached_look_up_all(hr_cached *cached, hr_fetch *fetch, uint64_t now_ns, uint32_t *missing);

/* The store has not answered for record number i, which is MISSING: a stale one may stand in. */
void hr_cached_stand_in(hr_cached *cached, hr_fetch *fetch, size_t i, const hr_record_key *key);

#endif
