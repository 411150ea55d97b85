/* Mixes: see mix.h and mix_row.cuh. A block takes a panel of some rows. */
#include "kernels/cuda/mix.h"
#include "kernels/cuda/mix_row.cuh"

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kRows = kThreads / kLanes; /* of a block */

__device__ void store(const hr_cuda_mix &mix, uint32_t row, uint32_t column, Columns &sum) {
    if (mix.y != nullptr) {
        float *y = mix.y + (size_t)row * mix.padded + column;
#pragma unroll
        for (uint32_t i = 0; i < kColumns; i += 4)
            *reinterpret_cast<float4 *>(y + i) = {sum.v[i], sum.v[i + 1], sum.v[i + 2], sum.v[i + 3]};
    }
    const size_t at = hr_cuda_panel_at(mix.ld_bf16, row, column);
    if (mix.high != nullptr) *reinterpret_cast<uint4 *>(mix.high + at) = take_parts(sum);
    if (mix.low != nullptr) *reinterpret_cast<uint4 *>(mix.low + at) = take_parts(sum);
}

template <bool kBf16>
__global__ void __launch_bounds__(kThreads)
    mix_kernel(const hr_cuda_mix *mixes, uint32_t n_panels, const uint32_t *staging) {
    let_next_start();
    const hr_cuda_mix mix = mixes[blockIdx.x / n_panels];
    const uint32_t panel = blockIdx.x % n_panels;
    const uint32_t row = blockIdx.y * kRows + threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
    wait_for_previous();
    /* Whole warps leave; the last one's rows past the batch compute what nobody reads. */
    if (row / (kWarp / kLanes) * (kWarp / kLanes) >= header_of(staging)->n_rows) return;
    if (panel * HR_CUDA_PAD >= mix.padded) return;
    const uint32_t column = panel * HR_CUDA_PAD + lane * kColumns;
    Columns sums[1];
    MixRows<kBf16, 1, 0, kBf16 ? 8 : 2>(mix, mix.terms, row, lane).columns(sums, column);
    store(mix, row, column, sums[0]);
}

} // namespace

extern "C" int hr_cuda_mix_prepare(void) {
    cudaFuncAttributes attributes;
    const int code = cudaFuncGetAttributes(&attributes, mix_kernel<true>);
    return code == 0 ? cudaFuncGetAttributes(&attributes, mix_kernel<false>) : code;
}

extern "C" int hr_cuda_mix_launch(const hr_cuda_launch *launch, void *stream) {
    const Shape shape = {dim3(launch->count * launch->panels, launch->m / kRows), kThreads};
    return start(launch->f32 ? mix_kernel<false> : mix_kernel<true>, shape, launch, stream,
                 static_cast<const hr_cuda_mix *>(launch->items), launch->panels, launch->staging);
}
