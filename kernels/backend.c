/* The backends of this build and the dispatch to them: see backend.h.
 *
 * A backend is registered by one line in `backends`; the build says by HR_HAVE_* which ones are compiled in.
 */
#include "kernels/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernels/backend_internal.h"
#include "kernels/failover.h"
#include "kernels/reference/reference.h"
#ifdef HR_HAVE_ONEDNN
#include "kernels/onednn/onednn.h"
#endif
#if HR_CUDA_TOOLKIT
#include "kernels/cuda/cuda.h"
#endif

/* Fastest first: the order in which "auto" asks them. */
static const hr_backend_i *const backends[] = {
#if HR_CUDA_TOOLKIT
    &hr_backend_cuda,
#endif
#ifdef HR_HAVE_ONEDNN
    &hr_backend_onednn,
#endif
    &hr_backend_reference,
};
enum { N_BACKENDS = sizeof backends / sizeof backends[0] };

/* Names that some build knows; such a one that is missing here is unavailable, not a typing error. */
static const char *const known_names[] = {"reference", "onednn", "cuda"};

struct hr_engine {
    const hr_backend_i *backend; /* static */
    void *context;               /* owned; the backend's own */
    hr_precision precision;
    /* Where the backend may fail: what takes its place, prepared from the same plan; else NULL. */
    const hr_backend_i *spare; /* static */
    void *spare_context;       /* owned; the spare's own */
    hr_failover failover;
};

struct hr_worker {
    hr_engine *engine;   /* borrowed */
    void *context;       /* owned; the backend's own */
    void *spare_context; /* owned; the spare's own, or NULL */
};

const char *hr_backend_names(void) {
    return "reference"
#ifdef HR_HAVE_ONEDNN
           ", onednn"
#endif
#if HR_CUDA_TOOLKIT
           ", cuda"
#endif
        ;
}

static hr_status backend_available(const hr_backend_i *backend, hr_error *err) {
    return backend->available == NULL ? HR_OK : backend->available(err);
}

/* Once a process: every model that is loaded would say the same. */
static void log_skipped(const hr_backend_i *backend, const hr_error *err) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&said)) return;
    hr_log(HR_LOG_INFO, "the network runs on the CPU", HR_LOG_STR("not_on", backend->name),
           HR_LOG_STR("because", err->message));
}

/* The first from `from` on that this machine runs. The reference backend runs everywhere, so there is one. */
static const hr_backend_i *backend_auto(size_t from) {
    hr_error err;
    for (size_t i = from; i < N_BACKENDS; i++) {
        if (backend_available(backends[i], &err) == HR_OK) return backends[i];
        if (backends[i]->may_fail) log_skipped(backends[i], &err);
    }
    return &hr_backend_reference;
}

/* The fastest that does not fail. */
static const hr_backend_i *backend_spare(void) {
    size_t i = 0;
    while (backends[i]->may_fail) i++;
    return backend_auto(i);
}

static hr_status backend_find(const char *name, const hr_backend_i **backend, hr_error *err) {
    if (strcmp(name, "auto") == 0) {
        *backend = backend_auto(0);
        return HR_OK;
    }
    for (size_t i = 0; i < N_BACKENDS; i++) {
        if (strcmp(name, backends[i]->name) != 0) continue;
        *backend = backends[i];
        return backend_available(backends[i], err);
    }
    for (size_t i = 0; i < sizeof known_names / sizeof known_names[0]; i++) {
        if (strcmp(name, known_names[i]) != 0) continue;
        return hr_error_set(err, HR_UNAVAILABLE,
                            "backend \"%s\" is not in this build (it has %s), made %s a CUDA toolkit", name,
                            hr_backend_names(), HR_CUDA_TOOLKIT ? "with" : "without");
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT, "backend: expected auto or one of %s, found %s",
                        hr_backend_names(), hr_quote(name, strlen(name)).text);
}

/* The spare has the engine's precision, or f32 where it has no such one. */
static hr_status create_spare(hr_engine *engine, const hr_plan *plan, hr_error *err) {
    hr_status status =
        engine->spare->engine_create(plan, engine->precision, NULL, &engine->spare_context, err);
    if (status != HR_UNIMPLEMENTED) return status;
    return engine->spare->engine_create(plan, HR_PRECISION_F32, NULL, &engine->spare_context, err);
}

hr_status hr__engine_create_with(const hr_backend_i *backend, const hr_backend_i *spare, const char *devices,
                                 hr_precision precision, const hr_plan *plan, hr_engine **engine,
                                 hr_error *err) {
    *engine = NULL;
    hr_engine *created = calloc(1, sizeof *created);
    if (created == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "engine: out of memory");
    created->backend = backend;
    created->precision = precision;
    hr_failover_init(&created->failover);
    hr_status status = backend->engine_create(plan, precision, devices, &created->context, err);
    if (status != HR_OK) {
        free(created);
        return status;
    }
    created->spare = spare;
    if (spare != NULL) status = create_spare(created, plan, err);
    if (status != HR_OK) {
        created->spare = NULL;
        hr_engine_destroy(created);
        return status;
    }
    *engine = created;
    return HR_OK;
}

hr_status hr_engine_create_on(const char *name, const char *devices, hr_precision precision,
                              const hr_plan *plan, hr_engine **engine, hr_error *err) {
    *engine = NULL;
    const hr_backend_i *backend = NULL;
    hr_error why;
    hr_status status = backend_find(name, &backend, err);
    if (status != HR_OK) return status;
    if (devices != NULL && !backend->may_fail) {
        return hr_error_set(err, HR_INVALID_ARGUMENT, "devices: expected none for backend %s, found %s",
                            backend->name, hr_quote(devices, strlen(devices)).text);
    }
    if (!backend->may_fail) return hr__engine_create_with(backend, NULL, NULL, precision, plan, engine, err);
    status = hr__engine_create_with(backend, backend_spare(), devices, precision, plan, engine, &why);
    if (status == HR_UNAVAILABLE && devices == NULL && strcmp(name, "auto") == 0) {
        log_skipped(backend, &why); /* a device too old for us, say */
        return hr__engine_create_with(backend_spare(), NULL, NULL, precision, plan, engine, err);
    }
    if (status != HR_OK && err != NULL) *err = why;
    return status;
}

hr_status hr_engine_create(const char *name, hr_precision precision, const hr_plan *plan, hr_engine **engine,
                           hr_error *err) {
    return hr_engine_create_on(name, NULL, precision, plan, engine, err);
}

void hr_engine_destroy(hr_engine *engine) {
    if (engine == NULL) return;
    if (engine->spare != NULL) engine->spare->engine_destroy(engine->spare_context);
    engine->backend->engine_destroy(engine->context);
    free(engine);
}

const char *hr_engine_backend(const hr_engine *engine) {
    return engine->backend->name;
}

hr_precision hr_engine_precision(const hr_engine *engine) {
    return engine->precision;
}

bool hr_engine_is_degraded(const hr_engine *engine) {
    return hr_failover_is_broken(&engine->failover);
}

void hr_engine_describe(const hr_engine *engine, char *text, size_t size) {
    if (engine->backend->describe != NULL) {
        engine->backend->describe(engine->context, text, size);
    } else {
        snprintf(text, size, "%s %s", engine->backend->name, hr_precision_name(engine->precision));
    }
}

hr_status hr_worker_create(hr_engine *engine, hr_worker **worker, hr_error *err) {
    *worker = NULL;
    hr_worker *created = calloc(1, sizeof *created);
    if (created == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "worker: out of memory");
    created->engine = engine;
    hr_status status = engine->backend->worker_create(engine->context, &created->context, err);
    if (status != HR_OK) {
        free(created);
        return status;
    }
    if (engine->spare != NULL)
        status = engine->spare->worker_create(engine->spare_context, &created->spare_context, err);
    if (status != HR_OK) {
        created->spare_context = NULL;
        hr_worker_destroy(created);
        return status;
    }
    *worker = created;
    return HR_OK;
}

void hr_worker_destroy(hr_worker *worker) {
    if (worker == NULL) return;
    const hr_engine *engine = worker->engine;
    if (worker->spare_context != NULL) engine->spare->worker_destroy(worker->spare_context);
    engine->backend->worker_destroy(worker->context);
    free(worker);
}

hr_status hr_forward(hr_worker *worker, const hr_slice *slices, size_t n_slices, hr_error *err) {
    hr_engine *engine = worker->engine;
    if (engine->spare == NULL) return engine->backend->forward(worker->context, slices, n_slices, err);
    bool was_broken = hr_failover_is_broken(&engine->failover);
    if (hr_failover_may_try(&engine->failover, was_broken ? hr_clock_ns() : 0)) {
        hr_error why;
        hr_status status = engine->backend->forward(worker->context, slices, n_slices, &why);
        if (status == HR_OK) {
            if (was_broken) hr_failover_succeeded(&engine->failover, engine->backend->name);
            return HR_OK;
        }
        hr_failover_failed(&engine->failover, hr_clock_ns(), engine->backend->name, &why);
    }
    return engine->spare->forward(worker->spare_context, slices, n_slices, err);
}

hr_status hr_observe(hr_worker *worker, const hr_slice *slices, size_t n_slices, const hr_observer *observer,
                     hr_error *err) {
    const hr_backend_i *backend = worker->engine->backend;
    if (backend->observe == NULL) {
        return hr_error_set(err, HR_UNIMPLEMENTED, "backend %s cannot be observed, only reference can",
                            backend->name);
    }
    return backend->observe(worker->context, slices, n_slices, observer, err);
}

hr_status hr_precision_parse(const char *text, hr_precision *precision, hr_error *err) {
    for (hr_precision p = HR_PRECISION_F32; p <= HR_PRECISION_BF16; p++) {
        if (strcmp(text, hr_precision_name(p)) != 0) continue;
        *precision = p;
        return HR_OK;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT, "precision: expected f32 or bf16, found %s",
                        hr_quote(text, strlen(text)).text);
}

const char *hr_precision_name(hr_precision precision) {
    return precision == HR_PRECISION_BF16 ? "bf16" : "f32";
}
