/* The texts that tell a load generator what to send, read. Any thread.
 * Errors: INVALID_ARGUMENT "expected ..., found ...". */
#ifndef HOMERANK_SERVICE_LOAD_TEXT_H
#define HOMERANK_SERVICE_LOAD_TEXT_H

#include <stdint.h>

#include "base/status.h"

enum { HR_LOAD_PREFIX_SIZE = 72, HR_LOAD_ID_SIZE = 96, HR_LOAD_MAX_SIZES = 64, HR_LOAD_MAX_ZIPF = 10 };

/* "0.75": a decimal in [min, max], without sign or exponent. */
hr_status hr_load_read_decimal(const char *text, double min, double max, double *value, hr_error *err);

/* "v0..v99999": the ids prefix + number, from first on, n of them. */
typedef struct hr_load_range {
    char prefix[HR_LOAD_PREFIX_SIZE];
    uint64_t first, n;
} hr_load_range;
hr_status hr_load_read_range(const char *text, hr_load_range *range, hr_error *err);

/* The index-th id of the range, index < n. */
void hr_load_range_id(const hr_load_range *range, uint64_t index, char id[HR_LOAD_ID_SIZE]);

/* "500" or "1,100,500": how many items a request may have. */
typedef struct hr_load_sizes {
    uint32_t values[HR_LOAD_MAX_SIZES], n, max;
} hr_load_sizes;
hr_status hr_load_read_sizes(const char *text, hr_load_sizes *sizes, hr_error *err);

#endif
