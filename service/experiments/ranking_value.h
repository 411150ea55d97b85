/* What the ranking features may say: {"model", "fusion", "tasks", "shadow"}, or one of them alone. Private to
 * service/experiments. */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_RANKING_VALUE_H
#define HOMERANK_SERVICE_EXPERIMENTS_RANKING_VALUE_H

#include <jansson.h>

#include "base/status.h"
#include "service/experiments/experiments.h"
#include "service/experiments/program.h"

/* X(name, what its feature's name ends in): the features, in the order in which they are compiled. */
#define HR_RANKING_MAP(X)                                                                                    \
    X(ALL, "")                                                                                               \
    X(MODEL, ".model")                                                                                       \
    X(FUSION, ".fusion")                                                                                     \
    X(TASKS, ".tasks")                                                                                       \
    X(SHADOW, ".shadow")

typedef enum hr_ranking_feature {
#define HR_RANKING_ENUM(name, suffix) HR_RANKING_##name,
    HR_RANKING_MAP(HR_RANKING_ENUM)
#undef HR_RANKING_ENUM
        HR_RANKING_N_FEATURES
} hr_ranking_feature;

const char *hr_ranking_suffix(hr_ranking_feature feature);

/* NULL and 0 where the value has no such key. */
typedef struct hr_ranking_value hr_ranking_value;
struct hr_ranking_value {
    const char *model;
    const hr_fusion_spec *fusion;
    const char *const *tasks; /* (n_tasks) */
    size_t n_tasks;
    const char *shadow_model;
    double shadow_percent;
};

typedef struct hr_ranking_values {
    struct hr_fusion_node *fusions; /* owned */
} hr_ranking_values;

void hr_ranking_values_clear(hr_ranking_values *values);

/* Reads every value that the program's ranking features can give, and attaches it to them; then checks all
 * that they can ask for together. Errors: INVALID_ARGUMENT naming feature, rule and key; those of
 * options->check; RESOURCE_EXHAUSTED, OUT_OF_MEMORY. */
hr_status hr_ranking_values_attach(hr_flag_program *program, const hr_experiments_options *options,
                                   hr_ranking_values *values, hr_error *err);

#endif
