/* A tile of x W^T from panels in shared memory, by mma.m16n8k16 with f32 sums. Private to kernels/cuda.
 *
 * A panel is 64 columns of K, rows of 128 bytes as hr_cuda_panel_at says. An element's sum runs over K in
 * steps of 16, in order, in one accumulator, whatever the tile's size or the row's place in it.
 */
#ifndef HOMERANK_KERNELS_CUDA_TILE_BF16_CUH
#define HOMERANK_KERNELS_CUDA_TILE_BF16_CUH

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/mma.cuh"

constexpr uint32_t kDepth = HR_CUDA_PAD;   /* K columns of a panel */
constexpr uint32_t kRowBytes = kDepth * 2; /* of a panel in shared memory */

/* kM x kN by kWarpsM x kWarpsN warps. */
template <uint32_t kM_, uint32_t kN_, uint32_t kWarpsM_, uint32_t kWarpsN_> struct Tile {
    static constexpr uint32_t kM = kM_, kN = kN_, kWarpsN = kWarpsN_;
    static constexpr uint32_t kThreads = kWarpsM_ * kWarpsN_ * kWarp;
    static constexpr uint32_t kWarpM = kM / kWarpsM_, kWarpN = kN / kWarpsN_; /* a warp's share */
    static constexpr uint32_t kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;    /* in mma tiles */
    static constexpr uint32_t kXBytes = kM * kRowBytes, kWBytes = kN * kRowBytes;
    static constexpr uint32_t kCopiesX = kXBytes / 16 / kThreads, kCopiesW = kWBytes / 16 / kThreads;
    static_assert(kTilesN % 2 == 0, "W's fragments are loaded for two tiles at a time");
    static_assert(kXBytes / 16 % kThreads == 0 && kWBytes / 16 % kThreads == 0,
                  "every thread copies as much");
};

template <typename C> using TileSums = Sums<C::kTilesM, C::kTilesN>;

/* Where chunk `chunk` of row `row` of a panel lies: hr_cuda_panel_at in bytes. */
__device__ inline uint32_t swizzled(uint32_t row, uint32_t chunk) {
    return row * kRowBytes + ((chunk ^ (row % 8)) * 16);
}

/* From the swizzled address of chunk 0 or 1 of a row, that of the one an even number of chunks further on. */
__device__ inline uint32_t chunks_on(uint32_t at, uint32_t chunks) {
    return at ^ (chunks * 16);
}

/* sums += one panel's columns; x and w are the panels' addresses in shared memory, multiples of kRowBytes,
 * warp_m and warp_n the warp's first row and column of the tile. */
template <typename C>
__device__ void multiply_panel(TileSums<C> &sums, uint32_t x, uint32_t w, uint32_t warp_m, uint32_t warp_n) {
    const uint32_t lane = threadIdx.x % kWarp;
    const uint32_t x_at = x + swizzled(warp_m + lane % 16, lane / 16);
    const uint32_t w_at = w + swizzled(warp_n + lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (uint32_t step = 0; step < kDepth / 16; step++) {
        uint32_t a[C::kTilesM][4], b[C::kTilesN / 2][4];
#pragma unroll
        for (uint32_t i = 0; i < C::kTilesM; i++)
            load_matrices(a[i], chunks_on(x_at, step * 2) + i * 16 * kRowBytes);
#pragma unroll
        for (uint32_t j = 0; j < C::kTilesN / 2; j++)
            load_matrices(b[j], chunks_on(w_at, step * 2) + j * 16 * kRowBytes);
#pragma unroll
        for (uint32_t i = 0; i < C::kTilesM; i++) {
#pragma unroll
            for (uint32_t j = 0; j < C::kTilesN; j++)
                multiply(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }
}

#endif
