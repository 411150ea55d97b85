/* A mix's rows: eight threads take a row: both softmaxes, then the weighted sum of the experts' outputs,
 * eight columns of a panel each. Private to kernels/cuda.
 *
 * A thread has its share of term after term, panel after panel, copied ahead into slots of its own in shared
 * memory: so many reads are under way whatever its registers hold, and as nobody else looks there, no barrier
 * is waited for. The weight of a term past the first kLanes is worked out again for every panel: that
 * costs less than room for any number of weights would. */
#ifndef HOMERANK_KERNELS_CUDA_MIX_ROW_CUH
#define HOMERANK_KERNELS_CUDA_MIX_ROW_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"

constexpr uint32_t kLanes = 8, kColumns = HR_CUDA_PAD / kLanes; /* a row's threads; a thread's columns */

/* Over a row's lanes, the same in each. */
template <typename Combine> __device__ float over_row(float x, Combine combine) {
    for (uint32_t distance = kLanes / 2; distance > 0; distance /= 2)
        x = combine(x, __shfl_xor_sync(kAllLanes, x, distance));
    return x;
}

/* A row's softmax over n logits, in parts: what all have in common, and each one's own. */
struct Softmax {
    float top, scale;

    /* Returns the weight of the logit of the lane's number, 0 past the last. */
    __device__ float begin(const float *z, uint32_t n, uint32_t lane) {
        const float mine = lane < n ? z[lane] : -INFINITY;
        top = mine;
        for (uint32_t j = lane + kLanes; j < n; j += kLanes) top = fmaxf(top, z[j]);
        top = over_row(top, [](float a, float b) { return fmaxf(a, b); });
        const float own = lane < n ? expf(mine - top) : 0.0F;
        float total = own;
        for (uint32_t j = lane + kLanes; j < n; j += kLanes) total += expf(z[j] - top);
        scale = 1.0F / over_row(total, [](float a, float b) { return a + b; });
        return own * scale;
    }
    __device__ float weight(float z) const {
        return expf(z - top) * scale;
    }
};

/* Lane `of`'s x, of the row's lanes. All threads of the warp. */
__device__ inline float of_lane(float x, uint32_t of) {
    return __shfl_sync(kAllLanes, x, threadIdx.x % kWarp / kLanes * kLanes + of % kLanes);
}

/* The weights of a mix's terms at a row. */
struct TermWeights {
    Softmax gate, self;
    float own; /* of the term of the lane's number */

    __device__ static const float *logits(const hr_cuda_mix &mix, uint32_t row) {
        return mix.logits + (size_t)row * mix.ld_logits;
    }
    __device__ void begin(const hr_cuda_mix &mix, uint32_t row, uint32_t lane) {
        const uint32_t k = lane - mix.self_first;
        own = lane == 0 ? 1.0F : 0.0F;
        if (mix.n_mixed > 1) own = gate.begin(logits(mix, row) + mix.gate_at, mix.n_mixed, lane);
        if (mix.n_self == 0) return;
        const float *z = logits(mix, row) + mix.self_at;
        const float mine = mix.n_self == 1 ? sigmoid(z[0]) : self.begin(z, mix.n_self, lane);
        const float its = of_lane(mine, k);
        if (k < mix.n_self) own += its;
    }
    /* All threads of the warp alike. */
    __device__ float of(const hr_cuda_mix &mix, uint32_t row, uint32_t j) const {
        if (j < kLanes) return of_lane(own, j);
        const float *z = logits(mix, row);
        const uint32_t k = j - mix.self_first;
        float weight = j < mix.n_mixed ? gate.weight(z[mix.gate_at + j]) : 0.0F;
        if (k < mix.n_self)
            weight += mix.n_self == 1 ? sigmoid(z[mix.self_at]) : self.weight(z[mix.self_at + k]);
        return weight;
    }
};

/* Eight columns. */
struct Columns {
    float v[kColumns];
};

__device__ inline Columns columns_of(const uint4 &pairs) {
    return {{first_of_pair(pairs.x), second_of_pair(pairs.x), first_of_pair(pairs.y), second_of_pair(pairs.y),
             first_of_pair(pairs.z), second_of_pair(pairs.z), first_of_pair(pairs.w),
             second_of_pair(pairs.w)}};
}
__device__ inline Columns columns_of(const float4 &a, const float4 &b) {
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ inline void add(Columns &sum, float weight, const Columns &e) {
#pragma unroll
    for (uint32_t i = 0; i < kColumns; i++) sum.v[i] = fmaf(weight, e.v[i], sum.v[i]);
}

/* The next bf16 part of two columns, which are left with what it lacks. */
__device__ inline uint32_t take_part(float &first, float &second) {
    const uint32_t part = bf16_pair(first, second);
    first -= first_of_pair(part);
    second -= second_of_pair(part);
    return part;
}

__device__ inline uint4 take_parts(Columns &c) {
    return {take_part(c.v[0], c.v[1]), take_part(c.v[2], c.v[3]), take_part(c.v[4], c.v[5]),
            take_part(c.v[6], c.v[7])};
}

/* A row's mix, for the thread that is lane `lane` of its kLanes; all threads of a warp alike. kThreads: the
 * block's. begin(), then columns() for panels first_panel, first_panel + panel_step, ... in turn. */
template <bool kBf16, uint32_t kThreads> struct MixRow {
    static constexpr uint32_t kChunks = kBf16 ? 1 : 2; /* of 16 bytes: a thread's share of a term's panel */
    static constexpr uint32_t kSlots = 6 / kChunks;
    static constexpr uint32_t kChunkStep = kThreads * 16; /* from chunk to chunk of a thread */
    static constexpr uint32_t kSharedBytes = kSlots * kChunks * kChunkStep; /* of the block's slots */

    const hr_cuda_mix &mix;
    const hr_cuda_term *terms; /* the mix's, in registers wherever it is, as the numbers of both */
    uint32_t n_terms, n_panels;
    uint8_t *slots; /* the thread's first chunk of the block's */
    uint32_t row, lane;
    TermWeights weights;
    uint32_t slot, term, panel, step; /* to be asked for next */

    __device__ MixRow(const hr_cuda_mix &m, uint8_t *block_slots, uint32_t r)
        : mix(m), terms(m.terms), n_terms(m.n_terms), n_panels(m.padded / HR_CUDA_PAD),
          slots(block_slots + threadIdx.x * 16), row(r), lane(threadIdx.x % kLanes) {
    }
    __device__ void begin(uint32_t first_panel = 0, uint32_t panel_step = 1) {
        slot = term = 0;
        panel = first_panel, step = panel_step;
        for (uint32_t i = 0; i < kSlots; i++) ask();
        weights.begin(mix, row, lane);
    }
    /* Starts to copy the thread's share of the next term, if any, into the slot that was read last. */
    __device__ void ask() {
        if (panel < n_panels) {
            const hr_cuda_term from = terms[term];
            const uint32_t to =
                static_cast<uint32_t>(__cvta_generic_to_shared(slots)) + slot * kChunks * kChunkStep;
            if constexpr (kBf16) {
                const size_t at = (size_t)panel * from.ld + hr_cuda_panel_at(0, row, lane * kColumns);
                copy_async(to, static_cast<const uint16_t *>(from.expert) + at);
            } else {
                const size_t at = (size_t)row * from.ld + panel * HR_CUDA_PAD + lane * kColumns;
                copy_async(to, static_cast<const float *>(from.expert) + at);
                copy_async(to + kChunkStep, static_cast<const float *>(from.expert) + at + 4);
            }
            if (++term == n_terms) term = 0, panel += step;
        }
        copy_commit();
        slot = slot + 1 < kSlots ? slot + 1 : 0;
    }
    /* Of the term that was asked for kSlots terms ago. */
    __device__ Columns next() {
        copy_wait<kSlots - 1>();
        const uint8_t *from = slots + slot * kChunks * kChunkStep;
        Columns share;
        if constexpr (kBf16) {
            share = columns_of(*reinterpret_cast<const uint4 *>(from));
        } else {
            share = columns_of(*reinterpret_cast<const float4 *>(from),
                               *reinterpret_cast<const float4 *>(from + kChunkStep));
        }
        ask();
        return share;
    }
    /* Of the next panel: zeros from the experts' width on, as theirs are. */
    __device__ Columns columns() {
        Columns sum = {};
        for (uint32_t j = 0; j < n_terms; j++) add(sum, weights.of(mix, row, j), next());
        return sum;
    }
};

#endif
