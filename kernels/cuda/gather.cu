/* One row of one part of v by a block of threads, a column each: see gather.h.
 *
 * The blocks walk over the slices first (their lists are the longest), then over the rows. What the batch
 * holds is read from the staged header, so that one captured launch serves every batch of its bucket.
 */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gather.h"

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kAhead = 16; /* rows of a list in flight */

/* The sum of column d over a list's rows, in the list's order. */
__device__ float pool(const hr_cuda_feature &f, const uint32_t *row, uint32_t d) {
    const uint32_t count = row[f.word];
    const uint32_t *index = row + f.word + 1;
    float sum = 0.0F;
    for (uint32_t i = 0; i < count; i += kAhead) {
        float values[kAhead];
#pragma unroll
        for (uint32_t j = 0; j < kAhead; j++) {
            values[j] = i + j < count ? __ldg(f.table + (size_t)index[i + j] * f.width + d) : 0.0F;
        }
#pragma unroll
        for (uint32_t j = 0; j < kAhead; j++) sum += values[j];
    }
    return f.is_mean && count > 0 ? sum / (float)count : sum;
}

__device__ float column_value(const hr_cuda_gather &g, const uint32_t *const *rows, uint32_t feature,
                              uint32_t column) {
    if (feature == UINT32_MAX) return 0.0F;
    const hr_cuda_feature &f = g.features[feature];
    const uint32_t *row = f.entity == 0   ? rows[0]
                          : f.entity == 1 ? rows[1]
                                          : rows[2]; /* stays in registers */
    const uint32_t d = column - f.column;
    if (f.table == nullptr) return __uint_as_float(row[f.word + d]);
    if (f.is_list) return pool(f, row, d);
    return __ldg(f.table + (size_t)row[f.word] * f.width + d);
}

__device__ void gather_row(const hr_cuda_gather &g, const hr_cuda_gather_part &part,
                           const uint32_t *const *rows, uint32_t at) {
    for (uint32_t c = threadIdx.x; c < part.width; c += kThreads) {
        const float value = column_value(g, rows, part.feature_of[c], c);
        const size_t to = (size_t)at * part.width + c;
        if (part.y != nullptr) part.y[to] = value;
        if (part.y_bf16 != nullptr) part.y_bf16[to] = bf16_bits(value);
    }
}

__global__ void __launch_bounds__(kThreads) gather_kernel(const hr_cuda_gather *descriptor) {
    const hr_cuda_gather g = *descriptor;
    const hr_cuda_header *header = header_of(g.staging);
    const uint32_t n_slices = header->n_slices, n_rows = header->n_rows;
    const uint32_t users = header->users, contexts = header->contexts, items = header->items;
    for (uint32_t i = blockIdx.x; i < n_slices + n_rows; i += gridDim.x) {
        const bool shared = i < n_slices;
        const uint32_t at = shared ? i : i - n_slices;
        /* In the order of hr_entity: user, item, context. A part has features of its own entities only. */
        const uint32_t *const rows[3] = {
            g.staging + users + (size_t)(shared ? at : 0) * g.user_words,
            g.staging + items + (size_t)(shared ? 0 : at) * g.item_words,
            g.staging + contexts + (size_t)(shared ? at : 0) * g.context_words,
        };
        gather_row(g, shared ? g.shared : g.items, rows, at);
    }
}

} // namespace

extern "C" int hr_cuda_gather_prepare(void) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, gather_kernel);
}

extern "C" int hr_cuda_gather_launch(const hr_cuda_launch *launch, void *stream) {
    return start(gather_kernel, launch->n_blocks, kThreads, 0, stream,
                 static_cast<const hr_cuda_gather *>(launch->items));
}
