/* The store interface: dispatch, and what every kind of store shares. See store.h. */
#include "features/store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "features/store_internal.h"

struct hr_store {
    const hr_store_i *i;
    void *context; /* owned, by i->close */
    char label[HR_STORE_LABEL_SIZE];
};

const hr_store_options hr_store_defaults = {
    .connect_timeout_ms = 1000,
    .command_timeout_ms = 500,
    .n_connections = 2,
    .cache_nbytes = 0,
    .cache_ttl_ms = 60000,
    .cache_max_stale_ms = 60000,
    .cache_heartbeat_ms = 1000,
    .max_fetch_nbytes = 256 << 20,
};

static hr_status open_kind(const hr_store_uri *uri, const hr_store_options *options, hr_store *store,
                           hr_error *err) {
    const bool cached = options->cache_nbytes > 0;
    switch (uri->kind) {
    case HR_STORE_LMDB:
        store->i = cached ? &hr_store__cached_lmdb : &hr_store__lmdb;
        if (cached) return hr_store__open_cached_lmdb(uri, options, &store->context, err);
        return hr_store__open_lmdb(uri, &store->context, err);
    case HR_STORE_REDIS:
    case HR_STORE_REDIS_CLUSTER:
        store->i = cached ? &hr_store__cached : &hr_store__redis;
        if (cached) return hr_store__open_cached(uri, options, &store->context, err);
        return hr_store__open_redis(uri, options, NULL, &store->context, err);
    case HR_STORE_NONE: store->i = &hr_store__none; break;
    }
    return HR_OK;
}

hr_status hr_store_check(const char *uri, hr_error *err) {
    hr_store_uri *parsed = malloc(sizeof *parsed);
    if (parsed == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "store: out of memory");
    hr_status status = hr_store_uri_parse(uri, parsed, err);
    free(parsed);
    return status;
}

hr_status hr_store_open(const char *uri, const hr_store_options *options, hr_store **store, hr_error *err) {
    *store = NULL;
    hr_store_uri *parsed = malloc(sizeof *parsed);
    hr_store *opened = calloc(1, sizeof *opened);
    hr_status status = HR_OK;
    if (parsed == NULL || opened == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "store: out of memory");
    if (status == HR_OK) status = hr_store_uri_parse(uri, parsed, err);
    if (status == HR_OK) status = open_kind(parsed, options, opened, err);
    if (status == HR_OK) {
        memcpy(opened->label, parsed->label, sizeof opened->label);
        *store = opened;
        opened = NULL;
    }
    free(opened);
    free(parsed);
    return status;
}

void hr_store_close(hr_store *store) {
    if (store == NULL) return;
    store->i->close(store->context);
    free(store);
}

bool hr_store_is_synchronous(const hr_store *store) {
    return store->i->synchronous;
}

bool hr_store_count(const hr_store *store, hr_store_counts *counts) {
    *counts = (hr_store_counts){0};
    return store->i->count != NULL && store->i->count(store->context, counts);
}

const char *hr_store_label(const hr_store *store) {
    return store->label;
}

bool hr_store_cache_stats(const hr_store *store, hr_cache_stats *stats) {
    if (store->i->cache_stats == NULL) return false;
    store->i->cache_stats(store->context, stats);
    return true;
}

void hr_store_fetch(hr_store *store, hr_fetch *fetch) {
    store->i->fetch(store->context, fetch);
}

typedef struct waiter {
    pthread_mutex_t done_lock;
    pthread_cond_t done_changed;
    bool done;
} waiter;

static void wake_waiter(hr_fetch *fetch) {
    waiter *w = fetch->arg;
    pthread_mutex_lock(&w->done_lock);
    w->done = true;
    pthread_cond_signal(&w->done_changed);
    pthread_mutex_unlock(&w->done_lock);
}

void hr_store_fetch_wait(hr_store *store, hr_fetch *fetch) {
    waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    fetch->done = wake_waiter;
    fetch->arg = &w;
    hr_store_fetch(store, fetch);
    pthread_mutex_lock(&w.done_lock);
    while (!w.done) pthread_cond_wait(&w.done_changed, &w.done_lock);
    pthread_mutex_unlock(&w.done_lock);
    pthread_cond_destroy(&w.done_changed);
    pthread_mutex_destroy(&w.done_lock);
}

bool hr_fetch__begin(hr_fetch *fetch) {
    fetch->user = (hr_record){.kind = HR_RECORD_MISSING};
    fetch->items = NULL;
    fetch->rows[HR_ENTITY_USER] = fetch->rows[HR_ENTITY_ITEM] = NULL;
    fetch->keeper = NULL;
    fetch->state = 0;
    fetch->error.code = HR_OK;
    fetch->error.message[0] = '\0';
    if (fetch->n_items == 0) return true;
    fetch->items = hr_arena_calloc(fetch->arena, fetch->n_items, sizeof *fetch->items);
    if (fetch->items != NULL) return true;
    hr_error_set(&fetch->error, HR_RESOURCE_EXHAUSTED, "the call's memory is too small for %zu records",
                 fetch->n_items);
    return false;
}

void hr_fetch__take_packed(hr_fetch *fetch, hr_record *record, const void *data, size_t nbytes) {
    uint8_t *copy = hr_arena_alloc(fetch->arena, nbytes);
    if (copy == NULL) {
        hr_fetch__fail(fetch, HR_RESOURCE_EXHAUSTED, "the call's memory is too small for its records");
        return;
    }
    memcpy(copy, data, nbytes);
    record->kind = HR_RECORD_PACKED;
    record->answered = true;
    record->data = copy;
    record->nbytes = nbytes;
}

void hr_fetch__fail(hr_fetch *fetch, hr_status code, const char *message) {
    if (fetch->error.code == HR_OK) hr_error_set(&fetch->error, code, "%s", message);
}
