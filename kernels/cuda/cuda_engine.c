/* Devices, workers and the way of a batch; see cuda_engine.h. */
#include "kernels/cuda/cuda_engine.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_bind.h"

/* What one device holds for all its workers. */
typedef struct replica {
    int device;
    hr_cuda_device_info info;
    void *memory;   /* weights, then the tables; the device's */
    float **tables; /* (n_tables) the device's addresses; owned */
} replica;

struct hr_cuda_engine {
    const hr_cuda_runtime *runtime; /* static */
    hr_precision precision;
    hr_cuda_plan *plan;
    hr_cuda_image image;
    replica replicas[HR_CUDA_MAX_DEVICES];
    uint32_t n_replicas;
    atomic_uint next_worker; /* deals replicas; relaxed: any deal is right */
};

struct hr_cuda_worker {
    const hr_cuda_engine *engine; /* borrowed */
    const replica *replica;
    void *stream, *event;
    void *memory; /* the device's: buffers, logits, staging, image */
    void *pinned; /* staging, then logits */
    hr_cuda_places at;
    uint32_t *staging; /* in pinned */
    float *logits;     /* in pinned */
    void *graphs[HR_CUDA_BUCKETS];
};

static hr_status device_error(const hr_cuda_runtime *runtime, int code, const char *doing, hr_error *err) {
    return hr_error_set(err, HR_DEVICE, "cuda: %s: %s", doing, runtime->error_text(code));
}

static size_t aligned(size_t nbytes) {
    return (nbytes + 255) / 256 * 256;
}

hr_status hr_cuda_available(const hr_cuda_runtime *runtime, hr_error *err) {
    int count = 0, code = runtime->device_count(&count);
    if (code) {
        return hr_error_set(err, HR_UNAVAILABLE, "backend cuda: no CUDA device: %s",
                            runtime->error_text(code));
    }
    if (count < 1) return hr_error_set(err, HR_UNAVAILABLE, "backend cuda: no CUDA device on this machine");
    return HR_OK;
}

/* Memory on the device chosen. The status says what did not fit. */
static hr_status device_malloc(const hr_cuda_runtime *runtime, size_t nbytes, const char *what, void **memory,
                               hr_error *err) {
    size_t free_nbytes = 0, total = 0;
    int code = runtime->memory(&free_nbytes, &total);
    if (code) return device_error(runtime, code, "asking for free memory", err);
    if (nbytes <= free_nbytes) code = runtime->malloc(memory, nbytes);
    if (nbytes <= free_nbytes && !code) return HR_OK;
    *memory = NULL;
    return hr_error_set(err, HR_OUT_OF_MEMORY,
                        "cuda: %s: needs %zu bytes of device memory, %zu of %zu are free", what, nbytes,
                        free_nbytes, total);
}

/* ---- Replicas ---- */

static hr_status parse_devices(const char *text, hr_cuda_engine *engine, hr_error *err) {
    for (const char *at = text;; at++) {
        char *end;
        long device = strtol(at, &end, 10);
        bool fine = end != at && *at >= '0' && *at <= '9' && device < 1024 && (*end == ',' || *end == '\0') &&
                    engine->n_replicas < HR_CUDA_MAX_DEVICES;
        for (uint32_t i = 0; i < engine->n_replicas; i++) fine = fine && engine->replicas[i].device != device;
        if (!fine) {
            engine->n_replicas = 0;
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "devices: expected different numbers as in 0,1, found %s",
                                hr_quote(text, strlen(text)).text);
        }
        engine->replicas[engine->n_replicas++].device = (int)device;
        if (*end == '\0') return HR_OK;
        at = end;
    }
}

hr_cuda_device_kind hr_cuda_kind_of(const hr_cuda_device_info *info) {
    return (hr_cuda_device_kind){.n_sms = (uint32_t)info->n_sms,
                                 .hopper = hr_cuda_is_hopper(info->major, info->minor)};
}

static size_t table_nbytes(const hr_table *table) {
    return (size_t)table->rows * table->dim * sizeof(float);
}

static hr_status replica_upload(const hr_cuda_engine *engine, replica *r, void *stream, hr_error *err) {
    const hr_cuda_runtime *runtime = engine->runtime;
    const hr_plan *plan = engine->plan->plan;
    uint8_t *to = r->memory;
    int code = runtime->copy_in(to, engine->plan->weights, engine->plan->weights_nbytes, stream);
    to += aligned(engine->plan->weights_nbytes);
    for (uint32_t t = 0; !code && t < plan->schema->n_tables; t++) {
        r->tables[t] = (float *)(void *)to;
        code = runtime->copy_in(to, plan->embeddings[t], table_nbytes(&plan->schema->tables[t]), stream);
        to += aligned(table_nbytes(&plan->schema->tables[t]));
    }
    int waited = runtime->stream_wait(stream); /* also after an error: the host's memory may still be read */
    if (code == 0) code = waited;
    return code ? device_error(runtime, code, "copying the weights in", err) : HR_OK;
}

static hr_status replica_open(const hr_cuda_engine *engine, replica *r, hr_error *err) {
    const hr_cuda_runtime *runtime = engine->runtime;
    const hr_schema *schema = engine->plan->plan->schema;
    int count = 0, code = runtime->device_count(&count);
    if (!code && r->device >= count) {
        return hr_error_set(err, HR_UNAVAILABLE, "devices: expected less than %d, found %d", count,
                            r->device);
    }
    if (!code) code = runtime->set_device(r->device);
    if (!code) code = runtime->device_info(r->device, &r->info);
    if (code) return device_error(runtime, code, "opening the device", err);
    if (r->info.major < 8) {
        return hr_error_set(err, HR_UNAVAILABLE,
                            "cuda: expected a device of compute capability 8.0, found %s, %d.%d",
                            r->info.name, r->info.major, r->info.minor);
    }
    const hr_cuda_device_info *first = &engine->replicas[0].info; /* itself, or opened before */
    if (r->info.major != first->major || r->info.minor != first->minor) {
        return hr_error_set(
            err, HR_UNAVAILABLE,
            "devices: expected one compute capability, as bits differ, found %s, %d.%d, and %s, %d.%d",
            first->name, first->major, first->minor, r->info.name, r->info.major, r->info.minor);
    }
    code = runtime->prepare();
    if (code) return device_error(runtime, code, "loading the kernels", err);
    size_t nbytes = aligned(engine->plan->weights_nbytes);
    for (uint32_t t = 0; t < schema->n_tables; t++) nbytes += aligned(table_nbytes(&schema->tables[t]));
    r->tables = calloc((size_t)schema->n_tables + 1, sizeof *r->tables);
    if (!r->tables)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %u tables", schema->n_tables);
    hr_status status = device_malloc(runtime, nbytes + 1, "weights and tables", &r->memory, err);
    if (status != HR_OK) return status;
    void *stream = NULL;
    code = runtime->stream_create(&stream);
    if (code) return device_error(runtime, code, "creating a stream", err);
    status = replica_upload(engine, r, stream, err);
    runtime->stream_destroy(stream);
    return status;
}

static void replica_close(const hr_cuda_engine *engine, replica *r) {
    if (r->memory) {
        engine->runtime->set_device(r->device);
        engine->runtime->free(r->memory);
    }
    free(r->tables);
}

/* ---- Engine ---- */

hr_status hr_cuda_engine_create(const hr_cuda_runtime *runtime, const hr_plan *plan, hr_precision precision,
                                const char *devices, hr_cuda_engine **engine, hr_error *err) {
    *engine = NULL;
    hr_status status = hr_cuda_available(runtime, err);
    if (status != HR_OK) return status;
    hr_cuda_engine *created = calloc(1, sizeof *created);
    if (!created) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory preparing the network");
    created->runtime = runtime;
    created->precision = precision;
    atomic_init(&created->next_worker, 0);
    status = parse_devices(devices ? devices : "0", created, err);
    if (status == HR_OK) status = hr_cuda_plan_create(plan, precision, &created->plan, err);
    for (uint32_t i = 0; status == HR_OK && i < created->n_replicas; i++) {
        status = replica_open(created, &created->replicas[i], err);
    }
    if (status != HR_OK) {
        hr_cuda_engine_destroy(created);
        return status;
    }
    hr_cuda_plan_forget_weights(created->plan);
    created->image = hr_cuda_image_layout(created->plan);
    *engine = created;
    return HR_OK;
}

void hr_cuda_engine_destroy(hr_cuda_engine *engine) {
    if (!engine) return;
    for (uint32_t i = 0; i < engine->n_replicas; i++) replica_close(engine, &engine->replicas[i]);
    hr_cuda_plan_destroy(engine->plan);
    free(engine);
}

void hr_cuda_engine_describe(const hr_cuda_engine *engine, char *text, size_t size) {
    const hr_cuda_plan *plan = engine->plan;
    int at =
        snprintf(text, size, "cuda %s, %u launches, batches up to %u, on",
                 hr_precision_name(engine->precision), plan->n_stages, plan->buckets[plan->n_buckets - 1]);
    for (uint32_t i = 0; i < engine->n_replicas && at > 0 && (size_t)at < size; i++) {
        const replica *r = &engine->replicas[i];
        at += snprintf(text + at, size - (size_t)at, "%s %d (%s)", i ? "," : "", r->device, r->info.name);
    }
}

/* ---- Worker ---- */

void hr_cuda_worker_destroy(hr_cuda_worker *worker) {
    if (!worker) return;
    const hr_cuda_runtime *runtime = worker->engine->runtime;
    runtime->set_device(worker->replica->device);
    if (worker->stream) runtime->stream_wait(worker->stream);
    for (uint32_t b = 0; b < HR_CUDA_BUCKETS; b++) {
        if (worker->graphs[b]) runtime->graph_destroy(worker->graphs[b]);
    }
    if (worker->event) runtime->event_destroy(worker->event);
    if (worker->stream) runtime->stream_destroy(worker->stream);
    if (worker->memory) runtime->free(worker->memory);
    if (worker->pinned) runtime->host_free(worker->pinned);
    free(worker);
}

static uint32_t max_rows(const hr_cuda_plan *plan) {
    return plan->buckets[plan->n_buckets - 1];
}

static size_t logits_nbytes(const hr_cuda_plan *plan) {
    return (size_t)max_rows(plan) * plan->plan->n_tasks * sizeof(float);
}

/* The worker's memory on both sides. */
static hr_status worker_allocate(hr_cuda_worker *w, hr_error *err) {
    const hr_cuda_engine *engine = w->engine;
    const hr_cuda_runtime *runtime = engine->runtime;
    const hr_cuda_plan *plan = engine->plan;
    size_t buffers = aligned(plan->buffers_nbytes), logits = aligned(logits_nbytes(plan));
    size_t staging = aligned(hr_cuda_staging_nbytes(plan->plan, max_rows(plan)));
    hr_status status = device_malloc(runtime, buffers + logits + staging + engine->image.nbytes, "a worker",
                                     &w->memory, err);
    if (status != HR_OK) return status;
    w->at = (hr_cuda_places){
        .weights = w->replica->memory,
        .tables = (const float *const *)w->replica->tables,
        .buffers = w->memory,
        .logits = (float *)(void *)((uint8_t *)w->memory + buffers),
        .staging = (uint32_t *)(void *)((uint8_t *)w->memory + buffers + logits),
        .image = (uint8_t *)w->memory + buffers + logits + staging,
    };
    int code = runtime->host_malloc(&w->pinned, staging + logits);
    if (code) {
        w->pinned = NULL;
        return hr_error_set(err, HR_OUT_OF_MEMORY, "cuda: a worker needs %zu bytes of pinned memory: %s",
                            staging + logits, runtime->error_text(code));
    }
    w->staging = w->pinned;
    w->logits = (float *)(void *)((uint8_t *)w->pinned + staging);
    return HR_OK;
}

/* Zeros everywhere, then the descriptors. Padding columns stay zeros, and no launch ever meets a NaN that an
 * earlier owner of the memory left. */
static hr_status worker_fill(hr_cuda_worker *w, hr_error *err) {
    const hr_cuda_engine *engine = w->engine;
    const hr_cuda_runtime *runtime = engine->runtime;
    uint8_t *image = calloc(engine->image.nbytes, 1);
    if (!image) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for a worker");
    hr_cuda_image_fill(engine->plan, &engine->image, &w->at, image);
    int code = runtime->clear(w->memory, (size_t)(w->at.image - (uint8_t *)w->memory), w->stream);
    if (!code) code = runtime->copy_in(w->at.image, image, engine->image.nbytes, w->stream);
    int waited = runtime->stream_wait(w->stream);
    free(image);
    if (code == 0) code = waited;
    return code ? device_error(runtime, code, "copying the descriptors in", err) : HR_OK;
}

static hr_status worker_capture(hr_cuda_worker *w, uint32_t bucket, hr_error *err) {
    const hr_cuda_engine *engine = w->engine;
    const hr_cuda_runtime *runtime = engine->runtime;
    int code = runtime->capture_begin(w->stream);
    if (code) return device_error(runtime, code, "beginning a graph", err);
    for (uint32_t s = 0; !code && s < engine->plan->n_stages; s++) {
        hr_cuda_launch launch =
            hr_cuda_stage_launch(engine->plan, &engine->image, &w->at, s, engine->plan->buckets[bucket],
                                 hr_cuda_kind_of(&w->replica->info));
        code = runtime->launch(&launch, w->stream);
    }
    int ended = runtime->capture_end(w->stream, &w->graphs[bucket]);
    if (ended) w->graphs[bucket] = NULL;
    if (!code) code = ended;
    return code ? device_error(runtime, code, "capturing a graph", err) : HR_OK;
}

static hr_status worker_prepare(hr_cuda_worker *w, hr_error *err) {
    const hr_cuda_runtime *runtime = w->engine->runtime;
    int code = runtime->set_device(w->replica->device);
    if (code) return device_error(runtime, code, "choosing the device", err);
    hr_status status = worker_allocate(w, err);
    if (status != HR_OK) return status;
    code = runtime->stream_create(&w->stream);
    if (code) {
        w->stream = NULL;
        return device_error(runtime, code, "creating a stream", err);
    }
    code = runtime->event_create(&w->event);
    if (code) {
        w->event = NULL;
        return device_error(runtime, code, "creating an event", err);
    }
    status = worker_fill(w, err);
    for (uint32_t b = 0; status == HR_OK && b < w->engine->plan->n_buckets; b++) {
        status = worker_capture(w, b, err);
    }
    return status;
}

hr_status hr_cuda_worker_create(hr_cuda_engine *engine, hr_cuda_worker **worker, hr_error *err) {
    *worker = NULL;
    hr_cuda_worker *created = calloc(1, sizeof *created);
    if (!created) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for a worker");
    unsigned turn = atomic_fetch_add_explicit(&engine->next_worker, 1, memory_order_relaxed);
    created->engine = engine;
    created->replica = &engine->replicas[turn % engine->n_replicas];
    hr_status status = worker_prepare(created, err);
    if (status != HR_OK) {
        hr_cuda_worker_destroy(created);
        return status;
    }
    *worker = created;
    return HR_OK;
}

/* ---- Forward ---- */

/* One bucket's worth of rows: staged, run, and their logits handed out. */
static hr_status run_rows(hr_cuda_worker *w, hr_cuda_cursor *cursor, uint32_t bucket, uint32_t n_rows,
                          hr_error *err) {
    const hr_cuda_runtime *runtime = w->engine->runtime;
    const hr_plan *plan = w->engine->plan->plan;
    const hr_cuda_cursor begin = *cursor;
    size_t nbytes = hr_cuda_stage_rows(plan, cursor, n_rows, w->staging);
    int code = runtime->copy_in(w->at.staging, w->staging, nbytes, w->stream);
    if (!code) code = runtime->graph_launch(w->graphs[bucket], w->stream);
    if (!code) {
        code = runtime->copy_out(w->logits, w->at.logits, (size_t)n_rows * plan->n_tasks * sizeof(float),
                                 w->stream);
    }
    if (!code) code = runtime->event_record(w->event, w->stream);
    if (!code) code = runtime->event_wait(w->event);
    if (code) {
        runtime->stream_wait(w->stream); /* what was begun may still read the staging */
        return device_error(runtime, code, "running a batch", err);
    }
    hr_cuda_hand_out(plan, begin, n_rows, w->logits);
    return HR_OK;
}

hr_status hr_cuda_forward(hr_cuda_worker *worker, const hr_slice *slices, size_t n_slices, hr_error *err) {
    const hr_cuda_plan *plan = worker->engine->plan;
    hr_cuda_cursor cursor = {.slices = slices};
    uint64_t left = 0;
    for (size_t i = 0; i < n_slices; i++) left += slices[i].n_rows;
    if (left == 0) return HR_OK;
    int code = worker->engine->runtime->set_device(worker->replica->device);
    if (code) return device_error(worker->engine->runtime, code, "choosing the device", err);
    while (left > 0) {
        uint32_t bucket = hr_cuda_plan_bucket(plan, left), rows = plan->buckets[bucket];
        uint32_t n_rows = left < rows ? (uint32_t)left : rows;
        hr_status status = run_rows(worker, &cursor, bucket, n_rows, err);
        if (status != HR_OK) return status;
        left -= n_rows;
    }
    return HR_OK;
}
