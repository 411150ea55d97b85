/* The load generator behind `homerank load`: calls Ranker/Rank by a plan and measures what comes back.
 *
 * Open loop: arrivals are a Poisson process that waits for no answer, and latency counts from the time at
 * which a call was to be sent, so that a stall of the server, or of the generator, is not left out of the
 * figures (no coordinated omission). Closed loop: as many calls as asked for are always in flight, to find
 * saturation; latency counts from the sending then.
 *
 * Everything is bounded: time by the plan, calls in flight by max_in_flight, threads by 2 * n_threads.
 */
#ifndef HOMERANK_SERVICE_LOAD_H
#define HOMERANK_SERVICE_LOAD_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/status.h"
#include "service/load_plan.h"
#include "service/load_requests.h"
#include "service/load_stats.h"

typedef struct hr_load_options {
    const char *target;      /* HOST:PORT, insecure */
    uint32_t n_connections;  /* >= 1; each a TCP connection of its own */
    uint32_t n_threads;      /* >= 1; as many lanes of a sender and a receiver, at most one per connection */
    uint32_t timeout_ms;     /* deadline of a call, from its sending; 0: none */
    uint32_t max_in_flight;  /* >= 1; an arrival past it is not sent, and counted so */
    uint32_t cancel_percent; /* of the calls, cancelled when the lane's next one is sent */
    uint64_t seed;
    const atomic_bool *stop; /* set by a signal: no more is sent; may be NULL */
} hr_load_options;

/* Connects, runs the plan, waits for the calls under way (no longer than their deadline, or 30 s) and gives
 * back what was seen, the caller's to destroy. Plan and requests must outlive it.
 * Errors: INVALID_ARGUMENT (the target), UNAVAILABLE (no connection), OUT_OF_MEMORY, RESOURCE_EXHAUSTED
 * (threads). That calls fail is no error. */
hr_status hr_load_run(const hr_load_options *options, const hr_load_plan *plan,
                      const hr_load_requests *requests, hr_load_stats **stats, hr_error *err);

#endif
