/* The GPU engine over a table of runtime calls: weights and embedding tables on each device, and workers with
 * a stream, pinned staging and a captured graph per bucket each.
 *
 * An engine is immutable once created; workers are dealt to its devices in turn and used by one thread at a
 * time each. A forward pass is one copy in, one graph, one copy out and one wait per bucket's worth of rows;
 * it allocates nothing.
 */
#ifndef HOMERANK_KERNELS_CUDA_CUDA_ENGINE_H
#define HOMERANK_KERNELS_CUDA_CUDA_ENGINE_H

#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_plan.h"
#include "kernels/cuda/cuda_runtime.h"
#include "schema/slice.h"

enum { HR_CUDA_MAX_DEVICES = 64 };

typedef struct hr_cuda_engine hr_cuda_engine;
typedef struct hr_cuda_worker hr_cuda_worker;

/* HR_OK where there is a device; else UNAVAILABLE with the runtime's reason. */
hr_status hr_cuda_available(const hr_cuda_runtime *runtime, hr_error *err);

hr_cuda_device_kind hr_cuda_kind_of(const hr_cuda_device_info *info);

/* devices: "0,1", different ones; NULL: "0". The plan is borrowed and must outlive the engine.
 * Errors: INVALID_ARGUMENT (devices; a plan that padding makes too large), UNAVAILABLE (no such device),
 * OUT_OF_MEMORY (with the bytes needed and free), DEVICE. */
hr_status hr_cuda_engine_create(const hr_cuda_runtime *runtime, const hr_plan *plan, hr_precision precision,
                                const char *devices, hr_cuda_engine **engine, hr_error *err);
void hr_cuda_engine_destroy(hr_cuda_engine *engine); /* after its workers; NULL is allowed */
void hr_cuda_engine_describe(const hr_cuda_engine *engine, char *text, size_t size);

/* Errors: OUT_OF_MEMORY (with the bytes needed and free), DEVICE. */
hr_status hr_cuda_worker_create(hr_cuda_engine *engine, hr_cuda_worker **worker, hr_error *err);
void hr_cuda_worker_destroy(hr_cuda_worker *worker); /* NULL is allowed */

/* Errors: DEVICE, and then the logits are undefined. */
hr_status hr_cuda_forward(hr_cuda_worker *worker, const hr_slice *slices, size_t n_slices, hr_error *err);

#endif
