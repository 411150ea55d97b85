/* Threads, and the CPUs that a process may use. */
#include "base/thread.h"

#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

static void *look(void *arg) {
    pthread_sigmask(SIG_BLOCK, NULL, arg);
    return arg;
}

static void a_thread_blocks_signals_and_leaves_its_maker_alone(void **state) {
    (void)state;
    sigset_t blocked;
    pthread_t thread;
    void *result;
    assert_int_equal(hr_thread_start(&thread, "a-name-that-is-too-long", look, &blocked, NULL), HR_OK);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &blocked);
    assert_true(sigismember(&blocked, SIGTERM));
    assert_true(sigismember(&blocked, SIGINT));
    sigset_t mine;
    pthread_sigmask(SIG_BLOCK, NULL, &mine);
    assert_false(sigismember(&mine, SIGTERM));
}

static void *give_way(void *niceness) {
    hr_thread_give_way();
    *(int *)niceness = getpriority(PRIO_PROCESS, (id_t)gettid());
    return NULL;
}

static void a_thread_that_gives_way_is_the_only_one(void **state) {
    (void)state;
    int before = getpriority(PRIO_PROCESS, 0), niceness = 0;
    pthread_t thread;
    assert_int_equal(hr_thread_start(&thread, "gives-way", give_way, &niceness, NULL), HR_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(niceness, 19);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)gettid()), before);
}

static void *compute(void *niceness) {
    hr_thread_compute();
    *(int *)niceness = getpriority(PRIO_PROCESS, (id_t)gettid());
    return NULL;
}

static void a_thread_that_computes_lets_others_go_first(void **state) {
    (void)state;
    int before = getpriority(PRIO_PROCESS, (id_t)gettid()), niceness = 0;
    pthread_t thread;
    assert_int_equal(hr_thread_start(&thread, "computes", compute, &niceness, NULL), HR_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(niceness, before + 5 < 19 ? before + 5 : 19);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)gettid()), before);
}

static void *answer(void *niceness) {
    hr_thread_answer();
    *(int *)niceness = getpriority(PRIO_PROCESS, (id_t)gettid());
    return NULL;
}

/* Where it may: else it stays as it was, and is no worse off. */
static void a_thread_that_answers_goes_first(void **state) {
    (void)state;
    int before = getpriority(PRIO_PROCESS, (id_t)gettid()), niceness = 0;
    bool may = setpriority(PRIO_PROCESS, (id_t)gettid(), before - 1) == 0;
    pthread_t thread;
    if (may) assert_int_equal(setpriority(PRIO_PROCESS, (id_t)gettid(), before), 0);
    assert_int_equal(hr_thread_start(&thread, "answers", answer, &niceness, NULL), HR_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (may)
        assert_int_equal(niceness, before - 5 > -20 ? before - 5 : -20);
    else
        assert_in_range(niceness + 20, 0, before + 20);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)gettid()), before);
}

static void the_cpu_count_follows_the_affinity_mask(void **state) {
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_in_range(hr_cpu_count(), 1, (unsigned)CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(hr_cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void the_clocks_run(void **state) {
    (void)state;
    uint64_t first = hr_clock_ns();
    assert_true(hr_clock_ns() >= first);
    assert_true(hr_clock_wall_us() > UINT64_C(1600000000000000));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_blocks_signals_and_leaves_its_maker_alone),
        cmocka_unit_test(a_thread_that_answers_goes_first),
        cmocka_unit_test(the_cpu_count_follows_the_affinity_mask),
        cmocka_unit_test(a_thread_that_gives_way_is_the_only_one),
        cmocka_unit_test(a_thread_that_computes_lets_others_go_first),
        cmocka_unit_test(the_clocks_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
