/* See hopper.h: products of four warps. Source: PTX ISA, "Register fragments and shared memory matrix
 * layouts" of wgmma, "Matrix descriptor format". */
#include "tests/kernels/simt/wgmma.h"

#include <cmath>
#include <cstring>
#include <deque>

#include "tests/kernels/simt/clocks.h"
#include "tests/kernels/simt/fibers.h"
#include "tests/kernels/simt/hopper.h"
#include "tests/kernels/simt/machine.h"
#include "tests/kernels/simt/memory.h"

namespace simt {
namespace {

constexpr uint32_t kThreads = 128, kGroupWarps = kThreads / kWarpLanes, kRows = 64, kDepth = 16,
                   kMostColumns = 256, kRowBytes = 128, kAtomBytes = 1024;

struct Product {
    uint64_t a, b; /* descriptors */
    uint32_t n;
    bool add;
    uint32_t batch;  /* that it is committed with */
    uint32_t n_came; /* threads */
};

struct Thread {
    bool begun;                       /* products_begin since the sums were last its own */
    uint32_t n_products, n_committed; /* so far */
};

/* Threads of a block that multiply together, and their one set of sums. */
struct Group {
    std::deque<Product> products; /* under way */
    uint32_t n_done;
    float sums[kRows][kMostColumns];
    float *d[kThreads];                         /* where a thread has its sums; NULL: they are its own */
    uint32_t n_waiting, n_pending, n_committed; /* threads at a wait; what the first of them says */
};

Thread threads[kMostThreads];
Group groups[kMostThreads / kThreads];

/* ---- Operands ---- */

/* K-major with the 128-byte swizzle: rows of 128 bytes, by eights. Its first address in shared memory. */
uint32_t operand_at(uint64_t descriptor) {
    const auto at = static_cast<uint32_t>(descriptor & 0x3FFF) << 4;
    const uint64_t stride = descriptor >> 32 & 0x3FFF, rest = descriptor & 0x3FFFC000C000C000;
    if (descriptor >> 62 != 1 || stride << 4 != kAtomBytes || rest != 0 || at % kAtomBytes >= kRowBytes)
        fail("a descriptor %016llx, which is none of a tile of swizzled rows",
             (unsigned long long)descriptor);
    return at;
}

/* Element (row, k) of an operand that begins at `at`. */
float element(uint32_t at, uint32_t row, uint32_t k) {
    const uint32_t plain = at + row * kRowBytes + k * 2, swizzled = plain ^ (plain >> 7 & 7) << 4;
    uint16_t half;
    memcpy(&half, shared_at(swizzled), sizeof half);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Whole rows, which is more than one product reads. */
const uint8_t *rows_at(uint64_t descriptor, uint32_t first) {
    return shared_at(operand_at(descriptor) / kRowBytes * kRowBytes + first * kRowBytes);
}

/* What a warp reads of a's rows, and of b. */
void begin_reading(const Product &p, uint32_t warp) {
    constexpr uint32_t kWarpRows = kRows / kGroupWarps;
    memory_begin_reading(rows_at(p.a, warp % kGroupWarps * kWarpRows), kWarpRows * kRowBytes);
    memory_begin_reading(rows_at(p.b, 0), p.n * kRowBytes);
}

void end_reading(const Product &p, uint32_t warp) {
    constexpr uint32_t kWarpRows = kRows / kGroupWarps;
    memory_end_reading(rows_at(p.a, warp % kGroupWarps * kWarpRows), warp);
    memory_end_reading(rows_at(p.b, 0), warp);
}

/* ---- Sums ---- */

/* Calls with the place of each of a thread's sums of n columns, and the sum. */
template <typename Do> void for_each_sum(uint32_t thread, uint32_t n, float *d, Do what) {
    const uint32_t row = thread % kThreads / kWarpLanes * 16 + thread % kWarpLanes / 4;
    for (uint32_t i = 0; i < n / 2; i++) what(row + i % 4 / 2 * 8, i / 4 * 8 + thread % 4 * 2 + i % 2, d[i]);
}

void take_sums(Group &g, uint32_t thread, float *d, uint32_t n) {
    float *&taken = g.d[thread % kThreads];
    if (taken != nullptr && taken != d) fail("products of a group into two sets of sums at a time");
    if (taken != nullptr) return;
    if (!threads[thread].begun) fail("a product whose sums were touched since products_begin");
    taken = d;
    for_each_sum(thread, n, d, [&](uint32_t row, uint32_t column, float &sum) {
        g.sums[row][column] = sum;
        sum = NAN;
    });
}

void give_sums(Group &g, uint32_t first_thread, uint32_t n) {
    for (uint32_t t = 0; t < kThreads; t++) {
        for_each_sum(t, n, g.d[t],
                     [&](uint32_t row, uint32_t column, float &sum) { sum = g.sums[row][column]; });
        g.d[t] = nullptr;
        threads[first_thread + t].begun = false;
    }
}

template <uint32_t kColumns> void multiply(Group &g, const Product &p) {
    const uint32_t a_at = operand_at(p.a), b_at = operand_at(p.b);
    float b[kDepth][kColumns];
    for (uint32_t n = 0; n < kColumns; n++) {
        for (uint32_t k = 0; k < kDepth; k++) b[k][n] = element(b_at, n, k);
    }
    for (uint32_t row = 0; row < kRows; row++) {
        float *sum = g.sums[row];
        for (uint32_t n = 0; n < kColumns && !p.add; n++) sum[n] = 0.0F;
        for (uint32_t k = 0; k < kDepth; k++) {
            const float a = element(a_at, row, k);
            for (uint32_t n = 0; n < kColumns; n++) sum[n] += a * b[k][n];
        }
    }
}

void finish(Group &g, const Product &p, uint32_t first_thread) {
    if (p.n_came != kThreads) fail("%u threads of a group of 128 wait for a product", p.n_came);
    switch (p.n) {
    case 64: multiply<64>(g, p); break;
    case 128: multiply<128>(g, p); break;
    case 256: multiply<256>(g, p); break;
    default: fail("a product of %u columns", p.n);
    }
    for (uint32_t w = 0; w < kGroupWarps; w++) end_reading(p, first_thread / kWarpLanes + w);
}

} // namespace

void wgmma_begin() {
    for (Thread &t : threads) t = {};
    for (Group &g : groups) {
        g.products.clear();
        g.n_done = g.n_waiting = 0;
        for (float *&d : g.d) d = nullptr;
    }
}

bool wgmma_left() {
    for (const Group &g : groups) {
        if (!g.products.empty()) return true;
    }
    return false;
}

void products_begin() {
    threads[thread_number()].begun = true;
}

void multiply_group(float *d, uint32_t n, uint64_t a, uint64_t b, bool add) {
    const uint32_t thread = thread_number();
    Thread &t = threads[thread];
    Group &g = groups[thread / kThreads];
    const uint32_t index = t.n_products++ - g.n_done;
    if (index == g.products.size()) g.products.push_back({a, b, n, add, t.n_committed, 0});
    Product &p = g.products[index];
    if (p.a != a || p.b != b || p.n != n || p.add != add || p.batch != t.n_committed)
        fail("threads of a group of 128 multiply different tiles");
    p.n_came++;
    if (thread % kWarpLanes == 0) begin_reading(p, thread / kWarpLanes);
    take_sums(g, thread, d, n);
}

void products_commit() {
    threads[thread_number()].n_committed++;
}

void products_wait(uint32_t n_pending) {
    const uint32_t thread = thread_number(), first = thread / kThreads * kThreads;
    const Thread &t = threads[thread];
    Group &g = groups[thread / kThreads];
    if (g.n_waiting++ == 0) g.n_pending = n_pending, g.n_committed = t.n_committed;
    if (g.n_pending != n_pending || g.n_committed != t.n_committed)
        fail("threads of a group of 128 wait for different products");
    if (g.n_waiting < kThreads) {
        suspend(State::kAtGroup);
        return;
    }
    g.n_waiting = 0;
    uint32_t n = 0;
    for (; !g.products.empty() && g.products.front().batch + n_pending < t.n_committed; g.n_done++) {
        n = g.products.front().n;
        finish(g, g.products.front(), first);
        g.products.pop_front();
    }
    if (g.products.empty() && n > 0) give_sums(g, first, n);
    for (uint32_t i = 0; i < kThreads; i++) wake(first + i);
}

} // namespace simt
