/* The row kernels for AVX2. */
#if defined(__x86_64__)
#include <immintrin.h>

#define HR_ROWS_TARGET __attribute__((target("avx2,fma")))
#define HR_ROWS_LANES  8
#define HR_ROWS_TABLE  hr__rows_avx2
#define HR_ROWS_ISA    "avx2"
#define MIN_V(a, b)    _mm256_min_ps(a, b)
#define MAX_V(a, b)    _mm256_max_ps(a, b)
#include "kernels/onednn/rows_impl.h"
#else
typedef int hr__rows_avx2_unused; /* ISO C wants a declaration */
#endif
