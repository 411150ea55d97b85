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
#include "kernels/cuda/intrinsics.cuh"

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

/* z sigma(z) = h + h tanh(h), h = z / 2: within 2^-11 |h|, less than rounding it to bf16 costs. */
__device__ inline float fast_swish(float z) {
    const float h = 0.5F * z;
    return fmaf(h, fast_tanh(h), h);
}

__device__ inline float activate(uint32_t activation, float z) {
    if (activation == HR_CUDA_RELU) return fmaxf(z, 0.0F);
    if (activation == HR_CUDA_SWISH) return z * sigmoid(z);
    return z;
}

__device__ inline uint16_t bf16_bits(float x) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

/* One instruction for both: of two single ones the compiler may make two of a fraction of its rate. */
__device__ inline uint32_t bf16_pair(float first, float second) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return __bfloat16_as_ushort(pair.x) | (uint32_t)__bfloat16_as_ushort(pair.y) << 16;
}

__device__ inline float first_of_pair(uint32_t pair) {
    return __uint_as_float(pair << 16);
}
__device__ inline float second_of_pair(uint32_t pair) {
    return __uint_as_float(pair & 0xFFFF0000);
}

/* Over the lanes of a warp, the same in each. A butterfly: the order of the sum is fixed, and as addition
 * commutes all lanes get the same bits. */
__device__ inline float warp_sum(float x) {
    for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(kAllLanes, x, distance);
    return x;
}

/* Starts a kernel on a stream, without the toolkit's own syntax: any C++ compiler takes it
 * (tests/kernels/simt). On a device of compute capability 9.0 a launch that follows another starts before
 * that one ends: its kernel must wait_for_previous. */
struct Shape {
    dim3 grid;
    uint32_t threads;
    size_t shared_nbytes = 0;
};

template <typename... Parameters, typename... Arguments>
int start(void (*kernel)(Parameters...), const Shape &shape, const hr_cuda_launch *launch, void *stream,
          Arguments... arguments) {
    cudaLaunchAttribute early = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = shape.grid;
    config.blockDim = dim3(shape.threads);
    config.dynamicSmemBytes = shape.shared_nbytes;
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &early;
    if (launch->hopper && launch->follows) {
        config.numAttrs = 1;
        early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        early.val.programmaticStreamSerializationAllowed = 1;
    }
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

/* The part that holds the column, which must be less than the last part's end; *begin: its first column. */
__device__ inline const hr_cuda_part *part_of(const hr_cuda_part *parts, uint32_t column, uint32_t *begin) {
    *begin = 0;
    for (; parts->end <= column; parts++) *begin = parts->end;
    return parts;
}

#endif
