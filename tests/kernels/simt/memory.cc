/* See memory.h. */
#include "tests/kernels/simt/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <iterator>
#include <map>

#include "tests/kernels/simt/machine.h"

/* Of this program, by the linker: constants lie there, which kernels may read. */
extern "C" const char __executable_start[], _end[];

namespace simt {
namespace {

constexpr size_t kRecent = 256, kGranule = 2, kMostTouched = size_t{1} << 22;
constexpr uint16_t kMany = 0x7FFF, kElsewhere = 0x8000, kInFlight = 0xFFFF;

/* What happened last to two bytes. */
struct Cell {
    uint32_t written, read; /* phases */
    uint16_t writer,
        reader; /* threads; kInFlight; kMany, and kElsewhere: by another block of this launch too */
};

struct Region {
    uintptr_t begin;
    size_t nbytes;
    Cell *cells;
    Space space;
};

std::map<uintptr_t, Region> regions; /* by their ends */
const Region *recent[kRecent];       /* found last for a page; several pages share a place */

/* Phases are counted for ever; a launch's and a block's begin at these. */
uint32_t phase, launch_began, block_began;

struct {
    uintptr_t stack, stack_nbytes;
    uint16_t thread;
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
    if (thread == kMany)
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

inline void check_written(const Region &r, const Cell &cell, uintptr_t at, const char *what) {
    if (cell.written < began(r)) return;
    if (cell.writer == kInFlight)
        fail("%s of shared memory, byte %zu: an asynchronous copy to it has not been waited for", what,
             (size_t)(at - r.begin));
    if (cell.written < block_began) race_with_block(r, at, what, "write");
    if (cell.written == phase && cell.writer != actor.thread) race(r, at, what, "write", cell.writer);
}

void read_cell(const Region &r, Cell &cell, uintptr_t at) {
    const uint16_t reader = cell.reader & ~kElsewhere;
    const bool known = cell.read == phase && (reader == actor.thread || reader == kMany);
    if (known && cell.written < phase) return; /* it was fine then */
    if (r.space == Space::kShared && cell.written < block_began)
        fail("read of shared memory, byte %zu: nothing was written there", (size_t)(at - r.begin));
    check_written(r, cell, at, "read");
    uint16_t elsewhere = 0;
    if (cell.read >= began(r)) elsewhere = cell.read < block_began ? kElsewhere : cell.reader & kElsewhere;
    cell.reader = (cell.read == phase && reader != actor.thread ? kMany : actor.thread) | elsewhere;
    cell.read = phase;
}

void write_cell(const Region &r, Cell &cell, uintptr_t at) {
    check_written(r, cell, at, "write");
    if (cell.read >= began(r)) {
        const uint16_t reader = cell.reader & ~kElsewhere;
        if (cell.read < block_began || (cell.reader & kElsewhere) != 0)
            race_with_block(r, at, "write", "read");
        if (cell.read == phase && reader != actor.thread) race(r, at, "write", "read", reader);
    }
    cell.written = phase;
    cell.writer = actor.thread;
}

template <bool kWrite> void touch(uintptr_t at, size_t nbytes) {
    const Region *r = find(at, nbytes);
    if (__builtin_expect(r == nullptr, 0)) {
        const bool constant = at >= (uintptr_t)__executable_start && at < (uintptr_t)_end;
        if (constant && !kWrite) return;
        fail("%s of %zu bytes at %#zx, which is no memory of the device", kWrite ? "write" : "read", nbytes,
             (size_t)at);
    }
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

void memory_begin_launch() {
    launch_began = block_began = ++phase;
}

void memory_begin_block() {
    block_began = ++phase;
}

void memory_begin_phase() {
    phase++;
}

void memory_actor(uint32_t thread, const void *stack, size_t stack_nbytes) {
    actor = {(uintptr_t)stack, stack_nbytes, (uint16_t)thread};
}

void memory_read(const void *at, size_t nbytes) {
    hook<false>(at, nbytes, true);
}

void memory_begin_copy(const void *at, size_t nbytes) {
    hook<true>(at, nbytes, true);
    const Region *r = find((uintptr_t)at, nbytes);
    if (r == nullptr || r->space != Space::kShared) fail("an asynchronous copy to what is no shared memory");
    Cell *cells = r->cells + ((uintptr_t)at - r->begin) / kGranule;
    for (size_t i = 0; i < nbytes / kGranule; i++) cells[i].writer = kInFlight;
}

void memory_end_copy(const void *at, size_t nbytes) {
    const Region *r = find((uintptr_t)at, nbytes);
    Cell *cells = r->cells + ((uintptr_t)at - r->begin) / kGranule;
    for (size_t i = 0; i < nbytes / kGranule; i++) cells[i].written = phase, cells[i].writer = actor.thread;
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
