/* Records in memory, encoded: see record_cache.h.
 *
 * A shard is a chained hash table of a size fixed at the start (what the shard's bytes can hold), so that
 * nothing is ever moved; the policy's queues run through the same entries. An entry is one block of memory,
 * never changed but for its time: whatever replaces it is a block of its own, made before the lock is taken
 * and freed after.
 */
#include "features/record_cache.h"

#include <malloc.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
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
    PREFETCH_NBYTES = 320
};

typedef struct entry entry;
struct entry {
    hr_cache_node node; /* first: a victim is its entry */
    entry *next;        /* in its bucket */
    uint64_t fingerprint, version;
    uint64_t expires_ns; /* fresh until then, or until its cover ends */
    hr_cover cover;
    uint32_t id_nbytes, data_nbytes;
    uint32_t n_words; /* of a row: data is the row, and counts where there is more; 0: a blob */
    uint8_t entity, kind;
    bool invalid;
    alignas(8) unsigned char bytes[]; /* the id, padded to 8; data */
};

typedef struct shard {
    alignas(CACHE_LINE_NBYTES) pthread_mutex_t lock; /* guards all of it but the prefetch of buckets */
    _Atomic(entry *) *buckets;                       /* (n_buckets) owned, and the entries */
    size_t n_buckets;                                /* a power of two */
    uint64_t n_versions;
    hr_cache_policy policy;
    hr_cache_stats stats;
    uint32_t n_changes[CHANGES_PER_SHARD];
} shard;

struct hr_record_cache {
    hr_record_cache_options options;
    uint64_t seed;
    size_t tables_nbytes; /* everything but entries */
    uint32_t n_shards, shard_shift;
    shard *shards;
    hr_cache_covers covers;
    _Atomic uint64_t n_misses, n_joins, n_stale;
};

/* --- creation ------------------------------------------------------------------------------------------- */

static hr_status shard_init(shard *s, size_t nbytes, size_t *tables_nbytes, hr_error *err) {
    pthread_mutex_init(&s->lock, NULL);
    s->n_buckets = 1;
    while (s->n_buckets < nbytes / ENTRY_NBYTES) s->n_buckets *= 2;
    s->buckets = calloc(s->n_buckets, sizeof *s->buckets);
    if (s->buckets == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "cache: no memory for its tables");
    hr_status status = hr_cache_policy_init(&s->policy, 0, s->n_buckets, err);
    const size_t tables =
        sizeof *s + s->n_buckets * sizeof *s->buckets + s->policy.n_ghosts * sizeof *s->policy.ghosts;
    s->policy.capacity_nbytes = nbytes - tables;
    *tables_nbytes += tables;
    return status;
}

static hr_status shards_init(hr_record_cache *cache, hr_error *err) {
    cache->shard_shift = 63; /* two shards at least: shifting by 64 is not defined */
    cache->n_shards = 2;
    while (cache->n_shards < MAX_SHARDS &&
           cache->options.nbytes / (cache->n_shards * 2) >= SHARD_MIN_NBYTES) {
        cache->n_shards *= 2;
        cache->shard_shift--;
    }
    cache->shards = aligned_alloc(CACHE_LINE_NBYTES, cache->n_shards * sizeof *cache->shards);
    if (cache->shards == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "cache: no memory for its tables");
    memset(cache->shards, 0, cache->n_shards * sizeof *cache->shards);
    cache->tables_nbytes = sizeof *cache;
    const size_t shard_nbytes = (cache->options.nbytes - sizeof *cache) / cache->n_shards;
    hr_status status = HR_OK;
    for (uint32_t i = 0; i < cache->n_shards && status == HR_OK; i++)
        status = shard_init(&cache->shards[i], shard_nbytes, &cache->tables_nbytes, err);
    return status;
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
    hr_status status = shards_init(cache, err);
    if (status != HR_OK) {
        hr_record_cache_destroy(cache);
        return status;
    }
    *out = cache;
    return HR_OK;
}

void hr_record_cache_destroy(hr_record_cache *cache) {
    if (cache == NULL) return;
    for (uint32_t i = 0; cache->shards != NULL && i < cache->n_shards; i++) {
        shard *s = &cache->shards[i];
        for (size_t b = 0; s->buckets != NULL && b < s->n_buckets; b++) {
            for (entry *e = s->buckets[b], *next; e != NULL; e = next) {
                next = e->next;
                free(e);
            }
        }
        free(s->buckets);
        hr_cache_policy_destroy(&s->policy);
        pthread_mutex_destroy(&s->lock);
    }
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

static _Atomic(entry *) *bucket_of(const shard *s, uint64_t hash) {
    return &s->buckets[hash & (s->n_buckets - 1)];
}

static uint32_t *n_changes_of(shard *s, uint64_t hash) {
    return &s->n_changes[(hash >> 32) % CHANGES_PER_SHARD];
}

static uint64_t hash_of(const hr_record_cache *cache, hr_entity entity, const char *id, size_t id_nbytes) {
    return XXH3_64bits_withSeed(id, id_nbytes, cache->seed + (uint64_t)entity);
}

hr_record_key hr_record_cache_key(const hr_record_cache *cache, uint64_t fingerprint, hr_entity entity,
                                  const char *id) {
    const size_t id_nbytes = strlen(id);
    const uint64_t hash = hash_of(cache, entity, id, id_nbytes);
    const shard *s = shard_of(cache, hash);
    __builtin_prefetch(s);
    __builtin_prefetch(bucket_of(s, hash));
    return (hr_record_key){
        .id = id, .id_nbytes = id_nbytes, .hash = hash, .fingerprint = fingerprint, .entity = entity};
}

void hr_record_cache_prefetch(const hr_record_cache *cache, const hr_record_key *key) {
    const shard *s = shard_of(cache, key->hash);
    const char *first = (const char *)atomic_load_explicit(bucket_of(s, key->hash), memory_order_relaxed);
    if (first == NULL) return;
    for (size_t offset = 0; offset < PREFETCH_NBYTES; offset += CACHE_LINE_NBYTES)
        __builtin_prefetch(first + offset);
}

/* --- entries -------------------------------------------------------------------------------------------- */

static unsigned char *data_of(entry *e) {
    return e->bytes + ((e->id_nbytes + 7u) & ~7u);
}

static bool is_of_record(const entry *e, uint64_t hash, hr_entity entity, const char *id, size_t id_nbytes) {
    return e->node.hash == hash && e->id_nbytes == id_nbytes && e->entity == entity &&
           memcmp(e->bytes, id, id_nbytes) == 0;
}

static entry *find(const shard *s, const hr_record_key *key) {
    entry *e = atomic_load_explicit(bucket_of(s, key->hash), memory_order_relaxed);
    while (e != NULL && !(e->fingerprint == key->fingerprint &&
                          is_of_record(e, key->hash, key->entity, key->id, key->id_nbytes)))
        e = e->next;
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
static void relink(shard *s, entry *e, entry *other) {
    _Atomic(entry *) *bucket = bucket_of(s, e->node.hash);
    entry *at = atomic_load_explicit(bucket, memory_order_relaxed);
    entry *after = other != NULL ? other : e->next;
    if (other != NULL) other->next = e->next;
    if (at == e) {
        atomic_store_explicit(bucket, after, memory_order_relaxed);
        return;
    }
    while (at->next != e) at = at->next;
    at->next = after;
}

/* Puts an entry in the place of `before`, or, where that is NULL, in. What has to go for it is linked before
 * `gone`; the new list is returned. */
static entry *put(shard *s, entry *before, entry *e, entry *gone) {
    if (before != NULL) {
        hr_cache_policy_replace(&s->policy, &before->node, &e->node);
        relink(s, before, e);
        before->next = gone;
        gone = before;
    } else {
        _Atomic(entry *) *bucket = bucket_of(s, e->node.hash);
        e->next = atomic_load_explicit(bucket, memory_order_relaxed);
        atomic_store_explicit(bucket, e, memory_order_relaxed);
        hr_cache_policy_insert(&s->policy, &e->node);
    }
    hr_cache_node *node;
    while ((node = hr_cache_policy_victim(&s->policy)) != NULL) {
        entry *victim = (entry *)node;
        relink(s, victim, NULL);
        victim->next = gone;
        gone = victim;
        s->stats.n_evictions++;
    }
    return gone;
}

static void free_all(entry *gone) {
    while (gone != NULL) {
        entry *next = gone->next;
        free(gone);
        gone = next;
    }
}

/* --- looking -------------------------------------------------------------------------------------------- */

static bool is_fresh(const hr_record_cache *cache, const entry *e, uint64_t now_ns) {
    return now_ns < e->expires_ns && hr_cache_cover_lasts(&cache->covers, e->cover);
}

static bool may_stand_in(const hr_record_cache *cache, const entry *e, uint64_t now_ns) {
    const uint64_t covered_ns = hr_cache_cover_end_ns(&cache->covers, e->cover);
    const uint64_t end_ns = covered_ns < e->expires_ns ? covered_ns : e->expires_ns;
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

static bool copy_out(entry *e, uint32_t *row, hr_arena *arena, hr_record *record) {
    hr_record copy = {.kind = (hr_record_kind)e->kind,
                      .invalid = e->invalid,
                      .answered = true,
                      .version = e->n_words > 0 ? 0 : e->version};
    if (e->n_words > 0) {
        if (copy.kind != HR_RECORD_MISSING) copy.kind = HR_RECORD_ROW;
        memcpy(row, data_of(e), e->n_words * sizeof *row);
        copy.row = row;
        if (!copy_counts(e, arena, &copy.n_wrong)) return false;
    } else if (!hr_record_blob_read(copy.kind, data_of(e), e->data_nbytes, arena, &copy)) {
        return false;
    }
    *record = copy;
    return true;
}

static hr_record_cache_found take(hr_record_cache *cache, shard *s, entry *e, bool stale_too, uint64_t now_ns,
                                  uint32_t *row, hr_arena *arena, hr_record *record) {
    const bool fresh = is_fresh(cache, e, now_ns);
    if (!fresh && !(stale_too && may_stand_in(cache, e, now_ns))) return HR_CACHE_ABSENT;
    if (!copy_out(e, row, arena, record)) return HR_CACHE_NO_ROOM;
    hr_cache_policy_hit(&e->node);
    s->stats.n_hits += fresh;
    s->stats.n_negative_hits += fresh && record->kind == HR_RECORD_MISSING;
    return HR_CACHE_FOUND;
}

hr_record_cache_found hr_record_cache_get(hr_record_cache *cache, const hr_record_key *key, bool stale_too,
                                          uint64_t now_ns, uint32_t *row, size_t n_words, hr_arena *arena,
                                          hr_record *record) {
    shard *s = shard_of(cache, key->hash);
    hr_record_cache_found found = HR_CACHE_ABSENT;
    pthread_mutex_lock(&s->lock);
    entry *e = find(s, key);
    if (e != NULL && (e->n_words == 0 || e->n_words == n_words))
        found = take(cache, s, e, stale_too, now_ns, row, arena, record);
    pthread_mutex_unlock(&s->lock);
    return found;
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
static uint64_t expiry_ns(const hr_record_cache *cache, uint64_t hash, uint64_t version, uint64_t now_ns) {
    const uint64_t ttl_ns = cache->options.ttl_ms * UINT64_C(1000000);
    if (ttl_ns == 0) return UINT64_MAX;
    return now_ns + ttl_ns - XXH3_64bits_withSeed(&version, sizeof version, hash) % (ttl_ns / 10 + 1);
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
        gone = put(s, find(s, key), e, NULL);
    }
    pthread_mutex_unlock(&s->lock);
    free_all(gone);
    return version;
}

void hr_record_cache_put_row(hr_record_cache *cache, const hr_record_key *key, uint64_t version,
                             const uint32_t *row, size_t n_words, const uint32_t *n_wrong, size_t n_counts) {
    const size_t row_nbytes = n_words * sizeof *row;
    const size_t counts_nbytes = n_wrong != NULL ? n_counts * sizeof *n_wrong : 0;
    if (version == 0 || n_words == 0) return;
    entry *e = entry_create(cache, key, row_nbytes + counts_nbytes);
    if (e == NULL) return;
    e->n_words = (uint32_t)n_words;
    memcpy(data_of(e), row, row_nbytes);
    if (counts_nbytes > 0) memcpy(data_of(e) + row_nbytes, n_wrong, counts_nbytes);
    shard *s = shard_of(cache, key->hash);
    entry *gone = e;
    pthread_mutex_lock(&s->lock);
    entry *before = find(s, key);
    if (before != NULL && before->version == version) {
        e->version = version;
        e->kind = before->kind;
        e->invalid = before->invalid;
        e->cover = before->cover;
        e->expires_ns = before->expires_ns;
        gone = put(s, before, e, NULL);
    }
    pthread_mutex_unlock(&s->lock);
    free_all(gone);
}

/* --- forgetting ----------------------------------------------------------------------------------------- */

void hr_record_cache_forget(hr_record_cache *cache, hr_entity entity, const char *id, size_t id_nbytes,
                            uint64_t now_ns) {
    const uint64_t hash = hash_of(cache, entity, id, id_nbytes);
    shard *s = shard_of(cache, hash);
    entry *gone = NULL, *next;
    pthread_mutex_lock(&s->lock);
    ++*n_changes_of(s, hash);
    for (entry *e = atomic_load_explicit(bucket_of(s, hash), memory_order_relaxed); e != NULL; e = next) {
        next = e->next;
        if (!is_of_record(e, hash, entity, id, id_nbytes)) continue;
        s->stats.n_invalidations++;
        if (now_ns < e->expires_ns) e->expires_ns = now_ns;
        if (cache->options.max_stale_ms > 0) continue;
        hr_cache_policy_remove(&s->policy, &e->node);
        relink(s, e, NULL);
        e->next = gone;
        gone = e;
    }
    pthread_mutex_unlock(&s->lock);
    free_all(gone);
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
                              .nbytes = cache->tables_nbytes};
    for (uint32_t i = 0; i < cache->n_shards; i++) {
        shard *s = &cache->shards[i];
        pthread_mutex_lock(&s->lock);
        stats->n_hits += s->stats.n_hits;
        stats->n_negative_hits += s->stats.n_negative_hits;
        stats->n_evictions += s->stats.n_evictions;
        stats->n_invalidations += s->stats.n_invalidations;
        stats->nbytes += hr_cache_policy_nbytes(&s->policy);
        stats->n_entries +=
            s->policy.queues[HR_CACHE_SMALL].n_nodes + s->policy.queues[HR_CACHE_MAIN].n_nodes;
        pthread_mutex_unlock(&s->lock);
    }
}
