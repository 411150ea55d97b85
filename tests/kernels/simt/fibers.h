/* The threads of the block that is running, as fibers: one runs until it has to wait or its kernel ends, then
 * who resumed it goes on.
 *
 * A fiber's stack is made once and kept for all launches. One thread. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_FIBERS_H
#define HOMERANK_TESTS_KERNELS_SIMT_FIBERS_H

#include <cstdint>

#include "tests/kernels/simt/machine.h"

namespace simt {

enum class State : uint8_t { kReady, kAtBarrier, kAtWarp, kAtSharedBarrier, kAtGroup, kDone };

/* ---- For who runs them ---- */

/* A block's threads begin, all ready. launch: borrowed until the next begin. */
void fibers_begin(const Launch *launch);
State fiber_state(uint32_t thread);
uint32_t fibers_count(State state);
void fiber_resume(uint32_t thread); /* a ready one, until it is none */
/* After a launch that failed: wherever they are, they begin anew. */
void fibers_abandon();

bool fiber_runs();

/* ---- For the one that is running ---- */

uint32_t thread_number();
void suspend(State why); /* until it is woken */
void wake(uint32_t thread);
[[noreturn]] void fiber_leave(); /* for good: it is not to be resumed */

} // namespace simt

#endif
