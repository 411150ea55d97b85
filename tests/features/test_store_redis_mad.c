/* Whatever a Redis Cluster says (mad_cluster.h), every fetch is done once, with the records it asked for or
 * with a reason why not, and the store can be closed at any moment. */
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "features/store.h"
#include "tests/features/mad_cluster.h"

enum { N_THREADS = 3, N_ASKERS = 6, MAX_ITEMS = 40, N_IDS = 64, ARENA_NBYTES = 1 << 20, SMALL_NBYTES = 2048 };
static const uint64_t ms_ns = 1000000;

static hr_schema *schema;
static char ids[N_IDS][8]; /* "0" ... */
static const char *const field_names[] = {"n", "absent"};
static const hr_field_list fields = {field_names, 2};

static int start(void **state) {
    (void)state;
    json_t *tables = json_object();
    json_t *features = json_loads("[{\"name\": \"n\", \"entity\": \"item\", \"kind\": \"number\"},"
                                  "{\"name\": \"absent\", \"entity\": \"item\", \"kind\": \"number\"}]",
                                  0, NULL);
    assert_int_equal(hr_schema_create(tables, features, &schema, NULL), HR_OK);
    json_decref(tables);
    json_decref(features);
    for (unsigned i = 0; i < N_IDS; i++) snprintf(ids[i], sizeof ids[i], "%u", i);
    return 0;
}

static int stop(void **state) {
    (void)state;
    hr_schema_destroy(schema);
    return 0;
}

typedef struct work {
    hr_store *store;
    bool cached;
    uint64_t seed;
    atomic_bool stops;
    atomic_uint n_done, n_found, n_failed, n_stale;
} work;

/* A fetch that is asked again and again. */
typedef struct asker {
    hr_fetch fetch;
    work *of;
    hr_arena *arenas[2]; /* large and small */
    const char *items[MAX_ITEMS];
    unsigned numbers[MAX_ITEMS]; /* of the items */
    enum { IDLE, ASKED, DONE } _Atomic state;
} asker;

static unsigned draw(uint64_t *random, unsigned below) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return (unsigned)(*random >> 11) % below;
}

/* A row holds the item's number, or that it is absent. */
static uint32_t row_of(const hr_record *record, unsigned number) {
    return record->kind == HR_RECORD_MISSING ? UINT32_MAX : number;
}

/* cmocka's checks are for the test's own thread. */
static void die(const char *what, const hr_fetch *fetch, unsigned number) {
    fprintf(stderr, "item %u: %s; the fetch: \"%s\"\n", number, what, fetch->error.message);
    abort();
}

static bool ends_with(const char *text, size_t nbytes, const char *end, size_t n) {
    return nbytes > n && memcmp(text + nbytes - n, end, n) == 0;
}

/* A record's text is its key. */
static void check_record(const hr_fetch *fetch, const hr_record *record, unsigned number) {
    char expected[32];
    const size_t n = (size_t)snprintf(expected, sizeof expected, ":item:%u", number);
    if (!record->answered && fetch->error.code == HR_OK) die("no answer and no reason", fetch, number);
    if (record->row != NULL && record->row[0] != row_of(record, number))
        die("the row of another, or of none", fetch, number);
    if (record->kind == HR_RECORD_PACKED &&
        !ends_with((const char *)record->data, record->nbytes, expected, n))
        die("another's record", fetch, number);
    for (size_t f = 0; record->kind == HR_RECORD_FIELDS && f < fields.n_names; f++) {
        const hr_field_text *text = &record->fields[f];
        if (text->text != NULL && !ends_with(text->text, text->nbytes, expected, n))
            die("another's field", fetch, number);
    }
}

static void fetch_done(hr_fetch *fetch) {
    asker *a = fetch->arg;
    work *w = a->of;
    for (size_t i = 0; fetch->items != NULL && i < fetch->n_items; i++) {
        const hr_record *record = &fetch->items[i];
        check_record(fetch, record, a->numbers[i]);
        atomic_fetch_add(&w->n_found, record->kind != HR_RECORD_MISSING);
        atomic_fetch_add(&w->n_stale, record->stale);
    }
    if (fetch->items == NULL && fetch->n_items > 0 && fetch->error.code == HR_OK)
        die("no records and no reason", fetch, 0);
    atomic_fetch_add(&w->n_failed, fetch->error.code != HR_OK);
    atomic_fetch_add(&w->n_done, 1);
    if (atomic_exchange(&a->state, DONE) != ASKED) die("done twice", fetch, 0);
}

/* As a worker does: the rows of what came without are offered. */
static void keep_rows(asker *a) {
    hr_fetch *fetch = &a->fetch;
    for (size_t i = 0; fetch->items != NULL && i < fetch->n_items; i++) {
        const hr_record *record = &fetch->items[i];
        const uint32_t row[8] = {row_of(record, a->numbers[i])};
        if (record->row == NULL)
            hr_fetch_keep_row(&(hr_row_offer){
                .fetch = fetch, .record = record, .entity = HR_ENTITY_ITEM, .id = a->items[i], .row = row});
    }
}

static void ask(asker *a, uint64_t *random) {
    work *w = a->of;
    hr_arena *arena = a->arenas[draw(random, 16) == 0];
    const unsigned n_items = draw(random, MAX_ITEMS + 1), when = draw(random, 8);
    hr_arena_reset(arena);
    for (unsigned i = 0; i < n_items; i++) {
        a->numbers[i] = draw(random, N_IDS);
        a->items[i] = ids[a->numbers[i]];
    }
    uint64_t deadline_ns = hr_clock_ns() + draw(random, 40) * ms_ns;
    if (when < 2) deadline_ns = UINT64_MAX;
    a->fetch = (hr_fetch){.user_id = draw(random, 2) == 0 ? NULL : "u",
                          .item_ids = a->items,
                          .n_items = n_items,
                          .fields = {&fields, &fields},
                          .schema = w->cached && draw(random, 8) > 0 ? schema : NULL,
                          .deadline_ns = deadline_ns,
                          .arena = arena,
                          .done = fetch_done,
                          .arg = a};
    atomic_store(&a->state, ASKED);
    hr_store_fetch(w->store, &a->fetch);
}

typedef struct thread {
    work *of;
    unsigned number;
    pthread_t thread;
    asker askers[N_ASKERS];
} thread;

static void *run(void *arg) {
    thread *t = arg;
    uint64_t random = (t->of->seed * 31 + t->number) * UINT64_C(0x9E3779B97F4A7C15) | 1;
    while (!atomic_load(&t->of->stops)) {
        asker *a = &t->askers[draw(&random, N_ASKERS)];
        const int state = atomic_load(&a->state);
        if (state == ASKED) {
            usleep(100);
            continue;
        }
        if (state == DONE) keep_rows(a);
        ask(a, &random);
    }
    return NULL;
}

static void fetch_for(const char *uri, bool cached, uint64_t seed, unsigned ms, work *w) {
    hr_store_options options = hr_store_defaults;
    hr_error err = {0};
    thread *threads = calloc(N_THREADS, sizeof *threads);
    options.connect_timeout_ms = options.command_timeout_ms = options.cache_heartbeat_ms = 50;
    options.cache_ttl_ms = 40;
    options.cache_max_stale_ms = 60;
    options.cache_nbytes = cached ? 1 << 20 : 0;
    *w = (work){.cached = cached, .seed = seed};
    if (hr_store_open(uri, &options, &w->store, &err) != HR_OK) fail_msg("%s", err.message);
    for (unsigned i = 0; i < N_THREADS; i++) {
        threads[i].of = w;
        threads[i].number = i;
        for (unsigned k = 0; k < N_ASKERS; k++) {
            threads[i].askers[k].of = w;
            threads[i].askers[k].arenas[0] = hr_arena_create(ARENA_NBYTES);
            threads[i].askers[k].arenas[1] = hr_arena_create(SMALL_NBYTES);
        }
        assert_int_equal(pthread_create(&threads[i].thread, NULL, run, &threads[i]), 0);
    }
    usleep(ms * 1000);
    atomic_store(&w->stops, true);
    for (unsigned i = 0; i < N_THREADS; i++) pthread_join(threads[i].thread, NULL);
    hr_store_close(w->store); /* with fetches under way */
    for (unsigned i = 0; i < N_THREADS; i++) {
        for (unsigned k = 0; k < N_ASKERS; k++) {
            assert_int_not_equal(atomic_load(&threads[i].askers[k].state), ASKED);
            hr_arena_destroy(threads[i].askers[k].arenas[0]);
            hr_arena_destroy(threads[i].askers[k].arenas[1]);
        }
    }
    free(threads);
}

static void whatever_is_said_every_fetch_is_done_once_with_its_own_records(void **state) {
    (void)state;
    static const char *const kinds[] = {"", "?hedge=on", "?read=replica&hedge=on", "?layout=hash&hedge=on",
                                        "?prefix={hr}"}; /* of one slot: MGETs */
    const char *given = getenv("MAD_SEED"), *ms = getenv("MAD_MS");
    const uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 1;
    unsigned n_found = 0, n_stale = 0;
    for (unsigned odds = 3; odds < 100; odds *= 5) {
        for (unsigned k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
            for (unsigned cached = 0; cached < 2; cached++) {
                mad_cluster cluster;
                work w;
                char uri[256];
                mad_cluster_start(&cluster, seed * 100 + odds + k, odds);
                snprintf(uri, sizeof uri, "%s%s", cluster.uri, kinds[k]);
                fetch_for(uri, cached, seed, ms != NULL ? (unsigned)atoi(ms) : 150, &w);
                print_message("1 in %u, %s, %s: %u fetches, %u failed, %u records, %u stale\n", odds,
                              cached ? "cached" : "plain", kinds[k], w.n_done, w.n_failed, w.n_found,
                              w.n_stale);
                n_found += w.n_found;
                n_stale += w.n_stale;
                mad_cluster_stop(&cluster);
            }
        }
    }
    assert_true(n_found > 0 && n_stale > 0); /* it is not all refused at the door */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_is_said_every_fetch_is_done_once_with_its_own_records),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
