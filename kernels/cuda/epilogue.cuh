/* What products do with their sums, whichever instruction made them. Private to kernels/cuda.
 *
 * A warp's sums are tiles of 16 rows and 8 columns; a thread has of each rows r and r + 8, r = lane / 4, and
 * columns c and c + 1, c = 2 (lane % 4): the fragments of mma.m16n8k16, and of wgmma.
 */
#ifndef HOMERANK_KERNELS_CUDA_EPILOGUE_CUH
#define HOMERANK_KERNELS_CUDA_EPILOGUE_CUH

#include "kernels/cuda/device.cuh"

template <uint32_t kTilesM, uint32_t kTilesN> using Sums = float[kTilesM][kTilesN][4];

__device__ inline uint32_t fragment_row() {
    return threadIdx.x % kWarp / 4;
}
__device__ inline uint32_t fragment_column() {
    return threadIdx.x % 4 * 2;
}

/* A row's softmax over the branches of a feature gate. */
struct Branches {
    const float *z;
    float top, scale;

    __device__ void begin(const hr_cuda_product &p, uint32_t row) {
        z = p.logits + (size_t)row * p.ld_logits;
        top = z[0];
        for (uint32_t l = 1; l < p.loras; l++) top = fmaxf(top, z[l]);
        float total = 0.0F;
        for (uint32_t l = 0; l < p.loras; l++) total += __expf(z[l] - top);
        scale = __fdividef(1.0F, total);
    }
    __device__ float weight(uint32_t l) const {
        return __expf(z[l] - top) * scale;
    }
};

/* Of a thread's rows. m: the warp's first. */
template <uint32_t kTilesM>
__device__ void begin_branches(Branches (&branches)[kTilesM][2], const hr_cuda_product &p, uint32_t m) {
#pragma unroll
    for (uint32_t i = 0; i < kTilesM; i++) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++)
            branches[i][half].begin(p, m + i * 16 + half * 8 + fragment_row());
    }
}

/* MODEL.md 2.3: gate += weight of branch l * tanh(sums / 2). As 2 sigma(z) = 1 + tanh(z / 2) and the weights
 * sum to 1, a gate that starts at 1 ends as the sum of all branches. */
template <uint32_t kTilesM, uint32_t kTilesN>
__device__ void fold(Sums<kTilesM, kTilesN> &gate, const Sums<kTilesM, kTilesN> &sums,
                     const Branches (&branches)[kTilesM][2], uint32_t l) {
#pragma unroll
    for (uint32_t i = 0; i < kTilesM; i++) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const float weight = branches[i][half].weight(l);
#pragma unroll
            for (uint32_t j = 0; j < kTilesN; j++) {
#pragma unroll
                for (uint32_t e = 2 * half; e < 2 * half + 2; e++)
                    gate[i][j][e] = fmaf(weight, fast_tanh(0.5F * sums[i][j][e]), gate[i][j][e]);
            }
        }
    }
}

/* f of each sum of column tiles [begin, end): constants, as below, or sums would not stay in registers. */
template <uint32_t kTilesM, uint32_t kTilesN, typename Function>
__device__ void map_tiles(Sums<kTilesM, kTilesN> &sums, uint32_t begin, uint32_t end, Function f) {
#pragma unroll
    for (uint32_t j = begin; j < end; j++) {
#pragma unroll
        for (uint32_t i = 0; i < kTilesM; i++) {
#pragma unroll
            for (uint32_t e = 0; e < 4; e++) sums[i][j][e] = f(sums[i][j][e]);
        }
    }
}

template <uint32_t kTilesM, uint32_t kTilesN, typename Function>
__device__ void map(Sums<kTilesM, kTilesN> &sums, Function f) {
    map_tiles<kTilesM, kTilesN>(sums, 0, kTilesN, f);
}

/* act(sums + b) of column tiles [begin, end). bias: from the warp's first column on, or NULL. Columns from n
 * on have sums of zero and a bias of zero, and both activations keep zeros. */
template <uint32_t kTilesM, uint32_t kTilesN>
__device__ void finish_plain(Sums<kTilesM, kTilesN> &sums, uint32_t begin, uint32_t end, const float *bias,
                             uint32_t activation) {
    if (bias != nullptr) {
#pragma unroll
        for (uint32_t j = begin; j < end; j++) {
            const float2 b = *reinterpret_cast<const float2 *>(bias + j * 8 + fragment_column());
#pragma unroll
            for (uint32_t i = 0; i < kTilesM; i++) {
                sums[i][j][0] += b.x;
                sums[i][j][1] += b.y;
                sums[i][j][2] += b.x;
                sums[i][j][3] += b.y;
            }
        }
    }
    if (activation == HR_CUDA_SWISH) map_tiles<kTilesM, kTilesN>(sums, begin, end, fast_swish);
    if (activation == HR_CUDA_RELU)
        map_tiles<kTilesM, kTilesN>(sums, begin, end, [](float z) { return fmaxf(z, 0.0F); });
}

/* Two bf16 numbers and what they lack of f32, times two of f32. */
__device__ inline void multiply_pair(float (&gate)[4], uint32_t half, uint32_t high, uint32_t low) {
    gate[2 * half] *= first_of_pair(high) + first_of_pair(low);
    gate[2 * half + 1] *= second_of_pair(high) + second_of_pair(low);
}

/* In f32, columns below n_padded. */
template <uint32_t kTilesM, uint32_t kTilesN>
__device__ void store_f32(const Sums<kTilesM, kTilesN> &sums, const hr_cuda_product &p, uint32_t m,
                          uint32_t n) {
    float *y = static_cast<float *>(p.y);
    const uint32_t ld = p.ld_y, end = p.n_padded;
#pragma unroll
    for (uint32_t j = 0; j < kTilesN; j++) {
        const uint32_t column = n + j * 8 + fragment_column();
        if (column >= end) continue;
#pragma unroll
        for (uint32_t i = 0; i < kTilesM; i++) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                const uint32_t row = m + i * 16 + half * 8 + fragment_row();
                const float *s = &sums[i][j][2 * half];
                *reinterpret_cast<float2 *>(y + (size_t)row * ld + column) = make_float2(s[0], s[1]);
            }
        }
    }
}

#endif
