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

/* The tasks whose predictions the request wants, all of the model's where it names none, and the model's own
 * fusion. Called before any work is done. Errors: INVALID_ARGUMENT (an unknown task, or one twice),
 * RESOURCE_EXHAUSTED. */
hr_status hr_ranking_choose(const hr_model *model, const Homerank__V1__RankRequest *request, hr_arena *arena,
                            hr_ranking_choice *choice, hr_error *err);

/* Fills the response's item_ids, scores, tasks and task_scores from logits (n_items, T), best first: outputs,
 * fused score, order, top_k, the chosen tasks. Items with a score or output that is not finite rank last and
 * are told in *n_not_finite. Memory is the arena's; strings are borrowed from the request and the model.
 * Errors: RESOURCE_EXHAUSTED. */
hr_status hr_ranking_fill(const hr_model *model, const Homerank__V1__RankRequest *request,
                          const hr_ranking_choice *choice, const float *logits, hr_arena *arena,
                          Homerank__V1__RankResponse *response, uint32_t *n_not_finite, hr_error *err);

#endif
