/* See memory.h. */
#include "tests/kernels/simt/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <vector>

#include "tests/kernels/simt/clocks.h"
#include "tests/kernels/simt/machine.h"

/* Of this program, by the linker: constants lie there, which kernels may read. */
extern "C" const char __executable_start[], _end[];

namespace simt {
namespace {

constexpr size_t kRecent = 256, kGranule = 2, kMostTouched = size_t{1} << 22;
constexpr size_t kChunk = 16; /* what copies to shared memory are made of */
constexpr uint32_t kGroupThreads = 128, kGroupWarps = kGroupThreads / kWarpLanes;
constexpr uint16_t kSeveral = kMostThreads, kMany = 0x7FFF, kElsewhere = 0x8000, kInFlight = 0xFFFF;

/* What happened last to two bytes. */
struct Cell {
    uint32_t written, read; /* times; read: since it was written */
    uint16_t writer;        /* a thread; kInFlight */
    uint16_t reader; /* a thread; kSeveral + their group; kMany; and kElsewhere: by another block of this
                      * launch too */
};

/* memory_begin_reading. */
struct Reading {
    uintptr_t begin, end;
    uint32_t warp, n_under_way, ended; /* ended: the warp's time */
};

struct Region {
    uintptr_t begin;
    size_t nbytes;
    Cell *cells;
    Space space;
};

std::map<uintptr_t, Region> regions; /* by their ends */
const Region *recent[kRecent];       /* found last for a page; several pages share a place */

std::vector<Reading> readings; /* of the block's shared memory */

/* Times. chain: of launches each of which may begin before the one before has ended. */
uint32_t chain_began, launch_began, block_began;

struct {
    uintptr_t stack, stack_nbytes;
    const uint32_t *seen; /* its warp's clock */
    uint16_t thread;
    uint8_t warp;
    bool waited;
} actor;

void *map_zeros(size_t nbytes) {
    void *memory =
        mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

size_t cells_nbytes(size_t nbytes) {
    return (nbytes / kGranule + 1) * sizeof(Cell);
}

inline bool holds(const Region *r, uintptr_t at, size_t nbytes) {
    return r != nullptr && at - r->begin < r->nbytes && at + nbytes <= r->begin + r->nbytes;
}

const Region *look_up(uintptr_t at, size_t nbytes) {
    auto found = regions.upper_bound(at);
    if (found == regions.end() || at < found->second.begin || at + nbytes > found->first) return nullptr;
    return recent[(at >> 12) % kRecent] = &found->second;
}

inline const Region *find(uintptr_t at, size_t nbytes) {
    const Region *r = recent[(at >> 12) % kRecent];
    return holds(r, at, nbytes) ? r : look_up(at, nbytes);
}

void forget_recent() {
    for (const Region *&r : recent) r = nullptr;
}

const char *name_of(Space space) {
    return space == Space::kShared ? "shared" : "global";
}

[[noreturn]] void race(const Region &r, uintptr_t at, const char *what, const char *with, uint16_t thread) {
    const char *space = name_of(r.space);
    const size_t byte = at - r.begin;
    if (thread >= kSeveral)
        fail("%s of %s memory, byte %zu, races with several threads' %s", what, space, byte, with);
    fail("%s of %s memory, byte %zu, races with a %s of thread %u", what, space, byte, with, thread);
}

[[noreturn]] void race_with_block(const Region &r, uintptr_t at, const char *what, const char *with) {
    fail("%s of %s memory, byte %zu, races with a %s of another block", what, name_of(r.space),
         (size_t)(at - r.begin), with);
}

/* When what happened to a region's bytes before is of no more consequence. */
uint32_t began(const Region &r) {
    return r.space == Space::kShared ? block_began : launch_began;
}

inline uint32_t now() {
    return actor.seen[actor.warp];
}

inline uint32_t group_of(uint32_t reader) {
    return reader < kSeveral ? reader / kGroupThreads : reader - kSeveral;
}

/* The actor knows of what the reader, or all of those, did before this time. */
uint32_t known_of(uint32_t reader) {
    if (__builtin_expect(reader < kSeveral, 1)) return actor.seen[reader / kWarpLanes];
    uint32_t warps = clocks_warps();
    if (reader != kMany) warps &= ((1U << kGroupWarps) - 1) << (group_of(reader) * kGroupWarps);
    uint32_t least = UINT32_MAX;
    for (; warps != 0; warps &= warps - 1) least = std::min(least, actor.seen[__builtin_ctz(warps)]);
    return least;
}

/* A region's bytes were touched before: by launches that may still run? */
inline void check_waited(const Region &r, uint32_t time, uintptr_t at, const char *what) {
    if (!actor.waited && r.space == Space::kGlobal && time >= chain_began && time < launch_began)
        fail("%s of global memory, byte %zu, that a launch before touched: it has not been waited for", what,
             (size_t)(at - r.begin));
}

inline void check_written(const Region &r, const Cell &cell, uintptr_t at, const char *what) {
    if (cell.written < began(r)) return check_waited(r, cell.written, at, what);
    if (cell.writer == kInFlight)
        fail("%s of shared memory, byte %zu: an asynchronous copy to it has not been waited for", what,
             (size_t)(at - r.begin));
    if (cell.written < block_began) race_with_block(r, at, what, "write");
    if (cell.writer != actor.thread && cell.written >= actor.seen[cell.writer / kWarpLanes])
        race(r, at, what, "write", cell.writer);
}

inline void check_readable(const Region &r, const Cell &cell, uintptr_t at) {
    if (r.space == Space::kShared && cell.written < block_began)
        fail("read of shared memory, byte %zu: nothing was written there", (size_t)(at - r.begin));
    check_written(r, cell, at, "read");
}

void read_cell(const Region &r, Cell &cell, uintptr_t at) {
    const uint16_t reader = cell.reader & ~kElsewhere;
    const uint32_t time = now();
    if (cell.read == time && reader == actor.thread) return; /* it was fine then */
    check_readable(r, cell, at);
    if (cell.read >= time && (reader == kMany || reader == kSeveral + group_of(actor.thread))) return;
    uint16_t elsewhere = 0, readers = actor.thread;
    if (cell.read >= began(r)) elsewhere = cell.read < block_began ? kElsewhere : cell.reader & kElsewhere;
    if (cell.read >= block_began && reader != actor.thread && cell.read >= known_of(reader)) {
        const uint32_t group = group_of(actor.thread);
        readers =
            reader != kMany && group_of(reader) == group ? static_cast<uint16_t>(kSeveral + group) : kMany;
        cell.read = std::max(cell.read, time);
    } else {
        cell.read = time;
    }
    cell.reader = readers | elsewhere;
}

void write_cell(const Region &r, Cell &cell, uintptr_t at) {
    check_written(r, cell, at, "write");
    if (cell.read >= began(r)) {
        const uint16_t reader = cell.reader & ~kElsewhere;
        if (cell.read < block_began || (cell.reader & kElsewhere) != 0)
            race_with_block(r, at, "write", "read");
        if (reader != actor.thread && cell.read >= known_of(reader)) race(r, at, "write", "read", reader);
    } else {
        check_waited(r, cell.read, at, "write");
    }
    cell.written = now();
    cell.writer = actor.thread;
    cell.read = 0;
}

/* What products and copies read behind the threads' backs may not change yet. */
void check_readings(const Region &r, uintptr_t at, size_t nbytes) {
    for (const Reading &reading : readings) {
        if (at >= reading.end || at + nbytes <= reading.begin) continue;
        const size_t byte = at - r.begin;
        if (reading.n_under_way > 0)
            fail("write of shared memory, byte %zu, which a product or copy of warp %u reads", byte,
                 reading.warp);
        if (reading.warp != actor.warp && reading.ended >= actor.seen[reading.warp])
            fail("write of shared memory, byte %zu, races with the end of a product or copy of warp %u", byte,
                 reading.warp);
    }
}

template <bool kWrite> void touch(uintptr_t at, size_t nbytes) {
    const Region *r = find(at, nbytes);
    if (__builtin_expect(r == nullptr, 0)) {
        const bool constant = at >= (uintptr_t)__executable_start && at < (uintptr_t)_end;
        if (constant && !kWrite) return;
        fail("%s of %zu bytes at %#zx, which is no memory of the device", kWrite ? "write" : "read", nbytes,
             (size_t)at);
    }
    if (kWrite && r->space == Space::kShared && !readings.empty()) check_readings(*r, at, nbytes);
    Cell *cell = r->cells + (at - r->begin) / kGranule,
         *end = r->cells + (at + nbytes - 1 - r->begin) / kGranule + 1;
    for (; cell < end; cell++, at += kGranule) {
        if (kWrite) {
            write_cell(*r, *cell, at);
        } else {
            read_cell(*r, *cell, at);
        }
    }
}

/* An access of a kernel. Natural alignment is what devices ask for; `whole`: it is one access there too. */
template <bool kWrite> void hook(const void *address, size_t nbytes, bool whole) {
    const auto at = (uintptr_t)address;
    if (actor.stack == 0 || at - actor.stack < actor.stack_nbytes) return;
    if (whole && at % nbytes != 0)
        fail("%s of %zu bytes at %#zx is misaligned", kWrite ? "write" : "read", nbytes, (size_t)at);
    touch<kWrite>(at, nbytes);
}

} // namespace

void *memory_create(size_t nbytes) {
    void *memory = map_zeros(nbytes + 1), *cells = map_zeros(cells_nbytes(nbytes));
    if (memory == nullptr || cells == nullptr) return nullptr;
    memset(memory, 0xFF, nbytes < kMostTouched ? nbytes : kMostTouched);
    const auto begin = (uintptr_t)memory;
    regions[begin + nbytes] = {begin, nbytes, static_cast<Cell *>(cells), Space::kGlobal};
    return memory;
}

void memory_destroy(void *memory) {
    auto found = regions.upper_bound((uintptr_t)memory);
    if (found == regions.end() || found->second.begin != (uintptr_t)memory) return;
    const Region gone = found->second;
    regions.erase(found);
    forget_recent();
    munmap(gone.cells, cells_nbytes(gone.nbytes));
    munmap(memory, gone.nbytes + 1);
}

bool memory_holds(const void *at, size_t nbytes) {
    return nbytes == 0 || find((uintptr_t)at, nbytes) != nullptr;
}

bool memory_meets(const void *at, size_t nbytes) {
    const auto found = regions.upper_bound((uintptr_t)at);
    return nbytes > 0 && found != regions.end() && found->second.begin < (uintptr_t)at + nbytes;
}

void memory_share(void *memory, size_t nbytes) {
    static std::map<void *, void *> cells; /* of the most there can be */
    const auto begin = (uintptr_t)memory;
    for (auto i = regions.begin(); i != regions.end();)
        i = i->second.begin == begin ? regions.erase(i) : std::next(i);
    forget_recent();
    if (nbytes == 0) return;
    if (cells[memory] == nullptr) cells[memory] = map_zeros(cells_nbytes(kMostShared));
    regions[begin + nbytes] = {begin, nbytes, static_cast<Cell *>(cells[memory]), Space::kShared};
}

void memory_begin_launch(bool early) {
    launch_began = block_began = clocks_begin(0);
    if (!early) chain_began = launch_began;
}

void memory_begin_block(uint32_t warps) {
    block_began = clocks_begin(warps);
    readings.clear();
}

void memory_actor(uint32_t thread, const void *stack, size_t stack_nbytes, bool waited) {
    const uint32_t warp = thread / kWarpLanes;
    actor = {(uintptr_t)stack, stack_nbytes, clock_of(warp)->seen, (uint16_t)thread, (uint8_t)warp, waited};
}

void memory_read(const void *at, size_t nbytes) {
    hook<false>(at, nbytes, true);
}

void memory_write(const void *at, size_t nbytes) {
    hook<true>(at, nbytes, true);
}

void memory_read_run(const void *at, size_t nbytes) {
    hook<false>(at, nbytes, false);
}

void memory_write_run(const void *at, size_t nbytes) {
    hook<true>(at, nbytes, false);
}

void memory_begin_copy(const void *at, size_t nbytes) {
    if ((uintptr_t)at % kChunk != 0)
        fail("an asynchronous copy to %#zx is misaligned", (size_t)(uintptr_t)at);
    hook<true>(at, nbytes, false);
    const Region *r = find((uintptr_t)at, nbytes);
    if (r == nullptr || r->space != Space::kShared) fail("an asynchronous copy to what is no shared memory");
    Cell *cells = r->cells + ((uintptr_t)at - r->begin) / kGranule;
    for (size_t i = 0; i < nbytes / kGranule; i++) cells[i].writer = kInFlight;
}

void memory_end_copy(const void *at, size_t nbytes, uint32_t thread, uint32_t time) {
    const Region *r = find((uintptr_t)at, nbytes);
    Cell *cells = r->cells + ((uintptr_t)at - r->begin) / kGranule;
    for (size_t i = 0; i < nbytes / kGranule; i++)
        cells[i].written = time, cells[i].writer = (uint16_t)thread;
}

void memory_begin_reading(const void *at, size_t nbytes) {
    const auto begin = (uintptr_t)at;
    const Region *r = find(begin, nbytes);
    if (r == nullptr || r->space != Space::kShared || begin % kChunk != 0)
        fail("%zu bytes at %#zx are no operand in shared memory", nbytes, (size_t)begin);
    for (size_t i = 0; i < nbytes; i += kChunk)
        check_written(*r, r->cells[(begin + i - r->begin) / kGranule], begin + i, "read");
    for (Reading &reading : readings) {
        if (reading.begin == begin && reading.warp == actor.warp && reading.end == begin + nbytes) {
            reading.n_under_way++;
            return;
        }
    }
    readings.push_back({begin, begin + nbytes, actor.warp, 1, 0});
}

void memory_end_reading(const void *at, uint32_t warp) {
    for (Reading &reading : readings) {
        if (reading.begin != (uintptr_t)at || reading.warp != warp || reading.n_under_way == 0) continue;
        reading.n_under_way--;
        reading.ended = clock_of(warp)->seen[warp];
        return;
    }
}

} // namespace simt

/* ---- What the compiler calls ---- */

#define HOOKS(n)                                                                                             \
    void __tsan_read##n(void *at);                                                                           \
    void __tsan_read##n(void *at) {                                                                          \
        simt::hook<false>(at, n, true);                                                                      \
    }                                                                                                        \
    void __tsan_write##n(void *at);                                                                          \
    void __tsan_write##n(void *at) {                                                                         \
        simt::hook<true>(at, n, true);                                                                       \
    }                                                                                                        \
    void __tsan_unaligned_read##n(void *at);                                                                 \
    void __tsan_unaligned_read##n(void *at) {                                                                \
        simt::hook<false>(at, n, false);                                                                     \
    }                                                                                                        \
    void __tsan_unaligned_write##n(void *at);                                                                \
    void __tsan_unaligned_write##n(void *at) {                                                               \
        simt::hook<true>(at, n, false);                                                                      \
    }

extern "C" {
void __tsan_init(void);
void __tsan_init(void) {
}
void __tsan_func_entry(void *);
void __tsan_func_entry(void *) {
}
void __tsan_func_exit(void);
void __tsan_func_exit(void) {
}
void __tsan_read_range(void *at, size_t nbytes);
void __tsan_read_range(void *at, size_t nbytes) {
    simt::hook<false>(at, nbytes, false);
}
void __tsan_write_range(void *at, size_t nbytes);
void __tsan_write_range(void *at, size_t nbytes) {
    simt::hook<true>(at, nbytes, false);
}
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

/* -fsanitize=alignment,bounds: of kernels, and of their launchers on the host. */
void __ubsan_handle_type_mismatch_v1(void *where, uintptr_t at);
void __ubsan_handle_type_mismatch_v1(void *, uintptr_t at) {
    simt::fail("an access at %#zx is misaligned for its type", (size_t)at);
}
void __ubsan_handle_out_of_bounds(void *where, uintptr_t index);
void __ubsan_handle_out_of_bounds(void *, uintptr_t index) {
    simt::fail("index %zu is out of an array's bounds", (size_t)index);
}
}
