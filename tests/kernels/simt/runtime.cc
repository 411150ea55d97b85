/* The CUDA runtime's calls over the machine of machine.h, as lazy as the runtime may be: what a stream is
 * told happens when somebody waits for it, copies from and to pinned memory with it. So host code that reads
 * a result or writes over its staging before it has waited is seen.
 *
 * A capture takes launches alone; any other call while a stream of this thread captures fails and spoils the
 * capture. A launch that fails is said by the wait, once: unlike on a device, what comes after it runs. */
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/kernels/simt/memory.h"
#include "tests/kernels/simt/simt.h"

hr_simt hr_simt_state = {8, 132, 0, 0, 0};

struct simt_graph {
    std::vector<simt::Launch> launches;
};

struct simt_stream {
    std::vector<std::function<cudaError_t()>> queue;
    bool capturing, spoilt;
    simt_graph captured;
};

struct simt_event {
    cudaStream_t stream; /* that it was recorded in; NULL: in none */
};

namespace {

cudaError_t last_error;
std::string failure; /* of the launch that failed last */
cudaStream_t capturing;
std::map<const void *, uint32_t> most_shared; /* by kernel */
std::set<const void *> launched;
std::map<const void *, size_t> pinned;

cudaError_t result(cudaError_t code) {
    if (code != cudaSuccess) last_error = code;
    return code;
}

/* Whether a call that no capture takes may go on. */
bool may_run() {
    if (capturing != nullptr) capturing->spoilt = true;
    return capturing == nullptr;
}

cudaError_t flush(cudaStream_t stream) {
    cudaError_t code = cudaSuccess;
    for (const auto &work : stream->queue) {
        if (code == cudaSuccess) code = work();
    }
    stream->queue.clear();
    return result(code);
}

bool is_pinned(const void *at, size_t nbytes) {
    auto found = pinned.upper_bound(at);
    if (found == pinned.begin()) return false;
    found--;
    return static_cast<const uint8_t *>(at) + nbytes <=
           static_cast<const uint8_t *>(found->first) + found->second;
}

cudaError_t run(const simt::Launch &launch) {
    hr_simt_state.n_launches++;
    if (simt::run(launch, &failure)) return cudaSuccess;
    return cudaErrorLaunchFailure;
}

} // namespace

/* ---- Devices and memory ---- */

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : result(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (device != 0) return result(cudaErrorInvalidDevice);
    snprintf(properties->name, sizeof properties->name, "simt");
    properties->major = hr_simt_state.major;
    properties->minor = 0;
    properties->multiProcessorCount = hr_simt_state.n_sms;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_nbytes, size_t *total_nbytes) {
    *free_nbytes = *total_nbytes = size_t{1} << 36;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t nbytes) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    *memory = simt::memory_create(nbytes);
    if (*memory == nullptr) return result(cudaErrorMemoryAllocation);
    hr_simt_state.n_live++;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    simt::memory_destroy(memory);
    hr_simt_state.n_live--;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t nbytes, unsigned) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    *memory = malloc(nbytes);
    if (*memory == nullptr) return result(cudaErrorMemoryAllocation);
    pinned[*memory] = nbytes;
    hr_simt_state.n_live++;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    if (pinned.erase(memory) == 0) return result(cudaErrorInvalidValue);
    free(memory);
    hr_simt_state.n_live--;
    return cudaSuccess;
}

/* Of pageable memory the call itself reads all, or waits until all is written. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t nbytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    const bool in = kind == cudaMemcpyHostToDevice;
    const void *device = in ? to : from, *host = in ? from : to;
    if (!simt::memory_holds(device, nbytes) || simt::memory_meets(host, nbytes))
        return result(cudaErrorInvalidValue);
    stream->queue.emplace_back([=] {
        if (nbytes > 0) memcpy(to, from, nbytes);
        return cudaSuccess;
    });
    return is_pinned(host, nbytes) ? cudaSuccess : flush(stream);
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t nbytes, cudaStream_t stream) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    if (!simt::memory_holds(memory, nbytes)) return result(cudaErrorInvalidValue);
    stream->queue.emplace_back([=] {
        memset(memory, value, nbytes);
        return cudaSuccess;
    });
    return cudaSuccess;
}

/* ---- Streams, events, graphs ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    *stream = new simt_stream();
    hr_simt_state.n_live++;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    cudaError_t code = flush(stream);
    delete stream;
    hr_simt_state.n_live--;
    return code;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return may_run() ? flush(stream) : result(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = new simt_event();
    hr_simt_state.n_live++;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    hr_simt_state.n_live--;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    event->stream = stream;
    return cudaSuccess;
}

/* An event that was never recorded has happened. */
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    return event->stream == nullptr ? cudaSuccess : flush(event->stream);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    capturing = stream;
    stream->capturing = true;
    stream->spoilt = false;
    stream->captured.launches.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = nullptr;
    if (!stream->capturing) return result(cudaErrorInvalidValue);
    capturing = nullptr;
    stream->capturing = false;
    if (stream->spoilt) return result(cudaErrorStreamCaptureInvalidated);
    *graph = new simt_graph(stream->captured);
    hr_simt_state.n_live++;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    *exec = new simt_graph(*graph);
    hr_simt_state.n_live++;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    hr_simt_state.n_live--;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    return cudaGraphDestroy(exec);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    if (!may_run()) return result(cudaErrorStreamCaptureUnsupported);
    for (const simt::Launch &launch : exec->launches)
        stream->queue.emplace_back([launch] { return run(launch); });
    return cudaSuccess;
}

/* ---- Kernels ---- */

cudaError_t simt_set_most_shared(const void *kernel, int nbytes) {
    const uint32_t most = hr_simt_state.major >= 9 ? simt::kMostShared : simt::kLeastShared;
    if (nbytes < 0 || static_cast<uint32_t>(nbytes) > most) return result(cudaErrorInvalidValue);
    most_shared[kernel] = static_cast<uint32_t>(nbytes);
    return cudaSuccess;
}

cudaError_t simt_launch(const void *kernel, const cudaLaunchConfig_t &config, simt::Launch launch) {
    const cudaStream_t stream = config.stream;
    const auto most = most_shared.find(kernel);
    launch.grid = {config.gridDim.x, config.gridDim.y, config.gridDim.z};
    launch.block = {config.blockDim.x, config.blockDim.y, config.blockDim.z};
    launch.shared_nbytes = config.dynamicSmemBytes;
    launch.early = false;
    if (config.numAttrs > 0 && hr_simt_state.major < 9) return result(cudaErrorInvalidConfiguration);
    for (uint32_t i = 0; i < config.numAttrs; i++)
        launch.early = config.attrs[i].val.programmaticStreamSerializationAllowed != 0;
    if (hr_simt_state.n_kernels == 0) launched.clear();
    if (launched.insert(kernel).second) hr_simt_state.n_kernels++;
    if (launch.shared_nbytes > (most == most_shared.end() ? simt::kFreeShared : most->second))
        return result(cudaErrorInvalidValue);
    if (stream->capturing) {
        stream->captured.launches.push_back(launch);
    } else {
        stream->queue.emplace_back([launch] { return run(launch); });
    }
    return cudaSuccess;
}

cudaError_t cudaGetLastError() {
    const cudaError_t code = last_error;
    last_error = cudaSuccess;
    return code;
}

const char *cudaGetErrorString(cudaError_t code) {
    switch (code) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorLaunchFailure: return failure.c_str();
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    }
    return "unrecognized error code";
}
