/* A network as a flat list of steps over the buffers of one block of rows.
 *
 * hr_program_create walks the plan once and writes down every matrix product and every row kernel in the
 * order in which a block runs them, with the weights each product needs (concatenated where they read the
 * same input: all gate logits of a layer that look at the same rows are one product). Widths are padded to
 * HR_PAD; each source of a concatenated input is padded by itself, so that concatenating is copying whole
 * vectors. Padding columns hold zeros all the way: their weights are zeros.
 *
 * Letters: M rows of a block. Immutable once placed and packed; any thread may read it.
 */
#ifndef HOMERANK_KERNELS_ONEDNN_PROGRAM_H
#define HOMERANK_KERNELS_ONEDNN_PROGRAM_H

#include "kernels/onednn/gather.h"
#include "kernels/onednn/gemm.h"
#include "kernels/onednn/rows.h"
#include "kernels/plan.h"

enum { HR_NONE = UINT32_MAX }; /* no buffer */

/* (M, width) elements, or (parts, M, width); written first by step `first` and read last by step `last`. */
typedef struct hr_buffer {
    uint32_t width, parts;
    hr_operand kind; /* of the elements */
    uint32_t first, last;
    size_t offset;        /* in a worker's memory; buffers that do not live at the same time may overlap */
    uint32_t since, next; /* while places are found: no buffer to come lives before; the next by offset */
} hr_buffer;

/* In whole cache lines, for blocks of max_rows rows. */
static inline size_t hr_buffer_nbytes(const hr_buffer *buffer, uint32_t max_rows) {
    size_t row = buffer->width * hr_operand_nbytes(buffer->kind);
    return ((size_t)max_rows * buffer->parts * row + 63) / 64 * 64;
}

/* The weights of one product. */
typedef struct hr_matrix {
    uint32_t gemm; /* index of its shape in specs */
    float *weight; /* (n, k) padded; staged until packed, then NULL */
    float *bias;   /* (n) likewise */
    hr_gemm_weights packed;
} hr_matrix;

typedef struct hr_program_term {
    uint32_t expert; /* buffer */
    int64_t gate;    /* offset in the row of gate weights; negative: the weight is 1 */
} hr_program_term;

typedef enum hr_step_kind {
    HR_STEP_STORE,        /* x into columns of y, as y's kind */
    HR_STEP_FINISH,       /* what the products left to do: y = act(x + the slice's share), as y's kind */
    HR_STEP_GEMM,         /* y = act(x W^T + b) */
    HR_STEP_GATES,        /* logits to weights in place */
    HR_STEP_FEATURE_GATE, /* columns of y from x, up and gates */
    HR_STEP_NORM,         /* layer norm and activation */
    HR_STEP_MIX,          /* y = sum of weighted experts */
    HR_STEP_LOGIT         /* a task's logit */
} hr_step_kind;

typedef struct hr_step {
    hr_step_kind kind;
    bool shared;   /* runs over the block's slices instead of its rows */
    uint32_t x, y; /* buffers */
    union {
        struct {
            uint32_t column; /* of y */
        } store;
        struct {
            uint32_t matrix, part; /* part of y */
        } gemm;
        struct {
            uint32_t gemm;   /* index of x's shape in specs: its product may apply the activation itself */
            uint32_t shared; /* buffer of the slices' shares, or HR_NONE */
            hr_gemm_activation activation;
        } finish;
        struct {
            uint32_t first, count; /* segments */
        } gates;
        struct {
            uint32_t up, gates; /* buffers */
            uint32_t gate;      /* offset of the branches' weights in gates */
            uint32_t loras, column, n_columns;
        } feature_gate;
        struct {
            uint32_t width;             /* not padded */
            const float *weight, *bias; /* padded */
        } norm;
        struct {
            uint32_t gates;        /* buffer or HR_NONE */
            uint32_t first, count; /* terms */
        } mix;
        struct {
            uint32_t task;
            const float *weight; /* padded */
            float bias;
        } logit;
    };
} hr_step;

typedef struct hr_program {
    const hr_plan *plan; /* borrowed */
    hr_operand operand;  /* what products take, but for the towers' */
    hr_vector_layout layout;
    uint32_t v, shared,
        items; /* buffers written before the first step, in f32 (gather.h); HR_NONE: nobody reads it */
    hr_buffer *buffers;
    hr_step *steps;
    hr_gemm_spec *specs;
    hr_matrix *matrices;
    hr_gate_segment *segments;
    hr_program_term *terms;
    float **vectors; /* owned: norm and last-layer weights */
    float *panels;   /* (n_panels) owned: the weights of products of our own, as they are read in turn */
    size_t n_panels;
    uint32_t n_buffers, n_steps, n_specs, n_matrices, n_segments, n_terms, n_vectors;
    uint32_t max_terms; /* of one mix */
    size_t nbytes;      /* of all buffers, once placed */
} hr_program;

/* Errors: OUT_OF_MEMORY; INVALID_ARGUMENT where padding would make very much of narrow layers. */
hr_status hr_program_create(const hr_plan *plan, hr_operand operand, hr_program **program, hr_error *err);
void hr_program_destroy(hr_program *program); /* NULL is allowed */

/* Gives every buffer its place for blocks of at most max_rows rows. */
void hr_program_place(hr_program *program, uint32_t max_rows);

/* Packs all matrices and frees their staged form. */
hr_status hr_program_pack(hr_program *program, const hr_gemm_set *set, hr_error *err);

#endif
