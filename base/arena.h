/* A bump allocator with a cap: one arena owns all the memory of one request (or of one loaded model).
 *
 * Thread rule: one thread at a time; ownership moves with the request. Memory that an arena frees is kept, up
 * to 32 MB in all, for whichever needs some next, of any thread.
 */
#ifndef HOMERANK_BASE_ARENA_H
#define HOMERANK_BASE_ARENA_H

#include <stddef.h>

typedef struct hr_arena hr_arena;

/* cap_nbytes bounds the sum of all allocations, each rounded up to 16 bytes; the heap behind them is at most
 * about twice that. NULL when out of memory. */
hr_arena *hr_arena_create(size_t cap_nbytes);
void hr_arena_destroy(hr_arena *arena); /* NULL is allowed */

/* nbytes aligned for any type (16), uninitialised; valid until reset or destroy. NULL past the cap or when
 * out of memory. A size of 0 gives a valid pointer. */
void *hr_arena_alloc(hr_arena *arena, size_t nbytes);

/* count * size, zeroed; NULL also on overflow. */
void *hr_arena_calloc(hr_arena *arena, size_t count, size_t size);

/* A NUL-terminated copy of bytes[0..nbytes). */
char *hr_arena_strndup(hr_arena *arena, const char *bytes, size_t nbytes);

/* Frees everything but the first block, for reuse. */
void hr_arena_reset(hr_arena *arena);

/* The bytes handed out since create or reset. */
size_t hr_arena_used(const hr_arena *arena);

#endif
