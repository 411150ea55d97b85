/* Picks the row kernels for this CPU (rows.h). A plain table rather than an ifunc: those are resolved before
 * a sanitizer's runtime is up. */
#include "kernels/onednn/rows.h"

#include <math.h>
#include <string.h>

extern const hr_rows_i hr__rows_generic;
#if defined(__x86_64__)
extern const hr_rows_i hr__rows_avx2;
extern const hr_rows_i hr__rows_avx512;
#endif

const hr_rows_i *hr_rows_select(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return &hr__rows_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &hr__rows_avx2;
#endif
    return &hr__rows_generic;
}

void hr_panels_pack(const float *weight, uint32_t n, uint32_t k, float *panels) {
    for (uint32_t first = 0; first < n; first += HR_PANEL_WIDTH) {
        uint32_t width = n - first < HR_PANEL_WIDTH ? n - first : HR_PANEL_WIDTH;
        for (uint32_t i = 0; i < k; i++) {
            for (uint32_t c = 0; c < width; c++) *panels++ = weight[(size_t)(first + c) * k + i];
        }
    }
}

float hr_bf16_round(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = isnan(x) ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
    bits &= 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}
