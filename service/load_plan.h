/* When a load generator sends: phases of a rate each, or as many calls as shall be in flight. */
#ifndef HOMERANK_SERVICE_LOAD_PLAN_H
#define HOMERANK_SERVICE_LOAD_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { HR_LOAD_MAX_PHASES = 64 };

typedef struct hr_load_phase {
    double rate;               /* requests per second, Poisson arrivals; 0: a pause (open loop) */
    uint64_t begin_ns, end_ns; /* since the plan's start */
    bool warm_up;              /* sent, but not told of */
} hr_load_phase;

typedef struct hr_load_plan {
    uint32_t n_in_flight; /* closed loop: this many at once, each sent when one is done; 0: open loop */
    uint32_t n_phases;
    hr_load_phase phases[HR_LOAD_MAX_PHASES]; /* one after the other */
} hr_load_plan;

/* One phase, behind the others. Errors: INVALID_ARGUMENT (too many, or too long in all). */
hr_status hr_load_plan_add(hr_load_plan *plan, double rate, double seconds, bool warm_up, hr_error *err);

/* Requests per second: "70", "0.5". Errors: INVALID_ARGUMENT "expected ..., found ...", here and below. */
hr_status hr_load_read_rate(const char *text, double *rate, hr_error *err);

/* "70:10,200:5,70:5": rate:seconds, behind the phases that are there; with warmup_s > 0 a warm-up at the
 * first rate before them. */
hr_status hr_load_plan_read_phases(hr_load_plan *plan, const char *text, double warmup_s, hr_error *err);

/* For plans of at least one phase: the end of the last, ns since the plan's start. */
uint64_t hr_load_plan_end_ns(const hr_load_plan *plan);

/* The phase at a time since the start, the last one from its end on. */
uint32_t hr_load_plan_phase_at(const hr_load_plan *plan, uint64_t at_ns);

#endif
