/* A mix's rows: eight threads take a row: both softmaxes, then the weighted sum of the experts' outputs,
 * eight columns of a panel each. A term's weight is worked out again for every panel: it costs less than room
 * for any number of weights would. Private to kernels/cuda. */
#ifndef HOMERANK_KERNELS_CUDA_MIX_ROW_CUH
#define HOMERANK_KERNELS_CUDA_MIX_ROW_CUH

#include "kernels/cuda/device.cuh"

constexpr uint32_t kLanes = 8, kColumns = HR_CUDA_PAD / kLanes; /* a row's threads; a thread's columns */

/* Over a row's lanes, the same in each. */
template <typename Combine> __device__ float over_row(float x, Combine combine) {
    for (uint32_t distance = kLanes / 2; distance > 0; distance /= 2)
        x = combine(x, __shfl_xor_sync(kAllLanes, x, distance));
    return x;
}

/* A row's softmax. Each of the row's lanes has the weight of the logit of its own number; of those past
 * kLanes a weight is worked out whenever it is asked for. */
struct Softmax {
    const float *z;
    float top, scale, own;

    __device__ void begin(const float *logits, uint32_t n, uint32_t lane) {
        z = logits;
        own = top = lane < n ? z[lane] : -INFINITY;
        for (uint32_t j = lane + kLanes; j < n; j += kLanes) top = fmaxf(top, z[j]);
        top = over_row(top, [](float a, float b) { return fmaxf(a, b); });
        own = lane < n ? expf(own - top) : 0.0F;
        float total = own;
        for (uint32_t j = lane + kLanes; j < n; j += kLanes) total += expf(z[j] - top);
        total = over_row(total, [](float a, float b) { return a + b; });
        scale = 1.0F / total;
        own *= scale;
    }
    /* All threads of the warp alike. */
    __device__ float weight(uint32_t j) const {
        if (j >= kLanes) return expf(z[j] - top) * scale;
        return __shfl_sync(kAllLanes, own, threadIdx.x % kWarp / kLanes * kLanes + j);
    }
};

struct Columns {
    float v[kColumns];
};

/* Eight columns of a term as they lie in memory. */
template <bool kBf16> struct Raw;
template <> struct Raw<true> { uint4 pairs; };
template <> struct Raw<false> { float4 first, second; };

__device__ inline void fetch(Raw<true> &raw, const hr_cuda_term &term, uint32_t row, uint32_t column) {
    raw.pairs = *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(term.expert) +
                                                 hr_cuda_panel_at(term.ld, row, column));
}
__device__ inline void fetch(Raw<false> &raw, const hr_cuda_term &term, uint32_t row, uint32_t column) {
    const float *e = static_cast<const float *>(term.expert) + (size_t)row * term.ld + column;
    raw.first = *reinterpret_cast<const float4 *>(e);
    raw.second = *reinterpret_cast<const float4 *>(e + 4);
}

__device__ inline Columns columns_of(const Raw<true> &raw) {
    return {{first_of_pair(raw.pairs.x), second_of_pair(raw.pairs.x), first_of_pair(raw.pairs.y),
             second_of_pair(raw.pairs.y), first_of_pair(raw.pairs.z), second_of_pair(raw.pairs.z),
             first_of_pair(raw.pairs.w), second_of_pair(raw.pairs.w)}};
}
__device__ inline Columns columns_of(const Raw<false> &raw) {
    return {{raw.first.x, raw.first.y, raw.first.z, raw.first.w, raw.second.x, raw.second.y, raw.second.z,
             raw.second.w}};
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

/* kRows rows' mix, kStep apart, for the thread that is their lane of kLanes; all threads of the warp alike.
 * What is to be read of kAhead terms and all rows is under way at once. */
template <bool kBf16, uint32_t kRows, uint32_t kStep, uint32_t kAhead> struct MixRows {
    const hr_cuda_mix &mix;
    const hr_cuda_term *terms; /* the mix's, wherever a copy of them is */
    uint32_t first;
    Softmax gate[kRows], self[kRows];

    __device__ MixRows(const hr_cuda_mix &m, const hr_cuda_term *t, uint32_t row, uint32_t lane)
        : mix(m), terms(t), first(row) {
        const bool gated = m.logits != nullptr;
#pragma unroll
        for (uint32_t r = 0; r < kRows; r++) {
            const float *logits = gated ? m.logits + (size_t)(first + r * kStep) * m.ld_logits : nullptr;
            gate[r].begin(gated ? logits + m.gate_at : nullptr, m.n_mixed > 1 ? m.n_mixed : 0, lane);
            self[r].begin(gated ? logits + m.self_at : nullptr, m.n_self > 1 ? m.n_self : 0, lane);
        }
    }
    __device__ float weight(uint32_t r, uint32_t j) const {
        if (j < mix.n_mixed) return mix.n_mixed > 1 ? gate[r].weight(j) : 1.0F;
        return mix.n_self > 1 ? self[r].weight(j - mix.n_mixed) : sigmoid(self[r].z[0]);
    }
    /* sums[r]: columns [column, column + kColumns) of row r's padded output, zeros from the width on. */
    __device__ void columns(Columns (&sums)[kRows], uint32_t column) const {
#pragma unroll
        for (uint32_t r = 0; r < kRows; r++) sums[r] = {};
        const uint32_t n = mix.n_mixed + mix.n_self;
        for (uint32_t at = 0; at < n; at += kAhead) {
            Raw<kBf16> raw[kAhead][kRows];
#pragma unroll
            for (uint32_t j = 0; j < kAhead; j++) {
                const hr_cuda_term term = terms[at + j < n ? at + j : at];
#pragma unroll
                for (uint32_t r = 0; r < kRows; r++) fetch(raw[j][r], term, first + r * kStep, column);
            }
#pragma unroll
            for (uint32_t j = 0; j < kAhead; j++) {
#pragma unroll
                for (uint32_t r = 0; r < kRows; r++) {
                    if (at + j < n) add(sums[r], weight(r, at + j), columns_of(raw[j][r]));
                }
            }
        }
#pragma unroll
        for (uint32_t r = 0; r < kRows; r++) {
#pragma unroll
            for (uint32_t i = 0; i < kColumns; i++) {
                if (column + i >= mix.width) sums[r].v[i] = 0.0F;
            }
        }
    }
};

#endif
