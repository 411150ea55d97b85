/* The blocks of arenas: shared by all threads, as many as are needed and for as long (--wrap: what is mapped,
 * and the time). Under AddressSanitizer nothing is kept. */
#include "base/arena_blocks.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { KB = 1 << 10, MB = 1 << 20, INTERVAL_S = 5 };

static size_t mapped_nbytes, n_mapped, n_unmapped;
static bool no_memory;

void *__real_mmap(void *at, size_t nbytes, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t nbytes, int protection, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t nbytes, int protection, int flags, int file, off_t offset) {
    if (no_memory) return MAP_FAILED;
    mapped_nbytes += nbytes;
    n_mapped++;
    return __real_mmap(at, nbytes, protection, flags, file, offset);
}

int __real_munmap(void *at, size_t nbytes);
int __wrap_munmap(void *at, size_t nbytes);
int __wrap_munmap(void *at, size_t nbytes) {
    mapped_nbytes -= nbytes;
    n_unmapped++;
    return __real_munmap(at, nbytes);
}

static uint64_t now_s = 1000;
uint64_t __wrap_hr_clock_ns(void);
uint64_t __wrap_hr_clock_ns(void) {
    return now_s * 1000000000u;
}

/* Takes n blocks at once, writes all of them and gives them back. */
static void use(size_t n, size_t nbytes) {
    void *blocks[256];
    size_t size = nbytes;
    assert_true(n <= sizeof blocks / sizeof *blocks);
    for (size_t i = 0; i < n; i++) {
        blocks[i] = hr_arena_block__take(&size);
        assert_non_null(blocks[i]);
        memset(blocks[i], (int)i, size);
    }
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(((unsigned char *)blocks[i])[size - 1], i);
        hr_arena_block__give(blocks[i], size);
    }
}

/* Some time of needing n blocks at once and no more. */
static void need(size_t n, size_t nbytes) {
    for (int interval = 0; interval < 4; interval++) {
        for (int i = 0; i < 300; i++) use(n, nbytes);
        now_s += INTERVAL_S;
    }
}

static void skip_where_nothing_is_kept(void **state) {
    (void)state;
#ifdef HR_ARENA_SANITIZED
    skip();
#endif
}

static void *use_some(void *arg) {
    (void)arg;
    use(20, 64 * KB);
    return NULL;
}

static void what_one_thread_gives_another_takes(void **state) {
    skip_where_nothing_is_kept(state);
    pthread_t thread;
    use(20, 64 * KB);
    n_mapped = 0;
    assert_int_equal(pthread_create(&thread, NULL, use_some, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(n_mapped, 0);
}

static void a_block_is_less_than_twice_what_was_asked_for(void **state) {
    (void)state;
    for (size_t asked = 8 * KB; asked <= 3 * MB; asked += 8 * KB - 1) {
        size_t nbytes = asked;
        void *block = hr_arena_block__take(&nbytes);
        assert_non_null(block);
        assert_in_range(nbytes, asked, 2 * asked - 1);
        hr_arena_block__give(block, nbytes);
    }
}

static void what_is_needed_is_kept_and_the_rest_goes_back(void **state) {
    skip_where_nothing_is_kept(state);
    need(1, 128 * KB);
    const size_t before = mapped_nbytes;
    use(200, 128 * KB);
    assert_int_equal(mapped_nbytes, before + 199 * 128 * KB);
    need(10, 128 * KB);
    assert_int_equal(mapped_nbytes, before + 9 * 128 * KB);
    n_mapped = n_unmapped = 0;
    need(10, 128 * KB);
    assert_int_equal(n_mapped, 0);
    assert_int_equal(n_unmapped, 0);
}

static void what_is_idle_is_bounded(void **state) {
    skip_where_nothing_is_kept(state);
    use(100, MB);
    assert_true(mapped_nbytes <= 32 * MB);
}

static void no_memory_is_null(void **state) {
    skip_where_nothing_is_kept(state);
    need(1, 16 * KB);
    size_t nbytes = 16 * KB;
    no_memory = true;
    void *kept = hr_arena_block__take(&nbytes);
    assert_non_null(kept);
    assert_null(hr_arena_block__take(&nbytes));
    no_memory = false;
    hr_arena_block__give(kept, nbytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_thread_gives_another_takes),
        cmocka_unit_test(a_block_is_less_than_twice_what_was_asked_for),
        cmocka_unit_test(what_is_needed_is_kept_and_the_rest_goes_back),
        cmocka_unit_test(what_is_idle_is_bounded),
        cmocka_unit_test(no_memory_is_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
