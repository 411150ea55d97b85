/* Requests from a file, encoded as they are when they are served, through an observed forward pass. */
#ifndef HOMERANK_SERVICE_DIAGNOSTICS_DATA_H
#define HOMERANK_SERVICE_DIAGNOSTICS_DATA_H

#include <stdint.h>

#include "base/status.h"
#include "service/diagnostics.h"

typedef struct hr_diagnostics_source {
    const char *path;  /* RankRequests as JSON lines, as hr_line_reader_open */
    const char *store; /* URI of the records of users and items */
    uint64_t max_rows; /* >= 1; what comes behind is not read */
} hr_diagnostics_source;

typedef struct hr_diagnostics_counts {
    uint64_t n_requests;      /* with a row among the rows */
    uint64_t n_rows;          /* items */
    uint64_t n_users_missing; /* requests whose user has no record in the store */
    uint64_t n_items_missing; /* rows whose item has none */
    uint64_t n_invalid;       /* stored values of the wrong kind */
    uint64_t n_bad_lines;     /* skipped; each was reported on stderr as "FILE:LINE: why" */
} hr_diagnostics_counts;

/* Runs the reference backend over the requests' items, in order, and gathers what it tells. Errors: IO,
 * INVALID_ARGUMENT (the URI; a file without a row), UNAVAILABLE (the store cannot answer), OUT_OF_MEMORY. */
hr_status hr_diagnostics_read(const hr_diagnostics_source *source, hr_diagnostics *diagnostics,
                              hr_diagnostics_counts *counts, hr_error *err);

#endif
