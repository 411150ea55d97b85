/* A CUDA device's threads on one CPU thread, to run the very kernels of kernels/cuda where there is no GPU.
 *
 * A block's threads are fibers (fibers.h). They are run one at a time until they meet a barrier or an
 * operation of the whole warp; blocks, warps and lanes are taken forwards, backwards or shuffled, in turn
 * from launch to launch. Blocks run one after another.
 *
 * Modelled: what a launch may not do (sizes, shared memory), barriers, what a warp's lanes do together
 * (warp.h), copies to shared memory that land as late as may be (copies.h), and what sm_90a has beyond that
 * (hopper.h). Every access of the kernels is looked at (memory.h). Each of these ends the launch with a
 * message: an access out of bounds or misaligned, a race between two threads, shared memory read before it is
 * written, a barrier or an operation of the warp that not all reach, and in a launch that may begin early an
 * access to what those before have touched by a thread that has not waited for them.
 * Not modelled: time, caches, the order in which other threads see stores that no barrier orders (any two
 * such accesses count as a race), the fences between ordinary accesses and asynchronous ones, flushed
 * denormals, the bits of the device's approximate functions and the order of an mma's sum.
 *
 * One launch at a time, one thread.
 */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_MACHINE_H
#define HOMERANK_TESTS_KERNELS_SIMT_MACHINE_H

#include <cstddef>
#include <cstdint>
#include <string>

namespace simt {

/* kMostShared: of a block on sm_90; on sm_86 and sm_89, the smallest devices that the product runs on, it is
 * kLeastShared. */
constexpr uint32_t kWarpLanes = 32, kMostThreads = 1024, kMostShared = 227 * 1024, kLeastShared = 99 * 1024,
                   kFreeShared = 48 * 1024;
/* Addresses of shared memory as numbers of their own, which nothing else mistakes for pointers. */
constexpr uint32_t kSharedBase = 1024;
constexpr size_t kMostArguments = 128;

struct Index {
    uint32_t x, y, z;
};

struct Launch {
    Index grid, block;
    bool early;                          /* it may begin before the launch before it has ended */
    size_t shared_nbytes;                /* dynamic */
    void (*call)(const void *arguments); /* calls the kernel */
    alignas(16) uint8_t arguments[kMostArguments];
};

/* Whether the launch was carried out; else *error says what was wrong. */
bool run(const Launch &launch, std::string *error);

/* Ends the launch that is running. */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- For the fiber that is running ---- */

__attribute__((const)) Index thread_index();
__attribute__((const)) Index block_index();
__attribute__((const)) Index grid_size();
__attribute__((const)) uint8_t *shared_memory(); /* dynamic; 1024-byte aligned */

uint8_t *shared_at(uint32_t address);

void wait_for_previous();
void barrier();

} // namespace simt

#endif
