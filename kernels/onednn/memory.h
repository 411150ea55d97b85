/* Memory for operands and weights. Private to kernels/onednn. Any thread. */
#ifndef HOMERANK_KERNELS_ONEDNN_MEMORY_H
#define HOMERANK_KERNELS_ONEDNN_MEMORY_H

#include <stddef.h>

/* Zeros, in whole cache lines. Where it is large it asks for large pages: weights stream past, and with small
 * pages the CPU would look up a translation every 4 KiB. The caller's, to be freed; NULL when out of memory.
 */
void *hr__lines_alloc(size_t nbytes);

#endif
