/* Offline scoring: RankRequests from a file of JSON lines, one result line each, by the online pipeline. */
#ifndef HOMERANK_SERVICE_SCORING_H
#define HOMERANK_SERVICE_SCORING_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/status.h"
#include "service/pipeline.h"

typedef struct hr_scoring_options {
    const char *in_path, *out_path; /* as hr_line_reader_open and hr_line_writer_open */
    uint32_t n_in_flight;           /* requests read ahead, >= 1; at most the pipeline's max_queued_calls */
    uint64_t n_items_in_flight;     /* their items together, at most the pipeline's max_queued_items */
    size_t max_call_nbytes;         /* cap of one request's memory */
    const atomic_bool *stop;        /* set by a signal: ends early with CANCELLED; may be NULL */
} hr_scoring_options;

typedef struct hr_scoring_result {
    uint64_t n_scored;   /* lines with an answer */
    uint64_t n_failed;   /* lines without; each was reported on stderr as "FILE:LINE: why" */
    uint64_t n_items;    /* items of the answers */
    uint64_t n_warnings; /* answers with warnings (degraded features, scores that are not finite) */
} hr_scoring_result;

/* Answers stand in the order of their requests. The result is filled whatever is returned.
 * Errors: those of the files (IO; INVALID_ARGUMENT where both are one), CANCELLED, OUT_OF_MEMORY. A bad line
 * is not an error but counts. */
hr_status hr_score_file(hr_pipeline *pipeline, const hr_scoring_options *options, hr_scoring_result *result,
                        hr_error *err);

#endif
