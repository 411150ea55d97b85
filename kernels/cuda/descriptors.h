/* What a launch is told: plain structs that the host writes once, when a worker is made, and kernels read
 * from device memory. Shared by C and CUDA; every pointer in here is a device's.
 *
 * Letters: M rows of a batch, S its slices, L LoRA branches, T tasks. ld_* are row strides in elements. Every
 * matrix has room for a multiple of HR_CUDA_ROWS rows, starts at 256 bytes, and its rows are padded to a
 * multiple of HR_CUDA_PAD elements that hold zeros, so that products need no bounds on what they read. Rows
 * past M hold what an earlier batch left there: nothing of them reaches a row below M.
 */
#ifndef HOMERANK_KERNELS_CUDA_DESCRIPTORS_H
#define HOMERANK_KERNELS_CUDA_DESCRIPTORS_H

#include <stdint.h>

enum {
    HR_CUDA_PAD = 64,   /* elements; the depth of a product's tile: 128 bytes of bf16 */
    HR_CUDA_ROWS = 128, /* rows of the largest tile */
    HR_CUDA_HEADER_WORDS = 16
};

/* The front of what is copied in for a batch; all offsets in words from its start. slice_of (M words, and
 * zeros up to a multiple of HR_CUDA_ROWS) follows at once; the encoded rows of schema.h lie behind it. */
typedef struct hr_cuda_header {
    uint32_t n_rows, n_slices;
    uint32_t users;    /* (S, user words) */
    uint32_t contexts; /* (S, context words) */
    uint32_t items;    /* (M, item words) */
    uint32_t reserved[HR_CUDA_HEADER_WORDS - 5];
} hr_cuda_header;

/* One feature's columns of v (MODEL.md 3). */
typedef struct hr_cuda_feature {
    const float *table; /* (rows, width); NULL: dense values */
    uint32_t entity;    /* hr_entity */
    uint32_t word;      /* of the encoded row: the table row, the list's count, or the first dense value */
    uint32_t is_list, is_mean;
    uint32_t width;
    uint32_t column; /* in its part of v */
} hr_cuda_feature;

/* One part of v: the slices' (user and context) or the items'. */
typedef struct hr_cuda_gather_part {
    const uint32_t *feature_of; /* (width) index of a column's feature; padding: UINT32_MAX */
    uint32_t width;             /* padded; 0: the part is empty */
    float *y;                   /* (rows, width) */
    uint16_t *y_bf16;           /* (rows, width), or NULL */
} hr_cuda_gather_part;

typedef struct hr_cuda_gather {
    const uint32_t *staging; /* hr_cuda_header and what follows */
    const hr_cuda_feature *features;
    uint32_t user_words, context_words, item_words;
    hr_cuda_gather_part shared, items;
} hr_cuda_gather;

/* One part of a product's operand: columns [the part before's end, end) of the concatenation. */
typedef struct hr_cuda_part {
    const void *x;   /* (M or S, ld) */
    uint32_t ld;     /* elements */
    uint32_t end;    /* operands: a multiple of HR_CUDA_PAD; a feature gate's x: the real columns */
    uint32_t shared; /* rows are the slices', found by slice_of */
} hr_cuda_part;

enum { HR_CUDA_LINEAR, HR_CUDA_RELU, HR_CUDA_SWISH };

/* y = act(x W^T + b); or, where loras > 0, MODEL.md 2.3: y = gated * sum_l softmax(logits)_l 2 sigmoid(x_l
 * W_l^T), the branches side by side in x's and W's columns, k / loras each. */
typedef struct hr_cuda_product {
    const hr_cuda_part *x; /* the last part's end is k */
    const void *weight;    /* (n, k) operands */
    const float *bias;     /* (n), or NULL */
    void *y;               /* (M, ld_y); this product writes columns [0, n_padded) of it, zeros from n on */
    uint32_t k, n, n_padded, ld_y;
    uint32_t activation;
    uint32_t y_is_bf16;
    uint32_t loras;
    uint32_t ld_logits;
    const float *logits;       /* (M, ld_logits), L of them at the front of each row */
    const hr_cuda_part *gated; /* f32; the last part's end is n */
} hr_cuda_product;

/* One column tile of one product of a launch. */
typedef struct hr_cuda_tile {
    uint32_t product, column;
} hr_cuda_tile;

/* MODEL.md 2.4: layer norm over `width`, then the activation. */
typedef struct hr_cuda_norm {
    const float *x;             /* (M, ld) */
    const float *weight, *bias; /* (width) */
    void *y;                    /* (M, ld), zeros from width on */
    uint32_t width, ld, activation, y_is_bf16;
    float eps;
} hr_cuda_norm;

/* One expert's outputs in a mix. */
typedef struct hr_cuda_term {
    const float *expert; /* (M, ld) */
    uint32_t ld;
} hr_cuda_term;

/* MODEL.md 2.5 and 2.6: n_mixed terms weighted by a softmax (by 1 where there is one), then n_self terms by
 * another (by sigma where there is one). */
typedef struct hr_cuda_mix {
    const hr_cuda_term *terms;
    const float *logits; /* (M, ld_logits); NULL where nothing is gated */
    uint32_t ld_logits, gate_at, self_at;
    uint32_t n_mixed, n_self;
    uint32_t width, ld;
    float *y;         /* (M, ld), or NULL */
    uint16_t *y_bf16; /* (M, ld), or NULL */
} hr_cuda_mix;

/* One layer of a tower; the last one has n = 1. */
typedef struct hr_cuda_tower_layer {
    const float *weight, *bias; /* (n, k), (n) */
    uint32_t k, n;              /* k padded */
} hr_cuda_tower_layer;

/* A task's tower, in f32. */
typedef struct hr_cuda_tower {
    const float *x; /* (M, ld) */
    uint32_t ld;
    uint32_t n_layers, activation;
    uint32_t ld_hidden;
    const hr_cuda_tower_layer *layers;
    float *hidden[2]; /* (M, ld_hidden) each, in turn */
    float *logits;    /* (M, n_tasks): column 0 of this task's */
    uint32_t n_tasks;
} hr_cuda_tower;

typedef enum hr_cuda_kind {
    HR_CUDA_GATHER,
    HR_CUDA_PRODUCTS,
    HR_CUDA_FEATURE_GATES,
    HR_CUDA_NORMS,
    HR_CUDA_MIXES,
    HR_CUDA_TOWERS
} hr_cuda_kind;

/* One kernel over all of a launch's descriptors. */
typedef struct hr_cuda_launch {
    hr_cuda_kind kind;
    uint32_t f32;              /* products: operands are f32 (else bf16) */
    uint32_t tile;             /* products: rows and columns of a tile, 64 or 128 */
    uint32_t m;                /* rows of the bucket, a multiple of HR_CUDA_ROWS */
    uint32_t count;            /* descriptors; products: tiles */
    uint32_t n_blocks;         /* gather: how many blocks share the rows */
    const void *items;         /* (count) descriptors on the device; products: the launch's products */
    const hr_cuda_tile *tiles; /* products: (count) */
    const uint32_t *staging;   /* hr_cuda_header and slice_of */
} hr_cuda_launch;

#endif
