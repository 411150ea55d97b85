/* Records in memory, encoded: see record_cache.h.
 *
 * A shard is a chained hash table of a size fixed at the start (what the shard's bytes can hold), so that
 * nothing is ever moved; the policy's queues run through the same entries. An entry is one block of memory,
 * never changed but for what is atomic in it: whatever replaces it is a block of its own, made before the
 * shard's lock is taken.
 *
 * A look-up takes no shard's lock, which would cost as much as all the rest of it: it follows the chain as it
 * is. An entry that left its chain keeps its link, for whoever is just there, and its memory until all have
 * looked away: readers hold a lock of their processor's for a block of look-ups, and who frees has held each
 * of these locks in between.
 */
#include "features/record_cache.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/clock.h"
#include "features/cache_policy.h"
#include "features/record_blob.h"

enum {
    MAX_SHARDS = 256,
    SHARD_MIN_NBYTES = 1 << 20,
    ENTRY_NBYTES = 512,     /* about what a large entry takes: a shard has a bucket and a ghost for each */
    LARGEST_FRACTION = 4,   /* an entry may take 1 / this of its shard */
    CHANGES_PER_SHARD = 64, /* keys that share a count void each other's tickets, which costs a fetch */
    CACHE_LINE_NBYTES = 64,
    HUGE_PAGE_NBYTES = 2 << 20,
    PREFETCH_NBYTES = 256,
    READ_AT_ONCE = 16,     /* look-ups under a reader's lock */
    N_READERS = 64,        /* processors beyond so many share */
    GONE_NBYTES = 16 << 10 /* entries that have left wait until they are so much: freeing is one round */
};

typedef struct entry entry;
struct entry {
    hr_cache_node node;    /* first: a victim is its entry */
    _Atomic(entry *) next; /* in its bucket */
    uint64_t fingerprint, version;
    _Atomic uint64_t expires_ns; /* fresh until then, or until its cover ends */
    hr_cover cover;
    uint32_t id_nbytes, data_nbytes;
    uint32_t n_words; /* of a row: data is the row, and counts where there is more; 0: a blob */
    uint8_t entity, kind;
    bool invalid;
    alignas(8) unsigned char bytes[]; /* the id, padded to 8; data */
};

typedef struct shard {
    alignas(CACHE_LINE_NBYTES) pthread_mutex_t lock; /* for changes of all below, its buckets and entries */
    uint64_t n_versions, n_evictions, n_invalidations;
    hr_cache_policy policy;
    uint32_t n_changes[CHANGES_PER_SHARD];
} shard;

/* What looks up on one processor. */
typedef struct reader {
    alignas(CACHE_LINE_NBYTES) pthread_mutex_t reading_lock; /* held while entries are read; guards these: */
    uint64_t n_hits, n_negative_hits;
} reader;

struct hr_record_cache {
    hr_record_cache_options options;
    uint64_t seed;
    size_t fixed_nbytes; /* everything but entries in chains; 0 until all of it is there */
    uint32_t n_shards, shard_shift;
    size_t n_buckets;          /* of a shard; a power of two */
    shard *shards;             /* (n_shards) owned */
    _Atomic(entry *) *buckets; /* (n_shards, n_buckets) owned, and the entries; ghosts lie behind them */
    reader *readers;           /* (N_READERS) owned */
    pthread_mutex_t gone_lock; /* guards the two below */
    entry *gone;               /* owned; out of their chains, but perhaps still read */
    size_t gone_nbytes;
    hr_cache_covers covers;
    _Atomic uint64_t n_misses, n_joins, n_stale;
};

/* --- what has left -------------------------------------------------------------------------------------- */

/* Before others that have left, by a link that the policy has no more use for. */
static entry *gone_before(entry *e, entry *others) {
    e->node.older = (hr_cache_node *)others;
    return e;
}

static entry *gone_after(const entry *e) {
    return (entry *)e->node.older;
}

static void free_gone(entry *gone) {
    while (gone != NULL) {
        entry *after = gone_after(gone);
        free(gone);
        gone = after;
    }
}

/* Whoever reads now may be at an entry that has left; who comes later finds no way to it. */
static void wait_for_readers(const hr_record_cache *cache) {
    for (size_t i = 0; i < N_READERS; i++) {
        pthread_mutex_lock(&cache->readers[i].reading_lock);
        pthread_mutex_unlock(&cache->readers[i].reading_lock);
    }
}

/* Takes entries that have left, and frees them once that is worth a round. Not under a shard's lock, nor
 * while reading. */
static void let_go(hr_record_cache *cache, entry *gone) {
    if (gone == NULL) return;
    entry *unread = NULL;
    pthread_mutex_lock(&cache->gone_lock);
    while (gone != NULL) {
        entry *after = gone_after(gone);
        cache->gone_nbytes += gone->node.nbytes;
        cache->gone = gone_before(gone, cache->gone);
        gone = after;
    }
    if (cache->gone_nbytes > GONE_NBYTES) {
        unread = cache->gone;
        cache->gone = NULL;
        cache->gone_nbytes = 0;
    }
    pthread_mutex_unlock(&cache->gone_lock);
    if (unread == NULL) return;
    wait_for_readers(cache);
    free_gone(unread);
}

/* --- creation ------------------------------------------------------------------------------------------- */

/* Tables: all shards' buckets, then all shards' ghosts, in one block of whole huge pages: a look-up in a
 * large table otherwise waits for the page's address before it waits for the page. */
static void *tables_create(size_t nbytes) {
    const size_t whole = (nbytes + HUGE_PAGE_NBYTES - 1) & ~(size_t)(HUGE_PAGE_NBYTES - 1);
    void *tables = nbytes < HUGE_PAGE_NBYTES ? malloc(nbytes) : aligned_alloc(HUGE_PAGE_NBYTES, whole);
    if (tables == NULL) return NULL;
    if (nbytes >= HUGE_PAGE_NBYTES)
        madvise(tables, whole, MADV_HUGEPAGE); /* or small ones, where it may not */
    memset(tables, 0, nbytes);
    return tables;
}

static hr_status shards_create(hr_record_cache *cache, hr_error *err) {
    const size_t nbytes = cache->options.nbytes;
    cache->n_shards = 2; /* at least: a shift by 64 is not defined */
    cache->shard_shift = 63;
    for (; cache->n_shards < MAX_SHARDS && nbytes / (cache->n_shards * 2) >= SHARD_MIN_NBYTES;
         cache->shard_shift--)
        cache->n_shards *= 2;
    cache->n_buckets = 1;
    while (cache->n_buckets < nbytes / cache->n_shards / ENTRY_NBYTES) cache->n_buckets *= 2;
    const size_t n = cache->n_shards, n_all = n * cache->n_buckets;
    const size_t shards_nbytes = n * sizeof *cache->shards, readers_nbytes = N_READERS * sizeof(reader);
    const size_t tables_nbytes = n_all * (sizeof *cache->buckets + sizeof(hr_cache_ghost));
    cache->shards = aligned_alloc(CACHE_LINE_NBYTES, shards_nbytes);
    cache->buckets = tables_create(tables_nbytes);
    cache->readers = aligned_alloc(CACHE_LINE_NBYTES, readers_nbytes);
    if (cache->shards == NULL || cache->buckets == NULL || cache->readers == NULL)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "cache: no memory for its tables");
    cache->fixed_nbytes = sizeof *cache + shards_nbytes + tables_nbytes + readers_nbytes + GONE_NBYTES;
    hr_cache_ghost *ghosts = (hr_cache_ghost *)(cache->buckets + n_all);
    memset(cache->shards, 0, shards_nbytes);
    memset(cache->readers, 0, readers_nbytes);
    for (size_t i = 0; i < N_READERS; i++) pthread_mutex_init(&cache->readers[i].reading_lock, NULL);
    pthread_mutex_init(&cache->gone_lock, NULL);
    for (size_t i = 0; i < n; i++) {
        pthread_mutex_init(&cache->shards[i].lock, NULL);
        hr_cache_policy_init(&cache->shards[i].policy, (nbytes - cache->fixed_nbytes) / n,
                             ghosts + i * cache->n_buckets, cache->n_buckets);
    }
    return HR_OK;
}

hr_status hr_record_cache_create(const hr_record_cache_options *options, hr_record_cache **out,
                                 hr_error *err) {
    *out = NULL;
    if (options->nbytes < HR_RECORD_CACHE_MIN_NBYTES)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "cache: expected at least %d bytes, found %zu",
                            HR_RECORD_CACHE_MIN_NBYTES, options->nbytes);
    hr_record_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "cache: no memory for its tables");
    cache->options = *options;
    /* Ids come from outside: nobody shall know which of them share a bucket. */
    if (getrandom(&cache->seed, sizeof cache->seed, GRND_NONBLOCK) != sizeof cache->seed)
        cache->seed = hr_clock_ns() ^ (uint64_t)(uintptr_t)cache;
    hr_status status = shards_create(cache, err);
    if (status != HR_OK) {
        hr_record_cache_destroy(cache);
        return status;
    }
    *out = cache;
    return HR_OK;
}

/* Of a cache that was made whole. */
static void shards_destroy(hr_record_cache *cache) {
    for (size_t b = 0; b < cache->n_shards * cache->n_buckets; b++)
        for (entry *e = cache->buckets[b], *next; e != NULL; e = next) {
            next = e->next;
            free(e);
        }
    free_gone(cache->gone);
    for (size_t i = 0; i < cache->n_shards; i++) pthread_mutex_destroy(&cache->shards[i].lock);
    for (size_t i = 0; i < N_READERS; i++) pthread_mutex_destroy(&cache->readers[i].reading_lock);
    pthread_mutex_destroy(&cache->gone_lock);
}

void hr_record_cache_destroy(hr_record_cache *cache) {
    if (cache == NULL) return;
    if (cache->fixed_nbytes > 0) shards_destroy(cache);
    free(cache->readers);
    free(cache->buckets);
    free(cache->shards);
    free(cache);
}

hr_cache_covers *hr_record_cache_covers(hr_record_cache *cache) {
    return &cache->covers;
}

/* --- keys ----------------------------------------------------------------------------------------------- */

static shard *shard_of(const hr_record_cache *cache, uint64_t hash) {
    return &cache->shards[hash >> cache->shard_shift];
}

static _Atomic(entry *) *bucket_of(const hr_record_cache *cache, uint64_t hash) {
    return &cache->buckets[(hash >> cache->shard_shift) * cache->n_buckets + (hash & (cache->n_buckets - 1))];
}

static uint32_t *n_changes_of(shard *s, uint64_t hash) {
    return &s->n_changes[(hash >> 32) % CHANGES_PER_SHARD];
}

static uint64_t hash_of(const hr_record_cache *cache, hr_entity entity, const char *id, size_t id_nbytes) {
    return XXH3_64bits_withSeed(id, id_nbytes, cache->seed + (uint64_t)entity);
}

static hr_record_key key_of(const hr_record_cache *cache, uint64_t fingerprint, hr_entity entity,
                            const char *id) {
    const size_t id_nbytes = strlen(id);
    const uint64_t hash = hash_of(cache, entity, id, id_nbytes);
    __builtin_prefetch(bucket_of(cache, hash));
    return (hr_record_key){
        .id = id, .id_nbytes = id_nbytes, .hash = hash, .fingerprint = fingerprint, .entity = entity};
}

hr_record_key hr_record_cache_key(const hr_record_cache *cache, uint64_t fingerprint, hr_entity entity,
                                  const char *id) {
    return key_of(cache, fingerprint, entity, id);
}

/* --- entries -------------------------------------------------------------------------------------------- */

static unsigned char *data_of(entry *e) {
    return e->bytes + ((e->id_nbytes + 7u) & ~7u);
}

static bool is_of_record(const entry *e, uint64_t hash, hr_entity entity, const char *id, size_t id_nbytes) {
    return e->node.hash == hash && e->id_nbytes == id_nbytes && e->entity == entity &&
           memcmp(e->bytes, id, id_nbytes) == 0;
}

static entry *load(const _Atomic(entry *) *link) {
    return atomic_load_explicit(link, memory_order_acquire);
}

static entry *find(const hr_record_cache *cache, const hr_record_key *key) {
    entry *e = load(bucket_of(cache, key->hash));
    while (e != NULL && !(e->fingerprint == key->fingerprint &&
                          is_of_record(e, key->hash, key->entity, key->id, key->id_nbytes)))
        e = load(&e->next);
    return e;
}

/* An entry of no shard yet, with room for its data; NULL where that is too much. */
static entry *entry_create(const hr_record_cache *cache, const hr_record_key *key, size_t data_nbytes) {
    const size_t largest = shard_of(cache, key->hash)->policy.capacity_nbytes / LARGEST_FRACTION;
    if (key->id_nbytes > largest || data_nbytes > largest) return NULL;
    const size_t nbytes = sizeof(entry) + ((key->id_nbytes + 7) & ~(size_t)7) + data_nbytes;
    entry *e = nbytes > largest ? NULL : malloc(nbytes);
    if (e == NULL) return NULL;
    memset(e, 0, sizeof *e);
    e->node.hash = key->hash;
    e->node.nbytes = malloc_usable_size(e) + sizeof(size_t); /* and malloc's own word */
    e->fingerprint = key->fingerprint;
    e->entity = (uint8_t)key->entity;
    e->id_nbytes = (uint32_t)key->id_nbytes;
    e->data_nbytes = (uint32_t)data_nbytes;
    memcpy(e->bytes, key->id, key->id_nbytes);
    return e;
}

/* Takes an entry out of its bucket, or, with another, puts that in its place. */
static void relink(const hr_record_cache *cache, entry *e, entry *other) {
    entry *after = load(&e->next);
    if (other != NULL) {
        atomic_store_explicit(&other->next, after, memory_order_relaxed);
        after = other;
    }
    _Atomic(entry *) *link = bucket_of(cache, e->node.hash);
    while (load(link) != e) link = &load(link)->next;
    atomic_store_explicit(link, after, memory_order_release);
}

/* Puts an entry in the place of `before`, or, where that is NULL, in. Returns what had to go for it. */
static entry *put(hr_record_cache *cache, shard *s, entry *before, entry *e) {
    entry *gone = NULL;
    if (before != NULL) {
        hr_cache_policy_replace(&s->policy, &before->node, &e->node);
        relink(cache, before, e);
        gone = gone_before(before, NULL);
    } else {
        _Atomic(entry *) *bucket = bucket_of(cache, e->node.hash);
        hr_cache_policy_insert(&s->policy, &e->node);
        atomic_store_explicit(&e->next, load(bucket), memory_order_relaxed);
        atomic_store_explicit(bucket, e, memory_order_release);
    }
    hr_cache_node *node;
    while ((node = hr_cache_policy_victim(&s->policy)) != NULL) {
        entry *victim = (entry *)node;
        relink(cache, victim, NULL);
        gone = gone_before(victim, gone);
        s->n_evictions++;
    }
    return gone;
}

/* --- looking -------------------------------------------------------------------------------------------- */

static uint64_t expires_ns(const entry *e) {
    return atomic_load_explicit(&e->expires_ns, memory_order_acquire);
}

static bool is_fresh(const hr_record_cache *cache, const entry *e, uint64_t now_ns) {
    return now_ns < expires_ns(e) && hr_cache_cover_lasts(&cache->covers, e->cover);
}

static bool may_stand_in(const hr_record_cache *cache, const entry *e, uint64_t now_ns) {
    const uint64_t covered_ns = hr_cache_cover_end_ns(&cache->covers, e->cover);
    const uint64_t expired_ns = expires_ns(e), end_ns = covered_ns < expired_ns ? covered_ns : expired_ns;
    return end_ns >= now_ns || now_ns - end_ns <= cache->options.max_stale_ms * UINT64_C(1000000);
}

/* The counts behind a row; false where the arena is full. */
static bool copy_counts(entry *e, hr_arena *arena, const uint32_t **n_wrong) {
    const size_t row_nbytes = e->n_words * sizeof(uint32_t), nbytes = e->data_nbytes - row_nbytes;
    *n_wrong = NULL;
    if (nbytes == 0) return true;
    uint32_t *counts = hr_arena_alloc(arena, nbytes);
    if (counts == NULL) return false;
    memcpy(counts, data_of(e) + row_nbytes, nbytes);
    *n_wrong = counts;
    return true;
}

static bool copy_row(entry *e, uint32_t *row, hr_arena *arena, hr_record *record) {
    const uint32_t *n_wrong;
    if (!copy_counts(e, arena, &n_wrong)) return false;
    memcpy(row, data_of(e), e->n_words * sizeof *row);
    record->kind = e->kind == HR_RECORD_MISSING ? HR_RECORD_MISSING : HR_RECORD_ROW;
    record->row = row;
    record->n_wrong = n_wrong;
    record->version = 0;
    return true;
}

static bool copy_blob(entry *e, hr_arena *arena, hr_record *record) {
    if (!hr_record_blob_read((hr_record_kind)e->kind, data_of(e), e->data_nbytes, arena, record))
        return false;
    record->row = record->n_wrong = NULL;
    record->version = e->version;
    return true;
}

static bool copy_out(entry *e, uint32_t *row, hr_arena *arena, hr_record *record) {
    if (!(e->n_words > 0 ? copy_row(e, row, arena, record) : copy_blob(e, arena, record))) return false;
    record->invalid = e->invalid;
    record->answered = true;
    record->stale = false;
    record->cover = 0;
    return true;
}

static hr_record_cache_found take(const hr_record_cache *cache, reader *r, entry *e, bool stale_too,
                                  uint64_t now_ns, uint32_t *row, hr_arena *arena, hr_record *record) {
    const bool fresh = is_fresh(cache, e, now_ns);
    if (!fresh && !(stale_too && may_stand_in(cache, e, now_ns))) return HR_CACHE_ABSENT;
    if (!copy_out(e, row, arena, record)) return HR_CACHE_NO_ROOM;
    hr_cache_policy_hit(&e->node);
    r->n_hits += fresh;
    r->n_negative_hits += fresh && record->kind == HR_RECORD_MISSING;
    return HR_CACHE_FOUND;
}

static reader *read_begin(const hr_record_cache *cache) {
    reader *r = &cache->readers[(unsigned)sched_getcpu() % N_READERS];
    pthread_mutex_lock(&r->reading_lock);
    return r;
}

static void read_end(reader *r) {
    pthread_mutex_unlock(&r->reading_lock);
}

static hr_record_cache_found look_up(const hr_record_cache *cache, reader *r, const hr_record_key *key,
                                     bool stale_too, uint64_t now_ns, uint32_t *row, size_t n_words,
                                     hr_arena *arena, hr_record *record) {
    entry *e = find(cache, key);
    if (e == NULL || (e->n_words != 0 && e->n_words != n_words)) return HR_CACHE_ABSENT;
    return take(cache, r, e, stale_too, now_ns, row, arena, record);
}

hr_record_cache_found hr_record_cache_get(hr_record_cache *cache, const hr_record_key *key, bool stale_too,
                                          uint64_t now_ns, uint32_t *row, size_t n_words, hr_arena *arena,
                                          hr_record *record) {
    reader *r = read_begin(cache);
    const hr_record_cache_found found =
        look_up(cache, r, key, stale_too, now_ns, row, n_words, arena, record);
    read_end(r);
    return found;
}

/* Begins to bring the first entry of the key's bucket nearer, which is mostly the key's. */
static void prefetch(const hr_record_cache *cache, const hr_record_key *key) {
    const char *first = (const char *)load(bucket_of(cache, key->hash));
    for (size_t offset = 0; first != NULL && offset < PREFETCH_NBYTES; offset += CACHE_LINE_NBYTES)
        __builtin_prefetch(first + offset);
}

/* The keys of the wanted records from first on, READ_AT_ONCE at most. Returns how many. */
static size_t make_keys(const hr_record_cache *cache, const hr_record_wanted *wanted, size_t first,
                        hr_record_key *keys) {
    const size_t left = wanted->n - first, n = left < READ_AT_ONCE ? left : READ_AT_ONCE;
    for (size_t i = 0; i < n; i++)
        keys[i] = key_of(cache, wanted->fingerprint, wanted->entity, wanted->ids[first + i]);
    return n;
}

/* A block's entries are on their way while the next block's keys are made, and its buckets on theirs while
 * this block's entries are read. */
size_t hr_record_cache_get_many(hr_record_cache *cache, const hr_record_wanted *wanted, uint64_t now_ns,
                                uint32_t *absent, bool *no_room) {
    hr_record_key blocks[2][READ_AT_ONCE], *keys = blocks[0], *next_keys = blocks[1];
    size_t n_absent = 0, n_next, n = make_keys(cache, wanted, 0, keys);
    for (size_t first = 0; n > 0; first += n, n = n_next) {
        reader *r = read_begin(cache);
        for (size_t i = 0; i < n; i++) prefetch(cache, &keys[i]);
        n_next = make_keys(cache, wanted, first + n, next_keys);
        for (size_t i = 0, at = first; i < n; i++, at++) {
            const hr_record_cache_found found =
                look_up(cache, r, &keys[i], false, now_ns, wanted->rows + at * wanted->n_words,
                        wanted->n_words, wanted->arena, &wanted->records[at]);
            if (found == HR_CACHE_ABSENT) absent[n_absent++] = (uint32_t)at;
            *no_room |= found == HR_CACHE_NO_ROOM;
        }
        read_end(r);
        hr_record_key *read = keys;
        keys = next_keys;
        next_keys = read;
    }
    return n_absent;
}

/* --- keeping -------------------------------------------------------------------------------------------- */

hr_record_ticket hr_record_cache_ticket(hr_record_cache *cache, const hr_record_key *key) {
    shard *s = shard_of(cache, key->hash);
    hr_record_ticket ticket = {.n_losses = atomic_load(&cache->covers.n_losses)};
    pthread_mutex_lock(&s->lock);
    ticket.n_changes = *n_changes_of(s, key->hash);
    pthread_mutex_unlock(&s->lock);
    return ticket;
}

bool hr_record_cache_ticket_holds(hr_record_cache *cache, const hr_record_key *key, hr_record_ticket ticket) {
    const hr_record_ticket now = hr_record_cache_ticket(cache, key);
    return now.n_losses == ticket.n_losses && now.n_changes == ticket.n_changes;
}

/* From 90 to 100 % of the time to live, so that what came together is not fetched again together. */
static uint64_t expiry_ns(const hr_record_cache *cache, uint64_t hash, uint64_t salt, uint64_t now_ns) {
    const uint64_t ttl_ns = cache->options.ttl_ms * UINT64_C(1000000);
    if (ttl_ns == 0) return UINT64_MAX;
    return now_ns + ttl_ns - XXH3_64bits_withSeed(&salt, sizeof salt, hash) % (ttl_ns / 10 + 1);
}

uint64_t hr_record_cache_put_record(hr_record_cache *cache, const hr_record_key *key, hr_record_ticket ticket,
                                    const hr_record *record, size_t n_fields, uint64_t now_ns) {
    if (!record->answered || record->cover == 0) return 0;
    entry *e = entry_create(cache, key, hr_record_blob_nbytes(record, n_fields));
    if (e == NULL) return 0;
    hr_record_blob_write(record, n_fields, data_of(e));
    e->kind = (uint8_t)record->kind;
    e->invalid = record->invalid;
    e->cover = record->cover;
    shard *s = shard_of(cache, key->hash);
    uint64_t version = 0;
    entry *gone = e;
    pthread_mutex_lock(&s->lock);
    if (*n_changes_of(s, key->hash) == ticket.n_changes &&
        hr_cache_cover_lasts(&cache->covers, record->cover)) {
        version = e->version = ++s->n_versions;
        e->expires_ns = expiry_ns(cache, key->hash, version, now_ns);
        gone = put(cache, s, find(cache, key), e);
    }
    pthread_mutex_unlock(&s->lock);
    let_go(cache, gone);
    return version;
}

static entry *entry_of_row(const hr_record_cache *cache, const hr_record_key *key, const hr_row_offer *offer,
                           size_t n_words) {
    const size_t row_nbytes = n_words * sizeof *offer->row;
    const size_t counts_nbytes = offer->n_wrong != NULL ? offer->n_wrong_counts * sizeof *offer->n_wrong : 0;
    entry *e = entry_create(cache, key, row_nbytes + counts_nbytes);
    if (e == NULL) return NULL;
    e->n_words = (uint32_t)n_words;
    e->kind = offer->record->kind == HR_RECORD_MISSING ? HR_RECORD_MISSING : HR_RECORD_ROW;
    e->invalid = offer->record->invalid;
    memcpy(data_of(e), offer->row, row_nbytes);
    if (counts_nbytes > 0) memcpy(data_of(e) + row_nbytes, offer->n_wrong, counts_nbytes);
    return e;
}

/* Under the lock: how long the row is good for; false: not at all. `before` is the key's entry, or NULL. */
static bool inherit(const hr_record_cache *cache, const hr_record *record, const entry *before, entry *e,
                    uint64_t now_ns) {
    if (record->version != 0) {
        if (before == NULL || before->version != record->version) return false;
        e->cover = before->cover;
        e->expires_ns = before->expires_ns;
        return true;
    }
    e->cover = record->cover;
    e->expires_ns = expiry_ns(cache, e->node.hash, now_ns, now_ns);
    return hr_cache_cover_lasts(&cache->covers, record->cover);
}

void hr_record_cache_put_row(hr_record_cache *cache, const hr_record_key *key, const hr_row_offer *offer,
                             size_t n_words, uint64_t now_ns) {
    entry *e = n_words == 0 ? NULL : entry_of_row(cache, key, offer, n_words);
    if (e == NULL) return;
    shard *s = shard_of(cache, key->hash);
    entry *gone = e;
    pthread_mutex_lock(&s->lock);
    entry *before = find(cache, key);
    if (inherit(cache, offer->record, before, e, now_ns)) {
        e->version = offer->record->version;
        gone = put(cache, s, before, e);
    }
    pthread_mutex_unlock(&s->lock);
    let_go(cache, gone);
}

/* --- forgetting ----------------------------------------------------------------------------------------- */

void hr_record_cache_forget(hr_record_cache *cache, hr_entity entity, const char *id, size_t id_nbytes,
                            uint64_t now_ns) {
    const uint64_t hash = hash_of(cache, entity, id, id_nbytes);
    shard *s = shard_of(cache, hash);
    entry *gone = NULL, *next;
    pthread_mutex_lock(&s->lock);
    ++*n_changes_of(s, hash);
    for (entry *e = load(bucket_of(cache, hash)); e != NULL; e = next) {
        next = load(&e->next);
        if (!is_of_record(e, hash, entity, id, id_nbytes)) continue;
        s->n_invalidations++;
        if (now_ns < e->expires_ns) e->expires_ns = now_ns;
        if (cache->options.max_stale_ms > 0) continue;
        hr_cache_policy_remove(&s->policy, &e->node);
        relink(cache, e, NULL);
        gone = gone_before(e, gone);
    }
    pthread_mutex_unlock(&s->lock);
    let_go(cache, gone);
}

/* --- counts --------------------------------------------------------------------------------------------- */

void hr_record_cache_count(hr_record_cache *cache, uint64_t n_misses, uint64_t n_joins, uint64_t n_stale) {
    if (n_misses > 0) atomic_fetch_add_explicit(&cache->n_misses, n_misses, memory_order_relaxed);
    if (n_joins > 0) atomic_fetch_add_explicit(&cache->n_joins, n_joins, memory_order_relaxed);
    if (n_stale > 0) atomic_fetch_add_explicit(&cache->n_stale, n_stale, memory_order_relaxed);
}

void hr_record_cache_stats(hr_record_cache *cache, hr_cache_stats *stats) {
    *stats = (hr_cache_stats){.n_misses = atomic_load(&cache->n_misses),
                              .n_joins = atomic_load(&cache->n_joins),
                              .n_stale = atomic_load(&cache->n_stale),
                              .n_losses = atomic_load(&cache->covers.n_losses),
                              .nbytes = cache->fixed_nbytes};
    for (size_t i = 0; i < N_READERS; i++) {
        reader *r = &cache->readers[i];
        pthread_mutex_lock(&r->reading_lock);
        stats->n_hits += r->n_hits;
        stats->n_negative_hits += r->n_negative_hits;
        pthread_mutex_unlock(&r->reading_lock);
    }
    for (uint32_t i = 0; i < cache->n_shards; i++) {
        shard *s = &cache->shards[i];
        pthread_mutex_lock(&s->lock);
        stats->n_evictions += s->n_evictions;
        stats->n_invalidations += s->n_invalidations;
        stats->nbytes += hr_cache_policy_nbytes(&s->policy);
        stats->n_entries +=
            s->policy.queues[HR_CACHE_SMALL].n_nodes + s->policy.queues[HR_CACHE_MAIN].n_nodes;
        pthread_mutex_unlock(&s->lock);
    }
}
