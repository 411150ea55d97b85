/* See fibers.h. */
#include "tests/kernels/simt/fibers.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdlib>
#include <cstring>

#include "tests/kernels/simt/memory.h"

namespace simt {
namespace {

constexpr size_t kStackBytes = 64 * 1024;

struct Fiber {
    uint8_t *stack;
    bool begun; /* `at` is somewhere in its loop */
    jmp_buf at;
    State state;
    bool waited; /* for the launches before */
};

const Launch *launch;
uint32_t n_threads; /* of a block */
Fiber fibers[kMostThreads];
Fiber *running;
jmp_buf scheduler;
ucontext_t entry;

void yield() {
    if (_setjmp(running->at) == 0) _longjmp(scheduler, 1);
}

/* Runs kernel after kernel: a fiber is made once and goes on where it yielded. */
void fiber_loop() {
    for (;;) {
        alignas(16) uint8_t arguments[kMostArguments]; /* where the thread may read them */
        memcpy(arguments, launch->arguments, sizeof arguments);
        launch->call(arguments);
        running->state = State::kDone;
        yield();
    }
}

void fiber_begin(Fiber *f) {
    static ucontext_t nowhere;
    f->begun = true;
    getcontext(&entry);
    entry.uc_stack.ss_sp = f->stack;
    entry.uc_stack.ss_size = kStackBytes;
    makecontext(&entry, fiber_loop, 0);
    swapcontext(&nowhere, &entry); /* comes back by the scheduler's longjmp alone */
}

} // namespace

void fibers_begin(const Launch *begun) {
    launch = begun;
    n_threads = launch->block.x;
    for (uint32_t t = 0; t < n_threads; t++) {
        fibers[t].state = State::kReady;
        fibers[t].waited = !launch->early;
    }
}

State fiber_state(uint32_t thread) {
    return fibers[thread].state;
}

uint32_t fibers_count(State state) {
    uint32_t n = 0;
    for (uint32_t t = 0; t < n_threads; t++) n += fibers[t].state == state;
    return n;
}

void fiber_resume(uint32_t thread) {
    Fiber *f = &fibers[thread];
    if (f->stack == nullptr) {
        void *stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) abort();
        f->stack = static_cast<uint8_t *>(stack);
    }
    running = f;
    memory_actor(thread, f->stack, kStackBytes, f->waited);
    if (_setjmp(scheduler) == 0) {
        if (f->begun) _longjmp(f->at, 1);
        fiber_begin(f);
    }
    running = nullptr;
    memory_actor(0, nullptr, 0, true);
}

void fibers_abandon() {
    for (Fiber &f : fibers) f.begun = false;
}

bool fiber_runs() {
    return running != nullptr;
}

/* ---- For the one that is running ---- */

uint32_t thread_number() {
    return static_cast<uint32_t>(running - fibers);
}

void suspend(State why) {
    running->state = why;
    yield();
}

void wake(uint32_t thread) {
    fibers[thread].state = State::kReady;
}

void fiber_leave() {
    _longjmp(scheduler, 1);
}

void wait_for_previous() {
    running->waited = true;
    memory_actor(thread_number(), running->stack, kStackBytes, true);
}

} // namespace simt
