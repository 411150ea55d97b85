/* The Redis store against a real cluster: what a single server would answer, whichever node holds it, while
 * slots move and masters die. */
#include <hiredis/hiredis.h>
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
#include "tests/features/redis_cluster.h"

enum { ARENA_NBYTES = 64 << 20, N_ITEMS = 600 };
static const uint64_t second_ns = 1000000000;

static redis_cluster cluster;
static char ids[N_ITEMS][16];
static const char *items[N_ITEMS]; /* "0" ... */

static int start(void **state) {
    (void)state;
    redis_cluster_start(&cluster);
    for (unsigned i = 0; i < N_ITEMS; i++) {
        snprintf(ids[i], sizeof ids[i], "%u", i);
        items[i] = ids[i];
    }
    redis_cluster_load(&cluster, "hr:item:", N_ITEMS, 0);
    redis_cluster_load(&cluster, "hh:item:", N_ITEMS, 1);
    redis_cluster_load(&cluster, "{tag}:item:", N_ITEMS, 0);
    return 0;
}

static int stop(void **state) {
    (void)state;
    redis_cluster_stop(&cluster);
    return 0;
}

static hr_store_options patient(void) {
    hr_store_options options = hr_store_defaults;
    options.command_timeout_ms = 20000;
    options.connect_timeout_ms = 20000;
    return options;
}

static hr_store *open_store(const char *suffix, const hr_store_options *options) {
    char uri[320];
    hr_store *store;
    hr_error err = {0};
    snprintf(uri, sizeof uri, "%s%s", cluster.uri, suffix);
    if (hr_store_open(uri, options, &store, &err) != HR_OK) fail_msg("%s", err.message);
    return store;
}

static const char *const field_names[] = {"f", "absent"};
static const hr_field_list fields = {field_names, 2};

static bool is_value(const hr_record *record, unsigned i) {
    char expected[32];
    snprintf(expected, sizeof expected, "value%u", i);
    if (record->kind == HR_RECORD_FIELDS)
        return record->answered && record->fields[1].text == NULL &&
               strcmp(record->fields[0].text, expected) == 0;
    return record->kind == HR_RECORD_PACKED && record->answered && record->nbytes == strlen(expected) &&
           memcmp(record->data, expected, record->nbytes) == 0;
}

/* One fetch of all items; how many came, each with its value. */
static unsigned fetch_all(hr_store *store, hr_error *error) {
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = {.item_ids = items,
                      .n_items = N_ITEMS,
                      .fields[HR_ENTITY_ITEM] = &fields,
                      .deadline_ns = UINT64_MAX,
                      .arena = arena};
    unsigned n_found = 0;
    hr_store_fetch_wait(store, &fetch);
    for (unsigned i = 0; i < N_ITEMS; i++) {
        if (fetch.items[i].kind == HR_RECORD_MISSING) continue;
        if (!is_value(&fetch.items[i], i)) fail_msg("item %u has another value", i);
        n_found++;
    }
    if (error != NULL) *error = fetch.error;
    assert_true(n_found == N_ITEMS || fetch.error.code != HR_OK);
    hr_arena_destroy(arena);
    return n_found;
}

static void expect_all(hr_store *store) {
    hr_error error;
    unsigned n = fetch_all(store, &error);
    if (n != N_ITEMS || error.code != HR_OK) fail_msg("%u of %u found: %s", n, N_ITEMS, error.message);
}

static hr_store_counts counts_of(const hr_store *store) {
    hr_store_counts counts;
    hr_store_count(store, &counts);
    return counts;
}

/* --- all is well ---------------------------------------------------------------------------------------- */

static void records_are_found_on_whichever_node_they_are(void **state) {
    (void)state;
    const hr_store_options options = patient();
    hr_store *store = open_store("", &options);
    expect_all(store);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    const char *const some[] = {"7", "nobody", "7"};
    hr_fetch fetch = {
        .user_id = "none", .item_ids = some, .n_items = 3, .deadline_ns = UINT64_MAX, .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_OK);
    assert_int_equal(fetch.user.kind, HR_RECORD_MISSING);
    assert_true(fetch.user.answered);
    assert_true(is_value(&fetch.items[0], 7));
    assert_int_equal(fetch.items[1].kind, HR_RECORD_MISSING);
    assert_true(fetch.items[1].answered);
    assert_true(is_value(&fetch.items[2], 7));
    hr_arena_destroy(arena);
    hr_store_counts counts = counts_of(store);
    assert_int_equal(counts.maps, 1);
    assert_int_equal(counts.redirects + counts.retries, 0);
    hr_store_close(store);
}

static void hashes_are_found_too(void **state) {
    (void)state;
    const hr_store_options options = patient();
    hr_store *store = open_store("?layout=hash&prefix=hh", &options);
    expect_all(store);
    hr_store_close(store);
}

/* A hash tag in the prefix puts all records into one slot, so that one command can read them. */
static void keys_of_one_slot_are_one_command(void **state) {
    (void)state;
    const hr_store_options options = patient();
    hr_store *store = open_store("?prefix={tag}", &options);
    expect_all(store);
    hr_store_counts counts = counts_of(store);
    assert_int_equal(counts.commands, 1);
    assert_int_equal(counts.records, N_ITEMS);
    hr_store_close(store);
}

static void a_server_without_cluster_shards_is_asked_for_slots(void **state) {
    (void)state;
    const hr_store_options options = patient();
    redis_cluster_do(&cluster, "ACL SETUSER default -cluster|shards");
    hr_store *store = open_store("?read=replica", &options);
    expect_all(store);
    hr_store_close(store);
    redis_cluster_do(&cluster, "ACL SETUSER default +cluster|shards");
}

static void a_cluster_may_want_a_password(void **state) {
    (void)state;
    const hr_store_options options = patient();
    hr_store *store;
    hr_error err = {0};
    char uri[256];
    redis_cluster_do(&cluster, "ACL SETUSER ranker on >secret ~* +@all");
    redis_cluster_do(&cluster, "ACL SETUSER default -get -mget");
    snprintf(uri, sizeof uri, "redis-cluster://ranker:secret@127.0.0.1:%u", cluster.nodes[0].port);
    assert_int_equal(hr_store_open(uri, &options, &store, &err), HR_OK);
    expect_all(store);
    hr_store_close(store);
    snprintf(uri, sizeof uri, "redis-cluster://ranker:wrong@127.0.0.1:%u", cluster.nodes[0].port);
    assert_int_equal(hr_store_open(uri, &options, &store, &err), HR_OK);
    assert_int_equal(fetch_all(store, &err), 0);
    assert_int_equal(err.code, HR_UNAVAILABLE);
    assert_non_null(strstr(err.message, "AUTH refused"));
    hr_store_close(store);
    redis_cluster_do(&cluster, "ACL SETUSER default +get +mget");
    redis_cluster_do(&cluster, "ACL DELUSER ranker");
}

static void where_there_is_no_cluster_that_is_said_at_once(void **state) {
    (void)state;
    redis_server single;
    char uri[256];
    hr_store *store;
    hr_error err = {0};
    const hr_store_options options = patient();
    redis_server_start(&single, "");
    snprintf(uri, sizeof uri, "redis-cluster://127.0.0.1:%u", single.port);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(hr_store_open(uri, &options, &store, &err), HR_OK);
        uint64_t begun_ns = hr_clock_ns();
        assert_int_equal(fetch_all(store, &err), 0);
        assert_true(hr_clock_ns() - begun_ns < 5 * second_ns);
        assert_int_equal(err.code, HR_UNAVAILABLE);
        assert_non_null(strstr(err.message, i == 0 ? "cluster support disabled" : "refused"));
        hr_store_close(store);
        redis_server_kill(&single);
    }
}

/* --- slots that move ------------------------------------------------------------------------------------ */

/* A master other than this one. */
static int another_master(int than) {
    for (unsigned slot = 0; slot < REDIS_CLUSTER_SLOTS; slot += 100) {
        int master = redis_cluster_master(&cluster, slot);
        if (master >= 0 && master != than) return master;
    }
    fail_msg("there is but one master");
    return -1;
}

static void a_slot_that_has_moved_is_followed(void **state) {
    (void)state;
    const hr_store_options options = patient();
    const unsigned slot = redis_cluster_slot(&cluster, "hr:item:42");
    const int from = redis_cluster_master(&cluster, slot), to = another_master(from);
    hr_store *store = open_store("", &options);
    expect_all(store);
    redis_cluster_move_begin(&cluster, slot, from, to);
    redis_cluster_move_end(&cluster, slot, from, to);
    expect_all(store);
    assert_true(counts_of(store).redirects > 0);
    for (uint64_t end_ns = hr_clock_ns() + 20 * second_ns; counts_of(store).maps < 2;) {
        assert_true(hr_clock_ns() < end_ns);
        usleep(1000);
    }
    hr_store_close(store);
    redis_cluster_move_begin(&cluster, slot, to, from);
    redis_cluster_move_end(&cluster, slot, to, from);
}

/* Half of the slot's keys are here, half there: ASK for one key, TRYAGAIN for several. */
static void a_slot_on_its_way_is_read_from_both_ends(void **state) {
    (void)state;
    const hr_store_options options = patient();
    const unsigned slot = redis_cluster_slot(&cluster, "{tag}:item:0");
    const int from = redis_cluster_master(&cluster, slot), to = another_master(from);
    hr_store *tagged = open_store("?prefix={tag}", &options);
    expect_all(tagged);
    redis_cluster_move_begin(&cluster, slot, from, to);
    redis_cluster_move_keys(&cluster, slot, from, to, N_ITEMS / 2);
    expect_all(tagged);
    hr_store_counts counts = counts_of(tagged);
    assert_true(counts.redirects >= N_ITEMS / 2);   /* ASK */
    assert_true(counts.retries > counts.redirects); /* TRYAGAIN before */
    redis_cluster_move_end(&cluster, slot, from, to);
    expect_all(tagged);
    hr_store_close(tagged);
    redis_cluster_move_begin(&cluster, slot, to, from);
    redis_cluster_move_end(&cluster, slot, to, from);
}

/* Threads that fetch all the time; what they saw. */
enum { N_THREADS = 3 };
typedef struct load {
    hr_store *store;
    pthread_t threads[N_THREADS];
    atomic_bool stopping;
    atomic_uint n_fetches;
    pthread_mutex_t seen_lock; /* guards the rest */
    unsigned n_degraded;
    uint64_t last_degraded_ns, longest_ns;
    hr_error last_error;
} load;

static void *load_run(void *arg) {
    load *l = arg;
    while (!atomic_load(&l->stopping)) {
        hr_error error;
        const uint64_t begun_ns = hr_clock_ns();
        const bool whole = fetch_all(l->store, &error) == N_ITEMS;
        const uint64_t now_ns = hr_clock_ns();
        pthread_mutex_lock(&l->seen_lock);
        if (now_ns - begun_ns > l->longest_ns) l->longest_ns = now_ns - begun_ns;
        if (!whole) {
            l->n_degraded++;
            l->last_degraded_ns = now_ns;
            l->last_error = error;
        }
        pthread_mutex_unlock(&l->seen_lock);
        atomic_fetch_add(&l->n_fetches, 1);
    }
    return NULL;
}

static void load_start(load *l, hr_store *store) {
    memset(l, 0, sizeof *l);
    l->store = store;
    pthread_mutex_init(&l->seen_lock, NULL);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&l->threads[i], NULL, load_run, l), 0);
}

/* Waits until so many more fetches have been done. */
static void load_wait(load *l, unsigned n_more) {
    unsigned until = atomic_load(&l->n_fetches) + n_more;
    for (uint64_t end_ns = hr_clock_ns() + 60 * second_ns; atomic_load(&l->n_fetches) < until;) {
        if (hr_clock_ns() > end_ns) fail_msg("fetches stand still");
        usleep(1000);
    }
}

static void load_stop(load *l) {
    atomic_store(&l->stopping, true);
    for (int i = 0; i < N_THREADS; i++) pthread_join(l->threads[i], NULL);
    pthread_mutex_destroy(&l->seen_lock);
}

static void slots_that_move_under_load_fail_no_fetch(void **state) {
    (void)state;
    const hr_store_options options = patient();
    hr_store *store = open_store("", &options);
    load l;
    load_start(&l, store);
    load_wait(&l, 20);
    for (unsigned i = 0; i < 20; i++) {
        char key[32];
        snprintf(key, sizeof key, "hr:item:%u", i);
        const unsigned slot = redis_cluster_slot(&cluster, key);
        const int from = redis_cluster_master(&cluster, slot), to = another_master(from);
        redis_cluster_move_begin(&cluster, slot, from, to);
        load_wait(&l, 5);
        redis_cluster_move_end(&cluster, slot, from, to);
        load_wait(&l, 5);
        redis_cluster_move_begin(&cluster, slot, to, from);
        redis_cluster_move_end(&cluster, slot, to, from);
    }
    load_stop(&l);
    hr_store_counts counts = counts_of(store);
    if (l.n_degraded > 0) fail_msg("%u degraded, the last: %s", l.n_degraded, l.last_error.message);
    assert_int_equal(counts.degraded, 0);
    assert_true(counts.redirects > 0);
    hr_store_close(store);
}

/* --- nodes that fail ------------------------------------------------------------------------------------ */

static void a_failover_degrades_answers_and_ends_within_two_seconds_of_the_election(void **state) {
    (void)state;
    hr_store_options options = patient();
    options.command_timeout_ms = 2000; /* nobody waits so long: whoever is lost is known to be */
    hr_store *store = open_store("", &options);
    const int master = redis_cluster_master(&cluster, 0);
    load l;
    load_start(&l, store);
    load_wait(&l, 50);
    redis_server_kill(&cluster.nodes[master]);
    redis_cluster_wait_for_election(&cluster, 0, master);
    const uint64_t elected_ns = hr_clock_ns();
    while (hr_clock_ns() < elected_ns + 2 * second_ns + second_ns / 2) usleep(10000);
    load_wait(&l, 20);
    load_stop(&l);
    hr_store_counts counts = counts_of(store);
    print_message(
        "%u fetches, %u degraded, the last %.0f ms after the election (%s); the longest took %.0f ms\n",
        atomic_load(&l.n_fetches), l.n_degraded, ((double)l.last_degraded_ns - (double)elected_ns) / 1e6,
        l.last_error.message, (double)l.longest_ns / 1e6);
    assert_true(l.n_degraded > 0);
    assert_int_equal(counts.degraded, l.n_degraded);
    assert_true(l.last_degraded_ns < elected_ns + 2 * second_ns);
    hr_store_close(store);
    redis_cluster_restart(&cluster, master);
}

static long long n_reads(int node) {
    redisReply *reply = redis_server_ask(&cluster.nodes[node], "INFO commandstats");
    assert_true(reply != NULL && reply->type == REDIS_REPLY_STRING);
    const char *at = strstr(reply->str, "cmdstat_get:calls=");
    long long n = at != NULL ? atoll(at + strlen("cmdstat_get:calls=")) : 0;
    freeReplyObject(reply);
    return n;
}

static void replicas_are_read_where_that_is_asked_for(void **state) {
    (void)state;
    const hr_store_options options = patient();
    const int master = redis_cluster_master(&cluster, 0), replica = redis_cluster_replica(&cluster, 0);
    hr_store *store = open_store("?read=replica", &options);
    expect_all(store); /* while replicas connect masters may be asked */
    for (uint64_t end_ns = hr_clock_ns() + 20 * second_ns; counts_of(store).connects < 12;) {
        assert_true(hr_clock_ns() < end_ns);
        usleep(1000);
    }
    const long long n_master = n_reads(master), n_replica = n_reads(replica);
    for (int i = 0; i < 10; i++) expect_all(store);
    assert_int_equal(n_reads(master), n_master);
    assert_true(n_reads(replica) > n_replica);
    assert_int_equal(counts_of(store).redirects, 0);
    hr_store_close(store);
}

/* A hedge is one of a tenth of the reads at most: on a machine that stutters the last ones may have taken
 * what was allowed, hence more than one attempt. The stops are too short for a failover. */
static void a_slow_node_is_hedged_by_its_replica(void **state) {
    (void)state;
    enum { ATTEMPTS = 10 };
    hr_store_options options = patient();
    options.command_timeout_ms = 400;
    const int master = redis_cluster_master(&cluster, 0);
    hr_store *store = open_store("?hedge=on", &options);
    bool hedged = false;
    for (int k = 0; k < ATTEMPTS && !hedged; k++) {
        for (int i = 0; i < 150; i++)
            fetch_all(store, NULL); /* the usual time is known, and hedges are allowed */
        const uint64_t n_won = counts_of(store).hedges_won;
        redis_server_signal(&cluster.nodes[master], SIGSTOP);
        hedged = fetch_all(store, NULL) == N_ITEMS;
        redis_server_signal(&cluster.nodes[master], SIGCONT);
        hedged = hedged && counts_of(store).hedges_won > n_won;
    }
    assert_true(hedged);
    hr_store_counts counts = counts_of(store);
    assert_true(counts.hedges >= counts.hedges_won);
    hr_store_close(store);
}

/* --- behind the record cache ---------------------------------------------------------------------------- */

static hr_schema *make_schema(void) {
    json_t *tables = json_object();
    json_t *features = json_loads("[{\"name\": \"n\", \"entity\": \"item\", \"kind\": \"number\"}]", 0, NULL);
    hr_schema *schema;
    assert_int_equal(hr_schema_create(tables, features, &schema, NULL), HR_OK);
    json_decref(tables);
    json_decref(features);
    return schema;
}

/* What the item's value is, as a number (-1: it has none); a row of it is kept, as a worker would. */
static long cached_number(hr_store *store, const hr_schema *schema, const char *id, bool *was_cached) {
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = {
        .item_ids = &id, .n_items = 1, .schema = schema, .deadline_ns = UINT64_MAX, .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    const hr_record *record = &fetch.items[0];
    *was_cached = record->row != NULL;
    long number = *was_cached ? (long)(int32_t)record->row[0] : -1;
    if (record->kind == HR_RECORD_PACKED) number = atol((const char *)record->data);
    uint32_t row[8];
    for (int w = 0; w < 8; w++) row[w] = (uint32_t)number;
    if (!*was_cached)
        hr_fetch_keep_row(&(hr_row_offer){
            .fetch = &fetch, .record = record, .entity = HR_ENTITY_ITEM, .id = id, .row = row});
    hr_arena_destroy(arena);
    return number;
}

static void wait_until_cached(hr_store *store, const hr_schema *schema, const char *id, long number) {
    bool was_cached = false;
    for (uint64_t end_ns = hr_clock_ns() + 20 * second_ns; !was_cached;) {
        const long found = cached_number(store, schema, id, &was_cached);
        if (found != number) fail_msg("%s is %ld", id, found);
        if (hr_clock_ns() > end_ns) fail_msg("%s is not cached", id);
    }
}

/* Sets the item's value where its key is now; the ms until that is seen. */
static double ms_to_see(hr_store *store, const hr_schema *schema, const char *id, long number) {
    char key[64];
    bool was_cached;
    snprintf(key, sizeof key, "hr:item:%s", id);
    redis_server_do(&cluster.nodes[redis_cluster_master(&cluster, redis_cluster_slot(&cluster, key))],
                    "SET %s %ld", key, number);
    const uint64_t begun_ns = hr_clock_ns();
    while (cached_number(store, schema, id, &was_cached) != number)
        if (hr_clock_ns() - begun_ns > 20 * second_ns) fail_msg("%s is not seen to change", id);
    return (double)(hr_clock_ns() - begun_ns) / 1e6;
}

static void move_slot(const char *id, bool back) {
    static int home;
    char key[64];
    snprintf(key, sizeof key, "hr:item:%s", id);
    const unsigned slot = redis_cluster_slot(&cluster, key);
    const int from = redis_cluster_master(&cluster, slot), to = back ? home : another_master(from);
    home = from;
    redis_cluster_move_begin(&cluster, slot, from, to);
    redis_cluster_move_end(&cluster, slot, from, to);
}

static uint64_t n_losses(const hr_store *store) {
    hr_cache_stats stats;
    assert_true(hr_store_cache_stats(store, &stats));
    return stats.n_losses;
}

/* A node tells of its own keys alone: what was read from it of a slot that it has lost is doubtful then, in
 * case it went to a node that does not tell yet. Nothing else is told of a record that was not there. */
static void cached_records_change_with_their_keys_wherever_these_go(void **state) {
    (void)state;
    hr_schema *schema = make_schema();
    hr_store_options options = patient();
    options.cache_nbytes = 4 << 20;
    hr_store *store = open_store("", &options);
    bool was_cached;
    assert_int_equal(cached_number(store, schema, "moving", &was_cached), -1);
    ms_to_see(store, schema, "moving", 1);
    wait_until_cached(store, schema, "moving", 1);
    wait_until_cached(store, schema, "nothing", -1);
    double changed_ms = ms_to_see(store, schema, "moving", 2);
    wait_until_cached(store, schema, "moving", 2);
    move_slot("moving", false);
    double moved_ms = ms_to_see(store, schema, "moving", 3);
    wait_until_cached(store, schema, "moving", 3);
    move_slot("moving", true);
    const uint64_t n_before = n_losses(store);
    move_slot("nothing", false);
    for (uint64_t end_ns = hr_clock_ns() + 20 * second_ns; n_losses(store) == n_before;) {
        assert_true(hr_clock_ns() < end_ns);
        usleep(1000);
    }
    double absent_ms = ms_to_see(store, schema, "nothing", 4);
    move_slot("nothing", true);
    print_message("a change is seen after %.1f ms, in a slot that has moved after %.1f ms, of a record that "
                  "was not there "
                  "after %.1f ms\n",
                  changed_ms, moved_ms, absent_ms);
    assert_true(changed_ms < 5000 && moved_ms < 5000 && absent_ms < 5000); /* a busy machine's */
    hr_store_close(store);
    hr_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_found_on_whichever_node_they_are),
        cmocka_unit_test(hashes_are_found_too),
        cmocka_unit_test(keys_of_one_slot_are_one_command),
        cmocka_unit_test(a_server_without_cluster_shards_is_asked_for_slots),
        cmocka_unit_test(a_cluster_may_want_a_password),
        cmocka_unit_test(where_there_is_no_cluster_that_is_said_at_once),
        cmocka_unit_test(a_slot_that_has_moved_is_followed),
        cmocka_unit_test(a_slot_on_its_way_is_read_from_both_ends),
        cmocka_unit_test(slots_that_move_under_load_fail_no_fetch),
        cmocka_unit_test(replicas_are_read_where_that_is_asked_for),
        cmocka_unit_test(a_slow_node_is_hedged_by_its_replica),
        cmocka_unit_test(cached_records_change_with_their_keys_wherever_these_go),
        cmocka_unit_test(a_failover_degrades_answers_and_ends_within_two_seconds_of_the_election),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
