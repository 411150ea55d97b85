/* A CUDA runtime without a GPU, for the tests of the engine's host side: "device" memory is the host's,
 * streams run at once, and launches are carried out by a plain C reading of the descriptors
 * (cuda_emulator.c). What the real kernels compute is tested where there is a GPU; here plan, packing,
 * addresses and errors are.
 *
 * Every call can be made to fail. One thread.
 */
#ifndef HOMERANK_TESTS_KERNELS_CUDA_FAKE_H
#define HOMERANK_TESTS_KERNELS_CUDA_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cuda/cuda_runtime.h"

typedef struct hr_cuda_fake {
    int n_devices, major, minor_of_last; /* minor: of the last device's compute capability, else 0 */
    size_t free_nbytes;                  /* of every device */
    uint32_t n_sms;
    uint64_t fail_at;   /* the number of the call, from 1 on, that fails; 0: none */
    bool fail_for_good; /* and all after it, as after a device's fault */
    /* What happened. */
    uint64_t n_calls, n_launches, n_graphs_run;
    int64_t n_live; /* allocations, streams, events and graphs that exist */
    int device;     /* chosen last */
    uint32_t used;  /* bit d: something was launched on device d */
} hr_cuda_fake;

extern hr_cuda_fake hr_cuda_fake_state;
extern const hr_cuda_runtime hr_cuda_fake_runtime;

/* One device with plenty of memory, and no failures. */
void hr_cuda_fake_reset(void);

/* Carries a launch out, as its kernel must. */
void hr_cuda_emulate(const hr_cuda_launch *launch);

#endif
