/* See hopper.h: barriers and copies. Products: wgmma.cc. */
#include "tests/kernels/simt/hopper.h"

#include <cstring>
#include <map>
#include <vector>

#include "tests/kernels/simt/clocks.h"
#include "tests/kernels/simt/fibers.h"
#include "tests/kernels/simt/machine.h"
#include "tests/kernels/simt/memory.h"
#include "tests/kernels/simt/wgmma.h"

namespace simt {
namespace {

constexpr uint32_t kBarrierBytes = 8, kMostCount = (1U << 20) - 1, kNamed = 16, kGroupThreads = 128;

/* On its way to shared memory. */
struct Load {
    uint8_t *to;
    const void *from;
    uint32_t nbytes, thread, time; /* when the thread began it */
};

struct Barrier {
    uint32_t count, n_missing; /* arrivals of a phase */
    int64_t n_bytes;           /* expected and not landed; less than 0: landed before they were expected */
    uint32_t n_phases;         /* that have ended */
    std::vector<Load> loads;
    std::vector<uint32_t> waiting;
    Clock told, ended; /* by who has arrived; what those learn who wait: */
};

struct Store {
    void *to;
    const uint8_t *from;
    uint32_t nbytes, group;
};

struct Thread {
    std::vector<Store> stores;
    uint32_t n_committed;
};

std::map<const void *, Barrier> barriers; /* by their places in shared memory */
std::vector<uint32_t> named[kNamed];      /* threads that wait */
Thread threads[kMostThreads];

uint32_t warp() {
    return thread_number() / kWarpLanes;
}

Barrier &find(uint32_t address) {
    const uint8_t *at = shared_at(address);
    memory_read(at, kBarrierBytes);
    const auto found = barriers.find(at);
    if (found == barriers.end()) fail("no barrier was initialised at %u in shared memory", address);
    return found->second;
}

void land(Barrier &b) {
    for (const Load &load : b.loads) {
        const uint32_t from = load.thread / kWarpLanes;
        memcpy(load.to, load.from, load.nbytes);
        memory_end_copy(load.to, load.nbytes, load.thread, load.time);
        if (b.told.seen[from] <= load.time) b.told.seen[from] = load.time + 1;
        b.n_bytes -= load.nbytes;
    }
    b.loads.clear();
}

/* Something has happened to the barrier: the phase may have ended. */
void settle(Barrier &b) {
    if (!b.waiting.empty()) land(b);
    if (b.n_missing > 0 || b.n_bytes != 0) return;
    b.n_phases++;
    b.n_missing = b.count;
    clocks_join(&b.ended, b.told);
    for (uint32_t thread : b.waiting) wake(thread);
    b.waiting.clear();
}

void arrive(Barrier &b) {
    clocks_tell(warp(), &b.told);
    if (b.n_missing == 0) fail("a barrier in shared memory counts %u arrivals, and one more comes", b.count);
    b.n_missing--;
    settle(b);
}

void check_run(uint32_t shared, const void *global, uint32_t nbytes) {
    const auto at = reinterpret_cast<uintptr_t>(global);
    if (nbytes == 0 || (shared | nbytes | at) % 16 != 0)
        fail("a bulk copy of %u bytes between %u and %#zx is misaligned", nbytes, shared, (size_t)at);
}

} // namespace

void hopper_begin() {
    barriers.clear();
    for (auto &waiting : named) waiting.clear();
    for (Thread &t : threads) t.stores.clear(), t.n_committed = 0;
    wgmma_begin();
}

const char *hopper_left() {
    for (const auto &[at, barrier] : barriers) {
        if (!barrier.loads.empty()) return "a block ended while a copy to its shared memory was under way";
    }
    for (const Thread &t : threads) {
        if (!t.stores.empty()) return "a block ended while a copy from its shared memory was under way";
    }
    return wgmma_left() ? "a block ended while its products were under way" : nullptr;
}

/* ---- Barriers ---- */

void barrier_init(uint32_t barrier, uint32_t count) {
    const uint8_t *at = shared_at(barrier);
    memory_write(at, kBarrierBytes);
    if (count < 1 || count > kMostCount) fail("a barrier of %u arrivals", count);
    barriers[at] = {count, count, 0, 0, {}, {}, {}, {}};
}

void barrier_expect(uint32_t barrier, uint32_t nbytes) {
    Barrier &b = find(barrier);
    b.n_bytes += nbytes;
    if (b.n_bytes > kMostCount) fail("a barrier can not count %lld bytes", (long long)b.n_bytes);
    arrive(b);
}

void barrier_arrive(uint32_t barrier) {
    arrive(find(barrier));
}

void barrier_wait(uint32_t barrier, uint32_t parity) {
    Barrier &b = find(barrier);
    while (b.n_phases % 2 == parity) {
        const uint32_t was = b.n_phases;
        b.waiting.push_back(thread_number());
        settle(b);
        if (b.n_phases == was) suspend(State::kAtSharedBarrier);
    }
    clocks_learn(warp(), b.ended);
}

void group_barrier(uint32_t id) {
    if (id < 1 || id >= kNamed) fail("barrier %u of a block", id);
    std::vector<uint32_t> &waiting = named[id];
    waiting.push_back(thread_number());
    if (waiting.size() < kGroupThreads) {
        suspend(State::kAtGroup);
        return;
    }
    uint32_t warps = 0;
    for (uint32_t thread : waiting) {
        warps |= 1U << thread / kWarpLanes;
        wake(thread);
    }
    waiting.clear();
    clocks_meet(warps);
}

/* ---- Copies ---- */

void bulk_load(uint32_t shared, const void *global, uint32_t nbytes, uint32_t barrier) {
    check_run(shared, global, nbytes);
    memory_read_run(global, nbytes);
    Barrier &b = find(barrier);
    uint8_t *to = shared_at(shared);
    memory_begin_copy(to, nbytes);
    memset(to, 0xFF, nbytes);
    b.loads.push_back({to, global, nbytes, thread_number(), clock_of(warp())->seen[warp()]});
    settle(b);
    clocks_tick(warp());
}

void bulk_store(void *global, uint32_t shared, uint32_t nbytes) {
    Thread &t = threads[thread_number()];
    check_run(shared, global, nbytes);
    memory_read_run(shared_at(shared), nbytes);
    memory_begin_reading(shared_at(shared), nbytes);
    memory_write_run(global, nbytes);
    t.stores.push_back({global, shared_at(shared), nbytes, t.n_committed});
}

void bulk_stores_commit() {
    threads[thread_number()].n_committed++;
}

void bulk_stores_wait() {
    Thread &t = threads[thread_number()];
    size_t n = 0;
    for (; n < t.stores.size() && t.stores[n].group < t.n_committed; n++) {
        memcpy(t.stores[n].to, t.stores[n].from, t.stores[n].nbytes);
        memory_end_reading(t.stores[n].from, warp());
    }
    t.stores.erase(t.stores.begin(), t.stores.begin() + static_cast<std::ptrdiff_t>(n));
}

} // namespace simt
