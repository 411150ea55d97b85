/* The HTTP listener: what it answers, and what it does not put up with. Raw sockets, for the bytes matter. */
#include "service/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/thread.h"

typedef struct fixture {
    hr_metrics *metrics;
    hr_http *http;
    atomic_bool ready;
    atomic_uint n_printed;
    size_t n_padding; /* bytes of the metrics' text, beside a few */
} fixture;

static void collect(hr_metrics_text *text, void *arg) {
    fixture *f = arg;
    atomic_fetch_add(&f->n_printed, 1);
    hr_metrics_text_gauge(text, "a_value", "A value.", 42);
    if (f->n_padding > 0) fprintf(text->out, "# %0*d\n", (int)f->n_padding, 0);
}

static bool is_ready(void *arg, char words[HR_HTTP_WORDS_SIZE]) {
    fixture *f = arg;
    bool ready = atomic_load(&f->ready);
    snprintf(words, HR_HTTP_WORDS_SIZE, "%s", ready ? "ready" : "not yet: loading");
    return ready;
}

static void start(fixture *f, uint32_t max_age_ms) {
    const hr_http_options options = {.listen = "127.0.0.1:0",
                                     .max_age_ms = max_age_ms,
                                     .metrics = f->metrics,
                                     .ready = is_ready,
                                     .arg = f};
    hr_error err;
    if (hr_http_start(&options, &f->http, &err) != HR_OK) fail_msg("%s", err.message);
}

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->metrics = hr_metrics_create();
    assert_int_equal(hr_metrics_add(f->metrics, collect, f, NULL), HR_OK);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    hr_http_stop(f->http);
    hr_metrics_destroy(f->metrics);
    free(f);
    return 0;
}

static int dial(const fixture *f) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(hr_http_port(f->http)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    struct timeval limit = {.tv_sec = 60};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

/* What comes until the other side closes or resets, as a text to free(). */
static void *read_to_end(void *arg) {
    int fd = (int)(intptr_t)arg;
    char *text = NULL;
    size_t nbytes;
    FILE *out = open_memstream(&text, &nbytes);
    char buffer[65536];
    ssize_t n;
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0) fwrite(buffer, 1, (size_t)n, out);
    fclose(out);
    close(fd);
    return text;
}

static char *read_all(int fd) {
    return read_to_end((void *)(intptr_t)fd);
}

static char *ask_bytes(const fixture *f, const char *bytes, size_t nbytes) {
    int fd = dial(f);
    assert_int_equal(send(fd, bytes, nbytes, MSG_NOSIGNAL), nbytes);
    return read_all(fd);
}

static char *ask(const fixture *f, const char *request) {
    char text[512];
    int n = snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: x\r\n\r\n", request);
    return ask_bytes(f, text, (size_t)n);
}

/* The status code and the body, which frees the answer. */
static void assert_answer(char *answer, int code, const char *body) {
    assert_int_equal(atoi(answer + strlen("HTTP/1.1 ")), code);
    const char *end = strstr(answer, "\r\n\r\n");
    assert_non_null(end);
    if (body != NULL) assert_string_equal(end + 4, body);
    free(answer);
}

static void the_three_pages_answer(void **state) {
    fixture *f = *state;
    start(f, 60000);
    char *answer = ask(f, "GET /metrics");
    assert_non_null(strstr(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_non_null(strstr(answer, "Connection: close\r\n"));
    assert_answer(answer, 200, "# HELP a_value A value.\n# TYPE a_value gauge\na_value 42\n");
    assert_answer(ask(f, "GET /metrics?name[]=up"), 200, NULL);
    assert_answer(ask(f, "GET /healthz"), 200, "alive\n");
    assert_answer(ask(f, "GET /readyz"), 503, "not yet: loading\n");
    atomic_store(&f->ready, true);
    assert_answer(ask(f, "GET /readyz"), 200, "ready\n");
    answer = ask(f, "HEAD /metrics");
    assert_non_null(strstr(answer, "Content-Length: "));
    assert_answer(answer, 200, "");
}

static void other_paths_and_methods_are_refused(void **state) {
    fixture *f = *state;
    start(f, 60000);
    static const char *const paths[] = {"/",         "/metrics/",           "/Metrics",
                                        "//metrics", "/metrics/../healthz", "/%2fmetrics"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char request[64];
        snprintf(request, sizeof request, "GET %s", paths[i]);
        assert_answer(ask(f, request), 404, "expected /metrics, /healthz or /readyz\n");
    }
    static const char *const methods[] = {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "NONSENSE"};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        char request[64];
        snprintf(request, sizeof request, "%s /metrics", methods[i]);
        char *answer = ask(f, request);
        assert_non_null(strstr(answer, "Allow: GET, HEAD\r\n"));
        assert_answer(answer, 405, "expected GET or HEAD\n");
    }
    assert_int_equal(atomic_load(&f->n_printed), 0);
}

/* Nothing of this may be answered with a page, and the listener must go on. */
static void hostile_bytes_are_refused_and_do_no_harm(void **state) {
    fixture *f = *state;
    start(f, 60000);
    static char big[1 << 20];
    memset(big, 'a', sizeof big);
    memcpy(big, "GET /", 5);
    free(ask_bytes(f, "\r\n\r\n \0\xff\xfe\r\n\r\n", 12));
    free(ask_bytes(f, "GET\r\n\r\n", 7));
    free(ask_bytes(f, "GET /metrics HTTP/9.9\r\n\r\n", 25));
    static const char two_lengths[] =
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: -1\r\n\r\n";
    free(ask_bytes(f, two_lengths, sizeof two_lengths - 1));
    static const char chunked[] =
        "POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n";
    free(ask_bytes(f, chunked, sizeof chunked - 1));
    int fd = dial(f);
    send(fd, big, sizeof big, MSG_NOSIGNAL); /* may be reset half-way */
    char *answer = read_all(fd);
    assert_null(strstr(answer, " 200 "));
    free(answer);
    assert_int_equal(atomic_load(&f->n_printed), 0);
    assert_answer(ask(f, "GET /healthz"), 200, "alive\n");
}

static void a_connection_answers_one_request(void **state) {
    fixture *f = *state;
    start(f, 60000);
    static const char two[] =
        "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    char *answer = ask_bytes(f, two, sizeof two - 1);
    assert_null(strstr(answer + 1, "HTTP/1.1"));
    assert_answer(answer, 200, NULL);
    assert_int_equal(atomic_load(&f->n_printed), 1);
}

/* A byte now and then keeps a timeout of silence away; the age ends it. */
static void a_slow_caller_is_ended_by_its_age(void **state) {
    fixture *f = *state;
    start(f, 1000);
    uint64_t begun_ns = hr_clock_ns();
    int fd = dial(f);
    struct timeval pace = {.tv_usec = 20000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &pace, sizeof pace);
    char byte;
    ssize_t n;
    do {
        send(fd, "G", 1, MSG_NOSIGNAL);
        n = recv(fd, &byte, 1, 0);
    } while (n < 0 && hr_clock_ns() - begun_ns < UINT64_C(30000000000));
    assert_int_equal(n, 0);
    assert_true(hr_clock_ns() - begun_ns >= UINT64_C(1000000000));
    close(fd);
    assert_answer(ask(f, "GET /healthz"), 200, "alive\n");
}

/* The answer does not fit in the sockets' buffers, and nobody reads it. */
static void a_caller_that_does_not_read_is_ended_by_its_age(void **state) {
    fixture *f = *state;
    f->n_padding = 32 << 20;
    start(f, 1000);
    int fd = dial(f);
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    int idle[HR_HTTP_MAX_CONNECTIONS - 1];
    for (int i = 0; i < HR_HTTP_MAX_CONNECTIONS - 1; i++) idle[i] = dial(f);
    assert_answer(ask(f, "GET /healthz"), 200, "alive\n"); /* when the ages of the others have come */
    char *answer = read_all(fd);
    assert_true(strlen(answer) < (32 << 20));
    free(answer);
    for (int i = 0; i < HR_HTTP_MAX_CONNECTIONS - 1; i++) close(idle[i]);
}

static void connections_past_the_limit_wait_for_the_others_to_end(void **state) {
    fixture *f = *state;
    start(f, 1000);
    int idle[HR_HTTP_MAX_CONNECTIONS];
    uint64_t begun_ns = hr_clock_ns();
    for (int i = 0; i < HR_HTTP_MAX_CONNECTIONS; i++) idle[i] = dial(f);
    assert_answer(ask(f, "GET /healthz"), 200, "alive\n");
    assert_true(hr_clock_ns() - begun_ns >= UINT64_C(1000000000));
    for (int i = 0; i < HR_HTTP_MAX_CONNECTIONS; i++) free(read_all(idle[i]));
}

static void an_address_that_cannot_be_had_is_said(void **state) {
    fixture *f = *state;
    start(f, 60000);
    char listen[32], expected[80];
    hr_http *second = NULL;
    hr_error err;
    snprintf(listen, sizeof listen, "127.0.0.1:%u", hr_http_port(f->http));
    hr_http_options options = {.listen = listen, .metrics = f->metrics, .ready = is_ready, .arg = f};
    assert_int_equal(hr_http_start(&options, &second, &err), HR_IO);
    snprintf(expected, sizeof expected, "http %s: Address already in use", listen);
    assert_string_equal(err.message, expected);
    options.listen = "nowhere";
    assert_int_equal(hr_http_start(&options, &second, &err), HR_INVALID_ARGUMENT);
    options.listen = "no-such-host.invalid:0";
    assert_int_equal(hr_http_start(&options, &second, &err), HR_IO);
    assert_null(second);
    hr_http_stop(NULL);
}

static void *scrape(void *arg) {
    fixture *f = arg;
    uintptr_t n_whole = 0;
    for (int i = 0; i < 200; i++) {
        char *answer = ask(f, "GET /metrics");
        n_whole += strstr(answer, "a_value 42\n") != NULL;
        free(answer);
    }
    return (void *)n_whole;
}

static void many_callers_at_once_are_all_answered(void **state) {
    enum { N_CALLERS = 8 };
    fixture *f = *state;
    start(f, 60000);
    pthread_t threads[N_CALLERS];
    for (int i = 0; i < N_CALLERS; i++)
        assert_int_equal(hr_thread_start(&threads[i], "caller", scrape, f, NULL), HR_OK);
    for (int i = 0; i < N_CALLERS; i++) {
        void *n_whole;
        pthread_join(threads[i], &n_whole);
        assert_int_equal((uintptr_t)n_whole, 200);
    }
}

/* The answer was begun: the listener waits for it, but for a second only. */
static void an_answer_under_way_at_the_stop_is_finished(void **state) {
    fixture *f = *state;
    f->n_padding = 8 << 20;
    start(f, 60000);
    int fd = dial(f);
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    char first[16];
    assert_int_equal(recv(fd, first, sizeof first, MSG_WAITALL), sizeof first);
    pthread_t reader;
    assert_int_equal(hr_thread_start(&reader, "reader", read_to_end, (void *)(intptr_t)fd, NULL), HR_OK);
    hr_http_stop(f->http);
    f->http = NULL;
    void *rest;
    pthread_join(reader, &rest);
    assert_true(strlen(rest) > (8 << 20));
    free(rest);
}

static void an_idle_connection_does_not_hold_the_stop_for_long(void **state) {
    fixture *f = *state;
    start(f, 60000);
    int fd = dial(f);
    assert_answer(ask(f, "GET /healthz"), 200, "alive\n");
    uint64_t begun_ns = hr_clock_ns();
    hr_http_stop(f->http);
    f->http = NULL;
    assert_true(hr_clock_ns() - begun_ns < UINT64_C(30000000000));
    free(read_all(fd));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_three_pages_answer),
        TEST(other_paths_and_methods_are_refused),
        TEST(hostile_bytes_are_refused_and_do_no_harm),
        TEST(a_connection_answers_one_request),
        TEST(a_slow_caller_is_ended_by_its_age),
        TEST(a_caller_that_does_not_read_is_ended_by_its_age),
        TEST(connections_past_the_limit_wait_for_the_others_to_end),
        TEST(an_address_that_cannot_be_had_is_said),
        TEST(many_callers_at_once_are_all_answered),
        TEST(an_answer_under_way_at_the_stop_is_finished),
        TEST(an_idle_connection_does_not_hold_the_stop_for_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
