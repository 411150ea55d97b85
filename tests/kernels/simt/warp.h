/* What the lanes of a warp do together, for the fiber that is running: it waits for the others, and the last
 * to come does it for all. Fragments are those of the PTX ISA. That not all come to the same operation is
 * seen. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_WARP_H
#define HOMERANK_TESTS_KERNELS_SIMT_WARP_H

#include <cstdint>

namespace simt {

void warps_begin(); /* a block */

void warp_barrier();
float shuffle(uint32_t lanes, float x, uint32_t from);
/* ldmatrix.x4; row: 16 bytes. */
void load_matrices(uint32_t (&r)[4], const void *row);
/* mma.m16n8k16 of bf16. */
void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

} // namespace simt

#endif
