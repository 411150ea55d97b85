/* A lane of the load generator: some connections, a thread that sends by the plan, and one that receives.
 * Inside the load generator only. */
#ifndef HOMERANK_SERVICE_LOAD_LANE_H
#define HOMERANK_SERVICE_LOAD_LANE_H

#include "service/load.h"

typedef struct hr_load_lane hr_load_lane;

typedef struct hr_load_share {
    uint32_t index, n_lanes; /* this lane sends one n_lanes-th of the plan */
    uint32_t n_connections;
    uint32_t n_in_flight;   /* closed loop */
    uint32_t max_in_flight; /* open loop */
} hr_load_share;

/* Opens the connections and waits until all are ready. All pointers are borrowed until destroyed.
 * Errors: as hr_load_run. */
hr_status hr_load_lane_create(const hr_load_options *options, const hr_load_plan *plan,
                              const hr_load_requests *requests, const hr_load_share *share,
                              hr_load_lane **lane, hr_error *err);

/* The plan's time 0 is start_ns of hr_clock_ns. Errors: RESOURCE_EXHAUSTED; nothing runs then. */
hr_status hr_load_lane_start(hr_load_lane *lane, uint64_t start_ns, hr_error *err);

/* Waits for the end of a lane that was started; the stats are complete then. */
const hr_load_stats *hr_load_lane_join(hr_load_lane *lane);

void hr_load_lane_destroy(hr_load_lane *lane); /* joined, or never started; NULL is allowed */

#endif
