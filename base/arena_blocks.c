/* Blocks for arenas: see arena_blocks.h.
 *
 * Idle blocks lie on stacks, one for each power of two. How many were idle all through an interval is how
 * many are not needed: as many of those that come back next are unmapped, one at a time, so that nobody pays
 * for all. A thread that finds the lock taken does not wait, for the other may be of low priority and without
 * a CPU: it asks the system. */
#include "base/arena_blocks.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/clock.h"

enum { SMALLEST_LOG2 = 13, LARGEST_LOG2 = 20, N_SIZES = LARGEST_LOG2 - SMALLEST_LOG2 + 1 };
enum { MAX_IDLE_NBYTES = 32 << 20 };
static const uint64_t INTERVAL_NS = UINT64_C(5000000000);

typedef struct idle_block {
    struct idle_block *next;
} idle_block;

typedef struct stack {
    idle_block *top;      /* owned */
    size_t n_idle, least; /* now, and at the least in this interval */
    size_t surplus;       /* still to go of those that the last interval did not need */
} stack;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the rest; only ever tried */
static stack stacks[N_SIZES];
static size_t idle_nbytes;
static uint64_t interval_end_ns;

static size_t nbytes_of(unsigned size) {
    return (size_t)1 << (SMALLEST_LOG2 + size);
}

/* The least size that holds nbytes; N_SIZES: none does. */
static unsigned size_for(size_t nbytes) {
    unsigned size = 0;
    while (size < N_SIZES && nbytes > nbytes_of(size)) size++;
    return size;
}

static idle_block *pop(unsigned size) {
    if (pthread_mutex_trylock(&lock) != 0) return NULL;
    stack *s = &stacks[size];
    idle_block *block = s->top;
    if (block != NULL) {
        s->top = block->next;
        idle_nbytes -= nbytes_of(size);
        if (--s->n_idle < s->least) s->least = s->n_idle;
    }
    pthread_mutex_unlock(&lock);
    return block;
}

/* With the lock. */
static void end_interval(uint64_t now_ns) {
    interval_end_ns = now_ns + INTERVAL_NS;
    for (unsigned size = 0; size < N_SIZES; size++) {
        stacks[size].surplus = stacks[size].least;
        stacks[size].least = stacks[size].n_idle;
    }
}

/* With the lock: whether a block that comes back is kept. */
static bool is_wanted(stack *s, size_t nbytes) {
    if (idle_nbytes + nbytes > MAX_IDLE_NBYTES) return false;
    if (s->surplus == 0) return true;
    s->surplus--;
    return false;
}

static bool push(idle_block *block, unsigned size) {
    const uint64_t now_ns = hr_clock_ns();
    if (pthread_mutex_trylock(&lock) != 0) return false;
    if (now_ns >= interval_end_ns) end_interval(now_ns);
    stack *s = &stacks[size];
    const bool keep = is_wanted(s, nbytes_of(size));
    if (keep) {
        block->next = s->top;
        s->top = block;
        s->n_idle++;
        idle_nbytes += nbytes_of(size);
    }
    pthread_mutex_unlock(&lock);
    return keep;
}

static void *map(size_t nbytes) {
    void *block = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}

/* AddressSanitizer sees uses after free, and leaks, of what malloc gave alone. */
static bool is_mapped(unsigned size) {
#ifdef HR_ARENA_SANITIZED
    (void)size;
    return false;
#else
    return size < N_SIZES;
#endif
}

void *hr_arena_block__take(size_t *nbytes) {
    const unsigned size = size_for(*nbytes);
    if (size < N_SIZES) *nbytes = nbytes_of(size);
    if (!is_mapped(size)) return malloc(*nbytes);
    idle_block *block = pop(size);
    return block != NULL ? block : map(*nbytes);
}

void hr_arena_block__give(void *block, size_t nbytes) {
    const unsigned size = size_for(nbytes);
    if (!is_mapped(size))
        free(block);
    else if (!push(block, size))
        munmap(block, nbytes);
}
