/* From logits to the ranked answer (DESIGN 3, step 7; MODEL.md 4). */
#ifndef HOMERANK_SERVICE_RANKING_H
#define HOMERANK_SERVICE_RANKING_H

#include "base/arena.h"
#include "base/status.h"
#include "model/model.h"
#include "proto/homerank.pb-c.h"

/* Fills the response's item_ids, scores, tasks and task_scores from logits (n_items, T), best first: outputs,
 * fused score, order, top_k, the tasks asked for. Items with a score or output that is not finite rank last
 * and are told in *n_not_finite. Memory is the arena's; strings are borrowed from the request and the model.
 * Errors: INVALID_ARGUMENT (an unknown task), RESOURCE_EXHAUSTED. */
hr_status hr_ranking_fill(const hr_model *model, const Homerank__V1__RankRequest *request,
                          const float *logits, hr_arena *arena, Homerank__V1__RankResponse *response,
                          uint32_t *n_not_finite, hr_error *err);

/* The request's tasks as indices of the model's, all of them where it names none; arena. For a check before
 * any work is done. Errors as above. */
hr_status hr_ranking_tasks(const hr_model *model, const Homerank__V1__RankRequest *request, hr_arena *arena,
                           const uint32_t **tasks, uint32_t *n_tasks, hr_error *err);

#endif
