/* What kernels/cuda sees of CUDA when it is compiled for the machine of machine.h: stands in for the
 * toolkit's header of this name. The runtime's calls do their work in runtime.cc. What is not here
 * kernels/cuda does not use. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_CUDA_RUNTIME_H
#define HOMERANK_TESTS_KERNELS_SIMT_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <new>
#include <tuple>
#include <type_traits>

#include "tests/kernels/simt/copies.h"
#include "tests/kernels/simt/hopper.h"
#include "tests/kernels/simt/machine.h"
#include "tests/kernels/simt/warp.h"

/* ---- The language ---- */

#define __device__
#define __global__
#define __launch_bounds__(...)
/* Blocks run one after another: one instance will do. Thread-local, as the machine knows where all of those
 * lie. */
#define __shared__ static thread_local

template <simt::Index (*kIndex)(), uint32_t simt::Index::*kAxis> struct simt_axis {
    operator uint32_t() const {
        return kIndex().*kAxis;
    }
};
template <simt::Index (*kIndex)()> struct simt_axes {
    simt_axis<kIndex, &simt::Index::x> x;
    simt_axis<kIndex, &simt::Index::y> y;
};
constexpr simt_axes<simt::thread_index> threadIdx = {};
constexpr simt_axes<simt::block_index> blockIdx = {};
constexpr simt_axes<simt::grid_size> gridDim = {};

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

struct dim3 {
    uint32_t x, y, z;
    dim3(uint32_t x_ = 1, uint32_t y_ = 1, uint32_t z_ = 1) : x(x_), y(y_), z(z_) {
    }
};

/* ---- What kernels call ---- */

inline float2 make_float2(float x, float y) {
    return {x, y};
}

inline uint32_t min(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}
inline uint32_t max(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

template <typename T> T __ldg(const T *at) {
    return *at;
}

template <typename T> void __stcg(T *at, T value) {
    *at = value;
}

inline float __uint_as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* As the programming guide says: by the base-2 exponential of a rounded product. */
inline float __expf(float x) {
    return exp2f(x * 1.44269504F);
}

/* As the programming guide says: 0 (or NaN, of an infinite x) where y is past 2^126 but finite. */
inline float __fdividef(float x, float y) {
    return fabsf(y) > 0x1p126F && !isinf(y) ? x * 0.0F : x / y;
}

inline void __trap() {
    simt::fail("a trap");
}

#define __syncthreads() simt::barrier()
#define __syncwarp()    simt::warp_barrier()

inline float __shfl_xor_sync(uint32_t lanes, float x, uint32_t distance) {
    return simt::shuffle(lanes, x, (threadIdx.x % simt::kWarpLanes) ^ distance);
}
inline float __shfl_sync(uint32_t lanes, float x, uint32_t from) {
    return simt::shuffle(lanes, x, from % simt::kWarpLanes);
}

/* ---- What intrinsics.cuh and mma.cuh have for the toolkit's compiler ---- */

inline float fast_tanh(float x) {
    return tanhf(x);
}
/* Launches run one after another; what one may touch before it has waited is looked at all the same. */
inline void let_next_start() {
}
inline void wait_for_previous() {
    simt::wait_for_previous();
}

inline uint8_t *dynamic_shared() {
    return simt::shared_memory();
}
inline size_t __cvta_generic_to_shared(const void *at) {
    return static_cast<size_t>(static_cast<const uint8_t *>(at) - simt::shared_memory()) + simt::kSharedBase;
}

inline void copy_async(uint32_t shared, const void *global) {
    simt::copy_async(simt::shared_at(shared), global);
}
inline void copy_commit() {
    simt::copy_commit();
}
template <int kPending> void copy_wait() {
    simt::copy_wait(kPending);
}
inline void load_matrices(uint32_t (&r)[4], uint32_t shared) {
    simt::load_matrices(r, simt::shared_at(shared));
}
inline void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    simt::multiply(d, a, b0, b1);
}

/* ---- What hopper.cuh has for it ---- */

inline void barrier_init(uint32_t barrier, uint32_t count) {
    simt::barrier_init(barrier, count);
}
inline void barrier_init_fence() {
}
inline void barrier_expect(uint32_t barrier, uint32_t nbytes) {
    simt::barrier_expect(barrier, nbytes);
}
inline void barrier_arrive(uint32_t barrier) {
    simt::barrier_arrive(barrier);
}
inline void barrier_wait(uint32_t barrier, uint32_t parity) {
    simt::barrier_wait(barrier, parity);
}
inline void group_sync(uint32_t id) {
    simt::group_barrier(id);
}

inline void bulk_load(uint32_t shared, const void *global, uint32_t nbytes, uint32_t barrier) {
    simt::bulk_load(shared, global, nbytes, barrier);
}
inline void bulk_store(void *global, uint32_t shared, uint32_t nbytes) {
    simt::bulk_store(global, shared, nbytes);
}
inline void bulk_stores_commit() {
    simt::bulk_stores_commit();
}
/* What has been read is written at once. */
inline void bulk_stores_read() {
    simt::bulk_stores_wait();
}
inline void bulk_stores_wait() {
    simt::bulk_stores_wait();
}
inline void shared_fence() {
}
inline void store_shared(uint32_t shared, uint32_t word) {
    *reinterpret_cast<uint32_t *>(simt::shared_at(shared)) = word;
}
inline uint32_t load_shared(uint32_t shared) {
    return *reinterpret_cast<const uint32_t *>(simt::shared_at(shared));
}

inline void products_begin() {
    simt::products_begin();
}
inline void products_commit() {
    simt::products_commit();
}
template <int kPending> void products_wait() {
    simt::products_wait(kPending);
}
inline float settled(float sum) {
    return sum;
}
template <size_t kTiles> void multiply_group(float (&d)[kTiles][4], uint64_t a, uint64_t b, bool add) {
    simt::multiply_group(d[0], kTiles * 8, a, b, add);
}

/* ---- The runtime ---- */

/* The runtime's own numbers. */
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
};

typedef struct simt_stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;
typedef struct simt_graph *cudaGraph_t;
typedef struct simt_graph *cudaGraphExec_t;

struct cudaDeviceProp {
    char name[256];
    int major, minor, multiProcessorCount;
};
struct cudaFuncAttributes {
    int maxDynamicSharedSizeBytes;
};
enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization };
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    struct {
        int programmaticStreamSerializationAllowed;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    uint32_t numAttrs;
};

enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
enum { cudaHostAllocDefault = 0, cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaMemGetInfo(size_t *free_nbytes, size_t *total_nbytes);
cudaError_t cudaMalloc(void **memory, size_t nbytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaHostAlloc(void **memory, size_t nbytes, unsigned flags);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t nbytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t nbytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t code);

/* The two that know a kernel by its address. */
cudaError_t simt_set_most_shared(const void *kernel, int nbytes);
cudaError_t simt_launch(const void *kernel, const cudaLaunchConfig_t &config, simt::Launch launch);

template <typename T> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, T *) {
    attributes->maxDynamicSharedSizeBytes = simt::kFreeShared;
    return cudaSuccess;
}

template <typename T> cudaError_t cudaFuncSetAttribute(T *kernel, cudaFuncAttribute, int value) {
    return simt_set_most_shared(reinterpret_cast<const void *>(kernel), value);
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    using Call = std::tuple<void (*)(Parameters...), Parameters...>;
    static_assert(sizeof(Call) <= simt::kMostArguments && std::is_trivially_destructible<Call>::value, "");
    simt::Launch launch = {};
    launch.call = [](const void *call) {
        std::apply([](auto f, auto... values) { f(values...); }, *static_cast<const Call *>(call));
    };
    new (launch.arguments) Call(kernel, arguments...);
    return simt_launch(reinterpret_cast<const void *>(kernel), *config, launch);
}

#endif
