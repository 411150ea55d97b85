/* Loading and printing records: what a file says is what the store holds; bad lines are named and passed
 * over; a load that ended early goes on where its commits ended. */
#include <hiredis/hiredis.h>
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text_file.h"
#include "features/loader.h"
#include "tests/features/redis_server.h"

static redis_server server;
static char folder[256], in_path[300], lmdb_uri[300];
static char said[1 << 16]; /* what the last load said */

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
    assert_int_equal(chdir(dir != NULL ? dir : "/tmp"),
                     0); /* short paths: an error's line holds them whole */
    snprintf(folder, sizeof folder, "loader-%d-%d", (int)getpid(), n++);
    assert_int_equal(mkdir(folder, 0777), 0);
    snprintf(in_path, sizeof in_path, "%s/in.jsonl", folder);
    snprintf(lmdb_uri, sizeof lmdb_uri, "lmdb:%s/store", folder);
    redis_server_do(&server, "FLUSHALL");
    return 0;
}

static void write_lines(const char *path, const char *const *lines, size_t n_lines) {
    hr_line_writer *writer;
    hr_error err = {0};
    assert_int_equal(hr_line_writer_open(path, &writer, &err), HR_OK);
    for (size_t i = 0; i < n_lines; i++)
        assert_int_equal(hr_line_writer_put(writer, lines[i], strlen(lines[i]), &err), HR_OK);
    assert_int_equal(hr_line_writer_close(writer, &err), HR_OK);
}

/* n records item:0 ..., one a line, with a text of nbytes. */
static void write_items(const char *path, size_t n, size_t nbytes) {
    hr_line_writer *writer;
    hr_error err = {0};
    char *line = malloc(nbytes + 200), *filler = malloc(nbytes + 1);
    memset(filler, 'x', nbytes);
    filler[nbytes] = '\0';
    assert_int_equal(hr_line_writer_open(path, &writer, &err), HR_OK);
    for (size_t i = 0; i < n; i++) {
        int m = sprintf(line, "{\"entity\":\"item\",\"id\":%zu,\"features\":{\"n\":%zu,\"filler\":\"%s\"}}",
                        i, i, filler);
        assert_int_equal(hr_line_writer_put(writer, line, (size_t)m, &err), HR_OK);
    }
    assert_int_equal(hr_line_writer_close(writer, &err), HR_OK);
    free(filler);
    free(line);
}

static hr_status load_from(const char *store, const char *path, uint64_t from_line, const atomic_bool *stop,
                           bool progress, hr_load_result *result, hr_error *err) {
    FILE *messages = tmpfile();
    const hr_load_options options = {.store = store,
                                     .in = path,
                                     .from_line = from_line,
                                     .stop = stop,
                                     .messages = messages,
                                     .progress = progress};
    hr_status status = hr_features_load(&options, result, err);
    rewind(messages);
    said[fread(said, 1, sizeof said - 1, messages)] = '\0';
    fclose(messages);
    return status;
}

static hr_load_result load_well(const char *store, const char *path) {
    hr_load_result result;
    hr_error err = {0};
    if (load_from(store, path, 0, NULL, false, &result, &err) != HR_OK) fail_msg("%s", err.message);
    return result;
}

static hr_status get(const char *store, const char *entity, const char *id, char *text, size_t size,
                     hr_error *err) {
    FILE *out = tmpfile();
    hr_status status = hr_features_get(store, entity, id, out, err);
    rewind(out);
    text[fread(text, 1, size - 1, out)] = '\0';
    fclose(out);
    return status;
}

static void expect_record(const char *store, const char *entity, const char *id, const char *expected) {
    char text[4096];
    hr_error err = {0};
    if (get(store, entity, id, text, sizeof text, &err) != HR_OK) fail_msg("%s", err.message);
    text[strcspn(text, "\n")] = '\0';
    assert_string_equal(text, expected);
}

static void expect_nothing(const char *store, const char *entity, const char *id) {
    char text[4096];
    hr_error err = {0};
    assert_int_equal(get(store, entity, id, text, sizeof text, &err), HR_NOT_FOUND);
    assert_non_null(strstr(err.message, id));
}

static const char *redis_uri(const char *layout) {
    static char uri[256];
    snprintf(uri, sizeof uri, "%s?layout=%s", server.uri, layout);
    return uri;
}

static const char *const records[] = {
    "{\"entity\":\"user\",\"id\":\"7\",\"features\":{\"city\":\"Bergen\",\"age\":31,\"x\":0.1,\"big\":1e300}"
    "}",
    "{\"entity\":\"item\",\"id\":\"a:b\",\"features\":{\"tags\":[\"p\",\"q\"],\"v\":[0.5,-2.25,3]}}",
    "{\"entity\":\"item\",\"id\":\"\xc3\xa9\",\"features\":{}}",
};

static void what_was_loaded_is_printed_back(void **state) {
    (void)state;
    const char *const stores[] = {lmdb_uri, server.uri};
    write_lines(in_path, records, 3);
    for (size_t s = 0; s < 2; s++) {
        hr_load_result result = load_well(stores[s], in_path);
        assert_int_equal(result.n_records, 3);
        assert_int_equal(result.n_bad_lines, 0);
        assert_int_equal(result.resume_line, 4);
        assert_string_equal(said, "");
        expect_record(stores[s], "user", "7",
                      "{\"entity\":\"user\",\"id\":\"7\",\"features\":{\"city\":\"Bergen\",\"age\":31,\"x\":"
                      "0.1,\"big\":1e300}}");
        expect_record(stores[s], "item", "a:b",
                      "{\"entity\":\"item\",\"id\":\"a:b\",\"features\":{\"tags\":[\"p\",\"q\"],\"v\":[0.5,-"
                      "2.25,3.0]}}");
        expect_record(stores[s], "item", "\xc3\xa9", records[2]);
        expect_nothing(stores[s], "item", "7");
    }
}

static void expect_hash_field(const char *key, const char *field, const char *expected) {
    redisContext *c = redisConnect("127.0.0.1", server.port);
    redisReply *reply = redisCommand(c, "HGET %s %s", key, field);
    assert_non_null(reply);
    if (expected == NULL)
        assert_int_equal(reply->type, REDIS_REPLY_NIL);
    else
        assert_string_equal(reply->str, expected);
    freeReplyObject(reply);
    redisFree(c);
}

static void hash_records_are_plain_texts_and_replace_the_old_ones(void **state) {
    (void)state;
    static const char *const lines[] = {
        "{\"entity\":\"user\",\"id\":1,\"features\":{\"old\":1}}",
        "{\"entity\":\"user\",\"id\":1,\"features\":{\"city\":\"Rio, "
        "RJ\",\"age\":31,\"x\":0.1,\"third\":0.3333333333333333,"
        "\"tags\":[\"p\",\"q\"],\"ids\":[1,22,333],\"v\":[0.5,null,-2e-7],\"none\":[],\"gone\":null,"
        "\"blank\":\"\"}}",
        "{\"entity\":\"item\",\"id\":2,\"features\":{\"old\":1}}",
        "{\"entity\":\"item\",\"id\":2,\"features\":{}}",
    };
    write_lines(in_path, lines, 4);
    hr_load_result result = load_well(redis_uri("hash"), in_path);
    assert_int_equal(result.n_records, 4);
    expect_hash_field("hr:user:1", "old", NULL);
    expect_hash_field("hr:user:1", "city", "Rio, RJ");
    expect_hash_field("hr:user:1", "age", "31");
    expect_hash_field("hr:user:1", "x", "0.1");
    expect_hash_field("hr:user:1", "third", "0.3333333333333333");
    expect_hash_field("hr:user:1", "tags", "p,q");
    expect_hash_field("hr:user:1", "ids", "1,22,333");
    expect_hash_field("hr:user:1", "v", "0.5,,-2e-07");
    expect_hash_field("hr:user:1", "none", NULL);
    expect_hash_field("hr:user:1", "gone", NULL);
    expect_hash_field("hr:user:1", "blank", "");
    expect_nothing(redis_uri("hash"), "item", "2");

    redis_server_do(&server, "HSET hr:item:3 a 5 b x,y");
    expect_record(redis_uri("hash"), "item", "3",
                  "{\"entity\":\"item\",\"id\":\"3\",\"features\":{\"a\":5,\"b\":\"x,y\"}}");
}

static void bad_lines_are_named_and_the_rest_is_loaded(void **state) {
    (void)state;
    static const struct {
        const char *line, *said;
    } bad[] = {
        {"not json", "not valid JSON"},
        {"", ""},
        {"[1]", "object"},
        {"{\"entity\":\"user\",\"id\":\"1\"}", "features: expected an object, found nothing"},
        {"{\"entity\":\"user\",\"features\":{}}", "id: expected a string or an integer, found nothing"},
        {"{\"id\":\"1\",\"features\":{}}", "entity"},
        {"{\"entity\":\"video\",\"id\":\"1\",\"features\":{}}",
         "entity: expected user or item, found \"video\""},
        {"{\"entity\":\"user\",\"id\":1.5,\"features\":{}}", "id"},
        {"{\"entity\":\"user\",\"id\":\"\",\"features\":{}}", "id"},
        {"{\"entity\":\"user\",\"id\":null,\"features\":{}}", "id"},
        {"{\"entity\":\"user\",\"id\":\"1\",\"features\":[]}", "features: expected an object"},
        {"{\"entity\":\"user\",\"id\":\"1\",\"features\":{},\"ttl\":3}", "\"ttl\""},
        {"{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":true}}", "features: "},
        {"{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"a\":{}}}", "features: "},
        {"{\"entity\":\"user\",\"id\":\"1\",\"id\":\"2\",\"features\":{}}", ""},
    };
    enum { N_BAD = sizeof bad / sizeof bad[0] };
    const char *lines[2 * N_BAD];
    for (size_t i = 0; i < N_BAD; i++) {
        lines[2 * i] = bad[i].line;
        lines[2 * i + 1] = "{\"entity\":\"item\",\"id\":\"good\",\"features\":{\"a\":1}}";
    }
    write_lines(in_path, lines, 2 * N_BAD);
    hr_load_result result = load_well(lmdb_uri, in_path);
    assert_int_equal(result.n_bad_lines, N_BAD);
    assert_int_equal(result.n_records, N_BAD);
    const char *at = said;
    for (size_t i = 0; i < N_BAD; i++) {
        char head[400];
        size_t n = (size_t)snprintf(head, sizeof head, "%s:%zu: ", in_path, 2 * i + 1);
        size_t length = strcspn(at, "\n");
        char message[1024];
        snprintf(message, sizeof message, "%.*s", (int)length, at);
        if (strncmp(message, head, n) != 0) fail_msg("expected %s..., found %s", head, message);
        if (strstr(message + n, bad[i].said) == NULL) fail_msg("%s: %s", bad[i].line, message);
        at += length + 1;
    }
    expect_record(lmdb_uri, "item", "good", lines[1]);
}

static void what_a_store_cannot_hold_is_a_bad_line(void **state) {
    (void)state;
    char long_id[1024], id[601];
    memset(id, 'x', 600);
    id[600] = '\0';
    snprintf(long_id, sizeof long_id, "{\"entity\":\"user\",\"id\":\"%s\",\"features\":{}}", id);
    const char *const lines[] = {long_id,
                                 "{\"entity\":\"user\",\"id\":\"1\",\"features\":{\"tags\":[\"a,b\",\"c\"]}}",
                                 "{\"entity\":\"user\",\"id\":\"2\",\"features\":{\"tags\":[\"a\",\"c\"]}}",
                                 "{\"entity\":\"user\",\"id\":\"3\",\"features\":{\"tags\":[\"\"]}}"};
    write_lines(in_path, lines, 4);
    hr_load_result result = load_well(lmdb_uri, in_path);
    assert_int_equal(result.n_records, 3);
    assert_non_null(strstr(said, "in.jsonl:1: id"));
    result = load_well(redis_uri("hash"), in_path);
    assert_int_equal(result.n_records, 2);
    assert_non_null(strstr(said, "in.jsonl:2: feature \"tags\": element 0"));
    assert_non_null(strstr(said, "in.jsonl:4: feature \"tags\": layout hash cannot hold"));
    expect_nothing(redis_uri("hash"), "user", "1");
}

static void compressed_files_are_loaded_by_their_name(void **state) {
    (void)state;
    static const char *const names[] = {"in.gz", "in.zst"};
    for (size_t i = 0; i < 2; i++) {
        char path[600], uri[600];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        snprintf(uri, sizeof uri, "%s%zu", lmdb_uri, i);
        write_items(path, 3000, 100);
        assert_int_equal(load_well(uri, path).n_records, 3000);
        char expected[400], text[4096];
        hr_error err = {0};
        assert_int_equal(get(uri, "item", "2999", text, sizeof text, &err), HR_OK);
        snprintf(expected, sizeof expected, "{\"entity\":\"item\",\"id\":\"2999\",\"features\":{\"n\":2999,");
        assert_memory_equal(text, expected, strlen(expected));
    }
}

static void the_map_grows_with_the_records(void **state) {
    (void)state;
    write_items(in_path, 30000, 2000); /* 60 MB into a map of 16 MB */
    assert_int_equal(load_well(lmdb_uri, in_path).n_records, 30000);
    char text[4096];
    hr_error err = {0};
    assert_int_equal(get(lmdb_uri, "item", "0", text, sizeof text, &err), HR_OK);
    assert_int_equal(get(lmdb_uri, "item", "29999", text, sizeof text, &err), HR_OK);
}

static void a_load_goes_on_from_the_line_it_names(void **state) {
    (void)state;
    const char *const stores[] = {lmdb_uri, server.uri};
    char path[600];
    snprintf(path, sizeof path, "%s/cut.gz", folder);
    for (size_t s = 0; s < 2; s++) {
        write_items(path, 25000, 60);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, st.st_size / 2), 0);
        hr_load_result first, second;
        hr_error err = {0};
        assert_int_equal(load_from(stores[s], path, 0, NULL, false, &first, &err), HR_IO);
        assert_non_null(strstr(err.message, "truncated"));
        char advice[64];
        snprintf(advice, sizeof advice, "--from-line %lu", (unsigned long)first.resume_line);
        assert_non_null(strstr(err.message, advice));
        assert_true(first.n_records > 0 && first.n_records < 25000);
        assert_int_equal(first.resume_line, first.n_records + 1);
        char id[16], text[4096];
        snprintf(id, sizeof id, "%lu", (unsigned long)first.n_records - 1);
        assert_int_equal(get(stores[s], "item", id, text, sizeof text, &err), HR_OK);

        write_items(path, 25000, 60);
        err = (hr_error){0};
        assert_int_equal(load_from(stores[s], path, first.resume_line, NULL, false, &second, &err), HR_OK);
        assert_int_equal(first.n_records + second.n_records, 25000);
        assert_int_equal(second.resume_line, 25001);
        assert_int_equal(get(stores[s], "item", "24999", text, sizeof text, &err), HR_OK);

        assert_int_equal(load_from(stores[s], path, 25001, NULL, false, &second, &err), HR_OK);
        assert_int_equal(second.n_records, 0);
        assert_int_equal(load_from(stores[s], path, 25003, NULL, false, &second, &err), HR_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "expected at least 25002 lines, found 25000"));
    }
}

static void a_stopped_load_says_where_to_go_on(void **state) {
    (void)state;
    atomic_bool stop = true;
    hr_load_result result;
    hr_error err = {0};
    write_items(in_path, 10, 10);
    assert_int_equal(load_from(lmdb_uri, in_path, 4, &stop, false, &result, &err), HR_CANCELLED);
    assert_int_equal(result.resume_line, 4);
    assert_non_null(strstr(err.message, "--from-line 4"));
}

/* Kills the server once the load is on its way: the first records are there. */
static void *kill_when_loading(void *arg) {
    (void)arg;
    redisContext *c = redisConnect("127.0.0.1", server.port);
    for (bool begun = false; !begun;) {
        redisReply *reply = redisCommand(c, "EXISTS hr:item:500");
        begun = reply == NULL || reply->integer == 1;
        freeReplyObject(reply);
    }
    redis_server_signal(&server, SIGKILL);
    redisFree(c);
    return NULL;
}

static void a_server_lost_on_the_way_ends_the_load_with_advice(void **state) {
    (void)state;
    pthread_t killer;
    hr_load_result result;
    hr_error err = {0};
    write_items(in_path, 60000, 60);
    assert_int_equal(pthread_create(&killer, NULL, kill_when_loading, NULL), 0);
    assert_int_equal(load_from(server.uri, in_path, 0, NULL, false, &result, &err), HR_UNAVAILABLE);
    pthread_join(killer, NULL);
    assert_non_null(strstr(err.message, "--from-line"));
    assert_int_equal(result.resume_line, result.n_records + 1);
    assert_true(result.n_records < 60000);
    redis_server_restart(&server);
    assert_int_equal(load_from(server.uri, in_path, result.resume_line, NULL, false, &result, &err), HR_OK);
    assert_int_equal(result.resume_line, 60001);
}

static void a_terminal_sees_a_bar_and_the_bad_lines(void **state) {
    (void)state;
    write_items(in_path, 100, 200);
    hr_error err = {0};
    FILE *f = fopen(in_path, "a");
    assert_non_null(f);
    fputs("bad\n", f);
    fclose(f);
    hr_load_result result;
    assert_int_equal(load_from(lmdb_uri, in_path, 0, NULL, true, &result, &err), HR_OK);
    assert_int_equal(result.n_bad_lines, 1);
    assert_non_null(strstr(said, "records"));
    assert_non_null(strstr(said, "\x1b[K"));
    assert_non_null(strstr(said, "in.jsonl:101: "));
}

static void what_cannot_be_loaded_from_or_into_is_named(void **state) {
    (void)state;
    hr_load_result result;
    hr_error err = {0};
    char text[64];
    assert_int_equal(load_from("none:", "/dev/null", 0, NULL, false, &result, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "none"));
    assert_int_equal(load_from(lmdb_uri, "/nonexistent", 0, NULL, false, &result, &err), HR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent"));
    write_lines(in_path, records, 1);
    char uri[400];
    snprintf(uri, sizeof uri, "lmdb:%s", in_path);
    assert_int_equal(load_from(uri, in_path, 0, NULL, false, &result, &err), HR_IO);
    assert_non_null(strstr(err.message, "expected a folder, found a file"));
    assert_int_equal(load_from("redis://127.0.0.1:1", in_path, 0, NULL, false, &result, &err),
                     HR_UNAVAILABLE);
    assert_non_null(strstr(err.message, "127.0.0.1:1"));
    assert_int_equal(get(server.uri, "video", "1", text, sizeof text, &err), HR_INVALID_ARGUMENT);
    assert_int_equal(get(server.uri, "user", "", text, sizeof text, &err), HR_INVALID_ARGUMENT);
    assert_int_equal(get("redis://127.0.0.1:1", "user", "1", text, sizeof text, &err), HR_UNAVAILABLE);
}

static void a_server_that_does_not_know_auth_does_not_make_the_password_known(void **state) {
    (void)state;
    redis_server odd;
    hr_load_result result;
    hr_error err = {0};
    char uri[128];
    redis_server_start_without(&odd, "AUTH");
    snprintf(uri, sizeof uri, "redis://ranker:secret2@127.0.0.1:%u", odd.port);
    write_lines(in_path, records, 1);
    assert_int_equal(load_from(uri, in_path, 0, NULL, false, &result, &err), HR_UNAVAILABLE);
    assert_non_null(strstr(err.message, "AUTH refused: \"ERR unknown command\""));
    assert_null(strstr(err.message, "secret2"));
    redis_server_kill(&odd);
}

static void stored_values_that_are_no_records_are_said(void **state) {
    (void)state;
    char text[256];
    hr_error err = {0};
    redis_server_do(&server, "SET hr:user:1 %b", "\x0a\xff\xff", (size_t)3);
    assert_int_equal(get(server.uri, "user", "1", text, sizeof text, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "not a record"));
    assert_int_not_equal(get(redis_uri("hash"), "user", "1", text, sizeof text, &err), HR_OK);
    assert_non_null(strstr(err.message, "WRONGTYPE"));
    redis_server_do(&server, "HSET hr:user:2 f %b", "a\0b", (size_t)3);
    assert_int_equal(get(redis_uri("hash"), "user", "2", text, sizeof text, &err), HR_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_was_loaded_is_printed_back, fresh),
        cmocka_unit_test_setup(hash_records_are_plain_texts_and_replace_the_old_ones, fresh),
        cmocka_unit_test_setup(bad_lines_are_named_and_the_rest_is_loaded, fresh),
        cmocka_unit_test_setup(what_a_store_cannot_hold_is_a_bad_line, fresh),
        cmocka_unit_test_setup(compressed_files_are_loaded_by_their_name, fresh),
        cmocka_unit_test_setup(the_map_grows_with_the_records, fresh),
        cmocka_unit_test_setup(a_load_goes_on_from_the_line_it_names, fresh),
        cmocka_unit_test_setup(a_stopped_load_says_where_to_go_on, fresh),
        cmocka_unit_test_setup(a_server_lost_on_the_way_ends_the_load_with_advice, fresh),
        cmocka_unit_test_setup(a_terminal_sees_a_bar_and_the_bad_lines, fresh),
        cmocka_unit_test_setup(what_cannot_be_loaded_from_or_into_is_named, fresh),
        cmocka_unit_test_setup(a_server_that_does_not_know_auth_does_not_make_the_password_known, fresh),
        cmocka_unit_test_setup(stored_values_that_are_no_records_are_said, fresh),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
