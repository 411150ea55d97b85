/* What a request must be, before any work is done for it (DESIGN 5). */
#ifndef HOMERANK_SERVICE_REQUEST_CHECK_H
#define HOMERANK_SERVICE_REQUEST_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "proto/homerank.pb-c.h"
#include "service/experiments/experiments.h"

enum { HR_MAX_REQUEST_ID_NBYTES = 1 << 10, HR_MAX_ATTRIBUTES_NBYTES = 64 << 10 };

typedef struct hr_request_limits {
    uint32_t max_items;
    uint32_t max_id_nbytes; /* user and item ids */
    bool allow_forced_variations;
} hr_request_limits;

/* Everything about a request that needs no model; *attributes are its attributes, read into the arena, and
 * borrow from the request (NULL: it has none). Errors: INVALID_ARGUMENT naming the field, expected, found;
 * RESOURCE_EXHAUSTED (more than max_items; the arena). */
hr_status hr_request_check(const Homerank__V1__RankRequest *request, const hr_request_limits *limits,
                           hr_arena *arena, const hr_experiments_attributes **attributes, hr_error *err);

#endif
