/* `redis://` and `redis-cluster://` behind a cache of encoded records.
 *
 *   fetch --> look up --all there--------------------------------------------> done, on the caller's thread
 *                |
 *                +-- what is not: a wait, and per record a flight: another's that is under way (joined), or
 *                    one of ours (led), in a batch that is one fetch of the store behind
 *                         |
 *                         +-- the batch is done: its records are kept and handed to all who wait --> done
 *                         +-- the call's deadline is first: what has not come is stood in for ----> done
 *
 * A batch has its own memory and no deadline but the store's timeout: whoever waits for it may leave, and
 * what comes too late for them fills the cache. What the store cannot answer is stood in for by a stale
 * record, or is missing; the fetch then has the error.
 *
 * Locks, in the order in which they may be taken: a wait's; a flight's shard; the deadlines'; a cache
 * shard's.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "features/cached_fetch.h"
#include "features/deadlines.h"
#include "features/flights.h"
#include "features/record_blob.h"
#include "features/store_internal.h"

enum { MAX_SPARE_BATCHES = 64 };

typedef struct cached_store cached_store;
typedef struct batch batch;

struct cached_store {
    hr_cached cached;
    const hr_store_i *i; /* the store behind */
    void *context;       /* owned, by i->close */
    hr_deadlines *deadlines;
    size_t max_fetch_nbytes;
    hr_flights flights;
    pthread_mutex_t spare_lock; /* guards the two below */
    batch *spare;
    size_t n_spare;
};

/* One fetch of the store behind, and the flights it carries. Kept for reuse. */
struct batch {
    hr_fetch fetch;
    cached_store *store;
    hr_arena *arena;  /* owned; all that the fetch borrows and brings */
    hr_flight user;   /* where fetch.user_id is not NULL */
    hr_flight *items; /* (fetch.n_items) arena */
    const char **ids; /* (fetch.n_items) arena */
    hr_field_list fields[HR_ENTITY_COUNT];
    batch *next;
};

/* A fetch that waits for records. */
typedef struct hr_wait {
    cached_store *store;
    hr_deadline deadline;
    atomic_size_t n_refs; /* the fetch's beginning, each waiter of a flight, the deadlines */
    pthread_mutex_t lock; /* guards the three below, the fetch and its arena, until it is done */
    hr_fetch *fetch;      /* NULL once done */
    size_t n_left;        /* records that have not come; and 1 while it begins */
    size_t n_waiters;
    hr_waiter waiters[];
} hr_wait;

/* --- waits ---------------------------------------------------------------------------------------------- */

static void wait_unref(hr_wait *wait) {
    if (atomic_fetch_sub_explicit(&wait->n_refs, 1, memory_order_acq_rel) > 1) return;
    pthread_mutex_destroy(&wait->lock);
    free(wait);
}

/* Under the lock: n records have come. The fetch, where it is done with that and the caller's to finish. */
static hr_fetch *wait_less(hr_wait *wait, size_t n) {
    wait->n_left -= n;
    if (wait->n_left > 0) return NULL;
    hr_fetch *fetch = wait->fetch;
    wait->fetch = NULL;
    return fetch;
}

static void wait_finish(hr_wait *wait, hr_fetch *fetch) {
    if (fetch == NULL) return;
    if (hr_deadlines_remove(wait->store->deadlines, &wait->deadline)) wait_unref(wait);
    fetch->done(fetch);
}

static void give_up(hr_deadline *deadline) {
    hr_wait *wait = (hr_wait *)((char *)deadline - offsetof(hr_wait, deadline));
    hr_fetch *fetch = NULL;
    pthread_mutex_lock(&wait->lock);
    if (wait->fetch != NULL) {
        hr_fetch__fail(wait->fetch, HR_DEADLINE_EXCEEDED,
                       "the call's deadline came before the store's answer");
        for (size_t i = 0; i < wait->n_waiters; i++)
            if (!wait->waiters[i].delivered)
                hr_cached_stand_in(&wait->store->cached, wait->fetch, wait->waiters[i].slot,
                                   &wait->waiters[i].key);
        fetch = wait_less(wait, wait->n_left);
    }
    pthread_mutex_unlock(&wait->lock);
    if (fetch != NULL) fetch->done(fetch);
    wait_unref(wait);
}

/* Under the lock: copies what has come into the fetch. */
static void take(hr_waiter *waiter, const hr_record *record, uint64_t version, size_t n_fields) {
    hr_fetch *fetch = waiter->wait->fetch;
    hr_record copy = *record;
    copy.cover = 0;
    copy.version = version;
    if (hr_record_copy(&copy, n_fields, fetch->arena))
        *hr_fetch__slot(fetch, waiter->slot).record = copy;
    else
        hr_fetch__fail(fetch, HR_RESOURCE_EXHAUSTED, "the call's memory is too small for its records");
}

/* What the store said of a record; error: of its fetch, where it said nothing. */
static void deliver(hr_waiter *waiter, const hr_record *record, uint64_t version, size_t n_fields,
                    const hr_error *error) {
    hr_wait *wait = waiter->wait;
    hr_fetch *fetch = NULL;
    pthread_mutex_lock(&wait->lock);
    if (wait->fetch != NULL) {
        waiter->delivered = true;
        if (record->answered) {
            take(waiter, record, version, n_fields);
        } else {
            const bool told = error->code != HR_OK;
            hr_fetch__fail(wait->fetch, told ? error->code : HR_INTERNAL,
                           told ? error->message : "the store did not say why it did not answer");
            hr_cached_stand_in(&wait->store->cached, wait->fetch, waiter->slot, &waiter->key);
        }
        fetch = wait_less(wait, 1);
    }
    pthread_mutex_unlock(&wait->lock);
    wait_finish(wait, fetch);
    wait_unref(wait);
}

/* --- batches -------------------------------------------------------------------------------------------- */

static void batch_destroy(batch *b) {
    hr_arena_destroy(b->arena);
    free(b);
}

static void batch_give_back(batch *b) {
    cached_store *store = b->store;
    hr_arena_reset(b->arena);
    pthread_mutex_lock(&store->spare_lock);
    const bool kept = store->n_spare < MAX_SPARE_BATCHES;
    if (kept) {
        b->next = store->spare;
        store->spare = b;
        store->n_spare++;
    }
    pthread_mutex_unlock(&store->spare_lock);
    if (!kept) batch_destroy(b);
}

static batch *batch_take(cached_store *store) {
    pthread_mutex_lock(&store->spare_lock);
    batch *b = store->spare;
    if (b != NULL) {
        store->spare = b->next;
        store->n_spare--;
    }
    pthread_mutex_unlock(&store->spare_lock);
    if (b != NULL) return b;
    b = calloc(1, sizeof *b);
    if (b == NULL) return NULL;
    b->store = store;
    b->arena = hr_arena_create(store->max_fetch_nbytes);
    if (b->arena != NULL) return b;
    free(b);
    return NULL;
}

/* The encoder that lent the fields may be gone before the batch is. */
static bool copy_fields(const hr_field_list *from, hr_arena *arena, hr_field_list *to) {
    *to = (hr_field_list){.names = NULL, .n_names = 0};
    if (from == NULL) return true;
    const char **names = hr_arena_calloc(arena, from->n_names, sizeof *names);
    *to = (hr_field_list){.names = names, .n_names = from->n_names};
    for (size_t i = 0; names != NULL && i < to->n_names; i++) {
        names[i] = hr_arena_strndup(arena, from->names[i], strlen(from->names[i]));
        if (names[i] == NULL) return false;
    }
    return names != NULL;
}

static void land(hr_fetch *fetch);

/* A batch for up to n_items items of the fetch, and perhaps its user; NULL where there is no memory. */
static batch *batch_begin(cached_store *store, const hr_fetch *fetch, size_t n_items) {
    batch *b = batch_take(store);
    if (b == NULL) return NULL;
    b->items = hr_arena_calloc(b->arena, n_items, sizeof *b->items);
    b->ids = hr_arena_calloc(b->arena, n_items, sizeof *b->ids);
    b->fetch = (hr_fetch){.item_ids = b->ids,
                          .fields = {&b->fields[HR_ENTITY_USER], &b->fields[HR_ENTITY_ITEM]},
                          .deadline_ns = UINT64_MAX,
                          .arena = b->arena,
                          .done = land,
                          .arg = b};
    if (b->items != NULL && b->ids != NULL &&
        copy_fields(fetch->fields[HR_ENTITY_USER], b->arena, &b->fields[HR_ENTITY_USER]) &&
        copy_fields(fetch->fields[HR_ENTITY_ITEM], b->arena, &b->fields[HR_ENTITY_ITEM]))
        return b;
    batch_give_back(b);
    return NULL;
}

/* Adds a flight of the key; its id is copied. NULL where there is no memory. */
static hr_flight *batch_add(batch *b, const hr_record_key *key) {
    char *id = hr_arena_strndup(b->arena, key->id, key->id_nbytes);
    if (id == NULL) return NULL;
    hr_flight *flight = &b->user;
    if (key->entity == HR_ENTITY_USER) {
        b->fetch.user_id = id;
    } else {
        flight = &b->items[b->fetch.n_items];
        b->ids[b->fetch.n_items++] = id;
    }
    *flight = (hr_flight){.key = *key};
    flight->key.id = id;
    return flight;
}

/* A flight's record has come, or will not: it is kept, and then told to all who wait. In this order, so that
 * who finds neither a fresh entry nor a flight knows that nobody is asking. */
static void land_one(batch *b, hr_flight *flight, const hr_record *record, uint64_t now_ns) {
    cached_store *store = b->store;
    const size_t n_fields = b->fields[flight->key.entity].n_names;
    const uint64_t version = hr_record_cache_put_record(store->cached.cache, &flight->key, flight->ticket,
                                                        record, n_fields, now_ns);
    hr_flights_lock(&store->flights, &flight->key);
    hr_flights_unlist(&store->flights, flight);
    hr_waiter *waiter = flight->waiters;
    hr_flights_unlock(&store->flights, &flight->key);
    while (waiter != NULL) {
        hr_waiter *next = waiter->next;
        deliver(waiter, record, version, n_fields, &b->fetch.error);
        waiter = next;
    }
}

static void land(hr_fetch *fetch) {
    static const hr_record unanswered = {.kind = HR_RECORD_MISSING};
    batch *b = fetch->arg;
    const uint64_t now_ns = hr_clock_ns();
    if (fetch->user_id != NULL) land_one(b, &b->user, &fetch->user, now_ns);
    for (size_t i = 0; i < fetch->n_items; i++)
        land_one(b, &b->items[i], fetch->items == NULL ? &unanswered : &fetch->items[i], now_ns);
    batch_give_back(b);
}

/* --- a fetch with records that are not cached ------------------------------------------------------------
 */

typedef struct boarding {
    hr_wait *wait;
    batch *batch; /* NULL: none yet */
    size_t n_missing, n_led, n_joined;
    uint64_t now_ns;
} boarding;

static void await(hr_wait *wait, hr_flight *flight, hr_waiter *waiter) {
    waiter->next = flight->waiters;
    flight->waiters = waiter;
    wait->n_left++;
    atomic_fetch_add_explicit(&wait->n_refs, 1, memory_order_relaxed);
}

/* A flight of our own, in the place of one whose answer may be older than a change. */
static hr_flight *lead(boarding *b, hr_flight *outdated, const hr_record_key *key) {
    cached_store *store = b->wait->store;
    if (b->batch == NULL) b->batch = batch_begin(store, b->wait->fetch, b->n_missing);
    hr_flight *flight = b->batch == NULL ? NULL : batch_add(b->batch, key);
    if (flight == NULL) return NULL;
    flight->ticket = hr_record_cache_ticket(store->cached.cache, key);
    if (outdated != NULL) hr_flights_unlist(&store->flights, outdated);
    hr_flights_list(&store->flights, flight);
    b->n_led++;
    return flight;
}

/* Finds or makes the record's flight, unless it has been cached meanwhile. The flight's shard is locked, so
 * that of many who come at once one leads. */
static void board(boarding *b, hr_waiter *waiter) {
    hr_wait *wait = b->wait;
    cached_store *store = wait->store;
    const hr_record_key *key = &waiter->key;
    hr_record_cache_found found = HR_CACHE_ABSENT;
    hr_flights_lock(&store->flights, key);
    hr_flight *flight = hr_flights_find(&store->flights, key);
    if (flight != NULL && hr_record_cache_ticket_holds(store->cached.cache, key, flight->ticket)) {
        b->n_joined++;
    } else {
        found = hr_cached_look_up(&store->cached, wait->fetch, waiter->slot, key, false, b->now_ns);
        flight = found == HR_CACHE_ABSENT ? lead(b, flight, key) : NULL;
    }
    if (flight != NULL) await(wait, flight, waiter);
    hr_flights_unlock(&store->flights, key);
    waiter->delivered = flight == NULL;
    if (flight != NULL || found != HR_CACHE_ABSENT) return;
    hr_fetch__fail(wait->fetch, HR_OUT_OF_MEMORY, "out of memory for the records to fetch");
    hr_cached_stand_in(&store->cached, wait->fetch, waiter->slot, key);
}

static hr_wait *wait_create(cached_store *store, hr_fetch *fetch, const uint32_t *missing, size_t n_missing) {
    hr_wait *wait = malloc(sizeof *wait + n_missing * sizeof wait->waiters[0]);
    if (wait == NULL) return NULL;
    *wait = (hr_wait){.store = store,
                      .deadline = {.at_ns = fetch->deadline_ns},
                      .fetch = fetch,
                      .n_left = 1,
                      .n_waiters = n_missing};
    atomic_init(&wait->n_refs, 1);
    pthread_mutex_init(&wait->lock, NULL);
    for (size_t i = 0; i < n_missing; i++)
        wait->waiters[i] = (hr_waiter){
            .wait = wait, .slot = missing[i], .key = hr_cached_key(&store->cached, fetch, missing[i])};
    return wait;
}

/* Under the wait's lock. Without room for its deadline a fetch waits as long as the store's timeout. */
static void add_deadline(hr_wait *wait) {
    if (wait->deadline.at_ns == UINT64_MAX) return;
    atomic_fetch_add_explicit(&wait->n_refs, 1, memory_order_relaxed);
    if (!hr_deadlines_add(wait->store->deadlines, &wait->deadline))
        atomic_fetch_sub_explicit(&wait->n_refs, 1, memory_order_relaxed);
}

/* Nobody is asked: all that is missing is stood in for. */
static void fail_missing(cached_store *store, hr_fetch *fetch, const uint32_t *missing, size_t n_missing,
                         hr_status code, const char *message) {
    hr_fetch__fail(fetch, code, message);
    for (size_t i = 0; i < n_missing; i++) {
        const hr_record_key key = hr_cached_key(&store->cached, fetch, missing[i]);
        hr_cached_stand_in(&store->cached, fetch, missing[i], &key);
    }
    fetch->done(fetch);
}

static void fetch_missing(cached_store *store, hr_fetch *fetch, const uint32_t *missing, size_t n_missing,
                          uint64_t now_ns) {
    hr_wait *wait = wait_create(store, fetch, missing, n_missing);
    if (wait == NULL) {
        fail_missing(store, fetch, missing, n_missing, HR_OUT_OF_MEMORY,
                     "out of memory for the records to fetch");
        return;
    }
    boarding b = {.wait = wait, .n_missing = n_missing, .now_ns = now_ns};
    pthread_mutex_lock(&wait->lock);
    for (size_t i = 0; i < n_missing; i++) board(&b, &wait->waiters[i]);
    if (wait->n_left > 1) add_deadline(wait);
    pthread_mutex_unlock(&wait->lock);
    hr_record_cache_count(store->cached.cache, b.n_led, b.n_joined, 0);
    if (b.n_led > 0)
        store->i->fetch(store->context, &b.batch->fetch);
    else if (b.batch != NULL)
        batch_give_back(b.batch);
    pthread_mutex_lock(&wait->lock);
    hr_fetch *done = wait->fetch == NULL ? NULL : wait_less(wait, 1);
    pthread_mutex_unlock(&wait->lock);
    wait_finish(wait, done);
    wait_unref(wait);
}

static void cached_fetch(void *context, hr_fetch *fetch) {
    cached_store *store = context;
    if (fetch->schema == NULL) {
        store->i->fetch(store->context, fetch);
        return;
    }
    uint32_t *missing;
    if (!hr_cached_begin(&store->cached, fetch, &missing)) {
        fetch->done(fetch);
        return;
    }
    const uint64_t now_ns = hr_clock_ns();
    const size_t n_missing = hr_cached_look_up_all(&store->cached, fetch, now_ns, missing);
    if (n_missing == 0)
        fetch->done(fetch);
    else if (now_ns >= fetch->deadline_ns)
        fail_missing(store, fetch, missing, n_missing, HR_DEADLINE_EXCEEDED,
                     "the call's deadline came before its records were asked for");
    else
        fetch_missing(store, fetch, missing, n_missing, now_ns);
}

/* --- opening and closing -------------------------------------------------------------------------------- */

static void cached_stats(void *context, hr_cache_stats *stats) {
    const cached_store *store = context;
    hr_record_cache_stats(store->cached.cache, stats);
}

static bool cached_count(const void *context, hr_store_counts *counts) {
    const cached_store *store = context;
    return store->i->count != NULL && store->i->count(store->context, counts);
}

/* The store behind first: with its last fetch the last flight has landed and nobody waits. */
static void cached_close(void *context) {
    cached_store *store = context;
    store->i->close(store->context);
    hr_deadlines_destroy(store->deadlines);
    while (store->spare != NULL) {
        batch *next = store->spare->next;
        batch_destroy(store->spare);
        store->spare = next;
    }
    hr_cached_destroy(&store->cached);
    hr_flights_destroy(&store->flights);
    pthread_mutex_destroy(&store->spare_lock);
    free(store);
}

hr_status hr_store__open_cached(const hr_store_uri *uri, const hr_store_options *options, void **context,
                                hr_error *err) {
    cached_store *store = calloc(1, sizeof *store);
    if (store == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "cache: out of memory");
    store->i = &hr_store__redis;
    store->max_fetch_nbytes = options->max_fetch_nbytes;
    hr_status status = hr_cached_init(&store->cached, options, err);
    if (status == HR_OK) status = hr_deadlines_create(give_up, &store->deadlines, err);
    if (status == HR_OK)
        status = hr_store__open_redis(uri, options, store->cached.cache, &store->context, err);
    if (status != HR_OK) {
        hr_deadlines_destroy(store->deadlines);
        hr_cached_destroy(&store->cached);
        free(store);
        return status;
    }
    hr_flights_init(&store->flights);
    pthread_mutex_init(&store->spare_lock, NULL);
    *context = store;
    return HR_OK;
}

const hr_store_i hr_store__cached = {.synchronous = false,
                                     .fetch = cached_fetch,
                                     .close = cached_close,
                                     .cache_stats = cached_stats,
                                     .count = cached_count};
