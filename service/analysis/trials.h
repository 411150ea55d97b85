/* Who was exposed to which variation of which experiment, from exposure logs (docs/experiments.md).
 *
 * The unit is the user: the first exposure decides the variation and from when on outcomes count. A user seen
 * in two variations of one experiment is crossed, and is left out of it. One thread.
 */
#ifndef HOMERANK_SERVICE_ANALYSIS_TRIALS_H
#define HOMERANK_SERVICE_ANALYSIS_TRIALS_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "service/analysis/interner.h"

enum { HR_TRIAL_MAX_VARIATIONS = 100 };

/* What a user is in a trial. */
enum { HR_TRIAL_NOT_IN = -1, HR_TRIAL_CROSSED = -2 };

typedef struct hr_trial {
    uint32_t n_variations;                   /* the highest seen, and those before it */
    char *keys[HR_TRIAL_MAX_VARIATIONS];     /* variation_key as first seen, or NULL; owned */
    double n_users[HR_TRIAL_MAX_VARIATIONS]; /* without the crossed */
    uint64_t n_exposures, n_crossed;
    int32_t *variation; /* (n_users of all trials) by user, or HR_TRIAL_NOT_IN, HR_TRIAL_CROSSED */
    int64_t *since_us;  /* likewise: the first exposure */
} hr_trial;

typedef struct hr_trials {
    hr_interner *users, *experiments; /* owned; an experiment's number is its trial's */
    hr_trial *trials;                 /* (count of experiments) owned */
    uint32_t n_rooms;                 /* of each trial's arrays by user */
} hr_trials;

hr_status hr_trials_create(hr_trials *trials, hr_error *err);
void hr_trials_destroy(hr_trials *trials);

/* Adds the exposures of a file of JSON lines (as hr_line_reader_open takes it). Lines that are not exposures
 * are said on `messages` (the first few) and counted in *n_bad. Errors: IO, NOT_FOUND, OUT_OF_MEMORY. */
hr_status hr_trials_read(hr_trials *trials, const char *path, FILE *messages, uint64_t *n_bad, hr_error *err);

#endif
