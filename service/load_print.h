/* A load generator's report on stdout. One thread. */
#ifndef HOMERANK_SERVICE_LOAD_PRINT_H
#define HOMERANK_SERVICE_LOAD_PRINT_H

#include <stdbool.h>

#include "service/load_stats.h"

/* The phases (but warm-ups) as tables, with `timeline` the intervals too; then what failed, and a warning
 * where the generator could not keep up. Errors: OUT_OF_MEMORY. */
hr_status hr_load_print_tables(const hr_load_stats *stats, bool timeline, hr_error *err);

/* What the JSON form says of the run besides. */
typedef struct hr_load_heading {
    const char *target;
    uint32_t n_connections, n_requests;
} hr_load_heading;

/* The same, with the intervals, as one line of JSON; times in microseconds. Errors: OUT_OF_MEMORY, IO. */
hr_status hr_load_print_json(const hr_load_stats *stats, const hr_load_heading *heading, hr_error *err);

#endif
