/* The memory that kernels may touch, and a look at every access: the kernels are compiled with
 * -fsanitize=thread and linked with hooks of our own instead of its library (memory.cc).
 *
 * For every two bytes it is known who wrote and who read them last, and at which time (clocks.h). Two
 * accesses of which one writes race where they are of two threads of which the later does not know of the
 * earlier's, or of two blocks of one launch. Of several readers that do not know of each other the group of
 * 128 threads alone is kept, or that there are several groups: a writer must know of all of those.
 */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_MEMORY_H
#define HOMERANK_TESTS_KERNELS_SIMT_MEMORY_H

#include <cstddef>
#include <cstdint>

namespace simt {

enum class Space { kGlobal, kShared };

/* Fresh memory, 4096-byte aligned, that kernels may touch; it begins with NaNs. */
void *memory_create(size_t nbytes);
void memory_destroy(void *memory);
/* Whether all of it is memory of ours; whether any of it is. */
bool memory_holds(const void *at, size_t nbytes);
bool memory_meets(const void *at, size_t nbytes);

/* Makes shared memory known; the same again may have another size. */
void memory_share(void *memory, size_t nbytes);

/* early: it may begin before those since the last launch that is not early have ended, and must not meet what
 * they touched before it has waited for them. */
void memory_begin_launch(bool early);
/* warps: those it has (clocks.h). */
void memory_begin_block(uint32_t warps);

/* Who is running: what is on its own stack is nobody else's business. waited: for the launches before.
 * Nobody: stack is NULL, and nothing is looked at. */
void memory_actor(uint32_t thread, const void *stack, size_t stack_nbytes, bool waited);

/* One access of the actor; a run of them. */
void memory_read(const void *at, size_t nbytes);
void memory_write(const void *at, size_t nbytes);
void memory_read_run(const void *at, size_t nbytes);
void memory_write_run(const void *at, size_t nbytes);

/* A copy in flight to shared memory: who touches it before it has landed is wrong. What has landed was
 * written by `thread` at `time`. */
void memory_begin_copy(const void *at, size_t nbytes);
void memory_end_copy(const void *at, size_t nbytes, uint32_t thread, uint32_t time);

/* Shared memory that something under way reads for the actor's warp, any time before the end: who writes
 * there before, or does not know of the end, is wrong. What nobody wrote may be read: products that nobody
 * uses have such operands. */
void memory_begin_reading(const void *at, size_t nbytes);
void memory_end_reading(const void *at, uint32_t warp);

} // namespace simt

#endif
