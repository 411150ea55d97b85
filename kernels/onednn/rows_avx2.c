/* The row kernels for AVX2. */
#if defined(__x86_64__)
#define HR_ROWS_TARGET __attribute__((target("avx2,fma")))
#define HR_ROWS_LANES  8
#define HR_ROWS_TABLE  hr__rows_avx2
#define HR_ROWS_ISA    "avx2"
#include "kernels/onednn/rows_impl.h"
#else
typedef int hr__rows_avx2_unused; /* ISO C wants a declaration */
#endif
