/* See machine.h: a launch, block after block. */
#include "tests/kernels/simt/machine.h"

#include <link.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "tests/kernels/simt/clocks.h"
#include "tests/kernels/simt/copies.h"
#include "tests/kernels/simt/fibers.h"
#include "tests/kernels/simt/hopper.h"
#include "tests/kernels/simt/memory.h"
#include "tests/kernels/simt/warp.h"

namespace simt {
namespace {

struct {
    const Launch *launch;
    Index block;
    uint32_t n_threads; /* of a block */
    uint8_t *shared;
    bool failed;
    std::string error;
    uint64_t n_launches;
} m;

/* ---- Orders ---- */

/* 0 ... n - 1 forwards, backwards or shuffled, in turn from launch to launch. */
std::vector<uint32_t> order_of(uint32_t n) {
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0U);
    if (m.n_launches % 3 == 1) std::reverse(order.begin(), order.end());
    if (m.n_launches % 3 == 2) {
        uint64_t random = m.n_launches;
        for (uint32_t i = n; i > 1; i--) {
            random = random * 6364136223846793005U + 1442695040888963407U;
            std::swap(order[i - 1], order[(random >> 33) % i]);
        }
    }
    return order;
}

/* ---- Blocks ---- */

/* Until no lane of the warp can go on. Whether any could. */
bool run_warp(uint32_t first, const std::vector<uint32_t> &lanes) {
    bool any = false;
    for (bool again = true; again && !m.failed;) {
        again = false;
        for (uint32_t lane : lanes) {
            if (first + lane >= m.n_threads || fiber_state(first + lane) != State::kReady) continue;
            fiber_resume(first + lane);
            if (m.failed) return true;
            any = again = true;
        }
    }
    return any;
}

void note(const char *text) {
    m.failed = true;
    m.error = text;
}

/* Lets the threads pass a barrier that all of them wait at. Whether they do. */
bool pass_barrier() {
    if (fibers_count(State::kAtBarrier) < m.n_threads) return false;
    clocks_meet(clocks_warps());
    for (uint32_t t = 0; t < m.n_threads; t++) wake(t);
    return true;
}

void note_deadlock() {
    char text[256];
    snprintf(text, sizeof text,
             "%u threads wait at a barrier, %u for lanes of their warp, %u at a barrier in shared memory, "
             "%u for their group, and %u have ended",
             fibers_count(State::kAtBarrier), fibers_count(State::kAtWarp),
             fibers_count(State::kAtSharedBarrier), fibers_count(State::kAtGroup),
             fibers_count(State::kDone));
    note(text);
}

uint32_t n_warps() {
    return (m.n_threads + kWarpLanes - 1) / kWarpLanes;
}

void begin_block() {
    memory_begin_block(UINT32_MAX >> (kMostWarps - n_warps()));
    fibers_begin(m.launch);
    warps_begin();
    copies_begin();
    hopper_begin();
    memset(m.shared, 0xFF, m.launch->shared_nbytes);
}

struct Orders {
    std::vector<uint32_t> columns, rows, warps, lanes;
};

void run_block(const Orders &orders) {
    begin_block();
    while (!m.failed && fibers_count(State::kDone) < m.n_threads) {
        bool any = false;
        for (uint32_t w : orders.warps) any = run_warp(w * kWarpLanes, orders.lanes) || any;
        if (!any && !m.failed && !pass_barrier()) note_deadlock();
    }
    const char *left = m.failed ? nullptr : hopper_left();
    if (left != nullptr) note(left);
}

/* Kernels' __shared__ variables are thread-local ones of this program (cuda_runtime.h), which comes first. */
int share_static(dl_phdr_info *program, size_t, void *) {
    for (int i = 0; i < program->dlpi_phnum; i++) {
        const auto &header = program->dlpi_phdr[i];
        if (header.p_type == PT_TLS) memory_share(program->dlpi_tls_data, header.p_memsz);
    }
    return 1;
}

/* Makes the launch's shared memory known. */
void share() {
    constexpr size_t kPage = 4096, kAligned = 1024; /* to no more than kernels may ask for */
    static auto *const made = static_cast<uint8_t *>(aligned_alloc(kPage, (kMostShared / kPage + 2) * kPage));
    m.shared = made + kAligned;
    memory_share(m.shared, m.launch->shared_nbytes);
    dl_iterate_phdr(share_static, nullptr);
}

bool fits(const Launch &l) {
    const uint64_t threads = (uint64_t)l.block.x * l.block.y * l.block.z;
    if (threads < 1 || threads > kMostThreads || l.shared_nbytes > kMostShared) return false;
    return l.grid.x >= 1 && l.grid.x <= INT32_MAX && l.grid.y >= 1 && l.grid.y <= 65535 && l.grid.z == 1 &&
           l.block.y == 1 && l.block.z == 1;
}

} // namespace

void fail(const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!fiber_runs()) { /* on the host: a test's own mistake */
        fprintf(stderr, "simt: %s\n", text);
        abort();
    }
    const Index block = block_index();
    const std::string where = "block (" + std::to_string(block.x) + ", " + std::to_string(block.y) +
                              "), thread " + std::to_string(thread_number()) + ": ";
    note((where + text).c_str());
    fiber_leave();
}

bool run(const Launch &launch, std::string *error) {
    if (!fits(launch)) {
        *error = "a launch of impossible sizes";
        return false;
    }
    m.launch = &launch;
    m.n_threads = launch.block.x;
    m.failed = false;
    share();
    memory_begin_launch(launch.early);
    const Orders orders = {order_of(launch.grid.x), order_of(launch.grid.y), order_of(n_warps()),
                           order_of(kWarpLanes)};
    for (uint32_t y : orders.rows) {
        for (uint32_t x : orders.columns) {
            m.block = {x, y, 0};
            if (!m.failed) run_block(orders);
        }
    }
    m.n_launches++;
    if (!m.failed) return true;
    fibers_abandon();
    *error = m.error;
    return false;
}

/* ---- For the fiber that is running ---- */

Index thread_index() {
    return {thread_number(), 0, 0};
}

Index block_index() {
    return m.block;
}

Index grid_size() {
    return m.launch->grid;
}

uint8_t *shared_memory() {
    return m.shared;
}

uint8_t *shared_at(uint32_t address) {
    return m.shared + (address - kSharedBase);
}

void barrier() {
    suspend(State::kAtBarrier);
}

} // namespace simt
