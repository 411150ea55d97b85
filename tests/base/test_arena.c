/* The arena: alignment, its cap, failure of malloc and of its blocks at every point (--wrap), reuse. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The allocations that still succeed. */
static size_t mallocs_left = SIZE_MAX;
static size_t blocks_nbytes;

static bool may_allocate(void) {
    if (mallocs_left == 0) return false;
    mallocs_left--;
    return true;
}

void *__real_malloc(size_t nbytes);
void *__wrap_malloc(size_t nbytes);
void *__wrap_malloc(size_t nbytes) {
    return may_allocate() ? __real_malloc(nbytes) : NULL;
}

void *__real_hr_arena_block__take(size_t *nbytes);
void *__wrap_hr_arena_block__take(size_t *nbytes);
void *__wrap_hr_arena_block__take(size_t *nbytes) {
    if (!may_allocate()) return NULL;
    void *block = __real_hr_arena_block__take(nbytes);
    blocks_nbytes += *nbytes;
    return block;
}

static void allocations_are_aligned_apart_and_keep_their_bytes(void **state) {
    (void)state;
    enum { N = 2000 };
    hr_arena *arena = hr_arena_create(SIZE_MAX);
    unsigned char *parts[N];
    for (size_t i = 0; i < N; i++) {
        size_t nbytes = i * 7 % 4000;
        parts[i] = hr_arena_alloc(arena, nbytes);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % 16, 0);
        memset(parts[i], (int)(i % 251), nbytes);
    }
    for (size_t i = 0; i < N; i++)
        for (size_t b = 0; b < i * 7 % 4000; b++) assert_int_equal(parts[i][b], i % 251);
    hr_arena_destroy(arena);
}

static void the_cap_bounds_the_sum_and_is_reached_exactly(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(100 * 16);
    for (int i = 0; i < 100; i++) assert_non_null(hr_arena_alloc(arena, 16));
    assert_int_equal(hr_arena_used(arena), 1600);
    assert_null(hr_arena_alloc(arena, 1));
    assert_non_null(hr_arena_alloc(arena, 0));
    hr_arena_reset(arena);
    assert_int_equal(hr_arena_used(arena), 0);
    assert_null(hr_arena_alloc(arena, 1601));
    assert_non_null(hr_arena_alloc(arena, 1600));
    hr_arena_destroy(arena);
}

static void the_heap_is_bounded_by_what_was_handed_out(void **state) {
    (void)state;
    enum { LARGE = (1 << 20) + 16, ROUNDS = 20 };
    hr_arena *arena = hr_arena_create(SIZE_MAX);
    blocks_nbytes = 0;
    for (int i = 0; i < ROUNDS; i++) {
        assert_non_null(hr_arena_alloc(arena, LARGE));
        assert_non_null(hr_arena_alloc(arena, 16));
    }
    assert_true(blocks_nbytes < ROUNDS * (LARGE + 4096));
    hr_arena_destroy(arena);
}

static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(SIZE_MAX);
    assert_null(hr_arena_alloc(arena, SIZE_MAX));
    assert_null(hr_arena_alloc(arena, SIZE_MAX / 2 + 1));
    assert_null(hr_arena_calloc(arena, SIZE_MAX / 8, 16));
    assert_null(hr_arena_strndup(arena, "x", SIZE_MAX));
    assert_non_null(hr_arena_calloc(arena, 0, 16));
    assert_non_null(hr_arena_calloc(arena, 16, 0));
    hr_arena_destroy(arena);
}

static void calloc_zeroes_memory_that_was_used_before(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 16);
    memset(hr_arena_alloc(arena, 4096), 0xAA, 4096);
    hr_arena_reset(arena);
    const unsigned char *zeros = hr_arena_calloc(arena, 1024, 4);
    for (int i = 0; i < 4096; i++) assert_int_equal(zeros[i], 0);
    hr_arena_destroy(arena);
}

static void strndup_ends_in_nul_and_takes_nothing(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 16);
    assert_string_equal(hr_arena_strndup(arena, "homerank", 4), "home");
    assert_string_equal(hr_arena_strndup(arena, NULL, 0), "");
    hr_arena_destroy(arena);
}

static void reset_gives_the_same_memory_again(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(SIZE_MAX);
    void *first = hr_arena_alloc(arena, 64);
    for (int i = 0; i < 1000; i++) hr_arena_alloc(arena, 10000);
    hr_arena_alloc(arena, 5 << 20);
    hr_arena_reset(arena);
    mallocs_left = 0;
    assert_ptr_equal(hr_arena_alloc(arena, 64), first);
    mallocs_left = SIZE_MAX;
    hr_arena_destroy(arena);
}

static void out_of_memory_is_null_and_leaves_the_arena_usable(void **state) {
    (void)state;
    for (size_t succeed = 0; succeed < 12; succeed++) {
        mallocs_left = succeed;
        hr_arena *arena = hr_arena_create(SIZE_MAX);
        if (arena == NULL) continue;
        size_t failed = 0;
        for (int i = 0; i < 200; i++) {
            unsigned char *p = hr_arena_alloc(arena, i % 5 == 0 ? 3 << 20 : 3000);
            if (p == NULL)
                failed++;
            else
                p[0] = 1;
        }
        assert_int_not_equal(failed, 0);
        mallocs_left = SIZE_MAX;
        assert_non_null(hr_arena_alloc(arena, 100000));
        hr_arena_destroy(arena);
    }
    hr_arena_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_aligned_apart_and_keep_their_bytes),
        cmocka_unit_test(the_cap_bounds_the_sum_and_is_reached_exactly),
        cmocka_unit_test(the_heap_is_bounded_by_what_was_handed_out),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(calloc_zeroes_memory_that_was_used_before),
        cmocka_unit_test(strndup_ends_in_nul_and_takes_nothing),
        cmocka_unit_test(reset_gives_the_same_memory_again),
        cmocka_unit_test(out_of_memory_is_null_and_leaves_the_arena_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
