/* Records in memory, encoded: one table of bounded size for all models (a schema's fingerprint is part of the
 * key, so that models of one schema share).
 *
 * An entry is born as what the store answered (hr_record_cache_put_record), on the store's thread, which
 * must not parse; the first worker that encodes it gives the row (hr_record_cache_put_row), and from then on
 * a hit costs a copy. That there is no such record is an entry too.
 *
 * An entry is fresh until its time to live is over, its key is forgotten, or its cover ends (cache_cover.h):
 * whichever is first. Afterwards it may stand in for a store that cannot answer, for max_stale_ms.
 *
 * The race between a read and a change: a ticket is taken before a record is asked for; a change of the key
 * that is heard of until the answer is put voids the ticket, and the answer, which may be older than the
 * change, is not kept.
 *
 * Thread rule: any thread, but for covers (see there). Changes take a shard's lock; look-ups only one of
 * their processor's, which nobody else wants but who frees memory. Private to features/.
 */
#ifndef HOMERANK_FEATURES_RECORD_CACHE_H
#define HOMERANK_FEATURES_RECORD_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "features/cache_cover.h"
#include "features/store.h"

enum { HR_RECORD_CACHE_MIN_NBYTES = 1 << 20 };

typedef struct hr_record_cache hr_record_cache;

typedef struct hr_record_cache_options {
    size_t nbytes;   /* entries, their overhead in malloc, and tables; at least HR_RECORD_CACHE_MIN_NBYTES */
    uint32_t ttl_ms; /* less up to a tenth, at random; 0: for ever */
    uint32_t max_stale_ms; /* 0: nothing stale is kept */
} hr_record_cache_options;

/* Errors: INVALID_ARGUMENT (nbytes), OUT_OF_MEMORY. */
hr_status hr_record_cache_create(const hr_record_cache_options *options, hr_record_cache **cache,
                                 hr_error *err);
void hr_record_cache_destroy(hr_record_cache *cache); /* NULL is allowed */

hr_cache_covers *hr_record_cache_covers(hr_record_cache *cache);

/* Whose record, encoded by which schema. */
typedef struct hr_record_key {
    const char *id; /* id_nbytes bytes; borrowed */
    size_t id_nbytes;
    uint64_t hash; /* of entity and id */
    uint64_t fingerprint;
    hr_entity entity;
} hr_record_key;

/* Also begins to bring the entry's place in the table nearer. */
hr_record_key hr_record_cache_key(const hr_record_cache *cache, uint64_t fingerprint, hr_entity entity,
                                  const char *id);

typedef enum hr_record_cache_found {
    HR_CACHE_ABSENT,
    HR_CACHE_FOUND,  /* record is filled */
    HR_CACHE_NO_ROOM /* it is there, but the arena is full */
} hr_record_cache_found;

/* Looks for a fresh entry; or, with stale_too, for one that may stand in. What a record holds beside its row
 * is copied into the arena. row: (n_words), where a row is to go. Other than FOUND leaves the record alone.
 */
hr_record_cache_found hr_record_cache_get(hr_record_cache *cache, const hr_record_key *key, bool stale_too,
                                          uint64_t now_ns, uint32_t *row, size_t n_words, hr_arena *arena,
                                          hr_record *record);

/* Records to look for together. */
typedef struct hr_record_wanted {
    uint64_t fingerprint;
    hr_entity entity;
    size_t n, n_words;
    const char *const *ids; /* (n) NUL-terminated; borrowed, as are these: */
    uint32_t *rows;         /* (n, n_words) */
    hr_record *records;     /* (n) */
    hr_arena *arena;
} hr_record_wanted;

/* The same for fresh entries of many records, cheaper: memory is not waited for record by record. The numbers
 * of those that are absent go to absent, room for n; returns how many. *no_room becomes true where the arena
 * is full. */
size_t hr_record_cache_get_many(hr_record_cache *cache, const hr_record_wanted *wanted, uint64_t now_ns,
                                uint32_t *absent, bool *no_room);

typedef struct hr_record_ticket {
    uint64_t n_losses;
    uint32_t n_changes;
} hr_record_ticket;

hr_record_ticket hr_record_cache_ticket(hr_record_cache *cache, const hr_record_key *key);

/* False where the key may have changed since the ticket was taken. */
bool hr_record_cache_ticket_holds(hr_record_cache *cache, const hr_record_key *key, hr_record_ticket ticket);

/* Keeps what the store answered, in the place of an older entry. The version for the record, or 0 where it is
 * not kept: void ticket, no cover or one that has ended, not answered, too large, out of memory. n_fields: of
 * a record of FIELDS or VALUES. */
uint64_t hr_record_cache_put_record(hr_record_cache *cache, const hr_record_key *key, hr_record_ticket ticket,
                                    const hr_record *record, size_t n_fields, uint64_t now_ns);

/* Keeps an offered row (n_words) and its counts: in the place of the entry of the record's version, unless
 * that is gone; or, where the record has none, in a new entry under the record's cover, while that lasts. */
void hr_record_cache_put_row(hr_record_cache *cache, const hr_record_key *key, const hr_row_offer *offer,
                             size_t n_words, uint64_t now_ns);

/* The key has changed, whatever the schema: its entries are no longer fresh, and tickets are void. */
void hr_record_cache_forget(hr_record_cache *cache, hr_entity entity, const char *id, size_t id_nbytes,
                            uint64_t now_ns);

/* Counts what is not seen here: records asked of the store, waited for with another fetch, stale stand-ins.
 */
void hr_record_cache_count(hr_record_cache *cache, uint64_t n_misses, uint64_t n_joins, uint64_t n_stale);

void hr_record_cache_stats(hr_record_cache *cache, hr_cache_stats *stats);

#endif
