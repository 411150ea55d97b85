/* Score fusion (MODEL.md 4): one ranking score from the tasks' outputs.
 * Immutable once made; any thread may use it. */
#ifndef HOMERANK_MODEL_FUSION_H
#define HOMERANK_MODEL_FUSION_H

#include <jansson.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/plan.h"

typedef struct hr_fusion hr_fusion;

/* Reads a fusion object ({"kind": "weighted_sum", ...}) for the T tasks of a network. value and tasks are
 * borrowed for the call only. Errors: INVALID_ARGUMENT naming the key or task. */
hr_status hr_fusion_create(const json_t *value, const hr_task *tasks, uint32_t n_tasks, hr_fusion **fusion,
                           hr_error *err);
void hr_fusion_destroy(hr_fusion *fusion); /* NULL is allowed */

/* The score of one item from its outputs (T), in double; may be infinite or NaN where outputs are. */
double hr_fusion_score(const hr_fusion *fusion, const double *outputs);

#endif
