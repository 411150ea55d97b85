/* The tensors of a plan, from model.safetensors (MODEL.md 2, "Tensors"). Internal to model/. */
#ifndef HOMERANK_MODEL_PLAN_TENSORS_H
#define HOMERANK_MODEL_PLAN_TENSORS_H

#include <stdatomic.h>

#include "base/arena.h"
#include "model/network.h"
#include "model/safetensors.h"

typedef struct hr_plan_tensors {
    float *values; /* all tensors, each on a 64-byte boundary; owned */
    size_t nbytes; /* of values */
    uint64_t network_parameters;
    uint64_t embedding_parameters;
} hr_plan_tensors;

/* Fills in all tensors of a plan that hr_network_read made in the arena, folding batch norm into the experts'
 * weights. Nothing is allocated before the file was found to hold exactly the tensors that the plan calls
 * for, and the machine memory for them and for a backend's packed form of them. cancelled (may be NULL) is
 * looked at before each tensor. Errors: INVALID_ARGUMENT naming the tensor, expected, found; IO; CANCELLED;
 * OUT_OF_MEMORY. */
hr_status hr_plan_tensors_load(hr_plan *plan, hr_config_norm norm, const hr_safetensors *file,
                               const atomic_bool *cancelled, hr_arena *arena, hr_plan_tensors *tensors,
                               hr_error *err);
void hr_plan_tensors_clear(hr_plan_tensors *tensors);

#endif
