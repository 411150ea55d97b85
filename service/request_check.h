/* What a request must be, before any work is done for it (DESIGN 5). */
#ifndef HOMERANK_SERVICE_REQUEST_CHECK_H
#define HOMERANK_SERVICE_REQUEST_CHECK_H

#include <stdint.h>

#include "base/status.h"
#include "proto/homerank.pb-c.h"

enum { HR_MAX_ATTRIBUTES_NBYTES = 64 << 10 };

/* Everything about a request that needs no model. Errors: INVALID_ARGUMENT naming the field, expected, found;
 * RESOURCE_EXHAUSTED (more than max_items). */
hr_status hr_request_check(const Homerank__V1__RankRequest *request, uint32_t max_items,
                           uint32_t max_id_nbytes, hr_error *err);

#endif
