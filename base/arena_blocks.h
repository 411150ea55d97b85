/* What arenas are made of: blocks, of which idle ones are kept for all threads together. Internal to base/.
 *
 * The C library keeps what is freed too, but for each thread apart, and in one piece with whatever else the
 * thread has allocated: every thread's heap stays as large as it once was, each at another moment, for good.
 * Requests are made by one thread and freed by another, and are most of what a server allocates. Their memory
 * is here as much as they need at once, and goes back to the system when they have not for some seconds.
 */
#ifndef HOMERANK_BASE_ARENA_BLOCKS_H
#define HOMERANK_BASE_ARENA_BLOCKS_H

#include <stddef.h>

/* Defined where AddressSanitizer is at work. */
#if defined(__SANITIZE_ADDRESS__)
#define HR_ARENA_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HR_ARENA_SANITIZED 1
#endif
#endif

/* A block of *nbytes or more, uninitialised; *nbytes becomes its size, the least that an arena's first block
 * has, or less than twice what was asked for. NULL when out of memory. Any thread; never waits for another.
 */
void *hr_arena_block__take(size_t *nbytes);

/* Takes it back; nbytes is its size. */
void hr_arena_block__give(void *block, size_t nbytes);

#endif
