/* The embedded store behind its cache: a hit saves the reading, a commit of any process is seen by the next
 * fetch, and a fetch sees one state of the store whatever is cached.
 *
 * The writer is another process: at each order it commits one number as the text of every record. */
#include <jansson.h>
#include <lmdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "features/store.h"

enum { ARENA_NBYTES = 1 << 20, N_ITEMS = 8 };

static const char *const ids[N_ITEMS] = {"a", "b", "c", "d", "e", "f", "g", "h"};
static char path[256];

typedef struct fixture {
    pid_t writer;
    int orders, done; /* pipes to and from the writer */
    hr_schema *schema;
    hr_store *store;
} fixture;

static void put(MDB_txn *txn, MDB_dbi dbi, const char *key, uint32_t number) {
    char text[16];
    MDB_val k = {strlen(key), (void *)(uintptr_t)key}, v = {0, text};
    v.mv_size = (size_t)snprintf(text, sizeof text, "%u", number);
    if (mdb_put(txn, dbi, &k, &v, 0) != 0) _exit(2);
}

static void run_writer(int orders, int done) {
    MDB_env *env;
    MDB_dbi dbi;
    uint32_t number;
    if (mdb_env_create(&env) != 0 || mdb_env_set_mapsize(env, (size_t)1 << 30) != 0 ||
        mdb_env_open(env, path, MDB_NOSYNC, 0666) != 0)
        _exit(1);
    while (read(orders, &number, sizeof number) == sizeof number) {
        MDB_txn *txn;
        if (mdb_txn_begin(env, NULL, 0, &txn) != 0 || mdb_dbi_open(txn, NULL, 0, &dbi) != 0) _exit(3);
        put(txn, dbi, "hr:user:u", number);
        for (int i = 0; i < N_ITEMS; i++) {
            char key[32];
            snprintf(key, sizeof key, "hr:item:%s", ids[i]);
            put(txn, dbi, key, number);
        }
        if (mdb_txn_commit(txn) != 0 || write(done, "x", 1) != 1) _exit(4);
    }
    mdb_env_close(env);
    _exit(0);
}

static void order(const fixture *f, uint32_t number) {
    assert_int_equal(write(f->orders, &number, sizeof number), sizeof number);
}

static void commit(const fixture *f, uint32_t number) {
    char byte;
    order(f, number);
    assert_int_equal(read(f->done, &byte, 1), 1);
}

static int set_up(void **state) {
    static fixture f;
    static int n;
    int orders[2], done[2];
    hr_error err = {0};
    const char *dir = getenv("TEST_TMPDIR");
    snprintf(path, sizeof path, "%s/cached-%d-%d", dir != NULL ? dir : "/tmp", (int)getpid(), n++);
    if (mkdir(path, 0777) != 0 || pipe(orders) != 0 || pipe(done) != 0) return 1;
    f.writer = fork(); /* before there is an environment here */
    if (f.writer == 0) {
        close(orders[1]);
        close(done[0]);
        run_writer(orders[0], done[1]);
    }
    close(orders[0]);
    close(done[1]);
    f.orders = orders[1];
    f.done = done[0];
    commit(&f, 1);
    json_t *tables = json_object(),
           *features =
               json_loads("[{\"name\": \"x\", \"entity\": \"user\", \"kind\": \"number\"},"
                          " {\"name\": \"y\", \"entity\": \"item\", \"kind\": \"numbers\", \"length\": 3}]",
                          0, NULL);
    hr_status status = hr_schema_create(tables, features, &f.schema, &err);
    json_decref(tables);
    json_decref(features);
    hr_store_options options = hr_store_defaults;
    char uri[300];
    snprintf(uri, sizeof uri, "lmdb:%s", path);
    options.cache_nbytes = 1 << 20;
    if (status == HR_OK) status = hr_store_open(uri, &options, &f.store, &err);
    if (status != HR_OK) fprintf(stderr, "%s\n", err.message);
    *state = &f;
    return status != HR_OK;
}

static int tear_down(void **state) {
    fixture *f = *state;
    int status;
    hr_store_close(f->store);
    hr_schema_destroy(f->schema);
    close(f->orders);
    waitpid(f->writer, &status, 0);
    close(f->done);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* What a record says; -1 where it is missing. */
static long number_of(const hr_record *record) {
    char text[16];
    if (record->kind == HR_RECORD_MISSING) return -1;
    if (record->row != NULL) return (long)record->row[0];
    snprintf(text, sizeof text, "%.*s", (int)record->nbytes, (const char *)record->data);
    return atol(text);
}

static void offer_row(const hr_fetch *fetch, const hr_record *record, hr_entity entity, const char *id) {
    const uint32_t number = (uint32_t)number_of(record), row[] = {number, number, number};
    if (record->row != NULL) return;
    hr_fetch_keep_row(
        &(hr_row_offer){.fetch = fetch, .record = record, .entity = entity, .id = id, .row = row});
}

typedef struct seen {
    long first, last; /* the least and the greatest number of a fetch */
    size_t n_rows;
    hr_status code;
} seen;

/* Fetches the user and n items from number `from` on, and encodes what came without a row. */
static seen look(const fixture *f, hr_arena *arena, int from, int n) {
    hr_arena_reset(arena);
    hr_fetch fetch = {.user_id = "u",
                      .item_ids = ids + from,
                      .n_items = (size_t)n,
                      .schema = f->schema,
                      .deadline_ns = UINT64_MAX,
                      .arena = arena};
    hr_store_fetch_wait(f->store, &fetch);
    seen s = {.code = fetch.error.code};
    s.first = s.last = number_of(&fetch.user);
    s.n_rows = fetch.user.row != NULL;
    for (int i = 0; i < n; i++) {
        const long number = number_of(&fetch.items[i]);
        if (number < s.first) s.first = number;
        if (number > s.last) s.last = number;
        s.n_rows += fetch.items[i].row != NULL;
        offer_row(&fetch, &fetch.items[i], HR_ENTITY_ITEM, fetch.item_ids[i]);
    }
    offer_row(&fetch, &fetch.user, HR_ENTITY_USER, "u");
    return s;
}

static void what_was_encoded_comes_as_rows_until_the_next_commit(void **state) {
    const fixture *f = *state;
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    for (uint32_t number = 1; number < 20; number++) {
        if (number > 1) commit(f, number);
        for (int turn = 0; turn < 2; turn++) {
            const seen s = look(f, arena, 0, 4);
            assert_int_equal(s.code, HR_OK);
            assert_int_equal(s.first, number);
            assert_int_equal(s.last, number);
            assert_int_equal(s.n_rows, turn == 0 ? 0 : 5);
        }
        const seen wider = look(f, arena, 2, 4); /* half of it cached */
        assert_int_equal(wider.first, number);
        assert_int_equal(wider.last, number);
        assert_int_equal(wider.n_rows, 3);
    }
    hr_cache_stats stats;
    assert_true(hr_store_cache_stats(f->store, &stats));
    assert_true(stats.n_hits >= 19 * 8);
    hr_arena_destroy(arena);
}

static void an_absent_record_is_cached_and_seen_when_it_appears(void **state) {
    const fixture *f = *state;
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    const char *const nobody[] = {"nobody"};
    for (int turn = 0; turn < 3; turn++) {
        hr_arena_reset(arena);
        hr_fetch fetch = {
            .item_ids = nobody, .n_items = 1, .schema = f->schema, .deadline_ns = UINT64_MAX, .arena = arena};
        hr_store_fetch_wait(f->store, &fetch);
        assert_int_equal(fetch.items[0].kind, HR_RECORD_MISSING);
        assert_true(fetch.items[0].answered);
        assert_int_equal(fetch.items[0].row != NULL, turn > 0);
        offer_row(&fetch, &fetch.items[0], HR_ENTITY_ITEM, "nobody");
    }
    hr_arena_destroy(arena);
}

static void a_passed_deadline_is_an_error_of_what_is_not_cached(void **state) {
    const fixture *f = *state;
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    look(f, arena, 0, 2);
    hr_arena_reset(arena);
    hr_fetch fetch = {
        .user_id = "u", .item_ids = ids, .n_items = 3, .schema = f->schema, .deadline_ns = 1, .arena = arena};
    hr_store_fetch_wait(f->store, &fetch);
    assert_int_equal(fetch.error.code, HR_DEADLINE_EXCEEDED);
    assert_int_equal(number_of(&fetch.items[0]), 1);
    assert_int_equal(number_of(&fetch.items[2]), -1);
    assert_false(fetch.items[2].answered);
    for (size_t cap = 16; cap < 1024; cap += 16) {
        hr_arena *small = hr_arena_create(cap);
        fetch = (hr_fetch){.user_id = "u",
                           .item_ids = ids,
                           .n_items = 3,
                           .schema = f->schema,
                           .deadline_ns = UINT64_MAX,
                           .arena = small};
        hr_store_fetch_wait(f->store, &fetch);
        assert_true(fetch.error.code == HR_OK || fetch.error.code == HR_RESOURCE_EXHAUSTED);
        if (cap == 16) assert_int_equal(fetch.error.code, HR_RESOURCE_EXHAUSTED);
        hr_arena_destroy(small);
    }
    hr_arena_destroy(arena);
}

/* --- readers while the writer writes ----------------------------------------------------------------------
 */

enum { N_READERS = 3, N_COMMITS = 3000 };

typedef struct reader {
    const fixture *f;
    atomic_bool *stop;
    size_t n_fetches, n_rows, n_torn, n_back;
} reader;

static void *read_on(void *arg) {
    reader *r = arg;
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    long newest = 0;
    while (!atomic_load(r->stop)) {
        const seen s = look(r->f, arena, (int)(r->n_fetches % 4), 1 + (int)(r->n_fetches % 5));
        r->n_torn += s.first != s.last || s.code != HR_OK;
        r->n_back += s.first < newest;
        r->n_rows += s.n_rows;
        newest = s.first;
        r->n_fetches++;
    }
    hr_arena_destroy(arena);
    return NULL;
}

static void a_fetch_sees_one_state_and_never_an_older_one(void **state) {
    const fixture *f = *state;
    atomic_bool stop = false;
    reader readers[N_READERS];
    pthread_t threads[N_READERS];
    for (int i = 0; i < N_READERS; i++) {
        readers[i] = (reader){.f = f, .stop = &stop};
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
    }
    for (uint32_t number = 2; number < N_COMMITS; number++) commit(f, number);
    atomic_store(&stop, true);
    size_t n_rows = 0;
    for (int i = 0; i < N_READERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readers[i].n_torn, 0);
        assert_int_equal(readers[i].n_back, 0);
        assert_true(readers[i].n_fetches > 0);
        n_rows += readers[i].n_rows;
    }
    assert_true(n_rows > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_encoded_comes_as_rows_until_the_next_commit, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_absent_record_is_cached_and_seen_when_it_appears, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_passed_deadline_is_an_error_of_what_is_not_cached, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_fetch_sees_one_state_and_never_an_older_one, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
