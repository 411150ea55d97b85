/* See cuda_rig.h. */
#include "tests/kernels/cuda_rig.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/cuda/cuda_engine.h"
#include "tests/kernels/cuda_fake.h"

static hr_status fail(const hr_cuda_rig *rig, int code, const char *doing, hr_error *err) {
    return hr_error_set(err, HR_DEVICE, "cuda: %s: %s", doing, rig->runtime->error_text(code));
}

static size_t aligned(size_t nbytes) {
    return (nbytes + 255) / 256 * 256;
}

static uint32_t max_rows(const hr_cuda_rig *rig) {
    return rig->plan->buckets[rig->plan->n_buckets - 1];
}

/* Of all that place() lays out. */
static size_t memory_nbytes(const hr_cuda_rig *rig) {
    return 2 * HR_CUDA_GUARD + aligned(rig->plan->buffers_nbytes) +
           aligned((size_t)max_rows(rig) * rig->plan->plan->n_tasks * sizeof(float)) +
           aligned(hr_cuda_staging_nbytes(rig->plan->plan, max_rows(rig))) + rig->image.nbytes;
}

static void place(const hr_cuda_rig *rig, uint8_t *memory, hr_cuda_places *at) {
    const hr_plan *plan = rig->plan->plan;
    uint8_t *next = memory + HR_CUDA_GUARD;
    at->buffers = next;
    next += aligned(rig->plan->buffers_nbytes);
    at->logits = (float *)(void *)next;
    next += aligned((size_t)max_rows(rig) * plan->n_tasks * sizeof(float));
    at->staging = (uint32_t *)(void *)next;
    next += aligned(hr_cuda_staging_nbytes(plan, max_rows(rig)));
    at->image = next;
}

static int upload_tables(hr_cuda_rig *rig) {
    const hr_plan *plan = rig->plan->plan;
    const float **tables = calloc((size_t)plan->schema->n_tables + 1, sizeof *tables);
    uint8_t *to = (uint8_t *)rig->device_weights + aligned(rig->plan->weights_nbytes);
    rig->device.tables = tables;
    rig->host.tables = plan->embeddings;
    if (tables == NULL) return 2;
    int code = rig->runtime->copy_in(rig->device_weights, rig->plan->weights, rig->plan->weights_nbytes,
                                     rig->stream);
    for (uint32_t t = 0; code == 0 && t < plan->schema->n_tables; t++) {
        size_t nbytes = (size_t)plan->schema->tables[t].rows * plan->schema->tables[t].dim * sizeof(float);
        tables[t] = (const float *)(void *)to;
        code = rig->runtime->copy_in(to, plan->embeddings[t], nbytes, rig->stream);
        to += aligned(nbytes);
    }
    rig->device.weights = rig->device_weights;
    rig->host.weights = rig->plan->weights;
    return code;
}

static hr_status open_device(hr_cuda_rig *rig, hr_error *err) {
    const hr_schema *schema = rig->plan->plan->schema;
    const hr_cuda_runtime *runtime = rig->runtime;
    hr_cuda_device_info info = {.n_sms = 1};
    size_t weights = aligned(rig->plan->weights_nbytes) + 256;
    for (uint32_t t = 0; t < schema->n_tables; t++)
        weights += aligned((size_t)schema->tables[t].rows * schema->tables[t].dim * sizeof(float));
    int code = runtime->set_device(0);
    if (!code) code = runtime->device_info(0, &info);
    if (!code) code = runtime->prepare();
    if (!code) code = runtime->stream_create(&rig->stream);
    if (!code) code = runtime->malloc(&rig->device_weights, weights);
    if (!code) code = runtime->malloc((void **)&rig->device_memory, rig->nbytes);
    if (!code) code = upload_tables(rig);
    rig->kind = hr_cuda_kind_of(&info);
    return code ? fail(rig, code, "preparing a device", err) : HR_OK;
}

/* Leaves out buckets that no batch needs: comparing their memory takes minutes. Places are linear in the rows
 * of the largest. */
static void shrink(hr_cuda_plan *plan, uint32_t most_rows) {
    for (; plan->n_buckets > 1 && plan->buckets[plan->n_buckets - 2] >= most_rows; plan->n_buckets--) {
        for (uint32_t i = 0; i < plan->n_buffers; i++) plan->buffers[i].offset /= 2;
        plan->buffers_nbytes /= 2;
    }
}

hr_status hr_cuda_rig_create(const hr_cuda_runtime *runtime, const hr_plan *plan, hr_precision precision,
                             uint32_t most_rows, hr_cuda_rig **rig, hr_error *err) {
    hr_cuda_rig *made = calloc(1, sizeof *made);
    *rig = NULL;
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    made->runtime = runtime;
    hr_status status = hr_cuda_plan_create(plan, precision, &made->plan, err);
    if (status == HR_OK) {
        shrink(made->plan, most_rows);
        made->image = hr_cuda_image_layout(made->plan);
        made->nbytes = memory_nbytes(made);
        made->host_memory = aligned_alloc(256, aligned(made->nbytes));
        if (made->host_memory == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    }
    if (status == HR_OK) status = open_device(made, err);
    if (status != HR_OK) {
        hr_cuda_rig_destroy(made);
        return status;
    }
    place(made, made->host_memory, &made->host);
    place(made, made->device_memory, &made->device);
    *rig = made;
    return HR_OK;
}

void hr_cuda_rig_destroy(hr_cuda_rig *rig) {
    if (rig == NULL) return;
    if (rig->stream != NULL) rig->runtime->stream_destroy(rig->stream);
    if (rig->device_memory != NULL) rig->runtime->free(rig->device_memory);
    if (rig->device_weights != NULL) rig->runtime->free(rig->device_weights);
    hr_cuda_plan_destroy(rig->plan);
    free((void *)rig->device.tables);
    free(rig->host_memory);
    free(rig);
}

hr_status hr_cuda_rig_stage(hr_cuda_rig *rig, const hr_slice *slices, uint32_t n_rows, hr_error *err) {
    hr_cuda_cursor cursor = {.slices = slices};
    memset(rig->host_memory, 0, rig->nbytes);
    memset(rig->host_memory, 0xA5, HR_CUDA_GUARD);
    memset(rig->host_memory + rig->nbytes - HR_CUDA_GUARD, 0xA5, HR_CUDA_GUARD);
    hr_cuda_stage_rows(rig->plan->plan, &cursor, n_rows, rig->host.staging);
    rig->n_rows = n_rows;
    rig->bucket = rig->plan->buckets[hr_cuda_plan_bucket(rig->plan, n_rows)];
    /* The device's image for the copy, then the host's own. */
    hr_cuda_image_fill(rig->plan, &rig->image, &rig->device, rig->host.image);
    int code = rig->runtime->copy_in(rig->device_memory, rig->host_memory, rig->nbytes, rig->stream);
    if (code == 0) code = rig->runtime->stream_wait(rig->stream);
    hr_cuda_image_fill(rig->plan, &rig->image, &rig->host, rig->host.image);
    return code ? fail(rig, code, "copying a batch in", err) : HR_OK;
}

/* Stages [first, end), over and over. */
static hr_status run_stages(hr_cuda_rig *rig, uint32_t first, uint32_t end, uint32_t repeats, uint64_t *ns,
                            hr_error *err) {
    const hr_cuda_runtime *runtime = rig->runtime;
    void *graph = NULL;
    int code = runtime->capture_begin(rig->stream);
    for (uint32_t i = 0; code == 0 && i < repeats * (end - first); i++) {
        hr_cuda_launch launch = hr_cuda_stage_launch(rig->plan, &rig->image, &rig->device,
                                                     first + i % (end - first), rig->bucket, rig->kind);
        code = runtime->launch(&launch, rig->stream);
    }
    int ended = runtime->capture_end(rig->stream, &graph);
    if (code == 0) code = ended;
    if (code == 0 && repeats > 1) code = runtime->graph_launch(graph, rig->stream); /* the first is slower */
    if (code == 0) code = runtime->stream_wait(rig->stream);
    uint64_t start = hr_clock_ns();
    if (code == 0) code = runtime->graph_launch(graph, rig->stream);
    if (code == 0) code = runtime->stream_wait(rig->stream);
    *ns = hr_clock_ns() - start;
    if (graph != NULL) runtime->graph_destroy(graph);
    return code ? fail(rig, code, "running a stage", err) : HR_OK;
}

hr_status hr_cuda_rig_run(hr_cuda_rig *rig, uint32_t s, uint32_t repeats, uint64_t *ns, hr_error *err) {
    return run_stages(rig, s, s + 1, repeats, ns, err);
}

hr_status hr_cuda_rig_run_all(hr_cuda_rig *rig, uint32_t repeats, uint64_t *ns, hr_error *err) {
    return run_stages(rig, 0, rig->plan->n_stages, repeats, ns, err);
}

hr_status hr_cuda_rig_fetch(hr_cuda_rig *rig, hr_error *err) {
    int code = rig->runtime->copy_out(rig->host_memory, rig->device_memory, rig->nbytes, rig->stream);
    if (code == 0) code = rig->runtime->stream_wait(rig->stream);
    hr_cuda_image_fill(rig->plan, &rig->image, &rig->host, rig->host.image);
    return code ? fail(rig, code, "copying the buffers out", err) : HR_OK;
}

void hr_cuda_rig_emulate(hr_cuda_rig *rig, uint32_t s) {
    hr_cuda_launch launch =
        hr_cuda_stage_launch(rig->plan, &rig->image, &rig->host, s, rig->bucket, rig->kind);
    hr_cuda_emulate(&launch);
}

bool hr_cuda_rig_guards_intact(const hr_cuda_rig *rig) {
    const uint8_t *end = rig->host_memory + rig->nbytes - HR_CUDA_GUARD;
    for (size_t i = 0; i < HR_CUDA_GUARD; i++) {
        if (rig->host_memory[i] != 0xA5 || end[i] != 0xA5) return false;
    }
    return true;
}
