/* Ranking: outputs, fusion and order from given logits, where the network has no say. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/ranking.h"
#include "tests/model/model_folder.h"
#include "tests/service/tiny_service.h"

/* Logits of click (sigmoid) and time (identity); the fusion is click + 0.5 time. */
static void fill(void **state, hr_arena *arena, const char *json, const float *logits,
                 Homerank__V1__RankResponse *response, uint32_t *n_not_finite) {
    const tiny_service *s = *state;
    hr_model *model = NULL;
    hr_error err;
    homerank__v1__rank_response__init(response);
    assert_int_equal(hr_repository_acquire(s->repository, "tiny", &model, &err), HR_OK);
    const Homerank__V1__RankRequest *request = tiny_request(arena, json);
    hr_ranking_choice choice;
    const hr_ranking_wish wish = {.tasks = (const char *const *)request->tasks, .n_tasks = request->n_tasks};
    if (hr_ranking_choose(model, &wish, arena, &choice, &err) != HR_OK) fail_msg("%s", err.message);
    hr_ranking_scores scores;
    if (hr_ranking_fill(model, request, &choice, logits, arena, response, &scores, &err) != HR_OK)
        fail_msg("%s", err.message);
    *n_not_finite = scores.n_not_finite;
    hr_model_unref(model);
}

static void outputs_are_applied_and_fused_in_the_order_of_the_score(void **state) {
    const float logits[] = {0.0F, 1.0F, 2.0F, -1.0F, -2.0F, 3.0F};
    Homerank__V1__RankResponse response;
    uint32_t n_not_finite;
    hr_arena *arena = hr_arena_create(1 << 20);
    fill(state, arena, "{\"user_id\": \"1\", \"item_ids\": [\"a\", \"b\", \"c\"]}", logits, &response,
         &n_not_finite);
    assert_int_equal(n_not_finite, 0);
    assert_string_equal(response.item_ids[0], "c");
    assert_string_equal(response.item_ids[1], "a");
    assert_string_equal(response.item_ids[2], "b");
    assert_true(fabs((double)response.scores[0] - (1 / (1 + exp(2)) + 1.5)) < 1e-6);
    assert_true(fabs((double)response.task_scores[4] - 1 / (1 + exp(-2))) < 1e-6);
    assert_true(response.task_scores[5] == -1.0F);
    hr_arena_destroy(arena);
}

static void what_is_not_finite_ranks_last_by_position(void **state) {
    const float logits[] = {0.0F, INFINITY, 0.0F, -5.0F, 0.0F, NAN, 0.0F, 1.0F, 0.0F, -INFINITY};
    Homerank__V1__RankResponse response;
    uint32_t n_not_finite;
    hr_arena *arena = hr_arena_create(1 << 20);
    fill(state, arena, "{\"user_id\": \"1\", \"item_ids\": [\"a\", \"b\", \"c\", \"d\", \"e\"]}", logits,
         &response, &n_not_finite);
    assert_int_equal(n_not_finite, 3);
    const char *expected[] = {"d", "b", "a", "c", "e"};
    for (size_t i = 0; i < 5; i++) assert_string_equal(response.item_ids[i], expected[i]);
    assert_true(isinf(response.scores[2]));
    assert_true(isnan(response.scores[3]));
    hr_arena_destroy(arena);
}

static int setup_click_alone(void **state) {
    char *config = test_replace(test_tiny_config, ", \"time\": 0.5", "");
    int result = tiny_service_setup_with(state, config);
    free(config);
    return result;
}

static void an_output_outside_the_fusion_that_is_not_finite_ranks_its_item_last(void **state) {
    const float logits[] = {5.0F, INFINITY, -5.0F, 0.0F};
    Homerank__V1__RankResponse response;
    uint32_t n_not_finite;
    hr_arena *arena = hr_arena_create(1 << 20);
    fill(state, arena, "{\"user_id\": \"1\", \"item_ids\": [\"a\", \"b\"]}", logits, &response,
         &n_not_finite);
    assert_int_equal(n_not_finite, 1);
    assert_string_equal(response.item_ids[0], "b");
    assert_string_equal(response.item_ids[1], "a");
    hr_arena_destroy(arena);
}

static void equal_scores_keep_the_order_of_the_request_in_any_number(void **state) {
    enum { N = 100 };
    float logits[2 * N] = {0};
    char json[2048];
    size_t n = (size_t)snprintf(json, sizeof json, "{\"user_id\": \"1\", \"item_ids\": [\"0\"");
    for (int i = 1; i < N; i++) n += (size_t)snprintf(json + n, sizeof json - n, ",\"%d\"", i);
    snprintf(json + n, sizeof json - n, "]}");
    Homerank__V1__RankResponse response;
    uint32_t n_not_finite;
    hr_arena *arena = hr_arena_create(1 << 20);
    fill(state, arena, json, logits, &response, &n_not_finite);
    for (int i = 0; i < N; i++) assert_int_equal(strtol(response.item_ids[i], NULL, 10), i);
    hr_arena_destroy(arena);
}

#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_service_setup, tiny_service_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TINY_TEST(outputs_are_applied_and_fused_in_the_order_of_the_score),
        TINY_TEST(what_is_not_finite_ranks_last_by_position),
        cmocka_unit_test_setup_teardown(an_output_outside_the_fusion_that_is_not_finite_ranks_its_item_last,
                                        setup_click_alone, tiny_service_teardown),
        TINY_TEST(equal_scores_keep_the_order_of_the_request_in_any_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
