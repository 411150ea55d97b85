/* The memory that kernels may touch, and a look at every access: the kernels are compiled with
 * -fsanitize=thread and linked with hooks of our own instead of its library (memory.cc).
 *
 * For every two bytes it is known who wrote and who read them last, and in which phase: the time between two
 * barriers of a block. Two accesses of which one writes race where they are of two threads in one phase, or
 * of two blocks of one launch.
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

void memory_begin_launch();
void memory_begin_block();
void memory_begin_phase();

/* Who is running: what is on its own stack is nobody else's business. Nobody: stack is NULL, and nothing is
 * looked at. */
void memory_actor(uint32_t thread, const void *stack, size_t stack_nbytes);

void memory_read(const void *at, size_t nbytes);
/* A copy in flight to shared memory: who touches it before it has landed is wrong. */
void memory_begin_copy(const void *at, size_t nbytes);
void memory_end_copy(const void *at, size_t nbytes);

} // namespace simt

#endif
