/* Which warp knows of whose accesses: vector clocks.
 *
 * Time goes on whenever warps meet or one tells of what it did. What a warp does it does at its own time,
 * which is when it last met or told; another warp knows of it once they have met, or once it has learnt what
 * the first has told since. The lanes of a warp have one clock. One thread. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_CLOCKS_H
#define HOMERANK_TESTS_KERNELS_SIMT_CLOCKS_H

#include <cstdint>

namespace simt {

constexpr uint32_t kMostWarps = 32; /* of a block */

/* All that warp w did before time seen[w] is known. A warp's own entry is its time. */
struct Clock {
    uint32_t seen[kMostWarps];
};

/* The block's warps (a bit each) begin: they know of all that was. Returns their time. */
uint32_t clocks_begin(uint32_t warps);
/* The warps that there are. */
uint32_t clocks_warps();
const Clock *clock_of(uint32_t warp);

/* Each of these warps knows of all that any of them knows of or has done. */
void clocks_meet(uint32_t warps);
/* Adds what the warp knows of and has done to what `to` knows of. */
void clocks_tell(uint32_t warp, Clock *to);
void clocks_learn(uint32_t warp, const Clock &from);
void clocks_join(Clock *to, const Clock &from);
/* The warp's time, which then goes on. */
uint32_t clocks_tick(uint32_t warp);

} // namespace simt

#endif
