/* A server that answers what Redis never would: the fetch is done with an error, nothing is read past its
 * end, and the connection is given up. The server here is a socket that plays a script: no real one can be
 * made to do this. */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "features/store.h"

typedef struct script {
    const char
        *reply; /* to the MGET of one user and two items; then the connection is closed, or held open */
    bool hold;
    const char *said; /* in the fetch's error; NULL: none is expected */
} script;

typedef struct server {
    int listener;
    uint16_t port;
    const script *script;
} server;

static void listen_on_loopback(server *s) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &n), 0);
    s->port = ntohs(address.sin_port);
}

/* Everything read so far from one client. */
typedef struct heard {
    char bytes[4096];
    size_t n;
} heard;

/* Reads until `mark` has been heard; false at the end. */
static bool read_until(int fd, heard *h, const char *mark) {
    while (memmem(h->bytes, h->n, mark, strlen(mark)) == NULL) {
        ssize_t got = recv(fd, h->bytes + h->n, sizeof h->bytes - h->n, 0);
        if (got <= 0) return false;
        h->n += (size_t)got;
    }
    return true;
}

static void *play(void *arg) {
    server *s = arg;
    heard h = {.n = 0};
    int fd = accept(s->listener, NULL, NULL);
    if (fd < 0) return NULL;
    size_t n = strlen(s->script->reply);
    if (read_until(fd, &h, "PING\r\n") && send(fd, "+PONG\r\n", 7, MSG_NOSIGNAL) == 7 &&
        read_until(fd, &h, "hr:item:b\r\n") && send(fd, s->script->reply, n, MSG_NOSIGNAL) == (ssize_t)n)
        if (s->script->hold) read_until(fd, &h, "the client's end");
    close(fd);
    return NULL;
}

static void play_and_fetch(const script *what) {
    server s = {.script = what};
    pthread_t thread;
    char uri[64];
    hr_store *store;
    hr_error err = {0};
    listen_on_loopback(&s);
    assert_int_equal(pthread_create(&thread, NULL, play, &s), 0);
    hr_store_options options = hr_store_defaults;
    options.n_connections = 1;
    options.command_timeout_ms = what->hold ? 200 : 20000;
    snprintf(uri, sizeof uri, "redis://127.0.0.1:%u", s.port);
    assert_int_equal(hr_store_open(uri, &options, &store, &err), HR_OK);
    hr_arena *arena = hr_arena_create(1 << 20);
    const char *const items[] = {"a", "b"};
    hr_fetch fetch = {
        .user_id = "u", .item_ids = items, .n_items = 2, .deadline_ns = UINT64_MAX, .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    if (what->said == NULL) {
        assert_string_equal(fetch.error.message, "");
        assert_int_equal(fetch.items[1].kind, HR_RECORD_PACKED);
    } else if (strstr(fetch.error.message, what->said) == NULL) {
        fail_msg("%s: %s", what->reply, fetch.error.message);
    }
    hr_store_close(store);
    pthread_join(thread, NULL);
    close(s.listener);
    hr_arena_destroy(arena);
}

static void replies_of_the_wrong_shape_end_the_connection(void **state) {
    (void)state;
    static const script scripts[] = {
        {"*3\r\n$1\r\nu\r\n$-1\r\n$1\r\nb\r\n", false, NULL},
        {"*2\r\n$1\r\nu\r\n$1\r\na\r\n", false, "expected an array of 3 texts, found an array of 2"},
        {"*2147483647\r\n", false, "found an array of 2147483647"},
        {"*99999999999999999999\r\n", false, "not a valid reply"},
        {"*-1\r\n", false, "found nil"},
        {"*3\r\n*1\r\n:1\r\n", false, "an array of 1 in an array"},
        {"*3\r\n:1\r\n", false, "found an integer"},
        {"*3\r\n-ERR x\r\n", false, "error in an array"},
        {":7\r\n", false, "found an integer"},
        {"$2\r\nhi\r\n", false, "found \"hi\""},
        {"+OK\r\n", false, "found \"OK\""},
        {"$-1\r\n", false, "found nil"},
        {"HTTP/1.1 400 Bad Request\r\n", false, "not a valid reply"},
        {"*3\r\n$x\r\n", false, "not a valid reply"},
        {"*3\r\n$-7\r\n", false, "not a valid reply"},
        {"*3\r\n$9223372036854775807\r\nu", false, "expected a text's length"},
        {"*3\r\n$1\r\nuu\r\n", false, "expected CR LF"},
        {"*3\n$1\r\nu\r\n", false, "expected CR LF"},
        {"-MOVED 866 10.0.0.7:7001\r\n", false, "MOVED 866 10.0.0.7:7001"},
        {"-\xff\x01\r\n", false, "\\xff\\x01"},
    };
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) play_and_fetch(&scripts[i]);
}

static void a_reply_cut_short_is_a_lost_connection(void **state) {
    (void)state;
    static const char whole[] = "*3\r\n$1\r\nu\r\n$-1\r\n$1\r\nb\r\n";
    for (size_t n = 0; n + 1 < sizeof whole - 1; n++) {
        char cut[sizeof whole];
        memcpy(cut, whole, n);
        cut[n] = '\0';
        const script s = {cut, false, "the server closed the connection"};
        play_and_fetch(&s);
    }
}

static void a_value_that_never_ends_is_a_timeout(void **state) {
    (void)state;
    static const script scripts[] = {
        {"*3\r\n$1\r\nu\r\n$900000\r\na", true, "no answer"},
        {"", true, "no answer"},
    };
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) play_and_fetch(&scripts[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_of_the_wrong_shape_end_the_connection),
        cmocka_unit_test(a_reply_cut_short_is_a_lost_connection),
        cmocka_unit_test(a_value_that_never_ends_is_a_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
