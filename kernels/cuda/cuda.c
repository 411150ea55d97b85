/* The backend's table over the engine on real devices; see cuda.h. */
#include "kernels/cuda/cuda.h"

#include "kernels/cuda/cuda_engine.h"

static hr_status available(hr_error *err) {
    return hr_cuda_available(&hr_cuda_runtime_device, err);
}

static hr_status engine_create(const hr_plan *plan, hr_precision precision, const char *devices,
                               void **context, hr_error *err) {
    return hr_cuda_engine_create(&hr_cuda_runtime_device, plan, precision, devices,
                                 (hr_cuda_engine **)context, err);
}

static void engine_destroy(void *context) {
    hr_cuda_engine_destroy(context);
}

static hr_status worker_create(void *context, void **worker, hr_error *err) {
    return hr_cuda_worker_create(context, (hr_cuda_worker **)worker, err);
}

static void worker_destroy(void *worker) {
    hr_cuda_worker_destroy(worker);
}

static hr_status forward(void *worker, const hr_slice *slices, size_t n_slices, hr_error *err) {
    return hr_cuda_forward(worker, slices, n_slices, err);
}

static void describe(const void *context, char *text, size_t size) {
    hr_cuda_engine_describe(context, text, size);
}

const hr_backend_i hr_backend_cuda = {
    .name = "cuda",
    .may_fail = true,
    .available = available,
    .engine_create = engine_create,
    .engine_destroy = engine_destroy,
    .worker_create = worker_create,
    .worker_destroy = worker_destroy,
    .forward = forward,
    .describe = describe,
};
