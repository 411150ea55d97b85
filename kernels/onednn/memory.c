/* See memory.h. */
#include "kernels/onednn/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LINE_NBYTES = 64, LARGE_PAGE_NBYTES = 2 << 20 };

void *hr__lines_alloc(size_t nbytes) {
    const size_t unit = nbytes < LARGE_PAGE_NBYTES ? LINE_NBYTES : LARGE_PAGE_NBYTES;
    const size_t rounded = (nbytes / unit + 1) * unit;
    void *memory = aligned_alloc(unit, rounded);
    if (memory == NULL) return NULL;
    if (unit == LARGE_PAGE_NBYTES)
        madvise(memory, rounded, MADV_HUGEPAGE); /* may be refused: small ones do */
    return memset(memory, 0, rounded);
}
