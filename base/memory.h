/* The machine's memory. Any thread. */
#ifndef HOMERANK_BASE_MEMORY_H
#define HOMERANK_BASE_MEMORY_H

#include <stdint.h>

/* The bytes that this process may still take without swapping or being killed: what the kernel calls
 * available, within the limits of its control groups. UINT64_MAX where neither can be known. */
uint64_t hr_memory_available(void);

#endif
