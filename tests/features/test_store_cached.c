/* The Redis store behind its cache, against a real redis-server: what is cached costs no read, what changed
 * is seen, one read serves all who wait, and what Redis cannot say is stood in for, in the order that
 * docs/features.md gives.
 *
 * Records are numbers as text; a row of a record repeats its number. */
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
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
#include "tests/features/redis_server.h"
#include "tests/features/tcp_proxy.h"

enum { ARENA_NBYTES = 16 << 20, PATIENT_MS = 20000, MAX_IDS = 64 };
static const uint64_t ms_ns = 1000000;

static hr_schema *schema;

static int make_schema(void **state) {
    (void)state;
    static const char features[] =
        "[{\"name\": \"age\", \"entity\": \"user\", \"kind\": \"number\"},"
        " {\"name\": \"price\", \"entity\": \"item\", \"kind\": \"number\"},"
        " {\"name\": \"vision\", \"entity\": \"item\", \"kind\": \"numbers\", \"length\": 5}]";
    json_t *tables_json = json_object(), *features_json = json_loads(features, 0, NULL);
    hr_status status = hr_schema_create(tables_json, features_json, &schema, NULL);
    json_decref(tables_json);
    json_decref(features_json);
    return status != HR_OK;
}

static int drop_schema(void **state) {
    (void)state;
    hr_schema_destroy(schema);
    return 0;
}

/* --- a store, and fetches from it ------------------------------------------------------------------------
 */

static hr_store_options cached(void) {
    hr_store_options options = hr_store_defaults;
    options.command_timeout_ms = PATIENT_MS;
    options.connect_timeout_ms = PATIENT_MS;
    options.cache_nbytes = 4 << 20;
    options.cache_heartbeat_ms = PATIENT_MS;
    return options;
}

static hr_store *open_at(uint16_t port, const char *suffix, const hr_store_options *options) {
    char uri[128];
    hr_store *store;
    hr_error err = {0};
    snprintf(uri, sizeof uri, "redis://127.0.0.1:%u%s", port, suffix);
    if (hr_store_open(uri, options, &store, &err) != HR_OK) fail_msg("%s", err.message);
    return store;
}

typedef struct asked {
    hr_fetch fetch;
    atomic_int n_done;
    const char *ids[MAX_IDS];
} asked;

static void count_done(hr_fetch *fetch) {
    atomic_fetch_add(&((asked *)fetch->arg)->n_done, 1);
}

static const char *const price_names[] = {"price", "vision"}, *const age_names[] = {"age"};
static const hr_field_list age_fields = {age_names, 1}, price_fields = {price_names, 2};

/* user: NULL for none; items: separated by blanks, lives on. */
static asked *ask(hr_store *store, const char *user, char *items, uint64_t deadline_ns) {
    asked *a = calloc(1, sizeof *a);
    a->fetch = (hr_fetch){.user_id = user,
                          .item_ids = a->ids,
                          .fields = {&age_fields, &price_fields},
                          .schema = schema,
                          .deadline_ns = deadline_ns,
                          .arena = hr_arena_create(ARENA_NBYTES),
                          .done = count_done,
                          .arg = a};
    char *rest = NULL;
    for (char *id = strtok_r(items, " ", &rest); id != NULL; id = strtok_r(NULL, " ", &rest))
        a->ids[a->fetch.n_items++] = id;
    hr_store_fetch(store, &a->fetch);
    return a;
}

static void wait_done(asked *a) {
    const uint64_t end_ns = hr_clock_ns() + 30000 * ms_ns;
    while (atomic_load(&a->n_done) == 0) {
        if (hr_clock_ns() > end_ns) fail_msg("a fetch is not done");
        usleep(100);
    }
}

static void drop(asked *a) {
    assert_int_equal(atomic_load(&a->n_done), 1);
    hr_arena_destroy(a->fetch.arena);
    free(a);
}

/* What a record says: its number, -1 where it is missing. */
static long number_of(const hr_record *record) {
    if (record->kind == HR_RECORD_MISSING) return -1;
    if (record->row != NULL) return (long)record->row[0];
    if (record->kind == HR_RECORD_FIELDS) return atol(record->fields[0].text);
    char text[16];
    snprintf(text, sizeof text, "%.*s", (int)record->nbytes, (const char *)record->data);
    return atol(text);
}

/* Encodes what came without a row, as a worker would. */
static void offer_rows(const asked *a) {
    const hr_fetch *fetch = &a->fetch;
    for (size_t i = 0; i <= fetch->n_items; i++) {
        const hr_record *record = i == 0 ? &fetch->user : &fetch->items[i - 1];
        if ((i == 0 && fetch->user_id == NULL) || record->row != NULL) continue;
        uint32_t row[16];
        for (int w = 0; w < 16; w++) row[w] = (uint32_t)number_of(record);
        hr_fetch_keep_row(&(hr_row_offer){.fetch = fetch,
                                          .record = record,
                                          .entity = i == 0 ? HR_ENTITY_USER : HR_ENTITY_ITEM,
                                          .id = i == 0 ? fetch->user_id : fetch->item_ids[i - 1],
                                          .row = row});
    }
}

/* Fetches one item; its number, and whether it came as a row. */
static long item_number(hr_store *store, const char *id, bool *was_row) {
    char ids[32];
    snprintf(ids, sizeof ids, "%s", id);
    asked *a = ask(store, NULL, ids, UINT64_MAX);
    wait_done(a);
    offer_rows(a);
    const long number = number_of(&a->fetch.items[0]);
    if (was_row != NULL) *was_row = a->fetch.items[0].row != NULL;
    drop(a);
    return number;
}

static hr_cache_stats stats_of(hr_store *store) {
    hr_cache_stats stats;
    assert_true(hr_store_cache_stats(store, &stats));
    return stats;
}

/* Until records are cached, which begins when Redis has been asked to tell of changes. */
static void wait_until_cached(hr_store *store, const char *id) {
    const uint64_t end_ns = hr_clock_ns() + 30000 * ms_ns;
    bool was_row = false;
    while (!was_row) {
        item_number(store, id, &was_row);
        if (hr_clock_ns() > end_ns) fail_msg("%s is not cached", id);
    }
}

/* The time until the item has the number, in ms; fails after 20 s. */
static uint64_t ms_until(hr_store *store, const char *id, long number) {
    const uint64_t begun_ns = hr_clock_ns();
    while (item_number(store, id, NULL) != number)
        if (hr_clock_ns() - begun_ns > PATIENT_MS * ms_ns) fail_msg("%s is not %ld", id, number);
    return (hr_clock_ns() - begun_ns) / ms_ns;
}

static uint64_t keys_read(const redis_server *server) {
    return redis_server_number(server, "keyspace_hits") + redis_server_number(server, "keyspace_misses");
}

/* --- what is cached ---------------------------------------------------------------------------------------
 */

static void what_was_fetched_is_not_read_again(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "MSET hr:item:a 1 hr:item:b 2 hr:user:u 3");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "a");
    for (int round = 0; round < 3; round++) {
        const uint64_t before = keys_read(&server);
        char items[] = "a b nobody a";
        asked *a = ask(store, "u", items, UINT64_MAX);
        wait_done(a);
        offer_rows(a);
        assert_int_equal(a->fetch.error.code, HR_OK);
        static const long numbers[] = {1, 2, -1, 1};
        for (int i = 0; i < 4; i++) {
            const hr_record *record = &a->fetch.items[i];
            assert_int_equal(number_of(record), numbers[i]);
            assert_true(record->answered && !record->stale);
            if (round < 2) continue; /* first it came from Redis; then as it had come */
            assert_ptr_equal(record->row, a->fetch.rows[HR_ENTITY_ITEM] + 6 * i);
            for (int w = 0; w < 6; w++) assert_int_equal(record->row[w], (uint32_t)numbers[i]);
        }
        assert_int_equal(number_of(&a->fetch.user), 3);
        assert_int_equal(keys_read(&server) - before, round == 0 ? 3 : 0);
        drop(a);
    }
    const hr_cache_stats stats = stats_of(store);
    assert_int_equal(stats.n_entries, 4);
    assert_true(stats.n_negative_hits >= 1 && stats.n_hits > stats.n_negative_hits);
    assert_int_equal(stats.n_joins, 0);
    hr_store_close(store);
    redis_server_kill(&server);
}

static void a_fetch_without_a_schema_goes_past_the_cache(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:item:a 1");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "a");
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    const char *const ids[] = {"a"};
    hr_fetch fetch = {.item_ids = ids, .n_items = 1, .deadline_ns = UINT64_MAX, .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_PACKED);
    assert_null(fetch.rows[HR_ENTITY_ITEM]);
    assert_null(fetch.keeper);
    hr_arena_destroy(arena);
    hr_store_close(store);
    redis_server_kill(&server);
}

static void hashes_are_cached_too(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "HSET hr:item:a price 5 vision 1,2");
    redis_server_do(&server, "SET hr:item:text text");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "?layout=hash", &options);
    wait_until_cached(store, "a");
    assert_int_equal(item_number(store, "a", NULL), 5);
    redis_server_do(&server, "HSET hr:item:a price 6");
    assert_in_range(ms_until(store, "a", 6), 0, PATIENT_MS);
    wait_until_cached(store, "text");
    char items[] = "text";
    asked *a = ask(store, NULL, items, UINT64_MAX);
    wait_done(a);
    assert_int_equal(a->fetch.items[0].kind, HR_RECORD_MISSING);
    assert_true(a->fetch.items[0].invalid);
    drop(a);
    hr_store_close(store);
    redis_server_kill(&server);
}

static void nothing_is_cached_where_redis_does_not_tell_of_changes(void **state) {
    (void)state;
    redis_server server;
    redis_server_start_without(&server, "CLIENT");
    redis_server_do(&server, "SET hr:item:a 1");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    for (int i = 0; i < 20; i++) {
        bool was_row;
        assert_int_equal(item_number(store, "a", &was_row), 1);
        assert_false(was_row);
    }
    assert_int_equal(keys_read(&server), 20);
    assert_int_equal(stats_of(store).n_entries, 0);
    hr_store_close(store);
    redis_server_kill(&server);
}

/* --- what changes -----------------------------------------------------------------------------------------
 */

static void a_change_is_seen_within_100_ms(void **state) {
    (void)state;
    enum { N = 40 };
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:item:a 0");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    unsigned n_slow = 0;
    for (long n = 1; n <= N; n++) {
        wait_until_cached(store, "a");
        redis_server_do(&server, "SET hr:item:a %d", (int)n);
        n_slow += ms_until(store, "a", n) > 100;
    }
    assert_in_range(n_slow, 0, 2); /* of a busy machine */
    wait_until_cached(store, "a");
    redis_server_do(&server, "DEL hr:item:a");
    ms_until(store, "a", -1);
    wait_until_cached(store, "a"); /* that it is absent */
    redis_server_do(&server, "SET hr:item:a 7 PX 1");
    ms_until(store, "a", -1); /* and it has expired */
    redis_server_do(&server, "SET hr:item:a 8");
    ms_until(store, "a", 8);
    wait_until_cached(store, "a");
    redis_server_do(&server, "FLUSHALL");
    ms_until(store, "a", -1);
    assert_true(stats_of(store).n_invalidations >= N);
    hr_store_close(store);
    redis_server_kill(&server);
}

static void a_change_is_seen_though_the_connection_that_tells_was_killed(void **state) {
    (void)state;
    enum { N = 10 };
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:item:a 0");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    unsigned n_slow = 0;
    for (long n = 1; n <= N; n++) {
        wait_until_cached(store, "a");
        redis_server_do(&server, "CLIENT KILL TYPE pubsub");
        redis_server_do(&server, "SET hr:item:a %d", (int)n);
        n_slow += ms_until(store, "a", n) > 100;
    }
    assert_in_range(n_slow, 0, 1);
    assert_true(stats_of(store).n_losses >= N);
    hr_store_close(store);
    redis_server_kill(&server);
}

static void a_change_is_seen_within_the_heartbeat_of_a_black_hole(void **state) {
    (void)state;
    enum { HEARTBEAT_MS = 300 };
    redis_server server;
    tcp_proxy proxy;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:item:a 0");
    tcp_proxy_start(&proxy, server.port);
    hr_store_options options = cached();
    options.cache_heartbeat_ms = HEARTBEAT_MS;
    hr_store *store = open_at(proxy.port, "", &options);
    wait_until_cached(store, "a");
    tcp_proxy_hold(&proxy, TCP_PROXY_SUBSCRIBERS);
    usleep(5000); /* the proxy looks every millisecond */
    redis_server_do(&server, "SET hr:item:a 1");
    assert_in_range(ms_until(store, "a", 1), 0, HEARTBEAT_MS + 100);
    for (int n = 2; n < 5; n++) { /* nothing is cached until somebody tells of changes again */
        redis_server_do(&server, "SET hr:item:a %d", n);
        assert_int_equal(item_number(store, "a", NULL), n);
    }
    tcp_proxy_hold(&proxy, TCP_PROXY_NOTHING);
    wait_until_cached(store, "a");
    assert_int_equal(item_number(store, "a", NULL), 4);
    hr_store_close(store);
    tcp_proxy_stop(&proxy);
    redis_server_kill(&server);
}

/* Readers while a writer counts up: an answer that was under way while its record changed must not be kept.
 */
typedef struct readers {
    hr_store *store;
    atomic_bool stop;
} readers;

static void *read_often(void *arg) {
    readers *r = arg;
    while (!atomic_load(&r->stop)) item_number(r->store, "a", NULL);
    return NULL;
}

static void an_answer_older_than_a_change_is_not_kept(void **state) {
    (void)state;
    enum { N_READERS = 3, N_ROUNDS = 40, N_BURST = 10 };
    redis_server server;
    redis_server_start(&server, "");
    const hr_store_options options = cached();
    readers r = {.store = open_at(server.port, "", &options)};
    pthread_t threads[N_READERS];
    wait_until_cached(r.store, "a");
    for (int i = 0; i < N_READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_often, &r), 0);
    int n = 0;
    for (int round = 0; round < N_ROUNDS; round++) {
        for (int i = 0; i < N_BURST; i++) redis_server_do(&server, "SET hr:item:a %d", ++n);
        ms_until(r.store, "a", n);
        for (int i = 0; i < 20; i++) /* and never an older one again */
            assert_int_equal(item_number(r.store, "a", NULL), n);
    }
    atomic_store(&r.stop, true);
    for (int i = 0; i < N_READERS; i++) pthread_join(threads[i], NULL);
    hr_store_close(r.store);
    redis_server_kill(&server);
}

/* --- many who want the same -------------------------------------------------------------------------------
 */

static void a_record_that_many_want_is_read_once(void **state) {
    (void)state;
    enum { N = 50 };
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "MSET hr:item:warm 1 hr:item:hot 42 hr:item:b 2");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "warm");
    const uint64_t before = keys_read(&server);
    redis_server_signal(&server, SIGSTOP); /* so that all come before the answer */
    asked *all[N];
    char items[N][32];
    for (int i = 0; i < N; i++) {
        snprintf(items[i], sizeof items[i], "warm hot%s", i == N - 1 ? " b hot" : "");
        all[i] = ask(store, NULL, items[i], UINT64_MAX);
        assert_int_equal(atomic_load(&all[i]->n_done), 0);
    }
    redis_server_signal(&server, SIGCONT);
    for (int i = 0; i < N; i++) {
        wait_done(all[i]);
        assert_int_equal(all[i]->fetch.error.code, HR_OK);
        assert_int_equal(number_of(&all[i]->fetch.items[0]), 1);
        assert_int_equal(number_of(&all[i]->fetch.items[1]), 42);
    }
    assert_int_equal(number_of(&all[N - 1]->fetch.items[2]), 2);
    assert_int_equal(number_of(&all[N - 1]->fetch.items[3]), 42);
    for (int i = 0; i < N; i++) drop(all[i]);
    assert_int_equal(keys_read(&server) - before, 2);
    assert_int_equal(stats_of(store).n_joins, N); /* all but the first, and the last one's second time */
    hr_store_close(store);
    redis_server_kill(&server);
}

static void who_waits_with_others_keeps_their_own_deadline(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "MSET hr:item:warm 1 hr:item:a 5 hr:item:b 6");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "warm");
    redis_server_signal(&server, SIGSTOP);
    char one[] = "warm a", two[] = "a b", three[] = "b";
    const uint64_t soon_ns = hr_clock_ns() + 60 * ms_ns;
    asked *leads = ask(store, NULL, one, soon_ns);     /* a */
    asked *joins = ask(store, NULL, two, UINT64_MAX);  /* a; leads b */
    asked *follows = ask(store, NULL, three, soon_ns); /* b */
    wait_done(leads);
    wait_done(follows);
    assert_true(hr_clock_ns() >= soon_ns);
    assert_int_equal(atomic_load(&joins->n_done), 0);
    assert_int_equal(leads->fetch.error.code, HR_DEADLINE_EXCEEDED);
    assert_int_equal(follows->fetch.error.code, HR_DEADLINE_EXCEEDED);
    assert_int_equal(number_of(&leads->fetch.items[0]), 1); /* what was there stays */
    assert_int_equal(number_of(&leads->fetch.items[1]), -1);
    assert_false(leads->fetch.items[1].answered);
    drop(leads); /* whoever writes to it now writes to freed memory */
    drop(follows);
    redis_server_signal(&server, SIGCONT);
    wait_done(joins);
    assert_int_equal(joins->fetch.error.code, HR_OK);
    assert_int_equal(number_of(&joins->fetch.items[0]), 5);
    assert_int_equal(number_of(&joins->fetch.items[1]), 6);
    drop(joins);
    hr_store_close(store);
    redis_server_kill(&server);
}

static void an_answer_that_comes_too_late_fills_the_cache(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "MSET hr:item:warm 1 hr:item:a 5");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "warm");
    redis_server_signal(&server, SIGSTOP);
    char items[] = "a";
    asked *a = ask(store, NULL, items, hr_clock_ns() + 30 * ms_ns);
    wait_done(a);
    assert_int_equal(a->fetch.error.code, HR_DEADLINE_EXCEEDED);
    drop(a);
    redis_server_signal(&server, SIGCONT);
    const uint64_t end_ns = hr_clock_ns() + PATIENT_MS * ms_ns;
    while (stats_of(store).n_entries < 2)
        if (hr_clock_ns() > end_ns) fail_msg("it did not");
    const uint64_t before = keys_read(&server);
    assert_int_equal(item_number(store, "a", NULL), 5);
    assert_int_equal(keys_read(&server), before);
    hr_store_close(store);
    redis_server_kill(&server);
}

static void who_comes_after_a_change_does_not_wait_for_an_answer_from_before(void **state) {
    (void)state;
    redis_server server;
    tcp_proxy proxy;
    redis_server_start(&server, "");
    redis_server_do(&server, "MSET hr:item:warm 1 hr:item:a 1");
    tcp_proxy_start(&proxy, server.port);
    const hr_store_options options = cached();
    hr_store *store = open_at(proxy.port, "", &options);
    wait_until_cached(store, "warm");
    tcp_proxy_hold(&proxy, TCP_PROXY_ANSWERS);
    usleep(5000); /* the proxy looks every millisecond */
    const uint64_t n_read = keys_read(&server), n_changes = stats_of(store).n_invalidations;
    char one[] = "a", two[] = "a", three[] = "a";
    asked *before = ask(store, NULL, one, UINT64_MAX);
    while (keys_read(&server) == n_read) usleep(100); /* read, and the answer is on its way */
    asked *with_it = ask(store, NULL, two, UINT64_MAX);
    redis_server_do(&server, "SET hr:item:a 2");
    redis_server_do(&server, "SET hr:item:warm 2"); /* told of after that */
    while (stats_of(store).n_invalidations == n_changes) usleep(100);
    asked *after = ask(store, NULL, three, UINT64_MAX);
    assert_int_equal(stats_of(store).n_joins, 1);
    tcp_proxy_hold(&proxy, TCP_PROXY_NOTHING);
    wait_done(before);
    wait_done(with_it);
    wait_done(after);
    assert_int_equal(number_of(&before->fetch.items[0]), 1); /* it was so when they asked */
    assert_int_equal(number_of(&with_it->fetch.items[0]), 1);
    assert_int_equal(number_of(&after->fetch.items[0]), 2);
    assert_int_equal(item_number(store, "a", NULL), 2);
    drop(before);
    drop(with_it);
    drop(after);
    hr_store_close(store);
    tcp_proxy_stop(&proxy);
    redis_server_kill(&server);
}

enum { N_RACERS = 4, N_RACED = 3000 };

static void *race(void *arg) {
    for (int i = 0; i < N_RACED; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        item_number(arg, id, NULL);
    }
    return NULL;
}

static void however_they_race_a_record_is_read_once(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    pthread_t threads[N_RACERS];
    wait_until_cached(store, "warm");
    const uint64_t before = keys_read(&server);
    for (int i = 0; i < N_RACERS; i++) assert_int_equal(pthread_create(&threads[i], NULL, race, store), 0);
    for (int i = 0; i < N_RACERS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(keys_read(&server) - before, N_RACED);
    hr_store_close(store);
    redis_server_kill(&server);
}

/* --- what Redis cannot say --------------------------------------------------------------------------------
 */

static void stale_records_stand_in_and_then_nothing_does(void **state) {
    (void)state;
    enum { MAX_STALE_MS = 700 };
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "MSET hr:item:a 1 hr:user:u 3");
    hr_store_options options = cached();
    options.cache_max_stale_ms = MAX_STALE_MS;
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "a");
    char first[] = "a b";
    asked *a = ask(store, "u", first, UINT64_MAX);
    wait_done(a);
    offer_rows(a);
    drop(a);
    const uint64_t begun_ns = hr_clock_ns();
    redis_server_kill(&server);
    bool stale = false;
    while (!stale) { /* until its end has been heard of, they are fresh */
        char items[] = "a b new";
        a = ask(store, "u", items, UINT64_MAX);
        wait_done(a);
        const hr_record *records = a->fetch.items;
        assert_int_equal(a->fetch.error.code, HR_UNAVAILABLE);
        assert_false(records[2].answered); /* never seen: nothing stands in */
        assert_int_equal(number_of(&records[2]), -1);
        assert_int_equal(number_of(&records[0]), 1);
        assert_int_equal(number_of(&a->fetch.user), 3);
        assert_int_equal(number_of(&records[1]), -1);
        stale = records[0].stale;
        assert_int_equal(records[0].answered, !stale);
        if (stale) assert_true(a->fetch.user.stale && records[1].stale); /* its absence too */
        drop(a);
    }
    assert_true(stats_of(store).n_stale >= 3);
    while (item_number(store, "a", NULL) == 1) /* and after their time nothing does */
        if (hr_clock_ns() - begun_ns > PATIENT_MS * ms_ns) fail_msg("stale for ever");
    assert_true(hr_clock_ns() - begun_ns > (MAX_STALE_MS - 100) * ms_ns);
    redis_server_restart(&server);
    redis_server_do(&server, "SET hr:item:a 2");
    ms_until(store, "a", 2);
    wait_until_cached(store, "a");
    hr_store_close(store);
    redis_server_kill(&server);
}

static void all_who_wait_for_a_read_that_fails_hear_of_it(void **state) {
    (void)state;
    enum { N = 20 };
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "MSET hr:item:a 1 hr:item:b 2");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "a");
    redis_server_signal(&server, SIGSTOP);
    asked *all[N];
    char items[N][8];
    for (int i = 0; i < N; i++) {
        strcpy(items[i], "b a");
        all[i] = ask(store, NULL, items[i], UINT64_MAX);
    }
    redis_server_kill(&server);
    for (int i = 0; i < N; i++) {
        wait_done(all[i]);
        assert_int_equal(all[i]->fetch.error.code, HR_UNAVAILABLE);
        assert_int_equal(number_of(&all[i]->fetch.items[0]), -1);
        assert_int_equal(number_of(&all[i]->fetch.items[1]), 1);
        drop(all[i]);
    }
    hr_store_close(store);
}

static void closing_finishes_all_who_wait(void **state) {
    (void)state;
    enum { N = 50 };
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:item:a 1");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "a");
    redis_server_signal(&server, SIGSTOP);
    asked *all[N];
    char items[N][16];
    for (int i = 0; i < N; i++) {
        snprintf(items[i], sizeof items[i], "a %d", i % 7);
        all[i] = ask(store, "u", items[i], i % 2 ? UINT64_MAX : hr_clock_ns() + 3600000 * ms_ns);
    }
    hr_store_close(store);
    for (int i = 0; i < N; i++) drop(all[i]);
    redis_server_kill(&server);
}

static void a_call_without_the_memory_for_its_rows_is_told_so(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:item:a 1");
    const hr_store_options options = cached();
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "a");
    const char *const ids[] = {"a", "b"};
    for (size_t cap = 16; cap < 1024; cap += 16) {
        hr_arena *arena = hr_arena_create(cap);
        hr_fetch fetch = {
            .item_ids = ids, .n_items = 2, .schema = schema, .deadline_ns = UINT64_MAX, .arena = arena};
        hr_store_fetch_wait(store, &fetch);
        assert_true(fetch.error.code == HR_OK || fetch.error.code == HR_RESOURCE_EXHAUSTED);
        if (cap == 16) assert_int_equal(fetch.error.code, HR_RESOURCE_EXHAUSTED);
        hr_arena_destroy(arena);
    }
    hr_store_close(store);
    redis_server_kill(&server);
}

/* --- many threads ------------------------------------------------------------------------------------------
 */

enum { N_THREADS = 4, N_FETCHES = 400, N_RECORDS = 300 };

static void *fetch_often(void *arg) {
    hr_store *store = arg;
    size_t n_wrong = 0;
    uint32_t random = (uint32_t)hr_clock_ns();
    for (int k = 0; k < N_FETCHES; k++) {
        char items[400] = "";
        long expected[40];
        int n = 0;
        for (size_t at = 0; n < 40; n++) {
            random = random * 1664525 + 1013904223;
            expected[n] = (long)(random >> 8) % N_RECORDS;
            at += (size_t)snprintf(items + at, sizeof items - at, "%ld ", expected[n]);
        }
        asked *a = ask(store, NULL, items, k % 8 ? UINT64_MAX : hr_clock_ns() + random % 1000000);
        wait_done(a);
        for (int i = 0; i < n; i++) {
            const hr_record *record = &a->fetch.items[i];
            n_wrong += number_of(record) != expected[i] && record->answered;
        }
        offer_rows(a);
        drop(a);
    }
    return (void *)n_wrong;
}

static void *change_often(void *arg) {
    const redis_server *server = arg;
    for (int i = 0; i < 300; i++) redis_server_do(server, "SET hr:item:%d %d", i % N_RECORDS, i % N_RECORDS);
    return NULL;
}

static void threads_get_their_own_records(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "EVAL %s 0", "for i = 0, 299 do redis.call('SET', 'hr:item:' .. i, i) end");
    hr_store_options options = cached();
    options.cache_nbytes = 1 << 20;
    hr_store *store = open_at(server.port, "", &options);
    wait_until_cached(store, "0");
    pthread_t threads[N_THREADS], changes;
    assert_int_equal(pthread_create(&changes, NULL, change_often, &server), 0);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fetch_often, store), 0);
    for (int i = 0; i < N_THREADS; i++) {
        void *n_wrong;
        pthread_join(threads[i], &n_wrong);
        assert_int_equal((size_t)n_wrong, 0);
    }
    pthread_join(changes, NULL);
    hr_store_close(store);
    redis_server_kill(&server);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_fetched_is_not_read_again),
        cmocka_unit_test(a_fetch_without_a_schema_goes_past_the_cache),
        cmocka_unit_test(hashes_are_cached_too),
        cmocka_unit_test(nothing_is_cached_where_redis_does_not_tell_of_changes),
        cmocka_unit_test(a_change_is_seen_within_100_ms),
        cmocka_unit_test(a_change_is_seen_though_the_connection_that_tells_was_killed),
        cmocka_unit_test(a_change_is_seen_within_the_heartbeat_of_a_black_hole),
        cmocka_unit_test(an_answer_older_than_a_change_is_not_kept),
        cmocka_unit_test(a_record_that_many_want_is_read_once),
        cmocka_unit_test(who_waits_with_others_keeps_their_own_deadline),
        cmocka_unit_test(who_comes_after_a_change_does_not_wait_for_an_answer_from_before),
        cmocka_unit_test(however_they_race_a_record_is_read_once),
        cmocka_unit_test(an_answer_that_comes_too_late_fills_the_cache),
        cmocka_unit_test(stale_records_stand_in_and_then_nothing_does),
        cmocka_unit_test(all_who_wait_for_a_read_that_fails_hear_of_it),
        cmocka_unit_test(closing_finishes_all_who_wait),
        cmocka_unit_test(a_call_without_the_memory_for_its_rows_is_told_so),
        cmocka_unit_test(threads_get_their_own_records),
    };
    return cmocka_run_group_tests(tests, make_schema, drop_schema);
}
