/* The "network" of config.json: layers of units and tasks (MODEL.md 2), completely checked.
 *
 * The result is a plan with every name resolved and every width known, and all its tensors NULL:
 * plan_tensors.h fills them in. Internal to model/.
 */
#ifndef HOMERANK_MODEL_NETWORK_H
#define HOMERANK_MODEL_NETWORK_H

#include <jansson.h>

#include "base/arena.h"
#include "kernels/plan.h"

/* What config.json says; in a plan, batch norm is folded into the weights and is none. */
typedef enum hr_config_norm {
    HR_CONFIG_NORM_BATCH,
    HR_CONFIG_NORM_LAYER,
    HR_CONFIG_NORM_NONE
} hr_config_norm;

/* "batch", "layer" or "none". */
const char *hr_config_norm_name(hr_config_norm norm);

/* value and schema are borrowed, value for the call only; what plan points to lives in the arena.
 * Errors: INVALID_ARGUMENT naming the layer, unit or task and the key; OUT_OF_MEMORY. */
hr_status hr_network_read(const json_t *value, const hr_schema *schema, hr_arena *arena, hr_plan *plan,
                          hr_config_norm *norm, hr_error *err);

#endif
