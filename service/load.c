/* The run as a whole: see load.h. */
#include "service/load.h"

#include <grpc/grpc.h>
#include <stdlib.h>

#include "base/clock.h"
#include "service/load_lane.h"
#include "service/rpc_log.h"
#include "service/server_address.h"

/* Part i of n nearly equal parts of a whole. */
static uint32_t part_of(uint32_t whole, uint32_t i, uint32_t n) {
    return whole / n + (i < whole % n);
}

static uint32_t count_lanes(const hr_load_options *options, const hr_load_plan *plan) {
    uint32_t n = options->n_threads;
    if (n > options->n_connections) n = options->n_connections;
    if (n > options->max_in_flight) n = options->max_in_flight;
    if (plan->n_in_flight > 0 && n > plan->n_in_flight) n = plan->n_in_flight;
    return n;
}

static hr_status create_lanes(const hr_load_options *options, const hr_load_plan *plan,
                              const hr_load_requests *requests, hr_load_lane **lanes, uint32_t n_lanes,
                              hr_error *err) {
    for (uint32_t i = 0; i < n_lanes; i++) {
        const hr_load_share share = {
            .index = i,
            .n_lanes = n_lanes,
            .n_connections = part_of(options->n_connections, i, n_lanes),
            .n_in_flight = part_of(plan->n_in_flight, i, n_lanes),
            .max_in_flight = part_of(options->max_in_flight, i, n_lanes),
        };
        hr_status status = hr_load_lane_create(options, plan, requests, &share, &lanes[i], err);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

/* Lanes that were started are joined, whatever became of the others. */
static hr_status run_lanes(hr_load_lane **lanes, uint32_t n_lanes, hr_load_stats *stats, hr_error *err) {
    enum { START_IN_NS = 5000000 }; /* so that all begin together */
    const uint64_t start_ns = hr_clock_ns() + START_IN_NS;
    hr_status status = HR_OK;
    uint32_t n_started = 0;
    for (; n_started < n_lanes; n_started++) {
        status = hr_load_lane_start(lanes[n_started], start_ns, err);
        if (status != HR_OK) break;
    }
    for (uint32_t i = 0; i < n_started; i++) hr_load_stats_merge(stats, hr_load_lane_join(lanes[i]));
    return status;
}

hr_status hr_load_run(const hr_load_options *options, const hr_load_plan *plan,
                      const hr_load_requests *requests, hr_load_stats **stats, hr_error *err) {
    hr_address address;
    hr_status status = hr_address_parse("target", options->target, &address, err);
    if (status != HR_OK) return status;
    hr_rpc_log_install();
    grpc_init();
    const uint32_t n_lanes = count_lanes(options, plan);
    hr_load_lane **lanes = calloc(n_lanes, sizeof *lanes);
    hr_load_stats *seen = hr_load_stats_create(plan);
    if (lanes == NULL || seen == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the load generator");
    if (status == HR_OK) status = create_lanes(options, plan, requests, lanes, n_lanes, err);
    if (status == HR_OK) status = run_lanes(lanes, n_lanes, seen, err);
    for (uint32_t i = 0; lanes != NULL && i < n_lanes; i++) hr_load_lane_destroy(lanes[i]);
    free(lanes);
    grpc_shutdown();
    if (status == HR_OK)
        *stats = seen;
    else
        hr_load_stats_destroy(seen);
    return status;
}
