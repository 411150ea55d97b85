/* A network as launches over the buffers of one batch: the host's side of the GPU engine, without a CUDA
 * call.
 *
 * hr_cuda_plan_create walks the plan once. Everything a row goes through becomes a step: a product, a feature
 * gate, a layer norm, a mix, a tower. A step's level is one past that of what it reads; steps of one kind and
 * level are one launch. So a layer of HoME is four or five launches however many units and experts it has,
 * and what does not depend on each other runs side by side. Weights are packed beside each other, as operands
 * (bf16 or f32), rows padded to HR_CUDA_PAD.
 *
 * v has two parts: the columns of the user and the context, and the items'. In f32 the first has a row a
 * slice, in bf16 a row for every row of the batch. A product that reads v reads each part where it lies:
 * nothing is copied to concatenate.
 *
 * Immutable once created and placed; any thread may read it.
 */
#ifndef HOMERANK_KERNELS_CUDA_CUDA_PLAN_H
#define HOMERANK_KERNELS_CUDA_CUDA_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/descriptors.h"
#include "kernels/plan.h"

enum { HR_CUDA_NONE = UINT32_MAX, HR_CUDA_BUCKETS = 7, HR_CUDA_MIN_BUCKET = 128 };

/* Tile sizes of products, rows by columns: see hr_cuda_stage_tile. */
typedef enum hr_cuda_tile_size {
    HR_CUDA_TILE_64,  /* 64 x 64 */
    HR_CUDA_TILE_128, /* 128 x 128 */
    HR_CUDA_TILE_256, /* 128 x 256: sm_90's */
    HR_CUDA_TILE_SIZES
} hr_cuda_tile_size;

static inline uint32_t hr_cuda_tile_columns(hr_cuda_tile_size size) {
    return size == HR_CUDA_TILE_64 ? 64 : size == HR_CUDA_TILE_128 ? 128 : 256;
}

/* (rows, width) elements; written at level `first`, complete after level `ready`, read last at `last`. */
typedef struct hr_cuda_buffer {
    uint32_t width; /* padded */
    bool is_bf16;   /* and then in panels: descriptors.h */
    uint32_t first, ready, last;
    size_t offset; /* in a worker's memory; buffers that do not live at the same time may overlap */
} hr_cuda_buffer;

/* Columns of v, or a unit's output: in f32, as operands, or both; HR_CUDA_NONE where nobody reads it so. */
typedef struct hr_cuda_value {
    uint32_t width, level;
    uint32_t f32, operand; /* buffers; one and the same where operands are f32 */
    uint32_t low;          /* what bf16 operands lack, to some 2^-17; for feature gates */
} hr_cuda_value;

/* As hr_cuda_part, of a buffer's columns from `column` on. */
typedef struct hr_cuda_plan_part {
    uint32_t buffer, column, end;
    bool shared;
} hr_cuda_plan_part;

/* As hr_cuda_product. */
typedef struct hr_cuda_plan_product {
    uint32_t first_part;
    size_t weight, bias; /* offsets in the weights; bias: or SIZE_MAX */
    uint32_t k, n, activation;
    uint32_t y, y_column; /* buffer, and where the product's columns start */
    uint32_t loras, logits, logits_at;
    uint32_t first_gated, first_low; /* first_low: or HR_CUDA_NONE */
} hr_cuda_plan_product;

typedef struct hr_cuda_plan_norm {
    uint32_t x, y, column, width; /* buffers of equal widths */
    size_t weight, bias;
} hr_cuda_plan_norm;

typedef struct hr_cuda_plan_term {
    uint32_t buffer, column;
} hr_cuda_plan_term;

typedef struct hr_cuda_plan_mix {
    uint32_t first_term, n_terms, n_mixed, n_self, self_first;
    uint32_t logits, gate_at, self_at; /* logits: buffer or HR_CUDA_NONE */
    uint32_t value;
    bool in_tower; /* no step of its own: the one tower that reads it computes it */
} hr_cuda_plan_mix;

typedef struct hr_cuda_plan_tower_layer {
    size_t parts[HR_CUDA_PARTS]; /* a hidden layer's */
    size_t weight, bias;         /* weight: the last layer's */
    uint32_t k, n;
} hr_cuda_plan_tower_layer;

typedef struct hr_cuda_plan_tower {
    uint32_t mix; /* computed by the tower; HR_CUDA_NONE: */
    uint32_t x;   /* buffer */
    uint32_t first_layer, n_layers;
    uint32_t hidden[2]; /* buffers, in turn, for hidden layers that another follows; or HR_CUDA_NONE */
    uint32_t task;
} hr_cuda_plan_tower;

/* As hr_cuda_tile. */
typedef struct hr_cuda_plan_tile {
    uint32_t product, column, panels, branches;
    size_t bias; /* the product's: offset in the weights, or SIZE_MAX */
} hr_cuda_plan_tile;

/* index: into the products, norms, mixes or towers. */
typedef struct hr_cuda_step {
    hr_cuda_kind kind;
    uint32_t level, index;
} hr_cuda_step;

/* Steps [first, first + count), of one kind and level. */
typedef struct hr_cuda_stage {
    hr_cuda_kind kind;
    uint32_t first, count;
    uint32_t first_tile[HR_CUDA_TILE_SIZES], n_tiles[HR_CUDA_TILE_SIZES]; /* products and feature gates */
} hr_cuda_stage;

typedef struct hr_cuda_plan {
    const hr_plan *plan; /* borrowed */
    bool is_bf16;        /* operands */
    uint32_t shared_width, item_width;
    uint32_t *columns; /* (n_features) of each feature in its part of v */
    uint8_t *weights;  /* staged: freed by hr_cuda_plan_forget_weights once they are on the devices */
    size_t weights_nbytes, weights_room;
    hr_cuda_value *values; /* the slices' part of v, the items' part, then units' outputs */
    hr_cuda_buffer *buffers;
    hr_cuda_plan_part *parts;
    hr_cuda_plan_product *products;
    hr_cuda_plan_norm *norms;
    hr_cuda_plan_term *terms;
    hr_cuda_plan_mix *mixes;
    hr_cuda_plan_tower *towers;
    hr_cuda_plan_tower_layer *tower_layers;
    hr_cuda_step *steps; /* by level and kind */
    hr_cuda_stage *stages;
    hr_cuda_plan_tile *tiles; /* of all stages; `product` counts from the stage's first */
    uint32_t n_values, n_buffers, n_parts, n_products, n_norms, n_terms, n_mixes, n_towers, n_tower_layers;
    uint32_t n_steps, n_stages, n_tiles;
    uint32_t buckets[HR_CUDA_BUCKETS], n_buckets; /* rows, ascending */
    size_t buffers_nbytes;                        /* of a worker, for the largest bucket */
    uint64_t n_weights, n_padded;                 /* elements of all products: the plan's, and as packed */
} hr_cuda_plan;

enum { HR_CUDA_VALUE_SHARED, HR_CUDA_VALUE_ITEMS };

/* Errors: OUT_OF_MEMORY; INVALID_ARGUMENT where padding would make very much of narrow layers. */
hr_status hr_cuda_plan_create(const hr_plan *plan, hr_precision precision, hr_cuda_plan **result,
                              hr_error *err);
void hr_cuda_plan_destroy(hr_cuda_plan *plan); /* NULL is allowed */
void hr_cuda_plan_forget_weights(hr_cuda_plan *plan);

/* Of a buffer, for batches of `rows` rows. */
size_t hr_cuda_buffer_nbytes(const hr_cuda_buffer *buffer, uint32_t rows);

/* The index of the smallest bucket that holds n_rows; the largest where none does. */
uint32_t hr_cuda_plan_bucket(const hr_cuda_plan *plan, uint64_t n_rows);

/* What decides how a stage is launched. */
typedef struct hr_cuda_device_kind {
    uint32_t n_sms;
    bool hopper; /* compute capability 9.0 */
} hr_cuda_device_kind;

/* How many bf16 matrices a tower's weights are split into. */
uint32_t hr_cuda_plan_parts(const hr_cuda_plan *plan);

/* The elements from panel to panel of a bf16 buffer. */
uint32_t hr_cuda_plan_panel(const hr_cuda_plan *plan);

/* The tile size for a stage at a bucket's rows: the largest that keeps most of the multiprocessors busy. All
 * give the same bits: a row's sums run over the same columns in the same order. */
hr_cuda_tile_size hr_cuda_stage_tile(const hr_cuda_stage *stage, uint32_t rows, hr_cuda_device_kind device);

#endif
