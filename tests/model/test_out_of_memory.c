/* Loading a model when memory ends, at every allocation in turn (--wrap): a status, no crash, no leak. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdbool.h>
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

static char dir[256];

static int make_folder(void **state) {
    (void)state;
    test_tensors tensors = {0};
    test_folder_make(dir, sizeof dir);
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
    test_folder_remove(dir);
    return 0;
}

static void memory_may_end_anywhere(void **state) {
    (void)state;
    static const hr_repository_options options = {.model = {.backend = "reference", .n_workers = 2}};
    hr_status status = HR_OUT_OF_MEMORY;
    size_t allowed = 0;
    for (; status != HR_OK; allowed++) {
        hr_repository *repository;
        hr_error err = {0};
        allocations_left = allowed;
        status = hr_repository_open_folder(dir, &options, &repository, &err);
        allocations_left = SIZE_MAX;
        if (status == HR_OK) {
            hr_repository_close(repository);
            break;
        }
        /* jansson cannot say that memory ended; its readers then find no JSON, or a value missing. */
        if (status != HR_OUT_OF_MEMORY && status != HR_INVALID_ARGUMENT) {
            fail_msg("%zu allocations: %d \"%s\"", allowed, status, err.message);
        }
        assert_null(repository);
        assert_int_equal(err.code, status);
        assert_true(strlen(err.message) > 0);
    }
    assert_true(allowed > 50); /* it did fail at many places */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_may_end_anywhere)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
