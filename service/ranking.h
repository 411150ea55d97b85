/* From logits to the ranked answer (DESIGN 3, step 7; MODEL.md 4). */
#ifndef HOMERANK_SERVICE_RANKING_H
#define HOMERANK_SERVICE_RANKING_H

#include "base/arena.h"
#include "base/status.h"
#include "model/model.h"
#include "proto/homerank.pb-c.h"

/* How a request is ranked: by which score, and which tasks' predictions it gets. */
typedef struct hr_ranking_choice {
    const hr_fusion *fusion; /* borrowed */
    const uint32_t *tasks;   /* (n_tasks) tasks of the model, by index; arena */
    uint32_t n_tasks;
} hr_ranking_choice;

/* What somebody wants of it: a request, an experiment, or both. */
typedef struct hr_ranking_wish {
    const char *const *tasks; /* (n_tasks) whose predictions; none: all of the model's */
    size_t n_tasks;
    const hr_fusion_spec *fusion; /* NULL: the model's own */
} hr_ranking_wish;

/* The wish, of this model. Called before any work is done. Errors: INVALID_ARGUMENT (an unknown task, or one
 * twice), RESOURCE_EXHAUSTED. */
hr_status hr_ranking_choose(const hr_model *model, const hr_ranking_wish *wish, hr_arena *arena,
                            hr_ranking_choice *choice, hr_error *err);

/* What every item got, in the order of the request; arena. */
typedef struct hr_ranking_scores {
    const float *scores;   /* (n_items) fused */
    const float *outputs;  /* (n_items, T) of all the model's tasks */
    uint32_t n_not_finite; /* items with a score or output that is not finite */
} hr_ranking_scores;

/* Fills the response's item_ids, scores, tasks and task_scores from logits (n_items, T), best first: outputs,
 * fused score, order, top_k, the chosen tasks. Items that are not finite rank last. Memory is the arena's;
 * strings are borrowed from the request and the model. Errors: RESOURCE_EXHAUSTED. */
hr_status hr_ranking_fill(const hr_model *model, const Homerank__V1__RankRequest *request,
                          const hr_ranking_choice *choice, const float *logits, hr_arena *arena,
                          Homerank__V1__RankResponse *response, hr_ranking_scores *scores, hr_error *err);

#endif
