/* A loaded model: config.json + model.safetensors, its plan, and an engine with one worker per thread.
 *
 * Loading checks everything (MODEL.md 1 and 2) and copies the tensors out of the file, so that nothing that
 * happens to the files afterwards can touch a loaded model. A model is immutable and counted by reference:
 * any thread may read it, and a request holds a reference while it runs.
 */
#ifndef HOMERANK_MODEL_MODEL_H
#define HOMERANK_MODEL_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/backend.h"
#include "model/fusion.h"
#include "schema/schema.h"

typedef struct hr_model hr_model;

typedef struct hr_model_options {
    const char *backend; /* as hr_engine_create */
    const char *devices; /* as hr_engine_create_on */
    hr_precision precision;
    uint32_t n_workers; /* how many threads will call hr_model_forward side by side, >= 1 */
    /* (optional) Looked at between the steps of loading: once true, it ends with CANCELLED. Borrowed for the
     * call. */
    const atomic_bool *cancelled;
} hr_model_options;

/* The name and version that a plain model folder stands for: the parent folder's name and the folder's own
 * where that is a positive integer (ROOT/home/3 -> "home", 3), else the folder's name and 1.
 * Errors: IO (no such folder), INVALID_ARGUMENT (a name that does not fit name[size]). */
hr_status hr_model_identify(const char *dir, char *name, size_t size, uint64_t *version, hr_error *err);

/* Loads dir (the folder with config.json) as `name` version `version`. The reference count is 1.
 * Errors: INVALID_ARGUMENT (the file, the tensor or key, expected, found), IO, CANCELLED, OUT_OF_MEMORY
 * (asked for, and refused before it is taken where the machine or the control group has not as much: the
 * bytes needed and available), and those of hr_engine_create. */
hr_status hr_model_load(const char *dir, const char *name, uint64_t version, const hr_model_options *options,
                        hr_model **model, hr_error *err);
hr_model *hr_model_ref(hr_model *model);
void hr_model_unref(hr_model *model); /* NULL is allowed; the last one destroys or retires it */

/* Frees a model that nobody refers to any more: one that was retired. */
void hr_model_destroy(hr_model *model);

/* Where the model goes with its last reference, instead of being destroyed by the thread that drops it (to
 * give back a GB takes a while): retire(arg), on that thread, sees to hr_model_destroy. Set at most once,
 * before the model is shared. */
void hr_model_on_last_unref(hr_model *model, void (*retire)(void *arg), void *arg);

const char *hr_model_name(const hr_model *model);
uint64_t hr_model_version(const hr_model *model);
const char *hr_model_label(const hr_model *model); /* "name@version" */
const hr_schema *hr_model_schema(const hr_model *model);
const hr_plan *hr_model_plan(const hr_model *model);
const char *
hr_model_norm(const hr_model *model); /* "batch", "layer" or "none"; batch is folded in the plan */
const hr_fusion *hr_model_fusion(const hr_model *model); /* config.json's default */
const hr_engine *hr_model_engine(const hr_model *model);
uint64_t hr_model_parameters(const hr_model *model, uint64_t *embedding_parameters); /* network; embeddings */

/* Something that belongs to the model and lives as long as it does (the service's feature encoder for its
 * schema): destroyed with it, after its engine. Set at most once, before the model is shared. */
void hr_model_attach(hr_model *model, void *attachment, void (*destroy)(void *attachment));
void *hr_model_attachment(const hr_model *model); /* NULL where none was set */

/* The index of a task, or -1. */
int hr_model_task(const hr_model *model, const char *name);

/* Logits of all slices by worker `worker` < n_workers; each worker is used by one thread at a time. */
hr_status hr_model_forward(const hr_model *model, uint32_t worker, const hr_slice *slices, size_t n_slices,
                           hr_error *err);

/* MODEL.md 2: a task's output from its logit, in double. */
double hr_output_apply(hr_output output, double logit);

#endif
