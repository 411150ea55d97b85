/* What the CUDA kernels must show on a device, as plain functions: for the cmocka tests (which skip without a
 * device) and for tools/gpu_check.sh (which has no cmocka). Each prints a line a failure and a last line that
 * sums up, and returns the number of failures.
 */
#ifndef HOMERANK_TESTS_KERNELS_CUDA_CHECK_H
#define HOMERANK_TESTS_KERNELS_CUDA_CHECK_H

#include <stdbool.h>
#include <stdio.h>

#include "kernels/backend.h"
#include "kernels/cuda/cuda_runtime.h"
#include "kernels/plan.h"

/* What is checked of the random networks of every kind. */
typedef struct hr_cuda_scope {
    hr_precision first; /* from this one on */
    bool small;         /* the networks and sizes that compute-sanitizer gets through in minutes */
    uint32_t index,
        of; /* one of several processes takes those whose number leaves index when divided by of */
} hr_cuda_scope;

/* Every launch of random networks of every kind, at 1 to 1000 rows, against the emulator over the same
 * memory: sum (a - b)^2 <= 1e-10 sum b^2 of each buffer a launch writes in f32, 1e-4 in bf16; guards and all
 * other buffers intact. */
int hr_cuda_check_stages(const hr_cuda_runtime *runtime, hr_cuda_scope scope, FILE *out);

/* The same of one plan, at the sizes that a network of its size allows. */
int hr_cuda_check_plan_stages(const hr_cuda_runtime *runtime, const hr_plan *plan, const char *name,
                              FILE *out);

/* Logits of whole networks of every kind against the reference backend (MODEL.md 5), and the same bits for a
 * row in batches of 1 to 8192 rows and at any place. */
int hr_cuda_check_networks(const hr_cuda_runtime *runtime, hr_cuda_scope scope, FILE *out);

#endif
