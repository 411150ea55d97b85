/* Grouped products with bf16 operands: see product.h. Of devices other than compute capability 9.0's.
 *
 * A launch is one grid over the column tiles of all its products (x) and the batch's row tiles (y). A block
 * computes one tile of x W^T: panels of K come by cp.async into a ring of kStages in shared memory, as they
 * lie (hr_cuda_panel_at); warps multiply by mma.m16n8k16.
 *
 * Batch invariance: see tile_bf16.cuh; K is never split.
 *
 * A feature gate is the same product with its branches side by side in K: at the end of each branch the
 * accumulators are folded into F's sum and start again from zero.
 */
#include "kernels/cuda/product.h"
#include "kernels/cuda/tile_bf16.cuh"

namespace {

constexpr size_t kMostShared = 99 * 1024; /* of a block on sm_86 and sm_89; sm_80 and sm_90 have more */

template <uint32_t kM, uint32_t kN, uint32_t kWarpsM, uint32_t kWarpsN, uint32_t kStages_>
struct Config : Tile<kM, kN, kWarpsM, kWarpsN> {
    static constexpr uint32_t kStages = kStages_;
    static constexpr uint32_t kStageBytes = (kM + kN) * kRowBytes;
    static constexpr uint32_t kSharedBytes = kStages * kStageBytes;
};
using Large = Config<128, 128, 2, 4, 3>; /* 256 threads, 96 KiB */
using Small = Config<64, 64, 2, 2, 4>;   /* 128 threads, 64 KiB */

/* Copies the stages of one tile in turn. */
template <typename C> struct Loader {
    const hr_cuda_part *part; /* that holds the next stage */
    uint32_t begin, next;     /* its first column, and the next stage's */
    const uint16_t *weight;   /* of the tile's first row in the next panel */
    uint32_t k, rows, ld;     /* of W: all columns, the tile's rows, from panel to panel */
    uint32_t m0;

    __device__ Loader(const hr_cuda_product &p, uint32_t m, uint32_t n)
        : part(p.x), begin(0), next(0),
          weight(static_cast<const uint16_t *>(p.weight) + (size_t)n * HR_CUDA_PAD), k(p.k),
          rows(min(C::kN, p.n_padded - n)), ld(p.n_padded * HR_CUDA_PAD), m0(m) {
    }
    /* The next stage into shared memory at `to`; nothing where there is none left. Closes a group either way.
     */
    __device__ void load(uint32_t to) {
        if (next < k) {
            if (next == part->end) {
                begin = next;
                part++;
            }
            const uint32_t at = threadIdx.x * 8; /* this thread's first chunk */
            const auto *x =
                static_cast<const uint16_t *>(part->x) + hr_cuda_panel_at(part->ld, m0, next - begin) + at;
#pragma unroll
            for (uint32_t i = 0; i < C::kCopiesX; i++)
                copy_async(to + at * 2 + i * C::kThreads * 16, x + i * C::kThreads * 8);
            const uint32_t w = to + C::kXBytes + at * 2;
#pragma unroll
            for (uint32_t i = 0; i < C::kCopiesW; i++) {
                /* Columns past n_padded read others' again: their sums are not stored. */
                const uint32_t element = at + i * C::kThreads * 8;
                copy_async(w + i * C::kThreads * 16, weight + element % (rows * HR_CUDA_PAD));
            }
            weight += ld;
            next += kDepth;
        }
        copy_commit();
    }
};

/* gate * x. m, n: the warp's first row and column. */
template <typename C>
__device__ void finish_gated(TileSums<C> &gate, const hr_cuda_product &p, uint32_t m, uint32_t n) {
#pragma unroll
    for (uint32_t j = 0; j < C::kTilesN; j++) {
        const uint32_t column = n + j * 8 + fragment_column();
        if (column >= p.n) continue;
        uint32_t begin;
        const hr_cuda_part *part = part_of(p.gated, column, &begin);
        const auto *high = static_cast<const uint16_t *>(part->x);
        const auto *low = static_cast<const uint16_t *>(p.gated_low[part - p.gated].x);
#pragma unroll
        for (uint32_t i = 0; i < C::kTilesM; i++) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                const uint32_t row = m + i * 16 + half * 8 + fragment_row();
                const size_t at = hr_cuda_panel_at(part->ld, row, column - begin);
                multiply_pair(gate[i][j], half, *reinterpret_cast<const uint32_t *>(high + at),
                              *reinterpret_cast<const uint32_t *>(low + at));
            }
        }
    }
}

/* m, n: the warp's first row and column. */
template <typename C>
__device__ void store_bf16(const TileSums<C> &sums, const hr_cuda_product &p, uint32_t m, uint32_t n) {
#pragma unroll
    for (uint32_t j = 0; j < C::kTilesN; j++) {
        const uint32_t column = n + j * 8 + fragment_column();
        if (column >= p.n_padded) continue;
#pragma unroll
        for (uint32_t i = 0; i < C::kTilesM; i++) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                const uint32_t row = m + i * 16 + half * 8 + fragment_row();
                uint16_t *to = static_cast<uint16_t *>(p.y) + hr_cuda_panel_at(p.ld_y, row, column);
                *reinterpret_cast<uint32_t *>(to) = bf16_pair(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
            }
        }
    }
}

template <typename C, bool kGate>
__global__ void __launch_bounds__(C::kThreads)
    product_kernel(const hr_cuda_product *products, const hr_cuda_tile *tiles, const uint32_t *staging) {
    const uint32_t m0 = blockIdx.y * C::kM, n0 = tiles[blockIdx.x].column;
    let_next_start();
    wait_for_previous();
    if (m0 >= header_of(staging)->n_rows) return;
    const hr_cuda_product p = products[tiles[blockIdx.x].product];
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t warp_m = warp / C::kWarpsN * C::kWarpM, warp_n = warp % C::kWarpsN * C::kWarpN;
    const uint32_t shared = static_cast<uint32_t>(__cvta_generic_to_shared(dynamic_shared()));
    const uint32_t n_stages = p.k / kDepth;

    Loader<C> loader(p, m0, n0);
    for (uint32_t s = 0; s + 1 < C::kStages; s++) loader.load(shared + s * C::kStageBytes);
    TileSums<C> sums = {}, gate;
    Branches branches[C::kTilesM][2];
    if constexpr (kGate) {
        map<C::kTilesM, C::kTilesN>(gate, [](float) { return 1.0F; });
        begin_branches(branches, p, m0 + warp_m);
    }
    uint32_t per_branch = kGate ? n_stages / p.loras : 0, left = per_branch, branch = 0;
    for (uint32_t s = 0; s < n_stages; s++) {
        copy_wait<C::kStages - 2>(); /* stage s is here */
        __syncthreads();             /* for all threads, and all have done with stage s - 1 */
        loader.load(shared + (s + C::kStages - 1) % C::kStages * C::kStageBytes);
        const uint32_t stage = shared + s % C::kStages * C::kStageBytes;
        multiply_panel<C>(sums, stage, stage + C::kXBytes, warp_m, warp_n);
        if constexpr (kGate) {
            if (--left > 0) continue;
            fold<C::kTilesM, C::kTilesN>(gate, sums, branches, branch++);
            map<C::kTilesM, C::kTilesN>(sums, [](float) { return 0.0F; });
            left = per_branch;
        }
    }
    if constexpr (kGate) {
        finish_gated<C>(gate, p, m0 + warp_m, n0 + warp_n);
        store_bf16<C>(gate, p, m0 + warp_m, n0 + warp_n);
        return;
    }
    const float *bias = p.bias == nullptr ? nullptr : p.bias + n0 + warp_n;
    finish_plain<C::kTilesM, C::kTilesN>(sums, 0, C::kTilesN, bias, p.activation);
    if (p.y_is_bf16) {
        store_bf16<C>(sums, p, m0 + warp_m, n0 + warp_n);
    } else {
        store_f32<C::kTilesM, C::kTilesN>(sums, p, m0 + warp_m, n0 + warp_n);
    }
}

/* Asking for a kernel's attributes loads it. */
template <typename C, bool kGate> int prepare() {
    static_assert(C::kSharedBytes <= kMostShared, "more than every device has");
    cudaFuncAttributes attributes;
    const int code = cudaFuncGetAttributes(&attributes, product_kernel<C, kGate>);
    if (code != 0) return code;
    return cudaFuncSetAttribute(product_kernel<C, kGate>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                C::kSharedBytes);
}

template <typename C, bool kGate> int run(const hr_cuda_launch *launch, void *stream) {
    const Shape shape = {dim3(launch->count, launch->m / C::kM), C::kThreads, C::kSharedBytes};
    return start(product_kernel<C, kGate>, shape, launch, stream,
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
    if (launch->tile_n == Large::kN)
        return gates ? run<Large, true>(launch, stream) : run<Large, false>(launch, stream);
    return gates ? run<Small, true>(launch, stream) : run<Small, false>(launch, stream);
}
