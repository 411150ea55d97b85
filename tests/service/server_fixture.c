/* The running server of the tests: see server_fixture.h. */
#include "tests/service/server_fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "proto/health.pb-c.h"
#include "service/servable.h"

enum { N_WORKERS = 2, MAX_ITEMS = 1000 };

const hr_server_options fixture_server_options = {
    .listen = "127.0.0.1:0",
    .n_pollers = 2,
    .max_message_nbytes = 1 << 20,
    .max_open_calls = 2000,
    .max_call_nbytes = 64 << 20,
    .max_open_nbytes = 1 << 30,
    .grace_ms = 30000,
};

static void check(hr_status status, const hr_error *err) {
    if (status != HR_OK) fail_msg("%s", err->message);
}

static void start_pipeline(fixture *f) {
    const hr_pipeline_options options = {
        .n_workers = N_WORKERS,
        .max_items = MAX_ITEMS,
        .max_id_nbytes = 256,
        .max_queued_calls = 4096,
        .max_queued_items = 1000000,
        .max_queue_ns = UINT64_MAX, /* a shut gate, or a sanitizer, is no overload */
    };
    hr_error err;
    check(hr_pipeline_create(&options, f->repository, f->store, &f->pipeline, &err), &err);
}

/* The store connects when it can; until then it answers at once, and the gate would hold nobody. */
static void wait_for_store(fixture *f) {
    for (uint64_t until_ns = hr_clock_ns() + 30000000000u; hr_clock_ns() < until_ns;) {
        peer_call *call = peer_open(f->client, RANK_PATH, 0);
        fixture_send(call, "warm", 1);
        peer_half_close(call);
        Homerank__V1__RankResponse *answer = peer_receive(call, &homerank__v1__rank_response__descriptor);
        char text[512];
        if (peer_finish(call, text) != 0) fail_msg("%s", text);
        bool connected = answer->features->store_error[0] == '\0';
        protobuf_c_message_free_unpacked(&answer->base, NULL);
        if (connected) return;
    }
    fail_msg("the store did not connect to Redis");
}

void fixture_serve(fixture *f, const hr_server_options *options) {
    hr_error err;
    check(hr_server_start(options != NULL ? options : &fixture_server_options, f->pipeline, &f->server, &err),
          &err);
    f->client = peer_connect(hr_server_port(f->server));
}

void fixture_stop(fixture *f) {
    if (f->client != NULL) peer_close(f->client);
    f->client = NULL;
    if (f->server != NULL) hr_server_shutdown(f->server);
    f->server = NULL;
}

int fixture_group_setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    redis_server_start(&f->redis, "");
    hr_error err;
    hr_store_options store = hr_store_defaults;
    store.command_timeout_ms = 120000; /* the gate, and nothing else, decides when Redis answers */
    check(hr_store_open(f->redis.uri, &store, &f->store, &err), &err);
    const hr_repository_options repository = {
        .model = {.backend = "reference", .precision = HR_PRECISION_F32, .n_workers = N_WORKERS},
        .prepare = hr_servable_prepare,
    };
    check(hr_repository_open("tests/service/models", &repository, &f->repository, &err), &err);
    start_pipeline(f);
    fixture_serve(f, NULL);
    wait_for_store(f);
    fixture_stop(f);
    *state = f;
    return 0;
}

int fixture_group_teardown(void **state) {
    fixture *f = *state;
    hr_pipeline_destroy(f->pipeline);
    hr_repository_close(f->repository);
    hr_store_close(f->store);
    redis_server_kill(&f->redis);
    free(f);
    return 0;
}

/* A gate that was shut for long opens the store's breaker: the next test shall find it closed. */
static void wait_for_answers(fixture *f) {
    const struct timespec pause = {.tv_nsec = 1000000};
    const hr_field_list none = {0};
    hr_arena *arena = hr_arena_create(1 << 20);
    hr_status status = HR_UNAVAILABLE;
    for (uint64_t until_ns = hr_clock_ns() + 30000000000u; status != HR_OK && hr_clock_ns() < until_ns;) {
        hr_fetch fetch = {.user_id = "nobody",
                          .fields = {[HR_ENTITY_USER] = &none, [HR_ENTITY_ITEM] = &none},
                          .deadline_ns = UINT64_MAX,
                          .arena = arena};
        hr_store_fetch_wait(f->store, &fetch);
        status = fetch.error.code;
        hr_arena_reset(arena);
        if (status != HR_OK) nanosleep(&pause, NULL);
    }
    hr_arena_destroy(arena);
    if (status != HR_OK) fail_msg("Redis is not asked any more");
}

int fixture_teardown(void **state) {
    fixture_open_gate(*state);
    fixture_stop(*state);
    wait_for_answers(*state);
    return 0;
}

void fixture_shut_gate(fixture *f) {
    redis_server_signal(&f->redis, SIGSTOP);
}

void fixture_open_gate(fixture *f) {
    redis_server_signal(&f->redis, SIGCONT);
}

static void wait_count(fixture *f, size_t offset, uint64_t n) {
    const struct timespec pause = {.tv_nsec = 1000000};
    for (uint64_t until_ns = hr_clock_ns() + 30000000000u; hr_clock_ns() < until_ns;
         nanosleep(&pause, NULL)) {
        hr_server_counts counts;
        hr_server_count(f->server, &counts);
        uint64_t count;
        memcpy(&count, (const char *)&counts + offset, sizeof count);
        if (count >= n) return;
    }
    fail_msg("the server's count did not come to %llu", (unsigned long long)n);
}

void fixture_wait_accepted(fixture *f, uint64_t n) {
    wait_count(f, offsetof(hr_server_counts, accepted), n);
}

void fixture_wait_cancelled(fixture *f, uint64_t n) {
    wait_count(f, offsetof(hr_server_counts, cancelled), n);
}

/* A whole call on the same connection, of a service that the gate and the counts know nothing of. */
void fixture_round_trip(fixture *f) {
    const Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    void *answer = NULL;
    assert_int_equal(peer_unary(f->client, "/grpc.health.v1.Health/Check", &request.base,
                                &grpc__health__v1__health_check_response__descriptor, &answer, NULL),
                     0);
    protobuf_c_message_free_unpacked(answer, NULL);
}

Homerank__V1__RankRequest *fixture_request(hr_arena *arena, const char *request_id, uint32_t n_items) {
    Homerank__V1__RankRequest *request = hr_arena_calloc(arena, 1, sizeof *request);
    homerank__v1__rank_request__init(request);
    request->request_id = hr_arena_strndup(arena, request_id, strlen(request_id));
    request->user_id = hr_arena_strndup(arena, "user-1", 6);
    request->item_ids = hr_arena_calloc(arena, n_items, sizeof *request->item_ids);
    request->n_item_ids = n_items;
    for (uint32_t i = 0; i < n_items; i++) {
        char id[16];
        int nbytes = snprintf(id, sizeof id, "item-%u", i);
        request->item_ids[i] = hr_arena_strndup(arena, id, (size_t)nbytes);
    }
    return request;
}

void fixture_send(peer_call *call, const char *request_id, uint32_t n_items) {
    hr_arena *arena = hr_arena_create(16 << 20);
    peer_send_message(call, &fixture_request(arena, request_id, n_items)->base);
    hr_arena_destroy(arena);
}

void fixture_expect(peer_call *call, const char *request_id, uint32_t n_items) {
    Homerank__V1__RankResponse *answer = peer_receive(call, &homerank__v1__rank_response__descriptor);
    if (answer == NULL) {
        char text[512];
        int code = peer_finish(call, text);
        fail_msg("no answer to %s: status %d %s", request_id, code, text);
        return;
    }
    assert_string_equal(answer->request_id, request_id);
    assert_int_equal(answer->n_item_ids, n_items);
    assert_int_equal(answer->n_scores, n_items);
    protobuf_c_message_free_unpacked(&answer->base, NULL);
}
