/* The row kernels for any CPU: vectors of 16 bytes, as SSE2 and NEON have them. */
#define HR_ROWS_TARGET
#define HR_ROWS_LANES 4
#define HR_ROWS_TABLE hr__rows_generic
#define HR_ROWS_ISA   "generic"
#include "kernels/onednn/rows_impl.h"
