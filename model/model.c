/* Loads a model folder and owns what it became: see model.h. */
#include "model/model.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/config.h"
#include "model/plan_tensors.h"
#include "model/version.h"

struct hr_model {
    /* Relaxed to count up; the last down must see all that other holders did. */
    atomic_size_t references;
    char *label; /* "name@version"; owned */
    char *name;  /* owned */
    uint64_t version;
    hr_config config;        /* schema, plan, fusion */
    hr_plan_tensors tensors; /* what plan's pointers point to */
    hr_engine *engine;
    hr_worker **workers; /* (n_workers) */
    uint32_t n_workers;
    void *attachment;
    void (*attachment_destroy)(void *attachment);
    void (*retire)(void *arg); /* NULL: destroyed by the last hr_model_unref */
    void *retire_arg;
};

/* ---- Names ---- */

hr_status hr_model_identify(const char *dir, char *name, size_t size, uint64_t *version, hr_error *err) {
    char *path = realpath(dir, NULL);
    if (path == NULL) {
        return hr_error_set(err, HR_IO, "model folder %s: %s", hr_quote(dir, strlen(dir)).text,
                            strerror(errno));
    }
    char *last = strrchr(path, '/'); /* realpath gives "/", or "/a/b" without a slash at the end */
    const char *base = last + 1;
    *version = 1;
    if (last != path && hr_version_parse(base, version)) {
        *last = '\0';
        base = strrchr(path, '/') + 1;
    }
    size_t n = strlen(base);
    hr_status status = HR_OK;
    if (n == 0 || n >= size || !hr_utf8_valid(base, n)) {
        status = hr_error_set(err, HR_INVALID_ARGUMENT,
                              "model folder %s: expected a name of 1 to %zu bytes of UTF-8, found %s",
                              hr_quote(dir, strlen(dir)).text, size - 1, hr_quote(base, n).text);
    } else {
        memcpy(name, base, n + 1);
    }
    free(path);
    return status;
}

/* ---- Loading ---- */

static hr_status path_in(const char *dir, const char *file, char **path, hr_error *err) {
    if (asprintf(path, "%s/%s", dir, file) >= 0) return HR_OK;
    *path = NULL;
    return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
}

static hr_status load_config(hr_model *model, const char *dir, hr_error *err) {
    char *path;
    hr_status status = path_in(dir, "config.json", &path, err);
    if (status != HR_OK) return status;
    status = hr_config_load(path, &model->config, err);
    if (status != HR_OK) status = hr_error_prefix(err, "config.json");
    free(path);
    return status;
}

static hr_status load_tensors(hr_model *model, const char *dir, const atomic_bool *cancelled, hr_error *err) {
    char *path;
    hr_safetensors *file = NULL;
    hr_status status = path_in(dir, "model.safetensors", &path, err);
    if (status != HR_OK) return status;
    status = hr_safetensors_open(path, &file, err);
    if (status == HR_OK) {
        status = hr_plan_tensors_load(&model->config.plan, model->config.norm, file, cancelled,
                                      model->config.arena, &model->tensors, err);
    }
    if (status != HR_OK) status = hr_error_prefix(err, "model.safetensors");
    hr_safetensors_close(file);
    free(path);
    return status;
}

static hr_status create_workers(hr_model *model, const hr_model_options *options, hr_error *err) {
    hr_status status = hr_engine_create_on(options->backend, options->devices, options->precision,
                                           &model->config.plan, &model->engine, err);
    if (status != HR_OK) return status;
    model->workers = calloc(options->n_workers, sizeof(hr_worker *));
    if (model->workers == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    for (; model->n_workers < options->n_workers; model->n_workers++) {
        if (options->cancelled != NULL && atomic_load(options->cancelled))
            return hr_error_set(err, HR_CANCELLED, "cancelled");
        status = hr_worker_create(model->engine, &model->workers[model->n_workers], err);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

hr_status hr_model_load(const char *dir, const char *name, uint64_t version, const hr_model_options *options,
                        hr_model **model, hr_error *err) {
    *model = NULL;
    hr_model *loaded = calloc(1, sizeof *loaded);
    if (loaded == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    atomic_init(&loaded->references, 1);
    loaded->version = version;
    loaded->name = strdup(name);
    if (asprintf(&loaded->label, "%s@%llu", name, (unsigned long long)version) < 0) loaded->label = NULL;
    hr_status status = HR_OK;
    if (loaded->name == NULL || loaded->label == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    if (status == HR_OK) status = load_config(loaded, dir, err);
    if (status == HR_OK) status = load_tensors(loaded, dir, options->cancelled, err);
    if (status == HR_OK) status = create_workers(loaded, options, err);
    if (status != HR_OK) {
        hr_model_unref(loaded);
        return hr_error_prefix(err, "model %.64s@%llu", name, (unsigned long long)version);
    }
    *model = loaded;
    return HR_OK;
}

hr_model *hr_model_ref(hr_model *model) {
    atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
    return model;
}

void hr_model_destroy(hr_model *model) {
    for (uint32_t w = 0; w < model->n_workers; w++) hr_worker_destroy(model->workers[w]);
    free(model->workers);
    hr_engine_destroy(model->engine);
    if (model->attachment_destroy != NULL) model->attachment_destroy(model->attachment);
    hr_plan_tensors_clear(&model->tensors);
    hr_config_clear(&model->config);
    free(model->label);
    free(model->name);
    free(model);
}

void hr_model_unref(hr_model *model) {
    if (model == NULL) return;
    if (atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) != 1) return;
    if (model->retire != NULL)
        model->retire(model->retire_arg);
    else
        hr_model_destroy(model);
}

void hr_model_on_last_unref(hr_model *model, void (*retire)(void *arg), void *arg) {
    model->retire = retire;
    model->retire_arg = arg;
}

/* ---- Parts ---- */

const char *hr_model_name(const hr_model *model) {
    return model->name;
}

uint64_t hr_model_version(const hr_model *model) {
    return model->version;
}

const char *hr_model_label(const hr_model *model) {
    return model->label;
}

const hr_schema *hr_model_schema(const hr_model *model) {
    return model->config.schema;
}

const hr_plan *hr_model_plan(const hr_model *model) {
    return &model->config.plan;
}

const char *hr_model_norm(const hr_model *model) {
    return hr_config_norm_name(model->config.norm);
}

const hr_fusion *hr_model_fusion(const hr_model *model) {
    return model->config.fusion;
}

const hr_engine *hr_model_engine(const hr_model *model) {
    return model->engine;
}

uint64_t hr_model_parameters(const hr_model *model, uint64_t *embedding_parameters) {
    *embedding_parameters = model->tensors.embedding_parameters;
    return model->tensors.network_parameters;
}

void hr_model_attach(hr_model *model, void *attachment, void (*destroy)(void *attachment)) {
    model->attachment = attachment;
    model->attachment_destroy = destroy;
}

void *hr_model_attachment(const hr_model *model) {
    return model->attachment;
}

int hr_model_task(const hr_model *model, const char *name) {
    for (uint32_t t = 0; t < model->config.plan.n_tasks; t++) {
        if (strcmp(model->config.plan.tasks[t].name, name) == 0) return (int)t;
    }
    return -1;
}

hr_status hr_model_forward(const hr_model *model, uint32_t worker, const hr_slice *slices, size_t n_slices,
                           hr_error *err) {
    return hr_forward(model->workers[worker], slices, n_slices, err);
}

double hr_output_apply(hr_output output, double logit) {
    switch (output) {
    case HR_OUTPUT_SIGMOID:
        /* Both forms are one function; each is exact in its half, where the other would overflow. */
        return logit >= 0.0 ? 1.0 / (1.0 + exp(-logit)) : exp(logit) / (1.0 + exp(logit));
    case HR_OUTPUT_SOFTPLUS: return logit > 0.0 ? logit + log1p(exp(-logit)) : log1p(exp(logit));
    case HR_OUTPUT_EXP: return exp(logit);
    case HR_OUTPUT_IDENTITY: break;
    }
    return logit;
}
