/* Loading a model when memory ends, at every allocation in turn (--wrap): a status, no crash, no leak. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/repository.h"
#include "tests/model/model_folder.h"

/* The allocations that still succeed. */
static size_t allocations_left = SIZE_MAX;

static bool may_allocate(void) {
    if (allocations_left == 0) return false;
    if (allocations_left != SIZE_MAX) allocations_left--;
    return true;
}

void *__real_malloc(size_t nbytes);
void *__wrap_malloc(size_t nbytes);
void *__wrap_malloc(size_t nbytes) {
    return may_allocate() ? __real_malloc(nbytes) : NULL;
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size) {
    return may_allocate() ? __real_calloc(n, size) : NULL;
}

void *__real_realloc(void *p, size_t nbytes);
void *__wrap_realloc(void *p, size_t nbytes);
void *__wrap_realloc(void *p, size_t nbytes) {
    return may_allocate() ? __real_realloc(p, nbytes) : NULL;
}

void *__real_aligned_alloc(size_t alignment, size_t nbytes);
void *__wrap_aligned_alloc(size_t alignment, size_t nbytes);
void *__wrap_aligned_alloc(size_t alignment, size_t nbytes) {
    return may_allocate() ? __real_aligned_alloc(alignment, nbytes) : NULL;
}

void *__real_hr_arena_block__take(size_t *nbytes);
void *__wrap_hr_arena_block__take(size_t *nbytes);
void *__wrap_hr_arena_block__take(size_t *nbytes) {
    return may_allocate() ? __real_hr_arena_block__take(nbytes) : NULL;
}

static char root[256], dir[300]; /* root/tiny/1 */

static int make_folder(void **state) {
    (void)state;
    test_tensors tensors = {0};
    test_folder_make(root, sizeof root);
    test_folder_sub(root, "tiny");
    test_folder_sub(root, "tiny/1");
    snprintf(dir, sizeof dir, "%s/tiny", root);
    test_write_bytes(dir, "labels.json", "{\"stable\": 1}", 13);
    snprintf(dir, sizeof dir, "%s/tiny/1", root);
    test_write_config(dir, test_tiny_config);
    test_tiny_tensors(&tensors, "batch");
    test_tensors_find(&tensors, "tower.time.0.weight")->dtype = "F16";
    test_write_tensors(dir, &tensors);
    test_tensors_clear(&tensors);
    json_set_alloc_funcs(__wrap_malloc, free);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    test_folder_remove(root);
    return 0;
}

static const hr_repository_options options = {.model = {.backend = "reference", .n_workers = 2},
                                              .warm_rows = 2};

static hr_status open_folder(hr_repository **repository, hr_error *err) {
    return hr_repository_open_folder(dir, &options, repository, err);
}

static hr_status open_root(hr_repository **repository, hr_error *err) {
    return hr_repository_open(root, &options, repository, err);
}

/* expected: what a failure may be besides OUT_OF_MEMORY. */
static void check_every_allocation(hr_status (*open)(hr_repository **repository, hr_error *err),
                                   hr_status expected) {
    hr_status status = HR_OUT_OF_MEMORY;
    size_t allowed = 0;
    for (; status != HR_OK; allowed++) {
        hr_repository *repository;
        hr_error err = {0};
        allocations_left = allowed;
        status = open(&repository, &err);
        allocations_left = SIZE_MAX;
        if (status == HR_OK) {
            hr_repository_close(repository);
            break;
        }
        if (status != HR_OUT_OF_MEMORY && status != expected) {
            fail_msg("%zu allocations: %d \"%s\"", allowed, status, err.message);
        }
        assert_null(repository);
        assert_int_equal(err.code, status);
        assert_true(strlen(err.message) > 0);
    }
    assert_true(allowed > 50); /* it did fail at many places */
}

/* jansson cannot say that memory ended; its readers then find no JSON, or a value missing. */
static void memory_may_end_anywhere(void **state) {
    (void)state;
    check_every_allocation(open_folder, HR_INVALID_ARGUMENT);
}

/* The version fails, and there is no other. */
static void memory_may_end_while_a_repository_is_opened(void **state) {
    (void)state;
    check_every_allocation(open_root, HR_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_may_end_anywhere),
                                       cmocka_unit_test(memory_may_end_while_a_repository_is_opened)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
