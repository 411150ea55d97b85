/* Inside cuda_plan.c and builder.c: a plan being built.
 *
 * Appending may fail quietly: `oom` is looked at once, at the end, and everything appended after that is
 * void.
 */
#ifndef HOMERANK_KERNELS_CUDA_BUILDER_H
#define HOMERANK_KERNELS_CUDA_BUILDER_H

#include "kernels/cuda/cuda_plan.h"

typedef struct hr_cuda_builder {
    const hr_plan *plan;
    hr_cuda_plan *out;
    bool oom;
    bool narrow; /* with oom: padding makes too much of the weights */
} hr_cuda_builder;

/* Room for one more element of `size` bytes past the *n of *array, zeroed. NULL when out of memory. */
void *hr__cuda_append(hr_cuda_builder *b, void *array, uint32_t *n, size_t size);

uint32_t hr__cuda_add_buffer(hr_cuda_builder *b, uint32_t width, bool is_bf16);

/* What a step at `level` does with a buffer. */
void hr__cuda_writes(hr_cuda_builder *b, uint32_t buffer, uint32_t level);
void hr__cuda_reads(hr_cuda_builder *b, uint32_t buffer, uint32_t level);

/* The level after which the buffer is complete. */
uint32_t hr__cuda_ready(const hr_cuda_builder *b, uint32_t buffer);

/* A value's buffer, made on first use. */
uint32_t hr__cuda_value_f32(hr_cuda_builder *b, uint32_t value);
uint32_t hr__cuda_value_operand(hr_cuda_builder *b, uint32_t value);
uint32_t hr__cuda_value_low(hr_cuda_builder *b, uint32_t value); /* where operands are bf16 */

void hr__cuda_add_part(hr_cuda_builder *b, uint32_t buffer, uint32_t column, uint32_t end, bool shared);
void hr__cuda_add_step(hr_cuda_builder *b, hr_cuda_kind kind, uint32_t level, uint32_t index);

/* A product of n columns over k padded ones, with a matrix of zeros and, where asked, a bias of zeros. */
hr_cuda_plan_product *hr__cuda_add_product(hr_cuda_builder *b, uint32_t k, uint32_t n, bool bias);

/* Row `row` of a product's matrix: weight[c] at column columns[c] (at `from` + c where columns is NULL). */
void hr__cuda_put_row(hr_cuda_builder *b, const hr_cuda_plan_product *p, uint32_t row, const float *weight,
                      const uint32_t *columns, uint32_t from, uint32_t width);
void hr__cuda_put_bias(hr_cuda_builder *b, const hr_cuda_plan_product *p, uint32_t row, const float *bias,
                       uint32_t n);

/* count rows of f32 of `width` values, each padded to `padded`. Returns their offset in the weights. */
size_t hr__cuda_add_floats(hr_cuda_builder *b, const float *values, uint32_t count, uint32_t width,
                           uint32_t padded);

/* A matrix (n, width) as the sum of bf16 ones, (n, k) padded: their offsets in the weights. */
void hr__cuda_add_parts(hr_cuda_builder *b, const float *values, uint32_t n, uint32_t width, uint32_t k,
                        size_t *parts);

/* Sorts the steps, makes stages, tiles and buckets, and finds every buffer its place. */
void hr__cuda_finish(hr_cuda_builder *b);

#endif
