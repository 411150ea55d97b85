/* Random networks and batches for the tests of backends: every kind of network that MODEL.md 2 names, with
 * odd widths, made in memory from a seed. Same kind and seed, same plan, on any machine.
 * A failed allocation ends the test program (assert). */
#ifndef HOMERANK_TESTS_KERNELS_RANDOM_PLAN_H
#define HOMERANK_TESTS_KERNELS_RANDOM_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "kernels/plan.h"
#include "schema/slice.h"

typedef enum hr_random_kind {
    HR_RANDOM_HOME_1, /* HoME with one layer of units: groups and tasks read v */
    HR_RANDOM_HOME_2, /* meta and task layers */
    HR_RANDOM_HOME_3, /* two layers of groups, then tasks */
    HR_RANDOM_MMOE,
    HR_RANDOM_CGC, /* one extraction layer */
    HR_RANDOM_PLE, /* two */
    HR_RANDOM_SHARED_BOTTOM,
    HR_RANDOM_WIDE, /* MMoE of a dozen experts of some 200 columns */
    HR_RANDOM_KIND_COUNT
} hr_random_kind;

const char *hr_random_kind_name(hr_random_kind kind);

/* splitmix64; uniform integers in [low, high] and doubles in [-1, 1). */
typedef struct hr_random {
    uint64_t state;
} hr_random;
uint64_t hr_random_next(hr_random *random);
uint32_t hr_random_between(hr_random *random, uint32_t low, uint32_t high);
double hr_random_signed(hr_random *random);

typedef struct hr_random_plan {
    hr_arena *arena; /* owns all that plan and schema point to */
    hr_schema schema;
    hr_plan plan; /* norm, activations, depths and widths vary with the seed */
} hr_random_plan;

/* Experts have 1 to 3 hidden layers; seeds 0, 1, 2, ... alternate norm (none, layer), activation and gates.
 */
hr_random_plan *hr_random_plan_create(hr_random_kind kind, uint64_t seed);
void hr_random_plan_destroy(hr_random_plan *random_plan);

/* Encoded rows with valid random contents, as slices of n_rows[s] items each, one user and context a slice.
 */
typedef struct hr_random_batch {
    hr_arena *arena;
    hr_slice *slices; /* (n_slices); logits point into `logits` */
    size_t n_slices;
    float *logits;   /* (n_rows, T), filled with NaN, between two guard words */
    size_t n_rows;   /* of all slices */
    size_t n_logits; /* n_rows * T */
} hr_random_batch;

hr_random_batch *hr_random_batch_create(const hr_plan *plan, const uint32_t *n_rows, size_t n_slices,
                                        uint64_t seed);
void hr_random_batch_destroy(hr_random_batch *batch);

/* Nothing was written before or after the logits. */
bool hr_random_batch_guards_intact(const hr_random_batch *batch);

#endif
