/* See copies.h. */
#include "tests/kernels/simt/copies.h"

#include <cstring>
#include <vector>

#include "tests/kernels/simt/clocks.h"
#include "tests/kernels/simt/fibers.h"
#include "tests/kernels/simt/machine.h"
#include "tests/kernels/simt/memory.h"

namespace simt {
namespace {

struct Copy {
    void *to;
    const void *from;
    uint32_t group;
};

struct Thread {
    std::vector<Copy> copies; /* in flight, in order */
    uint32_t n_groups;        /* committed */
};

Thread threads[kMostThreads];

} // namespace

void copies_begin() {
    for (Thread &t : threads) t.copies.clear(), t.n_groups = 0;
}

void copy_async(void *shared, const void *global) {
    memory_read(global, 16);
    memory_begin_copy(shared, 16);
    memset(shared, 0xFF, 16);
    Thread &t = threads[thread_number()];
    t.copies.push_back({shared, global, t.n_groups});
}

void copy_commit() {
    threads[thread_number()].n_groups++;
}

void copy_wait(uint32_t n_pending) {
    const uint32_t thread = thread_number(), warp = thread / kWarpLanes;
    Thread &t = threads[thread];
    size_t n = 0;
    for (; n < t.copies.size() && t.copies[n].group + n_pending < t.n_groups; n++) {
        memcpy(t.copies[n].to, t.copies[n].from, 16);
        memory_end_copy(t.copies[n].to, 16, thread, clock_of(warp)->seen[warp]);
    }
    t.copies.erase(t.copies.begin(), t.copies.begin() + static_cast<std::ptrdiff_t>(n));
}

} // namespace simt
