/* How much two models' rankings of the same items differ. Pure; any thread. */
#ifndef HOMERANK_SERVICE_SHADOW_COMPARE_H
#define HOMERANK_SERVICE_SHADOW_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "model/model.h"

/* What a model gave n items, in the order of the request. */
typedef struct hr_scored {
    const hr_model *model;
    const float *scores;  /* (n) fused */
    const float *outputs; /* (n, T) of all its tasks */
} hr_scored;

enum { HR_SHADOW_TOP = 10 };

typedef struct hr_shadow_difference {
    bool has_correlation;    /* both have two different scores or more */
    double rank_correlation; /* Spearman's: of the ranks, ties sharing their mean rank; -1 to 1 */
    double top_overlap;      /* share of the first's best HR_SHADOW_TOP items (or all) among the second's */
    uint32_t n_tasks;        /* of both models, by name */
    const char **tasks;      /* (n_tasks) borrowed from the first's model; the array is the arena's */
    double *differences;     /* (n_tasks) mean |first - second| of the task's output; arena */
} hr_shadow_difference;

/* n >= 1; values that are not finite rank last and count for no difference. False where the arena is full. */
bool hr_shadow_compare(const hr_scored *first, const hr_scored *second, uint32_t n, hr_arena *arena,
                       hr_shadow_difference *difference);

#endif
