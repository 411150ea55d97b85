/* The exposure log: what was served to whom under which experiment, written where the answer was sent.
 *
 * One JSON line per assignment of an answer, to a file and/or a Redis stream, each with a bounded buffer and
 * a thread of its own (exposure_sink.h): a caller never waits, and what cannot be written is dropped and
 * counted. Any thread.
 */
#ifndef HOMERANK_SERVICE_EXPOSURES_EXPOSURES_H
#define HOMERANK_SERVICE_EXPOSURES_EXPOSURES_H

#include "base/metrics_text.h"
#include "base/status.h"
#include "service/exposures/exposure_lines.h"
#include "service/exposures/exposure_sink.h"

typedef struct hr_exposures hr_exposures;

typedef struct hr_exposures_options {
    const char *path;   /* a file; "": none */
    const char *stream; /* a Redis, as hr_redis_stream_open; "": none */
    uint64_t stream_maxlen;
    uint64_t max_file_nbytes;
    uint32_t max_file_age_s;   /* 0: none */
    size_t max_waiting_nbytes; /* of each */
    uint32_t grace_ms;         /* at the end, for what waits */
} hr_exposures_options;

/* Texts are borrowed for the call. Errors: IO (the file), INVALID_ARGUMENT (the stream's URI), OUT_OF_MEMORY.
 */
hr_status hr_exposures_open(const hr_exposures_options *options, hr_exposures **exposures, hr_error *err);

/* Writes what waits, as long as the grace lasts. NULL is allowed. */
void hr_exposures_close(hr_exposures *exposures);

/* Logs the lines of an answer that was sent, and frees them. */
void hr_exposures_log(hr_exposures *exposures, hr_exposure_lines *lines);

enum { HR_EXPOSURES_MAX_SINKS = 2 };

/* One per sink: its name and its counts. Returns their number. */
typedef struct hr_exposures_counts {
    const char *name;
    hr_sink_counts counts;
} hr_exposures_counts;
size_t hr_exposures_count(hr_exposures *exposures, hr_exposures_counts counts[HR_EXPOSURES_MAX_SINKS]);

/* Prints the counts; a collector (hr_metrics_add) whose arg is the log. */
void hr_exposures_collect(hr_metrics_text *text, void *exposures);

#endif
