/* grpc.health.v1.Health: Check, and Watch until the shutdown. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "proto/health.pb-c.h"
#include "tests/service/server_fixture.h"

#define CHECK_PATH   "/grpc.health.v1.Health/Check"
#define WATCH_PATH   "/grpc.health.v1.Health/Watch"
#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

enum { OK, CANCELLED, INVALID_ARGUMENT = 3, NOT_FOUND = 5, UNAVAILABLE = 14 };

static int check(fixture *f, const char *service, int *status) {
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)service;
    void *answer = NULL;
    int code = peer_unary(f->client, CHECK_PATH, &request.base,
                          &grpc__health__v1__health_check_response__descriptor, &answer, NULL);
    *status = -1;
    if (answer == NULL) return code;
    *status = (int)((Grpc__Health__V1__HealthCheckResponse *)answer)->status;
    protobuf_c_message_free_unpacked(answer, NULL);
    return code;
}

static peer_call *watch(fixture *f, const char *service) {
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)service;
    peer_call *call = peer_open(f->client, WATCH_PATH, 0);
    peer_send_message(call, &request.base);
    peer_half_close(call);
    return call;
}

/* The next status of a watch; -1: none comes any more. */
static int next_status(peer_call *call) {
    Grpc__Health__V1__HealthCheckResponse *answer =
        peer_receive(call, &grpc__health__v1__health_check_response__descriptor);
    if (answer == NULL) return -1;
    int status = (int)answer->status;
    protobuf_c_message_free_unpacked(&answer->base, NULL);
    return status;
}

static void *run_shutdown(void *arg) {
    hr_server_shutdown(arg);
    return NULL;
}

static void the_server_and_the_ranker_are_serving(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    int status;
    assert_int_equal(check(f, "", &status), OK);
    assert_int_equal(status, STATUS(SERVING));
    assert_int_equal(check(f, "homerank.v1.Ranker", &status), OK);
    assert_int_equal(status, STATUS(SERVING));
}

static void an_unknown_service_is_not_found(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    int status;
    assert_int_equal(check(f, "homerank.v1.Rank", &status), NOT_FOUND);
    assert_int_equal(status, -1);
}

static void a_check_that_is_no_message_is_invalid(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    const char *const paths[] = {CHECK_PATH, WATCH_PATH};
    for (int i = 0; i < 2; i++) {
        peer_call *call = peer_open(f->client, paths[i], 0);
        peer_send(call, "\x0a\x05x", 3);
        peer_half_close(call);
        assert_int_equal(peer_finish(call, NULL), INVALID_ARGUMENT);
    }
}

static void a_watch_sees_the_shutdown_and_is_ended(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *all = watch(f, ""), *ranker = watch(f, "homerank.v1.Ranker");
    assert_int_equal(next_status(all), STATUS(SERVING));
    assert_int_equal(next_status(ranker), STATUS(SERVING));
    pthread_t stopper;
    pthread_create(&stopper, NULL, run_shutdown, f->server);
    f->server = NULL;
    assert_int_equal(next_status(all), STATUS(NOT_SERVING));
    assert_int_equal(next_status(ranker), STATUS(NOT_SERVING));
    assert_int_equal(next_status(all), -1);
    assert_int_equal(peer_finish(all, NULL), UNAVAILABLE);
    assert_int_equal(peer_finish(ranker, NULL), UNAVAILABLE);
    pthread_join(stopper, NULL);
}

static void a_check_during_the_shutdown_says_not_serving(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    peer_call *held = peer_open(f->client, RANK_PATH, 0); /* keeps the shutdown waiting */
    fixture_send(held, "held", 1);
    peer_half_close(held);
    fixture_wait_accepted(f, 1);
    peer_call *seen = watch(f, ""); /* tells when the shutdown has begun */
    assert_int_equal(next_status(seen), STATUS(SERVING));
    pthread_t stopper;
    pthread_create(&stopper, NULL, run_shutdown, f->server);
    f->server = NULL;
    assert_int_equal(next_status(seen), STATUS(NOT_SERVING));
    int status;
    assert_int_equal(check(f, "", &status), OK);
    assert_int_equal(status, STATUS(NOT_SERVING));
    peer_call *late = peer_open(f->client, RANK_PATH, 0);
    fixture_send(late, "late", 1);
    peer_half_close(late);
    assert_int_equal(peer_finish(late, NULL), UNAVAILABLE);
    fixture_open_gate(f);
    fixture_expect(held, "held", 1);
    assert_int_equal(peer_finish(held, NULL), OK);
    assert_int_equal(peer_finish(seen, NULL), UNAVAILABLE);
    pthread_join(stopper, NULL);
}

static void a_watch_of_an_unknown_service_stays_open(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = watch(f, "nobody");
    assert_int_equal(next_status(call), STATUS(SERVICE_UNKNOWN));
    peer_cancel(call);
    assert_int_equal(peer_finish(call, NULL), CANCELLED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_server_and_the_ranker_are_serving),
        FIXTURE_TEST(an_unknown_service_is_not_found),
        FIXTURE_TEST(a_check_that_is_no_message_is_invalid),
        FIXTURE_TEST(a_watch_sees_the_shutdown_and_is_ended),
        FIXTURE_TEST(a_check_during_the_shutdown_says_not_serving),
        FIXTURE_TEST(a_watch_of_an_unknown_service_stays_open),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
