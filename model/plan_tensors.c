/* Fills a plan with its tensors: see plan_tensors.h.
 *
 * The plan is walked twice by the same code. The first walk looks every tensor up, compares its shape with
 * the plan's and counts values; a tensor of the file that it did not ask for is one too many. The second walk
 * takes the tensors' places in one allocation and reads them. A walk stops at its first error: loader.status.
 */
#include "model/plan_tensors.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/memory.h"

enum { ALIGNMENT_VALUES = 16 /* 64 bytes */ };

/* What a network's parameter takes beyond its f32 value at the most, while a backend that packs the weights
 * holds them staged and packed. */
enum { PACKING_NBYTES = 2 * sizeof(float) };

typedef enum tensor_use { NETWORK, EMBEDDING, RUNNING_STATISTIC } tensor_use;

typedef struct loader {
    const hr_safetensors *file;
    hr_config_norm norm;
    double norm_eps;
    const atomic_bool *cancelled; /* or NULL */
    bool *used;                   /* (tensors of the file) */
    float *values;                /* NULL in the first walk */
    size_t n_values;              /* taken so far */
    uint64_t n_by_use[3];         /* values of each tensor_use */
    hr_status status;             /* the first error; every step after it does nothing */
    hr_error *err;
} loader;

/* A shape of up to three sizes; the rest are 0. */
typedef struct shape {
    uint64_t sizes[3];
} shape;

static uint32_t shape_dims(const shape *s) {
    uint32_t n = 0;
    while (n < 3 && s->sizes[n] != 0) n++;
    return n;
}

/* ---- One tensor ---- */

/* The tensor of that name with exactly that shape, or NULL with l->status set. */
static const hr_tensor *find_tensor(loader *l, shape expected, const char *name) {
    uint32_t n_dims = shape_dims(&expected);
    hr_shape_text expected_text = hr_shape_show(expected.sizes, n_dims);
    size_t index;
    const hr_tensor *tensor = hr_safetensors_find(l->file, name, &index);
    if (tensor == NULL) {
        l->status = hr_error_set(l->err, HR_INVALID_ARGUMENT, "tensor %.160s: expected %s, found none", name,
                                 expected_text.text);
        return NULL;
    }
    if (tensor->n_dims != n_dims ||
        memcmp(tensor->shape, expected.sizes, n_dims * sizeof tensor->shape[0]) != 0) {
        l->status = hr_error_set(l->err, HR_INVALID_ARGUMENT, "tensor %.100s: expected shape %s, found %s",
                                 name, expected_text.text, hr_shape_show(tensor->shape, tensor->n_dims).text);
        return NULL;
    }
    l->used[index] = true;
    return tensor;
}

/* The next tensor, named by the format: NULL in the first walk and after an error, else its values. */
static float *load(loader *l, tensor_use use, shape expected, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static float *load(loader *l, tensor_use use, shape expected, const char *format, ...) {
    if (l->status != HR_OK) return NULL;
    char *name;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&name, format, args);
    va_end(args);
    if (n < 0) {
        l->status = hr_error_set(l->err, HR_OUT_OF_MEMORY, "out of memory");
        return NULL;
    }
    const hr_tensor *tensor = find_tensor(l, expected, name);
    free(name);
    if (tensor == NULL) return NULL;
    float *values = l->values == NULL ? NULL : l->values + l->n_values;
    l->n_values += (tensor->n_values + ALIGNMENT_VALUES - 1) / ALIGNMENT_VALUES * ALIGNMENT_VALUES;
    l->n_by_use[use] += tensor->n_values;
    if (values == NULL) return NULL;
    l->status = l->cancelled != NULL && atomic_load(l->cancelled)
                    ? hr_error_set(l->err, HR_CANCELLED, "cancelled")
                    : hr_safetensors_read(l->file, tensor, values, l->err);
    return values;
}

/* ---- Experts and their norm ---- */

/* One norm's four tensors, (E, out) each; layer norm has the first two. */
typedef struct norm_tensors {
    const float *weight, *bias, *running_mean, *running_var;
} norm_tensors;

/* Batch norm in its inference form, folded into a Linear of n = E * out outputs:
 *   s = weight / √(running_var + eps),  W' = s W,  b' = (b − running_mean) s + bias.  */
static void fold_batch_norm(loader *l, const char *name, const norm_tensors *norm, size_t n, size_t in,
                            float *weight, float *bias) {
    for (size_t o = 0; o < n; o++) {
        double variance = (double)norm->running_var[o] + l->norm_eps;
        if (norm->running_var[o] < 0.0F || !(variance > 0.0)) {
            l->status = hr_error_set(l->err, HR_INVALID_ARGUMENT,
                                     "tensor %.140s.norm.running_var: expected values >= 0, and > 0 with "
                                     "norm_eps added, found %g at index %zu",
                                     name, (double)norm->running_var[o], o);
            return;
        }
        double scale = norm->weight[o] / sqrt(variance);
        bool finite = true;
        for (size_t i = 0; i < in; i++) {
            weight[o * in + i] = (float)(scale * weight[o * in + i]);
            finite = finite && isfinite(weight[o * in + i]);
        }
        bias[o] = (float)(((double)bias[o] - norm->running_mean[o]) * scale + norm->bias[o]);
        if (!finite || !isfinite(bias[o])) {
            l->status = hr_error_set(
                l->err, HR_INVALID_ARGUMENT,
                "tensor %.140s.weight: expected values that stay finite with the norm folded in, "
                "found an overflow at output %zu",
                name, o);
            return;
        }
    }
}

static void load_expert_layer(loader *l, const char *layer_name, const hr_unit *unit, uint32_t i,
                              hr_expert_layer *layer) {
    uint64_t experts = unit->n_experts;
    shape per_output = {{experts, layer->out}};
    char name[HR_ERROR_MESSAGE_SIZE];
    snprintf(name, sizeof name, "%s.%s.expert.%u", layer_name, unit->name, (unsigned)i);
#define NORM_TENSOR(use, key)                                                                                \
    load(l, use, per_output, "%s.%s.expert.%u.norm." key, layer_name, unit->name, (unsigned)i)
    float *weight = load(l, NETWORK, (shape){{experts, layer->out, layer->in}}, "%s.%s.expert.%u.weight",
                         layer_name, unit->name, (unsigned)i);
    float *bias = load(l, NETWORK, per_output, "%s.%s.expert.%u.bias", layer_name, unit->name, (unsigned)i);
    norm_tensors norm = {0};
    if (l->norm != HR_CONFIG_NORM_NONE) {
        norm.weight = NORM_TENSOR(NETWORK, "weight");
        norm.bias = NORM_TENSOR(NETWORK, "bias");
    }
    if (l->norm == HR_CONFIG_NORM_BATCH) {
        norm.running_mean = NORM_TENSOR(RUNNING_STATISTIC, "running_mean");
        norm.running_var = NORM_TENSOR(RUNNING_STATISTIC, "running_var");
    }
#undef NORM_TENSOR
    if (l->values == NULL || l->status != HR_OK) return;
    if (l->norm == HR_CONFIG_NORM_BATCH) {
        fold_batch_norm(l, name, &norm, experts * layer->out, layer->in, weight, bias);
    } else {
        layer->norm_weight = norm.weight;
        layer->norm_bias = norm.bias;
    }
    layer->weight = weight;
    layer->bias = bias;
}

/* ---- Units, tasks, tables ---- */

static void load_feature_gate(loader *l, const char *layer_name, const hr_unit *unit, hr_feature_gate *gate) {
    uint64_t in = unit->input.width;
    gate->down = load(l, NETWORK, (shape){{gate->loras, gate->rank, in}}, "%s.%s.feature_gate.down",
                      layer_name, unit->name);
    gate->up = load(l, NETWORK, (shape){{gate->loras, in, gate->rank}}, "%s.%s.feature_gate.up", layer_name,
                    unit->name);
    gate->mix_weight =
        load(l, NETWORK, (shape){{gate->loras, in}}, "%s.%s.feature_gate.mix.weight", layer_name, unit->name);
    gate->mix_bias =
        load(l, NETWORK, (shape){{gate->loras}}, "%s.%s.feature_gate.mix.bias", layer_name, unit->name);
}

static void load_unit(loader *l, const char *layer_name, hr_unit *unit) {
    uint64_t gate_in = unit->gate_input.width;
    for (uint32_t i = 0; i < unit->n_expert_layers; i++) {
        /* The plan is still being built: its parts are ours to write. */
        load_expert_layer(l, layer_name, unit, i, (hr_expert_layer *)&unit->expert_layers[i]);
    }
    if (unit->feature_gate.loras > 0) load_feature_gate(l, layer_name, unit, &unit->feature_gate);
    if (unit->n_mix > 0 && unit->n_mixed > 1) {
        unit->gate_weight =
            load(l, NETWORK, (shape){{unit->n_mixed, gate_in}}, "%s.%s.gate.weight", layer_name, unit->name);
        unit->gate_bias =
            load(l, NETWORK, (shape){{unit->n_mixed}}, "%s.%s.gate.bias", layer_name, unit->name);
    }
    if (unit->self_gate) {
        unit->self_gate_weight = load(l, NETWORK, (shape){{unit->n_experts, gate_in}},
                                      "%s.%s.self_gate.weight", layer_name, unit->name);
        unit->self_gate_bias =
            load(l, NETWORK, (shape){{unit->n_experts}}, "%s.%s.self_gate.bias", layer_name, unit->name);
    }
}

static void load_task(loader *l, const hr_task *task) {
    for (uint32_t i = 0; i < task->n_tower; i++) {
        hr_linear *linear = (hr_linear *)&task->tower[i];
        linear->weight = load(l, NETWORK, (shape){{linear->out, linear->in}}, "tower.%s.%u.weight",
                              task->name, (unsigned)i);
        linear->bias = load(l, NETWORK, (shape){{linear->out}}, "tower.%s.%u.bias", task->name, (unsigned)i);
    }
}

/* Every tensor of the plan, in the order of MODEL.md's table. */
static void walk(loader *l, hr_plan *plan, const float **embeddings) {
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        const hr_layer *layer = &plan->layers[y];
        for (uint32_t u = 0; u < layer->n_units; u++) load_unit(l, layer->name, (hr_unit *)&layer->units[u]);
    }
    for (uint32_t t = 0; t < plan->n_tasks; t++) load_task(l, &plan->tasks[t]);
    for (uint32_t t = 0; t < plan->schema->n_tables; t++) {
        const hr_table *table = &plan->schema->tables[t];
        embeddings[t] =
            load(l, EMBEDDING, (shape){{table->rows, table->dim}}, "embedding.%s.weight", table->name);
    }
}

static void check_surplus(loader *l) {
    for (size_t i = 0; l->status == HR_OK && i < hr_safetensors_count(l->file); i++) {
        if (l->used[i]) continue;
        const hr_tensor *tensor = hr_safetensors_at(l->file, i);
        l->status = hr_error_set(
            l->err, HR_INVALID_ARGUMENT, "tensor %s: expected none of that name by config.json, found %s %s",
            hr_quote(tensor->name, strlen(tensor->name)).text, hr_dtype_name(tensor->dtype),
            hr_shape_show(tensor->shape, tensor->n_dims).text);
    }
}

static hr_status allocate_values(loader *l, hr_plan_tensors *tensors) {
    uint64_t nbytes, packing, needed;
    if (__builtin_mul_overflow(l->n_values, sizeof *tensors->values, &nbytes) ||
        __builtin_mul_overflow(l->n_by_use[NETWORK], (uint64_t)PACKING_NBYTES, &packing) ||
        __builtin_add_overflow(nbytes, packing, &needed))
        needed = UINT64_MAX;
    uint64_t available = hr_memory_available();
    if (needed == UINT64_MAX || needed > available)
        return hr_error_set(l->err, HR_OUT_OF_MEMORY,
                            "the tensors and their packed form need %llu bytes of memory, %llu are available",
                            (unsigned long long)needed, (unsigned long long)available);
    tensors->values = aligned_alloc(ALIGNMENT_VALUES * sizeof *tensors->values, nbytes);
    if (tensors->values == NULL) {
        return hr_error_set(l->err, HR_OUT_OF_MEMORY, "no memory for %llu bytes of tensors",
                            (unsigned long long)nbytes);
    }
    tensors->nbytes = nbytes;
    l->values = tensors->values;
    l->n_values = 0;
    return HR_OK;
}

hr_status hr_plan_tensors_load(hr_plan *plan, hr_config_norm norm, const hr_safetensors *file,
                               const atomic_bool *cancelled, hr_arena *arena, hr_plan_tensors *tensors,
                               hr_error *err) {
    *tensors = (hr_plan_tensors){0};
    const float **embeddings = hr_arena_calloc(arena, plan->schema->n_tables, sizeof *embeddings);
    loader l = {.file = file, .norm = norm, .norm_eps = plan->norm_eps, .cancelled = cancelled, .err = err};
    l.used = calloc(hr_safetensors_count(file) + 1, sizeof *l.used);
    if (embeddings == NULL || l.used == NULL) {
        l.status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
        goto done;
    }
    plan->embeddings = embeddings;
    walk(&l, plan, embeddings);
    check_surplus(&l);
    if (l.status != HR_OK) goto done;
    tensors->network_parameters = l.n_by_use[NETWORK];
    tensors->embedding_parameters = l.n_by_use[EMBEDDING];
    l.status = allocate_values(&l, tensors);
    walk(&l, plan, embeddings);
done:
    free(l.used);
    if (l.status != HR_OK) hr_plan_tensors_clear(tensors);
    return l.status;
}

/* Gives the pages back piece by piece before the whole is freed: to unmap a GB at once holds up every other
 * thread that maps or unmaps memory. */
static void release_pages(const hr_plan_tensors *tensors) {
    enum { PIECE_NBYTES = 4 << 20, PAGE_NBYTES = 64 << 10 /* a multiple of every page size */ };
    uintptr_t begin = ((uintptr_t)tensors->values + PAGE_NBYTES - 1) / PAGE_NBYTES * PAGE_NBYTES;
    uintptr_t end = ((uintptr_t)tensors->values + tensors->nbytes) / PAGE_NBYTES * PAGE_NBYTES;
    for (uintptr_t at = begin; at < end; at += PIECE_NBYTES)
        madvise((void *)at, end - at < PIECE_NBYTES ? end - at : PIECE_NBYTES, MADV_DONTNEED);
}

void hr_plan_tensors_clear(hr_plan_tensors *tensors) {
    if (tensors->values != NULL) release_pages(tensors);
    free(tensors->values);
    *tensors = (hr_plan_tensors){0};
}
