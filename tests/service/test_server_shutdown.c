/* Starting and stopping: the port, the shutdown under load, the grace time, open streams. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "service/client.h"
#include "tests/service/server_fixture.h"

enum { OK, CANCELLED, UNAVAILABLE = 14 };

static void *run_shutdown(void *arg) {
    fixture *f = arg;
    hr_server *server = f->server;
    f->server = NULL;
    hr_server_shutdown(server);
    return NULL;
}

static void a_port_in_use_is_an_error_that_names_it(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    char listen[32];
    snprintf(listen, sizeof listen, "127.0.0.1:%u", hr_server_port(f->server));
    hr_server_options options = fixture_server_options;
    options.listen = listen;
    hr_server *second = NULL;
    hr_error err;
    assert_int_equal(hr_server_start(&options, f->pipeline, &second, &err), HR_IO);
    char expected[80];
    snprintf(expected, sizeof expected, "listen %s: Address already in use", listen);
    assert_string_equal(err.message, expected);
    /* and the port is free again after the shutdown */
    hr_server_shutdown(f->server);
    f->server = NULL;
    assert_int_equal(hr_server_start(&options, f->pipeline, &f->server, &err), HR_OK);
}

static void what_is_not_an_address_is_refused(void **state) {
    fixture *f = *state;
    const char *const bad[] = {"",           "8500",           ":8500",           "localhost",
                               "localhost:", "localhost:port", "[]:8500",         "localhost:65536",
                               "::1:80",     "a:-1",           "localhost:80 80", "a:123456"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        hr_server_options options = fixture_server_options;
        options.listen = bad[i];
        hr_server *server = NULL;
        hr_error err;
        assert_int_equal(hr_server_start(&options, f->pipeline, &server, &err), HR_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "expected HOST:PORT"));
    }
}

static void a_host_that_is_none_of_ours_is_an_error_with_its_reason(void **state) {
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.listen = "192.0.2.1:0"; /* TEST-NET-1 */
    hr_server *server = NULL;
    hr_error err;
    assert_int_equal(hr_server_start(&options, f->pipeline, &server, &err), HR_IO);
    assert_string_equal(err.message, "listen 192.0.2.1:0: Cannot assign requested address");
}

/* Callers of one client, each calling on and on until it is told to go away. */
typedef struct load {
    hr_client *client;
    atomic_uint n_ok, n_unavailable, n_other;
    hr_error other; /* the first of n_other */
} load;

static void *run_caller(void *arg) {
    load *l = arg;
    hr_arena *arena = hr_arena_create(16 << 20);
    for (hr_status status = HR_OK; status == HR_OK;) {
        hr_arena_reset(arena);
        Homerank__V1__RankResponse *answer = NULL;
        hr_error err;
        status = hr_client_rank(l->client, fixture_request(arena, "load", 5), 60000, arena, &answer, &err);
        if (status == HR_OK && answer->n_item_ids == 5)
            atomic_fetch_add(&l->n_ok, 1);
        else if (status == HR_UNAVAILABLE)
            atomic_fetch_add(&l->n_unavailable, 1);
        else if (atomic_fetch_add(&l->n_other, 1) == 0)
            l->other = err;
    }
    hr_arena_destroy(arena);
    return NULL;
}

static void every_call_accepted_before_a_shutdown_under_load_is_answered(void **state) {
    enum { CALLERS = 24, ROUNDS = 5, CALLS_BEFORE = 200 };
    fixture *f = *state;
    for (int round = 0; round < ROUNDS; round++) {
        fixture_serve(f, NULL);
        char target[32];
        snprintf(target, sizeof target, "127.0.0.1:%u", hr_server_port(f->server));
        load l = {0};
        hr_error err;
        assert_int_equal(hr_client_create(target, &l.client, &err), HR_OK);
        pthread_t callers[CALLERS];
        for (int i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, run_caller, &l);
        fixture_wait_accepted(f, CALLS_BEFORE);
        fixture_stop(f);
        for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
        hr_client_destroy(l.client);
        if (l.n_other != 0)
            fail_msg("%u calls got another status, such as %s: %s", l.n_other, hr_status_text(l.other.code),
                     l.other.message);
        assert_int_equal(l.n_unavailable, CALLERS);
        assert_true(l.n_ok >= CALLS_BEFORE);
    }
}

static void accepted_calls_finish_within_the_grace_time(void **state) {
    enum { N = 8 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    peer_call *calls[N];
    for (int i = 0; i < N; i++) {
        calls[i] = peer_open(f->client, RANK_PATH, 0);
        fixture_send(calls[i], "held", 2);
        peer_half_close(calls[i]);
    }
    fixture_wait_accepted(f, N);
    pthread_t stopper;
    pthread_create(&stopper, NULL, run_shutdown, f);
    fixture_open_gate(f);
    for (int i = 0; i < N; i++) {
        fixture_expect(calls[i], "held", 2);
        assert_int_equal(peer_finish(calls[i], NULL), OK);
    }
    pthread_join(stopper, NULL);
}

static void calls_past_the_grace_time_are_cancelled(void **state) {
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.grace_ms = 50;
    fixture_serve(f, &options);
    fixture_shut_gate(f);
    peer_call *call = peer_open(f->client, RANK_PATH, 0);
    fixture_send(call, "held", 2);
    peer_half_close(call);
    fixture_wait_accepted(f, 1);
    pthread_t stopper;
    pthread_create(&stopper, NULL, run_shutdown, f);
    assert_int_not_equal(peer_finish(call, NULL), OK); /* while the gate is shut */
    fixture_open_gate(f);
    pthread_join(stopper, NULL);
}

static void a_streams_accepted_messages_are_answered_before_it_ends(void **state) {
    enum { N = 4 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    for (int i = 0; i < N; i++) fixture_send(call, "held", 2);
    fixture_wait_accepted(f, N);
    pthread_t stopper;
    pthread_create(&stopper, NULL, run_shutdown, f);
    fixture_open_gate(f);
    for (int i = 0; i < N; i++) fixture_expect(call, "held", 2);
    char text[512];
    assert_int_equal(peer_finish(call, text), UNAVAILABLE);
    assert_non_null(strstr(text, "shutting down"));
    pthread_join(stopper, NULL);
}

static void idle_streams_do_not_hold_a_shutdown_up(void **state) {
    enum { N = 20 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *calls[N];
    for (int i = 0; i < N; i++) {
        calls[i] = peer_open(f->client, STREAM_PATH, 0);
        fixture_send(calls[i], "one", 1);
        fixture_expect(calls[i], "one", 1);
    }
    uint64_t begun_ns = hr_clock_ns();
    pthread_t stopper;
    pthread_create(&stopper, NULL, run_shutdown, f);
    for (int i = 0; i < N; i++) assert_int_equal(peer_finish(calls[i], NULL), UNAVAILABLE);
    pthread_join(stopper, NULL);
    assert_true(hr_clock_ns() - begun_ns < (uint64_t)fixture_server_options.grace_ms * 1000000u / 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_port_in_use_is_an_error_that_names_it),
        FIXTURE_TEST(what_is_not_an_address_is_refused),
        FIXTURE_TEST(a_host_that_is_none_of_ours_is_an_error_with_its_reason),
        FIXTURE_TEST(every_call_accepted_before_a_shutdown_under_load_is_answered),
        FIXTURE_TEST(accepted_calls_finish_within_the_grace_time),
        FIXTURE_TEST(calls_past_the_grace_time_are_cancelled),
        FIXTURE_TEST(a_streams_accepted_messages_are_answered_before_it_ends),
        FIXTURE_TEST(idle_streams_do_not_hold_a_shutdown_up),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
