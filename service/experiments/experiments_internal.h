/* Loaded experiments, for the files that make and ask them. Private to service/experiments. */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_EXPERIMENTS_INTERNAL_H
#define HOMERANK_SERVICE_EXPERIMENTS_EXPERIMENTS_INTERNAL_H

#include <stdatomic.h>

#include "service/experiments/evaluate.h"
#include "service/experiments/experiments.h"
#include "service/experiments/program.h"
#include "service/experiments/ranking_value.h"

struct hr_experiments {
    atomic_uint n_references;
    char version[HR_EXPERIMENTS_VERSION_SIZE];
    hr_flag_program *program; /* owned; its first HR_RANKING_N_FEATURES features are the ranking's */
    hr_ranking_values values; /* owned */
};

/* Begins the evaluation of a subject; RESOURCE_EXHAUSTED where the arena is full. */
hr_status hr_experiments__begin(const hr_experiments *experiments, const hr_experiments_subject *subject,
                                hr_arena *arena, const hr_trace *trace, hr_evaluation *evaluation,
                                hr_error *err);

#endif
