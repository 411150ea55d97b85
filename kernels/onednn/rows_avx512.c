/* The row kernels for AVX-512. */
#if defined(__x86_64__)
#include <immintrin.h>

#define HR_ROWS_TARGET          __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define HR_ROWS_LANES           16
#define HR_ROWS_TABLE           hr__rows_avx512
#define HR_ROWS_ISA             "avx512"
#define MIN_V(a, b)             _mm512_min_ps(a, b)
#define MAX_V(a, b)             _mm512_max_ps(a, b)
#define MULTIPLY_ADD_V(a, b, c) ((vf)_mm512_fmadd_ps(_mm512_set1_ps(a), (__m512)(b), (__m512)(c)))
#include "kernels/onednn/rows_impl.h"
#else
typedef int hr__rows_avx512_unused; /* ISO C wants a declaration */
#endif
