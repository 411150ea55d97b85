/* Threads, and the CPUs that a process may use. */
#include "base/thread.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cgroup.h"
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

/* A control group's file system in a scratch folder. */
typedef struct fake {
    char root[PATH_MAX - 256];
    char groups[PATH_MAX];
} fake;

static void put_file(const fake *f, const char *path, const char *text) {
    char full[PATH_MAX];
    assert_true(snprintf(full, sizeof full, "%s/%s", f->root, path) < (int)sizeof full);
    for (char *slash = strchr(full + strlen(f->root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_fake(void **state) {
    fake *f = calloc(1, sizeof *f);
    const char *scratch = getenv("TEST_TMPDIR");
    snprintf(f->root, sizeof f->root, "%s/cgroupXXXXXX", scratch == NULL ? "/tmp" : scratch);
    if (mkdtemp(f->root) == NULL) return -1;
    snprintf(f->groups, sizeof f->groups, "%s/self", f->root);
    *state = f;
    return 0;
}

static int remove_fake(void **state) {
    fake *f = *state;
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", f->root);
    int failed = system(command);
    free(f);
    return failed;
}

static double cpus(const fake *f) {
    char mount[PATH_MAX];
    snprintf(mount, sizeof mount, "%s/mount", f->root);
    return hr_cgroup_cpus__(f->groups, mount);
}

static void assert_cpus(const fake *f, double expected) {
    double found = cpus(f);
    if (fabs(found - expected) > 1e-9) fail_msg("expected %g CPUs, found %g", expected, found);
}

static void cgroup_v2_takes_the_smallest_quota_on_the_way_up(void **state) {
    const fake *f = *state;
    put_file(f, "self", "0::/system/home\n");
    put_file(f, "mount/cgroup.controllers", "cpu\n");
    assert_cpus(f, 0);
    put_file(f, "mount/system/home/cpu.max", "max 100000\n");
    assert_cpus(f, 0);
    put_file(f, "mount/system/home/cpu.max", "350000 100000\n");
    assert_cpus(f, 3.5);
    put_file(f, "mount/system/cpu.max", "100000 50000\n");
    assert_cpus(f, 2);
    put_file(f, "mount/cpu.max", "25000 100000\n");
    assert_cpus(f, 0.25);
}

static void cgroup_v1_and_paths_of_the_host_are_understood(void **state) {
    const fake *f = *state;
    put_file(f, "self", "12:cpuset:/a\n11:cpu,cpuacct:/docker/0123\n3:memory:/b\n0::/c\n");
    put_file(f, "mount/cpuset/a/cpu.cfs_quota_us", "1000\n");
    put_file(f, "mount/cpuset/a/cpu.cfs_period_us", "100000\n");
    assert_cpus(f, 0);
    put_file(f, "mount/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put_file(f, "mount/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_cpus(f, 0);
    put_file(f, "mount/cpu,cpuacct/cpu.cfs_quota_us", "150000\n");
    assert_cpus(f, 1.5);
}

static void odd_files_mean_no_quota(void **state) {
    const fake *f = *state;
    assert_cpus(f, 0);
    static const char *const groups[] = {"", "nonsense\n", "1:cpu\n", "::\n", "0::", "1:cpu:relative\n"};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        put_file(f, "self", groups[i]);
        assert_cpus(f, 0);
    }
    put_file(f, "self", "0::/\n");
    static const char *const quotas[] = {"", "x\n", "100000\n", "-5 100000\n", "5 0\n", "nan nan\n"};
    for (size_t i = 0; i < sizeof quotas / sizeof quotas[0]; i++) {
        put_file(f, "mount/cpu.max", quotas[i]);
        assert_cpus(f, 0);
    }
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
        cmocka_unit_test(the_cpu_count_follows_the_affinity_mask),
        cmocka_unit_test_setup_teardown(cgroup_v2_takes_the_smallest_quota_on_the_way_up, make_fake,
                                        remove_fake),
        cmocka_unit_test_setup_teardown(cgroup_v1_and_paths_of_the_host_are_understood, make_fake,
                                        remove_fake),
        cmocka_unit_test_setup_teardown(odd_files_mean_no_quota, make_fake, remove_fake),
        cmocka_unit_test(the_clocks_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
