/* Kernels of a test's own on the machine, and what it finds wrong with them. */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_RUN_KERNEL_H
#define HOMERANK_TESTS_KERNELS_SIMT_RUN_KERNEL_H

#include <cuda_runtime.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include <cmocka.h>
}

#include <cstring>
#include <vector>

struct Run {
    uint32_t n_threads, shared_nbytes, n_values;
    uint32_t n_rows = 1;     /* the grid's */
    uint32_t n_launches = 1; /* of which all but the first may begin early */
};

/* Runs a kernel over n_values floats on the device that hold 0, 1, ..., or what *values holds, which becomes
 * what they hold then. NULL, or what was wrong. */
inline const char *run_kernel(void (*kernel)(float *), const Run &run, std::vector<float> *values = nullptr) {
    std::vector<float> counted(run.n_values);
    for (uint32_t i = 0; i < run.n_values; i++) counted[i] = static_cast<float>(i);
    if (values == nullptr) values = &counted;
    const size_t nbytes = run.n_values * sizeof(float);
    cudaStream_t stream;
    void *memory;
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), 0);
    assert_int_equal(cudaMalloc(&memory, nbytes), 0);
    assert_int_equal(cudaMemcpyAsync(memory, values->data(), nbytes, cudaMemcpyHostToDevice, stream), 0);
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {
        dim3(1, run.n_rows), dim3(run.n_threads), run.shared_nbytes, stream, &early, 0};
    for (uint32_t i = 0; i < run.n_launches; i++) {
        config.numAttrs = i > 0;
        assert_int_equal(cudaLaunchKernelEx(&config, kernel, static_cast<float *>(memory)), 0);
    }
    const cudaError_t code = cudaStreamSynchronize(stream);
    assert_int_equal(cudaMemcpyAsync(values->data(), memory, nbytes, cudaMemcpyDeviceToHost, stream), 0);
    cudaFree(memory);
    cudaStreamDestroy(stream);
    return code == cudaSuccess ? nullptr : cudaGetErrorString(code);
}

/* Three times: the threads run in another order each time. */
inline void expect_seen(void (*kernel)(float *), const char *what, const Run &run) {
    for (int i = 0; i < 3; i++) {
        const char *found = run_kernel(kernel, run);
        if (found == nullptr || strstr(found, what) == nullptr)
            fail_msg("expected \"%s\", found %s", what, found == nullptr ? "nothing wrong" : found);
    }
}

inline uint32_t address_of(const void *at) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

#endif
