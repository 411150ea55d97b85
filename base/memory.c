/* Memory: see memory.h. */
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/cgroup.h"

/* MemAvailable of proc(5) /proc/meminfo. */
static uint64_t machine_available(void) {
    FILE *in = fopen("/proc/meminfo", "re");
    if (in == NULL) return UINT64_MAX;
    char line[128];
    uint64_t kib, nbytes = UINT64_MAX;
    while (nbytes == UINT64_MAX && fgets(line, sizeof line, in) != NULL)
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1) nbytes = kib << 10;
    fclose(in);
    return nbytes;
}

uint64_t hr_memory_available(void) {
    uint64_t nbytes = machine_available();
    double group = hr_cgroup_memory__("/proc/self/cgroup", "/sys/fs/cgroup");
    return group > 0 && group < (double)nbytes ? (uint64_t)group : nbytes;
}
