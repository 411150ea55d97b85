/* What users did after they were exposed, from a log of outcomes (docs/experiments.md), a line each:
 *
 *     {"user_id":"u1","time":"2026-11-23T16:41:00Z","outcomes":{"click":1,"like":0},"predictions":{"click":0.3}}
 *
 * `time` is optional: a line with one counts for the experiments that the user was exposed to before. A
 * prediction beside an outcome of 0 or 1 is what AUC is computed of. One thread.
 */
#ifndef HOMERANK_SERVICE_ANALYSIS_OUTCOMES_H
#define HOMERANK_SERVICE_ANALYSIS_OUTCOMES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "service/analysis/trials.h"

enum { HR_OUTCOMES_MAX_TASKS = 64 };

/* A user's outcomes of one task. */
typedef struct hr_outcome_sum {
    double sum;
    uint64_t n;
} hr_outcome_sum;

/* One outcome with its prediction. */
typedef struct hr_sample {
    double prediction;
    int64_t time_us; /* INT64_MAX: the line had none */
    uint32_t user;
    bool positive;
} hr_sample;

typedef struct hr_samples {
    hr_sample *samples; /* (n) owned */
    size_t n, room;
} hr_samples;

typedef struct hr_outcomes {
    const hr_trials *trials;                     /* borrowed */
    hr_interner *tasks;                          /* owned */
    hr_outcome_sum *sums[HR_OUTCOMES_MAX_TASKS]; /* (n_trials, n_users) owned, of the tasks seen */
    hr_samples samples[HR_OUTCOMES_MAX_TASKS];
    uint64_t n_lines, n_unexposed; /* good lines; those of them whose user no experiment knows */
} hr_outcomes;

/* Errors: those of hr_lines_read; OUT_OF_MEMORY. Destroy it whatever is returned. */
hr_status hr_outcomes_read(hr_outcomes *outcomes, const hr_trials *trials, const char *path, FILE *messages,
                           uint64_t *n_bad, hr_error *err);
void hr_outcomes_destroy(hr_outcomes *outcomes);

/* The user's outcomes of the task that count for the trial. */
const hr_outcome_sum *hr_outcomes_of(const hr_outcomes *outcomes, uint32_t trial, uint32_t task,
                                     uint32_t user);

#endif
