/* Records per second from Redis: a store of ours, or a bare hiredis loop, on the same keys.
 *
 *   fetch ours URI ITEMS PER_REQUEST IN_FLIGHT SECONDS [FIELD...]
 *   fetch hiredis redis://127.0.0.1:PORT/KEY ITEMS PER_REQUEST IN_FLIGHT SECONDS [FIELD...]
 *
 * The ids ITEMS ... 2 * ITEMS - 1 have records (bench/features.py makes them), in the loop's eyes under KEY,
 * where a '*' stands for the id; each request asks for PER_REQUEST of them, drawn evenly, and the next one
 * starts when one is answered. With FIELDs the records are hashes of which these are read: the names that the
 * schema would have, or, for the loop, those in the hash. KEY and the loop's FIELDs are percent-encoded.
 * Prints one line of JSON: records/s, the requests' p50 and p99 in µs, and CPU seconds of the process.
 */
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/histogram.h"
#include "features/store.h"

enum { ARENA_NBYTES = 256 << 20, MAX_FIELDS = 64, MAX_IN_FLIGHT = 1024 };
static const uint64_t second_ns = 1000000000;

typedef struct workload {
    const char *uri;
    hr_field_list fields; /* none: packed */
    size_t n_items, per_request, in_flight;
    uint64_t end_ns;
    uint64_t random;
    hr_histogram latency_ns;
    uint64_t n_records, n_missing;
} workload;

static size_t draw(workload *w) {
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->n_items + w->random % w->n_items;
}

static void answered(workload *w, uint64_t begun_ns) {
    hr_histogram_record(&w->latency_ns, hr_clock_ns() - begun_ns);
    w->n_records += w->per_request;
}

/* --- the peer: pipelined MGETs (or HMGETs), as hiredis offers them -------------------------------------- */

enum { KEY_SIZE = 128 };

/* Any bytes. */
typedef struct text {
    char bytes[KEY_SIZE];
    size_t n;
} text;

typedef struct peer {
    redisContext *redis;
    text key[2]; /* before and behind the id */
    text fields[MAX_FIELDS];
    const char **argv; /* (2 + per_request or fields) */
    size_t *lengths;
    text *keys; /* (per_request) */
} peer;

/* Percent-decodes up to `stop`; what is behind that. */
static const char *decode(const char *from, char stop, text *to) {
    unsigned byte;
    for (; *from != '\0' && *from != stop && to->n < KEY_SIZE; from++) {
        const bool encoded = *from == '%' && sscanf(from + 1, "%2x", &byte) == 1;
        to->bytes[to->n++] = encoded ? (char)byte : *from;
        from += encoded ? 2 : 0;
    }
    return *from == stop ? from + 1 : from;
}

static void make_key(workload *w, const peer *p, text *key) {
    char id[24];
    const size_t n_id = (size_t)snprintf(id, sizeof id, "%zu", draw(w));
    memcpy(key->bytes, p->key[0].bytes, p->key[0].n);
    memcpy(key->bytes + p->key[0].n, id, n_id);
    memcpy(key->bytes + p->key[0].n + n_id, p->key[1].bytes, p->key[1].n);
    key->n = p->key[0].n + n_id + p->key[1].n;
}

static void put_word(peer *p, size_t i, const char *bytes, size_t n) {
    p->argv[i] = bytes;
    p->lengths[i] = n;
}

static void peer_append_hash(workload *w, peer *p) {
    put_word(p, 0, "HMGET", 5);
    for (size_t f = 0; f < w->fields.n_names; f++) put_word(p, 2 + f, p->fields[f].bytes, p->fields[f].n);
    for (size_t i = 0; i < w->per_request; i++) {
        make_key(w, p, &p->keys[0]);
        put_word(p, 1, p->keys[0].bytes, p->keys[0].n);
        redisAppendCommandArgv(p->redis, (int)(2 + w->fields.n_names), p->argv, p->lengths);
    }
}

static void peer_append(workload *w, peer *p) {
    if (w->fields.n_names > 0) {
        peer_append_hash(w, p);
        return;
    }
    put_word(p, 0, "MGET", 4);
    for (size_t i = 0; i < w->per_request; i++) {
        make_key(w, p, &p->keys[i]);
        put_word(p, 1 + i, p->keys[i].bytes, p->keys[i].n);
    }
    redisAppendCommandArgv(p->redis, (int)(1 + w->per_request), p->argv, p->lengths);
}

/* Reads one request's answers; false at an error. */
static bool peer_read(workload *w, peer *p) {
    for (size_t n = w->fields.n_names > 0 ? w->per_request : 1; n > 0; n--) {
        redisReply *reply = NULL;
        if (redisGetReply(p->redis, (void **)&reply) != REDIS_OK || reply->type != REDIS_REPLY_ARRAY)
            return false;
        for (size_t i = 0; i < reply->elements; i++)
            w->n_missing += reply->element[i]->type != REDIS_REPLY_STRING;
        freeReplyObject(reply);
    }
    return true;
}

static bool peer_open(const workload *w, peer *p) {
    unsigned port = 0;
    int n_server = 0;
    if (sscanf(w->uri, "redis://127.0.0.1:%u/%n", &port, &n_server) != 1 || n_server == 0) return false;
    decode(decode(w->uri + n_server, '*', &p->key[0]), '\0', &p->key[1]);
    for (size_t f = 0; f < w->fields.n_names; f++) decode(w->fields.names[f], '\0', &p->fields[f]);
    p->redis = redisConnect("127.0.0.1", (int)port);
    p->argv = calloc(2 + MAX_FIELDS + w->per_request, sizeof *p->argv);
    p->lengths = calloc(2 + MAX_FIELDS + w->per_request, sizeof *p->lengths);
    p->keys = calloc(w->per_request, sizeof *p->keys);
    return p->redis != NULL && p->redis->err == 0 && p->argv != NULL && p->lengths != NULL &&
           p->keys != NULL && p->key[0].n + p->key[1].n + 24 < KEY_SIZE;
}

static bool run_peer(workload *w) {
    peer p = {.redis = NULL};
    uint64_t begun_ns[MAX_IN_FLIGHT] = {0};
    bool ok = peer_open(w, &p);
    size_t n_sent = 0, n_read = 0;
    while (ok && (n_read < n_sent || hr_clock_ns() < w->end_ns)) {
        while (n_sent - n_read < w->in_flight && hr_clock_ns() < w->end_ns) {
            begun_ns[n_sent++ % w->in_flight] = hr_clock_ns();
            peer_append(w, &p);
        }
        ok = peer_read(w, &p);
        if (ok) answered(w, begun_ns[n_read++ % w->in_flight]);
    }
    if (p.redis != NULL) redisFree(p.redis);
    free(p.keys);
    free(p.lengths);
    free(p.argv);
    return ok;
}

/* --- ours: as many fetches in flight; each that is done starts the next, on the store's thread ---------- */

typedef struct ours {
    workload *w;
    hr_store *store;
    pthread_mutex_t left_lock;
    pthread_cond_t left_changed;
    size_t n_left;
    char error[HR_ERROR_MESSAGE_SIZE];
} ours;

typedef struct asker {
    ours *all;
    hr_fetch fetch;
    char (*texts)[24];  /* (per_request) */
    const char **items; /* of the texts */
    uint64_t begun_ns;
} asker;

static void prepare(asker *a) {
    workload *w = a->all->w;
    hr_arena_reset(a->fetch.arena);
    a->begun_ns = hr_clock_ns();
    for (size_t i = 0; i < w->per_request; i++) snprintf(a->texts[i], sizeof a->texts[i], "%zu", draw(w));
}

static void asker_done(hr_fetch *fetch) {
    asker *a = fetch->arg;
    ours *all = a->all;
    workload *w = all->w;
    answered(w, a->begun_ns);
    for (size_t i = 0; i < fetch->n_items; i++) w->n_missing += fetch->items[i].kind == HR_RECORD_MISSING;
    if (fetch->error.code != HR_OK) strcpy(all->error, fetch->error.message);
    if (hr_clock_ns() < w->end_ns && fetch->error.code == HR_OK) {
        prepare(a);
        hr_store_fetch(all->store, fetch);
        return;
    }
    pthread_mutex_lock(&all->left_lock);
    all->n_left--;
    pthread_cond_signal(&all->left_changed);
    pthread_mutex_unlock(&all->left_lock);
}

static bool run_ours(workload *w) {
    ours all = {.w = w, .left_lock = PTHREAD_MUTEX_INITIALIZER, .left_changed = PTHREAD_COND_INITIALIZER};
    hr_error err = {0};
    hr_store_options options = hr_store_defaults;
    options.command_timeout_ms = 20000;
    options.connect_timeout_ms = 20000;
    if (hr_store_open(w->uri, &options, &all.store, &err) != HR_OK) {
        fprintf(stderr, "fetch: %s\n", err.message);
        return false;
    }
    asker *askers = calloc(w->in_flight, sizeof *askers);
    all.n_left = w->in_flight;
    for (size_t k = 0; k < w->in_flight; k++) {
        asker *a = &askers[k];
        a->all = &all;
        a->items = calloc(w->per_request, sizeof *a->items);
        a->texts = calloc(w->per_request, sizeof *a->texts);
        for (size_t i = 0; i < w->per_request; i++) a->items[i] = a->texts[i];
        a->fetch = (hr_fetch){.item_ids = a->items,
                              .n_items = w->per_request,
                              .fields[HR_ENTITY_ITEM] = &w->fields,
                              .deadline_ns = UINT64_MAX,
                              .arena = hr_arena_create(ARENA_NBYTES),
                              .done = asker_done,
                              .arg = a};
    }
    for (size_t k = 0; k < w->in_flight; k++) prepare(&askers[k]); /* before `done` does it, elsewhere */
    for (size_t k = 0; k < w->in_flight; k++) hr_store_fetch(all.store, &askers[k].fetch);
    pthread_mutex_lock(&all.left_lock);
    while (all.n_left > 0) pthread_cond_wait(&all.left_changed, &all.left_lock);
    pthread_mutex_unlock(&all.left_lock);
    hr_store_close(all.store);
    for (size_t k = 0; k < w->in_flight; k++) {
        hr_arena_destroy(askers[k].fetch.arena);
        free(askers[k].items);
        free(askers[k].texts);
    }
    free(askers);
    if (all.error[0] != '\0') fprintf(stderr, "fetch: %s\n", all.error);
    return all.error[0] == '\0';
}

int main(int argc, char **argv) {
    if (argc < 7 || argc > 7 + MAX_FIELDS) {
        fprintf(stderr, "usage: fetch ours|hiredis URI ITEMS PER_REQUEST IN_FLIGHT SECONDS [FIELD...]\n");
        return 2;
    }
    workload *w = calloc(1, sizeof *w);
    w->uri = argv[2];
    w->fields = (hr_field_list){(const char *const *)(argv + 7), (size_t)(argc - 7)};
    w->n_items = strtoul(argv[3], NULL, 10);
    w->per_request = strtoul(argv[4], NULL, 10);
    w->in_flight = strtoul(argv[5], NULL, 10);
    w->random = 88172645463325252u;
    const uint64_t begun_ns = hr_clock_ns();
    w->end_ns = begun_ns + (uint64_t)(strtod(argv[6], NULL) * 1e9);
    bool ok = w->in_flight > 0 && w->in_flight <= MAX_IN_FLIGHT && w->n_items > 0 &&
              (strcmp(argv[1], "ours") == 0 ? run_ours(w) : run_peer(w));
    const double seconds = (double)(hr_clock_ns() - begun_ns) / (double)second_ns;
    if (ok)
        printf("{\"records_per_s\": %.0f, \"p50_us\": %" PRIu64 ", \"p99_us\": %" PRIu64
               ", \"missing\": %" PRIu64 ", \"cpu_s\": %.2f}\n",
               (double)w->n_records / seconds, hr_histogram_quantile(&w->latency_ns, 0.5) / 1000,
               hr_histogram_quantile(&w->latency_ns, 0.99) / 1000, w->n_missing,
               (double)clock() / CLOCKS_PER_SEC);
    free(w);
    return ok ? 0 : 1;
}
