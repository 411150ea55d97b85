/* A 64 x 64 tile of x W^T in f32 on a block of 256 threads. Private to kernels/cuda.
 *
 * Thread t computes rows 4 (t / 16) + [0, 4) and columns 4 (t % 16) + [0, 4). The K columns go through shared
 * memory 16 at a time, transposed, and are summed one after another: a row's bits depend on nothing else.
 */
#ifndef HOMERANK_KERNELS_CUDA_TILE_F32_CUH
#define HOMERANK_KERNELS_CUDA_TILE_F32_CUH

#include "kernels/cuda/device.cuh"

constexpr uint32_t kTile = 64, kTileThreads = 256, kTileDepth = 16;

struct TileF32 {
    float x[kTileDepth]
           [kTile + 4]; /* + 4: a row stays 16-byte aligned, and a column meets fewer bank conflicts */
    float w[kTileDepth][kTile + 4];
};

/* Which element of a tile of x or W this thread copies: 4 columns of one row. */
__device__ inline uint32_t tile_copy_row() {
    return threadIdx.x / 4;
}
__device__ inline uint32_t tile_copy_column() {
    return threadIdx.x % 4 * 4;
}

__device__ inline void tile_store(float (*to)[kTile + 4], float4 v) {
    const uint32_t r = tile_copy_row(), c = tile_copy_column();
    to[c][r] = v.x;
    to[c + 1][r] = v.y;
    to[c + 2][r] = v.z;
    to[c + 3][r] = v.w;
}

/* sum += over k columns (a multiple of 16). x and w point to what this thread copies: its row, at
 * tile_copy_column. All threads of the block must call it alike. */
__device__ inline void tile_accumulate(TileF32 &tile, float (&sum)[4][4], const float *x, const float *w,
                                       uint32_t k) {
    const uint32_t row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    float4 next_x = *reinterpret_cast<const float4 *>(x), next_w = *reinterpret_cast<const float4 *>(w);
    for (uint32_t at = 0; at < k; at += kTileDepth) {
        __syncthreads(); /* the tile before has been read */
        tile_store(tile.x, next_x);
        tile_store(tile.w, next_w);
        __syncthreads();
        if (at + kTileDepth < k) {
            next_x = *reinterpret_cast<const float4 *>(x + at + kTileDepth);
            next_w = *reinterpret_cast<const float4 *>(w + at + kTileDepth);
        }
#pragma unroll
        for (uint32_t d = 0; d < kTileDepth; d++) {
            const float4 a = *reinterpret_cast<const float4 *>(&tile.x[d][row]);
            const float4 b = *reinterpret_cast<const float4 *>(&tile.w[d][column]);
            const float as[4] = {a.x, a.y, a.z, a.w}, bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] = fmaf(as[i], bs[j], sum[i][j]);
            }
        }
    }
}

#endif
