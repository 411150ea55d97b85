/* Bump allocator: see arena.h. Blocks double in size; a large allocation gets a block of its own size. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, FIRST_BLOCK_NBYTES = 8192, LARGEST_BLOCK_NBYTES = 1 << 20 };

typedef struct block {
    struct block *previous;
    size_t capacity;
    size_t used;
    alignas(ALIGNMENT) unsigned char data[];
} block;

struct hr_arena {
    block *last; /* owned; NULL before the first allocation */
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
        free(from);
        from = previous;
    }
}

void hr_arena_destroy(hr_arena *arena) {
    if (arena == NULL) return;
    free_blocks(arena->last, NULL);
    free(arena);
}

static block *block_add(hr_arena *arena, size_t need) {
    size_t capacity = arena->last == NULL ? FIRST_BLOCK_NBYTES : arena->last->capacity * 2;
    if (capacity > LARGEST_BLOCK_NBYTES) capacity = LARGEST_BLOCK_NBYTES;
    if (capacity < need) capacity = need;
    block *added = malloc(sizeof *added + capacity);
    if (added == NULL) return NULL;
    added->previous = arena->last;
    added->capacity = capacity;
    added->used = 0;
    arena->last = added;
    return added;
}

void *hr_arena_alloc(hr_arena *arena, size_t nbytes) {
    if (nbytes > SIZE_MAX / 2) return NULL;
    size_t need = (nbytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (need > arena->cap - arena->used) return NULL;
    block *b = arena->last;
    if (b == NULL || need > b->capacity - b->used) b = block_add(arena, need);
    if (b == NULL) return NULL;
    void *p = b->data + b->used;
    b->used += need;
    arena->used += need;
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
    memcpy(copy, bytes, nbytes);
    copy[nbytes] = '\0';
    return copy;
}

void hr_arena_reset(hr_arena *arena) {
    if (arena->last == NULL) return;
    block *first = arena->last;
    while (first->previous != NULL) first = first->previous;
    free_blocks(arena->last, first);
    arena->last = first;
    first->used = 0;
    arena->used = 0;
}

size_t hr_arena_used(const hr_arena *arena) {
    return arena->used;
}
