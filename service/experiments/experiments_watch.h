/* The experiments file of a server, kept up to date while it serves.
 *
 * A thread waits for the file to change (inotify on its folder, so that a file that is renamed into place, or
 * a link that is turned, is seen too; and a look every ten seconds where there are no such events), loads it
 * and checks it as a whole. A good one is swapped in at once; requests under way keep the one they have. A
 * bad one is logged with its reason, and leaves the one that is served.
 * Thread rule: any thread may acquire, ask for a reload and for the status.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_EXPERIMENTS_WATCH_H
#define HOMERANK_SERVICE_EXPERIMENTS_EXPERIMENTS_WATCH_H

#include "base/metrics_text.h"
#include "base/status.h"
#include "service/experiments/experiments.h"

typedef struct hr_experiments_watch hr_experiments_watch;

/* Loads the file and begins to watch it. The options' texts are copied; their callbacks are called on the
 * watch's thread later. Errors: those of hr_experiments_load; IO, RESOURCE_EXHAUSTED (the thread). */
hr_status hr_experiments_watch_open(const char *path, const hr_experiments_options *options,
                                    hr_experiments_watch **watch, hr_error *err);

/* Every acquired reference may outlive it. NULL is allowed. */
void hr_experiments_watch_close(hr_experiments_watch *watch);

/* What is served now, with a reference for the caller. Takes no lock. */
hr_experiments *hr_experiments_watch_acquire(hr_experiments_watch *watch);

/* Reads the file again, soon, whether or not it seems to have changed. */
void hr_experiments_watch_reload(hr_experiments_watch *watch);

/* Counts a request whose experiments decided what could not be served. */
void hr_experiments_watch_unserved(hr_experiments_watch *watch);

typedef struct hr_experiments_watch_counts {
    uint64_t loads;    /* files that were swapped in, the first one included */
    uint64_t failures; /* files that were refused */
    uint64_t unserved; /* hr_experiments_watch_unserved */
    char version[HR_EXPERIMENTS_VERSION_SIZE];
} hr_experiments_watch_counts;
void hr_experiments_watch_count(hr_experiments_watch *watch, hr_experiments_watch_counts *counts);

/* Prints them; a collector (hr_metrics_add) whose arg is the watch. */
void hr_experiments_watch_collect(hr_metrics_text *text, void *watch);

#endif
