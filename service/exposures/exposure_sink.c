/* Lines on their way to a slow place: see exposure_sink.h.
 *
 * Two buffers: `filling` is the putters', under the lock; `writing` is the thread's. They are swapped when
 * `writing` is done with. Half of the room is each one's. */
#include "service/exposures/exposure_sink.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

typedef struct lines {
    char *bytes; /* (room) owned */
    size_t nbytes;
} lines;

struct hr_sink {
    const hr_sink_place_i *i;
    void *place; /* owned */
    size_t room; /* of one buffer */
    pthread_t thread;
    lines writing;        /* the thread's */
    size_t n_written;     /* of writing's bytes; the thread's */
    bool failing;         /* the thread's: the last write failed, and the log says so */
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t wake;  /* half full, or ending */
    lines filling;
    uint64_t put, written, dropped; /* lines */
    bool ending;
    uint64_t end_ns; /* where ending: when to give up */
};

static uint64_t count_lines(const char *bytes, size_t nbytes) {
    uint64_t n = 0;
    for (const char *at = bytes, *end = bytes + nbytes; (at = memchr(at, '\n', (size_t)(end - at))) != NULL;
         at++)
        n++;
    return n;
}

/* Waits for work, but no longer than the milliseconds; true where the sink is ending. Lock held. */
static bool wait_for_work(hr_sink *sink, uint32_t wait_ms) {
    struct timespec until;
    uint64_t until_ns = hr_clock_ns() + wait_ms * UINT64_C(1000000);
    until.tv_sec = (time_t)(until_ns / 1000000000u);
    until.tv_nsec = (long)(until_ns % 1000000000u);
    while (!sink->ending && sink->filling.nbytes <= sink->room / 2) {
        if (pthread_cond_timedwait(&sink->wake, &sink->lock, &until) != 0) break;
    }
    return sink->ending;
}

static void swap_buffers(hr_sink *sink) {
    lines empty = sink->writing;
    sink->writing = sink->filling;
    sink->filling = empty;
    sink->filling.nbytes = 0;
    sink->n_written = 0;
}

static void say_failure(hr_sink *sink, const hr_error *err) {
    if (!sink->failing)
        hr_log(HR_LOG_ERROR,
               "exposures cannot be written; they wait, and are dropped where they are too many",
               HR_LOG_STR("sink", sink->i->name), HR_LOG_STR("reason", err->message));
    sink->failing = true;
}

/* Writes on with `writing`. False where the place failed. */
static bool write_some(hr_sink *sink) {
    hr_error err;
    size_t n_done = 0;
    const char *from = sink->writing.bytes + sink->n_written;
    hr_status status =
        sink->i->write(sink->place, from, sink->writing.nbytes - sink->n_written, &n_done, &err);
    uint64_t n_lines = count_lines(from, n_done);
    sink->n_written += n_done;
    pthread_mutex_lock(&sink->lock);
    sink->written += n_lines;
    pthread_mutex_unlock(&sink->lock);
    if (status != HR_OK) {
        say_failure(sink, &err);
        return false;
    }
    if (sink->failing) hr_log(HR_LOG_INFO, "exposures are written again", HR_LOG_STR("sink", sink->i->name));
    sink->failing = false;
    return true;
}

/* Past the end of its grace the sink gives up what is left. Lock held. */
static void drop_rest(hr_sink *sink) {
    uint64_t n_lost =
        count_lines(sink->writing.bytes + sink->n_written, sink->writing.nbytes - sink->n_written) +
        count_lines(sink->filling.bytes, sink->filling.nbytes);
    sink->dropped += n_lost;
    if (sink->dropped > 0)
        hr_log(HR_LOG_ERROR, "exposures were lost", HR_LOG_STR("sink", sink->i->name),
               HR_LOG_INT("lines", sink->dropped));
}

/* Sleeps after a fault, and looks up at once where the sink is ending. Lock held. */
static uint32_t back_off(hr_sink *sink, uint32_t backoff_ms) {
    struct timespec until;
    uint64_t until_ns = hr_clock_ns() + backoff_ms * UINT64_C(1000000);
    if (sink->ending && sink->end_ns < until_ns) until_ns = sink->end_ns;
    until.tv_sec = (time_t)(until_ns / 1000000000u);
    until.tv_nsec = (long)(until_ns % 1000000000u);
    bool was_ending = sink->ending;
    while (sink->ending == was_ending && pthread_cond_timedwait(&sink->wake, &sink->lock, &until) == 0)
        continue;
    return backoff_ms * 2 < HR_SINK_MAX_BACKOFF_MS ? backoff_ms * 2 : HR_SINK_MAX_BACKOFF_MS;
}

static void *sink_run(void *arg) {
    hr_sink *sink = arg;
    uint32_t backoff_ms = HR_SINK_PERIOD_MS;
    pthread_mutex_lock(&sink->lock);
    for (;;) {
        if (sink->n_written == sink->writing.nbytes) {
            bool ending = wait_for_work(sink, HR_SINK_PERIOD_MS);
            if (ending && sink->filling.nbytes == 0) break;
            swap_buffers(sink);
            continue;
        }
        pthread_mutex_unlock(&sink->lock);
        bool wrote = write_some(sink);
        pthread_mutex_lock(&sink->lock);
        if (wrote) backoff_ms = HR_SINK_PERIOD_MS;
        if (!wrote && sink->ending && hr_clock_ns() >= sink->end_ns) break;
        if (!wrote) backoff_ms = back_off(sink, backoff_ms);
    }
    drop_rest(sink);
    pthread_mutex_unlock(&sink->lock);
    return NULL;
}

static void sink_free(hr_sink *sink) {
    free(sink->writing.bytes);
    free(sink->filling.bytes);
    pthread_cond_destroy(&sink->wake);
    pthread_mutex_destroy(&sink->lock);
    free(sink);
}

hr_status hr_sink_create(const hr_sink_place_i *i, void *place, size_t max_nbytes, hr_sink **result,
                         hr_error *err) {
    *result = NULL;
    hr_status status = HR_OK;
    hr_sink *sink = calloc(1, sizeof *sink);
    if (sink == NULL) {
        i->destroy(place);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the exposures' %s", i->name);
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&sink->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&sink->lock, NULL);
    sink->i = i;
    sink->place = place;
    sink->room = max_nbytes / 2;
    sink->writing.bytes = malloc(sink->room);
    sink->filling.bytes = malloc(sink->room);
    if (sink->writing.bytes == NULL || sink->filling.bytes == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %zu bytes of exposures", max_nbytes);
    if (status == HR_OK) status = hr_thread_start(&sink->thread, "exposures", sink_run, sink, err);
    if (status != HR_OK) {
        i->destroy(place);
        sink_free(sink);
        return status;
    }
    *result = sink;
    return HR_OK;
}

void hr_sink_destroy(hr_sink *sink, uint64_t end_ns) {
    if (sink == NULL) return;
    pthread_mutex_lock(&sink->lock);
    sink->ending = true;
    sink->end_ns = end_ns;
    pthread_cond_signal(&sink->wake);
    pthread_mutex_unlock(&sink->lock);
    pthread_join(sink->thread, NULL);
    sink->i->destroy(sink->place);
    sink_free(sink);
}

void hr_sink_put(hr_sink *sink, const char *bytes, size_t nbytes, uint32_t n_lines) {
    pthread_mutex_lock(&sink->lock);
    bool fits = nbytes <= sink->room - sink->filling.nbytes;
    bool was_low = sink->filling.nbytes <= sink->room / 2;
    sink->put += n_lines;
    if (fits) {
        memcpy(sink->filling.bytes + sink->filling.nbytes, bytes, nbytes);
        sink->filling.nbytes += nbytes;
    } else {
        sink->dropped += n_lines;
    }
    if (was_low && sink->filling.nbytes > sink->room / 2) pthread_cond_signal(&sink->wake);
    pthread_mutex_unlock(&sink->lock);
}

void hr_sink_count(hr_sink *sink, hr_sink_counts *counts) {
    pthread_mutex_lock(&sink->lock);
    counts->written = sink->written;
    counts->dropped = sink->dropped;
    counts->waiting = sink->put - sink->written - sink->dropped;
    pthread_mutex_unlock(&sink->lock);
}

const char *hr_sink_name(const hr_sink *sink) {
    return sink->i->name;
}
