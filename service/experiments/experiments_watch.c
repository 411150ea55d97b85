/* Watching the experiments file: see experiments_watch.h.
 *
 * The file is read again where its folder told of a change of its name, and where it is another than it was
 * (its inode, size or time of change); what was read is swapped in where its bytes are others. Readers count
 * themselves while they take their reference, so the swapped-out experiments are given up when none is left.
 */
#include "service/experiments/experiments_watch.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

enum { LOOK_MS = 10000 };

struct hr_experiments_watch {
    char *path, *feature;           /* owned */
    const char *name;               /* of the file, in path */
    hr_experiments_options options; /* feature is ours */
    _Alignas(64) atomic_uint readers;
    _Atomic(hr_experiments *) current; /* one reference */
    atomic_ullong loads, failures, unserved;
    atomic_bool stopping, asked; /* asked: hr_experiments_watch_reload */
    int wake;                    /* eventfd */
    int events;                  /* inotify; -1: there is none, and the looks must do */
    pthread_t thread;
    bool started;
    struct stat seen; /* the thread's own: of the file as it was read last */
};

hr_experiments *hr_experiments_watch_acquire(hr_experiments_watch *watch) {
    atomic_fetch_add(&watch->readers, 1);
    hr_experiments *experiments = hr_experiments_ref(atomic_load(&watch->current));
    atomic_fetch_sub(&watch->readers, 1);
    return experiments;
}

static void publish(hr_experiments_watch *watch, hr_experiments *experiments) {
    static const struct timespec moment = {.tv_nsec = 50000};
    atomic_fetch_add(&watch->loads, 1); /* first: whoever sees them sees them counted */
    hr_experiments *before = atomic_exchange(&watch->current, experiments);
    while (atomic_load(&watch->readers) != 0) nanosleep(&moment, NULL);
    hr_experiments_unref(before);
}

/* ---- Reading ---- */

/* Whether the file is another than the one that was read last. */
static bool has_changed(hr_experiments_watch *watch) {
    struct stat now;
    if (stat(watch->path, &now) != 0) memset(&now, 0, sizeof now);
    const struct stat *seen = &watch->seen;
    bool same = now.st_dev == seen->st_dev && now.st_ino == seen->st_ino && now.st_size == seen->st_size &&
                now.st_mtim.tv_sec == seen->st_mtim.tv_sec && now.st_mtim.tv_nsec == seen->st_mtim.tv_nsec;
    watch->seen = now;
    return !same;
}

static void reload(hr_experiments_watch *watch) {
    hr_experiments *loaded;
    hr_error err;
    if (hr_experiments_load(watch->path, &watch->options, &loaded, &err) != HR_OK) {
        atomic_fetch_add(&watch->failures, 1);
        hr_log(HR_LOG_ERROR, "experiments refused: the ones before are served on",
               HR_LOG_STR("reason", err.message),
               HR_LOG_STR("version", hr_experiments_version(atomic_load(&watch->current))));
        return;
    }
    const char *version = hr_experiments_version(loaded);
    if (strcmp(version, hr_experiments_version(atomic_load(&watch->current))) == 0) {
        hr_experiments_unref(loaded);
        return;
    }
    hr_log(HR_LOG_INFO, "experiments loaded", HR_LOG_STR("file", watch->path),
           HR_LOG_STR("version", version));
    publish(watch, loaded);
}

/* ---- Waiting ---- */

/* Takes all events that have come; whether one was of the file's own name. */
static bool take_events(const hr_experiments_watch *watch) {
    _Alignas(struct inotify_event) char buffer[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];
    bool ours = false;
    ssize_t n;
    while (watch->events >= 0 && (n = read(watch->events, buffer, sizeof buffer)) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *event = (const struct inotify_event *)(const void *)(buffer + at);
            ours |= event->len > 0 && strcmp(event->name, watch->name) == 0;
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
    return ours;
}

static void *watch_run(void *arg) {
    hr_experiments_watch *watch = arg;
    struct pollfd fds[] = {{.fd = watch->wake, .events = POLLIN}, {.fd = watch->events, .events = POLLIN}};
    while (!atomic_load(&watch->stopping)) {
        uint64_t ignored;
        poll(fds, 2, LOOK_MS); /* a descriptor of -1 is passed over */
        if (read(watch->wake, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
            hr_log(HR_LOG_WARN, "experiments: cannot read a wake-up", HR_LOG_STR("reason", strerror(errno)));
        bool asked = atomic_exchange(&watch->asked, false);
        bool told = take_events(watch);
        bool changed = has_changed(watch);
        if (!atomic_load(&watch->stopping) && (asked || told || changed)) reload(watch);
    }
    return NULL;
}

static void wake(hr_experiments_watch *watch) {
    static const uint64_t one = 1;
    while (write(watch->wake, &one, sizeof one) < 0 && errno == EINTR) continue;
}

void hr_experiments_watch_reload(hr_experiments_watch *watch) {
    atomic_store(&watch->asked, true);
    wake(watch);
}

/* ---- Life ---- */

/* The folder that the file's name stands in; the caller frees it. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static hr_status open_descriptors(hr_experiments_watch *watch, hr_error *err) {
    watch->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->wake < 0)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "experiments: eventfd: %s", strerror(errno));
    char *folder = folder_of(watch->path);
    if (folder == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for experiments");
    watch->events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    const uint32_t kinds = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE;
    if (watch->events < 0 || inotify_add_watch(watch->events, folder, kinds) < 0)
        hr_log(HR_LOG_WARN, "experiments: no events of the file's folder: it is looked at every 10 s",
               HR_LOG_STR("folder", folder), HR_LOG_STR("reason", strerror(errno)));
    free(folder);
    return HR_OK;
}

static hr_status start(hr_experiments_watch *watch, hr_error *err) {
    hr_experiments *first;
    hr_status status = open_descriptors(watch, err);
    has_changed(watch); /* before it is read: a change meanwhile is seen */
    if (status == HR_OK) status = hr_experiments_load(watch->path, &watch->options, &first, err);
    if (status != HR_OK) return status;
    publish(watch, first);
    status = hr_thread_start(&watch->thread, "experiments", watch_run, watch, err);
    watch->started = status == HR_OK;
    return status;
}

hr_status hr_experiments_watch_open(const char *path, const hr_experiments_options *options,
                                    hr_experiments_watch **watch, hr_error *err) {
    *watch = NULL;
    hr_experiments_watch *made = aligned_alloc(_Alignof(hr_experiments_watch), sizeof *made);
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for experiments");
    memset(made, 0, sizeof *made);
    made->wake = made->events = -1;
    made->options = *options;
    made->path = strdup(path);
    made->feature = strdup(options->feature);
    made->options.feature = made->feature;
    hr_status status = HR_OK;
    if (made->path == NULL || made->feature == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for experiments");
    if (status == HR_OK) {
        const char *slash = strrchr(made->path, '/');
        made->name = slash == NULL ? made->path : slash + 1;
        status = start(made, err);
    }
    if (status == HR_OK)
        *watch = made;
    else
        hr_experiments_watch_close(made);
    return status;
}

void hr_experiments_watch_close(hr_experiments_watch *watch) {
    if (watch == NULL) return;
    atomic_store(&watch->stopping, true);
    if (watch->started) {
        wake(watch);
        pthread_join(watch->thread, NULL);
    }
    if (watch->wake >= 0) close(watch->wake);
    if (watch->events >= 0) close(watch->events);
    hr_experiments_unref(atomic_load(&watch->current));
    free(watch->feature);
    free(watch->path);
    free(watch);
}

/* ---- Status ---- */

void hr_experiments_watch_unserved(hr_experiments_watch *watch) {
    atomic_fetch_add(&watch->unserved, 1);
}

void hr_experiments_watch_count(hr_experiments_watch *watch, hr_experiments_watch_counts *counts) {
    hr_experiments *current = hr_experiments_watch_acquire(watch);
    counts->loads = atomic_load(&watch->loads);
    counts->failures = atomic_load(&watch->failures);
    counts->unserved = atomic_load(&watch->unserved);
    memcpy(counts->version, hr_experiments_version(current), sizeof counts->version);
    hr_experiments_unref(current);
}

void hr_experiments_watch_collect(hr_metrics_text *text, void *watch) {
    hr_experiments_watch_counts counts;
    hr_experiments_watch_count(watch, &counts);
    hr_metrics_text_counter(text, "homerank_experiments_loads_total",
                            "Experiments files that were swapped in.", (double)counts.loads);
    hr_metrics_text_counter(text, "homerank_experiments_refused_total",
                            "Experiments files that were refused: the one before is served on.",
                            (double)counts.failures);
    hr_metrics_text_counter(
        text, "homerank_experiments_unserved_total",
        "Requests ranked by the defaults, for what experiments decided could not be served.",
        (double)counts.unserved);
    const hr_label version = {.name = "version", .value = counts.version};
    hr_metrics_text_family(text, HR_METRIC_GAUGE, "homerank_experiments_info",
                           "The experiments file that is served, by the hash of its bytes.");
    hr_metrics_text_sample(text, 1, &version, 1);
}
