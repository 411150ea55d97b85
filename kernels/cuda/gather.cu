/* One panel of v for some rows by a block of threads: see gather.h.
 *
 * What the batch holds is read from the staged header, so that one captured launch serves every batch of its
 * bucket. A list is pooled again for every block of its slice's rows: that costs less than a launch between
 * pooling and handing out.
 */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gather.h"

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kRows = 16;       /* of the batch that a block's threads take at a time */
constexpr uint32_t kManyRows = 2048; /* from then on a block takes so many: */
constexpr uint32_t kRounds = 8;
constexpr uint32_t kRowsAhead = 4;                          /* of a thread, in flight */
constexpr uint32_t kQuads = HR_CUDA_PAD / 4;                /* of a panel's columns */
constexpr uint32_t kAhead = 8;                              /* rows of a list in flight */
constexpr uint32_t kShares = 4;                             /* threads that share a slice's list */
constexpr uint32_t kSlices = kThreads / (kQuads * kShares); /* that a block takes at a time */
static_assert(kThreads == kRows * kQuads, "a thread takes four columns of a row");

__device__ inline void add(float4 &sum, const float4 &v) {
    sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
}

/* The encoded rows of one slice, or of one item. */
struct Rows {
    const uint32_t *user, *other; /* other: of the context, or the item */

    __device__ const uint32_t *of(const hr_cuda_feature &f) const {
        return f.entity == HR_CUDA_USER ? user : other;
    }
};

/* Four columns of a part of v, the same for all rows: of one dense feature, or of one table and at a multiple
 * of four in its rows (whole); or each by itself. */
struct Quad {
    const hr_cuda_gather &g;
    const hr_cuda_gather_part &part;
    uint32_t column, index; /* index: the first's feature */
    hr_cuda_feature f;
    bool whole;

    __device__ Quad(const hr_cuda_gather &gather, const hr_cuda_gather_part &p, uint32_t first)
        : g(gather), part(p), column(first), index(p.feature_of[first]) {
        f = g.features[index == UINT32_MAX ? 0 : index];
        whole = index != UINT32_MAX && part.feature_of[first + 3] == index &&
                (f.table == nullptr || (f.width % 4 == 0 && (column - f.column) % 4 == 0));
    }
    __device__ float4 table_row(uint32_t row) const {
        return __ldg(reinterpret_cast<const float4 *>(f.table + (size_t)row * f.width + (column - f.column)));
    }
    /* Rows share, share + kStep, ... of a list, in that order. */
    template <uint32_t kStep> __device__ float4 pool(const uint32_t *row, uint32_t share) const {
        const uint32_t count = row[f.word];
        const uint32_t *rows = row + f.word + 1;
        float4 sum = {};
        for (uint32_t i = share; i < count; i += kStep * kAhead) {
            float4 values[kAhead];
#pragma unroll
            for (uint32_t j = 0; j < kAhead; j++) {
                const uint32_t at = i + j * kStep;
                values[j] = at < count ? table_row(rows[at]) : float4{};
            }
#pragma unroll
            for (uint32_t j = 0; j < kAhead; j++) add(sum, values[j]);
        }
        return sum;
    }
    /* One column, the same way. */
    template <uint32_t kStep> __device__ float one(const Rows &rows, uint32_t which, uint32_t share) const {
        const uint32_t own = part.feature_of[column + which];
        if (own == UINT32_MAX) return 0.0F;
        const hr_cuda_feature &feature = g.features[own];
        const uint32_t *row = rows.of(feature);
        const uint32_t d = column + which - feature.column;
        float sum = 0.0F;
        if (feature.is_list) {
            for (uint32_t i = share; i < row[feature.word]; i += kStep)
                sum += __ldg(feature.table + (size_t)row[feature.word + 1 + i] * feature.width + d);
        } else if (share == 0) {
            sum = feature.table == nullptr
                      ? __uint_as_float(__ldg(row + feature.word + d))
                      : __ldg(feature.table + (size_t)row[feature.word] * feature.width + d);
        }
        return sum;
    }
    __device__ float4 dense(const uint32_t *row) const {
        const uint32_t *from = row + f.word + (column - f.column);
        return {__uint_as_float(__ldg(from)), __uint_as_float(__ldg(from + 1)),
                __uint_as_float(__ldg(from + 2)), __uint_as_float(__ldg(from + 3))};
    }
    /* A share of the four columns; `means` of the shares' sum is their values. */
    template <uint32_t kStep> __device__ float4 values(const Rows &rows, uint32_t share) const {
        if (whole && f.is_list) return pool<kStep>(rows.of(f), share);
        if (whole && share > 0) return {};
        if (whole) return f.table == nullptr ? dense(rows.of(f)) : table_row(__ldg(rows.of(f) + f.word));
        return {one<kStep>(rows, 0, share), one<kStep>(rows, 1, share), one<kStep>(rows, 2, share),
                one<kStep>(rows, 3, share)};
    }
    /* Of kN encoded rows, all under way at once; some may be NULL. Of a quad that is whole and no list. */
    template <uint32_t kN> __device__ void plain(float4 (&v)[kN], const uint32_t *const (&rows)[kN]) const {
        if (f.table == nullptr) {
#pragma unroll
            for (uint32_t i = 0; i < kN; i++) v[i] = rows[i] == nullptr ? float4{} : dense(rows[i]);
            return;
        }
        uint32_t at[kN];
#pragma unroll
        for (uint32_t i = 0; i < kN; i++) at[i] = rows[i] == nullptr ? 0 : __ldg(rows[i] + f.word);
#pragma unroll
        for (uint32_t i = 0; i < kN; i++) v[i] = rows[i] == nullptr ? float4{} : table_row(at[i]);
    }
    __device__ float mean(float sum, const Rows &rows, uint32_t which) const {
        const uint32_t own = part.feature_of[column + which];
        if (own == UINT32_MAX || g.features[own].is_mean == 0) return sum;
        const uint32_t count = rows.of(g.features[own])[g.features[own].word];
        return count > 0 ? sum / (float)count : sum;
    }
    __device__ float4 means(float4 sum, const Rows &rows) const {
        return {mean(sum.x, rows, 0), mean(sum.y, rows, 1), mean(sum.z, rows, 2), mean(sum.w, rows, 3)};
    }
};

/* Four columns as operands: bf16, and what that lacks. */
struct Operands {
    uint2 high, low;

    __device__ explicit Operands(const float4 &v) {
        high.x = bf16_pair(v.x, v.y);
        high.y = bf16_pair(v.z, v.w);
        low.x = bf16_pair(v.x - first_of_pair(high.x), v.y - second_of_pair(high.x));
        low.y = bf16_pair(v.z - first_of_pair(high.y), v.w - second_of_pair(high.y));
    }
    __device__ void store(const hr_cuda_gather_part &part, uint32_t row, uint32_t column) const {
        const size_t at = hr_cuda_panel_at(part.ld_bf16, row, column);
        /* Of a plain store the compiler makes two. */
        __stcg(reinterpret_cast<uint2 *>(part.high + at), high);
        if (part.low != nullptr) __stcg(reinterpret_cast<uint2 *>(part.low + at), low);
    }
};

__device__ void store_f32(const hr_cuda_gather_part &part, uint32_t row, uint32_t column, const float4 &v) {
    *reinterpret_cast<float4 *>(part.y + (size_t)row * part.width + column) = v;
}

__device__ void store(const hr_cuda_gather_part &part, uint32_t row, uint32_t column, const float4 &v) {
    if (part.y != nullptr) {
        store_f32(part, row, column, v);
    } else {
        Operands(v).store(part, row, column);
    }
}

/* Four item columns of rows [m0, end). */
__device__ void gather_items(const hr_cuda_gather &g, const hr_cuda_header *header, uint32_t panel,
                             uint32_t m0, uint32_t end) {
    const uint32_t column = panel * HR_CUDA_PAD + threadIdx.x % kQuads * 4;
    const uint32_t *items = g.staging + header->items;
    const Quad quad(g, g.items, column);
    const bool plain = quad.whole && !quad.f.is_list;
    for (uint32_t row = m0 + threadIdx.x / kQuads; row < end; row += kRows * kRowsAhead) {
        const uint32_t *rows[kRowsAhead];
        float4 v[kRowsAhead];
#pragma unroll
        for (uint32_t i = 0; i < kRowsAhead; i++) {
            const uint32_t r = row + i * kRows;
            rows[i] = r < end ? items + (size_t)r * g.item_words : nullptr;
        }
        if (plain) quad.plain(v, rows);
#pragma unroll
        for (uint32_t i = 0; i < kRowsAhead; i++) {
            if (rows[i] == nullptr) break;
            const Rows one = {nullptr, rows[i]};
            if (!plain) v[i] = quad.means(quad.values<1>(one, 0), one);
            store(g.items, row + i * kRows, column, v[i]);
        }
    }
}

/* The sum over kShares neighbouring lanes, the same in each. */
__device__ float over_shares(float x) {
    for (uint32_t distance = 1; distance < kShares; distance *= 2)
        x += __shfl_xor_sync(kAllLanes, x, distance);
    return x;
}

/* The user's and context's columns of rows [m0, end), kSlices slices at a time: kShares threads take four
 * columns of a slice; then all threads hand them out to its rows. In f32 a slice has one row of operands,
 * which the block of its first row writes. */
__device__ void gather_slices(const hr_cuda_gather &g, const hr_cuda_header *header, uint32_t panel,
                              uint32_t m0, uint32_t end) {
    __shared__ float4 values[kSlices][kQuads];
    const hr_cuda_gather_part &part = g.shared;
    const uint32_t share = threadIdx.x % kShares, own_quad = threadIdx.x / kShares % kQuads;
    const uint32_t own_slice = threadIdx.x / (kQuads * kShares), quad_out = threadIdx.x % kQuads;
    const Quad quad(g, part, panel * HR_CUDA_PAD + own_quad * 4);
    const uint32_t *starts = g.staging + header->starts, *slices = slice_of(g.staging);
    const uint32_t last = slices[end - 1];
    for (uint32_t first = slices[m0]; first <= last; first += kSlices) {
        const uint32_t s = first + own_slice;
        if (s <= last) {
            const Rows rows = {g.staging + header->users + (size_t)s * g.user_words,
                               g.staging + header->contexts + (size_t)s * g.context_words};
            float4 v = quad.values<kShares>(rows, share);
            v = quad.means({over_shares(v.x), over_shares(v.y), over_shares(v.z), over_shares(v.w)}, rows);
            if (share == 0) values[own_slice][own_quad] = v;
            if (share == 0 && part.y != nullptr && starts[s] >= m0) store_f32(part, s, quad.column, v);
        }
        if (part.y != nullptr) continue;
        __syncthreads();
        const uint32_t begin = max(m0, starts[first]),
                       stop = min(end, starts[min(first + kSlices, last + 1)]);
        for (uint32_t row = begin + threadIdx.x / kQuads; row < stop; row += kRows)
            Operands(values[slices[row] - first][quad_out])
                .store(part, row, panel * HR_CUDA_PAD + quad_out * 4);
        __syncthreads(); /* values have been read */
    }
}

__global__ void __launch_bounds__(kThreads, 4)
    gather_kernel(const hr_cuda_gather *descriptor, uint32_t block_rows) {
    let_next_start();
    const hr_cuda_gather g = *descriptor;
    const hr_cuda_header *header = header_of(g.staging);
    const uint32_t m0 = blockIdx.y * block_rows, end = min(m0 + block_rows, header->n_rows);
    const uint32_t slices_panels = g.shared.width / HR_CUDA_PAD;
    if (m0 >= end) return;
    if (blockIdx.x < slices_panels) {
        gather_slices(g, header, blockIdx.x, m0, end);
    } else if (blockIdx.x - slices_panels < g.items.width / HR_CUDA_PAD) {
        gather_items(g, header, blockIdx.x - slices_panels, m0, end);
    }
}

} // namespace

extern "C" int hr_cuda_gather_prepare(void) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, gather_kernel);
}

extern "C" int hr_cuda_gather_launch(const hr_cuda_launch *launch, void *stream) {
    const uint32_t rows = launch->m < kManyRows ? kRows : kRounds * kRows;
    const Shape shape = {dim3(launch->count, launch->m / rows), kThreads};
    return start(gather_kernel, shape, launch, stream, static_cast<const hr_cuda_gather *>(launch->items),
                 rows);
}
