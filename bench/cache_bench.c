/* Records per second out of the cache, beside what they cost without it.
 *
 *   cache_bench URI [ROUNDS]
 *
 * URI is a Redis that may be filled: 100,000 items' records (a dozen fields, as the demo's) go to hr:item:0
 * ... Requests of 500 items are drawn by Zipf's law, exponent 1. In turn, for half a second each:
 *
 *   hiredis  a bare loop of pipelined MGETs, 8 in flight; nothing is decoded
 *   plain    fetched from the store and encoded, 8 in flight; the encoding on this one thread
 *   cached   the same of a store whose cache holds all of them, on this one thread
 *   inline   cached, with two features of each item given inline
 *
 * Prints each round and the medians, records/s in thousands, as JSON lines; of the last two also per second
 * of this process's CPU time, which a busy machine does not change as much.
 */
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <jansson.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "features/encoder.h"
#include "features/store.h"
#include "proto/homerank.pb-c.h"
#include "service/request_encode.h"

enum {
    N_ITEMS = 100000,
    PER_REQUEST = 500,
    N_REQUESTS = 1000, /* drawn beforehand, in rotation */
    IN_FLIGHT = 8,
    MAX_ROUNDS = 99,
    ARENA_NBYTES = 64 << 20
};
static const uint64_t round_ns = 500000000;

typedef struct bench {
    const char *uri;
    hr_schema *schema;
    hr_encoder *encoder;
    hr_arena *scratch;
    char (*ids)[12];                             /* (N_ITEMS) */
    const char *(*requests)[PER_REQUEST];        /* (N_REQUESTS) their texts live for ever */
    Homerank__V1__FeatureMap *maps[PER_REQUEST]; /* of inline features */
    hr_store *plain, *cached;
    uint64_t random;
} bench;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "cache_bench: %s: %s\n", what, why);
    exit(1);
}

static uint64_t next_random(bench *b) {
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

/* --- what is asked for ------------------------------------------------------------------------------------
 */

static void make_schema(bench *b) {
    static const char tables[] = "{\"item\": {\"rows\": 200000, \"dim\": 16, \"index\": \"hash\"},"
                                 " \"author\": {\"rows\": 20000, \"dim\": 16, \"index\": \"hash\"},"
                                 " \"tag\": {\"rows\": 1000, \"dim\": 8, \"index\": \"hash\"},"
                                 " \"days\": {\"rows\": 8, \"dim\": 4, \"index\": \"direct\"}}";
    static const char features[] =
        "[{\"name\": \"id\", \"field\": \"item_id\", \"entity\": \"item\", \"kind\": \"id\", \"table\": "
        "\"item\"},"
        " {\"name\": \"author\", \"entity\": \"item\", \"kind\": \"id\", \"table\": \"author\"},"
        " {\"name\": \"music\", \"entity\": \"item\", \"kind\": \"id\", \"table\": \"author\"},"
        " {\"name\": \"tags\", \"entity\": \"item\", \"kind\": \"ids\", \"table\": \"tag\", \"max_length\": "
        "8},"
        " {\"name\": \"days\", \"entity\": \"item\", \"kind\": \"bucket\", \"boundaries\": [1, 3, 7, 30], "
        "\"table\": \"days\"},"
        " {\"name\": \"duration\", \"entity\": \"item\", \"kind\": \"number\", \"log1p\": true},"
        " {\"name\": \"shows\", \"entity\": \"item\", \"kind\": \"number\", \"log1p\": true},"
        " {\"name\": \"plays\", \"entity\": \"item\", \"kind\": \"number\", \"log1p\": true},"
        " {\"name\": \"likes\", \"entity\": \"item\", \"kind\": \"number\", \"log1p\": true},"
        " {\"name\": \"rate\", \"entity\": \"item\", \"kind\": \"number\"},"
        " {\"name\": \"vision\", \"entity\": \"item\", \"kind\": \"numbers\", \"length\": 8},"
        " {\"name\": \"age\", \"entity\": \"user\", \"kind\": \"number\"}]";
    json_t *t = json_loads(tables, 0, NULL), *f = json_loads(features, 0, NULL);
    hr_error err;
    if (hr_schema_create(t, f, &b->schema, &err) != HR_OK ||
        hr_encoder_create(b->schema, &b->encoder, &err) != HR_OK)
        fail("schema", err.message);
    json_decref(t);
    json_decref(f);
}

static void draw_requests(bench *b) {
    double *sums = malloc(N_ITEMS * sizeof *sums), sum = 0;
    b->ids = malloc(N_ITEMS * sizeof *b->ids);
    b->requests = malloc(N_REQUESTS * sizeof *b->requests);
    char(*texts)[sizeof b->ids[0]] = malloc((size_t)N_REQUESTS * PER_REQUEST * sizeof *texts);
    if (texts == NULL || sums == NULL || b->ids == NULL || b->requests == NULL)
        fail("requests", "out of memory");
    for (uint32_t i = 0; i < N_ITEMS; i++) {
        snprintf(b->ids[i], sizeof b->ids[i], "%" PRIu32, i * 7919u % N_ITEMS); /* popular ones all over */
        sums[i] = sum += 1.0 / (i + 1);
    }
    for (size_t k = 0; k < N_REQUESTS * PER_REQUEST; k++) {
        const double u = (double)(next_random(b) >> 11) * 0x1p-53 * sum;
        uint32_t low = 0, high = N_ITEMS - 1;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (sums[middle] < u)
                low = middle + 1;
            else
                high = middle;
        }
        /* The ids of a request lie together, as those of a decoded message do. */
        memcpy(texts[k], b->ids[low], sizeof texts[k]);
        b->requests[k / PER_REQUEST][k % PER_REQUEST] = texts[k];
    }
    free(sums);
}

/* --- records ----------------------------------------------------------------------------------------------
 */

enum { MAX_FIELDS = 12, MAX_TAGS = 6, N_VISION = 8 };

/* One record being made. */
typedef struct record {
    Homerank__V1__FeatureMap map;
    Homerank__V1__FeatureMap__FeaturesEntry entries[MAX_FIELDS], *list[MAX_FIELDS];
    Homerank__V1__FeatureValue values[MAX_FIELDS];
    Homerank__V1__IdList tags;
    Homerank__V1__NumberList vision;
    char texts[2 + MAX_TAGS][16], *tag_list[MAX_TAGS];
    double numbers[N_VISION];
} record;

static Homerank__V1__FeatureValue *add(record *r, const char *name,
                                       Homerank__V1__FeatureValue__KindCase kind) {
    const size_t n = r->map.n_features++;
    homerank__v1__feature_map__features_entry__init(&r->entries[n]);
    homerank__v1__feature_value__init(&r->values[n]);
    r->values[n].kind_case = kind;
    r->entries[n].key = (char *)name;
    r->entries[n].value = &r->values[n];
    r->list[n] = &r->entries[n];
    return &r->values[n];
}

static void add_number(record *r, const char *name, double number) {
    add(r, name, HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER)->number = number;
}

static void make_record(bench *b, record *r) {
    homerank__v1__feature_map__init(&r->map);
    homerank__v1__id_list__init(&r->tags);
    homerank__v1__number_list__init(&r->vision);
    r->map.features = r->list;
    for (int i = 0; i < 2 + MAX_TAGS; i++)
        snprintf(r->texts[i], sizeof r->texts[i], "%" PRIu64, next_random(b) % 20000);
    for (int i = 0; i < MAX_TAGS; i++) r->tag_list[i] = r->texts[2 + i];
    for (int i = 0; i < N_VISION; i++) r->numbers[i] = (double)(next_random(b) % 1000) / 1000;
    r->tags.values = r->tag_list;
    r->tags.n_values = 1 + next_random(b) % MAX_TAGS;
    r->vision.values = r->numbers;
    r->vision.n_values = N_VISION;
    add(r, "author", HOMERANK__V1__FEATURE_VALUE__KIND_ID)->id = r->texts[0];
    add(r, "music", HOMERANK__V1__FEATURE_VALUE__KIND_ID)->id = r->texts[1];
    add(r, "tags", HOMERANK__V1__FEATURE_VALUE__KIND_IDS)->ids = &r->tags;
    add_number(r, "days", (double)(next_random(b) % 40));
    add_number(r, "duration", (double)(next_random(b) % 300));
    add_number(r, "shows", (double)(next_random(b) % 1000000));
    add_number(r, "plays", (double)(next_random(b) % 100000));
    add_number(r, "likes", (double)(next_random(b) % 1000));
    add_number(r, "rate", (double)(next_random(b) % 1000) / 1000);
    add(r, "vision", HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS)->numbers = &r->vision;
}

static redisContext *connect_to(const char *uri) {
    char host[256];
    int port;
    if (sscanf(uri, "redis://%255[^:/]:%d", host, &port) != 2) fail(uri, "expected redis://HOST:PORT");
    redisContext *c = redisConnect(host, port);
    if (c == NULL || c->err != 0) fail(uri, c == NULL ? "out of memory" : c->errstr);
    return c;
}

static void fill(bench *b) {
    redisContext *c = connect_to(b->uri);
    uint64_t nbytes = 0;
    for (uint32_t i = 0; i < N_ITEMS; i++) {
        record r = {.map = {.n_features = 0}};
        uint8_t data[1024];
        make_record(b, &r);
        const size_t n = homerank__v1__feature_map__pack(&r.map, data);
        nbytes += n;
        redisAppendCommand(c, "SET hr:item:%s %b", b->ids[i], data, n);
        for (uint32_t k = 0; i % 1000 == 999 && k < 1000; k++) {
            redisReply *reply = NULL;
            if (redisGetReply(c, (void **)&reply) != REDIS_OK) fail("SET", c->errstr);
            freeReplyObject(reply);
        }
    }
    redisFree(c);
    printf("{\"records\": %d, \"mean_nbytes\": %.0f, \"row_nbytes\": %zu}\n", N_ITEMS,
           (double)nbytes / N_ITEMS, 4 * hr_row_words(b->schema, HR_ENTITY_ITEM));
}

/* --- what is measured -------------------------------------------------------------------------------------
 */

/* Records per second of the clock, and of this process's CPU time. */
typedef struct rate {
    double wall, cpu;
} rate;

typedef struct stopwatch {
    uint64_t wall_ns, cpu_ns;
} stopwatch;

static stopwatch now(void) {
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    return (stopwatch){hr_clock_ns(), (uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec};
}

static rate rate_since(stopwatch begun, size_t n_requests) {
    const stopwatch end = now();
    const double n = (double)n_requests * PER_REQUEST * 1e9;
    return (rate){n / (double)(end.wall_ns - begun.wall_ns), n / (double)(end.cpu_ns - begun.cpu_ns)};
}

static rate run_hiredis(bench *b) {
    redisContext *c = connect_to(b->uri);
    static char keys[PER_REQUEST][32];
    const char *argv[1 + PER_REQUEST] = {"MGET"};
    size_t lengths[1 + PER_REQUEST] = {4}, n_sent = 0, n_answered = 0;
    const stopwatch begun = now();
    while (n_answered == 0 || hr_clock_ns() - begun.wall_ns < round_ns) {
        for (; n_sent < n_answered + IN_FLIGHT; n_sent++) {
            for (int i = 0; i < PER_REQUEST; i++) {
                argv[1 + i] = keys[i];
                lengths[1 + i] = (size_t)snprintf(keys[i], sizeof keys[i], "hr:item:%s",
                                                  b->requests[n_sent % N_REQUESTS][i]);
            }
            redisAppendCommandArgv(c, 1 + PER_REQUEST, argv, lengths);
        }
        redisReply *reply = NULL;
        if (redisGetReply(c, (void **)&reply) != REDIS_OK || reply->elements != PER_REQUEST)
            fail("MGET", c->errstr);
        freeReplyObject(reply);
        n_answered++;
    }
    const rate measured = rate_since(begun, n_answered);
    redisFree(c);
    return measured;
}

typedef struct flight {
    hr_fetch fetch;
    Homerank__V1__RankRequest request;
    sem_t done;
} flight;

static void flight_done(hr_fetch *fetch) {
    sem_post(&((flight *)fetch->arg)->done);
}

static void begin(bench *b, hr_store *store, flight *f, size_t k, bool with_inline) {
    hr_arena_reset(f->fetch.arena);
    homerank__v1__rank_request__init(&f->request);
    f->request.user_id = (char *)"u";
    f->request.item_ids = (char **)b->requests[k % N_REQUESTS];
    f->request.n_item_ids = PER_REQUEST;
    f->request.item_features = b->maps;
    f->request.n_item_features = with_inline ? PER_REQUEST : 0;
    f->fetch = (hr_fetch){.user_id = f->request.user_id,
                          .item_ids = b->requests[k % N_REQUESTS],
                          .n_items = PER_REQUEST,
                          .fields = {hr_encoder_fields(b->encoder, HR_ENTITY_USER),
                                     hr_encoder_fields(b->encoder, HR_ENTITY_ITEM)},
                          .schema = b->schema,
                          .deadline_ns = UINT64_MAX,
                          .arena = f->fetch.arena,
                          .done = flight_done,
                          .arg = f};
    hr_store_fetch(store, &f->fetch);
}

static void end(bench *b, flight *f) {
    hr_slice slice;
    uint32_t n_invalid;
    hr_error err;
    while (sem_wait(&f->done) != 0) {
    }
    if (f->fetch.error.code != HR_OK) fail("fetch", f->fetch.error.message);
    if (hr_request_encode(b->encoder, b->schema, &f->request, &f->fetch, f->fetch.arena, b->scratch, &slice,
                          &n_invalid, &err) != HR_OK)
        fail("encode", err.message);
    if (n_invalid > 0) fail("encode", "invalid values");
}

static rate run_store(bench *b, hr_store *store, size_t in_flight, bool with_inline) {
    static flight flights[IN_FLIGHT];
    for (size_t i = 0; i < in_flight; i++) {
        flights[i].fetch.arena = hr_arena_create(ARENA_NBYTES);
        sem_init(&flights[i].done, 0, 0);
    }
    size_t n_sent = 0, n_answered = 0;
    const stopwatch begun = now();
    while (n_answered == 0 || hr_clock_ns() - begun.wall_ns < round_ns) {
        for (; n_sent < n_answered + in_flight; n_sent++)
            begin(b, store, &flights[n_sent % in_flight], n_sent, with_inline);
        end(b, &flights[n_answered++ % in_flight]);
    }
    const rate measured = rate_since(begun, n_answered);
    for (; n_answered < n_sent; n_answered++) end(b, &flights[n_answered % in_flight]);
    for (size_t i = 0; i < in_flight; i++) hr_arena_destroy(flights[i].fetch.arena);
    return measured;
}

static hr_store *open_store(bench *b, size_t cache_nbytes) {
    hr_store_options options = hr_store_defaults;
    options.command_timeout_ms = 20000;
    options.cache_nbytes = cache_nbytes;
    options.cache_ttl_ms = 0;
    hr_store *store;
    hr_error err;
    if (hr_store_open(b->uri, &options, &store, &err) != HR_OK) fail(b->uri, err.message);
    return store;
}

/* Fetches every record until all are cached, as rows. */
static void warm(bench *b) {
    static const char *all[N_ITEMS / PER_REQUEST][PER_REQUEST];
    const char *(*drawn)[PER_REQUEST] = b->requests;
    for (size_t i = 0; i < N_ITEMS; i++) all[i / PER_REQUEST][i % PER_REQUEST] = b->ids[i];
    b->requests = all;
    hr_cache_stats before, after;
    do {
        hr_store_cache_stats(b->cached, &before);
        flight f = {.fetch = {.arena = hr_arena_create(ARENA_NBYTES)}};
        sem_init(&f.done, 0, 0);
        for (size_t k = 0; k < N_ITEMS / PER_REQUEST; k++) {
            begin(b, b->cached, &f, k, false);
            end(b, &f);
        }
        hr_arena_destroy(f.fetch.arena);
        hr_store_cache_stats(b->cached, &after);
    } while (after.n_misses > before.n_misses);
    b->requests = drawn;
    printf("{\"cache_entries\": %" PRIu64 ", \"cache_nbytes\": %" PRIu64 ", \"nbytes_per_entry\": %.0f}\n",
           after.n_entries, after.nbytes, (double)after.nbytes / (double)after.n_entries);
}

/* --- the rounds -------------------------------------------------------------------------------------------
 */

enum { HIREDIS, PLAIN, CACHED, INLINE, CACHED_CPU, INLINE_CPU, N_RATES };
static const char *const names[N_RATES] = {"hiredis", "plain",      "cached",
                                           "inline",  "cached_cpu", "inline_cpu"};

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_rates(const double rates[N_RATES][MAX_ROUNDS], int round) {
    for (int i = 0; i < N_RATES; i++) printf(", \"%s\": %.0f", names[i], rates[i][round] / 1000);
}

static void run_rounds(bench *b, int n_rounds) {
    static double rates[N_RATES][MAX_ROUNDS];
    for (int round = 0; round < n_rounds; round++) {
        rates[HIREDIS][round] = run_hiredis(b).wall;
        rates[PLAIN][round] = run_store(b, b->plain, IN_FLIGHT, false).wall;
        const rate cached = run_store(b, b->cached, 1, false), inlined = run_store(b, b->cached, 1, true);
        rates[CACHED][round] = cached.wall;
        rates[CACHED_CPU][round] = cached.cpu;
        rates[INLINE][round] = inlined.wall;
        rates[INLINE_CPU][round] = inlined.cpu;
        printf("{\"round\": %d", round);
        print_rates(rates, round);
        printf("}\n");
        fflush(stdout);
    }
    for (int i = 0; i < N_RATES; i++) qsort(rates[i], (size_t)n_rounds, sizeof rates[i][0], compare);
    printf("{\"medians\": true");
    print_rates(rates, n_rounds / 2);
    printf(", \"cached_over_hiredis\": %.2f}\n", rates[CACHED][n_rounds / 2] / rates[HIREDIS][n_rounds / 2]);
}

int main(int argc, char **argv) {
    static record inlined;
    if (argc < 2) fail("usage", "cache_bench redis://HOST:PORT [ROUNDS]");
    bench b = {.uri = argv[1], .random = 88172645463325252};
    const int n_rounds = argc > 2 ? atoi(argv[2]) : 5;
    if (n_rounds < 1 || n_rounds > MAX_ROUNDS) fail("ROUNDS", "expected 1 to 99");
    make_schema(&b);
    draw_requests(&b);
    fill(&b);
    homerank__v1__feature_map__init(&inlined.map);
    inlined.map.features = inlined.list;
    add_number(&inlined, "rate", 0.5);
    add_number(&inlined, "shows", 17);
    for (int i = 0; i < PER_REQUEST; i++) b.maps[i] = &inlined.map;
    b.scratch = hr_arena_create(ARENA_NBYTES);
    b.plain = open_store(&b, 0);
    b.cached = open_store(&b, (size_t)256 << 20);
    warm(&b);
    run_rounds(&b, n_rounds);
    hr_store_close(b.cached);
    hr_store_close(b.plain);
    hr_arena_destroy(b.scratch);
    hr_encoder_destroy(b.encoder);
    hr_schema_destroy(b.schema);
    free(b.ids);
    free(b.requests);
    return 0;
}
