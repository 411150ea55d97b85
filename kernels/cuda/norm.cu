/* Layer norm: see norm.h. A warp takes one expert's row. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/norm.h"

namespace {

constexpr uint32_t kRows = 8; /* warps of a block */

__global__ void __launch_bounds__(kRows *kWarp)
    norm_kernel(const hr_cuda_norm *norms, const uint32_t *staging) {
    let_next_start();
    const hr_cuda_norm norm = norms[blockIdx.x];
    const uint32_t row = blockIdx.y * kRows + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    wait_for_previous();
    if (row >= header_of(staging)->n_rows) return;
    const float *x = norm.x + (size_t)row * norm.ld;
    const uint32_t padded = hr_cuda_padded(norm.width);
    float sum = 0.0F, squares = 0.0F;
    for (uint32_t c = lane; c < norm.width; c += kWarp) sum += x[c];
    const float mean = warp_sum(sum) / (float)norm.width;
    for (uint32_t c = lane; c < norm.width; c += kWarp) squares += (x[c] - mean) * (x[c] - mean);
    const float scale = 1.0F / sqrtf(warp_sum(squares) / (float)norm.width + norm.eps);
    for (uint32_t c = lane; c < padded; c += kWarp) {
        float y = 0.0F;
        if (c < norm.width)
            y = activate(norm.activation, (x[c] - mean) * scale * norm.weight[c] + norm.bias[c]);
        if (norm.y_is_bf16) {
            static_cast<uint16_t *>(norm.y)[hr_cuda_panel_at(norm.ld_y, row, c)] = bf16_bits(y);
        } else {
            static_cast<float *>(norm.y)[(size_t)row * norm.ld_y + c] = y;
        }
    }
}

} // namespace

extern "C" int hr_cuda_norm_prepare(void) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, norm_kernel);
}

extern "C" int hr_cuda_norm_launch(const hr_cuda_launch *launch, void *stream) {
    const Shape shape = {dim3(launch->count, launch->m / kRows), kRows * kWarp};
    return start(norm_kernel, shape, launch, stream, static_cast<const hr_cuda_norm *>(launch->items),
                 launch->staging);
}
