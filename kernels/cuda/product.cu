/* Grouped products with bf16 operands: see product.h.
 *
 * A launch is one grid over the column tiles of all its products (x) and the batch's row tiles (y). A block
 * computes one tile of x W^T: slices of 64 columns of K come by cp.async into a ring of kStages in shared
 * memory, rows of 128 bytes whose eight 16-byte chunks are swizzled by the row, so that neither the copies
 * nor ldmatrix meet a bank conflict; warps multiply by mma.m16n8k16.
 *
 * Batch invariance: an element's sum runs over K in steps of 16, in order, in one accumulator, whatever the
 * tile's size or the row's place in it; K is never split.
 *
 * A feature gate is the same product with its branches side by side in K: at the end of each branch the
 * accumulators are folded into F's sum and start again from zero.
 */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/product.h"

namespace {

constexpr uint32_t kDepth = HR_CUDA_PAD;     /* K columns of a stage */
constexpr uint32_t kRowBytes = kDepth * 2;   /* of a tile in shared memory */
constexpr uint32_t kChunks = kRowBytes / 16; /* of a row */
constexpr size_t kMostShared = 99 * 1024;    /* of a block on sm_86 and sm_89; sm_80 and sm_90 have more */

/* A tile of kM x kN by kWarpsM x kWarpsN warps. */
template <uint32_t kM_, uint32_t kN_, uint32_t kWarpsM_, uint32_t kWarpsN_, uint32_t kStages_> struct Config {
    static constexpr uint32_t kM = kM_, kN = kN_, kWarpsN = kWarpsN_, kStages = kStages_;
    static constexpr uint32_t kThreads = kWarpsM_ * kWarpsN_ * kWarp;
    static constexpr uint32_t kWarpM = kM / kWarpsM_, kWarpN = kN / kWarpsN_; /* a warp's share */
    static constexpr uint32_t kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;    /* in mma tiles */
    static constexpr uint32_t kCopiesX = kM * kChunks / kThreads, kCopiesW = kN * kChunks / kThreads;
    static constexpr uint32_t kStageBytes = (kM + kN) * kRowBytes;
    static constexpr uint32_t kSharedBytes = kStages * kStageBytes;
    static_assert(kTilesN % 2 == 0, "W's fragments are loaded for two tiles at a time");
    static_assert(kM * kChunks % kThreads == 0 && kN * kChunks % kThreads == 0,
                  "every thread copies as much");
};
using Large = Config<128, 128, 2, 4, 3>; /* 256 threads, 96 KiB */
using Small = Config<64, 64, 2, 2, 4>;   /* 128 threads, 64 KiB */

template <typename C> using Sums = float[C::kTilesM][C::kTilesN][4];

/* Where chunk `chunk` of row `row` of a tile lies. */
__device__ inline uint32_t swizzled(uint32_t row, uint32_t chunk) {
    return row * kRowBytes + ((chunk ^ (row % 8)) * 16);
}

/* Copies the stages of one tile in turn. */
template <typename C> struct Loader {
    const hr_cuda_part *part; /* that holds the next stage */
    uint32_t begin, next;     /* its first column, and the next stage's */
    const uint16_t *weight;   /* of W's row 0 */
    uint32_t k, last_row;     /* W's */
    uint32_t m0, n0;
    uint32_t slices[C::kCopiesX]; /* of the rows this thread copies */

    __device__ Loader(const hr_cuda_product &p, const uint32_t *slice_of, uint32_t m, uint32_t n)
        : part(p.x), begin(0), next(0), weight(static_cast<const uint16_t *>(p.weight)), k(p.k),
          last_row(p.n - 1), m0(m), n0(n) {
#pragma unroll
        for (uint32_t i = 0; i < C::kCopiesX; i++) slices[i] = slice_of[m0 + row_of(i)];
    }
    /* The row and chunk that this thread's copy i takes. */
    __device__ static uint32_t row_of(uint32_t i) {
        return (threadIdx.x + i * C::kThreads) / kChunks;
    }
    __device__ static uint32_t chunk() {
        return threadIdx.x % kChunks;
    }
    /* The next stage into shared memory at `to`; nothing where there is none left. Closes a group either way.
     */
    __device__ void load(uint32_t to) {
        if (next < k) {
            if (next == part->end) {
                begin = next;
                part++;
            }
            const auto *x = static_cast<const uint16_t *>(part->x) + (next - begin) + chunk() * 8;
#pragma unroll
            for (uint32_t i = 0; i < C::kCopiesX; i++) {
                const uint32_t row = part->shared ? slices[i] : m0 + row_of(i);
                copy_async(to + swizzled(row_of(i), chunk()), x + (size_t)row * part->ld);
            }
            const uint16_t *w = weight + next + chunk() * 8;
#pragma unroll
            for (uint32_t i = 0; i < C::kCopiesW; i++) {
                /* Columns past n read the last one again: their sums are not stored. */
                const uint32_t row = min(n0 + row_of(i), last_row);
                copy_async(to + C::kM * kRowBytes + swizzled(row_of(i), chunk()), w + (size_t)row * k);
            }
            next += kDepth;
        }
        copy_commit();
    }
};

/* sums += one stage's columns. */
template <typename C>
__device__ void multiply_stage(Sums<C> &sums, uint32_t stage, uint32_t warp_m, uint32_t warp_n) {
    const uint32_t lane = threadIdx.x % kWarp;
    const uint32_t x_row = warp_m + lane % 16, x_chunk = lane / 16;
    const uint32_t w_row = warp_n + lane % 8 + lane / 16 * 8, w_chunk = lane / 8 % 2;
    const uint32_t w = stage + C::kM * kRowBytes;
#pragma unroll
    for (uint32_t step = 0; step < kDepth / 16; step++) {
        uint32_t a[C::kTilesM][4], b[C::kTilesN / 2][4];
#pragma unroll
        for (uint32_t i = 0; i < C::kTilesM; i++)
            load_matrices(a[i], stage + swizzled(x_row + i * 16, step * 2 + x_chunk));
#pragma unroll
        for (uint32_t j = 0; j < C::kTilesN / 2; j++)
            load_matrices(b[j], w + swizzled(w_row + j * 16, step * 2 + w_chunk));
#pragma unroll
        for (uint32_t i = 0; i < C::kTilesM; i++) {
#pragma unroll
            for (uint32_t j = 0; j < C::kTilesN; j++)
                multiply(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }
}

/* A row's softmax over its branches: exp(z - top) / total. */
struct Branches {
    float top, total;
};

__device__ Branches branches_of(const hr_cuda_product &p, uint32_t row) {
    const float *z = p.logits + (size_t)row * p.ld_logits;
    Branches b = {z[0], 0.0F};
    for (uint32_t l = 1; l < p.loras; l++) b.top = fmaxf(b.top, z[l]);
    for (uint32_t l = 0; l < p.loras; l++) b.total += __expf(z[l] - b.top);
    return b;
}

/* This thread's elements of a warp's tile (i, j): rows r and r + 8, columns c and c + 1. */
__device__ inline uint32_t fragment_row() {
    return threadIdx.x % kWarp / 4;
}
__device__ inline uint32_t fragment_column() {
    return threadIdx.x % 4 * 2;
}

/* gate += weight of branch l * 2 sigmoid(sums), and sums = 0. m: the warp's first row of the batch; local: of
 * the block's tile. */
template <typename C>
__device__ void fold(Sums<C> &gate, Sums<C> &sums, const hr_cuda_product &p, const Branches *branches,
                     uint32_t l, uint32_t m, uint32_t local) {
#pragma unroll
    for (uint32_t i = 0; i < C::kTilesM; i++) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t row = i * 16 + half * 8 + fragment_row();
            const Branches b = branches[local + row];
            const float z = p.logits[(size_t)(m + row) * p.ld_logits + l];
            const float weight = 2.0F * __fdividef(__expf(z - b.top), b.total);
#pragma unroll
            for (uint32_t j = 0; j < C::kTilesN; j++) {
#pragma unroll
                for (uint32_t e = 2 * half; e < 2 * half + 2; e++) {
                    gate[i][j][e] = fmaf(weight, fast_sigmoid(sums[i][j][e]), gate[i][j][e]);
                    sums[i][j][e] = 0.0F;
                }
            }
        }
    }
}

__device__ inline void store_pair(const hr_cuda_product &p, uint32_t row, uint32_t column, float first,
                                  float second) {
    const size_t to = (size_t)row * p.ld_y + column;
    if (p.y_is_bf16) {
        const uint32_t both = bf16_bits(first) | (uint32_t)bf16_bits(second) << 16;
        *reinterpret_cast<uint32_t *>(static_cast<uint16_t *>(p.y) + to) = both;
    } else {
        *reinterpret_cast<float2 *>(static_cast<float *>(p.y) + to) = make_float2(first, second);
    }
}

/* y = act(sums + b). m, n: the warp's first row and column. */
template <typename C>
__device__ void store_plain(const Sums<C> &sums, const hr_cuda_product &p, uint32_t m, uint32_t n) {
#pragma unroll
    for (uint32_t j = 0; j < C::kTilesN; j++) {
        const uint32_t column = n + j * 8 + fragment_column();
        if (column >= p.n_padded) continue;
        const bool real[2] = {column < p.n, column + 1 < p.n};
        float bias[2] = {0.0F, 0.0F};
        for (uint32_t e = 0; e < 2; e++) {
            if (real[e] && p.bias != nullptr) bias[e] = p.bias[column + e];
        }
#pragma unroll
        for (uint32_t i = 0; i < C::kTilesM; i++) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                const float *s = &sums[i][j][2 * half];
                const float first = real[0] ? activate<true>(p.activation, s[0] + bias[0]) : 0.0F;
                const float second = real[1] ? activate<true>(p.activation, s[1] + bias[1]) : 0.0F;
                store_pair(p, m + i * 16 + half * 8 + fragment_row(), column, first, second);
            }
        }
    }
}

/* y = x * gate, x in f32 from wherever its columns lie. */
template <typename C>
__device__ void store_gated(const Sums<C> &gate, const hr_cuda_product &p, const uint32_t *slices, uint32_t m,
                            uint32_t n) {
#pragma unroll
    for (uint32_t j = 0; j < C::kTilesN; j++) {
        const uint32_t column = n + j * 8 + fragment_column();
        if (column >= p.n_padded) continue;
        const bool real[2] = {column < p.n, column + 1 < p.n};
        const hr_cuda_part *part[2] = {nullptr, nullptr};
        uint32_t begin[2] = {0, 0};
        for (uint32_t e = 0; e < 2; e++) {
            if (real[e]) part[e] = part_of(p.gated, column + e, &begin[e]);
        }
#pragma unroll
        for (uint32_t i = 0; i < C::kTilesM; i++) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                const uint32_t row = m + i * 16 + half * 8 + fragment_row(), slice = slices[row];
                float y[2] = {0.0F, 0.0F};
                for (uint32_t e = 0; e < 2; e++) {
                    if (real[e])
                        y[e] =
                            gated_value(part[e], begin[e], row, slice, column + e) * gate[i][j][2 * half + e];
                }
                store_pair(p, row, column, y[0], y[1]);
            }
        }
    }
}

template <typename C, bool kGate>
__global__ void __launch_bounds__(C::kThreads)
    product_kernel(const hr_cuda_product *products, const hr_cuda_tile *tiles, const uint32_t *staging) {
    __shared__ Branches branches[kGate ? C::kM : 1];
    const uint32_t m0 = blockIdx.y * C::kM, n0 = tiles[blockIdx.x].column;
    if (m0 >= header_of(staging)->n_rows) return;
    const hr_cuda_product p = products[tiles[blockIdx.x].product];
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t warp_m = warp / C::kWarpsN * C::kWarpM, warp_n = warp % C::kWarpsN * C::kWarpN;
    const uint32_t shared = static_cast<uint32_t>(__cvta_generic_to_shared(dynamic_shared()));
    const uint32_t n_stages = p.k / kDepth;

    Loader<C> loader(p, slice_of(staging), m0, n0);
    for (uint32_t s = 0; s + 1 < C::kStages; s++) loader.load(shared + s * C::kStageBytes);
    if constexpr (kGate) { /* the loop's first barrier makes them seen */
        for (uint32_t r = threadIdx.x; r < C::kM; r += C::kThreads) branches[r] = branches_of(p, m0 + r);
    }
    Sums<C> sums = {}, gate = {};
    uint32_t per_branch = kGate ? n_stages / p.loras : 0, left = per_branch, branch = 0;
    for (uint32_t s = 0; s < n_stages; s++) {
        copy_wait<C::kStages - 2>(); /* stage s is here */
        __syncthreads();             /* for all threads, and all have done with stage s - 1 */
        loader.load(shared + (s + C::kStages - 1) % C::kStages * C::kStageBytes);
        multiply_stage<C>(sums, shared + s % C::kStages * C::kStageBytes, warp_m, warp_n);
        if constexpr (kGate) {
            if (--left > 0) continue;
            fold<C>(gate, sums, p, branches, branch++, m0 + warp_m, warp_m);
            left = per_branch;
        }
    }
    if constexpr (kGate) {
        store_gated<C>(gate, p, slice_of(staging), m0 + warp_m, n0 + warp_n);
    } else {
        store_plain<C>(sums, p, m0 + warp_m, n0 + warp_n);
    }
}

/* Asking for a kernel's attributes loads it. */
template <typename C, bool kGate> int prepare() {
    static_assert(C::kSharedBytes + C::kM * sizeof(Branches) <= kMostShared, "more than every device has");
    cudaFuncAttributes attributes;
    const int code = cudaFuncGetAttributes(&attributes, product_kernel<C, kGate>);
    if (code != 0) return code;
    return cudaFuncSetAttribute(product_kernel<C, kGate>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                C::kSharedBytes);
}

template <typename C, bool kGate> int run(const hr_cuda_launch *launch, void *stream) {
    const dim3 grid(launch->count, launch->m / C::kM);
    return start(product_kernel<C, kGate>, grid, C::kThreads, C::kSharedBytes, stream,
                 static_cast<const hr_cuda_product *>(launch->items), launch->tiles, launch->staging);
}

} // namespace

extern "C" int hr_cuda_product_prepare(void) {
    int code = prepare<Large, false>();
    if (code == 0) code = prepare<Large, true>();
    if (code == 0) code = prepare<Small, false>();
    if (code == 0) code = prepare<Small, true>();
    return code;
}

extern "C" int hr_cuda_product_launch(const hr_cuda_launch *launch, void *stream) {
    const bool gates = launch->kind == HR_CUDA_FEATURE_GATES;
    if (launch->tile == Large::kM)
        return gates ? run<Large, true>(launch, stream) : run<Large, false>(launch, stream);
    return gates ? run<Small, true>(launch, stream) : run<Small, false>(launch, stream);
}
