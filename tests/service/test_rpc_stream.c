/* RankStream: the order of answers, the window, errors in the middle, and how a stream ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/service/server_fixture.h"

enum { OK, CANCELLED, INVALID_ARGUMENT = 3, RESOURCE_EXHAUSTED = 8, WINDOW = 16 };

static void send_numbered(peer_call *call, uint32_t i, uint32_t n_items) {
    char id[16];
    snprintf(id, sizeof id, "m-%u", i);
    fixture_send(call, id, n_items);
}

static void expect_numbered(peer_call *call, uint32_t i, uint32_t n_items) {
    char id[16];
    snprintf(id, sizeof id, "m-%u", i);
    fixture_expect(call, id, n_items);
}

static hr_server_counts counts_of(fixture *f) {
    hr_server_counts counts;
    hr_server_count(f->server, &counts);
    return counts;
}

/* Large and small ones by turns, so that with two workers the small would overtake. */
static uint32_t items_of(uint32_t i) {
    return i % 3 == 0 ? 200 : 1;
}

static void answers_come_in_the_order_of_the_requests(void **state) {
    enum { N = 60 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    for (uint32_t i = 0; i < N; i++) send_numbered(call, i, items_of(i));
    peer_half_close(call);
    for (uint32_t i = 0; i < N; i++) expect_numbered(call, i, items_of(i));
    assert_null(peer_receive(call, &homerank__v1__rank_response__descriptor));
    assert_int_equal(peer_finish(call, NULL), OK);
}

static void a_message_is_answered_while_the_stream_stays_open(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    for (uint32_t i = 0; i < 5; i++) {
        send_numbered(call, i, 2);
        expect_numbered(call, i, 2);
    }
    peer_half_close(call);
    assert_int_equal(peer_finish(call, NULL), OK);
}

static void no_more_than_the_window_is_taken_in_at_once(void **state) {
    enum { N = 3 * WINDOW };
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    for (uint32_t i = 0; i < N; i++) send_numbered(call, i, 1);
    peer_half_close(call);
    fixture_wait_accepted(f, WINDOW);
    fixture_round_trip(f);
    assert_int_equal(counts_of(f).accepted, WINDOW);
    fixture_open_gate(f);
    for (uint32_t i = 0; i < N; i++) expect_numbered(call, i, 1);
    assert_int_equal(peer_finish(call, NULL), OK);
}

static void an_error_ends_the_stream_after_the_earlier_answers(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    send_numbered(call, 0, 200);
    send_numbered(call, 1, 3);
    send_numbered(call, 2, 0); /* no items: refused by the pipeline at once, answered in its turn */
    fixture_wait_accepted(f, 3);
    fixture_open_gate(f);
    expect_numbered(call, 0, 200);
    expect_numbered(call, 1, 3);
    assert_null(peer_receive(call, &homerank__v1__rank_response__descriptor));
    char text[512];
    assert_int_equal(peer_finish(call, text), INVALID_ARGUMENT);
    assert_non_null(strstr(text, "item_ids"));
}

static void bytes_that_are_no_request_end_the_stream_too(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    send_numbered(call, 0, 3);
    peer_send(call, "\x12\x7f", 2);
    expect_numbered(call, 0, 3);
    char text[512];
    assert_int_equal(peer_finish(call, text), INVALID_ARGUMENT);
    assert_non_null(strstr(text, "RankRequest: at byte 0"));
}

static void a_message_past_the_size_limit_ends_the_stream(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    static char bytes[(1 << 20) + 1];
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    peer_send(call, bytes, sizeof bytes);
    assert_int_equal(peer_finish(call, NULL), RESOURCE_EXHAUSTED);
}

static void a_stream_without_messages_ends_well(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    peer_half_close(call);
    assert_null(peer_receive(call, &homerank__v1__rank_response__descriptor));
    assert_int_equal(peer_finish(call, NULL), OK);
}

static void a_cancelled_streams_messages_are_all_counted_out(void **state) {
    enum { N = 5 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    fixture_shut_gate(f);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    for (uint32_t i = 0; i < N; i++) send_numbered(call, i, 2);
    fixture_wait_accepted(f, N);
    peer_cancel(call);
    assert_int_equal(peer_finish(call, NULL), CANCELLED);
    fixture_round_trip(f);
    fixture_open_gate(f);
    fixture_wait_cancelled(f, N);
    assert_int_equal(counts_of(f).answered, 0);
}

static void streams_past_the_limit_are_refused(void **state) {
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.max_open_calls = 2;
    fixture_serve(f, &options);
    peer_call *open[2];
    for (uint32_t i = 0; i < 2; i++) {
        open[i] = peer_open(f->client, STREAM_PATH, 0);
        send_numbered(open[i], i, 1);
        expect_numbered(open[i], i, 1);
    }
    char text[512];
    peer_call *more = peer_open(f->client, STREAM_PATH, 0);
    assert_int_equal(peer_finish(more, text), RESOURCE_EXHAUSTED);
    assert_non_null(strstr(text, "2 streams"));
    for (uint32_t i = 0; i < 2; i++) {
        peer_half_close(open[i]);
        assert_int_equal(peer_finish(open[i], NULL), OK);
    }
}

/* The answers that nobody reads fill the connection's window, then the stream's: its places are given back.
 */
static void a_client_that_takes_no_answers_is_cancelled(void **state) {
    enum { N = 60, ITEMS = 400 };
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.stall_ms = 200;
    fixture_serve(f, &options);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    for (uint32_t i = 0; i < N; i++) send_numbered(call, i, ITEMS);
    fixture_wait_cancelled(f, WINDOW);
    fixture_round_trip(f);
    hr_server_counts counts = counts_of(f);
    assert_int_equal(counts.n_open, 0);
    assert_int_equal(counts.accepted, counts.answered + counts.cancelled);
    for (void *sent; (sent = peer_receive(call, &homerank__v1__rank_response__descriptor)) != NULL;)
        protobuf_c_message_free_unpacked(sent, NULL);
    assert_int_equal(peer_finish(call, NULL), CANCELLED);
}

/* Only what is being sent has a time: a stream without messages, or whose next is being ranked, stays. */
static void a_stream_at_rest_is_no_stalled_one(void **state) {
    fixture *f = *state;
    hr_server_options options = fixture_server_options;
    options.stall_ms = 20;
    fixture_serve(f, &options);
    fixture_shut_gate(f);
    peer_call *call = peer_open(f->client, STREAM_PATH, 0);
    send_numbered(call, 0, 3);
    fixture_wait_accepted(f, 1);
    const struct timespec long_enough = {.tv_nsec = 200000000};
    nanosleep(&long_enough, NULL);
    fixture_open_gate(f);
    expect_numbered(call, 0, 3);
    nanosleep(&long_enough, NULL);
    send_numbered(call, 1, 3);
    expect_numbered(call, 1, 3);
    peer_half_close(call);
    assert_int_equal(peer_finish(call, NULL), OK);
}

static void many_streams_at_once_keep_their_own_order(void **state) {
    enum { STREAMS = 40, MESSAGES = 20 };
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *calls[STREAMS];
    for (uint32_t s = 0; s < STREAMS; s++) {
        calls[s] = peer_open(f->client, STREAM_PATH, 0);
        for (uint32_t i = 0; i < MESSAGES; i++) send_numbered(calls[s], s * 100 + i, 1 + (s + i) % 4);
        peer_half_close(calls[s]);
    }
    for (uint32_t s = 0; s < STREAMS; s++) {
        for (uint32_t i = 0; i < MESSAGES; i++) expect_numbered(calls[s], s * 100 + i, 1 + (s + i) % 4);
        assert_int_equal(peer_finish(calls[s], NULL), OK);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(answers_come_in_the_order_of_the_requests),
        FIXTURE_TEST(a_message_is_answered_while_the_stream_stays_open),
        FIXTURE_TEST(no_more_than_the_window_is_taken_in_at_once),
        FIXTURE_TEST(an_error_ends_the_stream_after_the_earlier_answers),
        FIXTURE_TEST(bytes_that_are_no_request_end_the_stream_too),
        FIXTURE_TEST(a_message_past_the_size_limit_ends_the_stream),
        FIXTURE_TEST(a_stream_without_messages_ends_well),
        FIXTURE_TEST(a_cancelled_streams_messages_are_all_counted_out),
        FIXTURE_TEST(streams_past_the_limit_are_refused),
        FIXTURE_TEST(a_client_that_takes_no_answers_is_cancelled),
        FIXTURE_TEST(a_stream_at_rest_is_no_stalled_one),
        FIXTURE_TEST(many_streams_at_once_keep_their_own_order),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
