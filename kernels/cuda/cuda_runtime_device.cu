/* The table of runtime calls, over the CUDA runtime itself: see cuda_runtime.h. */
#include <cuda_runtime.h>
#include <stdio.h>

#include "kernels/cuda/gather.h"
#include "kernels/cuda/mix.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/product_f32.h"
#include "kernels/cuda/product_hopper.h"
#include "kernels/cuda/tower.h"

extern "C" {
#include "kernels/cuda/cuda_runtime.h"
}

namespace {

/* What a call returned. The runtime also keeps it as the thread's last error, where the launch of a later
 * kernel would find it and take it for its own: a model refused for want of memory must not fail the next
 * one. */
int result_of(cudaError_t code) {
    if (code != cudaSuccess) cudaGetLastError();
    return code;
}

cudaStream_t stream_of(void *stream) {
    return static_cast<cudaStream_t>(stream);
}

int device_info(int device, hr_cuda_device_info *info) {
    cudaDeviceProp properties;
    int code = result_of(cudaGetDeviceProperties(&properties, device));
    if (code != 0) return code;
    snprintf(info->name, sizeof info->name, "%.63s", properties.name);
    info->major = properties.major;
    info->minor = properties.minor;
    info->n_sms = properties.multiProcessorCount;
    return 0;
}

/* A kernel that is first met during a capture would be loaded then, which a capture may not bear. */
int prepare() {
    int device = 0;
    cudaDeviceProp properties;
    int code = cudaGetDevice(&device);
    if (code == 0) code = cudaGetDeviceProperties(&properties, device);
    if (code == 0 && hr_cuda_is_hopper(properties.major, properties.minor))
        code = hr_cuda_product_hopper_prepare();
    if (code == 0) code = hr_cuda_product_prepare();
    if (code == 0) code = hr_cuda_product_f32_prepare();
    if (code == 0) code = hr_cuda_gather_prepare();
    if (code == 0) code = hr_cuda_norm_prepare();
    if (code == 0) code = hr_cuda_mix_prepare();
    if (code == 0) code = hr_cuda_tower_prepare();
    return result_of(static_cast<cudaError_t>(code));
}

int memory(size_t *free_nbytes, size_t *total_nbytes) {
    return result_of(cudaMemGetInfo(free_nbytes, total_nbytes));
}

int device_malloc(void **memory_, size_t nbytes) {
    return result_of(cudaMalloc(memory_, nbytes));
}

int device_free(void *memory_) {
    return result_of(cudaFree(memory_));
}

int host_malloc(void **memory_, size_t nbytes) {
    return result_of(cudaHostAlloc(memory_, nbytes, cudaHostAllocDefault));
}

int host_free(void *memory_) {
    return result_of(cudaFreeHost(memory_));
}

int copy_in(void *to, const void *from, size_t nbytes, void *stream) {
    return result_of(cudaMemcpyAsync(to, from, nbytes, cudaMemcpyHostToDevice, stream_of(stream)));
}

int copy_out(void *to, const void *from, size_t nbytes, void *stream) {
    return result_of(cudaMemcpyAsync(to, from, nbytes, cudaMemcpyDeviceToHost, stream_of(stream)));
}

int clear(void *memory_, size_t nbytes, void *stream) {
    return result_of(cudaMemsetAsync(memory_, 0, nbytes, stream_of(stream)));
}

/* Of its own: it neither waits for other streams nor makes them wait. */
int stream_create(void **stream) {
    return result_of(
        cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t *>(stream), cudaStreamNonBlocking));
}

int stream_destroy(void *stream) {
    return result_of(cudaStreamDestroy(stream_of(stream)));
}

int stream_wait(void *stream) {
    return result_of(cudaStreamSynchronize(stream_of(stream)));
}

int event_create(void **event) {
    return result_of(
        cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t *>(event), cudaEventDisableTiming));
}

int event_destroy(void *event) {
    return result_of(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
}

int event_record(void *event, void *stream) {
    return result_of(cudaEventRecord(static_cast<cudaEvent_t>(event), stream_of(stream)));
}

int event_wait(void *event) {
    return result_of(cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
}

/* Thread-local: what other threads do on the device meanwhile neither joins nor breaks the capture. */
int capture_begin(void *stream) {
    return result_of(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal));
}

int capture_end(void *stream, void **result) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    int code = cudaStreamEndCapture(stream_of(stream), &graph);
    if (code == 0) code = cudaGraphInstantiate(&exec, graph, 0);
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (code != 0) cudaGetLastError();
    *result = code == 0 ? exec : nullptr;
    return code;
}

int graph_launch(void *graph, void *stream) {
    return result_of(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream)));
}

int graph_destroy(void *graph) {
    return result_of(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
}

int start_launch(const hr_cuda_launch *l, void *stream) {
    switch (l->kind) {
    case HR_CUDA_GATHER: return hr_cuda_gather_launch(l, stream);
    case HR_CUDA_PRODUCTS:
    case HR_CUDA_FEATURE_GATES:
        if (l->f32) return hr_cuda_product_f32_launch(l, stream);
        return l->hopper ? hr_cuda_product_hopper_launch(l, stream) : hr_cuda_product_launch(l, stream);
    case HR_CUDA_NORMS: return hr_cuda_norm_launch(l, stream);
    case HR_CUDA_MIXES: return hr_cuda_mix_launch(l, stream);
    case HR_CUDA_TOWERS: return hr_cuda_tower_launch(l, stream);
    }
    return cudaErrorInvalidValue;
}

int launch(const hr_cuda_launch *l, void *stream) {
    return result_of(static_cast<cudaError_t>(start_launch(l, stream)));
}

const char *error_text(int code) {
    return cudaGetErrorString(static_cast<cudaError_t>(code));
}

int device_count(int *count) {
    return result_of(cudaGetDeviceCount(count));
}

int set_device(int device) {
    return result_of(cudaSetDevice(device));
}

} // namespace

extern "C" const hr_cuda_runtime hr_cuda_runtime_device = {
    device_count, set_device,    device_info,   prepare,      memory,     device_malloc, device_free,
    host_malloc,  host_free,     copy_in,       copy_out,     clear,      stream_create, stream_destroy,
    stream_wait,  event_create,  event_destroy, event_record, event_wait, capture_begin, capture_end,
    graph_launch, graph_destroy, launch,        error_text,
};
