/* CPU quotas: see cgroup.h. Formats: proc(5) /proc/[pid]/cgroup, the kernel's cgroup-v2 and sched-bwc
 * documents.
 *
 * In a container the paths in /proc/self/cgroup may be the host's and absent under the mount: every ancestor
 * is tried up to the mount's own root, which is then the container's group.
 */
#include "base/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_line(const char *dir, const char *file, char *line, int size) {
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, file);
    if (n < 0 || n >= (int)sizeof path) return false;
    FILE *in = fopen(path, "re");
    if (in == NULL) return false;
    bool read = fgets(line, size, in) != NULL;
    fclose(in);
    return read;
}

/* "QUOTA PERIOD", or "max PERIOD" where there is no quota. */
static double quota_v2(const char *dir) {
    char line[64];
    double quota_us, period_us;
    if (!read_line(dir, "cpu.max", line, sizeof line)) return 0;
    if (sscanf(line, "%lf %lf", &quota_us, &period_us) != 2) return 0;
    return quota_us > 0 && period_us > 0 ? quota_us / period_us : 0;
}

/* A quota of -1 is none. */
static double quota_v1(const char *dir) {
    char quota[64], period[64];
    if (!read_line(dir, "cpu.cfs_quota_us", quota, sizeof quota)) return 0;
    if (!read_line(dir, "cpu.cfs_period_us", period, sizeof period)) return 0;
    double quota_us = atof(quota), period_us = atof(period);
    return quota_us > 0 && period_us > 0 ? quota_us / period_us : 0;
}

static double smaller(double a, double b) {
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The smallest quota of mount + group and all above it. group begins with '/' and is cut in place. */
static double quota_upwards(const char *mount, char *group, double (*quota)(const char *dir)) {
    double least = 0;
    for (;;) {
        char dir[PATH_MAX];
        int n = snprintf(dir, sizeof dir, "%s%s", mount, group);
        if (n > 0 && n < (int)sizeof dir) least = smaller(least, quota(dir));
        char *last = strrchr(group, '/');
        if (last == NULL) return least;
        *last = '\0';
    }
}

static bool lists_cpu(const char *controllers) {
    for (const char *p = controllers; *p != '\0'; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == 3 && memcmp(p, "cpu", 3) == 0) return true;
    return false;
}

/* One line "ID:CONTROLLERS:PATH" of the groups file; cgroup v2 has no controllers. */
static double quota_of_line(char *line, const char *mount) {
    char *controllers = strchr(line, ':');
    char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (group == NULL) return 0;
    *controllers++ = '\0';
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    char at[PATH_MAX];
    int n;
    if (*controllers == '\0') { /* v2, alone or beside v1 */
        char copy[PATH_MAX];
        n = snprintf(copy, sizeof copy, "%s", group);
        if (n < 0 || n >= (int)sizeof copy) return 0;
        double alone = quota_upwards(mount, copy, quota_v2);
        n = snprintf(at, sizeof at, "%s/unified", mount);
        if (n < 0 || n >= (int)sizeof at) return alone;
        return smaller(alone, quota_upwards(at, group, quota_v2));
    }
    if (!lists_cpu(controllers)) return 0;
    n = snprintf(at, sizeof at, "%s/%s", mount, controllers);
    return n < 0 || n >= (int)sizeof at ? 0 : quota_upwards(at, group, quota_v1);
}

double hr_cgroup_cpus__(const char *groups_file, const char *mount) {
    FILE *in = fopen(groups_file, "re");
    if (in == NULL) return 0;
    double least = 0;
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, in) > 0) least = smaller(least, quota_of_line(line, mount));
    free(line);
    fclose(in);
    return least;
}
