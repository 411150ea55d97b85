/* Instructions that have no function in CUDA C++. Private to kernels/cuda.
 *
 * Elsewhere what stands in for a device has functions of these names: tests/kernels/simt.
 * Source: PTX ISA, the sections named. */
#ifndef HOMERANK_KERNELS_CUDA_INTRINSICS_CUH
#define HOMERANK_KERNELS_CUDA_INTRINSICS_CUH

#include <stdint.h>

#ifdef __CUDACC__

/* Within 2^-11 ("tanh"). */
__device__ inline float fast_tanh(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* The block's dynamic shared memory. */
__device__ inline uint8_t *dynamic_shared() {
    extern __shared__ __align__(1024) uint8_t bytes[];
    return bytes;
}

/* ---- Launches that follow each other ("griddepcontrol") ---- */

/* The next launch may start: each of its blocks once there is room for it. */
__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Until the launch before this one, and so all before it, has ended and what it wrote is seen. What the host
 * copied in for the batch, weights and descriptors may be read before. */
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#endif
#endif
