/* The backend boundary: whatever can run a plan's forward pass over a batch (DESIGN 4).
 *
 * A backend is a table of functions plus a context. An hr_engine is one plan prepared by one backend at one
 * precision (weights packed, dtypes converted); it is immutable and shared. An hr_worker is the scratch
 * memory of one thread: one thread at a time may use it, many workers run side by side on one engine.
 *
 * Numbers: MODEL.md 5. Batch invariance: the bits of a row's logits do not depend on the other rows, on how
 * the rows are cut into slices, nor on their count.
 */
#ifndef HOMERANK_KERNELS_BACKEND_H
#define HOMERANK_KERNELS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "kernels/plan.h"
#include "schema/slice.h"

typedef enum hr_precision { HR_PRECISION_F32, HR_PRECISION_BF16 } hr_precision;

/* Who watches the inside of the network (MODEL.md 2), row by row in the order of the computation. Units are
 * the plan's own; values are valid during the call only. All entries are required. */
typedef struct hr_observer {
    void *arg;
    /* Step 4: hidden layer i of expert k, behind its activation; the last is the expert's output e. */
    void (*expert)(void *arg, const hr_unit *unit, uint32_t k, uint32_t i, const float *values /* (out) */);
    /* Step 5: the softmax over the mixed experts; 1 where there is only one. */
    void (*mix)(void *arg, const hr_unit *unit, const float *weights /* (n_mixed) */);
    /* Step 6: s. */
    void (*self_gate)(void *arg, const hr_unit *unit, const float *weights /* (E) */);
} hr_observer;

/* What a backend implements. All entries are required unless marked optional. */
typedef struct hr_backend_i {
    const char *name; /* as on the command line */
    /* (optional; default: yes) Whether this machine can run it; else err says why. */
    hr_status (*available)(hr_error *err);
    /* (optional; default: no) Whether forward's DEVICE errors are to be expected: see hr_engine_create. */
    bool may_fail;
    /* Prepares the plan; *context is the backend's own. UNIMPLEMENTED where it has no such precision.
     * devices: as hr_engine_create_on; NULL where nobody said; of no concern to CPU backends. */
    hr_status (*engine_create)(const hr_plan *plan, hr_precision precision, const char *devices,
                               void **context, hr_error *err);
    void (*engine_destroy)(void *context);
    hr_status (*worker_create)(void *context, void **worker, hr_error *err);
    void (*worker_destroy)(void *worker);
    hr_status (*forward)(void *worker, const hr_slice *slices, size_t n_slices, hr_error *err);
    /* (optional; default: nothing) One line on how it will run: ISA, block sizes, what products take. */
    void (*describe)(const void *context, char *text, size_t size);
    /* (optional; default: UNIMPLEMENTED) forward, told to the observer as it goes. */
    hr_status (*observe)(void *worker, const hr_slice *slices, size_t n_slices, const hr_observer *observer,
                         hr_error *err);
} hr_backend_i;

typedef struct hr_engine hr_engine;
typedef struct hr_worker hr_worker;

/* name: "reference", "onednn", "cuda" or "auto" (the fastest that this build has and this machine can run; a
 * log line says why where that is not the GPU of a build that has the cuda backend).
 * The plan is borrowed and must outlive the engine. Allocates all that is shared.
 * A GPU may fail while it serves. So beside it the same plan is prepared for the CPU (the network's weights
 * once more, in host memory): a batch that fails on the device is run there, and so are those that follow
 * until the device answers again (failover.h). Errors: INVALID_ARGUMENT (unknown name; a plan the backend
 * cannot hold), UNAVAILABLE (not in this build or not on this machine, with the reason), OUT_OF_MEMORY,
 * DEVICE. */
hr_status hr_engine_create(const char *name, hr_precision precision, const hr_plan *plan, hr_engine **engine,
                           hr_error *err);

/* On the devices listed, "0,1": a replica of the engine on each, workers dealt to them in turn. NULL: the
 * first. CPU backends have no devices: INVALID_ARGUMENT where some are listed. */
hr_status hr_engine_create_on(const char *name, const char *devices, hr_precision precision,
                              const hr_plan *plan, hr_engine **engine, hr_error *err);
void hr_engine_destroy(hr_engine *engine); /* after its workers; NULL is allowed */

/* The backend's name, and one line on how it runs, e.g. "onednn 2.6.3 bf16, amx, blocks of 8, 16, 64". */
const char *hr_engine_backend(const hr_engine *engine);
hr_precision hr_engine_precision(const hr_engine *engine);
void hr_engine_describe(const hr_engine *engine, char *text, size_t size);

/* Whether its device failed and batches run on the CPU. Any thread. */
bool hr_engine_is_degraded(const hr_engine *engine);

/* Allocates everything that forward needs. */
hr_status hr_worker_create(hr_engine *engine, hr_worker **worker, hr_error *err);
void hr_worker_destroy(hr_worker *worker); /* NULL is allowed */

/* Writes every slice's logits. Any number of rows; blocking; allocates nothing.
 * Errors: DEVICE, and then the logits are undefined. A device that fails is no error: the CPU takes its
 * place. */
hr_status hr_forward(hr_worker *worker, const hr_slice *slices, size_t n_slices, hr_error *err);

/* hr_forward, observed: for looking into a model, not for serving it. The observer is borrowed for the call.
 * Errors: hr_forward's; UNIMPLEMENTED where the backend cannot ("reference" can). */
hr_status hr_observe(hr_worker *worker, const hr_slice *slices, size_t n_slices, const hr_observer *observer,
                     hr_error *err);

/* "reference, onednn, cuda": the backends in this build, for help texts and errors. */
const char *hr_backend_names(void);

/* Parses "f32" or "bf16". INVALID_ARGUMENT otherwise. */
hr_status hr_precision_parse(const char *text, hr_precision *precision, hr_error *err);
const char *hr_precision_name(hr_precision precision);

#endif
