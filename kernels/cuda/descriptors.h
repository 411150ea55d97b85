/* What a launch is told: plain structs that the host writes once, when a worker is made, and kernels read
 * from device memory. Shared by C and CUDA; every pointer in here is a device's.
 *
 * Letters: M rows of a batch, S its slices, L LoRA branches, T tasks. Every matrix has room for a multiple of
 * HR_CUDA_ROWS rows, starts at 256 bytes, and its rows are padded to a multiple of HR_CUDA_PAD elements that
 * hold zeros, so that products need no bounds on what they read. Rows past M hold what an earlier batch left
 * there: nothing of them reaches a row below M.
 *
 * f32 matrices lie row by row, ld elements from one to the next. bf16 matrices, activations and weights, lie
 * in panels of HR_CUDA_PAD columns, ld elements from one to the next: see hr_cuda_panel_at. So any tile's
 * stage is one run of memory, already as shared memory wants it.
 */
#ifndef HOMERANK_KERNELS_CUDA_DESCRIPTORS_H
#define HOMERANK_KERNELS_CUDA_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define HR_CUDA_BOTH __host__ __device__ inline
#else
#define HR_CUDA_BOTH static inline
#endif

enum {
    HR_CUDA_PAD = 64, /* elements; a panel's columns and the depth of a product's stage: 128 bytes of bf16 */
    HR_CUDA_ROWS = 128,   /* rows of the largest tile */
    HR_CUDA_WIDEST = 256, /* columns of the widest tile */
    HR_CUDA_PARTS = 3,    /* bf16 numbers that sum to one of f32 */
    HR_CUDA_HEADER_WORDS = 16
};

HR_CUDA_BOTH uint32_t hr_cuda_padded(uint32_t width) {
    return (width + HR_CUDA_PAD - 1) / HR_CUDA_PAD * HR_CUDA_PAD;
}

/* Whether a device of this compute capability has sm_90a's instructions. */
HR_CUDA_BOTH bool hr_cuda_is_hopper(int major, int minor) {
    return major == 9 && minor == 0;
}

/* Where element (row, column) of a bf16 matrix lies. A row of a panel is eight chunks of 16 bytes, swizzled
 * by the row: the pattern that PTX calls the 128-byte swizzle, by which neither ldmatrix nor wgmma meets a
 * bank conflict. */
HR_CUDA_BOTH size_t hr_cuda_panel_at(uint32_t ld, uint32_t row, uint32_t column) {
    return (size_t)(column / HR_CUDA_PAD) * ld + (size_t)row * HR_CUDA_PAD + (column / 8 ^ row) % 8 * 8 +
           column % 8;
}

/* The front of what is copied in for a batch; all offsets in words from its start. slice_of (M words, and
 * zeros up to a multiple of HR_CUDA_ROWS) follows at once; the encoded rows of schema.h lie behind it. */
typedef struct hr_cuda_header {
    uint32_t n_rows, n_slices;
    uint32_t users;    /* (S, user words) */
    uint32_t contexts; /* (S, context words) */
    uint32_t items;    /* (M, item words) */
    uint32_t starts;   /* (S + 1) each slice's first row, then M */
    uint32_t reserved[HR_CUDA_HEADER_WORDS - 6];
} hr_cuda_header;

enum { HR_CUDA_USER = 0 /* hr_entity's number */ };

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
    uint32_t ld_bf16;
    float *y;             /* (S or M, width), f32 operands; or NULL */
    uint16_t *high, *low; /* (M, width), bf16 operands and what they lack: a slice's columns for each of its
                             rows; or NULL */
} hr_cuda_gather_part;

typedef struct hr_cuda_gather {
    const uint32_t *staging; /* hr_cuda_header and what follows */
    const hr_cuda_feature *features;
    uint32_t user_words, context_words, item_words;
    hr_cuda_gather_part shared, items;
} hr_cuda_gather;

/* One part of a product's operand: columns [the part before's end, end) of the concatenation. */
typedef struct hr_cuda_part {
    const void *x;   /* (M or S, .) */
    uint32_t ld;     /* elements from row to row (f32) or panel to panel (bf16) */
    uint32_t end;    /* a multiple of HR_CUDA_PAD */
    uint32_t shared; /* rows are the slices', found by slice_of; f32 alone */
} hr_cuda_part;

enum { HR_CUDA_LINEAR, HR_CUDA_RELU, HR_CUDA_SWISH };

/* y = act(x W^T + b); or, where loras > 0, MODEL.md 2.3: y = gated * sum_l softmax(logits)_l 2 sigmoid(x_l
 * W_l^T), the branches side by side in x's and W's columns, k / loras each. */
typedef struct hr_cuda_product {
    const hr_cuda_part *x; /* the last part's end is k */
    const void *weight;    /* operands: (n, k) in f32, (n_padded, k) with zeros from n on in bf16 */
    const float *bias;     /* (n padded to HR_CUDA_WIDEST) with zeros from n on, or NULL */
    void *y;               /* (M, .); this product writes columns [0, n_padded) of it, zeros from n on */
    uint32_t k, n, n_padded, ld_y;
    uint32_t activation;
    uint32_t y_is_bf16;
    uint32_t loras;
    uint32_t ld_logits;
    const float *logits;           /* (M, ld_logits), L of them at the front of each row */
    const hr_cuda_part *gated;     /* operands; the last part's end is n */
    const hr_cuda_part *gated_low; /* bf16: what they lack of f32, in parts as those; else NULL */
    const void *reserved;          /* a multiple of 16 bytes in all */
} hr_cuda_product;

/* One column tile of one product of a launch. */
typedef struct hr_cuda_tile {
    uint32_t product, column;
    uint32_t panels;      /* of K */
    uint32_t branches;    /* of a feature gate; else 1 */
    const float *bias;    /* from the tile's column on, zeros past n; NULL: none */
    const void *reserved; /* a multiple of 16 bytes in all */
} hr_cuda_tile;

/* MODEL.md 2.4: layer norm over `width`, then the activation. */
typedef struct hr_cuda_norm {
    const float *x;             /* (M, ld) */
    const float *weight, *bias; /* (width) */
    void *y;                    /* (M, .), zeros from width on */
    uint32_t width, ld, ld_y, activation, y_is_bf16;
    float eps;
} hr_cuda_norm;

/* One expert's outputs in a mix. */
typedef struct hr_cuda_term {
    const void *expert; /* (M, .) operands */
    uint32_t ld;
} hr_cuda_term;

/* MODEL.md 2.5 and 2.6: the first n_mixed terms are weighted by a softmax (by 1 where there is one), n_self
 * terms from self_first on by another (by sigma where there is one). The unit's own experts are most often
 * among those it mixes, and then one term with two weights. */
typedef struct hr_cuda_mix {
    const hr_cuda_term *terms; /* (n_terms) */
    const float *logits;       /* (M, ld_logits); NULL where nothing is gated */
    uint32_t ld_logits, gate_at, self_at;
    uint32_t n_terms, n_mixed, n_self, self_first;
    uint32_t padded; /* columns of the output: experts have zeros from their width on */
    uint32_t ld_bf16;
    float *y;             /* (M, padded), or NULL */
    uint16_t *high, *low; /* (M, padded) as bf16 operands, and what those lack; or NULL */
} hr_cuda_mix;

/* One layer of a tower; the last one has n = 1. A hidden layer's weights are the sum of bf16 matrices: of
 * two, within 2^-17, where operands are bf16, else of three. */
typedef struct hr_cuda_tower_layer {
    const uint16_t *parts[HR_CUDA_PARTS]; /* (n padded, k), zeros from n on: a hidden layer's */
    const float *weight;                  /* (k): the last layer's; else NULL */
    const float *bias;                    /* (n) */
    uint32_t k, n;                        /* k padded */
} hr_cuda_tower_layer;

/* A task's tower. */
typedef struct hr_cuda_tower {
    hr_cuda_mix mix; /* whose output is the tower's input; without terms: */
    const float *x;  /* (M, ld) */
    uint32_t ld;
    uint32_t n_layers, activation;
    uint32_t ld_hidden;
    const hr_cuda_tower_layer *layers;
    float *hidden[2]; /* (M, ld_hidden) each, in turn: of all hidden layers but the last */
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
    uint32_t f32;              /* operands are f32 (else bf16) */
    uint32_t hopper;           /* for a device of compute capability 9.0 */
    uint32_t follows;          /* another launch of the same batch comes before it */
    uint32_t tile_n;           /* products: a tile's columns */
    uint32_t n_sms;            /* the device's */
    uint32_t m;                /* rows of the bucket, a multiple of HR_CUDA_ROWS */
    uint32_t count;            /* descriptors; products: tiles; gather: panels of both parts */
    uint32_t panels;           /* mixes: of the widest */
    const void *items;         /* (count) descriptors on the device; products: the launch's products */
    const hr_cuda_tile *tiles; /* products: (count) */
    const uint32_t *staging;   /* hr_cuda_header and slice_of */
} hr_cuda_launch;

#endif
