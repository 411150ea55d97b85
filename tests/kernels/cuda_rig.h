/* A plan's launches one at a time, on a device and by the emulator, over the same memory: to compare what
 * each kernel writes with what it must write, and to time it. One thread; runs on device 0.
 */
#ifndef HOMERANK_TESTS_KERNELS_CUDA_RIG_H
#define HOMERANK_TESTS_KERNELS_CUDA_RIG_H

#include "kernels/cuda/cuda_bind.h"
#include "kernels/cuda/cuda_runtime.h"

typedef struct hr_cuda_rig {
    const hr_cuda_runtime *runtime; /* borrowed */
    hr_cuda_plan *plan;
    hr_cuda_image image;
    hr_cuda_places device, host;          /* device.tables and host.tables: the plan's tables on each side */
    uint8_t *device_memory, *host_memory; /* guard, buffers, logits, staging, image, guard */
    size_t nbytes;                        /* of either */
    void *device_weights, *stream;
    uint32_t n_rows, bucket;
    hr_cuda_device_kind kind;
} hr_cuda_rig;

/* Guards are HR_CUDA_GUARD bytes of a pattern at both ends of the memory. */
enum { HR_CUDA_GUARD = 4096 };

/* For batches of up to most_rows rows. Errors: those of the engine's creation. The plan is borrowed. */
hr_status hr_cuda_rig_create(const hr_cuda_runtime *runtime, const hr_plan *plan, hr_precision precision,
                             uint32_t most_rows, hr_cuda_rig **rig, hr_error *err);
void hr_cuda_rig_destroy(hr_cuda_rig *rig); /* NULL is allowed */

/* Copies n_rows rows of the slices in (at most the largest bucket's); all other memory becomes zeros. */
hr_status hr_cuda_rig_stage(hr_cuda_rig *rig, const hr_slice *slices, uint32_t n_rows, hr_error *err);

/* Runs stage s on the device `repeats` times as one graph; *ns is the time it took, the graph's launch and
 * the wait for it included. Of a graph of several, the second run is timed. */
hr_status hr_cuda_rig_run(hr_cuda_rig *rig, uint32_t s, uint32_t repeats, uint64_t *ns, hr_error *err);

/* The same of all stages in turn. */
hr_status hr_cuda_rig_run_all(hr_cuda_rig *rig, uint32_t repeats, uint64_t *ns, hr_error *err);

/* Copies the device's memory to the host's. */
hr_status hr_cuda_rig_fetch(hr_cuda_rig *rig, hr_error *err);

/* Runs stage s by the emulator on the host's memory. */
void hr_cuda_rig_emulate(hr_cuda_rig *rig, uint32_t s);

bool hr_cuda_rig_guards_intact(const hr_cuda_rig *rig); /* of the host's memory, as fetched */

#endif
