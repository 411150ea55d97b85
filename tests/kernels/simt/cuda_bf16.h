/* The toolkit's header of this name, for the machine of machine.h: what kernels/cuda uses of it. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_CUDA_BF16_H
#define HOMERANK_TESTS_KERNELS_SIMT_CUDA_BF16_H

#include <stdint.h>
#include <string.h>

struct __nv_bfloat16 {
    uint16_t bits;
};

/* To the nearest, ties to even; every NaN is 0x7FFF. */
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return {0x7FFF};
    return {static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}

struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) {
    return x.bits;
}

#endif
