/* The network as a backend gets it: every name resolved, every tensor checked and in f32 (MODEL.md 2).
 *
 * model/ makes a plan from config.json and model.safetensors; batch norm is already folded into the expert
 * weights, so that norm is none or layer. All pointers are borrowed from the model and stay valid while it
 * lives. Letters: D width of v, E experts of a unit, L LoRA branches, T tasks. Matrices are row-major and
 * weights [out, in]: y = x W^T + b. A plan is immutable; any thread may read it.
 */
#ifndef HOMERANK_KERNELS_PLAN_H
#define HOMERANK_KERNELS_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "schema/schema.h"

typedef enum hr_activation { HR_ACTIVATION_RELU, HR_ACTIVATION_SWISH } hr_activation;
typedef enum hr_norm { HR_NORM_NONE, HR_NORM_LAYER } hr_norm;
typedef enum hr_output { HR_OUTPUT_SIGMOID, HR_OUTPUT_IDENTITY, HR_OUTPUT_SOFTPLUS, HR_OUTPUT_EXP } hr_output;

enum { HR_SOURCE_FEATURES = -1 };

/* One part of a concatenated input: v, or the output of a unit of an earlier layer. */
typedef struct hr_source {
    int32_t layer; /* HR_SOURCE_FEATURES, or an index into hr_plan.layers */
    uint32_t unit; /* index into that layer's units */
    uint32_t width;
} hr_source;

/* A concatenation of sources, in order. */
typedef struct hr_input {
    const hr_source *sources;
    uint32_t n_sources;
    uint32_t width; /* the sum of the sources' widths */
} hr_input;

/* One layer of a unit's E experts, all reading rows of width `in`. */
typedef struct hr_expert_layer {
    uint32_t in, out;
    const float *weight;      /* (E, out, in) */
    const float *bias;        /* (E, out) */
    const float *norm_weight; /* (E, out); layer norm only, else NULL */
    const float *norm_bias;   /* (E, out); layer norm only, else NULL */
} hr_expert_layer;

typedef struct hr_feature_gate {
    uint32_t loras; /* L; 0 = no feature gate */
    uint32_t rank;
    const float *down;       /* (L, rank, in) */
    const float *up;         /* (L, in, rank) */
    const float *mix_weight; /* (L, in) */
    const float *mix_bias;   /* (L) */
} hr_feature_gate;

typedef struct hr_unit {
    const char *name;
    hr_input input;                       /* x */
    hr_input gate_input;                  /* g; equal to input unless config.json says otherwise */
    uint32_t n_experts;                   /* E, maybe 0 */
    uint32_t n_expert_layers;             /* 0 where E = 0 */
    const hr_expert_layer *expert_layers; /* (n_expert_layers) */
    hr_feature_gate feature_gate;
    const uint32_t *mix;      /* (n_mix) unit indices in the same layer, in list order */
    uint32_t n_mix;           /* 0: the unit has no output, it only lends its experts */
    uint32_t n_mixed;         /* experts mixed: the sum of E over mix */
    const float *gate_weight; /* (n_mixed, gate_input.width); NULL where n_mixed = 1: the weight is 1 */
    const float *gate_bias;   /* (n_mixed) or NULL likewise */
    bool self_gate;
    const float *self_gate_weight; /* (E, gate_input.width) or NULL */
    const float *self_gate_bias;   /* (E) or NULL */
    /* Of y, the unit's output; where it has no mix, of its experts' outputs. A unit whose experts only others
     * mix may have experts of another width than its own output: see hr_unit_expert_width. */
    uint32_t width;
} hr_unit;

/* The width of one of the unit's experts' outputs; 0 where E = 0. */
static inline uint32_t hr_unit_expert_width(const hr_unit *unit) {
    return unit->n_expert_layers == 0 ? 0 : unit->expert_layers[unit->n_expert_layers - 1].out;
}

typedef struct hr_layer {
    const char *name;
    const hr_unit *units;
    uint32_t n_units;
} hr_layer;

typedef struct hr_linear {
    uint32_t in, out;
    const float *weight; /* (out, in) */
    const float *bias;   /* (out) */
} hr_linear;

typedef struct hr_task {
    const char *name;
    hr_source input;
    const hr_linear *tower; /* (n_tower); the last maps to 1, the logit, without activation */
    uint32_t n_tower;
    hr_output output;
} hr_task;

typedef struct hr_plan {
    const hr_schema *schema;
    const float *const *embeddings; /* (n_tables) of (rows, dim) */
    hr_activation activation;
    hr_activation tower_activation;
    hr_norm norm;
    double norm_eps; /* layer norm */
    const hr_layer *layers;
    uint32_t n_layers;
    const hr_task *tasks;
    uint32_t n_tasks; /* T */
    /* To compare with: whatever is linear in v is computed from all of it for every row, and not the user's
     * and the context's part once a slice. Never set by a model. */
    bool unshared;
} hr_plan;

#endif
