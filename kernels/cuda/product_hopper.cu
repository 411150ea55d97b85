/* Grouped products by sm_90a's own instructions: see product_hopper.h.
 *
 * A launch computes the tiles that the column tiles of all its products make with the batch's row tiles. Its
 * blocks stay and take tile after tile, so that one tile's loads run while the last one's sums are stored. A
 * block's last warp is the producer: one thread copies panels of K into a ring of kStages in shared memory,
 * one run of memory for x and one for W; each further group of four warps multiplies 64 rows by wgmma. Full
 * barriers count a stage's bytes, empty ones the warps that have done with it.
 *
 * A group's bf16 sums go to memory by way of shared memory, a panel of 64 rows at a time.
 *
 * Batch invariance: an element's sum runs over K in steps of 16, in order, in one accumulator, whatever the
 * tile's size or the row's place in it; K is never split.
 *
 * A feature gate is the same product with its branches side by side in K: at the end of each branch the sums
 * are folded into the gate and start again.
 */
#include "kernels/cuda/product_hopper.h"
#include "kernels/cuda/tile_bf16.cuh"

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HR_HOPPER 1
#include "kernels/cuda/hopper.cuh"
#else
#pragma nv_diag_suppress 177 /* the sizes of kernels that this target has not */
#endif

namespace {

constexpr uint32_t kGroupRows = 64, kGroupThreads = 128;
constexpr size_t kMostShared = 227 * 1024; /* of a block on sm_90 */

/* What a group is told of its tile: copied 16 bytes a thread. */
template <uint32_t kN> struct alignas(16) Told {
    hr_cuda_product product;
    float bias[kN];
    hr_cuda_tile tiles[2]; /* this one and the next, in turn */
};

/* Tiles of kM x kN, kBlocks at a time on a multiprocessor. */
template <uint32_t kM_, uint32_t kN_, uint32_t kStages_, uint32_t kBlocks_, bool kGate_ = false>
struct Config {
    static constexpr uint32_t kM = kM_, kN = kN_, kStages = kStages_, kBlocks = kBlocks_;
    static constexpr bool kGate = kGate_;
    static constexpr uint32_t kGroups = kM / kGroupRows;
    static constexpr uint32_t kWarps = kGroups * (kGroupThreads / kWarp); /* that multiply */
    static constexpr uint32_t kThreads = (kWarps + 1) * kWarp;
    static constexpr uint32_t kTilesN = kN / 8, kPanelsN = kN / HR_CUDA_PAD;
    static constexpr uint32_t kXBytes = kM * kRowBytes, kStageBytes = (kM + kN) * kRowBytes;
    static constexpr uint32_t kPanelBytes = kGroupRows * kRowBytes;         /* of a group's sums */
    static constexpr uint32_t kPanelsLeaving = kPanelsN < 2 ? kPanelsN : 2; /* of sums at a time */
    static constexpr uint32_t kSumsBytes = kGroups * kPanelsLeaving * kPanelBytes;
    static constexpr uint32_t kSums = kStages * kStageBytes; /* after the ring; of a gate: x, high and low */
    static constexpr uint32_t kTold = kSums + (kGate ? 2 : 1) * kSumsBytes;   /* a group's Told each */
    static constexpr uint32_t kBarriers = kTold + kGroups * sizeof(Told<kN>); /* full, then empty */
    static constexpr uint32_t kSharedBytes = kBarriers + (kStages + (kGate ? 1 : 0)) * 16;
    static_assert(!kGate || kPanelsN == kPanelsLeaving, "a gate's x has a place of its own for each panel");
    static_assert((kSharedBytes + 1024) * kBlocks <= kMostShared + 1024, "more than a multiprocessor has");
};
using Small = Config<64, 64, 6, 2>;
using SmallGates = Config<64, 64, 5, 2, true>;
using Large = Config<128, 128, 6, 1>;
using Wide = Config<128, 256, 4, 1>;
using Gates = Config<128, 128, 5, 1, true>;

/* What a launch is told. */
struct Work {
    const hr_cuda_product *products;
    const hr_cuda_tile *tiles; /* (n_tiles) */
    uint32_t n_tiles;
    const uint32_t *staging;
};

#ifdef HR_HOPPER

template <typename C> struct Ring {
    uint32_t shared;
    __device__ uint32_t x(uint32_t s) const {
        return shared + s % C::kStages * C::kStageBytes;
    }
    __device__ uint32_t w(uint32_t s) const {
        return x(s) + C::kXBytes;
    }
    __device__ uint32_t full(uint32_t s) const {
        return shared + C::kBarriers + s % C::kStages * 8;
    }
    __device__ uint32_t empty(uint32_t s) const {
        return full(s) + C::kStages * 8;
    }
    /* Of a gate's x. */
    __device__ uint32_t x_full() const {
        return shared + C::kBarriers + C::kStages * 16;
    }
    __device__ uint32_t x_empty() const {
        return x_full() + 8;
    }
    /* How often the ring has gone round. */
    __device__ uint32_t parity(uint32_t s) const {
        return s / C::kStages & 1;
    }
};

/* The tiles of one block, in turn. Column tiles change first: the rows of x stay in the cache. */
template <typename C> struct Tiles {
    const Work &work;
    uint32_t at, end;

    __device__ explicit Tiles(const Work &w) : work(w), at(blockIdx.x) {
        end = (header_of(w.staging)->n_rows + C::kM - 1) / C::kM * w.n_tiles;
    }
    __device__ bool left() const {
        return at < end;
    }
    __device__ uint32_t row() const {
        return at / work.n_tiles * C::kM;
    }
    __device__ const hr_cuda_tile *tile() const {
        return work.tiles + at % work.n_tiles;
    }
    __device__ void go_on() {
        at += gridDim.x;
    }
};

/* Copies stages: one thread. */
template <typename C> struct Producer {
    const Ring<C> &ring;
    const hr_cuda_part *part;
    uint32_t begin; /* the part's first column */
    uint32_t stage; /* of all tiles so far */

    __device__ explicit Producer(const Ring<C> &r) : ring(r), part(nullptr), begin(0), stage(0) {
    }
    /* Stage s is panel `panel` of the tile. */
    __device__ void load_w(const hr_cuda_product &p, uint32_t n0, uint32_t s, uint32_t panel) {
        const uint32_t rows = min(C::kN, p.n_padded - n0);
        const uint16_t *w = static_cast<const uint16_t *>(p.weight) +
                            hr_cuda_panel_at(p.n_padded * HR_CUDA_PAD, n0, panel * kDepth);
        barrier_expect(ring.full(s), (C::kM + rows) * kRowBytes);
        bulk_load(ring.w(s), w, rows * kRowBytes, ring.full(s));
    }
    __device__ void load_x(uint32_t m0, uint32_t s, uint32_t panel) {
        if (panel * kDepth == part->end) {
            begin = part->end;
            part++;
        }
        const uint16_t *x =
            static_cast<const uint16_t *>(part->x) + hr_cuda_panel_at(part->ld, m0, panel * kDepth - begin);
        bulk_load(ring.x(s), x, C::kXBytes, ring.full(s));
    }
    /* A gate's x at the tile: n_tiles of them came before. */
    __device__ void load_gated(const hr_cuda_product &p, uint32_t m0, uint32_t n0, uint32_t n_tiles) {
        const uint32_t n_panels = min(C::kPanelsN, (p.n_padded - n0) / HR_CUDA_PAD);
        if (n_tiles > 0) barrier_wait(ring.x_empty(), (n_tiles - 1) % 2);
        barrier_expect(ring.x_full(), n_panels * 2 * C::kXBytes);
        for (uint32_t i = 0; i < n_panels; i++) {
            uint32_t first;
            const uint32_t column = n0 + i * HR_CUDA_PAD;
            const hr_cuda_part *high = part_of(p.gated, column, &first);
            const hr_cuda_part *low = p.gated_low + (high - p.gated);
            const size_t at = hr_cuda_panel_at(high->ld, m0, column - first);
            const uint32_t to = ring.shared + C::kSums + i * C::kXBytes;
            bulk_load(to, static_cast<const uint16_t *>(high->x) + at, C::kXBytes, ring.x_full());
            bulk_load(to + C::kSumsBytes, static_cast<const uint16_t *>(low->x) + at, C::kXBytes,
                      ring.x_full());
        }
    }
    __device__ void run(const Work &work) {
        Tiles<C> tiles(work);
        hr_cuda_tile ahead = *tiles.tile(), tile;
        for (uint32_t n_tiles = 0; tiles.left(); stage += tile.panels, n_tiles++) {
            const uint32_t m0 = tiles.row();
            tile = ahead;
            tiles.go_on();
            ahead = *tiles.tile(); /* before it is needed */
            const hr_cuda_product &p = work.products[tile.product];
            uint32_t n_early = 0; /* panels whose W is under way */
            if (stage == 0) {     /* W depends on no launch */
                for (; n_early < min(tile.panels, C::kStages); n_early++)
                    load_w(p, tile.column, n_early, n_early);
                wait_for_previous();
            }
            part = p.x, begin = 0;
            for (uint32_t panel = 0; panel < tile.panels; panel++) {
                const uint32_t s = stage + panel;
                if (s >= C::kStages) barrier_wait(ring.empty(s), ring.parity(s) ^ 1);
                if (panel >= n_early) load_w(p, tile.column, s, panel);
                load_x(m0, s, panel);
            }
            if constexpr (C::kGate) load_gated(p, m0, tile.column, n_tiles);
        }
    }
};

/* A group of warps that multiplies 64 rows of every tile. */
template <typename C> struct Group {
    const Ring<C> &ring;
    uint32_t index, thread; /* of the block's groups; of its threads */
    uint32_t stage;         /* of all tiles so far */

    __device__ explicit Group(const Ring<C> &r)
        : ring(r), index(threadIdx.x / kGroupThreads), thread(threadIdx.x % kGroupThreads), stage(0) {
    }
    __device__ Told<C::kN> &told() const {
        return *reinterpret_cast<Told<C::kN> *>(dynamic_shared() + C::kTold + index * sizeof(Told<C::kN>));
    }
    __device__ void sync() const {
        group_sync(1 + index);
    }
    template <typename T> __device__ void fetch(T &to, const void *from) const {
        static_assert(sizeof to % 16 == 0 && sizeof to / 16 <= kGroupThreads, "16 bytes a thread");
        const uint32_t at = thread * 16;
        if (at < sizeof to)
            copy_async(static_cast<uint32_t>(__cvta_generic_to_shared(&to)) + at,
                       static_cast<const uint8_t *>(from) + at);
    }
    __device__ void wait_for_told() const {
        copy_wait<0>();
        sync();
    }
    /* This warp has done with a stage. */
    __device__ void release(uint32_t s) const {
        if (threadIdx.x % kWarp == 0) barrier_arrive(ring.empty(s));
    }
    /* sums = the product of n panels. meanwhile(): while the last of them are multiplied. */
    template <typename Function>
    __device__ void multiply(Sums<1, C::kTilesN> &sums, uint32_t n, Function meanwhile) {
        for (uint32_t i = 0; i < n; i++, stage++) {
            barrier_wait(ring.full(stage), ring.parity(stage));
            const uint64_t a = tile_descriptor(ring.x(stage) + index * C::kPanelBytes);
            const uint64_t b = tile_descriptor(ring.w(stage));
            products_begin();
#pragma unroll
            for (uint32_t step = 0; step < kDepth / 16; step++)
                multiply_group(sums[0], a + step * 2, b + step * 2, i > 0 || step > 0);
            products_commit();
            products_wait<1>();
            if (i > 0) release(stage - 1);
        }
        meanwhile();
        products_wait<0>();
        map<1, C::kTilesN>(sums, settled);
        release(stage - 1);
    }
    /* The panels of the group's sums in shared memory: panel by panel, and in each group by group. */
    __device__ uint32_t sums_at(uint32_t panel) const {
        return ring.shared + C::kSums + (panel % C::kPanelsLeaving * C::kGroups + index) * C::kPanelBytes;
    }
    /* Where in those this thread's columns of 8 j on are. */
    __device__ uint32_t place(uint32_t j, uint32_t half) const {
        const uint32_t row = thread / kWarp * 16 + half * 8 + fragment_row();
        return sums_at(j / 8) + hr_cuda_panel_at(0, row, j % 8 * 8 + fragment_column()) * 2;
    }
    /* The last tile's sums have left shared memory. */
    __device__ void wait_for_stores() const {
        if (thread == 0) bulk_stores_read();
        sync();
    }
    /* bf16 sums into shared memory, and on to memory, as many panels at a time as there is room for.
     * ready(begin, end): column tiles' sums are made what they are to be, and their place is free. So those
     * of the first panels leave while the next are worked out. m: the group's first row of the batch. */
    template <typename Function>
    __device__ void store_bf16(Sums<1, C::kTilesN> &sums, uint32_t m, uint32_t n0, Function ready) const {
        const hr_cuda_product &p = told().product;
#pragma unroll
        for (uint32_t first = 0; first < C::kPanelsN; first += C::kPanelsLeaving) {
            const uint32_t begin = first * 8, end = (first + C::kPanelsLeaving) * 8;
            ready(begin, end);
#pragma unroll
            for (uint32_t j = begin; j < end; j++) {
#pragma unroll
                for (uint32_t half = 0; half < 2; half++)
                    store_shared(place(j, half), bf16_pair(sums[0][j][2 * half], sums[0][j][2 * half + 1]));
            }
            shared_fence();
            sync();
            if (thread > 0) continue;
            for (uint32_t panel = first; panel < first + C::kPanelsLeaving; panel++) {
                const uint32_t column = n0 + panel * HR_CUDA_PAD;
                uint16_t *y = static_cast<uint16_t *>(p.y) + hr_cuda_panel_at(p.ld_y, m, column);
                if (column < p.n_padded) bulk_store(y, sums_at(panel), C::kPanelBytes);
            }
            bulk_stores_commit();
        }
    }
    __device__ void plain_tile(const hr_cuda_tile &tile, uint32_t m0) {
        Sums<1, C::kTilesN> sums;
        multiply(sums, tile.panels, [this] { wait_for_told(); });
        const hr_cuda_product &p = told().product;
        const float *bias = tile.bias == nullptr ? nullptr : told().bias;
        if (p.y_is_bf16) {
            store_bf16(sums, m0 + index * kGroupRows, tile.column, [&](uint32_t begin, uint32_t end) {
                finish_plain<1, C::kTilesN>(sums, begin, end, bias, p.activation);
                wait_for_stores();
            });
        } else {
            finish_plain<1, C::kTilesN>(sums, 0, C::kTilesN, bias, p.activation);
            store_f32<1, C::kTilesN>(sums, p, m0 + threadIdx.x / kWarp * 16, tile.column);
        }
    }
    /* x lies where the product goes: each thread replaces its own. */
    __device__ void gated_tile(const hr_cuda_tile &tile, uint32_t m0, uint32_t n_tiles) {
        const uint32_t m = m0 + threadIdx.x / kWarp * 16;
        Sums<1, C::kTilesN> sums, gate;
        map<1, C::kTilesN>(gate, [](float) { return 1.0F; });
        Branches branches[1][2];
        for (uint32_t l = 0; l < tile.branches; l++) {
            multiply(sums, tile.panels / tile.branches, [&] {
                if (l > 0) return;
                if (thread == 0) bulk_stores_read();
                if (thread == 0 && n_tiles > 0) barrier_arrive(ring.x_empty());
                wait_for_told();
                begin_branches(branches, told().product, m);
            });
            fold<1, C::kTilesN>(gate, sums, branches, l);
        }
        barrier_wait(ring.x_full(), n_tiles % 2);
        store_bf16(gate, m0 + index * kGroupRows, tile.column, [&](uint32_t begin, uint32_t end) {
#pragma unroll
            for (uint32_t j = begin; j < end; j++) {
                if (tile.column + j * 8 >= told().product.n_padded) continue; /* no x came there */
#pragma unroll
                for (uint32_t half = 0; half < 2; half++)
                    multiply_pair(gate[0][j], half, load_shared(place(j, half)),
                                  load_shared(place(j, half) + C::kSumsBytes));
            }
        });
    }
    /* A tile's product and bias, and what the next tile is, come while its panels are multiplied. */
    __device__ void run(const Work &work) {
        Tiles<C> tiles(work);
        fetch(told().tiles[0], tiles.tile());
        copy_commit();
        wait_for_previous(); /* it may read what these tiles overwrite */
        wait_for_told();
        for (uint32_t n_tiles = 0; tiles.left(); n_tiles++) {
            sync(); /* all have done with what the last tile was told */
            const hr_cuda_tile &tile = told().tiles[n_tiles % 2];
            const uint32_t m0 = tiles.row();
            tiles.go_on();
            fetch(told().product, work.products + tile.product);
            if (tile.bias != nullptr) fetch(told().bias, tile.bias);
            fetch(told().tiles[(n_tiles + 1) % 2], tiles.tile());
            copy_commit();
            if constexpr (C::kGate) {
                gated_tile(tile, m0, n_tiles);
            } else {
                plain_tile(tile, m0);
            }
        }
        if (thread == 0) bulk_stores_wait();
    }
};

template <typename C> __device__ void run_block(const Work &work) {
    const Ring<C> ring = {static_cast<uint32_t>(__cvta_generic_to_shared(dynamic_shared()))};
    if (threadIdx.x == 0) {
        for (uint32_t s = 0; s < C::kStages; s++) {
            barrier_init(ring.full(s), 1);
            barrier_init(ring.empty(s), C::kWarps);
        }
        if constexpr (C::kGate) {
            barrier_init(ring.x_full(), 1);
            barrier_init(ring.x_empty(), C::kGroups);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x / kWarp < C::kWarps) {
        Group<C>(ring).run(work);
    } else if (threadIdx.x % kWarp == 0) {
        Producer<C>(ring).run(work);
    }
}

#endif

template <typename C>
__global__ void __launch_bounds__(C::kThreads, C::kBlocks) product_hopper_kernel(const Work work) {
#ifdef HR_HOPPER
    let_next_start();
    run_block<C>(work);
#else
    __trap(); /* another target's code, on a device that has its own: better no answer than a wrong one */
#endif
}

template <typename C> int prepare() {
    cudaFuncAttributes attributes;
    const int code = cudaFuncGetAttributes(&attributes, product_hopper_kernel<C>);
    if (code != 0) return code;
    return cudaFuncSetAttribute(product_hopper_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                C::kSharedBytes);
}

template <typename C> int run(const hr_cuda_launch *launch, void *stream) {
    const uint32_t n_tiles = launch->count * (launch->m / C::kM), most = launch->n_sms * C::kBlocks;
    const Shape shape = {dim3(n_tiles < most ? n_tiles : most), C::kThreads, C::kSharedBytes};
    const Work work = {static_cast<const hr_cuda_product *>(launch->items), launch->tiles, launch->count,
                       launch->staging};
    return start(product_hopper_kernel<C>, shape, launch, stream, work);
}

} // namespace

extern "C" int hr_cuda_product_hopper_prepare(void) {
    int code = prepare<Small>();
    if (code == 0) code = prepare<Large>();
    if (code == 0) code = prepare<Wide>();
    if (code == 0) code = prepare<SmallGates>();
    if (code == 0) code = prepare<Gates>();
    return code;
}

extern "C" int hr_cuda_product_hopper_launch(const hr_cuda_launch *launch, void *stream) {
    const bool small = launch->tile_n == Small::kN;
    if (launch->kind == HR_CUDA_FEATURE_GATES)
        return small ? run<SmallGates>(launch, stream) : run<Gates>(launch, stream);
    if (launch->tile_n == Wide::kN) return run<Wide>(launch, stream);
    return small ? run<Small>(launch, stream) : run<Large>(launch, stream);
}
