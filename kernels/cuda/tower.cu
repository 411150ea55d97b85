/* Towers: see tower.h. A block takes 64 rows through one task's tower.
 *
 * A hidden layer's operands are split into bf16 parts, x = x0 + x1 + ..., and the products xi Wj with i + j <
 * kParts are summed on the tensor cores: within some 2^-17 of the terms by two parts (for bf16 operands
 * elsewhere), and as exact as f32 by three, in a fraction of FFMA's time. The last hidden layer's values go
 * into the logits from the registers; those of layers before it go through the block's own rows of device
 * memory (it stays in the caches), so that layers may be of any width.
 */
#include "kernels/cuda/mix_row.cuh"
#include "kernels/cuda/tile_bf16.cuh"
#include "kernels/cuda/tower.h"

namespace {

using Cell = Tile<64, 64, 4, 4>;
static_assert(Cell::kThreads == Cell::kM * kLanes, "a thread puts eight columns of one row");
static_assert(Cell::kThreads * 16 == Cell::kWBytes, "and 16 bytes of W");

template <uint32_t kParts> using Mixed = MixRow<kParts == 2, Cell::kThreads>;

struct Near {
    hr_cuda_tower tower;
    hr_cuda_tower_layer layer; /* at work */
};

/* Shared memory: a panel of each operand's parts, a mix's slots, then what is near. */
template <uint32_t kParts> constexpr uint32_t kSlotsAt = kParts *(Cell::kXBytes + Cell::kWBytes);
template <uint32_t kParts> constexpr uint32_t kNearAt = kSlotsAt<kParts> + Mixed<kParts>::kSharedBytes;
template <uint32_t kParts> constexpr uint32_t kSharedBytes = kNearAt<kParts> + sizeof(Near);
static_assert(kSharedBytes<2> <= 82 * 1024 - 1024, "two blocks a multiprocessor of compute capability 8.0");
static_assert(kSharedBytes<3> <= 99 * 1024, "one of 8.6");

constexpr uint32_t kLogitLanes = Cell::kThreads / Cell::kM;

/* A layer's input that lies in rows of f32; used as a MixRow is. */
struct Stored {
    const float *x;  /* the thread's row */
    uint32_t column; /* by begin() */

    __device__ void begin() {
        column = threadIdx.x % kLanes * kColumns;
    }
    __device__ Columns columns() {
        const float *from = x + column;
        column += HR_CUDA_PAD;
        return columns_of(*reinterpret_cast<const float4 *>(from),
                          *reinterpret_cast<const float4 *>(from + 4));
    }
};

/* Where a hidden layer's values go: to memory, for the next one; or, times the last layer's weights, into the
 * thread's shares of the logits of two rows. */
struct Output {
    float *hidden; /* (M, ld), or NULL */
    uint32_t ld;
    const float *weight;
    float shares[2];

    __device__ void put(uint32_t row, uint32_t half, uint32_t column, float y) {
        if (hidden != nullptr) {
            hidden[(size_t)row * ld + column] = y;
        } else {
            shares[half] = fmaf(y, weight[column], shares[half]);
        }
    }
};

/* The thread's 16 bytes of each part of W's rows [n0, n0 + 64) of a panel. */
template <uint32_t kParts> struct PanelOfW {
    uint4 parts[kParts];

    __device__ PanelOfW(const hr_cuda_tower_layer &layer, uint32_t n0, uint32_t panel) {
        const size_t at = hr_cuda_panel_at(hr_cuda_padded(layer.n) * kDepth, n0, panel * kDepth);
#pragma unroll
        for (uint32_t part = 0; part < kParts; part++)
            parts[part] = __ldg(reinterpret_cast<const uint4 *>(layer.parts[part] + at + threadIdx.x * 8));
    }
    __device__ void put() const {
        uint8_t *to = dynamic_shared() + kParts * Cell::kXBytes + threadIdx.x * 16;
#pragma unroll
        for (uint32_t part = 0; part < kParts; part++)
            *reinterpret_cast<uint4 *>(to + part * Cell::kWBytes) = parts[part];
    }
};

template <uint32_t kParts> __device__ void put_x(Columns x) {
    uint8_t *to = dynamic_shared() + swizzled(threadIdx.x / kLanes, threadIdx.x % kLanes);
#pragma unroll
    for (uint32_t part = 0; part < kParts; part++)
        *reinterpret_cast<uint4 *>(to + part * Cell::kXBytes) = take_parts(x);
}

/* As exact as the products before it. */
template <uint32_t kParts> __device__ float tower_activate(uint32_t activation, float z) {
    if (kParts < 3 && activation == HR_CUDA_SWISH) return z * __fdividef(1.0F, 1.0F + __expf(-z));
    return activate(activation, z);
}

/* act(x W^T + b), zeros up to the padded width. */
template <uint32_t kParts, typename Input>
__device__ void hidden_layer(const hr_cuda_tower_layer &layer, uint32_t activation, Input &input,
                             Output &output, uint32_t m0) {
    const uint32_t x = static_cast<uint32_t>(__cvta_generic_to_shared(dynamic_shared()));
    const uint32_t w = x + kParts * Cell::kXBytes;
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t warp_m = warp / Cell::kWarpsN * Cell::kWarpM, warp_n = warp % Cell::kWarpsN * Cell::kWarpN;
    const float *bias = layer.bias;
    const uint32_t n = layer.n;
    for (uint32_t n0 = 0; n0 < n; n0 += Cell::kN) {
        TileSums<Cell> sums = {};
        input.begin();
        for (uint32_t panel = 0; panel < layer.k / kDepth; panel++) {
            const PanelOfW<kParts> panel_of_w(layer, n0, panel);
            const Columns columns = input.columns();
            __syncthreads(); /* the panel before has been multiplied */
            panel_of_w.put();
            put_x<kParts>(columns);
            __syncthreads();
#pragma unroll 1 /* or addresses of all take more registers than there are */
            for (uint32_t i = 0; i < kParts; i++) {
#pragma unroll 1
                for (uint32_t j = 0; i + j < kParts; j++)
                    multiply_panel<Cell>(sums, x + i * Cell::kXBytes, w + j * Cell::kWBytes, warp_m, warp_n);
            }
        }
#pragma unroll
        for (uint32_t j = 0; j < Cell::kTilesN; j++) {
#pragma unroll
            for (uint32_t e = 0; e < 4; e++) {
                const uint32_t column = n0 + warp_n + j * 8 + fragment_column() + e % 2;
                const bool real = column < n;
                const float z = sums[0][j][e] + bias[real ? column : 0];
                output.put(m0 + warp_m + e / 2 * 8 + fragment_row(), e / 2, column,
                           real ? tower_activate<kParts>(activation, z) : 0.0F);
            }
        }
    }
}

/* The rows' logits from all threads' shares of them, in a fixed order. */
__device__ void sum_shares(const hr_cuda_tower &t, const Output &output, uint32_t m0) {
    using Rows = float[Cell::kM];
    Rows *of_warps = reinterpret_cast<Rows *>(dynamic_shared()); /* (kWarpsN), where the operands were */
    const uint32_t warp = threadIdx.x / kWarp;
    __syncthreads(); /* they have been multiplied */
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        float sum = output.shares[half];
        sum += __shfl_xor_sync(kAllLanes, sum, 1);
        sum += __shfl_xor_sync(kAllLanes, sum, 2);
        const uint32_t row = warp / Cell::kWarpsN * Cell::kWarpM + half * 8 + fragment_row();
        if (threadIdx.x % 4 == 0) of_warps[warp % Cell::kWarpsN][row] = sum;
    }
    __syncthreads();
    if (threadIdx.x >= Cell::kM) return;
    float sum = t.layers[t.n_layers - 1].bias[0];
#pragma unroll
    for (uint32_t i = 0; i < Cell::kWarpsN; i++) sum += of_warps[i][threadIdx.x];
    t.logits[(size_t)(m0 + threadIdx.x) * t.n_tasks] = sum;
}

/* Of a tower without hidden layers: kLogitLanes threads a row, four columns in turn, then their sums in a
 * fixed order. */
__device__ void logit_layer(const hr_cuda_tower &t, uint32_t m0) {
    const hr_cuda_tower_layer &layer = t.layers[0];
    const uint32_t row = m0 + threadIdx.x / kLogitLanes, first = threadIdx.x % kLogitLanes;
    const float *from = t.x + (size_t)row * t.ld;
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

template <uint32_t kParts>
__global__ void __launch_bounds__(Cell::kThreads, 2)
    tower_kernel(const hr_cuda_tower *towers, const uint32_t *staging) {
    Near &near = *reinterpret_cast<Near *>(dynamic_shared() + kNearAt<kParts>);
    const hr_cuda_tower &t = near.tower;
    const uint32_t m0 = blockIdx.y * Cell::kM, row = m0 + threadIdx.x / kLanes;
    let_next_start();
    if (threadIdx.x == 0) {
        near.tower = towers[blockIdx.x];
        near.layer = t.layers[0];
    }
    __syncthreads();
    wait_for_previous();
    if (m0 >= header_of(staging)->n_rows) return;
    if (t.n_layers == 1) {
        logit_layer(t, m0);
        return;
    }
    Stored stored;
    stored.x = t.x + (size_t)row * t.ld;
    Output output = {};
    for (uint32_t i = 0; i + 1 < t.n_layers; i++) {
        output = {i + 2 < t.n_layers ? t.hidden[i % 2] : nullptr, t.ld_hidden, t.layers[i + 1].weight, {}};
        if (i == 0 && t.mix.n_terms > 0) {
            Mixed<kParts> mixed(t.mix, dynamic_shared() + kSlotsAt<kParts>, row);
            hidden_layer<kParts>(near.layer, t.activation, mixed, output, m0);
        } else {
            hidden_layer<kParts>(near.layer, t.activation, stored, output, m0);
        }
        if (output.hidden == nullptr) break;
        __syncthreads(); /* all of hidden's rows of this block are written, and the layer has been read */
        if (threadIdx.x == 0) near.layer = t.layers[i + 1];
        __syncthreads();
        stored.x = output.hidden + (size_t)row * output.ld;
    }
    sum_shares(t, output, m0);
}

template <uint32_t kParts> int prepare() {
    cudaFuncAttributes attributes;
    const int code = cudaFuncGetAttributes(&attributes, tower_kernel<kParts>);
    if (code != 0) return code;
    return cudaFuncSetAttribute(tower_kernel<kParts>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                kSharedBytes<kParts>);
}

template <uint32_t kParts> int run(const hr_cuda_launch *launch, void *stream) {
    const Shape shape = {dim3(launch->count, launch->m / Cell::kM), Cell::kThreads, kSharedBytes<kParts>};
    return start(tower_kernel<kParts>, shape, launch, stream,
                 static_cast<const hr_cuda_tower *>(launch->items), launch->staging);
}

} // namespace

extern "C" int hr_cuda_tower_prepare(void) {
    const int code = prepare<2>();
    return code == 0 ? prepare<3>() : code;
}

extern "C" int hr_cuda_tower_launch(const hr_cuda_launch *launch, void *stream) {
    return launch->f32 ? run<3>(launch, stream) : run<2>(launch, stream);
}
