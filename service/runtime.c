/* The store, the models and the pipeline: see runtime.h. */
#include "service/runtime.h"

#include <string.h>

#include "service/assignment.h"
#include "service/servable.h"

static hr_status open_store(const hr_options *options, hr_runtime *runtime, hr_error *err) {
    hr_store_options store = hr_store_defaults;
    store.connect_timeout_ms = options->store_connect_timeout_ms;
    store.command_timeout_ms = options->store_timeout_ms;
    store.n_connections = options->store_connections;
    store.cache_nbytes = options->cache_bytes;
    store.cache_ttl_ms = options->cache_ttl_ms;
    store.cache_max_stale_ms = options->cache_max_stale_ms;
    store.cache_heartbeat_ms = options->cache_heartbeat_ms;
    store.max_fetch_nbytes = options->max_call_bytes;
    return hr_store_open(options->store, &store, &runtime->store, err);
}

static hr_version_policy policy_of(const char *text) {
    if (strcmp(text, "all") == 0) return HR_POLICY_ALL;
    return strcmp(text, "specific") == 0 ? HR_POLICY_SPECIFIC : HR_POLICY_LATEST;
}

static hr_status open_models(const hr_options *options, hr_runtime *runtime, hr_error *err) {
    hr_repository_options repository = {
        .model = {.backend = options->backend, .n_workers = options->threads},
        .default_model = options->default_model,
        .policy = policy_of(options->version_policy),
        .versions = options->versions.values,
        .n_versions = options->versions.n,
        .poll_ms = options->repository_poll_ms,
        .prepare = hr_servable_prepare,
    };
    if (options->devices != NULL && options->devices[0] != '\0') repository.model.devices = options->devices;
    hr_status status = hr_precision_parse(options->precision, &repository.model.precision, err);
    if (status) return status;
    if (options->models != NULL && options->models[0] != '\0') {
        repository.warm_rows = options->max_batch_rows;
        return hr_repository_open(options->models, &repository, &runtime->repository, err);
    }
    return hr_repository_open_folder(options->model, &repository, &runtime->repository, err);
}

static hr_status open_experiments(const hr_options *options, hr_runtime *runtime, hr_error *err) {
    const hr_experiments_options experiments = {
        .feature = options->experiments_feature,
        .check = hr_assignment_check,
        .check_arg = runtime->repository,
    };
    if (options->experiments == NULL || options->experiments[0] == '\0') return HR_OK;
    return hr_experiments_watch_open(options->experiments, &experiments, &runtime->experiments, err);
}

static hr_status start_pipeline(const hr_options *options, const hr_pipeline_observer *observer,
                                hr_runtime *runtime, hr_error *err) {
    hr_pipeline_options pipeline = {
        .n_workers = options->threads,
        .max_items = options->max_items,
        .max_id_nbytes = options->max_id_bytes,
        .max_queued_calls = options->max_queued_calls,
        .max_queued_items = options->max_queued_items,
        .max_queue_ns = (uint64_t)options->max_queue_ms * 1000000,
        .max_batch_rows = options->max_batch_rows,
        .max_queue_delay_us = options->max_queue_delay_us,
        .strict_features = options->strict_features,
        .experiments = runtime->experiments,
        .allow_forced_variations = options->allow_forced_variations,
        .observer = observer,
    };
    return hr_pipeline_create(&pipeline, runtime->repository, runtime->store, &runtime->pipeline, err);
}

hr_status hr_runtime_start(const hr_options *options, const hr_pipeline_observer *observer,
                           hr_runtime *runtime, hr_error *err) {
    *runtime = (hr_runtime){0};
    hr_status status = open_store(options, runtime, err);
    if (!status) status = open_models(options, runtime, err);
    if (!status) status = open_experiments(options, runtime, err);
    if (!status) status = start_pipeline(options, observer, runtime, err);
    if (status) hr_runtime_stop(runtime);
    return status;
}

void hr_runtime_stop(hr_runtime *runtime) {
    hr_pipeline_destroy(runtime->pipeline);
    hr_experiments_watch_close(runtime->experiments);
    hr_repository_close(runtime->repository);
    hr_store_close(runtime->store);
    *runtime = (hr_runtime){0};
}
