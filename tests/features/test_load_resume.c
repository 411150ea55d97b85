/* A load that is killed, limited, repeated: resumed it gives the same store as one that ran through; what was
 * committed stays; readers of the file under a growing map go on. */
#include <hiredis/hiredis.h>
#include <lmdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "features/lmdb_env.h"
#include "features/loader.h"
#include "features/store.h"
#include "tests/features/redis_server.h"

enum { N_RECORDS = 150000, N_IDS = 50000 };

static redis_server server;
static char folder[256], in_path[300], resume_path[300], lmdb_uri[300];

static int start_server(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    redis_server_start(&server, "");
    return 0;
}

static int stop_server(void **state) {
    (void)state;
    redis_server_kill(&server);
    return 0;
}

static int fresh(void **state) {
    (void)state;
    static int n;
    const char *dir = getenv("TEST_TMPDIR");
    assert_int_equal(chdir(dir != NULL ? dir : "/tmp"), 0);
    snprintf(folder, sizeof folder, "resume-%d-%d", (int)getpid(), n++);
    assert_int_equal(mkdir(folder, 0777), 0);
    snprintf(in_path, sizeof in_path, "%s/in.jsonl", folder);
    snprintf(resume_path, sizeof resume_path, "%s/resume", folder);
    snprintf(lmdb_uri, sizeof lmdb_uri, "lmdb:%s/store", folder);
    redis_server_do(&server, "FLUSHALL");
    return 0;
}

/* Every id three times, a different record each: the last one is to stay. */
static void write_input(void) {
    FILE *file = fopen(in_path, "w");
    assert_non_null(file);
    for (size_t i = 0; i < N_RECORDS; i++)
        fprintf(
            file,
            "{\"entity\":\"item\",\"id\":\"%zu\",\"features\":{\"n\":%zu,\"x\":%zu.5,\"t\":[\"a\",\"b\"]}}\n",
            i % N_IDS, i, i);
    assert_int_equal(fclose(file), 0);
}

static hr_load_options options_of(const char *store) {
    return (hr_load_options){.store = store, .in = in_path, .resume = resume_path, .n_threads = 3};
}

static hr_load_result load_well(const hr_load_options *options) {
    hr_load_result result;
    hr_error err = {0};
    if (hr_features_load(options, &result, &err) != HR_OK) fail_msg("%s", err.message);
    return result;
}

/* --- what is in a store -----------------------------------------------------------------------------------
 */

static void redis_digest(char digest[64]) {
    redisContext *c = redisConnect("127.0.0.1", server.port);
    redisReply *reply = redisCommand(c, "DEBUG DIGEST");
    assert_int_equal(reply->type, REDIS_REPLY_STATUS);
    snprintf(digest, 64, "%s", reply->str);
    freeReplyObject(reply);
    redisFree(c);
}

static size_t redis_size(void) {
    redisContext *c = redisConnect("127.0.0.1", server.port);
    redisReply *reply = redisCommand(c, "DBSIZE");
    const size_t n = (size_t)reply->integer;
    freeReplyObject(reply);
    redisFree(c);
    return n;
}

/* Records of an LMDB store, and a sum that tells their bytes; 0 where there is no store yet. */
static size_t lmdb_content(const char *uri, uint64_t *sum) {
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    size_t n = 0;
    hr_error err = {0};
    *sum = 0;
    hr_status status = hr_lmdb_env_open(uri + strlen("lmdb:"), HR_LMDB_READ, &env, &dbi, &err);
    if (status == HR_NOT_FOUND) return 0;
    if (status != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_cursor_open(txn, dbi, &cursor), 0);
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        n++;
        for (size_t i = 0; i < key.mv_size; i++) *sum = *sum * 31 + ((const uint8_t *)key.mv_data)[i];
        for (size_t i = 0; i < value.mv_size; i++) *sum = *sum * 31 + ((const uint8_t *)value.mv_data)[i];
    }
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    mdb_env_close(env);
    return n;
}

/* --- killed -----------------------------------------------------------------------------------------------
 */

/* A load in a process of its own. */
static pid_t start_load(const hr_load_options *options) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    hr_load_result result;
    hr_error err = {0};
    _exit(hr_features_load(options, &result, &err) == HR_OK ? 0 : 1);
}

/* Kills the load once its resume file says that something is in the store. */
static void kill_half_way(const hr_load_options *options) {
    pid_t pid = start_load(options);
    int status;
    while (access(resume_path, F_OK) != 0) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            fail_msg("the load ended with %d before it was killed", status);
        usleep(1000); /* between looks at the condition waited for */
    }
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void a_killed_load_resumed_gives_the_same_redis(void **state) {
    (void)state;
    static const char *const layouts[] = {"packed", "hash"};
    write_input();
    for (size_t i = 0; i < 2; i++) {
        char uri[256], expected[64], found[64];
        snprintf(uri, sizeof uri, "%s?layout=%s", server.uri, layouts[i]);
        hr_load_options options = options_of(uri);
        redis_server_do(&server, "FLUSHALL");
        assert_int_equal(load_well(&options).n_records, N_RECORDS);
        assert_int_equal(redis_size(), N_IDS);
        redis_digest(expected);
        redis_server_do(&server, "FLUSHALL");
        kill_half_way(&options);
        assert_true(redis_size() > 0);
        const hr_load_result rest = load_well(&options);
        assert_true(rest.n_records < N_RECORDS && rest.n_records > 0);
        assert_int_equal(rest.resume_line, N_RECORDS + 1);
        redis_digest(found);
        assert_string_equal(found, expected);
        assert_int_not_equal(access(resume_path, F_OK), 0); /* nothing is left to resume */
    }
}

static void a_killed_load_loses_no_committed_batch_of_lmdb(void **state) {
    (void)state;
    uint64_t expected, found;
    char other_uri[400];
    write_input();
    snprintf(other_uri, sizeof other_uri, "lmdb:%s/other", folder);
    hr_load_options options = options_of(other_uri);
    load_well(&options);
    assert_int_equal(lmdb_content(other_uri, &expected), N_IDS);
    options = options_of(lmdb_uri);
    kill_half_way(&options);
    FILE *file = fopen(resume_path, "r");
    char text[600], *line;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_non_null(line = strstr(text, "\"line\":"));
    const size_t n_committed = (size_t)atol(line + 7) - 1;
    assert_true(n_committed > 0);
    assert_true(lmdb_content(lmdb_uri, &found) >= (n_committed < N_IDS ? n_committed : N_IDS));
    load_well(&options);
    assert_int_equal(lmdb_content(lmdb_uri, &found), N_IDS);
    assert_int_equal(found, expected);
}

/* --- repeated, limited ------------------------------------------------------------------------------------
 */

static void a_resume_file_is_of_one_load(void **state) {
    (void)state;
    hr_load_result result;
    hr_error err = {0};
    write_input();
    FILE *file = fopen(resume_path, "w");
    fprintf(file, "{\"in\":\"%s\",\"store\":\"redis://elsewhere:1/0\",\"line\":5}", in_path);
    fclose(file);
    hr_load_options options = options_of(server.uri);
    assert_int_equal(hr_features_load(&options, &result, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "store"));
    file = fopen(resume_path, "w");
    fputs("what", file);
    fclose(file);
    assert_int_equal(hr_features_load(&options, &result, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "another file"));
    options.in = "-";
    assert_int_equal(hr_features_load(&options, &result, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "stdin"));
    assert_int_equal(redis_size(), 0);
}

static void a_rate_is_kept(void **state) {
    (void)state;
    FILE *file = fopen(in_path, "w");
    for (int i = 0; i < 500; i++)
        fprintf(file, "{\"entity\":\"item\",\"id\":%d,\"features\":{\"n\":1}}\n", i);
    fclose(file);
    hr_load_options options = options_of(server.uri);
    options.rate = 1000;
    const hr_load_result result = load_well(&options);
    assert_int_equal(result.n_records, 500);
    assert_true(result.seconds >= 0.499);
}

static void expect_ttl(const char *key, long long at_most) {
    redisContext *c = redisConnect("127.0.0.1", server.port);
    redisReply *reply = redisCommand(c, "TTL %s", key);
    assert_true(reply->integer > 0 && reply->integer <= at_most);
    freeReplyObject(reply);
    redisFree(c);
}

static void records_expire_where_it_is_asked_for(void **state) {
    (void)state;
    char uri[256];
    hr_load_result result;
    hr_error err = {0};
    FILE *file = fopen(in_path, "w");
    fputs("id,city,tags:ids\n1,Bergen,\"a,b\"\n2,,\n", file);
    fclose(file);
    hr_load_options options = options_of(server.uri);
    options.csv = true;
    options.entity = "user";
    options.ttl_s = 500;
    assert_int_equal(load_well(&options).n_records, 2);
    expect_ttl("hr:user:1", 500);
    expect_ttl("hr:user:2", 500);
    snprintf(uri, sizeof uri, "%s?layout=hash", server.uri);
    options.store = uri;
    options.ttl_s = 70;
    assert_int_equal(load_well(&options).n_records, 2);
    expect_ttl("hr:user:1", 70);
    assert_int_equal(redis_size(), 1); /* the other has no field, so it is none */
    options.store = lmdb_uri;
    assert_int_equal(hr_features_load(&options, &result, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "ttl: lmdb"));
}

static void rows_over_several_lines_are_resumed_at_rows(void **state) {
    (void)state;
    hr_load_result result;
    hr_error err = {0};
    FILE *file = fopen(in_path, "w");
    fputs("entity,\"id\",text\nitem,1,\"a\nb\"\nitem,2,c\nitem,3,\"d\n\n\"\"e\"\nitem,4,x\nbad\nitem,5,"
          "\"open\n",
          file);
    fclose(file);
    hr_load_options options = options_of(lmdb_uri);
    options.csv = true;
    options.resume = NULL;
    result = load_well(&options);
    assert_int_equal(result.n_records, 4);
    assert_int_equal(result.n_bad_lines, 2);
    assert_int_equal(result.resume_line, 11);
    char text[256];
    FILE *out = tmpfile();
    assert_int_equal(hr_features_get(lmdb_uri, "item", "3", out, &err), HR_OK);
    rewind(out);
    text[fread(text, 1, sizeof text - 1, out)] = '\0';
    fclose(out);
    assert_non_null(strstr(text, "d\\n\\n\\\"e"));
    options.from_line = 5; /* the row of item 3 */
    assert_int_equal(load_well(&options).n_records, 2);
    options.csv = false;
    options.entity = "item";
    assert_int_equal(hr_features_load(&options, &result, &err), HR_INVALID_ARGUMENT);
}

/* --- many readers ------------------------------------------------------------------------------------------
 */

/* Reads while another process loads: what is found is whole, and all is found in the end. */
static int read_until_all_is_there(const char *uri, const char *last_id) {
    hr_store *store = NULL;
    hr_error err = {0};
    const uint64_t end_ns = hr_clock_ns() + UINT64_C(60000000000);
    while (hr_store_open(uri, &hr_store_defaults, &store, &err) == HR_NOT_FOUND)
        if (hr_clock_ns() > end_ns) return 1;
    if (store == NULL) return 2;
    bool found = false;
    while (!found) {
        hr_arena *arena = hr_arena_create(16 << 20);
        const char *const items[] = {"0", "100", last_id};
        hr_fetch fetch = {.item_ids = items, .n_items = 3, .deadline_ns = UINT64_MAX, .arena = arena};
        hr_store_fetch_wait(store, &fetch);
        const bool failed = fetch.error.code != HR_OK;
        if (failed) fprintf(stderr, "reader: %s\n", fetch.error.message);
        found = !failed && fetch.items[2].kind == HR_RECORD_PACKED;
        if (found && fetch.items[0].kind != HR_RECORD_PACKED) return 3; /* it came before */
        hr_arena_destroy(arena);
        if (failed) return 4;
        if (hr_clock_ns() > end_ns) return 5;
    }
    hr_store_close(store);
    return 0;
}

static void readers_go_on_while_the_map_grows_and_one_of_them_dies(void **state) {
    (void)state;
    enum { N_READERS = 6, N = 40000 };
    pid_t readers[N_READERS];
    int status;
    FILE *file = fopen(in_path, "w");
    for (int i = 0; i < N; i++)
        fprintf(file, "{\"entity\":\"item\",\"id\":%d,\"features\":{\"filler\":\"%01000d\"}}\n", i, i);
    fclose(file);
    char last_id[16];
    snprintf(last_id, sizeof last_id, "%d", N - 1);
    for (int i = 0; i < N_READERS; i++) {
        readers[i] = fork();
        assert_true(readers[i] >= 0);
        if (readers[i] > 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(read_until_all_is_there(lmdb_uri, last_id));
    }
    hr_load_options options = options_of(lmdb_uri); /* 40 MB into a map that begins with 16 */
    options.rate = 30000;
    pid_t load = start_load(&options);
    while (access(resume_path, F_OK) != 0) usleep(1000); /* between looks at the condition waited for */
    kill(readers[0], SIGKILL);
    assert_int_equal(waitpid(readers[0], &status, 0), readers[0]);
    assert_int_equal(waitpid(load, &status, 0), load);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 1; i < N_READERS; i++) {
        assert_int_equal(waitpid(readers[i], &status, 0), readers[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("reader %d: %d", i, WEXITSTATUS(status));
    }
}

static int count_readers(const char *line, void *n) {
    *(int *)n += strstr(line, "(no active readers)") == NULL && strstr(line, "pid") == NULL;
    return 0;
}

/* A process inside a transaction, which keeps every page of its state from being reused. */
static pid_t start_reader(void) {
    int pipe_of[2], begun = 0;
    assert_int_equal(pipe(pipe_of), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        MDB_env *env;
        MDB_dbi dbi;
        MDB_txn *txn;
        hr_error err = {0};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        begun = hr_lmdb_env_open(lmdb_uri + strlen("lmdb:"), HR_LMDB_READ, &env, &dbi, &err) == HR_OK &&
                mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0;
        if (write(pipe_of[1], &begun, sizeof begun) != sizeof begun) _exit(1);
        for (;;) pause();
    }
    assert_int_equal(read(pipe_of[0], &begun, sizeof begun), sizeof begun);
    assert_true(begun);
    close(pipe_of[0]);
    close(pipe_of[1]);
    return pid;
}

static void kill_reader(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void a_dead_readers_slot_is_free_again(void **state) {
    (void)state;
    int n = 0;
    write_input();
    hr_load_options options = options_of(lmdb_uri);
    load_well(&options);
    pid_t dead = start_reader(), alive = start_reader();
    kill_reader(dead);
    MDB_env *env;
    MDB_dbi dbi;
    hr_error err = {0};
    assert_int_equal(hr_lmdb_env_open(lmdb_uri + strlen("lmdb:"), HR_LMDB_CREATE, &env, &dbi, &err), HR_OK);
    mdb_reader_list(env, count_readers, &n);
    mdb_env_close(env);
    kill_reader(alive);
    if (n != 1) fail_msg("expected the reader that lives, found %d", n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_killed_load_resumed_gives_the_same_redis, fresh),
        cmocka_unit_test_setup(a_killed_load_loses_no_committed_batch_of_lmdb, fresh),
        cmocka_unit_test_setup(a_resume_file_is_of_one_load, fresh),
        cmocka_unit_test_setup(a_rate_is_kept, fresh),
        cmocka_unit_test_setup(records_expire_where_it_is_asked_for, fresh),
        cmocka_unit_test_setup(rows_over_several_lines_are_resumed_at_rows, fresh),
        cmocka_unit_test_setup(readers_go_on_while_the_map_grows_and_one_of_them_dies, fresh),
        cmocka_unit_test_setup(a_dead_readers_slot_is_free_again, fresh),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
