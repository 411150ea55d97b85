/* The instructions of the tensor cores that sm_80 and later have. Private to kernels/cuda.
 * Source: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix". */
#ifndef HOMERANK_KERNELS_CUDA_MMA_CUH
#define HOMERANK_KERNELS_CUDA_MMA_CUH

#include <stdint.h>

/* Elsewhere what stands in for a device has functions of these names: tests/kernels/simt. */
#ifdef __CUDACC__

/* 16 bytes from device to shared memory, behind the thread's back; both 16-byte aligned. */
__device__ inline void copy_async(uint32_t shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared), "l"(global) : "memory");
}
__device__ inline void copy_commit() {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/* Until at most kPending of this thread's groups are under way. */
template <int kPending> __device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

/* Four 8 x 8 matrices; lanes 8 i to 8 i + 7 give the addresses of matrix i's rows. */
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

/* d (16 x 8, f32) += a (16 x 16) b (16 x 8), bf16. */
__device__ inline void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
#endif
