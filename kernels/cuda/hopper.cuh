/* The instructions that sm_90a alone has, and what goes with them: barriers in shared memory that count
 * bytes, runs of memory copied by one thread, products by four warps at once. Private to kernels/cuda.
 *
 * Shared memory is addressed by 32 bits. Source: PTX ISA, "mbarrier", "cp.async.bulk", "wgmma", "Matrix
 * descriptor" (K-major, 128-byte swizzle). */
#ifndef HOMERANK_KERNELS_CUDA_HOPPER_CUH
#define HOMERANK_KERNELS_CUDA_HOPPER_CUH

#include <stdint.h>

/* Elsewhere what stands in for a device has functions of these names: tests/kernels/simt. */
#ifdef __CUDACC__

/* ---- Barriers ---- */

__device__ inline void barrier_init(uint32_t barrier, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
/* What was initialised is seen by the copies. */
__device__ inline void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_expect(uint32_t barrier, uint32_t nbytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(nbytes)
                 : "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/* Until the phase of this parity has ended. */
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}
/* The 128 threads of a group of warps; id: 1 to 15. */
__device__ inline void group_sync(uint32_t id) {
    asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory");
}

/* ---- Copies: multiples of 16 bytes, aligned to as much ---- */

/* The barrier counts the bytes. */
__device__ inline void bulk_load(uint32_t shared, const void *global, uint32_t nbytes, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared),
        "l"(global), "r"(nbytes), "r"(barrier)
        : "memory");
}
__device__ inline void bulk_store(void *global, uint32_t shared, uint32_t nbytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global), "r"(shared),
                 "r"(nbytes)
                 : "memory");
}
__device__ inline void bulk_stores_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/* Until what this thread has committed has been read from shared memory. */
__device__ inline void bulk_stores_read() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
/* Until it has been written. */
__device__ inline void bulk_stores_wait() {
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
/* What this thread wrote to shared memory is seen by copies and products. */
__device__ inline void shared_fence() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void store_shared(uint32_t shared, uint32_t word) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared), "r"(word) : "memory");
}

__device__ inline uint32_t load_shared(uint32_t shared) {
    uint32_t word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(shared) : "memory");
    return word;
}

/* ---- Products of a group of four warps ---- */

#endif

/* A tile of rows of 128 bytes at a multiple of 1024, swizzled; 16 columns further on: + 2. */
__device__ inline uint64_t tile_descriptor(uint32_t shared) {
    return (uint64_t)(shared >> 4 & 0x3FFF) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}

#ifdef __CUDACC__

/* Before the first product after the sums were touched. */
__device__ inline void products_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void products_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending> __device__ inline void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/* A sum, no earlier than the wait before: the compiler knows of no tie between the two. */
__device__ inline float settled(float sum) {
    asm volatile("" : "+f"(sum)::"memory");
    return sum;
}

/* d (64 x kN, f32) = a (64 x 16) b (kN x 16)^T, + d where `add`. d[j]: columns 8 j on, as in mma.m16n8. */
#define HR_D4(j)  "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define HR_D16(j) HR_D4(j), HR_D4(j + 1), HR_D4(j + 2), HR_D4(j + 3)
#define HR_D32(j) HR_D16(j), HR_D16(j + 4)

__device__ inline void multiply_group(float (&d)[8][4], uint64_t a, uint64_t b, bool add) {
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31 "
                 "}, %32, %33, p, 1, 1, 0, 0;\n"
                 "}"
                 : HR_D32(0)
                 : "l"(a), "l"(b), "r"((int32_t)add));
}
__device__ inline void multiply_group(float (&d)[16][4], uint64_t a, uint64_t b, bool add) {
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
                 "}, %64, %65, p, 1, 1, 0, 0;\n"
                 "}"
                 : HR_D32(0), HR_D32(8)
                 : "l"(a), "l"(b), "r"((int32_t)add));
}
__device__ inline void multiply_group(float (&d)[32][4], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127 "
        "}, %128, %129, p, 1, 1, 0, 0;\n"
        "}"
        : HR_D32(0), HR_D32(8), HR_D32(16), HR_D32(24)
        : "l"(a), "l"(b), "r"((int32_t)add));
}

#undef HR_D4
#undef HR_D16
#undef HR_D32

#endif
#endif
