/* Rank, one call at a time and many: answers, errors, limits, cancels and deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tests/service/server_fixture.h"

enum {
    OK,
    CANCELLED,
    INVALID_ARGUMENT = 3,
    DEADLINE_EXCEEDED = 4,
    NOT_FOUND = 5,
    RESOURCE_EXHAUSTED = 8,
    UNIMPLEMENTED = 12
};

static peer_call *open_rank(fixture *f, const char *request_id, uint32_t n_items) {
    peer_call *call = peer_open(f->client, RANK_PATH, 0);
    fixture_send(call, request_id, n_items);
    peer_half_close(call);
    return call;
}

static hr_server_counts counts_of(fixture *f) {
    hr_server_counts counts;
    hr_server_count(f->server, &counts);
    return counts;
}

static void a_request_is_answered_with_every_item_ranked(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = open_rank(f, "r-1", 7);
    fixture_expect(call, "r-1", 7);
    assert_int_equal(peer_finish(call, NULL), OK);
}

static void the_pipelines_error_is_the_status_and_its_text(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    char text[512];
    peer_call *call = open_rank(f, "r-1", 0);
    assert_int_equal(peer_finish(call, text), INVALID_ARGUMENT);
    assert_non_null(strstr(text, "item_ids"));

    hr_arena *arena = hr_arena_create(1 << 20);
    Homerank__V1__RankRequest *request = fixture_request(arena, "r-2", 1);
    request->model = (char *)"nobody";
    void *answer = NULL;
    assert_int_equal(peer_unary(f->client, RANK_PATH, &request->base,
                                &homerank__v1__rank_response__descriptor, &answer, text),
                     NOT_FOUND);
    assert_non_null(strstr(text, "nobody"));
    hr_arena_destroy(arena);
}

static void bytes_that_are_no_request_are_invalid(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    char text[512];
    peer_call *call = peer_open(f->client, RANK_PATH, 0);
    peer_send(call, "\x12\x7f", 2); /* user_id, 127 bytes long, of which there is none */
    peer_half_close(call);
    assert_int_equal(peer_finish(call, text), INVALID_ARGUMENT);
    assert_non_null(strstr(text, "RankRequest: at byte 0"));
    assert_int_equal(counts_of(f).refused, 1);
    assert_int_equal(counts_of(f).accepted, 0);
}

static void a_call_without_a_message_is_unimplemented(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    char text[512];
    peer_call *call = peer_open(f->client, RANK_PATH, 0);
    peer_half_close(call);
    assert_int_equal(peer_finish(call, text), UNIMPLEMENTED);
    assert_non_null(strstr(text, "no request message"));
}

static void an_unknown_method_is_unimplemented_and_named(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    char text[512];
    peer_call *call = peer_open(f->client, "/homerank.v1.Ranker/Rnak", 0);
    peer_half_close(call);
    assert_int_equal(peer_finish(call, text), UNIMPLEMENTED);
    assert_non_null(strstr(text, "/homerank.v1.Ranker/Rnak"));
}

static void a_message_past_the_size_limit_is_refused(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    size_t nbytes = fixture_server_options.max_message_nbytes + 1;
    char *bytes = calloc(1, nbytes);
    char text[512];
    peer_call *call = peer_open(f->client, RANK_PATH, 0);
    peer_send(call, bytes, nbytes);
    peer_half_close(call);
    assert_int_equal(peer_finish(call, text), RESOURCE_EXHAUSTED);
    assert_non_null(strstr(text, "larger than max"));
    free(bytes);
    /* and the server lives on */
    call = open_rank(f, "after", 1);
    fixture_expect(call, "after", 1);
    assert_int_equal(peer_finish(call, NULL), OK);
}

/* The core would unpack it without a bound on what comes out. */
static void a_compressed_message_is_refused(void **state) {
    enum { NBYTES = 1 << 19 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    char *bytes = calloc(1, NBYTES);
    char text[512];
    peer *gzip = peer_connect_gzip(hr_server_port(f->server));
    peer_call *call = peer_open(gzip, RANK_PATH, 0);
    peer_send(call, bytes, NBYTES);
    peer_half_close(call);
    assert_int_equal(peer_finish(call, text), UNIMPLEMENTED);
    assert_non_null(strstr(text, "gzip"));
    peer_close(gzip);
    free(bytes);
}

static void a_request_past_its_memory_cap_is_refused(void **state) {
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.max_call_nbytes = 4096;
    fixture_serve(f, &options);
    peer_call *call = open_rank(f, "r-1", 1000);
    assert_int_equal(peer_finish(call, NULL), RESOURCE_EXHAUSTED);
}

static void a_cancelled_call_is_counted_and_its_work_dropped(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    peer_call *call = open_rank(f, "r-1", 3);
    fixture_wait_accepted(f, 1);
    peer_cancel(call);
    assert_int_equal(peer_finish(call, NULL), CANCELLED);
    fixture_round_trip(f);
    fixture_open_gate(f);
    fixture_wait_cancelled(f, 1);
    assert_int_equal(counts_of(f).answered, 0);
}

/* Scoring that many items takes some time T a call; dropped, all of them together take less than a few T. */
static void cancelled_calls_are_not_scored(void **state) {
    enum { N = 40, ITEMS = 1000, T_FOR_ALL = 5 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    uint64_t begun_ns = hr_clock_ns();
    peer_call *scored = open_rank(f, "scored", ITEMS);
    fixture_expect(scored, "scored", ITEMS);
    assert_int_equal(peer_finish(scored, NULL), OK);
    uint64_t one_ns = hr_clock_ns() - begun_ns;
    fixture_shut_gate(f);
    peer_call *calls[N];
    for (int i = 0; i < N; i++) calls[i] = open_rank(f, "dropped", ITEMS);
    fixture_wait_accepted(f, 1 + N);
    for (int i = 0; i < N; i++) peer_cancel(calls[i]);
    for (int i = 0; i < N; i++) assert_int_equal(peer_finish(calls[i], NULL), CANCELLED);
    fixture_round_trip(f);
    begun_ns = hr_clock_ns();
    fixture_open_gate(f);
    fixture_wait_cancelled(f, N);
    assert_true(hr_clock_ns() - begun_ns < T_FOR_ALL * one_ns);
}

static void a_passed_deadline_ends_the_call_while_it_waits(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    peer_call *call = peer_open(f->client, RANK_PATH, 200);
    fixture_send(call, "r-1", 3);
    peer_half_close(call);
    assert_int_equal(peer_finish(call, NULL), DEADLINE_EXCEEDED);
    fixture_open_gate(f);
}

static void calls_past_the_limit_are_refused_at_once_and_the_others_answered(void **state) {
    enum { LIMIT = 4 };
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.max_open_calls = LIMIT;
    fixture_serve(f, &options);
    fixture_shut_gate(f);
    peer_call *held[LIMIT];
    for (int i = 0; i < LIMIT; i++) held[i] = open_rank(f, "held", 2);
    fixture_wait_accepted(f, LIMIT);
    char text[512];
    peer_call *more = open_rank(f, "more", 2);
    assert_int_equal(peer_finish(more, text), RESOURCE_EXHAUSTED); /* with the gate still shut */
    assert_non_null(strstr(text, "4 requests"));
    fixture_open_gate(f);
    for (int i = 0; i < LIMIT; i++) {
        fixture_expect(held[i], "held", 2);
        assert_int_equal(peer_finish(held[i], NULL), OK);
    }
    more = open_rank(f, "more", 2);
    fixture_expect(more, "more", 2);
    assert_int_equal(peer_finish(more, NULL), OK);
}

static void requests_past_the_memory_for_all_of_them_are_refused(void **state) {
    enum { ITEMS = 500 }; /* of 5 kB on the wire, 44 kB decoded */
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.max_open_nbytes = 64000;
    fixture_serve(f, &options);
    fixture_shut_gate(f);
    peer_call *held = open_rank(f, "held", ITEMS);
    fixture_wait_accepted(f, 1);
    char text[512];
    peer_call *more = open_rank(f, "more", ITEMS);
    assert_int_equal(peer_finish(more, text), RESOURCE_EXHAUSTED); /* with the gate still shut */
    assert_non_null(strstr(text, "64000 bytes together"));
    assert_int_equal(counts_of(f).refused, 1);
    fixture_open_gate(f);
    fixture_expect(held, "held", ITEMS);
    assert_int_equal(peer_finish(held, NULL), OK);
    for (int i = 0; i < 3; i++) { /* its memory is free again, and so is every later one's */
        more = open_rank(f, "more", ITEMS);
        fixture_expect(more, "more", ITEMS);
        assert_int_equal(peer_finish(more, NULL), OK);
    }
}

static void a_thousand_calls_at_once_each_get_their_own_answer(void **state) {
    enum { N = 1000 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f); /* all of them are in the server together */
    static peer_call *calls[N];
    char id[16];
    for (uint32_t i = 0; i < N; i++) {
        snprintf(id, sizeof id, "r-%u", i);
        calls[i] = open_rank(f, id, 1 + i % 5);
    }
    fixture_wait_accepted(f, N);
    fixture_open_gate(f);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(id, sizeof id, "r-%u", i);
        fixture_expect(calls[i], id, 1 + i % 5);
        assert_int_equal(peer_finish(calls[i], NULL), OK);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_request_is_answered_with_every_item_ranked),
        FIXTURE_TEST(the_pipelines_error_is_the_status_and_its_text),
        FIXTURE_TEST(bytes_that_are_no_request_are_invalid),
        FIXTURE_TEST(a_call_without_a_message_is_unimplemented),
        FIXTURE_TEST(an_unknown_method_is_unimplemented_and_named),
        FIXTURE_TEST(a_message_past_the_size_limit_is_refused),
        FIXTURE_TEST(a_compressed_message_is_refused),
        FIXTURE_TEST(a_request_past_its_memory_cap_is_refused),
        FIXTURE_TEST(a_cancelled_call_is_counted_and_its_work_dropped),
        FIXTURE_TEST(cancelled_calls_are_not_scored),
        FIXTURE_TEST(a_passed_deadline_ends_the_call_while_it_waits),
        FIXTURE_TEST(calls_past_the_limit_are_refused_at_once_and_the_others_answered),
        FIXTURE_TEST(requests_past_the_memory_for_all_of_them_are_refused),
        FIXTURE_TEST(a_thousand_calls_at_once_each_get_their_own_answer),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
