/* Memory for operands and weights. Private to kernels/onednn. Any thread. */
#ifndef HOMERANK_KERNELS_ONEDNN_MEMORY_H
#define HOMERANK_KERNELS_ONEDNN_MEMORY_H

#include <stddef.h>

/* Zeros, in whole cache lines. The caller's, to be freed by free(); NULL when out of memory. */
void *hr__lines_alloc(size_t nbytes);

/* Zeros in pages of their own, resident once they are written. Where it is large it asks for large pages:
 * weights stream past, and with small ones the CPU would look up a translation every 4 KiB. The caller's;
 * NULL when out of memory. */
void *hr__pages_alloc(size_t nbytes);
void hr__pages_free(void *memory, size_t nbytes); /* as allocated; NULL is allowed */

#endif
