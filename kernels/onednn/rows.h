/* Everything of a forward pass that is not a matrix product, as kernels over the rows of a block.
 *
 * One implementation, compiled for several instruction sets; hr_rows_select takes the widest this CPU runs.
 * Every matrix here starts at a 64-byte boundary and its rows are padded to a multiple of HR_PAD elements,
 * so no kernel has a tail. A row's results depend on that row alone, bit for bit: every row takes the same
 * instructions whatever its place in the block.
 *
 * Letters: M rows of a block, L LoRA branches. ld_* are row strides in elements. Any thread.
 */
#ifndef HOMERANK_KERNELS_ONEDNN_ROWS_H
#define HOMERANK_KERNELS_ONEDNN_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/plan.h"

enum { HR_PAD = 16 }; /* elements: 64 bytes of f32 */

static inline uint32_t hr_padded(uint32_t width) {
    return (width + HR_PAD - 1) / HR_PAD * HR_PAD;
}

/* How the operands of matrix products are kept. */
typedef enum hr_operand { HR_OPERAND_F32, HR_OPERAND_BF16 } hr_operand;

static inline size_t hr_operand_nbytes(hr_operand operand) {
    return operand == HR_OPERAND_BF16 ? 2 : 4;
}

/* A group of a row's gate logits that becomes weights: softmax, or the logistic function where sigmoid. */
typedef struct hr_gate_segment {
    uint32_t offset, count;
    bool sigmoid;
} hr_gate_segment;

/* One summand of a mix: an expert's output, weighted by a gate weight of the row, or by 1. */
typedef struct hr_mix_term {
    const float *expert; /* (M, width) */
    int64_t gate;        /* offset in the row's gate weights; negative: the weight is 1 */
} hr_mix_term;

/* MODEL.md 2.3 for some columns of x: y = x * sum_l p_l * 2 sigmoid(up_l). */
typedef struct hr_feature_gate_args {
    const float *x; /* (M, ld_x) */
    size_t ld_x;
    const float *up; /* (L, room for M, n_cols) */
    size_t branch;   /* elements of up from one branch to the next */
    const float *p;  /* (M, ld_p), L weights at the front of each row */
    size_t ld_p;
    uint32_t loras, n_cols, n_rows;
    void *y; /* (M, ld_y) operands */
    size_t ld_y;
} hr_feature_gate_args;

/* MODEL.md 2.4: layer norm over the first `width` columns, then the activation. */
typedef struct hr_norm_args {
    const float *x; /* (M, padded width) */
    uint32_t width, n_rows;
    const float *weight, *bias; /* (padded width), zeros at the end */
    float eps;
    hr_activation activation;
    void *y; /* (M, padded width) operands */
} hr_norm_args;

typedef enum hr_gemm_activation { HR_GEMM_LINEAR, HR_GEMM_RELU, HR_GEMM_SWISH } hr_gemm_activation;

/* What a matrix product leaves to do: y = act(x + the slice's share). x and y may be the same memory where y
 * is f32 or rounded. */
typedef struct hr_finish_args {
    const float *x;           /* (M, width) */
    const float *shared;      /* (slices, width), or NULL */
    const uint32_t *slice_of; /* (M) row of shared */
    hr_gemm_activation activation;
    uint32_t width, n_rows;
    void *y; /* (M, width) operands */
} hr_finish_args;

/* A matrix product in f32, y = act(x W^T + b), of any number of rows. W lies in panels of HR_PANEL_WIDTH
 * columns of y, the last may have fewer: (k, width) each, side by side. Every element's sum begins with its
 * bias and runs over k in order, whatever M. */
typedef struct hr_multiply_args {
    const float *x;      /* (M, k) */
    const float *panels; /* W, as hr_panels_pack leaves it */
    const float *next;   /* the panels that the next product reads: their first are fetched meanwhile */
    const float *bias;   /* (n) */
    hr_gemm_activation activation;
    uint32_t k, n, n_rows; /* k and n padded */
    float *y;              /* (M, n) */
} hr_multiply_args;

enum { HR_PANEL_WIDTH = 32 };

typedef struct hr_rows_i {
    const char *isa;

    /* y = x as operands; x and y may be the same memory where y is f32 or rounded. */
    void (*store)(hr_operand operand, const float *x, size_t ld_x, void *y, size_t ld_y, uint32_t n_cols,
                  uint32_t n_rows);

    void (*finish)(hr_operand operand, const hr_finish_args *args);

    /* MODEL.md 2.3, 2.5, 2.6: logits to weights, in place, segment by segment. */
    void (*gates)(float *logits, size_t ld, const hr_gate_segment *segments, uint32_t n_segments,
                  uint32_t n_rows);

    void (*feature_gate)(hr_operand operand, const hr_feature_gate_args *args);
    void (*norm)(hr_operand operand, const hr_norm_args *args);

    /* MODEL.md 2.5 and 2.6: y (M, width) = sum over terms of weight * expert. */
    void (*mix)(const hr_mix_term *terms, uint32_t n_terms, const float *gates, size_t ld_gates, float *y,
                uint32_t width, uint32_t n_rows);

    /* The towers' last layer: y[r * ld_y] = x_r . weight + bias; x is (M, width), width padded. */
    void (*logit)(const float *x, const float *weight, float bias, float *y, size_t ld_y, uint32_t width,
                  uint32_t n_rows);

    /* (optional) Faster than oneDNN's products, whose weights come from memory when they are asked for. */
    void (*multiply)(const hr_multiply_args *args);
} hr_rows_i;

const hr_rows_i *hr_rows_select(void);

/* panels (n * k) = weight (n, k), n and k padded, as `multiply` reads it. */
void hr_panels_pack(const float *weight, uint32_t n, uint32_t k, float *panels);

/* bf16's value nearest to x (ties to even), as the checks need it. */
float hr_bf16_round(float x);

#endif
