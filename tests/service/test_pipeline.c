/* The pipeline: what is refused and why, what an answer holds, and that every call is done exactly once. */
#include <math.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tests/service/tiny_service.h"

#define PLAIN "{\"request_id\": \"r\", \"user_id\": \"1\", \"item_ids\": [\"a\", \"b\", \"c\"]"

typedef struct fixture_call {
    hr_arena *arena;
    hr_rank_call call;
} fixture_call;

static hr_status rank_json(void **state, fixture_call *f, const char *json) {
    const tiny_service *s = *state;
    f->arena = hr_arena_create(1 << 20);
    f->call = (hr_rank_call){.deadline_ns = UINT64_MAX};
    return tiny_rank(s->pipeline, tiny_request(f->arena, json), f->arena, &f->call);
}

static void expect_refused(void **state, const char *json, hr_status code, const char *message) {
    fixture_call f;
    assert_int_equal(rank_json(state, &f, json), code);
    if (strstr(f.call.error.message, message) == NULL)
        fail_msg("expected \"%s\" in \"%s\"", message, f.call.error.message);
    hr_arena_destroy(f.arena);
}

static void an_answer_holds_every_item_and_task_best_first(void **state) {
    fixture_call f;
    assert_int_equal(rank_json(state, &f,
                               PLAIN
                               ", \"item_features\": [{\"price\": 0.5}, {\"price\": 4}, {\"price\": -3}]}"),
                     HR_OK);
    const Homerank__V1__RankResponse *answer = f.call.response;
    assert_string_equal(answer->request_id, "r");
    assert_string_equal(answer->model, "tiny@1");
    assert_int_equal(answer->n_item_ids, 3);
    assert_int_equal(answer->n_scores, 3);
    assert_int_equal(answer->n_tasks, 2);
    assert_int_equal(answer->n_task_scores, 6);
    assert_string_equal(answer->tasks[0], "click");
    assert_string_equal(answer->tasks[1], "time");
    for (size_t i = 0; i < 3; i++) {
        /* config.json's fusion: click + 0.5 time */
        float fused = answer->task_scores[2 * i] + 0.5F * answer->task_scores[2 * i + 1];
        assert_true(fabsf(answer->scores[i] - fused) < 1e-6F);
        if (i > 0) assert_true(answer->scores[i - 1] >= answer->scores[i]);
    }
    assert_false(answer->features->user_found);
    assert_int_equal(answer->features->items_missing, 3);
    assert_int_equal(answer->n_warnings, 0);
    hr_arena_destroy(f.arena);
}

static void ties_rank_by_position_and_duplicates_are_each_scored(void **state) {
    fixture_call f;
    assert_int_equal(rank_json(state, &f, "{\"user_id\": \"1\", \"item_ids\": [\"z\", \"b\", \"z\", \"a\"]}"),
                     HR_OK);
    const char *expected[] = {"z", "b", "z", "a"};
    assert_int_equal(f.call.response->n_item_ids, 4);
    for (size_t i = 0; i < 4; i++) assert_string_equal(f.call.response->item_ids[i], expected[i]);
    hr_arena_destroy(f.arena);
}

static void top_k_and_tasks_cut_the_answer_but_not_the_fusion(void **state) {
    fixture_call all, cut;
    const char *items = ", \"item_features\": [{\"price\": 0.5}, {\"price\": 4}, {\"price\": -3}]";
    char json[256];
    snprintf(json, sizeof json, "%s%s}", PLAIN, items);
    assert_int_equal(rank_json(state, &all, json), HR_OK);
    snprintf(json, sizeof json, "%s%s, \"top_k\": 2, \"tasks\": [\"time\"]}", PLAIN, items);
    assert_int_equal(rank_json(state, &cut, json), HR_OK);
    assert_int_equal(cut.call.response->n_item_ids, 2);
    assert_int_equal(cut.call.response->n_tasks, 1);
    assert_int_equal(cut.call.response->n_task_scores, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(cut.call.response->item_ids[i], all.call.response->item_ids[i]);
        assert_true(cut.call.response->scores[i] == all.call.response->scores[i]);
        assert_true(cut.call.response->task_scores[i] == all.call.response->task_scores[2 * i + 1]);
    }
    hr_arena_destroy(all.arena);
    hr_arena_destroy(cut.arena);
}

static void bad_requests_are_refused_by_name(void **state) {
    expect_refused(state, "{\"user_id\": \"1\"}", HR_INVALID_ARGUMENT, "item_ids: expected at least 1");
    expect_refused(state, "{\"user_id\": \"\", \"item_ids\": [\"a\"]}", HR_INVALID_ARGUMENT,
                   "user_id: expected 1");
    expect_refused(state, "{\"user_id\": \"1\", \"item_ids\": [\"a\", \"\"]}", HR_INVALID_ARGUMENT,
                   "item_ids[1]");
    expect_refused(state, "{\"user_id\": \"1\", \"item_ids\": [\"12345678901234567\"]}", HR_INVALID_ARGUMENT,
                   "found 17");
    expect_refused(state, PLAIN ", \"model\": \"none\"}", HR_NOT_FOUND, "none");
    expect_refused(state, PLAIN ", \"tasks\": [\"click\", \"click\"]}", HR_INVALID_ARGUMENT, "tasks[1]");
    expect_refused(state, PLAIN ", \"tasks\": [\"share\"]}", HR_INVALID_ARGUMENT, "share");
    expect_refused(state, PLAIN ", \"priority\": 2}", HR_INVALID_ARGUMENT, "priority");
    expect_refused(state, PLAIN ", \"forced_variations\": {\"e\": 1}}", HR_INVALID_ARGUMENT,
                   "forced_variations");
    expect_refused(state, PLAIN ", \"item_features\": [{}]}", HR_INVALID_ARGUMENT,
                   "item_features: expected none or");
    expect_refused(state, PLAIN ", \"item_features\": [{}, {\"price\": \"dear\"}, {}]}", HR_INVALID_ARGUMENT,
                   "item_features[1]");
}

static void attributes_are_a_json_object_of_at_most_64_kib(void **state) {
    enum { MOST = 64 << 10 };
    const tiny_service *s = *state;
    hr_arena *arena = hr_arena_create(1 << 20);
    Homerank__V1__RankRequest *request = tiny_request(arena, PLAIN "}");
    hr_rank_call call = {.deadline_ns = UINT64_MAX};
    char *attributes = hr_arena_calloc(arena, MOST + 2, 1);
    request->attributes = attributes;
    strcpy(attributes, "[1]");
    assert_int_equal(tiny_rank(s->pipeline, request, arena, &call), HR_INVALID_ARGUMENT);
    strcpy(attributes, "{\"a\": ");
    assert_int_equal(tiny_rank(s->pipeline, request, arena, &call), HR_INVALID_ARGUMENT);
    memset(attributes, ' ', MOST);
    attributes[0] = '{', attributes[MOST - 1] = '}';
    assert_int_equal(tiny_rank(s->pipeline, request, arena, &call), HR_OK);
    attributes[MOST] = ' ';
    assert_int_equal(tiny_rank(s->pipeline, request, arena, &call), HR_INVALID_ARGUMENT);
    assert_string_equal(call.error.message, "attributes: expected at most 65536 bytes, found 65537");
    hr_arena_destroy(arena);
}

static void a_request_id_is_at_most_1_kib(void **state) {
    enum { MOST = 1 << 10 };
    const tiny_service *s = *state;
    hr_arena *arena = hr_arena_create(1 << 20);
    Homerank__V1__RankRequest *request = tiny_request(arena, PLAIN "}");
    hr_rank_call call = {.deadline_ns = UINT64_MAX};
    request->request_id = hr_arena_calloc(arena, MOST + 2, 1);
    memset(request->request_id, 'r', MOST);
    assert_int_equal(tiny_rank(s->pipeline, request, arena, &call), HR_OK);
    request->request_id[MOST] = 'r';
    assert_int_equal(tiny_rank(s->pipeline, request, arena, &call), HR_INVALID_ARGUMENT);
    assert_string_equal(call.error.message, "request_id: expected at most 1024 bytes, found 1025");
    hr_arena_destroy(arena);
}

static void a_request_larger_than_its_memory_is_refused(void **state) {
    const tiny_service *s = *state;
    hr_arena *roomy = hr_arena_create(1 << 20);
    const Homerank__V1__RankRequest *request = tiny_request(roomy, PLAIN "}");
    for (size_t cap = 0; cap < 2048; cap += 16) {
        hr_arena *arena = hr_arena_create(cap);
        hr_rank_call call = {.deadline_ns = UINT64_MAX};
        hr_status status = tiny_rank(s->pipeline, request, arena, &call);
        assert_true(status == HR_OK || status == HR_RESOURCE_EXHAUSTED);
        hr_arena_destroy(arena);
    }
    hr_arena_destroy(roomy);
}

static void a_call_past_its_deadline_or_cancelled_is_not_worked_on(void **state) {
    const tiny_service *s = *state;
    hr_arena *arena = hr_arena_create(1 << 20);
    const Homerank__V1__RankRequest *request = tiny_request(arena, PLAIN "}");
    hr_rank_call late = {.deadline_ns = hr_clock_ns()};
    assert_int_equal(tiny_rank(s->pipeline, request, arena, &late), HR_DEADLINE_EXCEEDED);
    assert_null(late.response);
    hr_rank_call cancelled = {.deadline_ns = UINT64_MAX};
    atomic_store(&cancelled.cancelled, true);
    assert_int_equal(tiny_rank(s->pipeline, request, arena, &cancelled), HR_CANCELLED);
    hr_arena_destroy(arena);
}

static void a_draining_pipeline_refuses(void **state) {
    const tiny_service *s = *state;
    hr_pipeline_drain(s->pipeline);
    expect_refused(state, PLAIN "}", HR_UNAVAILABLE, "shutting down");
}

enum { N_BURST = 64 };

static atomic_uint n_ok, n_refused;

static void count(hr_rank_call *call) {
    atomic_fetch_add(call->error.code == HR_OK ? &n_ok : &n_refused, 1);
    if (call->error.code != HR_OK && call->error.code != HR_RESOURCE_EXHAUSTED)
        fail_msg("%s", call->error.message);
}

/* The queue holds 8 calls: of a burst of 64 each is answered or refused, none twice and none lost. */
static void a_full_queue_refuses_and_every_call_is_done_once(void **state) {
    tiny_service *s = *state;
    hr_rank_call *calls = calloc(N_BURST, sizeof *calls);
    hr_arena *arenas[N_BURST];
    assert_non_null(calls);
    for (size_t i = 0; i < N_BURST; i++) {
        arenas[i] = hr_arena_create(1 << 20);
        calls[i].request = tiny_request(arenas[i], PLAIN "}");
        calls[i].arena = arenas[i];
        calls[i].deadline_ns = UINT64_MAX;
        calls[i].done = count;
    }
    for (size_t i = 0; i < N_BURST; i++) hr_pipeline_submit(s->pipeline, &calls[i]);
    hr_pipeline_destroy(s->pipeline);
    s->pipeline = NULL;
    assert_int_equal(atomic_load(&n_ok) + atomic_load(&n_refused), N_BURST);
    assert_true(atomic_load(&n_ok) >= tiny_pipeline_options.max_queued_calls);
    for (size_t i = 0; i < N_BURST; i++) hr_arena_destroy(arenas[i]);
    free(calls);
}

enum { N_RELAY = 200 };

/* Calls that follow each other: each is submitted as the one before it is done. */
typedef struct relay {
    hr_pipeline *pipeline;
    hr_rank_call calls[N_RELAY];
    unsigned n_done;
    sem_t ended;
} relay;

static void submit_next(hr_rank_call *call) {
    relay *r = call->arg;
    if (call->error.code == HR_OK && ++r->n_done < N_RELAY)
        hr_pipeline_submit(r->pipeline, &r->calls[r->n_done]);
    else
        sem_post(&r->ended);
}

static void a_call_that_is_done_has_left_the_queue(void **state) {
    const tiny_service *s = *state;
    hr_pipeline_options options = tiny_pipeline_options;
    options.max_queued_calls = 1;
    options.max_items = options.max_queued_items = 3;
    relay *r = calloc(1, sizeof *r);
    hr_arena *arena = hr_arena_create(1 << 24);
    hr_error err;
    assert_non_null(r);
    sem_init(&r->ended, 0, 0);
    assert_int_equal(hr_pipeline_create(&options, s->repository, s->store, &r->pipeline, &err), HR_OK);
    for (size_t i = 0; i < N_RELAY; i++)
        r->calls[i] = (hr_rank_call){.request = tiny_request(arena, PLAIN "}"),
                                     .arena = arena, /* one at a time has it */
                                     .deadline_ns = UINT64_MAX,
                                     .done = submit_next,
                                     .arg = r};
    hr_pipeline_submit(r->pipeline, &r->calls[0]);
    while (sem_wait(&r->ended) != 0) continue;
    hr_pipeline_destroy(r->pipeline);
    sem_destroy(&r->ended);
    assert_int_equal(r->n_done, N_RELAY);
    hr_arena_destroy(arena);
    free(r);
}

static void a_queue_that_no_largest_request_fits_is_no_pipeline(void **state) {
    const tiny_service *s = *state;
    hr_pipeline_options options = tiny_pipeline_options;
    options.max_queued_items = options.max_items - 1;
    hr_pipeline *pipeline = NULL;
    hr_error err;
    assert_int_equal(hr_pipeline_create(&options, s->repository, s->store, &pipeline, &err),
                     HR_INVALID_ARGUMENT);
    assert_null(pipeline);
}

#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_service_setup, tiny_service_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TINY_TEST(an_answer_holds_every_item_and_task_best_first),
        TINY_TEST(ties_rank_by_position_and_duplicates_are_each_scored),
        TINY_TEST(top_k_and_tasks_cut_the_answer_but_not_the_fusion),
        TINY_TEST(bad_requests_are_refused_by_name),
        TINY_TEST(attributes_are_a_json_object_of_at_most_64_kib),
        TINY_TEST(a_request_id_is_at_most_1_kib),
        TINY_TEST(a_request_larger_than_its_memory_is_refused),
        TINY_TEST(a_call_past_its_deadline_or_cancelled_is_not_worked_on),
        TINY_TEST(a_draining_pipeline_refuses),
        TINY_TEST(a_full_queue_refuses_and_every_call_is_done_once),
        TINY_TEST(a_call_that_is_done_has_left_the_queue),
        TINY_TEST(a_queue_that_no_largest_request_fits_is_no_pipeline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
