/* A served answer's exposures as JSON lines (docs/experiments.md), one per assignment:
 *
 *     {"time":"2026-11-23T16:40:00.123456Z","request_id":"r1","user_id":"u1","experiment":"fusion","variation":1,
 *      "variation_key":"1","bucket":0.4512,"in_experiment":true,"model":"home@3","file":"<hash of the file>"}
 */
#ifndef HOMERANK_SERVICE_EXPOSURES_EXPOSURE_LINES_H
#define HOMERANK_SERVICE_EXPOSURES_EXPOSURE_LINES_H

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

#endif
