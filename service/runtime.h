/* What `serve` and `score` both run: the store, the models and the pipeline over them, by the configuration.
 */
#ifndef HOMERANK_SERVICE_RUNTIME_H
#define HOMERANK_SERVICE_RUNTIME_H

#include "base/status.h"
#include "features/store.h"
#include "model/repository.h"
#include "service/options.h"
#include "service/pipeline.h"

/* In the order they are started; all owned. */
typedef struct hr_runtime {
    hr_store *store;
    hr_repository *repository;
    hr_experiments_watch *experiments; /* NULL: none are configured */
    hr_pipeline *pipeline;
} hr_runtime;

/* Opens the store, the models (the repository options->models, or, where that is "", the single folder
 * options->model) and starts the pipeline, which tells the observer (borrowed until the stop; may be NULL).
 * On failure nothing is left open. Errors: theirs. */
hr_status hr_runtime_start(const hr_options *options, const hr_pipeline_observer *observer,
                           hr_runtime *runtime, hr_error *err);

/* Waits for the calls under way, then stops and closes everything. */
void hr_runtime_stop(hr_runtime *runtime);

#endif
