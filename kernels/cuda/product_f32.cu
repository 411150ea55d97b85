/* Grouped products in f32: see product_f32.h. A block computes one 64 x 64 tile (tile_f32.cuh). */
#include "kernels/cuda/product_f32.h"
#include "kernels/cuda/tile_f32.cuh"

namespace {

/* sum = x W^T for the tile at (m0, n0), part after part. */
__device__ void plain_sum(TileF32 &tile, float (&sum)[4][4], const hr_cuda_product &p, const uint32_t *slices,
                          uint32_t m0, uint32_t n0) {
    const uint32_t m = m0 + tile_copy_row(), slice = slices[m];
    /* Columns past n read the last one again: their sums are not stored. */
    const float *w = static_cast<const float *>(p.weight) + (size_t)min(n0 + tile_copy_row(), p.n - 1) * p.k;
    uint32_t begin = 0;
    for (const hr_cuda_part *part = p.x; begin < p.k; part++) {
        const float *x = static_cast<const float *>(part->x) + (size_t)(part->shared ? slice : m) * part->ld;
        tile_accumulate(tile, sum, x + tile_copy_column(), w + begin + tile_copy_column(), part->end - begin);
        begin = part->end;
    }
}

/* sum = sum_l softmax(logits)_l 2 sigmoid(x_l W_l^T). The branches are columns of one part. */
__device__ void gate_sum(TileF32 &tile, float (&sum)[4][4], const hr_cuda_product &p, uint32_t m0,
                         uint32_t n0) {
    const uint32_t rank = p.k / p.loras, row = m0 + threadIdx.x / 16 * 4;
    const float *x = static_cast<const float *>(p.x->x) + (size_t)(m0 + tile_copy_row()) * p.x->ld;
    const float *w = static_cast<const float *>(p.weight) + (size_t)min(n0 + tile_copy_row(), p.n - 1) * p.k;
    float top[4], total[4];
    for (int i = 0; i < 4; i++) {
        const float *z = p.logits + (size_t)(row + i) * p.ld_logits;
        top[i] = z[0];
        total[i] = 0.0F;
        for (uint32_t l = 1; l < p.loras; l++) top[i] = fmaxf(top[i], z[l]);
        for (uint32_t l = 0; l < p.loras; l++) total[i] += expf(z[l] - top[i]);
    }
    for (uint32_t l = 0; l < p.loras; l++) {
        float up[4][4] = {};
        const uint32_t at = l * rank + tile_copy_column();
        tile_accumulate(tile, up, x + at, w + at, rank);
        for (int i = 0; i < 4; i++) {
            const float weight = expf(p.logits[(size_t)(row + i) * p.ld_logits + l] - top[i]) / total[i];
            for (int j = 0; j < 4; j++) sum[i][j] += weight * (2.0F * sigmoid(up[i][j]));
        }
    }
}

template <bool kGate>
__device__ float finish(const hr_cuda_product &p, float sum, uint32_t row, uint32_t slice, uint32_t column) {
    if (column >= p.n) return 0.0F;
    if constexpr (kGate) {
        uint32_t begin;
        const hr_cuda_part *part = part_of(p.gated, column, &begin);
        const uint32_t at = part->shared ? slice : row;
        return static_cast<const float *>(part->x)[(size_t)at * part->ld + (column - begin)] * sum;
    }
    return activate(p.activation, sum + (p.bias == nullptr ? 0.0F : p.bias[column]));
}

template <bool kGate>
__global__ void __launch_bounds__(kTileThreads)
    product_f32_kernel(const hr_cuda_product *products, const hr_cuda_tile *tiles, const uint32_t *staging) {
    __shared__ TileF32 tile;
    let_next_start();
    wait_for_previous();
    const uint32_t m0 = blockIdx.y * kTile, n0 = tiles[blockIdx.x].column;
    if (m0 >= header_of(staging)->n_rows) return;
    const hr_cuda_product p = products[tiles[blockIdx.x].product];
    float sum[4][4] = {};
    if constexpr (kGate) {
        gate_sum(tile, sum, p, m0, n0);
    } else {
        plain_sum(tile, sum, p, slice_of(staging), m0, n0);
    }
    const uint32_t row = m0 + threadIdx.x / 16 * 4, column = n0 + threadIdx.x % 16 * 4;
    for (uint32_t i = 0; i < 4; i++) {
        float *y = static_cast<float *>(p.y) + (size_t)(row + i) * p.ld_y;
        const uint32_t slice = slice_of(staging)[row + i];
        for (uint32_t j = 0; j < 4; j++)
            y[column + j] = finish<kGate>(p, sum[i][j], row + i, slice, column + j);
    }
}

} // namespace

extern "C" int hr_cuda_product_f32_prepare(void) {
    cudaFuncAttributes attributes;
    int code = cudaFuncGetAttributes(&attributes, product_f32_kernel<false>);
    return code == 0 ? cudaFuncGetAttributes(&attributes, product_f32_kernel<true>) : code;
}

extern "C" int hr_cuda_product_f32_launch(const hr_cuda_launch *launch, void *stream) {
    const Shape shape = {dim3(launch->count, launch->m / kTile), kTileThreads};
    const bool gates = launch->kind == HR_CUDA_FEATURE_GATES;
    return start(gates ? product_f32_kernel<true> : product_f32_kernel<false>, shape, launch, stream,
                 static_cast<const hr_cuda_product *>(launch->items), launch->tiles, launch->staging);
}
