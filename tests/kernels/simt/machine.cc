/* See machine.h. */
#include "tests/kernels/simt/machine.h"

#include <link.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "tests/kernels/simt/clocks.h"
#include "tests/kernels/simt/hopper.h"
#include "tests/kernels/simt/memory.h"

namespace simt {
namespace {

constexpr size_t kStackBytes = 64 * 1024;

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

struct Copy {
    void *to;
    const void *from;
    uint32_t group;
};

struct Fiber {
    uint8_t *stack;
    bool begun; /* `at` is somewhere in its loop */
    jmp_buf at;
    State state;
    bool waited;              /* for the launches before */
    std::vector<Copy> copies; /* in flight, in order */
    uint32_t n_groups;        /* committed */
};

/* Lanes of a warp that wait for each other; one such group a warp, which is all that kernels/cuda needs. */
struct Meeting {
    Operation operation;
    uint32_t named, arrived; /* a bit a lane; none arrived: nobody waits */
    void *brought[kWarpLanes];
};

struct {
    const Launch *launch;
    Index block;
    uint32_t n_threads; /* of a block */
    Fiber fibers[kMostThreads];
    Meeting meetings[kMostWarps];
    Fiber *running;
    uint32_t thread; /* running's number */
    jmp_buf scheduler;
    ucontext_t entry;
    uint8_t *shared;
    bool failed;
    std::string error;
    uint64_t n_launches;
} m;

/* ---- Fibers ---- */

void yield() {
    if (_setjmp(m.running->at) == 0) _longjmp(m.scheduler, 1);
}

/* Runs kernel after kernel: a fiber is made once and goes on where it yielded. */
void fiber_loop() {
    for (;;) {
        alignas(16) uint8_t arguments[kMostArguments]; /* where the thread may read them */
        memcpy(arguments, m.launch->arguments, sizeof arguments);
        m.launch->call(arguments);
        m.running->state = State::kDone;
        yield();
    }
}

void fiber_begin(Fiber *f) {
    static ucontext_t nowhere;
    f->begun = true;
    getcontext(&m.entry);
    m.entry.uc_stack.ss_sp = f->stack;
    m.entry.uc_stack.ss_size = kStackBytes;
    makecontext(&m.entry, fiber_loop, 0);
    swapcontext(&nowhere, &m.entry); /* comes back by the scheduler's longjmp alone */
}

/* Until it has to wait or is done. */
void resume(Fiber *f) {
    if (f->stack == nullptr) {
        void *stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) abort();
        f->stack = static_cast<uint8_t *>(stack);
    }
    m.running = f;
    m.thread = static_cast<uint32_t>(f - m.fibers);
    memory_actor(m.thread, f->stack, kStackBytes, f->waited);
    if (_setjmp(m.scheduler) == 0) {
        if (f->begun) _longjmp(f->at, 1);
        fiber_begin(f);
    }
    m.running = nullptr;
    memory_actor(0, nullptr, 0, true);
}

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

/* ---- Warps ---- */

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

/* Waits for all the lanes named; the last to come does what is to be done. */
void meet(Operation operation, uint32_t named, void *brought) {
    const uint32_t lane = m.thread % kWarpLanes, first = m.thread - lane;
    Meeting &meeting = m.meetings[first / kWarpLanes];
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
        if (named >> l & 1) m.fibers[first + l].state = State::kReady;
    }
}

/* ---- Blocks ---- */

/* Until no lane of the warp can go on. Whether any could. */
bool run_warp(uint32_t first, const std::vector<uint32_t> &lanes) {
    bool any = false;
    for (bool again = true; again && !m.failed;) {
        again = false;
        for (uint32_t lane : lanes) {
            if (first + lane >= m.n_threads || m.fibers[first + lane].state != State::kReady) continue;
            resume(m.fibers + first + lane);
            if (m.failed) return true;
            any = again = true;
        }
    }
    return any;
}

/* Of the block's threads. */
uint32_t count(State state) {
    uint32_t n = 0;
    for (uint32_t t = 0; t < m.n_threads; t++) n += m.fibers[t].state == state;
    return n;
}

void note(const char *text) {
    m.failed = true;
    m.error = text;
}

/* Lets the threads pass a barrier that all of them wait at. Whether they do. */
bool pass_barrier() {
    if (count(State::kAtBarrier) < m.n_threads) return false;
    clocks_meet(clocks_warps());
    for (uint32_t t = 0; t < m.n_threads; t++) m.fibers[t].state = State::kReady;
    return true;
}

void note_deadlock() {
    char text[256];
    snprintf(text, sizeof text,
             "%u threads wait at a barrier, %u for lanes of their warp, %u at a barrier in shared memory, "
             "%u for their group, and %u have ended",
             count(State::kAtBarrier), count(State::kAtWarp), count(State::kAtSharedBarrier),
             count(State::kAtGroup), count(State::kDone));
    note(text);
}

uint32_t n_warps() {
    return (m.n_threads + kWarpLanes - 1) / kWarpLanes;
}

void begin_block() {
    memory_begin_block(UINT32_MAX >> (kMostWarps - n_warps()));
    hopper_begin();
    memset(m.shared, 0xFF, m.launch->shared_nbytes);
    for (uint32_t t = 0; t < m.n_threads; t++) {
        Fiber &f = m.fibers[t];
        f.state = State::kReady;
        f.waited = !m.launch->early;
        f.copies.clear();
        f.n_groups = 0;
    }
    for (Meeting &meeting : m.meetings) meeting.arrived = 0;
}

struct Orders {
    std::vector<uint32_t> columns, rows, warps, lanes;
};

void run_block(const Orders &orders) {
    begin_block();
    while (!m.failed && count(State::kDone) < m.n_threads) {
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
    if (m.running == nullptr) { /* on the host: a test's own mistake */
        fprintf(stderr, "simt: %s\n", text);
        abort();
    }
    const Index block = block_index();
    const std::string where = "block (" + std::to_string(block.x) + ", " + std::to_string(block.y) +
                              "), thread " + std::to_string(m.thread) + ": ";
    note((where + text).c_str());
    _longjmp(m.scheduler, 1);
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
    for (Fiber &f : m.fibers) f.begun = false; /* wherever they were */
    *error = m.error;
    return false;
}

/* ---- For the fiber that is running ---- */

Index thread_index() {
    return {m.thread, 0, 0};
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

uint32_t thread_number() {
    return m.thread;
}

void suspend(State why) {
    m.running->state = why;
    yield();
}

void wake(uint32_t thread) {
    m.fibers[thread].state = State::kReady;
}

void wait_for_previous() {
    m.running->waited = true;
    memory_actor(m.thread, m.running->stack, kStackBytes, true);
}

void barrier() {
    suspend(State::kAtBarrier);
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

void copy_async(void *shared, const void *global) {
    memory_read(global, 16);
    memory_begin_copy(shared, 16);
    memset(shared, 0xFF, 16);
    m.running->copies.push_back({shared, global, m.running->n_groups});
}

void copy_commit() {
    m.running->n_groups++;
}

void copy_wait(uint32_t n_pending) {
    Fiber *f = m.running;
    size_t n = 0;
    for (; n < f->copies.size() && f->copies[n].group + n_pending < f->n_groups; n++) {
        memcpy(f->copies[n].to, f->copies[n].from, 16);
        memory_end_copy(f->copies[n].to, 16, m.thread,
                        clock_of(m.thread / kWarpLanes)->seen[m.thread / kWarpLanes]);
    }
    f->copies.erase(f->copies.begin(), f->copies.begin() + static_cast<std::ptrdiff_t>(n));
}

} // namespace simt
