/* Deadlines of things that wait: see deadlines.h. A binary heap by time, from place 1 on; the thread sleeps
 * until the earliest and is woken only for an earlier one. */
#include "features/deadlines.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"

struct hr_deadlines {
    void (*due)(hr_deadline *deadline);
    pthread_t thread;
    pthread_mutex_t heap_lock; /* guards all below */
    pthread_cond_t earlier;    /* than wakes_ns, or closing */
    hr_deadline **heap;        /* (1 + n) of capacity; place 0 is unused */
    size_t n, capacity;
    uint64_t wakes_ns; /* when the thread looks again by itself */
    bool closing;
};

static void set(hr_deadlines *d, size_t place, hr_deadline *deadline) {
    d->heap[place] = deadline;
    deadline->place = place;
}

/* Puts a deadline where it belongs, from a place whose subtree or ancestors may be wrong for it. */
static void sift(hr_deadlines *d, size_t place, hr_deadline *deadline) {
    for (; place > 1 && d->heap[place / 2]->at_ns > deadline->at_ns; place /= 2)
        set(d, place, d->heap[place / 2]);
    for (size_t child; (child = 2 * place) <= d->n; place = child) {
        if (child < d->n && d->heap[child + 1]->at_ns < d->heap[child]->at_ns) child++;
        if (d->heap[child]->at_ns >= deadline->at_ns) break;
        set(d, place, d->heap[child]);
    }
    set(d, place, deadline);
}

static void take_out(hr_deadlines *d, hr_deadline *deadline) {
    hr_deadline *last = d->heap[d->n--];
    if (last != deadline) sift(d, deadline->place, last);
    deadline->place = 0;
}

bool hr_deadlines_add(hr_deadlines *d, hr_deadline *deadline) {
    bool ok = true;
    pthread_mutex_lock(&d->heap_lock);
    if (d->n + 1 >= d->capacity) {
        hr_deadline **grown = realloc(d->heap, 2 * d->capacity * sizeof(hr_deadline *));
        ok = grown != NULL;
        if (ok) {
            d->heap = grown;
            d->capacity *= 2;
        }
    }
    if (ok) {
        sift(d, ++d->n, deadline);
        if (deadline->at_ns < d->wakes_ns) pthread_cond_signal(&d->earlier);
    }
    pthread_mutex_unlock(&d->heap_lock);
    return ok;
}

bool hr_deadlines_remove(hr_deadlines *d, hr_deadline *deadline) {
    pthread_mutex_lock(&d->heap_lock);
    const bool there = deadline->place != 0;
    if (there) take_out(d, deadline);
    pthread_mutex_unlock(&d->heap_lock);
    return there;
}

static void sleep_until(hr_deadlines *d, uint64_t at_ns) {
    const struct timespec at = {.tv_sec = (time_t)(at_ns / 1000000000),
                                .tv_nsec = (long)(at_ns % 1000000000)};
    d->wakes_ns = at_ns;
    if (at_ns == UINT64_MAX)
        pthread_cond_wait(&d->earlier, &d->heap_lock);
    else
        pthread_cond_timedwait(&d->earlier, &d->heap_lock, &at);
    d->wakes_ns = 0;
}

static void *run(void *arg) {
    hr_deadlines *d = arg;
    pthread_mutex_lock(&d->heap_lock);
    while (!d->closing) {
        hr_deadline *first = d->n > 0 ? d->heap[1] : NULL;
        if (first == NULL || first->at_ns > hr_clock_ns()) {
            sleep_until(d, first == NULL ? UINT64_MAX : first->at_ns);
            continue;
        }
        take_out(d, first);
        pthread_mutex_unlock(&d->heap_lock);
        d->due(first);
        pthread_mutex_lock(&d->heap_lock);
    }
    pthread_mutex_unlock(&d->heap_lock);
    return NULL;
}

static void free_all(hr_deadlines *d) {
    pthread_cond_destroy(&d->earlier);
    pthread_mutex_destroy(&d->heap_lock);
    free(d->heap);
    free(d);
}

hr_status hr_deadlines_create(void (*due)(hr_deadline *deadline), hr_deadlines **deadlines, hr_error *err) {
    enum { FIRST_CAPACITY = 64 };
    *deadlines = NULL;
    hr_deadlines *d = calloc(1, sizeof *d);
    if (d == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "deadlines: out of memory");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->earlier, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&d->heap_lock, NULL);
    d->due = due;
    d->capacity = FIRST_CAPACITY;
    d->heap = malloc(d->capacity * sizeof(hr_deadline *));
    hr_status status =
        d->heap == NULL ? hr_error_set(err, HR_OUT_OF_MEMORY, "deadlines: out of memory") : HR_OK;
    if (status == HR_OK) status = hr_thread_start(&d->thread, "hr-deadlines", run, d, err);
    if (status != HR_OK) {
        free_all(d);
        return status;
    }
    *deadlines = d;
    return HR_OK;
}

void hr_deadlines_destroy(hr_deadlines *d) {
    if (d == NULL) return;
    pthread_mutex_lock(&d->heap_lock);
    d->closing = true;
    pthread_cond_signal(&d->earlier);
    pthread_mutex_unlock(&d->heap_lock);
    pthread_join(d->thread, NULL);
    free_all(d);
}
