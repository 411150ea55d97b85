/* A served answer's exposures as JSON lines (docs/experiments.md), one per assignment:
 *
 *     {"time":"2026-11-23T16:40:00.123456Z","request_id":"r1","user_id":"u1","experiment":"fusion","variation":1,
 *      "variation_key":"1","bucket":0.4512,"in_experiment":true,"model":"home@3","file":"<hash of the file>"}
 */
#ifndef HOMERANK_SERVICE_EXPOSURES_EXPOSURE_LINES_H
#define HOMERANK_SERVICE_EXPOSURES_EXPOSURE_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/homerank.pb-c.h"

typedef struct hr_exposure_lines {
    size_t nbytes;
    uint32_t n_lines;
    char bytes[]; /* (nbytes) each line with its '\n' */
} hr_exposure_lines;

/* time_us: since 1970 UTC. file: the experiments' version. Owned by the caller: free(). NULL when out of
 * memory. Any thread. */
hr_exposure_lines *hr_exposure_lines_make(const Homerank__V1__RankRequest *request,
                                          const Homerank__V1__RankResponse *response, const char *file,
                                          uint64_t time_us);

/* What a shadow came to (shadow.h), as a line of the same log; the analysis passes over it:
 *
 *     {"time":"...","request_id":"r1","user_id":"u1","shadow":{"model":"mmoe@1","answered":"home@3","items":500,
 *      "rank_correlation":0.98,"top10_overlap":0.9,"mean_absolute_difference":{"click":0.012}},"file":"..."}
 *
 * Texts are borrowed for the call. */
typedef struct hr_shadow_line {
    const char *request_id, *user_id, *model, *shadow_model, *file;
    uint32_t n_items;
    bool has_correlation; /* else it is null */
    double rank_correlation, top_overlap;
    const char *const *tasks;  /* (n_tasks) */
    const double *differences; /* (n_tasks) */
    uint32_t n_tasks;
} hr_shadow_line;
hr_exposure_lines *hr_shadow_line_make(const hr_shadow_line *line, uint64_t time_us);

#endif
