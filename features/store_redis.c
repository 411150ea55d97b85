/* `redis://` and `redis-cluster://`: records over a few pipelined connections a server, on one event loop
 * thread.
 *
 * A fetch goes from its caller's thread to the loop's through a lock-free list; there redis_reads.h sees to
 * it. What is to be sent gathers while the loop looks through what has come, and is written before it waits
 * again, so that the commands of many fetches leave in one system call.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "base/thread.h"
#include "features/redis_reads.h"
#include "features/store_internal.h"

typedef struct redis_store {
    hr_store_uri uri; /* everything below borrows its texts */
    char name[HR_ADDRESS_TEXT_SIZE + 16];
    hr_store_options options;
    hr_redis_counts counts;

    /* Shared between threads. */
    _Atomic(hr_fetch *) submitted; /* last in, first out, by hr_fetch.next */
    atomic_bool closing;
    uv_async_t wake;

    /* The loop thread's. */
    pthread_t thread;
    uv_loop_t loop;
    uv_prepare_t before_waiting;
    hr_redis_nodes nodes;
    hr_redis_reads *reads;
    hr_redis_node *node;       /* redis:// */
    hr_redis_cluster *cluster; /* redis-cluster:// */
} redis_store;

static void redis_fetch(void *context, hr_fetch *fetch) {
    redis_store *store = context;
    fetch->next = atomic_load_explicit(&store->submitted, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&store->submitted, &fetch->next, fetch,
                                                  memory_order_release, memory_order_relaxed)) {
    }
    uv_async_send(&store->wake);
}

static void start_submitted(redis_store *store) {
    hr_fetch *last = atomic_exchange_explicit(&store->submitted, NULL, memory_order_acquire);
    hr_fetch *in_order = NULL;
    while (last != NULL) {
        hr_fetch *next = last->next;
        last->next = in_order;
        in_order = last;
        last = next;
    }
    uv_update_time(&store->loop);
    while (in_order != NULL) {
        hr_fetch *next = in_order->next; /* a fetch that is done is no longer ours */
        hr_redis_reads_start(store->reads, in_order);
        in_order = next;
    }
}

/* A connection that fails here has its records asked for on others, perhaps on those that were flushed. */
static void flush(uv_prepare_t *before_waiting) {
    redis_store *store = before_waiting->data;
    uint64_t n_failed;
    do {
        n_failed = atomic_load_explicit(&store->counts.disconnects, memory_order_relaxed);
        if (store->node != NULL) hr_redis_node_flush(store->node);
        if (store->cluster != NULL) hr_redis_cluster_flush(store->cluster);
    } while (n_failed != atomic_load_explicit(&store->counts.disconnects, memory_order_relaxed));
}

static void cluster_told(void *context) {
    redis_store *store = context;
    hr_redis_reads_resume(store->reads);
}

static bool redis_count(const void *context, hr_store_counts *counts) {
    const redis_store *store = context;
#define READ_COUNT(name, text)                                                                               \
    counts->name += atomic_load_explicit(&store->counts.name, memory_order_relaxed);
    HR_STORE_COUNT_MAP(READ_COUNT)
#undef READ_COUNT
    return true;
}

/* --- opening and closing -------------------------------------------------------------------------------- */

/* Every fetch is done; with its last handle the loop ends. */
static void shut_down(redis_store *store) {
    if (store->reads != NULL) hr_redis_reads_close(store->reads);
    hr_redis_node_close(store->node);
    hr_redis_cluster_close(store->cluster);
    store->node = NULL;
    store->cluster = NULL;
    uv_close((uv_handle_t *)&store->before_waiting, NULL);
    uv_close((uv_handle_t *)&store->wake, NULL);
}

static void on_wake(uv_async_t *wake) {
    redis_store *store = wake->data;
    bool closing = atomic_load(&store->closing);
    start_submitted(store);
    if (closing && !uv_is_closing((uv_handle_t *)wake)) shut_down(store);
}

static void *loop_main(void *arg) {
    redis_store *store = arg;
    hr_thread_answer();
    uv_run(&store->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void store_free(redis_store *store) {
    uv_loop_close(&store->loop);
    hr_redis_reads_destroy(store->reads);
    free(store);
}

static void redis_close(void *context) {
    redis_store *store = context;
    atomic_store(&store->closing, true);
    uv_async_send(&store->wake);
    pthread_join(store->thread, NULL);
    store_free(store);
}

static hr_status open_servers(redis_store *store, hr_record_cache *cache, hr_error *err) {
    char server[HR_ADDRESS_TEXT_SIZE];
    hr_address_format(&store->uri.servers[0], server);
    snprintf(store->name, sizeof store->name, "redis%s %s",
             store->uri.kind == HR_STORE_REDIS ? "" : " cluster", server);
    store->nodes = (hr_redis_nodes){.loop = &store->loop,
                                    .name = store->name,
                                    .uri = &store->uri,
                                    .options = &store->options,
                                    .readonly = store->uri.read_replicas || store->uri.hedge,
                                    .counts = &store->counts,
                                    .cache = cache};
    const hr_redis_reads_config config = {&store->loop, store->name, &store->uri, &store->options,
                                          &store->counts};
    store->reads = hr_redis_reads_create(&config);
    bool opened = store->reads != NULL;
    if (opened && store->uri.kind == HR_STORE_REDIS) {
        store->node = hr_redis_node_create(&store->nodes, &store->uri.servers[0]);
        opened = store->node != NULL;
        hr_redis_reads_of_node(store->reads, store->node);
    } else if (opened) {
        store->cluster = hr_redis_cluster_create(&store->nodes, cluster_told, store);
        opened = store->cluster != NULL;
        hr_redis_reads_of_cluster(store->reads, store->cluster);
    }
    return opened ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "%s: out of memory", store->name);
}

/* The handles that wake the loop and flush for it. */
static hr_status open_loop(redis_store *store, hr_error *err) {
    int rc = uv_loop_init(&store->loop);
    if (rc == 0) {
        store->wake.data = store->before_waiting.data = store;
        rc = uv_async_init(&store->loop, &store->wake, on_wake);
        if (rc != 0) uv_loop_close(&store->loop);
    }
    if (rc != 0) return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "redis: no event loop: %s", uv_strerror(rc));
    uv_prepare_init(&store->loop, &store->before_waiting); /* cannot fail, as little as the start */
    uv_prepare_start(&store->before_waiting, flush);
    return HR_OK;
}

hr_status hr_store__open_redis(const hr_store_uri *uri, const hr_store_options *options,
                               hr_record_cache *cache, void **context, hr_error *err) {
    if (options->n_connections < 1 || options->n_connections > HR_REDIS_MAX_LANES)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "redis: expected 1 to %d connections, found %" PRIu32,
                            HR_REDIS_MAX_LANES, options->n_connections);
    redis_store *store = calloc(1, sizeof *store);
    if (store == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory");
    store->uri = *uri;
    store->options = *options;
    hr_status status = open_loop(store, err);
    if (status != HR_OK) {
        free(store);
        return status;
    }
    status = open_servers(store, cache, err);
    if (status == HR_OK) status = hr_thread_start(&store->thread, "hr-redis", loop_main, store, err);
    if (status == HR_OK) {
        *context = store;
        return HR_OK;
    }
    shut_down(store); /* the loop ran nowhere yet: it ends here */
    uv_run(&store->loop, UV_RUN_DEFAULT);
    store_free(store);
    return status;
}

const hr_store_i hr_store__redis = {
    .synchronous = false, .fetch = redis_fetch, .close = redis_close, .count = redis_count};
