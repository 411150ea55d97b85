/* Score fusion (MODEL.md 4): one ranking score from the tasks' outputs.
 * Immutable once made; any thread may use it. */
#ifndef HOMERANK_MODEL_FUSION_H
#define HOMERANK_MODEL_FUSION_H

#include <jansson.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "kernels/plan.h"

/* A fusion as it is written ({"kind": "weighted_sum", ...}), of no network yet. */
typedef struct hr_fusion_spec hr_fusion_spec;

/* value is borrowed for the call only. Errors: INVALID_ARGUMENT naming the key; OUT_OF_MEMORY. */
hr_status hr_fusion_spec_create(const json_t *value, hr_fusion_spec **spec, hr_error *err);
void hr_fusion_spec_destroy(hr_fusion_spec *spec); /* NULL is allowed */

typedef struct hr_fusion hr_fusion;

/* The fusion for the T tasks of a network, in the arena: nothing of spec and tasks is kept. Errors:
 * INVALID_ARGUMENT naming the task; RESOURCE_EXHAUSTED. */
hr_status hr_fusion_bind(const hr_fusion_spec *spec, const hr_task *tasks, uint32_t n_tasks, hr_arena *arena,
                         const hr_fusion **fusion, hr_error *err);

/* Reads a fusion for the T tasks of a network. Errors: those of both. */
hr_status hr_fusion_create(const json_t *value, const hr_task *tasks, uint32_t n_tasks, hr_fusion **fusion,
                           hr_error *err);
void hr_fusion_destroy(hr_fusion *fusion); /* of hr_fusion_create; NULL is allowed */

/* The score of one item from its outputs (T), in double; may be infinite or NaN where outputs are. */
double hr_fusion_score(const hr_fusion *fusion, const double *outputs);

#endif
