/* What all kernels share. Private to kernels/cuda.
 *
 * Every sum runs in an order that depends on the network alone, not on the batch nor on the row's place in
 * it: that is what batch invariance rests on.
 */
#ifndef HOMERANK_KERNELS_CUDA_DEVICE_CUH
#define HOMERANK_KERNELS_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "kernels/cuda/descriptors.h"

constexpr uint32_t kWarp = 32;
constexpr uint32_t kAllLanes = 0xFFFFFFFF;

__device__ inline const hr_cuda_header *header_of(const uint32_t *staging) {
    return reinterpret_cast<const hr_cuda_header *>(staging);
}

__device__ inline const uint32_t *slice_of(const uint32_t *staging) {
    return staging + HR_CUDA_HEADER_WORDS;
}

__device__ inline float sigmoid(float z) {
    return 1.0F / (1.0F + expf(-z));
}

/* Within a few units in the last place; the denominator may be infinite, and the result is then 0. */
__device__ inline float fast_sigmoid(float z) {
    return __fdividef(1.0F, 1.0F + __expf(-z));
}

template <bool kFast> __device__ inline float activate(uint32_t activation, float z) {
    if (activation == HR_CUDA_RELU) return fmaxf(z, 0.0F);
    if (activation == HR_CUDA_SWISH) return z * (kFast ? fast_sigmoid(z) : sigmoid(z));
    return z;
}

__device__ inline uint16_t bf16_bits(float x) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

/* Over the lanes of a warp, the same in each. A butterfly: the order of the sum is fixed, and as addition
 * commutes all lanes get the same bits. */
__device__ inline float warp_sum(float x) {
    for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(kAllLanes, x, distance);
    return x;
}

__device__ inline float warp_max(float x) {
    for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
    return x;
}

/* The block's dynamic shared memory. Only the toolkit's compiler knows this declaration. */
#ifdef __CUDACC__
__device__ inline uint8_t *dynamic_shared() {
    extern __shared__ __align__(128) uint8_t bytes[];
    return bytes;
}
#endif

/* Starts a kernel on a stream, without the toolkit's own syntax: any C++ compiler takes it
 * (tests/kernels/simt). */
template <typename... Parameters, typename... Arguments>
int start(void (*kernel)(Parameters...), dim3 grid, uint32_t threads, size_t shared_nbytes, void *stream,
          Arguments... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_nbytes;
    config.stream = static_cast<cudaStream_t>(stream);
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

/* A feature gate's x at (row, column): from the part that holds the column. */
__device__ inline float gated_value(const hr_cuda_part *part, uint32_t begin, uint32_t row, uint32_t slice,
                                    uint32_t column) {
    uint32_t at = part->shared ? slice : row;
    return static_cast<const float *>(part->x)[(size_t)at * part->ld + (column - begin)];
}

/* The part that holds the column, which must be less than the last part's end; *begin: its first column. */
__device__ inline const hr_cuda_part *part_of(const hr_cuda_part *parts, uint32_t column, uint32_t *begin) {
    *begin = 0;
    for (; parts->end <= column; parts++) *begin = parts->end;
    return parts;
}

#endif
