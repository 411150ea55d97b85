/* Mixes: see mix.h and mix_row.cuh. A block takes some rows of one mix, through all of its panels where
 * there are rows enough to keep the device busy so, else through some of them. */
#include "kernels/cuda/mix.h"
#include "kernels/cuda/mix_row.cuh"

namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kRows = kThreads / kLanes; /* of a block */
constexpr uint32_t kBusy = 4;                 /* blocks a multiprocessor that keep it so */

__device__ void store(const hr_cuda_mix &mix, uint32_t row, uint32_t column, Columns &sum) {
    if (mix.y != nullptr) {
        float *y = mix.y + (size_t)row * mix.padded + column;
#pragma unroll
        for (uint32_t i = 0; i < kColumns; i += 4)
            *reinterpret_cast<float4 *>(y + i) = {sum.v[i], sum.v[i + 1], sum.v[i + 2], sum.v[i + 3]};
    }
    const size_t at = hr_cuda_panel_at(mix.ld_bf16, row, column);
    /* Of a plain store the compiler makes four. */
    if (mix.high != nullptr) __stcg(reinterpret_cast<uint4 *>(mix.high + at), take_parts(sum));
    if (mix.low != nullptr) __stcg(reinterpret_cast<uint4 *>(mix.low + at), take_parts(sum));
}

template <bool kBf16>
__global__ void __launch_bounds__(kThreads)
    mix_kernel(const hr_cuda_mix *mixes, uint32_t n_shares, const uint32_t *staging) {
    const uint32_t first_panel = blockIdx.x % n_shares, row = blockIdx.y * kRows + threadIdx.x / kLanes;
    let_next_start();
    const hr_cuda_mix mix = mixes[blockIdx.x / n_shares];
    wait_for_previous();
    if (blockIdx.y * kRows >= header_of(staging)->n_rows) return;
    MixRow<kBf16, kThreads> mixed(mix, dynamic_shared(), row);
    mixed.begin(first_panel, n_shares);
    for (uint32_t panel = first_panel; panel < mixed.n_panels; panel += n_shares) {
        Columns sum = mixed.columns();
        store(mix, row, panel * HR_CUDA_PAD + mixed.lane * kColumns, sum);
    }
}

template <bool kBf16> int run(const hr_cuda_launch *launch, void *stream) {
    const uint32_t blocks = launch->count * (launch->m / kRows);
    const uint32_t n_shares = blocks < kBusy * launch->n_sms ? launch->panels : 1;
    const Shape shape = {dim3(launch->count * n_shares, launch->m / kRows), kThreads,
                         MixRow<kBf16, kThreads>::kSharedBytes};
    return start(mix_kernel<kBf16>, shape, launch, stream, static_cast<const hr_cuda_mix *>(launch->items),
                 n_shares, launch->staging);
}

} // namespace

extern "C" int hr_cuda_mix_prepare(void) {
    cudaFuncAttributes attributes;
    const int code = cudaFuncGetAttributes(&attributes, mix_kernel<true>);
    return code == 0 ? cudaFuncGetAttributes(&attributes, mix_kernel<false>) : code;
}

extern "C" int hr_cuda_mix_launch(const hr_cuda_launch *launch, void *stream) {
    return launch->f32 ? run<false>(launch, stream) : run<true>(launch, stream);
}
