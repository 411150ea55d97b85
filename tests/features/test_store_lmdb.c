/* The embedded store: what was committed is found, by many threads, also while another process writes. */
#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "features/store.h"

enum { ARENA_NBYTES = 64 << 20 };

static char path[256], uri[300];

/* A fresh folder for each test, not yet made. */
static int fresh(void **state) {
    (void)state;
    static int n;
    const char *dir = getenv("TEST_TMPDIR");
    snprintf(path, sizeof path, "%s/lmdb-%d-%d", dir != NULL ? dir : "/tmp", (int)getpid(), n++);
    snprintf(uri, sizeof uri, "lmdb:%s", path);
    return 0;
}

/* Writes records item:i<first> ... with values of nbytes, by LMDB itself, in a map large enough. */
static void write_records(size_t first, size_t n, size_t nbytes) {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    char *value = malloc(nbytes + 1);
    if (mkdir(path, 0777) != 0) assert_int_equal(errno, EEXIST);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_mapsize(env, (size_t)1 << 30), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSYNC, 0666), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    for (size_t i = first; i < first + n; i++) {
        char key[64];
        MDB_val k = {(size_t)snprintf(key, sizeof key, "hr:item:i%zu", i), key};
        memset(value, 'a' + (int)(i % 26), nbytes);
        MDB_val v = {nbytes, value};
        assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    }
    MDB_val k = {9, "hr:user:u"}, v = {4, "user"};
    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    free(value);
}

static hr_store *open_store(void) {
    hr_store *store;
    hr_error err = {0};
    if (hr_store_open(uri, &hr_store_defaults, &store, &err) != HR_OK) fail_msg("%s", err.message);
    assert_true(hr_store_is_synchronous(store));
    return store;
}

static bool is_item(const hr_record *record, size_t i, size_t nbytes) {
    bool same = record->kind == HR_RECORD_PACKED && record->nbytes == nbytes;
    for (size_t k = 0; k < nbytes && same; k++) same = record->data[k] == 'a' + i % 26;
    return same;
}

static bool find_item(hr_store *store, hr_arena *arena, size_t i, size_t nbytes) {
    char text[32];
    const char *item = text;
    snprintf(text, sizeof text, "i%zu", i);
    hr_fetch fetch = {.item_ids = &item, .n_items = 1, .deadline_ns = UINT64_MAX, .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    assert_string_equal(fetch.error.message, "");
    return is_item(&fetch.items[0], i, nbytes);
}

static void records_that_are_there_are_found(void **state) {
    (void)state;
    write_records(0, 100, 50);
    hr_store *store = open_store();
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    char huge[2000];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    const char *const items[] = {"i7", "nobody", "i99", "i7", huge};
    hr_fetch fetch = {
        .user_id = "u", .item_ids = items, .n_items = 5, .deadline_ns = UINT64_MAX, .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    assert_string_equal(fetch.error.message, "");
    assert_int_equal(fetch.user.kind, HR_RECORD_PACKED);
    assert_memory_equal(fetch.user.data, "user", 4);
    assert_true(is_item(&fetch.items[0], 7, 50));
    assert_int_equal(fetch.items[1].kind, HR_RECORD_MISSING);
    assert_true(is_item(&fetch.items[2], 99, 50));
    assert_true(is_item(&fetch.items[3], 7, 50));
    assert_int_equal(fetch.items[4].kind, HR_RECORD_MISSING);
    hr_store_close(store);
    hr_arena_destroy(arena);
}

static void another_prefix_is_another_store(void **state) {
    (void)state;
    write_records(0, 1, 1);
    snprintf(uri, sizeof uri, "lmdb:%s?prefix=other", path);
    hr_store *store = open_store();
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    assert_false(find_item(store, arena, 0, 1));
    hr_store_close(store);
    hr_arena_destroy(arena);
}

static void a_full_arena_and_a_passed_deadline_are_errors_of_the_fetch(void **state) {
    (void)state;
    write_records(0, 10, 5000);
    hr_store *store = open_store();
    hr_arena *arena = hr_arena_create(8000);
    const char *const items[] = {"i0", "i1"};
    hr_fetch fetch = {.item_ids = items, .n_items = 2, .deadline_ns = UINT64_MAX, .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_RESOURCE_EXHAUSTED);
    assert_true(is_item(&fetch.items[0], 0, 5000));
    assert_int_equal(fetch.items[1].kind, HR_RECORD_MISSING);

    hr_arena_reset(arena);
    fetch.deadline_ns = hr_clock_ns();
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_DEADLINE_EXCEEDED);
    hr_store_close(store);
    hr_arena_destroy(arena);
}

static void a_path_that_is_no_store_is_said(void **state) {
    (void)state;
    hr_store *store;
    hr_error err = {0};
    assert_int_equal(hr_store_open(uri, &hr_store_defaults, &store, &err), HR_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(hr_store_open(uri, &hr_store_defaults, &store, &err), HR_NOT_FOUND);
    assert_int_equal(rmdir(path), 0);

    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(hr_store_open(uri, &hr_store_defaults, &store, &err), HR_IO);
    assert_non_null(strstr(err.message, "expected a folder, found a file"));
    assert_null(store);
    assert_int_equal(unlink(path), 0);
}

static void a_damaged_file_is_said(void **state) {
    (void)state;
    char data[300];
    hr_store *store;
    hr_error err = {0};
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(data, sizeof data, "%s/data.mdb", path);
    FILE *f = fopen(data, "w");
    assert_non_null(f);
    for (int i = 0; i < 9000; i++) fputc('x', f);
    fclose(f);
    assert_int_equal(hr_store_open(uri, &hr_store_defaults, &store, &err), HR_IO);
    assert_non_null(strstr(err.message, path));
}

/* --- many threads, and a writer in another process
 * ---------------------------------------------------------- */

enum { N_THREADS = 4, N_ITEMS = 2000, ITEM_NBYTES = 100 };

typedef struct reader_thread {
    hr_store *store;
    size_t n_rounds, n_wrong;
} reader_thread;

static void *read_often(void *arg) {
    reader_thread *t = arg;
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    for (size_t k = 0; k < t->n_rounds; k++) {
        char texts[64][16];
        const char *items[64];
        for (size_t i = 0; i < 64; i++) {
            snprintf(texts[i], sizeof texts[i], "i%zu", (k * 31 + i * 7) % N_ITEMS);
            items[i] = texts[i];
        }
        hr_fetch fetch = {
            .user_id = "u", .item_ids = items, .n_items = 64, .deadline_ns = UINT64_MAX, .arena = arena};
        hr_store_fetch_wait(t->store, &fetch);
        t->n_wrong += fetch.error.code != HR_OK;
        for (size_t i = 0; i < 64; i++)
            t->n_wrong += !is_item(&fetch.items[i], (k * 31 + i * 7) % N_ITEMS, ITEM_NBYTES);
        hr_arena_reset(arena);
    }
    hr_arena_destroy(arena);
    return NULL;
}

static void threads_read_side_by_side_while_another_process_grows_the_map(void **state) {
    (void)state;
    int go[2];
    assert_int_equal(pipe(go), 0);
    pid_t writer = fork(); /* before threads and environments exist here */
    assert_true(writer >= 0);
    if (writer == 0) {
        char byte;
        close(go[1]);
        while (read(go[0], &byte, 1) == 1) write_records(N_ITEMS + (size_t)byte * 400, 400, 100000);
        _exit(0);
    }
    close(go[0]);
    write_records(0, N_ITEMS, ITEM_NBYTES);
    hr_store *store = open_store();
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    assert_true(find_item(store, arena, 0, ITEM_NBYTES));

    reader_thread readers[N_THREADS];
    pthread_t threads[N_THREADS];
    for (size_t i = 0; i < N_THREADS; i++) {
        readers[i] = (reader_thread){store, 2000, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, read_often, &readers[i]), 0);
    }
    /* 4 times 40 MB: past the map that the store opened with. */
    for (char k = 0; k < 4; k++) assert_int_equal(write(go[1], &k, 1), 1);
    close(go[1]);
    int status;
    assert_int_equal(waitpid(writer, &status, 0), writer);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (size_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readers[i].n_wrong, 0);
    }
    for (size_t k = 0; k < 4; k++) assert_true(find_item(store, arena, N_ITEMS + k * 400 + 399, 100000));
    hr_store_close(store);
    hr_arena_destroy(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(records_that_are_there_are_found, fresh),
        cmocka_unit_test_setup(another_prefix_is_another_store, fresh),
        cmocka_unit_test_setup(a_full_arena_and_a_passed_deadline_are_errors_of_the_fetch, fresh),
        cmocka_unit_test_setup(a_path_that_is_no_store_is_said, fresh),
        cmocka_unit_test_setup(a_damaged_file_is_said, fresh),
        cmocka_unit_test_setup(threads_read_side_by_side_while_another_process_grows_the_map, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
