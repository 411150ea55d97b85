/* The backends of this build and the dispatch to them: see backend.h.
 *
 * A backend is registered by one line in `backends`; the build says by HR_HAVE_* which ones are compiled in.
 */
#include "kernels/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/reference/reference.h"
#ifdef HR_HAVE_ONEDNN
#include "kernels/onednn/onednn.h"
#endif

/* Fastest first: the order in which "auto" asks them. */
static const hr_backend_i *const backends[] = {
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
};

struct hr_worker {
    const hr_backend_i *backend; /* static */
    void *context;               /* owned; the backend's own */
};

const char *hr_backend_names(void) {
#ifdef HR_HAVE_ONEDNN
    return "reference, onednn";
#else
    return "reference";
#endif
}

static hr_status backend_available(const hr_backend_i *backend, hr_error *err) {
    return backend->available == NULL ? HR_OK : backend->available(err);
}

/* The reference backend runs everywhere, so there is always one. */
static const hr_backend_i *backend_auto(void) {
    for (size_t i = 0; i < N_BACKENDS; i++) {
        if (backend_available(backends[i], NULL) == HR_OK) return backends[i];
    }
    return &hr_backend_reference;
}

static hr_status backend_find(const char *name, const hr_backend_i **backend, hr_error *err) {
    if (strcmp(name, "auto") == 0) {
        *backend = backend_auto();
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

hr_status hr_engine_create(const char *name, hr_precision precision, const hr_plan *plan, hr_engine **engine,
                           hr_error *err) {
    *engine = NULL;
    const hr_backend_i *backend = NULL;
    hr_status status = backend_find(name, &backend, err);
    if (status != HR_OK) return status;
    hr_engine *created = calloc(1, sizeof *created);
    if (created == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "engine: out of memory");
    created->backend = backend;
    created->precision = precision;
    status = backend->engine_create(plan, precision, &created->context, err);
    if (status != HR_OK) {
        free(created);
        return status;
    }
    *engine = created;
    return HR_OK;
}

void hr_engine_destroy(hr_engine *engine) {
    if (engine == NULL) return;
    engine->backend->engine_destroy(engine->context);
    free(engine);
}

const char *hr_engine_backend(const hr_engine *engine) {
    return engine->backend->name;
}

hr_precision hr_engine_precision(const hr_engine *engine) {
    return engine->precision;
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
    created->backend = engine->backend;
    hr_status status = engine->backend->worker_create(engine->context, &created->context, err);
    if (status != HR_OK) {
        free(created);
        return status;
    }
    *worker = created;
    return HR_OK;
}

void hr_worker_destroy(hr_worker *worker) {
    if (worker == NULL) return;
    worker->backend->worker_destroy(worker->context);
    free(worker);
}

hr_status hr_forward(hr_worker *worker, const hr_slice *slices, size_t n_slices, hr_error *err) {
    return worker->backend->forward(worker->context, slices, n_slices, err);
}

hr_status hr_observe(hr_worker *worker, const hr_slice *slices, size_t n_slices, const hr_observer *observer,
                     hr_error *err) {
    if (worker->backend->observe == NULL) {
        return hr_error_set(err, HR_UNIMPLEMENTED, "backend %s cannot be observed, only reference can",
                            worker->backend->name);
    }
    return worker->backend->observe(worker->context, slices, n_slices, observer, err);
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
