/* See warp.h. */
#include "tests/kernels/simt/warp.h"

#include <cstring>

#include "tests/kernels/simt/clocks.h"
#include "tests/kernels/simt/fibers.h"
#include "tests/kernels/simt/machine.h"
#include "tests/kernels/simt/memory.h"

namespace simt {
namespace {

enum class Operation : uint8_t { kShuffle, kLoadMatrices, kMultiply, kNothing };
const char *const kNames[] = {"a shuffle", "ldmatrix", "mma", "a barrier of the warp"};

/* What a lane brings to an operation of its warp. */
struct Shuffle {
    float in, out;
    uint32_t from;
};
struct Matrices {
    const void *row;
    uint32_t *r;
};
struct Product {
    float *d;
    const uint32_t *a;
    uint32_t b[2];
};

/* Lanes of a warp that wait for each other; one such group a warp, which is all that kernels/cuda needs. */
struct Meeting {
    Operation operation;
    uint32_t named, arrived; /* a bit a lane; none arrived: nobody waits */
    void *brought[kWarpLanes];
};

Meeting meetings[kMostWarps];

/* ---- What each operation does ---- */

/* Four 8 x 8 matrices of 16 bits: lane l gives the address of row l % 8 of matrix l / 8, and receives of each
 * matrix elements 2 (l % 4) and the next of row l / 4. */
void load_all(Matrices *const *lanes) {
    uint32_t loaded[kWarpLanes][4];
    for (uint32_t l = 0; l < kWarpLanes; l++) {
        for (uint32_t i = 0; i < 4; i++)
            memcpy(&loaded[l][i], static_cast<const uint8_t *>(lanes[i * 8 + l / 4]->row) + l % 4 * 4, 4);
    }
    for (uint32_t l = 0; l < kWarpLanes; l++) memcpy(lanes[l]->r, loaded[l], sizeof loaded[l]);
}

float element(uint32_t pair, uint32_t which) {
    const uint32_t bits = which == 0 ? pair << 16 : pair & 0xFFFF0000;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* d += a b, "Matrix fragments for mma.m16n8k16": lane l has of a rows l / 4 and l / 4 + 8, columns 2 (l % 4)
 * and the next, and those 8 further on; of b these rows of column l / 4; of d columns 2 (l % 4) and the next.
 */
void multiply_all(Product *const *lanes) {
    float a[16][16], b[16][8];
    for (uint32_t l = 0; l < kWarpLanes; l++) {
        for (uint32_t e = 0; e < 2; e++) {
            const uint32_t c = l % 4 * 2 + e;
            for (uint32_t i = 0; i < 4; i++) a[l / 4 + i % 2 * 8][c + i / 2 * 8] = element(lanes[l]->a[i], e);
            for (uint32_t i = 0; i < 2; i++) b[c + i * 8][l / 4] = element(lanes[l]->b[i], e);
        }
    }
    for (uint32_t row = 0; row < 16; row++) {
        float sum[8];
        for (uint32_t n = 0; n < 8; n++) sum[n] = lanes[row % 8 * 4 + n / 2]->d[row / 8 * 2 + n % 2];
        for (uint32_t k = 0; k < 16; k++) {
            for (uint32_t n = 0; n < 8; n++) sum[n] += a[row][k] * b[k][n];
        }
        for (uint32_t n = 0; n < 8; n++) lanes[row % 8 * 4 + n / 2]->d[row / 8 * 2 + n % 2] = sum[n];
    }
}

void shuffle_all(Shuffle *const *lanes, uint32_t named) {
    for (uint32_t l = 0; l < kWarpLanes; l++) {
        if ((named >> l & 1) == 0) continue;
        const uint32_t from = lanes[l]->from;
        if (from >= kWarpLanes || (named >> from & 1) == 0)
            fail("a shuffle reads lane %u, which does not take part", from);
        lanes[l]->out = lanes[from]->in;
    }
}

void perform(const Meeting &meeting) {
    void *const *brought = meeting.brought;
    switch (meeting.operation) {
    case Operation::kShuffle: return shuffle_all(reinterpret_cast<Shuffle *const *>(brought), meeting.named);
    case Operation::kLoadMatrices: return load_all(reinterpret_cast<Matrices *const *>(brought));
    case Operation::kMultiply: return multiply_all(reinterpret_cast<Product *const *>(brought));
    case Operation::kNothing: return;
    }
}

/* ---- Meeting ---- */

/* Waits for all the lanes named; the last to come does what is to be done. */
void meet(Operation operation, uint32_t named, void *brought) {
    const uint32_t lane = thread_number() % kWarpLanes, first = thread_number() - lane;
    Meeting &meeting = meetings[first / kWarpLanes];
    if ((named >> lane & 1) == 0) fail("lane %u does not name itself at %s", lane, kNames[(int)operation]);
    if (meeting.arrived == 0) meeting.operation = operation, meeting.named = named;
    if (meeting.operation != operation || meeting.named != named)
        fail("lanes of a warp meet at %s (%08x) and at %s (%08x)", kNames[(int)meeting.operation],
             meeting.named, kNames[(int)operation], named);
    meeting.brought[lane] = brought;
    meeting.arrived |= 1U << lane;
    if (meeting.arrived != named) {
        suspend(State::kAtWarp);
        return;
    }
    perform(meeting);
    meeting.arrived = 0;
    for (uint32_t l = 0; l < kWarpLanes; l++) {
        if (named >> l & 1) wake(first + l);
    }
}

} // namespace

void warps_begin() {
    for (Meeting &meeting : meetings) meeting.arrived = 0;
}

void warp_barrier() {
    meet(Operation::kNothing, UINT32_MAX, nullptr);
}

float shuffle(uint32_t lanes, float x, uint32_t from) {
    Shuffle brought = {x, 0.0F, from};
    meet(Operation::kShuffle, lanes, &brought);
    return brought.out;
}

void load_matrices(uint32_t (&r)[4], const void *row) {
    Matrices matrices = {row, r};
    memory_read(row, 16);
    meet(Operation::kLoadMatrices, UINT32_MAX, &matrices);
}

void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Product product = {d, a, {b0, b1}};
    meet(Operation::kMultiply, UINT32_MAX, &product);
}

} // namespace simt
