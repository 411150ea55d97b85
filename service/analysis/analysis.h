/* `homerank experiments analyze`: per experiment, task and variation the mean outcome and the AUC of the
 * predictions, their differences from the first variation with 95 % intervals by user, and whether the users
 * are shared out as they should be. Synchronous; one thread. */
#ifndef HOMERANK_SERVICE_ANALYSIS_ANALYSIS_H
#define HOMERANK_SERVICE_ANALYSIS_ANALYSIS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

typedef struct hr_analysis_options {
    const char *exposures, *outcomes; /* paths, as hr_line_reader_open takes them */
    const char *experiment;           /* this one only; "": all */
    const double *weights;            /* (n_weights) the share of users that each variation should have */
    size_t n_weights;                 /* 0: equal shares */
    bool json;                        /* one JSON object instead of tables */
    FILE *out;                        /* the result */
    FILE *messages;                   /* bad lines */
} hr_analysis_options;

/* "0.5,0.3,0.2": positive or 0, one of them positive. Errors: INVALID_ARGUMENT. */
enum { HR_ANALYSIS_MAX_WEIGHTS = 100 };
hr_status hr_analysis_read_weights(const char *text, double weights[HR_ANALYSIS_MAX_WEIGHTS],
                                   size_t *n_weights, hr_error *err);

/* *n_bad: lines of either file that were passed over. Errors: NOT_FOUND (no exposure, or no such experiment),
 * INVALID_ARGUMENT (weights of another number than there are variations), IO, OUT_OF_MEMORY. */
hr_status hr_analyze(const hr_analysis_options *options, uint64_t *n_bad, hr_error *err);

#endif
