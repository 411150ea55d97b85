/* The limits of control groups, from files as the kernel writes them. */
#include "base/cgroup.h"

#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"

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

static void assert_memory(const fake *f, double expected) {
    char mount[PATH_MAX];
    snprintf(mount, sizeof mount, "%s/mount", f->root);
    double found = hr_cgroup_memory__(f->groups, mount);
    if (found != expected) fail_msg("expected %.0f bytes, found %.0f", expected, found);
}

static void memory_is_what_the_tightest_group_has_left(void **state) {
    const fake *f = *state;
    put_file(f, "self", "0::/system/home\n");
    assert_memory(f, 0);
    put_file(f, "mount/system/home/memory.max", "max\n");
    put_file(f, "mount/system/home/memory.current", "5000\n");
    assert_memory(f, 0);
    put_file(f, "mount/system/memory.max", "10000\n");
    put_file(f, "mount/system/memory.current", "6000\n");
    assert_memory(f, 4000);
    put_file(f, "mount/system/memory.stat", "anon 3000\nfile 3000\ninactive_file 1500\nactive_file 1500\n");
    assert_memory(f, 5500);
    put_file(f, "mount/system/home/memory.max", "4999\n");
    assert_memory(f, 1); /* past its limit: nothing, which is not no limit */
    put_file(f, "mount/system/home/memory.stat", "inactive_file 9000\n");
    assert_memory(f, 4999);
}

static void memory_of_cgroup_v1_counts_all_below(void **state) {
    const fake *f = *state;
    put_file(f, "self", "3:memory:/a\n0::/b\n");
    put_file(f, "mount/memory/a/memory.usage_in_bytes", "700\n");
    put_file(f, "mount/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    assert_memory(f, 9223372036854771712.0 - 700);
    put_file(f, "mount/memory/memory.limit_in_bytes", "1000\n");
    put_file(f, "mount/memory/memory.usage_in_bytes", "900\n");
    put_file(f, "mount/memory/memory.stat", "inactive_file 800\ntotal_inactive_file 300\n");
    assert_memory(f, 400);
}

static void odd_files_mean_no_limit_of_memory(void **state) {
    const fake *f = *state;
    put_file(f, "self", "0::/\n");
    put_file(f, "mount/memory.max", "x\n");
    put_file(f, "mount/memory.current", "1\n");
    assert_memory(f, 0);
    put_file(f, "mount/memory.max", "1000\n");
    put_file(f, "mount/memory.current", "\n");
    assert_memory(f, 0);
    put_file(f, "mount/memory.current", "1\n");
    put_file(f, "mount/memory.stat", "inactive_file\ninactive_file_x 5\n inactive_file 5\n");
    assert_memory(f, 999);
}

static void the_machine_has_some_memory_available(void **state) {
    (void)state;
    uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    assert_in_range(hr_memory_available(), 1, total);
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

#define FAKE_TEST(test) cmocka_unit_test_setup_teardown(test, make_fake, remove_fake)

int main(void) {
    const struct CMUnitTest tests[] = {
        FAKE_TEST(cgroup_v2_takes_the_smallest_quota_on_the_way_up),
        FAKE_TEST(cgroup_v1_and_paths_of_the_host_are_understood),
        FAKE_TEST(odd_files_mean_no_quota),
        FAKE_TEST(memory_is_what_the_tightest_group_has_left),
        FAKE_TEST(memory_of_cgroup_v1_counts_all_below),
        FAKE_TEST(odd_files_mean_no_limit_of_memory),
        cmocka_unit_test(the_machine_has_some_memory_available),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
