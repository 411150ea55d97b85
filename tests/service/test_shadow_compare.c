/* Two rankings beside each other: ranks, overlap and differences worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "service/shadow_compare.h"
#include "tests/service/tiny_service.h"

static hr_model *tiny_model(void **state) {
    const tiny_service *s = *state;
    hr_model *model = NULL;
    hr_error err;
    assert_int_equal(hr_repository_acquire(s->repository, "tiny", &model, &err), HR_OK);
    return model;
}

/* Of the tiny model, whose tasks are click and time. */
static hr_shadow_difference compared(void **state, const float *a, const float *a_outputs, const float *b,
                                     const float *b_outputs, uint32_t n, hr_arena *arena) {
    hr_model *model = tiny_model(state);
    const hr_scored first = {model, a, a_outputs}, second = {model, b, b_outputs};
    hr_shadow_difference d;
    assert_true(hr_shadow_compare(&first, &second, n, arena, &d));
    hr_model_unref(model);
    return d;
}

static void ties_share_their_mean_rank(void **state) {
    hr_arena *arena = hr_arena_create(1 << 20);
    const float a[] = {4, 3, 2, 1}, b[] = {3, 3, 1, 2}, outputs[8] = {0};
    /* Ranks 0 1 2 3 and 0.5 0.5 3 2, less 1.5: (1.5 + 0.5 + 0.75 + 0.75) / sqrt(5 * 4.5) */
    hr_shadow_difference d = compared(state, a, outputs, b, outputs, 4, arena);
    assert_true(d.has_correlation);
    assert_float_equal(d.rank_correlation, 3.5 / sqrt(22.5), 1e-12);
    assert_float_equal(d.top_overlap, 1, 0);
    hr_arena_destroy(arena);
}

static void an_order_is_its_own_and_against_its_reverse(void **state) {
    enum { N = 25 };
    hr_arena *arena = hr_arena_create(1 << 20);
    float up[N], down[N], outputs[2 * N] = {0};
    for (int i = 0; i < N; i++) up[i] = (float)i, down[i] = (float)-i;
    assert_float_equal(compared(state, up, outputs, up, outputs, N, arena).rank_correlation, 1, 1e-12);
    hr_shadow_difference d = compared(state, up, outputs, down, outputs, N, arena);
    assert_float_equal(d.rank_correlation, -1, 1e-12);
    assert_float_equal(d.top_overlap, 0, 0);
    for (int i = 0; i < N; i++) down[i] = up[i] + (i < 20 && i >= 15 ? 100 : 0); /* five of the ten best */
    d = compared(state, up, outputs, down, outputs, N, arena);
    assert_float_equal(d.top_overlap, 1, 0); /* they were among them already */
    for (int i = 0; i < N; i++) down[i] = up[i] + (i < 5 ? 100 : 0);
    assert_float_equal(compared(state, up, outputs, down, outputs, N, arena).top_overlap, 0.5, 1e-12);
    hr_arena_destroy(arena);
}

static void equal_scores_have_no_correlation_and_nan_ranks_last(void **state) {
    hr_arena *arena = hr_arena_create(1 << 20);
    const float flat[] = {1, 1, 1}, some[] = {NAN, 2, 1}, same[] = {-9, 2, 1};
    const float outputs[] = {0, 0, 0, 0, 0, 0};
    assert_false(compared(state, flat, outputs, some, outputs, 3, arena).has_correlation);
    assert_float_equal(compared(state, some, outputs, same, outputs, 3, arena).rank_correlation, 1, 1e-12);
    hr_arena_destroy(arena);
}

static void each_task_has_its_mean_difference(void **state) {
    hr_arena *arena = hr_arena_create(1 << 20);
    const float scores[] = {2, 1}, a[] = {0.5F, 10, 0.25F, INFINITY}, b[] = {0.25F, 12, 0.75F, 1};
    hr_shadow_difference d = compared(state, scores, a, scores, b, 2, arena);
    assert_int_equal(d.n_tasks, 2);
    assert_string_equal(d.tasks[0], "click");
    assert_float_equal(d.differences[0], 0.375, 1e-12);
    assert_string_equal(d.tasks[1], "time");
    assert_float_equal(d.differences[1], 2, 1e-12);
    hr_arena_destroy(arena);
}

#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_service_setup, tiny_service_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TINY_TEST(ties_share_their_mean_rank),
        TINY_TEST(an_order_is_its_own_and_against_its_reverse),
        TINY_TEST(equal_scores_have_no_correlation_and_nan_ranks_last),
        TINY_TEST(each_task_has_its_mean_difference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
