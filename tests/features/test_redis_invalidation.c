/* Invalidation against a real redis-server: every change under the prefix is told, and whenever changes may
 * have gone unseen, that is told too. */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "features/redis_invalidation.h"
#include "tests/features/redis_server.h"
#include "tests/features/tcp_proxy.h"

enum { PATIENT_MS = 20000 };
static const uint64_t ms_ns = 1000000;

/* What has been told, on a loop that the test runs itself. */
typedef struct watch {
    uv_loop_t loop;
    uv_timer_t tick; /* so that the loop comes back */
    hr_redis_invalidation *invalidation;
    bool covered;
    unsigned n_begun, n_lost, n_emptied, n_changed;
    char keys[4096]; /* "key key " */
    char reason[256];
} watch;

static void on_covered(void *context, bool covered, const char *reason) {
    watch *w = context;
    w->covered = covered;
    w->n_begun += covered;
    w->n_lost += !covered;
    snprintf(w->reason, sizeof w->reason, "%s", reason);
}

static void on_changed(void *context, const char *key, size_t nbytes) {
    watch *w = context;
    size_t n = strlen(w->keys);
    w->n_changed++;
    snprintf(w->keys + n, sizeof w->keys - n, "%.*s ", (int)nbytes, key);
}

static void on_emptied(void *context) {
    ((watch *)context)->n_emptied++;
}

static void on_tick(uv_timer_t *tick) {
    (void)tick;
}

static void begin(watch *w, uint16_t port, uint32_t heartbeat_ms) {
    memset(w, 0, sizeof *w);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->tick);
    uv_timer_start(&w->tick, on_tick, 1, 1);
    const hr_redis_server server = {.host = "127.0.0.1",
                                    .port = port,
                                    .user = "",
                                    .password = "",
                                    .connect_timeout_ms = PATIENT_MS,
                                    .stall_timeout_ms = PATIENT_MS};
    const hr_redis_invalidation_listener listener = {w, on_covered, on_changed, on_emptied};
    w->invalidation = hr_redis_invalidation_create(&w->loop, &server, "hr:", 3, heartbeat_ms, listener);
    assert_non_null(w->invalidation);
}

static void end(watch *w) {
    hr_redis_invalidation_close(w->invalidation);
    uv_close((uv_handle_t *)&w->tick, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
}

/* Runs the loop until the count has grown to n; the time that took, in ms. */
static uint64_t wait_for(watch *w, const unsigned *count, unsigned n) {
    const uint64_t begun_ns = hr_clock_ns();
    while (*count < n) {
        uv_run(&w->loop, UV_RUN_ONCE);
        if (hr_clock_ns() - begun_ns > PATIENT_MS * ms_ns)
            fail_msg("%u of %u after 20 s (%s)", *count, n, w->reason);
    }
    return (hr_clock_ns() - begun_ns) / ms_ns;
}

static void every_change_under_the_prefix_is_told(void **state) {
    (void)state;
    redis_server server;
    watch w;
    redis_server_start(&server, "");
    redis_server_do(&server, "SET hr:item:old x");
    begin(&w, server.port, PATIENT_MS);
    wait_for(&w, &w.n_begun, 1);
    redis_server_do(&server, "SET other:item:1 x");
    redis_server_do(&server, "SET hr:item:1 x");
    wait_for(&w, &w.n_changed, 1);
    redis_server_do(&server, "HSET hr:user:u age 1");
    wait_for(&w, &w.n_changed, 2);
    redis_server_do(&server, "DEL hr:item:old");
    wait_for(&w, &w.n_changed, 3);
    redis_server_do(&server, "PEXPIRE hr:item:1 1");
    wait_for(&w, &w.n_changed, 5); /* the expiry was set, and came */
    assert_string_equal(w.keys, "hr:item:1 hr:user:u hr:item:old hr:item:1 hr:item:1 ");
    redis_server_do(&server, "MSET hr:item:a 1 other 2 hr:item:b 3");
    wait_for(&w, &w.n_changed, 7);
    assert_int_equal(w.n_emptied, 0);
    redis_server_do(&server, "FLUSHALL");
    wait_for(&w, &w.n_emptied, 1);
    assert_int_equal(w.n_begun, 1);
    assert_int_equal(w.n_lost, 0);
    end(&w);
    redis_server_kill(&server);
}

static void a_lost_connection_is_told_and_made_anew(void **state) {
    (void)state;
    redis_server server;
    watch w;
    redis_server_start(&server, "");
    begin(&w, server.port, PATIENT_MS);
    wait_for(&w, &w.n_begun, 1);
    redis_server_do(&server, "CLIENT KILL TYPE pubsub");
    wait_for(&w, &w.n_lost, 1);
    assert_false(w.covered);
    wait_for(&w, &w.n_begun, 2);
    redis_server_do(&server, "SET hr:item:1 x");
    wait_for(&w, &w.n_changed, 1);
    redis_server_restart(&server);
    wait_for(&w, &w.n_lost, 2);
    wait_for(&w, &w.n_begun, 3);
    end(&w);
    redis_server_kill(&server);
}

static void a_black_hole_is_found_within_the_heartbeat(void **state) {
    (void)state;
    enum { HEARTBEAT_MS = 400 };
    redis_server server;
    tcp_proxy proxy;
    watch w;
    redis_server_start(&server, "");
    tcp_proxy_start(&proxy, server.port);
    begin(&w, proxy.port, HEARTBEAT_MS);
    wait_for(&w, &w.n_begun, 1);
    const uint64_t until_ns = hr_clock_ns() + 3 * HEARTBEAT_MS * ms_ns; /* a quiet connection lives on */
    while (hr_clock_ns() < until_ns) uv_run(&w.loop, UV_RUN_ONCE);
    assert_int_equal(w.n_lost, 0);
    tcp_proxy_hold(&proxy, TCP_PROXY_EVERYTHING);
    uint64_t took_ms = wait_for(&w, &w.n_lost, 1);
    assert_non_null(strstr(w.reason, "heartbeat of 400 ms"));
    assert_in_range(took_ms, 0, HEARTBEAT_MS + 100); /* the rest is for a busy machine */
    tcp_proxy_hold(&proxy, TCP_PROXY_NOTHING);
    wait_for(&w, &w.n_begun, 2);
    end(&w);
    tcp_proxy_stop(&proxy);
    redis_server_kill(&server);
}

static void a_server_that_cannot_track_says_why(void **state) {
    (void)state;
    redis_server server;
    watch w;
    redis_server_start_without(&server, "CLIENT");
    begin(&w, server.port, PATIENT_MS);
    wait_for(&w, &w.n_lost, 1);
    assert_false(w.covered);
    assert_non_null(strstr(w.reason, "unknown command"));
    end(&w);
    redis_server_kill(&server);
}

/* --- answers that Redis never gives, from a socket that plays a script ---------------------------------- */

typedef struct script_server {
    int listener;
    const char *const *answers; /* to each command after the first PING; NULL ends it */
} script_server;

/* Every command here is an array of texts: its last line ends it. */
static bool read_command(int fd) {
    char bytes[512];
    return recv(fd, bytes, sizeof bytes, 0) > 0;
}

static void *play(void *arg) {
    const script_server *s = arg;
    int fd = accept(s->listener, NULL, NULL);
    bool open = read_command(fd) && send(fd, "+PONG\r\n", 7, MSG_NOSIGNAL) == 7;
    for (size_t i = 0; open && s->answers[i] != NULL; i++)
        open = read_command(fd) && send(fd, s->answers[i], strlen(s->answers[i]), MSG_NOSIGNAL) > 0;
    while (open && read_command(fd)) {
    }
    close(fd);
    close(s->listener); /* nobody else is answered */
    return NULL;
}

static void expect_lost(const char *const *answers, bool once_covered) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    script_server s = {.listener = socket(AF_INET, SOCK_STREAM, 0), .answers = answers};
    pthread_t thread;
    watch w;
    assert_int_equal(bind(s.listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(s.listener, 1), 0);
    assert_int_equal(getsockname(s.listener, (struct sockaddr *)&address, &n), 0);
    assert_int_equal(pthread_create(&thread, NULL, play, &s), 0);
    begin(&w, ntohs(address.sin_port), PATIENT_MS);
    wait_for(&w, &w.n_lost, 1);
    assert_int_equal(w.n_begun, once_covered);
    assert_false(w.covered);
    assert_int_equal(w.n_changed + w.n_emptied, 0);
    end(&w);
    pthread_join(thread, NULL);
}

#define SUBSCRIBED "*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n"
#define MESSAGE    "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n"

static void answers_of_another_kind_end_the_cover(void **state) {
    (void)state;
    static const char *const setups[][4] = {
        {"+OK\r\n"},
        {":7\r\n", ":1\r\n"},
        {":7\r\n", "+OK\r\n", "+OK\r\n"},
        {":7\r\n", "+OK\r\n", "*3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:1\r\n"},
        {":7\r\n", "$-1\r\n"},
        {"*2147483647\r\n"},
        {"?\r\n"},
    };
    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++) expect_lost(setups[i], false);
    static const char *const messages[] = {
        SUBSCRIBED MESSAGE ":1\r\n",
        SUBSCRIBED MESSAGE "*2\r\n$6\r\nhr:a:b\r\n:1\r\n",
        SUBSCRIBED MESSAGE "*2147483647\r\n",
        SUBSCRIBED MESSAGE "*4194305\r\n",
        SUBSCRIBED "-ERR no\r\n",
        SUBSCRIBED "*3\r\n$7\r\nmessage\r\n$5\r\nother\r\n$-1\r\n",
        SUBSCRIBED "*-1\r\n",
    };
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        const char *const answers[] = {":7\r\n", "+OK\r\n", messages[i], NULL};
        expect_lost(answers, true);
    }
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_change_under_the_prefix_is_told),
        cmocka_unit_test(a_lost_connection_is_told_and_made_anew),
        cmocka_unit_test(a_black_hole_is_found_within_the_heartbeat),
        cmocka_unit_test(a_server_that_cannot_track_says_why),
        cmocka_unit_test(answers_of_another_kind_end_the_cover),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
