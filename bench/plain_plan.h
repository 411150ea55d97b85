/* A model as one flat file, for machines without jansson: bench/plain_plan.py writes it from a model's
 * folder.
 *
 * Words of 32 bits, little-endian: counts and f32 values, in the order in which plain_plan.c reads them. The
 * file is our own tool's: it is checked for its length and nothing else.
 */
#ifndef HOMERANK_BENCH_PLAIN_PLAN_H
#define HOMERANK_BENCH_PLAIN_PLAN_H

#include "base/arena.h"
#include "kernels/plan.h"

typedef struct hr_plain_plan {
    hr_arena *arena; /* owns all that plan and schema point to, but for the tensors */
    uint32_t *words; /* the file; the tensors lie in it; owned */
    hr_schema schema;
    hr_plan plan;
} hr_plain_plan;

/* Errors: IO, INVALID_ARGUMENT (not such a file), OUT_OF_MEMORY. */
hr_status hr_plain_plan_read(const char *path, hr_plain_plan **plan, hr_error *err);
void hr_plain_plan_destroy(hr_plain_plan *plan); /* NULL is allowed */

#endif
