/* See memory.h. */
#include "kernels/onednn/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LINE_NBYTES = 64, LARGE_PAGE_NBYTES = 2 << 20 };

void *hr__lines_alloc(size_t nbytes) {
    const size_t rounded = (nbytes / LINE_NBYTES + 1) * LINE_NBYTES;
    void *memory = aligned_alloc(LINE_NBYTES, rounded);
    return memory == NULL ? NULL : memset(memory, 0, rounded);
}

static char *map(size_t nbytes) {
    void *memory = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Not malloc's memory: advice would stay with it when it is freed. */
void *hr__pages_alloc(size_t nbytes) {
    if (nbytes < LARGE_PAGE_NBYTES) return map(nbytes + 1);
    const size_t mapped = nbytes + 1 + LARGE_PAGE_NBYTES;
    char *memory = map(mapped);
    if (memory == NULL) return NULL;
    const size_t before = (LARGE_PAGE_NBYTES - (uintptr_t)memory % LARGE_PAGE_NBYTES) % LARGE_PAGE_NBYTES;
    if (before > 0) munmap(memory, before);
    munmap(memory + mapped - (LARGE_PAGE_NBYTES - before), LARGE_PAGE_NBYTES - before);
    madvise(memory + before, nbytes / LARGE_PAGE_NBYTES * LARGE_PAGE_NBYTES,
            MADV_HUGEPAGE); /* may be refused */
    return memory + before;
}

void hr__pages_free(void *memory, size_t nbytes) {
    if (memory != NULL) munmap(memory, nbytes + 1);
}
