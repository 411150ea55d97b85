/* A server under more than it can do, or that answers too late, or loses connections: who waits, who does
 * not, and what is sent at all. */
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
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "features/redis_breaker.h"
#include "features/store.h"
#include "tests/features/redis_server.h"

enum { ARENA_NBYTES = 64 << 20, N_ITEMS = 500 };
static const uint64_t ms_ns = 1000000, second_ns = 1000000000;

static char ids[N_ITEMS][16];
static const char *items[N_ITEMS]; /* "0" ... */

static int start(void **state) {
    (void)state;
    for (unsigned i = 0; i < N_ITEMS; i++) {
        snprintf(ids[i], sizeof ids[i], "%u", i);
        items[i] = ids[i];
    }
    return 0;
}

static void start_server(redis_server *server) {
    redis_server_start(server, "");
    redis_server_do(server, "EVAL %s 0",
                    "for i = 0, 499 do redis.call('SET', 'hr:item:' .. i, 'value' .. i) end");
}

/* Patient enough for a busy machine: deadlines are what these tests are about. */
static hr_store *open_store(const redis_server *server) {
    hr_store_options options = hr_store_defaults;
    options.command_timeout_ms = 20000;
    options.connect_timeout_ms = 20000;
    hr_store *store;
    hr_error err = {0};
    if (hr_store_open(server->uri, &options, &store, &err) != HR_OK) fail_msg("%s", err.message);
    return store;
}

static hr_store_counts counts_of(const hr_store *store) {
    hr_store_counts counts;
    hr_store_count(store, &counts);
    return counts;
}

/* One fetch of all items; its error. */
static hr_error fetch_within(hr_store *store, uint64_t ns) {
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_fetch fetch = {.item_ids = items,
                      .n_items = N_ITEMS,
                      .deadline_ns = ns == UINT64_MAX ? UINT64_MAX : hr_clock_ns() + ns,
                      .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    for (size_t i = 0; i < N_ITEMS; i++) {
        assert_int_equal(fetch.items[i].kind == HR_RECORD_PACKED, fetch.items[i].answered);
        assert_true(fetch.items[i].answered || fetch.error.code != HR_OK);
    }
    hr_arena_destroy(arena);
    return fetch.error;
}

static void wait_until_whole(hr_store *store) {
    for (uint64_t end_ns = hr_clock_ns() + 20 * second_ns;;) {
        hr_error error = fetch_within(store, UINT64_MAX);
        if (error.code == HR_OK) return;
        if (hr_clock_ns() > end_ns) fail_msg("%s", error.message);
        usleep(1000);
    }
}

static void what_is_done_is_counted(void **state) {
    (void)state;
    redis_server server;
    start_server(&server);
    hr_store *store = open_store(&server);
    assert_int_equal(fetch_within(store, UINT64_MAX).code, HR_OK);
    hr_store_counts counts = counts_of(store);
    assert_int_equal(counts.fetches, 1);
    assert_int_equal(counts.records, N_ITEMS);
    assert_int_equal(counts.commands, 1);
    assert_int_equal(counts.bytes, 10 * 6 + 90 * 7 + 400 * 8); /* "value0" ... */
    assert_true(counts.connects >= 1 && counts.connects <= 2);
    assert_int_equal(counts.degraded + counts.timeouts + counts.retries + counts.disconnects, 0);
    redis_server_kill(&server);
    assert_int_not_equal(fetch_within(store, UINT64_MAX).code, HR_OK);
    counts = counts_of(store);
    assert_int_equal(counts.fetches, 2);
    assert_int_equal(counts.degraded, 1);
    assert_true(counts.disconnects > 0);
    hr_store_close(store);
}

static void a_server_that_does_not_answer_is_not_asked_until_it_does(void **state) {
    (void)state;
    enum { DEADLINE_MS = 50 };
    redis_server server;
    start_server(&server);
    hr_store *store = open_store(&server);
    wait_until_whole(store);
    redis_server_signal(&server, SIGSTOP);
    for (int i = 0; i < HR_BREAKER_FAILURES; i++) {
        uint64_t begun_ns = hr_clock_ns();
        hr_error error = fetch_within(store, DEADLINE_MS * ms_ns);
        assert_int_equal(error.code, HR_DEADLINE_EXCEEDED);
        assert_true(hr_clock_ns() - begun_ns >= DEADLINE_MS * ms_ns);
    }
    assert_int_equal(counts_of(store).breaker_opens, 1);
    assert_int_equal(counts_of(store).timeouts, HR_BREAKER_FAILURES);
    for (int i = 0; i < 100; i++) {
        uint64_t begun_ns = hr_clock_ns();
        hr_error error = fetch_within(store, 20 * second_ns);
        assert_true(hr_clock_ns() - begun_ns < 5 * second_ns);
        assert_int_equal(error.code, HR_UNAVAILABLE);
        assert_non_null(
            strstr(error.message, "not asked after 5 failures in a row, the last: the call's deadline"));
    }
    assert_int_equal(counts_of(store).breaker_refusals, 100 * N_ITEMS);
    redis_server_signal(&server, SIGCONT);
    wait_until_whole(store);
    assert_int_equal(counts_of(store).disconnects, 0);
    hr_store_close(store);
    redis_server_kill(&server);
}

/* It answers all it is asked, but never in time. */
static void a_server_that_is_always_late_is_not_asked_either(void **state) {
    (void)state;
    redis_server server;
    start_server(&server);
    hr_store *store = open_store(&server);
    wait_until_whole(store);
    for (unsigned i = 1; i <= HR_BREAKER_FAILURES; i++) {
        redis_server_signal(&server, SIGSTOP);
        assert_int_equal(fetch_within(store, 50 * ms_ns).code, HR_DEADLINE_EXCEEDED);
        redis_server_signal(&server, SIGCONT);
        while (counts_of(store).late_records < i * N_ITEMS) usleep(1000);
    }
    assert_int_equal(counts_of(store).breaker_opens, 1);
    wait_until_whole(store);
    hr_store_close(store);
    redis_server_kill(&server);
}

static void count_done(hr_fetch *fetch) {
    atomic_fetch_add((atomic_uint *)fetch->arg, 1);
}

static unsigned n_multi_gets(const redis_server *server) {
    redisReply *reply = redis_server_ask(server, "INFO commandstats");
    assert_true(reply != NULL && reply->type == REDIS_REPLY_STRING);
    const char *at = strstr(reply->str, "cmdstat_mget:calls=");
    unsigned n = at != NULL ? (unsigned)atoi(at + strlen("cmdstat_mget:calls=")) : 0;
    freeReplyObject(reply);
    return n;
}

enum { N_FETCHES = 60, MOST_UNDER_WAY = 2 * (4096 / N_ITEMS) };

/* More at once than may be under way; all with the same deadline. */
typedef struct crowd {
    hr_fetch fetches[N_FETCHES];
    atomic_uint n_done;
} crowd;

static crowd *crowd_start(hr_store *store, uint64_t deadline_ns) {
    crowd *all = calloc(1, sizeof *all);
    for (int i = 0; i < N_FETCHES; i++) {
        all->fetches[i] = (hr_fetch){.item_ids = items,
                                     .n_items = N_ITEMS,
                                     .deadline_ns = deadline_ns,
                                     .arena = hr_arena_create(ARENA_NBYTES),
                                     .done = count_done,
                                     .arg = &all->n_done};
        hr_store_fetch(store, &all->fetches[i]);
    }
    return all;
}

/* How many were answered in full. */
static unsigned crowd_end(crowd *all) {
    unsigned n_whole = 0;
    while (atomic_load(&all->n_done) < N_FETCHES) usleep(1000);
    for (int i = 0; i < N_FETCHES; i++) {
        n_whole += all->fetches[i].error.code == HR_OK;
        hr_arena_destroy(all->fetches[i].arena);
    }
    free(all);
    return n_whole;
}

static hr_store *open_store_of_two(const redis_server *server) {
    hr_store *store = open_store(server);
    for (uint64_t end_ns = hr_clock_ns() + 20 * second_ns; counts_of(store).connects < 2;) {
        assert_true(hr_clock_ns() < end_ns);
        usleep(1000);
    }
    wait_until_whole(store);
    return store;
}

static void what_waits_for_room_is_answered(void **state) {
    (void)state;
    redis_server server;
    start_server(&server);
    hr_store *store = open_store_of_two(&server);
    redis_server_signal(&server, SIGSTOP);
    crowd *all = crowd_start(store, UINT64_MAX);
    while (counts_of(store).commands < MOST_UNDER_WAY) usleep(1000);
    redis_server_signal(&server, SIGCONT);
    assert_int_equal(crowd_end(all), N_FETCHES);
    hr_store_close(store);
    redis_server_kill(&server);
}

/* What has been sent cannot be called back: the rest waits here, and is not sent once nobody wants it. */
static void little_is_under_way_and_nothing_is_sent_too_late(void **state) {
    (void)state;
    redis_server server;
    start_server(&server);
    hr_store *store = open_store_of_two(&server);
    redis_server_do(&server, "CONFIG RESETSTAT");
    redis_server_signal(&server, SIGSTOP);
    assert_int_equal(crowd_end(crowd_start(store, hr_clock_ns() + second_ns / 2)), 0);
    redis_server_signal(&server, SIGCONT);
    while (counts_of(store).late_records == 0) usleep(1000);
    wait_until_whole(store);
    assert_in_range(n_multi_gets(&server), 2,
                    MOST_UNDER_WAY + 1); /* and one that found the server well again */
    assert_int_equal(counts_of(store).late_records % N_ITEMS, 0);
    hr_store_close(store);
    redis_server_kill(&server);
}

/* --- connections that are lost -------------------------------------------------------------------------- */

typedef struct load {
    hr_store *store;
    atomic_bool stops;
    unsigned n_fetches, n_degraded;
    hr_error error; /* of one that was */
} load;

static void *load_run(void *arg) {
    load *l = arg;
    while (!atomic_load(&l->stops)) {
        hr_error error = fetch_within(l->store, UINT64_MAX);
        l->n_fetches++;
        l->n_degraded += error.code != HR_OK;
        if (error.code != HR_OK) l->error = error;
    }
    return NULL;
}

/* Ends the first connection of somebody else. */
static void kill_a_connection(const redis_server *server) {
    redisReply *list = redis_server_ask(server, "CLIENT LIST");
    assert_true(list != NULL && list->type == REDIS_REPLY_STRING);
    for (char *rest = list->str, *line; (line = strsep(&rest, "\n")) != NULL;) {
        unsigned long id;
        if (strstr(line, "cmd=client") != NULL || sscanf(line, "id=%lu", &id) != 1) continue;
        redis_server_do(server, "CLIENT KILL ID %lu", id);
        break;
    }
    freeReplyObject(list);
}

static void a_lost_connection_is_made_up_for_by_another(void **state) {
    (void)state;
    enum { N_KILLS = 10 };
    redis_server server;
    start_server(&server);
    hr_store *store = open_store(&server);
    wait_until_whole(store);
    load l = {.store = store};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, load_run, &l), 0);
    for (uint64_t k = 0; k < N_KILLS; k++) {
        const uint64_t end_ns = hr_clock_ns() + 20 * second_ns;
        while (counts_of(store).connects < 2 + k) { /* both are there again */
            assert_true(hr_clock_ns() < end_ns);
            usleep(1000);
        }
        kill_a_connection(&server);
        while (counts_of(store).disconnects <= k) {
            assert_true(hr_clock_ns() < end_ns);
            usleep(1000);
        }
    }
    atomic_store(&l.stops, true);
    pthread_join(thread, NULL);
    if (l.n_degraded > 0) fail_msg("%u of %u: %s", l.n_degraded, l.n_fetches, l.error.message);
    assert_true(l.n_fetches > 0);
    hr_store_close(store);
    redis_server_kill(&server);
}

/* --- the log -------------------------------------------------------------------------------------------- */

/* How often the word stands in what is written to stderr meanwhile. */
typedef struct log_watch {
    FILE *file;
    int stderr_fd;
} log_watch;

static log_watch log_watch_begin(void) {
    log_watch watch = {tmpfile(), dup(STDERR_FILENO)};
    assert_true(watch.file != NULL && watch.stderr_fd >= 0);
    dup2(fileno(watch.file), STDERR_FILENO);
    return watch;
}

static size_t log_watch_end(log_watch *watch, const char *word) {
    char line[1024];
    size_t n = 0;
    dup2(watch->stderr_fd, STDERR_FILENO);
    close(watch->stderr_fd);
    rewind(watch->file);
    while (fgets(line, sizeof line, watch->file) != NULL) n += strstr(line, word) != NULL;
    fclose(watch->file);
    return n;
}

/* Of each fetch one record is refused: the other is answered, each time, and that is worth a line or two in
 * all. */
static void a_server_that_refuses_some_records_answers_the_others_and_does_not_flood_the_log(void **state) {
    (void)state;
    enum { N_READS = 200 };
    static const char *const names[] = {"f"};
    static const hr_field_list fields = {names, 1};
    redis_server server;
    hr_store *store;
    char uri[128];
    unsigned n_refused = 0, n_found = 0;
    redis_server_start(&server, "");
    redis_server_do(&server, "ACL SETUSER reader on >secret ~hr:item:* +hmget +ping");
    redis_server_do(&server, "HSET hr:item:1 f x");
    snprintf(uri, sizeof uri, "redis://reader:secret@127.0.0.1:%u?layout=hash", server.port);
    log_watch watch = log_watch_begin();
    assert_int_equal(hr_store_open(uri, &hr_store_defaults, &store, NULL), HR_OK);
    for (int i = 0; i < N_READS; i++) {
        hr_arena *arena = hr_arena_create(ARENA_NBYTES);
        hr_fetch fetch = {.user_id = "u",
                          .item_ids = &items[1],
                          .n_items = 1,
                          .fields = {&fields, &fields},
                          .deadline_ns = UINT64_MAX,
                          .arena = arena};
        hr_store_fetch_wait(store, &fetch);
        n_refused += strstr(fetch.error.message, "NOPERM") != NULL && !fetch.user.answered;
        n_found += fetch.items[0].kind == HR_RECORD_FIELDS;
        hr_arena_destroy(arena);
    }
    hr_store_close(store);
    const size_t n_lines = log_watch_end(&watch, "redis");
    assert_int_equal(n_refused, N_READS);
    assert_int_equal(n_found, N_READS);
    if (n_lines > N_READS / 4) fail_msg("%zu lines of %d reads", n_lines, N_READS);
    redis_server_kill(&server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_done_is_counted),
        cmocka_unit_test(a_server_that_does_not_answer_is_not_asked_until_it_does),
        cmocka_unit_test(a_server_that_is_always_late_is_not_asked_either),
        cmocka_unit_test(what_waits_for_room_is_answered),
        cmocka_unit_test(little_is_under_way_and_nothing_is_sent_too_late),
        cmocka_unit_test(a_lost_connection_is_made_up_for_by_another),
        cmocka_unit_test(a_server_that_refuses_some_records_answers_the_others_and_does_not_flood_the_log),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
