/* See clocks.h. */
#include "tests/kernels/simt/clocks.h"

#include <algorithm>

namespace simt {
namespace {

uint32_t now; /* counted for ever */
uint32_t present;
Clock clocks[kMostWarps];

template <typename Do> void for_each(uint32_t warps, Do what) {
    for (; warps != 0; warps &= warps - 1) what(static_cast<uint32_t>(__builtin_ctz(warps)));
}

} // namespace

uint32_t clocks_begin(uint32_t warps) {
    now++;
    present = warps;
    for_each(warps, [](uint32_t w) { std::fill_n(clocks[w].seen, kMostWarps, now); });
    return now;
}

uint32_t clocks_warps() {
    return present;
}

const Clock *clock_of(uint32_t warp) {
    return &clocks[warp];
}

void clocks_meet(uint32_t warps) {
    Clock all = {};
    now++;
    for_each(warps, [&](uint32_t w) { clocks_join(&all, clocks[w]); });
    for_each(warps, [&](uint32_t w) { all.seen[w] = now; });
    for_each(warps, [&](uint32_t w) { clocks[w] = all; });
}

void clocks_tell(uint32_t warp, Clock *to) {
    clocks[warp].seen[warp] = ++now;
    clocks_join(to, clocks[warp]);
}

void clocks_learn(uint32_t warp, const Clock &from) {
    const uint32_t own = clocks[warp].seen[warp];
    clocks_join(&clocks[warp], from);
    clocks[warp].seen[warp] = own;
}

void clocks_join(Clock *to, const Clock &from) {
    for (uint32_t w = 0; w < kMostWarps; w++) to->seen[w] = std::max(to->seen[w], from.seen[w]);
}

uint32_t clocks_tick(uint32_t warp) {
    const uint32_t was = clocks[warp].seen[warp];
    clocks[warp].seen[warp] = ++now;
    return was;
}

} // namespace simt
