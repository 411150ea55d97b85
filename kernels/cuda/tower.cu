/* Towers: see tower.h. A block takes 64 rows through one task's tower.
 *
 * A hidden layer's operands are split into bf16 parts, x = x0 + x1 + ..., and the products xi Wj with i + j <
 * kParts are summed on the tensor cores: within some 2^-17 of the terms by two parts (for bf16 operands
 * elsewhere), and as exact as f32 by three, in a fraction of FFMA's time. What lies between the layers goes
 * through the block's own rows of device memory (it stays in the caches), so that layers may be of any width.
 */
#include "kernels/cuda/mix_row.cuh"
#include "kernels/cuda/tile_bf16.cuh"
#include "kernels/cuda/tower.h"

namespace {

using Cell = Tile<64, 64, 4, 4>;

/* A mix and its terms, where there is room for them. */
constexpr uint32_t kTermsNear = 32;
struct alignas(16) NearMix {
    hr_cuda_term terms[kTermsNear];
    hr_cuda_mix mix;
};

/* Shared memory: a panel of each operand's parts, then a NearMix. */
template <uint32_t kParts> constexpr uint32_t kNearAt = kParts *(Cell::kXBytes + Cell::kWBytes);
template <uint32_t kParts> constexpr uint32_t kSharedBytes = kNearAt<kParts> + sizeof(NearMix);
constexpr uint32_t kRowStep = Cell::kThreads / kLanes; /* rows that a block's threads take at a time */
constexpr uint32_t kRowsEach = Cell::kM / kRowStep;    /* of one thread */
constexpr uint32_t kLogitLanes = Cell::kThreads / Cell::kM;

/* A layer's input as rows of f32. */
struct Stored {
    const float *x;
    uint32_t ld, m0;

    __device__ void columns(Columns (&rows)[kRowsEach], uint32_t column) const {
#pragma unroll
        for (uint32_t i = 0; i < kRowsEach; i++) {
            const float *from = x + (size_t)(m0 + i * kRowStep + threadIdx.x / kLanes) * ld + column;
            const float4 a = *reinterpret_cast<const float4 *>(from);
            const float4 b = *reinterpret_cast<const float4 *>(from + 4);
            rows[i] = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
        }
    }
};

template <uint32_t kParts, typename Input> __device__ void put_x(const Input &input, uint32_t panel) {
    const uint32_t lane = threadIdx.x % kLanes;
    Columns rows[kRowsEach];
    input.columns(rows, panel * kDepth + lane * kColumns);
#pragma unroll
    for (uint32_t i = 0; i < kRowsEach; i++) {
        const uint32_t at = swizzled(i * kRowStep + threadIdx.x / kLanes, lane);
#pragma unroll
        for (uint32_t part = 0; part < kParts; part++)
            *reinterpret_cast<uint4 *>(dynamic_shared() + part * Cell::kXBytes + at) = take_parts(rows[i]);
    }
}

template <uint32_t kParts>
__device__ void copy_w(const hr_cuda_tower_layer &layer, uint32_t shared, uint32_t n0, uint32_t padded,
                       uint32_t panel) {
    const size_t from = hr_cuda_panel_at(padded * kDepth, n0, panel * kDepth) + threadIdx.x * 8;
#pragma unroll
    for (uint32_t part = 0; part < kParts; part++) {
#pragma unroll
        for (uint32_t i = 0; i < Cell::kCopiesW; i++) {
            const uint32_t element = i * Cell::kThreads * 8;
            copy_async(shared + part * Cell::kWBytes + (threadIdx.x * 8 + element) * 2,
                       layer.parts[part] + from + element);
        }
    }
    copy_commit();
}

/* As exact as the products before it. */
template <uint32_t kParts> __device__ float tower_activate(uint32_t activation, float z) {
    if (kParts < 3 && activation == HR_CUDA_SWISH) return z * __fdividef(1.0F, 1.0F + __expf(-z));
    return activate(activation, z);
}

/* hidden = act(x W^T + b), zeros up to the padded width. hidden is read by this very kernel: plain loads and
 * a barrier, no read-only path. */
template <uint32_t kParts, typename Input>
__device__ void hidden_layer(const hr_cuda_tower &t, const hr_cuda_tower_layer &layer, const Input &input,
                             float *hidden, uint32_t m0) {
    const uint32_t padded = hr_cuda_padded(layer.n);
    const uint32_t x = static_cast<uint32_t>(__cvta_generic_to_shared(dynamic_shared()));
    const uint32_t w = x + kParts * Cell::kXBytes;
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t warp_m = warp / Cell::kWarpsN * Cell::kWarpM, warp_n = warp % Cell::kWarpsN * Cell::kWarpN;
    for (uint32_t n0 = 0; n0 < padded; n0 += Cell::kN) {
        TileSums<Cell> sums = {};
        for (uint32_t panel = 0; panel < layer.k / kDepth; panel++) {
            __syncthreads(); /* the panel before has been multiplied */
            copy_w<kParts>(layer, w, n0, padded, panel);
            put_x<kParts>(input, panel);
            copy_wait<0>();
            __syncthreads();
#pragma unroll
            for (uint32_t i = 0; i < kParts; i++) {
#pragma unroll
                for (uint32_t j = 0; i + j < kParts; j++)
                    multiply_panel<Cell>(sums, x + i * Cell::kXBytes, w + j * Cell::kWBytes, warp_m, warp_n);
            }
        }
#pragma unroll
        for (uint32_t j = 0; j < Cell::kTilesN; j++) {
#pragma unroll
            for (uint32_t e = 0; e < 4; e++) {
                const uint32_t column = n0 + warp_n + j * 8 + fragment_column() + e % 2;
                const uint32_t row = m0 + warp_m + e / 2 * 8 + fragment_row();
                const bool real = column < layer.n;
                const float z = sums[0][j][e] + layer.bias[real ? column : 0];
                hidden[(size_t)row * t.ld_hidden + column] =
                    real ? tower_activate<kParts>(t.activation, z) : 0.0F;
            }
        }
    }
}

/* kLogitLanes threads a row, four columns in turn, then their sums in a fixed order. */
__device__ void logit_layer(const hr_cuda_tower &t, const hr_cuda_tower_layer &layer, const float *x,
                            uint32_t ld, uint32_t m0) {
    const uint32_t row = m0 + threadIdx.x / kLogitLanes, first = threadIdx.x % kLogitLanes;
    const float *from = x + (size_t)row * ld;
    float sum = 0.0F;
    for (uint32_t c = first * 4; c < layer.k; c += 4 * kLogitLanes) {
        const float4 a = *reinterpret_cast<const float4 *>(from + c);
        const float4 w = *reinterpret_cast<const float4 *>(layer.weight + c);
        sum = fmaf(a.w, w.w, fmaf(a.z, w.z, fmaf(a.y, w.y, fmaf(a.x, w.x, sum))));
    }
    for (uint32_t distance = 1; distance < kLogitLanes; distance *= 2)
        sum += __shfl_xor_sync(kAllLanes, sum, distance);
    if (first == 0) t.logits[(size_t)row * t.n_tasks] = sum + layer.bias[0];
}

/* The mix to shared memory, and its terms where there is room. Returns where those are. */
__device__ const hr_cuda_term *fetch_mix(const hr_cuda_mix &from, NearMix &near) {
    const uint32_t n = from.n_mixed + from.n_self;
    if (threadIdx.x == 0) near.mix = from;
    if (threadIdx.x < n && n <= kTermsNear) near.terms[threadIdx.x] = from.terms[threadIdx.x];
    __syncthreads();
    return n <= kTermsNear ? near.terms : from.terms;
}

template <uint32_t kParts>
__global__ void __launch_bounds__(Cell::kThreads, 2)
    tower_kernel(const hr_cuda_tower *towers, const uint32_t *staging) {
    NearMix &near = *reinterpret_cast<NearMix *>(dynamic_shared() + kNearAt<kParts>);
    const uint32_t m0 = blockIdx.y * Cell::kM;
    let_next_start();
    const hr_cuda_tower t = towers[blockIdx.x];
    const hr_cuda_term *terms = t.mix == nullptr ? nullptr : fetch_mix(*t.mix, near);
    wait_for_previous();
    if (m0 >= header_of(staging)->n_rows) return;
    const float *x = t.x;
    uint32_t ld = t.ld;
    for (uint32_t i = 0; i + 1 < t.n_layers; i++) {
        float *hidden = i % 2 == 0 ? t.hidden[0] : t.hidden[1];
        if (i == 0 && t.mix != nullptr) {
            const MixRows<kParts == 2, kRowsEach, kRowStep, kParts == 2 ? 4 : 2> mixed(
                near.mix, terms, m0 + threadIdx.x / kLanes, threadIdx.x % kLanes);
            hidden_layer<kParts>(t, t.layers[i], mixed, hidden, m0);
        } else {
            hidden_layer<kParts>(t, t.layers[i], Stored{x, ld, m0}, hidden, m0);
        }
        __syncthreads(); /* all of hidden's rows of this block are written */
        x = hidden;
        ld = t.ld_hidden;
    }
    logit_layer(t, t.layers[t.n_layers - 1], x, ld, m0);
}

template <uint32_t kParts> int run(const hr_cuda_launch *launch, void *stream) {
    const Shape shape = {dim3(launch->count, launch->m / Cell::kM), Cell::kThreads, kSharedBytes<kParts>};
    return start(tower_kernel<kParts>, shape, launch, stream,
                 static_cast<const hr_cuda_tower *>(launch->items), launch->staging);
}

} // namespace

extern "C" int hr_cuda_tower_prepare(void) {
    cudaFuncAttributes attributes;
    int code = cudaFuncGetAttributes(&attributes, tower_kernel<2>);
    if (code == 0) code = cudaFuncGetAttributes(&attributes, tower_kernel<3>);
    if (code != 0) return code;
    return cudaFuncSetAttribute(tower_kernel<3>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                kSharedBytes<3>);
}

extern "C" int hr_cuda_tower_launch(const hr_cuda_launch *launch, void *stream) {
    return launch->f32 ? run<3>(launch, stream) : run<2>(launch, stream);
}
