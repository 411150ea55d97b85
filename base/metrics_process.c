/* Process metrics: see metrics_process.h. From proc(5), the clock and the limits. */
#include "base/metrics_process.h"

#include <dirent.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Fields 22 to 24 of /proc/self/stat. */
typedef struct stat_fields {
    unsigned long long start_ticks; /* after the boot */
    unsigned long long virtual_nbytes;
    long resident_pages;
} stat_fields;

/* The second field is the program's name in brackets, which may hold anything. */
static bool read_stat(stat_fields *fields) {
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "re");
    if (file == NULL) return false;
    size_t nbytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[nbytes] = '\0';
    const char *at = strrchr(text, ')');
    for (int field = 2; field < 22 && at != NULL; field++) at = strchr(at + 1, ' ');
    return at != NULL && sscanf(at, "%llu %llu %ld", &fields->start_ticks, &fields->virtual_nbytes,
                                &fields->resident_pages) == 3;
}

/* When the machine was booted, seconds since 1970. */
static bool read_boot_time(unsigned long long *boot_s) {
    char line[256];
    bool found = false;
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL) return false;
    while (!found && fgets(line, sizeof line, file) != NULL) found = sscanf(line, "btime %llu", boot_s) == 1;
    fclose(file);
    return found;
}

static bool count_open_files(unsigned *n_files) {
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL) return false;
    *n_files = 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) *n_files += entry->d_name[0] != '.';
    closedir(folder);
    --*n_files; /* the folder's own */
    return true;
}

static void collect_files(hr_metrics_text *text) {
    unsigned n_files;
    struct rlimit limit;
    if (count_open_files(&n_files))
        hr_metrics_text_gauge(text, "process_open_fds", "Number of open file descriptors.", n_files);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        hr_metrics_text_gauge(text, "process_max_fds", "Maximum number of open file descriptors.",
                              (double)limit.rlim_cur);
}

void hr_metrics_process_collect(hr_metrics_text *text, void *arg) {
    (void)arg;
    struct timespec used;
    stat_fields fields;
    unsigned long long boot_s;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) == 0)
        hr_metrics_text_counter(text, "process_cpu_seconds_total",
                                "Total user and system CPU time spent in seconds.",
                                (double)used.tv_sec + (double)used.tv_nsec / 1e9);
    collect_files(text);
    if (!read_stat(&fields)) return;
    hr_metrics_text_gauge(text, "process_resident_memory_bytes", "Resident memory size in bytes.",
                          (double)fields.resident_pages * (double)sysconf(_SC_PAGESIZE));
    hr_metrics_text_gauge(text, "process_virtual_memory_bytes", "Virtual memory size in bytes.",
                          (double)fields.virtual_nbytes);
    if (read_boot_time(&boot_s))
        hr_metrics_text_gauge(text, "process_start_time_seconds",
                              "Start time of the process since unix epoch in seconds.",
                              (double)boot_s + (double)fields.start_ticks / (double)sysconf(_SC_CLK_TCK));
}
