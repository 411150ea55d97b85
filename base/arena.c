/* Bump allocator: see arena.h.
 *
 * Blocks double in size up to a limit; what is larger than the next block gets memory of its own, so that the
 * open block's rest is not lost. The heap held is thereby at most about twice what was handed out, whatever
 * the sizes. Under AddressSanitizer all that was not handed out is poisoned, a gap after each allocation
 * included.
 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena_blocks.h"

#ifdef HR_ARENA_SANITIZED
#include <sanitizer/asan_interface.h>
enum { GAP_NBYTES = 16 };
#define poison(p, nbytes)   ASAN_POISON_MEMORY_REGION(p, nbytes)
#define unpoison(p, nbytes) ASAN_UNPOISON_MEMORY_REGION(p, nbytes)
#else
enum { GAP_NBYTES = 0 };
#define poison(p, nbytes)   ((void)(p), (void)(nbytes))
#define unpoison(p, nbytes) ((void)(p), (void)(nbytes))
#endif

enum { ALIGNMENT = 16, FIRST_BLOCK_NBYTES = 8192, LARGEST_BLOCK_NBYTES = 1 << 20 };

typedef struct block {
    struct block *previous;
    size_t capacity;
    size_t used;
    alignas(ALIGNMENT) unsigned char data[];
} block;

struct hr_arena {
    block *open;  /* owned; the block that is being filled, before it the full ones; NULL at first */
    block *large; /* owned; blocks of one allocation each */
    size_t cap;
    size_t used;
};

hr_arena *hr_arena_create(size_t cap_nbytes) {
    hr_arena *arena = malloc(sizeof *arena);
    if (arena == NULL) return NULL;
    *arena = (hr_arena){.cap = cap_nbytes};
    return arena;
}

static void free_blocks(block *from, const block *keep) {
    while (from != keep) {
        block *previous = from->previous;
        unpoison(from->data, from->capacity);
        hr_arena_block__give(from, sizeof *from + from->capacity);
        from = previous;
    }
}

void hr_arena_destroy(hr_arena *arena) {
    if (arena == NULL) return;
    free_blocks(arena->open, NULL);
    free_blocks(arena->large, NULL);
    free(arena);
}

/* A block of nbytes or more, its head included, in front of *list; NULL when out of memory. */
static block *block_add(block **list, size_t nbytes) {
    block *added = hr_arena_block__take(&nbytes);
    if (added == NULL) return NULL;
    added->previous = *list;
    added->capacity = nbytes - sizeof *added;
    added->used = 0;
    poison(added->data, added->capacity);
    *list = added;
    return added;
}

/* A block with room for `room` bytes; NULL when out of memory. */
static block *block_with_room(hr_arena *arena, size_t room) {
    block *open = arena->open;
    if (open != NULL && room <= open->capacity - open->used) return open;
    size_t next = open == NULL ? FIRST_BLOCK_NBYTES : (sizeof *open + open->capacity) * 2;
    if (next > LARGEST_BLOCK_NBYTES) next = LARGEST_BLOCK_NBYTES;
    const size_t nbytes = sizeof(block) + room;
    return nbytes > next ? block_add(&arena->large, nbytes) : block_add(&arena->open, next);
}

void *hr_arena_alloc(hr_arena *arena, size_t nbytes) {
    if (nbytes > SIZE_MAX / 2) return NULL;
    size_t need = (nbytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (need > arena->cap - arena->used) return NULL;
    block *b = block_with_room(arena, need + GAP_NBYTES);
    if (b == NULL) return NULL;
    void *p = b->data + b->used;
    b->used += need + GAP_NBYTES;
    arena->used += need;
    unpoison(p, nbytes);
    return p;
}

void *hr_arena_calloc(hr_arena *arena, size_t count, size_t size) {
    if (size != 0 && count > SIZE_MAX / size) return NULL;
    void *p = hr_arena_alloc(arena, count * size);
    if (p != NULL) memset(p, 0, count * size);
    return p;
}

char *hr_arena_strndup(hr_arena *arena, const char *bytes, size_t nbytes) {
    if (nbytes == SIZE_MAX) return NULL;
    char *copy = hr_arena_alloc(arena, nbytes + 1);
    if (copy == NULL) return NULL;
    if (nbytes > 0) memcpy(copy, bytes, nbytes);
    copy[nbytes] = '\0';
    return copy;
}

void hr_arena_reset(hr_arena *arena) {
    free_blocks(arena->large, NULL);
    arena->large = NULL;
    arena->used = 0;
    if (arena->open == NULL) return;
    block *first = arena->open;
    while (first->previous != NULL) first = first->previous;
    free_blocks(arena->open, first);
    arena->open = first;
    first->used = 0;
    poison(first->data, first->capacity);
}

size_t hr_arena_used(const hr_arena *arena) {
    return arena->used;
}
