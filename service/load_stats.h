/* What a load generator saw: counts and histograms, by phase of the plan and over time.
 *
 * A call belongs to the phase and the interval in which it was to be sent. It ends as exactly one of:
 * answered, refused, late, cancelled, failed. Thread rule: one writer at a time; merge to read several
 * writers' together.
 */
#ifndef HOMERANK_SERVICE_LOAD_STATS_H
#define HOMERANK_SERVICE_LOAD_STATS_H

#include <stdint.h>

#include "base/histogram.h"
#include "base/status.h"
#include "service/load_plan.h"

enum { HR_LOAD_STATUSES = 17, HR_LOAD_TEXT_SIZE = 200, HR_LOAD_MAX_INTERVALS = 600 };

typedef enum hr_load_end {
    HR_LOAD_ANSWERED,  /* OK */
    HR_LOAD_REFUSED,   /* RESOURCE_EXHAUSTED, UNAVAILABLE; DEADLINE_EXCEEDED told before the deadline */
    HR_LOAD_LATE,      /* no answer by the deadline */
    HR_LOAD_CANCELLED, /* CANCELLED */
    HR_LOAD_FAILED,    /* any other status */
    HR_LOAD_ENDS
} hr_load_end;

/* Where the server says an answer's time went (homerank.v1.Timing). */
typedef enum hr_load_stage {
    HR_LOAD_QUEUE,
    HR_LOAD_FEATURES,
    HR_LOAD_MODEL,
    HR_LOAD_TOTAL,
    HR_LOAD_STAGES
} hr_load_stage;

/* One call, when it is over. */
typedef struct hr_load_outcome {
    uint64_t intended_ns; /* when it was to be sent, since the plan's start */
    uint64_t lag_ns;      /* how much later it was */
    uint64_t latency_ns;  /* from intended_ns to its end */
    hr_load_end end;
    int code;         /* gRPC status, 0 to 16 */
    const char *text; /* the status's text, borrowed, need not end in NUL */
    size_t text_nbytes;
    uint32_t n_items; /* of an answer */
    bool has_timing;
    uint64_t stage_us[HR_LOAD_STAGES];
} hr_load_outcome;

typedef struct hr_load_counts {
    uint64_t by_end[HR_LOAD_ENDS];
    uint64_t not_sent; /* arrivals left out: the generator's bound on calls in flight, or far too late */
    uint64_t n_items;  /* of the answers */
} hr_load_counts;

typedef struct hr_load_phase_stats {
    hr_load_counts counts;
    uint64_t by_status[HR_LOAD_STATUSES];
    hr_histogram answered, refused;      /* ns, from the intended time */
    hr_histogram lag;                    /* ns, of all calls */
    hr_histogram stages[HR_LOAD_STAGES]; /* ns */
} hr_load_phase_stats;

typedef struct hr_load_interval_stats {
    hr_load_counts counts;
    hr_histogram answered, refused;
} hr_load_interval_stats;

typedef struct hr_load_stats {
    const hr_load_plan *plan;    /* borrowed */
    hr_load_phase_stats *phases; /* (plan->n_phases) */
    uint64_t interval_ns;        /* 1 s, or as many as make HR_LOAD_MAX_INTERVALS */
    uint32_t n_intervals;
    hr_load_interval_stats *intervals;               /* (n_intervals) from the plan's start on */
    char texts[HR_LOAD_STATUSES][HR_LOAD_TEXT_SIZE]; /* of each status the first that came with one */
} hr_load_stats;

/* NULL when out of memory. */
hr_load_stats *hr_load_stats_create(const hr_load_plan *plan);
void hr_load_stats_destroy(hr_load_stats *stats); /* NULL is allowed */

void hr_load_stats_record(hr_load_stats *stats, const hr_load_outcome *outcome);
void hr_load_stats_not_sent(hr_load_stats *stats, uint64_t intended_ns);

/* Both of the same plan. */
void hr_load_stats_merge(hr_load_stats *into, const hr_load_stats *from);

/* The calls that were sent. */
uint64_t hr_load_counts_sent(const hr_load_counts *counts);

/* "RESOURCE_EXHAUSTED"; code 0 to 16. */
const char *hr_load_status_name(int code);

#endif
