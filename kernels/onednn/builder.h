/* Inside program.c and builder.c: a program being built.
 *
 * Appending may fail quietly: `oom` is looked at once, at the end, and everything appended after that is
 * void.
 */
#ifndef HOMERANK_KERNELS_ONEDNN_BUILDER_H
#define HOMERANK_KERNELS_ONEDNN_BUILDER_H

#include "kernels/onednn/program.h"

/* Columns [from, from + width) of a weight matrix of the plan stand at column `to` of the packed one. */
typedef struct hr_piece {
    uint32_t from, width, to;
} hr_piece;

typedef struct hr_pieces {
    hr_piece *items; /* owned */
    uint32_t count;
    uint32_t width; /* of the packed columns, padded */
} hr_pieces;

/* What products read: a buffer and how its columns map to the plan's. Where it is v alone, and v has two
 * parts, the products are split: all is then used only by who needs v whole. */
typedef struct hr_reading {
    hr_pieces all;
    uint32_t operand; /* buffer, or HR_NONE where split */
    bool split;
    hr_pieces item, shared; /* columns of v's parts, where split */
} hr_reading;

typedef struct hr_builder {
    const hr_plan *plan;
    hr_program *program;
    bool oom;
    bool narrow;                            /* with oom: padding makes too much of the weights */
    uint64_t n_weights, n_padded;           /* of all products: the plan's, and as packed */
    uint32_t items_operand, shared_operand; /* buffers of v's parts as operands, or HR_NONE */
    hr_step spare;                          /* what a failed append returns */
} hr_builder;

/* A product being written down: its weights come row by row. */
typedef struct hr_product {
    const hr_reading *reads;
    uint32_t n;      /* columns of y, padded */
    uint32_t matrix; /* of the rows' part, or of all */
    uint32_t shared; /* matrix of the slices' part, where split */
    hr_gemm_activation activation;
    hr_operand kind; /* of y */
} hr_product;

/* Room for one more element of `size` bytes past the *n of *array, zeroed. NULL when out of memory. */
void *hr__append(hr_builder *b, void *array, uint32_t *n, size_t size);

uint32_t hr__add_buffer(hr_builder *b, uint32_t width, uint32_t parts, hr_operand kind);

/* A buffer that is filled before the first step; made on first use. */
uint32_t hr__gathered_buffer(hr_builder *b, uint32_t *buffer, uint32_t width);

/* The step added last uses the buffer (HR_NONE: nothing). */
void hr__touch(hr_builder *b, uint32_t buffer);
hr_step *hr__add_step(hr_builder *b, hr_step_kind kind, uint32_t x, uint32_t y);

/* count floats from values, zeros up to the padded count; owned by the program. */
const float *hr__add_vector(hr_builder *b, const float *values, uint32_t count);

void hr__add_piece(hr_builder *b, hr_pieces *pieces, uint32_t from, uint32_t width, uint32_t to);
void hr__reading_clear(hr_reading *reading);

hr_product hr__product_begin(hr_builder *b, const hr_reading *reads, uint32_t n,
                             hr_gemm_activation activation, hr_operand kind);

/* weight (count, k of the plan) and bias (count, or NULL) as the product's rows from `to` on. */
void hr__product_rows(hr_builder *b, const hr_product *product, uint32_t to, uint32_t k, const float *weight,
                      const float *bias, uint32_t count);

/* The steps of y = act(x W^T + b). Returns y's buffer. */
uint32_t hr__product_end(hr_builder *b, const hr_product *product);

/* y[part] = x W^T, x being a buffer of operands of width k, for weights in one piece: rows come by
 * hr__plain_row. */
uint32_t hr__add_plain_product(hr_builder *b, uint32_t x, uint32_t y, uint32_t part, uint32_t k, uint32_t n);
void hr__plain_row(hr_builder *b, uint32_t matrix, uint32_t to, uint32_t k, const float *weight);

#endif
