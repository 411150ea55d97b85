/* The limits of the control groups this process is in; inside base only. */
#ifndef HOMERANK_BASE_CGROUP_H
#define HOMERANK_BASE_CGROUP_H

/* The smallest quota, in CPUs, on the way from this process's group to the root, of cgroup v2 or v1; 0 where
 * there is none. groups_file: "/proc/self/cgroup"; mount: "/sys/fs/cgroup". */
double hr_cgroup_cpus__(const char *groups_file, const char *mount);

/* The same of memory: the bytes that may still be taken, at least 1; 0 where there is no limit. */
double hr_cgroup_memory__(const char *groups_file, const char *mount);

#endif
