/* Lines on their way to a slow place: a bounded buffer, and a thread that writes it out.
 *
 * Putting copies the lines under a short lock and never waits for the place; where the buffer is full the
 * lines are dropped and counted. The thread looks every HR_SINK_PERIOD_MS, or when half the buffer is full:
 * no line wakes it. What cannot be written stays in the buffer and is tried again, so that a short fault
 * loses nothing. Any thread may put and count.
 */
#ifndef HOMERANK_SERVICE_EXPOSURES_EXPOSURE_SINK_H
#define HOMERANK_SERVICE_EXPOSURES_EXPOSURE_SINK_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { HR_SINK_PERIOD_MS = 100, HR_SINK_MAX_BACKOFF_MS = 2000 };

/* Where the lines go. All entries are required; only the sink's thread calls them, but for destroy. */
typedef struct hr_sink_place_i {
    const char *name; /* "file", "stream" */
    /* Writes lines[0..nbytes), whole lines each with its '\n'. *n_done: bytes of whole lines that are
     * written, also where it fails. */
    hr_status (*write)(void *place, const char *lines, size_t nbytes, size_t *n_done, hr_error *err);
    void (*destroy)(void *place);
} hr_sink_place_i;

typedef struct hr_sink hr_sink;

/* The place becomes the sink's, whatever is returned. max_nbytes >= 4096 may wait. Errors: OUT_OF_MEMORY,
 * RESOURCE_EXHAUSTED. */
hr_status hr_sink_create(const hr_sink_place_i *i, void *place, size_t max_nbytes, hr_sink **sink,
                         hr_error *err);

/* Writes what waits, drops and counts what cannot be written by end_ns (hr_clock_ns), says how many were
 * lost, and frees the sink and its place. NULL is allowed. */
void hr_sink_destroy(hr_sink *sink, uint64_t end_ns);

/* Takes all of the lines (n_lines, nbytes) or none. */
void hr_sink_put(hr_sink *sink, const char *lines, size_t nbytes, uint32_t n_lines);

/* Lines since creation: put = written + dropped + waiting. */
typedef struct hr_sink_counts {
    uint64_t written, dropped, waiting;
} hr_sink_counts;
void hr_sink_count(hr_sink *sink, hr_sink_counts *counts);

const char *hr_sink_name(const hr_sink *sink);

#endif
