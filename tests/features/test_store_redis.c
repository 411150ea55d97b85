/* The Redis store against a real redis-server: what is there is found, and whatever happens to the server,
 * every fetch is done once, in time, and says why something is missing. */
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

enum { ARENA_NBYTES = 64 << 20 };
static const uint64_t second_ns = 1000000000;

static hr_store *open_store(const redis_server *server, const char *suffix, const hr_store_options *options) {
    char uri[256];
    hr_store *store;
    hr_error err = {0};
    snprintf(uri, sizeof uri, "%s%s", server->uri, suffix);
    if (hr_store_open(uri, options, &store, &err) != HR_OK) fail_msg("%s", err.message);
    assert_false(hr_store_is_synchronous(store));
    return store;
}

/* Patient enough for a busy machine: only tests of timeouts want short ones. */
static hr_store_options patient(void) {
    hr_store_options options = hr_store_defaults;
    options.command_timeout_ms = 20000;
    options.connect_timeout_ms = 20000;
    return options;
}

static hr_fetch fetch_of(hr_arena *arena, const char *user, const char *const *items, size_t n_items) {
    return (hr_fetch){
        .user_id = user, .item_ids = items, .n_items = n_items, .deadline_ns = UINT64_MAX, .arena = arena};
}

static void expect_packed(const hr_record *record, const char *text) {
    assert_int_equal(record->kind, HR_RECORD_PACKED);
    assert_int_equal(record->nbytes, strlen(text));
    assert_memory_equal(record->data, text, record->nbytes);
}

/* Fetches user "u" until it is found; fails the test after 20 s. */
static void wait_until_found(hr_store *store) {
    uint64_t end_ns = hr_clock_ns() + 20 * second_ns;
    bool found = false;
    while (!found) {
        hr_arena *arena = hr_arena_create(ARENA_NBYTES);
        hr_fetch fetch = fetch_of(arena, "u", NULL, 0);
        hr_store_fetch_wait(store, &fetch);
        found = fetch.user.kind == HR_RECORD_PACKED;
        if (!found && hr_clock_ns() > end_ns) fail_msg("not found: %s", fetch.error.message);
        hr_arena_destroy(arena);
        if (!found) usleep(1000);
    }
}

/* --- what is there -------------------------------------------------------------------------------------- */

static redis_server shared; /* for the tests that leave the server as it is */

static int start_shared(void **state) {
    (void)state;
    redis_server_start(&shared, "");
    return 0;
}

static int stop_shared(void **state) {
    (void)state;
    redis_server_kill(&shared);
    return 0;
}

static int empty_shared(void **state) {
    (void)state;
    redis_server_do(&shared, "FLUSHALL");
    return 0;
}

static void packed_records_come_back_as_they_were_set(void **state) {
    (void)state;
    const hr_store_options options = patient();
    redis_server_do(&shared, "SET hr:user:u %b", "user\0record", (size_t)11);
    redis_server_do(&shared, "SET hr:item:a aa");
    redis_server_do(&shared, "SET hr:item:empty %b", "", (size_t)0);
    redis_server_do(&shared, "SET hr:item:x:y%%z x");
    hr_store *store = open_store(&shared, "", &options);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    const char *const items[] = {"a", "nobody", "empty", "a", "x:y%z"};
    hr_fetch fetch = fetch_of(arena, "u", items, 5);
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_OK);
    assert_int_equal(fetch.user.kind, HR_RECORD_PACKED);
    assert_int_equal(fetch.user.nbytes, 11);
    assert_memory_equal(fetch.user.data, "user\0record", 11);
    expect_packed(&fetch.items[0], "aa");
    assert_int_equal(fetch.items[1].kind, HR_RECORD_MISSING);
    assert_false(fetch.items[1].invalid);
    expect_packed(&fetch.items[2], "");
    expect_packed(&fetch.items[3], "aa");
    expect_packed(&fetch.items[4], "x");

    hr_fetch nothing = fetch_of(arena, NULL, NULL, 0);
    hr_store_fetch_wait(store, &nothing);
    assert_int_equal(nothing.error.code, HR_OK);
    assert_int_equal(nothing.user.kind, HR_RECORD_MISSING);
    hr_store_close(store);
    hr_arena_destroy(arena);
}

static void hash_records_come_back_field_by_field(void **state) {
    (void)state;
    const hr_store_options options = patient();
    redis_server_do(&shared, "HSET hr:user:u age 31 city Bergen unasked 1");
    redis_server_do(&shared, "HSET hr:item:a tags 1,2,3 empty %b", "", (size_t)0);
    redis_server_do(&shared, "HSET hr:item:other unasked 1");
    redis_server_do(&shared, "SET hr:item:text text");
    hr_store *store = open_store(&shared, "?layout=hash", &options);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    const char *const user_names[] = {"city", "age", "absent"};
    const char *const item_names[] = {"empty", "tags"};
    const hr_field_list users = {user_names, 3}, its = {item_names, 2}, none = {NULL, 0};
    const char *const items[] = {"a", "nobody", "text", "other"};
    hr_fetch fetch = fetch_of(arena, "u", items, 4);
    fetch.fields[HR_ENTITY_USER] = &users;
    fetch.fields[HR_ENTITY_ITEM] = &its;
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_OK);
    assert_int_equal(fetch.user.kind, HR_RECORD_FIELDS);
    assert_string_equal(fetch.user.fields[0].text, "Bergen");
    assert_int_equal(fetch.user.fields[0].nbytes, 6);
    assert_string_equal(fetch.user.fields[1].text, "31");
    assert_null(fetch.user.fields[2].text);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_FIELDS);
    assert_string_equal(fetch.items[0].fields[0].text, "");
    assert_string_equal(fetch.items[0].fields[1].text, "1,2,3");
    assert_int_equal(fetch.items[1].kind, HR_RECORD_MISSING);
    assert_int_equal(fetch.items[2].kind, HR_RECORD_MISSING);
    assert_true(fetch.items[2].invalid);
    assert_int_equal(fetch.items[3].kind, HR_RECORD_MISSING);
    assert_false(fetch.items[3].invalid);

    fetch = fetch_of(arena, "u", items, 1);
    fetch.fields[HR_ENTITY_USER] = &none;
    fetch.fields[HR_ENTITY_ITEM] = &its;
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_OK);
    assert_int_equal(fetch.user.kind, HR_RECORD_FIELDS);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_FIELDS);
    hr_store_close(store);
    hr_arena_destroy(arena);
}

static void a_packed_key_of_another_type_is_missing(void **state) {
    (void)state;
    const hr_store_options options = patient();
    redis_server_do(&shared, "HSET hr:item:a f 1");
    redis_server_do(&shared, "LPUSH hr:item:b 1");
    redis_server_do(&shared, "SET hr:item:c c");
    hr_store *store = open_store(&shared, "", &options);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    const char *const items[] = {"a", "b", "c"};
    hr_fetch fetch = fetch_of(arena, NULL, items, 3);
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_OK);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_MISSING);
    assert_int_equal(fetch.items[1].kind, HR_RECORD_MISSING);
    expect_packed(&fetch.items[2], "c");
    hr_store_close(store);
    hr_arena_destroy(arena);
}

static void the_prefix_and_the_database_of_the_uri_are_used(void **state) {
    (void)state;
    const hr_store_options options = patient();
    redis_server_do(&shared, "SET hr:user:u default");
    redis_server_do(&shared, "SET p%%q:user:u prefixed");
    redis_server_do(&shared, "SET hr:user:two two");
    redis_server_do(&shared, "MOVE hr:user:two 2");
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_store *store = open_store(&shared, "?prefix=p%25q", &options);
    hr_fetch fetch = fetch_of(arena, "u", NULL, 0);
    hr_store_fetch_wait(store, &fetch);
    expect_packed(&fetch.user, "prefixed");
    hr_store_close(store);

    redis_server second = shared;
    snprintf(second.uri, sizeof second.uri, "redis://localhost:%u/2", shared.port);
    store = open_store(&second, "", &options);
    fetch = fetch_of(arena, "two", NULL, 0);
    hr_store_fetch_wait(store, &fetch);
    assert_string_equal(fetch.error.message, "");
    expect_packed(&fetch.user, "two");
    hr_store_close(store);
    hr_arena_destroy(arena);
}

static void a_huge_multi_get_finds_every_record_in_its_place(void **state) {
    (void)state;
    enum { N = 20000 };
    const hr_store_options options = patient();
    char(*texts)[16] = calloc(N, sizeof *texts);
    const char **items = calloc(N, sizeof *items);
    for (size_t i = 0; i < N; i++) {
        snprintf(texts[i], sizeof texts[i], "i%zu", i);
        items[i] = texts[i];
    }
    redis_server_do(&shared, "EVAL %s 0",
                    "for i = 0, 19999, 3 do redis.call('SET', 'hr:item:i' .. i, 'value ' .. i) end");
    hr_store *store = open_store(&shared, "", &options);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = fetch_of(arena, "nobody", items, N);
    hr_store_fetch_wait(store, &fetch);
    assert_string_equal(fetch.error.message, "");
    for (size_t i = 0; i < N; i++) {
        char expected[32];
        snprintf(expected, sizeof expected, "value %zu", i);
        if (i % 3 == 0)
            expect_packed(&fetch.items[i], expected);
        else
            assert_int_equal(fetch.items[i].kind, HR_RECORD_MISSING);
    }
    hr_store_close(store);
    hr_arena_destroy(arena);
    free(items);
    free(texts);
}

static void values_past_the_arenas_cap_are_missing_and_said(void **state) {
    (void)state;
    const hr_store_options options = patient();
    redis_server_do(&shared, "SET hr:item:small small");
    redis_server_do(&shared, "EVAL %s 0", "redis.call('SET', 'hr:item:big', string.rep('x', 40000000))");
    hr_store *store = open_store(&shared, "", &options);
    hr_arena *arena = hr_arena_create(1 << 20);
    const char *const items[] = {"big", "small"};
    hr_fetch fetch = fetch_of(arena, NULL, items, 2);
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_RESOURCE_EXHAUSTED);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_MISSING);
    expect_packed(&fetch.items[1], "small");
    hr_arena_destroy(arena);

    arena = hr_arena_create(16);
    fetch = fetch_of(arena, NULL, items, 2);
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_RESOURCE_EXHAUSTED);
    assert_null(fetch.items);
    hr_arena_destroy(arena);
    hr_store_close(store);
}

static void a_hash_that_does_not_fit_is_missing_as_a_whole(void **state) {
    (void)state;
    const hr_store_options options = patient();
    redis_server_do(&shared, "HSET hr:item:whole a 1 b 2");
    redis_server_do(&shared, "EVAL %s 0",
                    "redis.call('HSET', 'hr:item:big', 'a', '1', 'b', string.rep('x', 100000))");
    hr_store *store = open_store(&shared, "?layout=hash", &options);
    hr_arena *arena = hr_arena_create(10000);
    const char *const names[] = {"a", "b"};
    const hr_field_list fields = {names, 2};
    const char *const items[] = {"whole", "big"};
    hr_fetch fetch = fetch_of(arena, NULL, items, 2);
    fetch.fields[HR_ENTITY_ITEM] = &fields;
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_RESOURCE_EXHAUSTED);
    assert_int_equal(fetch.items[0].kind, HR_RECORD_FIELDS);
    assert_int_equal(fetch.items[1].kind, HR_RECORD_MISSING);
    hr_store_close(store);
    hr_arena_destroy(arena);
}

static void a_deadline_that_has_passed_is_not_asked_for(void **state) {
    (void)state;
    const hr_store_options options = patient();
    hr_store *store = open_store(&shared, "", &options);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = fetch_of(arena, "u", NULL, 0);
    fetch.deadline_ns = hr_clock_ns();
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_DEADLINE_EXCEEDED);
    hr_store_close(store);
    hr_arena_destroy(arena);
}

/* --- access --------------------------------------------------------------------------------------------- */

static hr_error error_of_one_fetch(const char *uri) {
    const hr_store_options options = patient();
    hr_store *store;
    hr_error err = {0};
    assert_int_equal(hr_store_open(uri, &options, &store, &err), HR_OK);
    assert_null(strstr(hr_store_label(store), "secret"));
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = fetch_of(arena, "u", NULL, 0);
    hr_store_fetch_wait(store, &fetch);
    hr_error error = fetch.error;
    if (error.code == HR_OK) expect_packed(&fetch.user, "user");
    hr_store_close(store);
    hr_arena_destroy(arena);
    return error;
}

static void a_password_is_asked_for_and_given(void **state) {
    (void)state;
    redis_server server;
    char uri[256];
    redis_server_start(&server, "s/e?cret");
    redis_server_do(&server, "SET hr:user:u user");
    redis_server_do(&server, "ACL SETUSER ranker on >secret2 ~* +@all");

    hr_error error = error_of_one_fetch(server.uri);
    assert_int_equal(error.code, HR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "NOAUTH"));

    snprintf(uri, sizeof uri, "redis://:wrong@127.0.0.1:%u", server.port);
    error = error_of_one_fetch(uri);
    assert_int_equal(error.code, HR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "WRONGPASS"));

    snprintf(uri, sizeof uri, "redis://:s%%2Fe%%3fcret@127.0.0.1:%u", server.port);
    assert_string_equal(error_of_one_fetch(uri).message, "");
    snprintf(uri, sizeof uri, "redis://ranker:secret2@127.0.0.1:%u/", server.port);
    assert_string_equal(error_of_one_fetch(uri).message, "");
    setenv("HOMERANK_REDIS_PASSWORD", "secret2", 1);
    snprintf(uri, sizeof uri, "redis://ranker@127.0.0.1:%u/0", server.port);
    assert_string_equal(error_of_one_fetch(uri).message, "");
    unsetenv("HOMERANK_REDIS_PASSWORD");

    snprintf(uri, sizeof uri, "redis://:s%%2Fe%%3fcret@127.0.0.1:%u/99", server.port);
    error = error_of_one_fetch(uri);
    assert_non_null(strstr(error.message, "SELECT refused"));
    redis_server_kill(&server);
}

/* It repeats the arguments of a command that it does not know. */
static void a_server_that_does_not_know_auth_does_not_make_the_password_known(void **state) {
    (void)state;
    redis_server server;
    char uri[256];
    redis_server_start_without(&server, "AUTH");
    snprintf(uri, sizeof uri, "redis://ranker:secret2@127.0.0.1:%u", server.port);
    hr_error error = error_of_one_fetch(uri);
    assert_int_equal(error.code, HR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "AUTH refused: \"ERR unknown command\""));
    assert_null(strstr(error.message, "secret2"));
    redis_server_kill(&server);
}

/* --- what happens to servers ---------------------------------------------------------------------------- */

static void no_server_fails_a_fetch_at_once_and_names_itself(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_kill(&server);
    const hr_store_options options = patient();
    hr_store *store = open_store(&server, "", &options);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    for (int i = 0; i < 100; i++) {
        const char *const items[] = {"a"};
        hr_fetch fetch = fetch_of(arena, "u", items, 1);
        uint64_t begin_ns = hr_clock_ns();
        hr_store_fetch_wait(store, &fetch);
        assert_true(hr_clock_ns() - begin_ns < 5 * second_ns);
        assert_int_equal(fetch.error.code, HR_UNAVAILABLE);
        assert_non_null(strstr(fetch.error.message, "127.0.0.1:"));
        assert_non_null(strstr(fetch.error.message, "refused"));
        assert_int_equal(fetch.items[0].kind, HR_RECORD_MISSING);
    }
    redis_server_restart(&server);
    redis_server_do(&server, "SET hr:user:u user");
    wait_until_found(store);
    hr_store_close(store);
    hr_arena_destroy(arena);
    redis_server_kill(&server);
}

static void a_host_that_does_not_resolve_is_said(void **state) {
    (void)state;
    hr_error error = error_of_one_fetch("redis://no-such-host.invalid:6379");
    assert_int_equal(error.code, HR_UNAVAILABLE);
    assert_non_null(strstr(error.message, "no-such-host.invalid"));
}

/* A fetch that counts how often it was done. */
typedef struct counted {
    hr_fetch fetch;
    atomic_int n_done;
} counted;

static void count_done(hr_fetch *fetch) {
    atomic_fetch_add(&((counted *)fetch->arg)->n_done, 1);
}

enum { N_COUNTED = 200 };

static counted *start_counted(hr_store *store, const char *const *items, size_t n_items) {
    counted *all = calloc(N_COUNTED, sizeof *all);
    for (size_t i = 0; i < N_COUNTED; i++) {
        all[i].fetch = fetch_of(hr_arena_create(ARENA_NBYTES), "u", items, n_items);
        all[i].fetch.done = count_done;
        all[i].fetch.arg = &all[i];
        hr_store_fetch(store, &all[i].fetch);
    }
    return all;
}

static void wait_for_counted(counted *all) {
    uint64_t end_ns = hr_clock_ns() + 30 * second_ns;
    for (size_t i = 0; i < N_COUNTED; i++)
        while (atomic_load(&all[i].n_done) == 0) {
            if (hr_clock_ns() > end_ns) fail_msg("fetch %zu is not done", i);
            usleep(1000);
        }
}

static void end_counted(counted *all) {
    for (size_t i = 0; i < N_COUNTED; i++) {
        assert_int_equal(atomic_load(&all[i].n_done), 1);
        hr_arena_destroy(all[i].fetch.arena);
    }
    free(all);
}

static void a_server_killed_in_flight_loses_no_fetch_and_comes_back(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:user:u user");
    const hr_store_options options = patient();
    hr_store *store = open_store(&server, "", &options);
    wait_until_found(store);

    redis_server_signal(&server, SIGSTOP); /* so that the fetches are under way when it dies */
    counted *all = start_counted(store, NULL, 0);
    redis_server_kill(&server);
    wait_for_counted(all);
    for (size_t i = 0; i < N_COUNTED; i++) {
        assert_int_equal(all[i].fetch.error.code, HR_UNAVAILABLE);
        assert_int_equal(all[i].fetch.user.kind, HR_RECORD_MISSING);
    }
    redis_server_restart(&server);
    redis_server_do(&server, "SET hr:user:u user");
    wait_until_found(store);
    hr_store_close(store);
    end_counted(all);
    redis_server_kill(&server);
}

static void a_stopped_server_costs_a_fetch_its_timeout_and_no_more(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:user:u user");
    hr_store_options options = patient();
    options.command_timeout_ms = 200;
    hr_store *store = open_store(&server, "", &options);
    wait_until_found(store);
    redis_server_signal(&server, SIGSTOP);

    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = fetch_of(arena, "u", NULL, 0);
    fetch.deadline_ns = hr_clock_ns() + second_ns / 50;
    hr_store_fetch_wait(store, &fetch);
    assert_true(hr_clock_ns() >= fetch.deadline_ns);
    assert_int_equal(fetch.error.code, HR_DEADLINE_EXCEEDED);
    assert_non_null(strstr(fetch.error.message, "deadline"));

    uint64_t begin_ns = hr_clock_ns();
    fetch = fetch_of(arena, "u", NULL, 0);
    hr_store_fetch_wait(store, &fetch);
    uint64_t took_ns = hr_clock_ns() - begin_ns;
    assert_true(took_ns < 5 * second_ns);
    assert_true(fetch.error.code == HR_DEADLINE_EXCEEDED || fetch.error.code == HR_UNAVAILABLE);
    assert_non_null(strstr(fetch.error.message, "no answer"));
    assert_int_equal(fetch.user.kind, HR_RECORD_MISSING);

    redis_server_signal(&server, SIGCONT);
    wait_until_found(store);
    hr_store_close(store);
    hr_arena_destroy(arena);
    redis_server_kill(&server);
}

static void late_answers_do_not_reach_fetches_that_are_done(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:user:u user");
    const hr_store_options options = patient();
    hr_store *store = open_store(&server, "", &options);
    wait_until_found(store);
    redis_server_signal(&server, SIGSTOP);
    counted *all = calloc(N_COUNTED, sizeof *all);
    for (size_t i = 0; i < N_COUNTED; i++) {
        all[i].fetch = fetch_of(hr_arena_create(ARENA_NBYTES), "u", NULL, 0);
        all[i].fetch.deadline_ns = hr_clock_ns() + second_ns / 20;
        all[i].fetch.done = count_done;
        all[i].fetch.arg = &all[i];
        hr_store_fetch(store, &all[i].fetch);
    }
    wait_for_counted(all);
    for (size_t i = 0; i < N_COUNTED; i++) {
        assert_int_equal(all[i].fetch.error.code, HR_DEADLINE_EXCEEDED);
        hr_arena_destroy(all[i].fetch.arena); /* a late answer would be written into freed memory */
        all[i].fetch.arena = NULL;
    }
    redis_server_signal(&server, SIGCONT);
    wait_until_found(store); /* behind the late answers on the same connections */
    wait_until_found(store);
    hr_store_close(store);
    end_counted(all);
    redis_server_kill(&server);
}

static void closing_finishes_every_fetch_under_way(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:user:u user");
    const hr_store_options options = patient();
    hr_store *store = open_store(&server, "", &options);
    wait_until_found(store);
    redis_server_signal(&server, SIGSTOP);
    counted *all = start_counted(store, NULL, 0);
    hr_store_close(store);
    end_counted(all);
    redis_server_kill(&server);
}

static void a_refusal_is_an_error_with_its_text(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:user:u user");
    redis_server_do(&server, "ACL SETUSER default -mget -get");
    const hr_store_options options = patient();
    hr_store *store = open_store(&server, "", &options);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = fetch_of(arena, "u", NULL, 0);
    hr_store_fetch_wait(store, &fetch);
    assert_int_equal(fetch.error.code, HR_UNAVAILABLE);
    assert_non_null(strstr(fetch.error.message, "NOPERM"));
    redis_server_do(&server, "ACL SETUSER default +mget +get");
    wait_until_found(store);
    hr_store_close(store);
    hr_arena_destroy(arena);
    redis_server_kill(&server);
}

/* --- many threads --------------------------------------------------------------------------------------- */

enum { N_THREADS = 4, FETCHES_PER_THREAD = 300, ITEMS_PER_FETCH = 50 };

static void *fetch_often(void *arg) {
    hr_store *store = arg;
    size_t n_wrong = 0;
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    for (size_t k = 0; k < FETCHES_PER_THREAD; k++) {
        char texts[ITEMS_PER_FETCH][16];
        const char *items[ITEMS_PER_FETCH];
        for (size_t i = 0; i < ITEMS_PER_FETCH; i++) {
            snprintf(texts[i], sizeof texts[i], "i%zu", (k * 7 + i * 13) % 1000);
            items[i] = texts[i];
        }
        hr_fetch fetch = fetch_of(arena, NULL, items, ITEMS_PER_FETCH);
        hr_store_fetch_wait(store, &fetch);
        for (size_t i = 0; i < ITEMS_PER_FETCH; i++) {
            const hr_record *r = &fetch.items[i];
            n_wrong += r->kind != HR_RECORD_PACKED || r->nbytes != strlen(texts[i]) ||
                       memcmp(r->data, texts[i], r->nbytes) != 0;
        }
        hr_arena_reset(arena);
    }
    hr_arena_destroy(arena);
    return (void *)n_wrong;
}

static void threads_get_their_own_answers(void **state) {
    (void)state;
    const hr_store_options options = patient();
    redis_server_do(&shared, "EVAL %s 0",
                    "for i = 0, 999 do redis.call('SET', 'hr:item:i' .. i, 'i' .. i) end");
    hr_store *store = open_store(&shared, "", &options);
    pthread_t threads[N_THREADS];
    for (size_t i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fetch_often, store), 0);
    for (size_t i = 0; i < N_THREADS; i++) {
        void *n_wrong;
        pthread_join(threads[i], &n_wrong);
        assert_int_equal((size_t)n_wrong, 0);
    }
    hr_store_close(store);
}

static void threads_survive_a_server_that_comes_and_goes(void **state) {
    (void)state;
    redis_server server;
    redis_server_start(&server, "");
    hr_store_options options = hr_store_defaults;
    options.command_timeout_ms = 100;
    hr_store *store = open_store(&server, "", &options);
    pthread_t threads[N_THREADS];
    for (size_t i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fetch_often, store), 0);
    for (int i = 0; i < 5; i++) redis_server_restart(&server);
    for (size_t i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    redis_server_do(&server, "SET hr:user:u user");
    wait_until_found(store);
    hr_store_close(store);
    redis_server_kill(&server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(packed_records_come_back_as_they_were_set, empty_shared),
        cmocka_unit_test_setup(hash_records_come_back_field_by_field, empty_shared),
        cmocka_unit_test_setup(a_packed_key_of_another_type_is_missing, empty_shared),
        cmocka_unit_test_setup(the_prefix_and_the_database_of_the_uri_are_used, empty_shared),
        cmocka_unit_test_setup(a_huge_multi_get_finds_every_record_in_its_place, empty_shared),
        cmocka_unit_test_setup(values_past_the_arenas_cap_are_missing_and_said, empty_shared),
        cmocka_unit_test_setup(a_hash_that_does_not_fit_is_missing_as_a_whole, empty_shared),
        cmocka_unit_test_setup(a_deadline_that_has_passed_is_not_asked_for, empty_shared),
        cmocka_unit_test(a_password_is_asked_for_and_given),
        cmocka_unit_test(a_server_that_does_not_know_auth_does_not_make_the_password_known),
        cmocka_unit_test(no_server_fails_a_fetch_at_once_and_names_itself),
        cmocka_unit_test(a_host_that_does_not_resolve_is_said),
        cmocka_unit_test(a_server_killed_in_flight_loses_no_fetch_and_comes_back),
        cmocka_unit_test(a_stopped_server_costs_a_fetch_its_timeout_and_no_more),
        cmocka_unit_test(late_answers_do_not_reach_fetches_that_are_done),
        cmocka_unit_test(closing_finishes_every_fetch_under_way),
        cmocka_unit_test(a_refusal_is_an_error_with_its_text),
        cmocka_unit_test_setup(threads_get_their_own_answers, empty_shared),
        cmocka_unit_test(threads_survive_a_server_that_comes_and_goes),
    };
    return cmocka_run_group_tests(tests, start_shared, stop_shared);
}
