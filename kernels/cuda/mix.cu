/* Mixes: see mix.h. A warp takes one unit's row: both softmaxes, then the weighted sum of the experts'
 * outputs, four columns a lane at a time. A term's weight is worked out again for every 128 columns: it costs
 * less than room for any number of weights would. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mix.h"

namespace {

constexpr uint32_t kRows = 8; /* warps of a block */

/* What turns a row's logits into a softmax's weights: exp(z - top) / total. */
struct Softmax {
    const float *z;
    float top, total;

    __device__ Softmax(const float *logits, uint32_t n, uint32_t lane)
        : z(logits), top(-INFINITY), total(0.0F) {
        for (uint32_t j = lane; j < n; j += kWarp) top = fmaxf(top, z[j]);
        top = warp_max(top);
        for (uint32_t j = lane; j < n; j += kWarp) total += expf(z[j] - top);
        total = warp_sum(total);
    }
    __device__ float weight(uint32_t j) const {
        return expf(z[j] - top) / total;
    }
};

__device__ void add(float4 &sum, float weight, const hr_cuda_term &term, uint32_t row, uint32_t column) {
    const float4 e = *reinterpret_cast<const float4 *>(term.expert + (size_t)row * term.ld + column);
    sum.x = fmaf(weight, e.x, sum.x);
    sum.y = fmaf(weight, e.y, sum.y);
    sum.z = fmaf(weight, e.z, sum.z);
    sum.w = fmaf(weight, e.w, sum.w);
}

__device__ void store(const hr_cuda_mix &mix, uint32_t row, uint32_t column, float4 sum) {
    const float values[4] = {sum.x, sum.y, sum.z, sum.w};
    const size_t to = (size_t)row * mix.ld + column;
    for (uint32_t j = 0; j < 4; j++) {
        const float value = column + j < mix.width ? values[j] : 0.0F;
        if (mix.y != nullptr) mix.y[to + j] = value;
        if (mix.y_bf16 != nullptr) mix.y_bf16[to + j] = bf16_bits(value);
    }
}

__global__ void __launch_bounds__(kRows *kWarp)
    mix_kernel(const hr_cuda_mix *mixes, const uint32_t *staging) {
    const hr_cuda_mix mix = mixes[blockIdx.x];
    const uint32_t row = blockIdx.y * kRows + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    if (row >= header_of(staging)->n_rows) return; /* whole warps leave */
    const float *logits = mix.logits == nullptr ? nullptr : mix.logits + (size_t)row * mix.ld_logits;
    const Softmax gate(logits == nullptr ? nullptr : logits + mix.gate_at, mix.n_mixed > 1 ? mix.n_mixed : 0,
                       lane);
    const Softmax self(logits == nullptr ? nullptr : logits + mix.self_at, mix.n_self > 1 ? mix.n_self : 0,
                       lane);
    for (uint32_t column = 4 * lane; column < mix.ld; column += 4 * kWarp) {
        float4 sum = {0.0F, 0.0F, 0.0F, 0.0F};
        for (uint32_t j = 0; j < mix.n_mixed; j++) {
            add(sum, mix.n_mixed > 1 ? gate.weight(j) : 1.0F, mix.terms[j], row, column);
        }
        for (uint32_t j = 0; j < mix.n_self; j++) {
            const float weight = mix.n_self > 1 ? self.weight(j) : sigmoid(logits[mix.self_at]);
            add(sum, weight, mix.terms[mix.n_mixed + j], row, column);
        }
        store(mix, row, column, sum);
    }
}

} // namespace

extern "C" int hr_cuda_mix_prepare(void) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, mix_kernel);
}

extern "C" int hr_cuda_mix_launch(const hr_cuda_launch *launch, void *stream) {
    const dim3 grid(launch->count, launch->m / kRows);
    return start(mix_kernel, grid, kRows * kWarp, 0, stream, static_cast<const hr_cuda_mix *>(launch->items),
                 launch->staging);
}
