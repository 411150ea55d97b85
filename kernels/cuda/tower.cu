/* Towers in f32: see tower.h. A block takes 64 rows through one task's tower; what lies between the layers
 * goes through the block's own rows of device memory (it stays in the caches), so that layers may be of any
 * width. */
#include "kernels/cuda/tile_f32.cuh"
#include "kernels/cuda/tower.h"

namespace {

/* hidden = act(x W^T + b), zeros up to the padded width. x and hidden are written by this very kernel: plain
 * loads and a barrier, no read-only path. */
__device__ void hidden_layer(TileF32 &tile, const hr_cuda_tower &t, const hr_cuda_tower_layer &layer,
                             const float *x, uint32_t ld, float *hidden, uint32_t m0) {
    const uint32_t padded = (layer.n + HR_CUDA_PAD - 1) / HR_CUDA_PAD * HR_CUDA_PAD;
    const float *from = x + (size_t)(m0 + tile_copy_row()) * ld + tile_copy_column();
    const uint32_t row = m0 + threadIdx.x / 16 * 4;
    for (uint32_t n0 = 0; n0 < padded; n0 += kTile) {
        const uint32_t n = min(n0 + tile_copy_row(), layer.n - 1), column = n0 + threadIdx.x % 16 * 4;
        float sum[4][4] = {};
        tile_accumulate(tile, sum, from, layer.weight + (size_t)n * layer.k + tile_copy_column(), layer.k);
        for (uint32_t i = 0; i < 4; i++) {
            float *y = hidden + (size_t)(row + i) * t.ld_hidden + column;
            for (uint32_t j = 0; j < 4; j++) {
                const bool real = column + j < layer.n;
                y[j] = real ? activate<false>(t.activation, sum[i][j] + layer.bias[column + j]) : 0.0F;
            }
        }
    }
}

/* Four threads a row, every fourth column each, then their sums in a fixed order. */
__device__ void logit_layer(const hr_cuda_tower &t, const hr_cuda_tower_layer &layer, const float *x,
                            uint32_t ld, uint32_t m0) {
    const uint32_t row = m0 + threadIdx.x / 4, first = threadIdx.x % 4;
    const float *from = x + (size_t)row * ld;
    float sum = 0.0F;
    for (uint32_t c = first; c < layer.k; c += 4) sum = fmaf(from[c], layer.weight[c], sum);
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (first == 0) t.logits[(size_t)row * t.n_tasks] = sum + layer.bias[0];
}

__global__ void __launch_bounds__(kTileThreads)
    tower_kernel(const hr_cuda_tower *towers, const uint32_t *staging) {
    __shared__ TileF32 tile;
    const uint32_t m0 = blockIdx.y * kTile;
    if (m0 >= header_of(staging)->n_rows) return;
    const hr_cuda_tower t = towers[blockIdx.x];
    const float *x = t.x;
    uint32_t ld = t.ld;
    for (uint32_t i = 0; i + 1 < t.n_layers; i++) {
        float *hidden = t.hidden[i % 2];
        hidden_layer(tile, t, t.layers[i], x, ld, hidden, m0);
        __syncthreads(); /* all of hidden's rows of this block are written */
        x = hidden;
        ld = t.ld_hidden;
    }
    logit_layer(t, t.layers[t.n_layers - 1], x, ld, m0);
}

} // namespace

extern "C" int hr_cuda_tower_prepare(void) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, tower_kernel);
}

extern "C" int hr_cuda_tower_launch(const hr_cuda_launch *launch, void *stream) {
    const dim3 grid(launch->count, launch->m / kTile);
    return start(tower_kernel, grid, kTileThreads, 0, stream,
                 static_cast<const hr_cuda_tower *>(launch->items), launch->staging);
}
