/* The machine of machine.h as one device of the CUDA runtime, for tests in C: kernels/cuda's own
 * hr_cuda_runtime_device and kernels, compiled for it. One thread.
 */
#ifndef HOMERANK_TESTS_KERNELS_SIMT_SIMT_H
#define HOMERANK_TESTS_KERNELS_SIMT_SIMT_H

#include <stdint.h>

#include "kernels/cuda/cuda_runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hr_simt {
    /* What the device says of itself: its compute capability (major, 0), which decides the kernels, and its
     * multiprocessors, which decide the size of tiles. */
    int major, n_sms;
    /* What happened. */
    uint64_t n_launches;
    uint64_t n_kernels; /* different ones that were launched, since it was 0 */
    int64_t n_live;     /* allocations, streams, events and graphs that exist */
} hr_simt;

extern hr_simt hr_simt_state;
extern const hr_cuda_runtime hr_simt_runtime;

#ifdef __cplusplus
}
#endif

#endif
