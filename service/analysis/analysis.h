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
    /* (optional) The share of users that each of the n variations should have; false where it does not know
     * the experiment. Default: equal shares. */
    bool (*shares)(void *arg, const char *experiment, double *shares, uint32_t n);
    void *shares_arg;
    bool json;      /* one JSON object instead of tables */
    FILE *out;      /* the result */
    FILE *messages; /* bad lines */
} hr_analysis_options;

/* *n_bad: lines of either file that were passed over. Errors: NOT_FOUND (no exposure, or no such experiment),
 * INVALID_ARGUMENT, IO, OUT_OF_MEMORY. */
hr_status hr_analyze(const hr_analysis_options *options, uint64_t *n_bad, hr_error *err);

#endif
