/* Mixes: see mix.h and mix_row.cuh. A block takes some rows of one mix, through all of its panels where
 * there are rows enough to keep the device busy so, else through some of them. */
#include "kernels/cuda/mix.h"
#include "kernels/cuda/mix_row.cuh"

namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kRows = kThreads / kLanes; /* of a block */
constexpr uint32_t kBusy = 4;                 /* blocks a multiprocessor that keep it so */

/* Shared memory: the slots, in both precisions as many bytes, then the terms that are near. */
constexpr uint32_t kSharedBytes = MixRow<true, kThreads>::kSharedBytes + kTermsNear * sizeof(hr_cuda_term);
static_assert(MixRow<true, kThreads>::kSharedBytes == MixRow<false, kThreads>::kSharedBytes, "one size");

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
    mix_kernel(const hr_cuda_mix *mixes, uint32_t n_shares, const uint32_t *staging) {
    using Row = MixRow<kBf16, kThreads>;
    using Near = hr_cuda_term[kTermsNear];
    Near &near = *reinterpret_cast<Near *>(dynamic_shared() + Row::kSharedBytes);
    const uint32_t first_panel = blockIdx.x % n_shares, row = blockIdx.y * kRows + threadIdx.x / kLanes;
    let_next_start();
    const hr_cuda_mix mix = mixes[blockIdx.x / n_shares];
    const hr_cuda_term *terms = fetch_terms(mix, near);
    wait_for_previous();
    if (blockIdx.y * kRows >= header_of(staging)->n_rows) return;
    Row mixed(mix, terms, dynamic_shared(), row);
    mixed.begin(first_panel, n_shares);
    for (uint32_t panel = first_panel; panel * HR_CUDA_PAD < mix.padded; panel += n_shares) {
        Columns sum = mixed.columns(panel);
        store(mix, row, panel * HR_CUDA_PAD + mixed.lane * kColumns, sum);
    }
}

} // namespace

extern "C" int hr_cuda_mix_prepare(void) {
    cudaFuncAttributes attributes;
    const int code = cudaFuncGetAttributes(&attributes, mix_kernel<true>);
    return code == 0 ? cudaFuncGetAttributes(&attributes, mix_kernel<false>) : code;
}

extern "C" int hr_cuda_mix_launch(const hr_cuda_launch *launch, void *stream) {
    const uint32_t blocks = launch->count * (launch->m / kRows);
    const uint32_t n_shares = blocks < kBusy * launch->n_sms ? launch->panels : 1;
    const Shape shape = {dim3(launch->count * n_shares, launch->m / kRows), kThreads, kSharedBytes};
    return start(launch->f32 ? mix_kernel<false> : mix_kernel<true>, shape, launch, stream,
                 static_cast<const hr_cuda_mix *>(launch->items), n_shares, launch->staging);
}
