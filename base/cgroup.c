/* Limits of control groups: see cgroup.h. Formats: proc(5) /proc/[pid]/cgroup, the kernel's cgroup-v2,
 * cgroup-v1/memory and sched-bwc documents.
 *
 * In a container the paths in /proc/self/cgroup may be the host's and absent under the mount: every ancestor
 * is tried up to the mount's own root, which is then the container's group.
 */
#include "base/cgroup.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a controller limits: the limit of the group whose files lie in dir, 0 where it has none. */
typedef struct resource {
    const char *controller; /* as cgroup v1 lists it */
    double (*v2)(const char *dir);
    double (*v1)(const char *dir);
} resource;

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

static const resource cpu = {"cpu", quota_v2, quota_v1};

/* The bytes of the row `key BYTES` of memory.stat. */
static uint64_t stat_row(const char *dir, const char *key) {
    char path[PATH_MAX], line[128];
    int n = snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *in = n > 0 && n < (int)sizeof path ? fopen(path, "re") : NULL;
    if (in == NULL) return 0;
    uint64_t nbytes = 0;
    size_t length = strlen(key);
    while (fgets(line, sizeof line, in) != NULL) {
        if (strncmp(line, key, length) != 0 || line[length] != ' ') continue;
        sscanf(line + length, " %" SCNu64, &nbytes);
        break;
    }
    fclose(in);
    return nbytes;
}

/* What a group may still take: its limit less what it uses, without the pages of files that nobody has used
 * of late, which the kernel gives up first. A group at its limit may take 1 byte: 0 would be no limit. */
static double room(const char *dir, const char *limit, const char *usage, const char *unused) {
    char line[64];
    uint64_t limit_nbytes, used_nbytes;
    if (!read_line(dir, limit, line, sizeof line) || sscanf(line, "%" SCNu64, &limit_nbytes) != 1) return 0;
    if (!read_line(dir, usage, line, sizeof line) || sscanf(line, "%" SCNu64, &used_nbytes) != 1) return 0;
    uint64_t unused_nbytes = stat_row(dir, unused);
    used_nbytes -= unused_nbytes < used_nbytes ? unused_nbytes : used_nbytes;
    return used_nbytes < limit_nbytes ? (double)(limit_nbytes - used_nbytes) : 1;
}

/* "max" where there is no limit. */
static double room_v2(const char *dir) {
    return room(dir, "memory.max", "memory.current", "inactive_file");
}

/* No limit is one that no machine's memory comes near. */
static double room_v1(const char *dir) {
    return room(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");
}

static const resource memory = {"memory", room_v2, room_v1};

static double smaller(double a, double b) {
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The smallest limit of mount + group and all above it. group begins with '/' and is cut in place. */
static double least_upwards(const char *mount, char *group, double (*limit)(const char *dir)) {
    double least = 0;
    for (;;) {
        char dir[PATH_MAX];
        int n = snprintf(dir, sizeof dir, "%s%s", mount, group);
        if (n > 0 && n < (int)sizeof dir) least = smaller(least, limit(dir));
        char *last = strrchr(group, '/');
        if (last == NULL) return least;
        *last = '\0';
    }
}

/* Whether the list "a,b,c" has the name. */
static bool lists(const char *controllers, const char *name) {
    size_t length = strlen(name);
    for (const char *p = controllers; *p != '\0'; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == length && memcmp(p, name, length) == 0) return true;
    return false;
}

/* One line "ID:CONTROLLERS:PATH" of the groups file; cgroup v2 has no controllers. */
static double limit_of_line(char *line, const char *mount, const resource *of) {
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
        double alone = least_upwards(mount, copy, of->v2);
        n = snprintf(at, sizeof at, "%s/unified", mount);
        if (n < 0 || n >= (int)sizeof at) return alone;
        return smaller(alone, least_upwards(at, group, of->v2));
    }
    if (!lists(controllers, of->controller)) return 0;
    n = snprintf(at, sizeof at, "%s/%s", mount, controllers);
    return n < 0 || n >= (int)sizeof at ? 0 : least_upwards(at, group, of->v1);
}

static double least_limit(const char *groups_file, const char *mount, const resource *of) {
    FILE *in = fopen(groups_file, "re");
    if (in == NULL) return 0;
    double least = 0;
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, in) > 0) least = smaller(least, limit_of_line(line, mount, of));
    free(line);
    fclose(in);
    return least;
}

double hr_cgroup_cpus__(const char *groups_file, const char *mount) {
    return least_limit(groups_file, mount, &cpu);
}

double hr_cgroup_memory__(const char *groups_file, const char *mount) {
    return least_limit(groups_file, mount, &memory);
}
