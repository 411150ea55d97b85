/* See cuda_check.h. */
#include "tests/kernels/cuda_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cuda/cuda_engine.h"
#include "tests/kernels/cuda_rig.h"
#include "tests/kernels/random_plan.h"

static const uint32_t SIZES[] = {1, 2, 31, 32, 33, 127, 1000};
static const uint32_t SMALL_SIZES[] = {1, 33};

/* ---- Stage by stage ---- */

/* A matrix as buffers of the plan hold it: the numbers at `at` in a worker's memory and, where they are two
 * bf16 parts, what those at `low` add (else SIZE_MAX). */
typedef struct matrix {
    uint32_t rows, width, ld;
    bool is_bf16;
    size_t at, low;
} matrix;

static float element(const matrix *m, const uint8_t *memory, uint32_t row, uint32_t column) {
    float value;
    size_t at = m->is_bf16 ? hr_cuda_panel_at(m->ld, row, column) : (size_t)row * m->ld + column;
    if (!m->is_bf16) {
        memcpy(&value, memory + at * 4, sizeof value);
        return value;
    }
    uint16_t half;
    memcpy(&half, memory + at * 2, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* sum (a - b)^2 / sum b^2 over the elements; infinite where either holds what is no number, also where both
 * do. */
static double distance(const matrix *m, const uint8_t *found, const uint8_t *want) {
    double difference = 0, norm = 0;
    for (uint32_t r = 0; r < m->rows; r++) {
        for (uint32_t c = 0; c < m->width; c++) {
            double x = element(m, found + m->at, r, c), y = element(m, want + m->at, r, c);
            if (m->low != SIZE_MAX) {
                x += element(m, found + m->low, r, c);
                y += element(m, want + m->low, r, c);
            }
            difference += (x - y) * (x - y);
            norm += y * y;
        }
    }
    if (!isfinite(difference) || !isfinite(norm)) return INFINITY;
    return norm > 0 ? difference / norm : difference > 0 ? INFINITY : 0;
}

static bool holds_value(const hr_cuda_plan *plan, uint32_t value, uint32_t buffer) {
    const hr_cuda_value *v = &plan->values[value];
    return buffer == v->f32 || buffer == v->operand || buffer == v->low;
}

static bool step_writes(const hr_cuda_plan *plan, const hr_cuda_step *step, uint32_t buffer) {
    uint32_t i = step->index;
    switch (step->kind) {
    case HR_CUDA_GATHER:
        return holds_value(plan, HR_CUDA_VALUE_SHARED, buffer) ||
               holds_value(plan, HR_CUDA_VALUE_ITEMS, buffer);
    case HR_CUDA_PRODUCTS:
    case HR_CUDA_FEATURE_GATES: return buffer == plan->products[i].y;
    case HR_CUDA_NORMS: return buffer == plan->norms[i].y;
    case HR_CUDA_MIXES: return holds_value(plan, plan->mixes[i].value, buffer);
    case HR_CUDA_TOWERS: return buffer == plan->towers[i].hidden[0] || buffer == plan->towers[i].hidden[1];
    }
    return false;
}

/* Whether stage s writes to the buffer; no other stage does. */
static bool writes(const hr_cuda_plan *plan, uint32_t s, uint32_t buffer) {
    const hr_cuda_stage *stage = &plan->stages[s];
    for (uint32_t i = stage->first; i < stage->first + stage->count; i++) {
        if (step_writes(plan, &plan->steps[i], buffer)) return true;
    }
    return false;
}

static uint32_t hidden_columns(const hr_cuda_plan *plan, const hr_cuda_plan_tower *tower, uint32_t which) {
    uint32_t widest = 0;
    for (uint32_t i = which; i + 2 < tower->n_layers; i += 2) {
        uint32_t width = hr_cuda_padded(plan->tower_layers[tower->first_layer + i].n);
        if (width > widest) widest = width;
    }
    return widest;
}

/* The columns that stage s writes of a buffer of its own: a tower's two are of one width, that of the widest
 * hidden layer, which may leave a part of the other as it was. */
static uint32_t written_columns(const hr_cuda_plan *plan, uint32_t s, uint32_t buffer) {
    const hr_cuda_stage *stage = &plan->stages[s];
    for (uint32_t i = stage->first; stage->kind == HR_CUDA_TOWERS && i < stage->first + stage->count; i++) {
        const hr_cuda_plan_tower *tower = &plan->towers[plan->steps[i].index];
        for (uint32_t which = 0; which < 2; which++)
            if (tower->hidden[which] == buffer) return hidden_columns(plan, tower, which);
    }
    return plan->buffers[buffer].width;
}

/* Takes over the bucket's rows of a buffer. */
static void take_rows(const hr_cuda_rig *rig, const hr_cuda_buffer *b, const uint8_t *found, uint8_t *want) {
    size_t panel = (size_t)hr_cuda_plan_panel(rig->plan) * 2;
    if (!b->is_bf16) memcpy(want, found, hr_cuda_buffer_nbytes(b, rig->bucket));
    for (uint32_t p = 0; b->is_bf16 && p < b->width / HR_CUDA_PAD; p++)
        memcpy(want + p * panel, found + p * panel, (size_t)rig->bucket * HR_CUDA_PAD * 2);
}

/* Whether all but what stage s may write, the bucket's rows past the batch's included, is as it was. Takes
 * over to `want` what it may write. */
static bool others_intact(const hr_cuda_rig *rig, uint32_t s, const uint8_t *found, uint8_t *want) {
    const hr_cuda_plan *plan = rig->plan;
    size_t buffers = (size_t)(rig->host.buffers - rig->host_memory),
           logits = (size_t)((const uint8_t *)rig->host.logits - rig->host_memory),
           image = (size_t)(rig->host.image - rig->host_memory), end = rig->nbytes - HR_CUDA_GUARD;
    for (uint32_t i = 0; i < plan->n_buffers; i++) {
        size_t at = buffers + plan->buffers[i].offset;
        if (writes(plan, s, i)) take_rows(rig, &plan->buffers[i], found + at, want + at);
    }
    if (plan->stages[s].kind == HR_CUDA_TOWERS)
        memcpy(want + logits, found + logits, (size_t)rig->bucket * plan->plan->n_tasks * sizeof(float));
    return memcmp(found, want, image) == 0 && memcmp(found + end, want + end, HR_CUDA_GUARD) == 0;
}

/* The buffer of the operands whose lack this one holds, or HR_CUDA_NONE: what is lacking is judged together
 * with them, as it changes wholly where they are rounded to the other neighbour. */
static uint32_t high_of(const hr_cuda_plan *plan, uint32_t buffer) {
    for (uint32_t v = 0; v < plan->n_values; v++) {
        if (plan->values[v].low == buffer) return plan->values[v].operand;
    }
    return HR_CUDA_NONE;
}

/* The worst distance among what stage s has written: found on the device, want by the emulator. */
static double worst_of_stage(const hr_cuda_rig *rig, uint32_t s, const uint8_t *found) {
    const hr_cuda_plan *plan = rig->plan;
    size_t buffers = (size_t)(rig->host.buffers - rig->host_memory);
    double worst = 0;
    for (uint32_t i = 0; i < plan->n_buffers; i++) {
        const hr_cuda_buffer *b = &plan->buffers[i];
        if (!writes(plan, s, i)) continue;
        bool shared = i == plan->values[HR_CUDA_VALUE_SHARED].f32;
        uint32_t high = high_of(plan, i);
        const matrix written = {.rows = shared ? rig->host.staging[1] : rig->n_rows, /* header.n_slices */
                                .width = written_columns(plan, s, i),
                                .ld = b->is_bf16 ? hr_cuda_plan_panel(plan) : b->width,
                                .is_bf16 = b->is_bf16,
                                .at = buffers + (high == HR_CUDA_NONE ? b : &plan->buffers[high])->offset,
                                .low = high == HR_CUDA_NONE ? SIZE_MAX : buffers + b->offset};
        double d = distance(&written, found, rig->host_memory);
        if (d > worst) worst = d;
    }
    if (plan->stages[s].kind != HR_CUDA_TOWERS) return worst;
    const matrix logits = {.rows = rig->n_rows,
                           .width = plan->plan->n_tasks,
                           .ld = plan->plan->n_tasks,
                           .at = (size_t)((const uint8_t *)rig->host.logits - rig->host_memory),
                           .low = SIZE_MAX};
    double d = distance(&logits, found, rig->host_memory);
    return d > worst ? d : worst;
}

/* One stage: the emulator starts from what the device's memory held before it. */
static hr_status check_stage(hr_cuda_rig *rig, uint32_t s, uint8_t *found, double *worst, hr_error *err) {
    uint64_t ns;
    hr_status status = hr_cuda_rig_fetch(rig, err);
    if (status == HR_OK) status = hr_cuda_rig_run(rig, s, 1, &ns, err);
    if (status != HR_OK) return status;
    hr_cuda_rig_emulate(rig, s);
    uint8_t *want = rig->host_memory;
    int code = rig->runtime->copy_out(found, rig->device_memory, rig->nbytes, rig->stream);
    if (code == 0) code = rig->runtime->stream_wait(rig->stream);
    if (code) return hr_error_set(err, HR_DEVICE, "cuda: %s", rig->runtime->error_text(code));
    *worst = worst_of_stage(rig, s, found);
    if (!others_intact(rig, s, found, want)) *worst = INFINITY;
    return HR_OK;
}

static int check_rig(hr_cuda_rig *rig, const char *name, const hr_random_batch *batch, FILE *out) {
    static const char *const kinds[] = {"gather", "products", "feature gates", "norms", "mixes", "towers"};
    double bound = rig->plan->is_bf16 ? 1e-4 : 1e-10;
    int n_failed = 0;
    hr_error err;
    uint8_t *found = malloc(rig->nbytes);
    hr_status status = found ? hr_cuda_rig_stage(rig, batch->slices, (uint32_t)batch->n_rows, &err)
                             : hr_error_set(&err, HR_OUT_OF_MEMORY, "out of memory");
    for (uint32_t s = 0; status == HR_OK && s < rig->plan->n_stages; s++) {
        double worst = 0;
        status = check_stage(rig, s, found, &worst, &err);
        if (status != HR_OK || worst <= bound) continue;
        fprintf(out, "FAILED %s %s, %zu rows: stage %u (%s) is %.3g from its values, bound %.0e\n", name,
                rig->plan->is_bf16 ? "bf16" : "f32", batch->n_rows, s, kinds[rig->plan->stages[s].kind],
                worst, bound);
        n_failed++;
    }
    free(found);
    if (status == HR_OK) return n_failed;
    fprintf(out, "FAILED %s: %s\n", name, err.message);
    return n_failed + 1;
}

static int check_plan(const hr_cuda_runtime *runtime, const hr_plan *plan, const char *name,
                      hr_precision precision, const uint32_t *sizes, size_t n_sizes, FILE *out) {
    int n_failed = 0;
    hr_error err;
    for (; precision <= HR_PRECISION_BF16; precision++) {
        hr_cuda_rig *rig;
        if (hr_cuda_rig_create(runtime, plan, precision, sizes[n_sizes - 1], &rig, &err) != HR_OK) {
            fprintf(out, "FAILED %s: %s\n", name, err.message);
            return n_failed + 1;
        }
        for (size_t i = 0; i < n_sizes; i++) {
            const uint32_t rows[] = {sizes[i] / 3, 0, sizes[i] - sizes[i] / 3};
            hr_random_batch *batch = hr_random_batch_create(plan, rows, 3, i);
            n_failed += check_rig(rig, name, batch, out);
            hr_random_batch_destroy(batch);
        }
        hr_cuda_rig_destroy(rig);
    }
    return n_failed;
}

int hr_cuda_check_plan_stages(const hr_cuda_runtime *runtime, const hr_plan *plan, const char *name,
                              FILE *out) {
    static const uint32_t sizes[] = {1, 33};
    int n_failed =
        check_plan(runtime, plan, name, HR_PRECISION_F32, sizes, sizeof sizes / sizeof sizes[0], out);
    fprintf(out, "%s, stage by stage: %d failed\n", name, n_failed);
    return n_failed;
}

int hr_cuda_check_stages(const hr_cuda_runtime *runtime, hr_cuda_scope scope, FILE *out) {
    int n_failed = 0;
    uint32_t number = 0;
    uint64_t n_seeds = scope.small ? 2 : 4;
    const uint32_t *sizes = scope.small ? SMALL_SIZES : SIZES;
    size_t n_sizes =
        scope.small ? sizeof SMALL_SIZES / sizeof SMALL_SIZES[0] : sizeof SIZES / sizeof SIZES[0];
    for (hr_random_kind kind = 0; kind < HR_RANDOM_KIND_COUNT; kind++) {
        for (uint64_t seed = 0; seed < n_seeds; seed++) {
            if (number++ % scope.of != scope.index) continue;
            hr_random_plan *made = hr_random_plan_create(kind, seed);
            n_failed +=
                check_plan(runtime, &made->plan, hr_random_kind_name(kind), scope.first, sizes, n_sizes, out);
            hr_random_plan_destroy(made);
        }
    }
    fprintf(out, "launches of random networks, stage by stage: %d failed\n", n_failed);
    return n_failed;
}

/* ---- Whole networks ---- */

typedef struct pair {
    const char *name;
    uint64_t seed;
    hr_cuda_engine *engine;
    hr_cuda_worker *worker;
    FILE *out;
    int n_failed;
} pair;

static void run(pair *p, const hr_slice *slices, size_t n_slices) {
    hr_error err;
    if (hr_cuda_forward(p->worker, slices, n_slices, &err) == HR_OK) return;
    fprintf(p->out, "FAILED %s: %s\n", p->name, err.message);
    p->n_failed++;
}

static void check_logits(pair *p, const hr_plan *plan, hr_precision precision, const hr_random_batch *found,
                         const hr_random_batch *want) {
    double bound = precision == HR_PRECISION_F32 ? 1e-4 : 5e-2;
    /* Layer norm over a few nearly equal values magnifies bf16's rounding: see test_onednn.c. */
    size_t allowed =
        precision == HR_PRECISION_BF16 && plan->norm == HR_NORM_LAYER ? 1 + found->n_logits / 200 : 0;
    size_t outside = 0, unset = 0;
    for (size_t i = 0; i < found->n_logits; i++) {
        double z = want->logits[i], x = found->logits[i];
        unset += !isfinite(x) || !isfinite(z);
        outside += !(fabs(x - z) <= bound * fmax(1.0, fabs(z)));
    }
    if (outside <= allowed && unset == 0 && hr_random_batch_guards_intact(found)) return;
    fprintf(p->out, "FAILED %s %s, seed %d: %zu of %zu logits out of bounds, %zu no numbers\n", p->name,
            hr_precision_name(precision), (int)p->seed, outside, found->n_logits, unset);
    p->n_failed++;
}

/* The batch's rows again, each a slice of its own, from row `first` on in steps, n of them (the batch's over
 * and over): other mates, places, buckets and tile sizes. Their bits must be those of `batch`. */
static void check_bits(pair *p, const hr_plan *plan, const hr_random_batch *batch, size_t first, size_t step,
                       uint32_t n) {
    size_t words = hr_row_words(plan->schema, HR_ENTITY_ITEM), row_nbytes = plan->n_tasks * sizeof(float),
           wrong = 0;
    hr_slice *slices = calloc(n, sizeof *slices);
    float *logits = calloc(n, row_nbytes);
    if (slices == NULL || logits == NULL) {
        fprintf(p->out, "FAILED %s: out of memory\n", p->name);
        p->n_failed++;
        n = 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        size_t row = (first + i * step) % batch->n_rows;
        const hr_slice *whole = batch->slices;
        for (; row >= whole->n_rows; whole++) row -= whole->n_rows;
        slices[i] = *whole;
        slices[i].items = (const uint32_t *)whole->items + row * words;
        slices[i].n_rows = 1;
        slices[i].logits = logits + (size_t)i * plan->n_tasks;
    }
    if (n > 0) run(p, slices, n);
    for (uint32_t i = 0; i < n; i++) {
        size_t row = (first + i * step) % batch->n_rows;
        wrong += memcmp(slices[i].logits, batch->logits + row * plan->n_tasks, row_nbytes) != 0;
    }
    free(slices);
    free(logits);
    if (wrong == 0) return;
    fprintf(p->out, "FAILED %s, seed %d: %zu of %u rows have other bits than in a batch of %zu\n", p->name,
            (int)p->seed, wrong, n, batch->n_rows);
    p->n_failed++;
}

static void check_network(pair *p, const hr_cuda_runtime *runtime, const hr_plan *plan,
                          hr_precision precision, const hr_random_batch *batch, const hr_random_batch *want,
                          bool small) {
    static const uint32_t sizes[] = {1, 2, 31, 64, 65, 128, 200, 1000, 8192};
    hr_error err;
    hr_status status = hr_cuda_engine_create(runtime, plan, precision, NULL, &p->engine, &err);
    if (status == HR_OK) status = hr_cuda_worker_create(p->engine, &p->worker, &err);
    if (status == HR_OK) {
        run(p, batch->slices, batch->n_slices);
        check_logits(p, plan, precision, batch, want);
        for (size_t i = 0; i < (small ? 5 : sizeof sizes / sizeof sizes[0]); i++) {
            check_bits(p, plan, batch, 7, 1, sizes[i]);
            check_bits(p, plan, batch, 3, 77, sizes[i]);
        }
    } else {
        fprintf(p->out, "FAILED %s: %s\n", p->name, err.message);
        p->n_failed++;
    }
    hr_cuda_worker_destroy(p->worker);
    hr_cuda_engine_destroy(p->engine);
    p->worker = NULL, p->engine = NULL;
}

static int run_reference(const hr_plan *plan, const hr_random_batch *batch) {
    hr_engine *engine = NULL;
    hr_worker *worker = NULL;
    hr_status status = hr_engine_create("reference", HR_PRECISION_F32, plan, &engine, NULL);
    if (status == HR_OK) status = hr_worker_create(engine, &worker, NULL);
    if (status == HR_OK) status = hr_forward(worker, batch->slices, batch->n_slices, NULL);
    hr_worker_destroy(worker);
    hr_engine_destroy(engine);
    return status != HR_OK;
}

int hr_cuda_check_networks(const hr_cuda_runtime *runtime, hr_cuda_scope scope, FILE *out) {
    const uint32_t rows[] = {60, 0, 140};
    uint32_t number = 0;
    pair p = {.out = out};
    for (hr_random_kind kind = 0; kind < HR_RANDOM_KIND_COUNT; kind++) {
        for (p.seed = 0; p.seed < (scope.small ? 1 : 4); p.seed++) {
            if (number++ % scope.of != scope.index) continue;
            p.name = hr_random_kind_name(kind);
            hr_random_plan *made = hr_random_plan_create(kind, p.seed);
            hr_random_batch *want = hr_random_batch_create(&made->plan, rows, 3, 5);
            p.n_failed += run_reference(&made->plan, want);
            for (hr_precision precision = scope.first; precision <= HR_PRECISION_BF16; precision++) {
                hr_random_batch *batch = hr_random_batch_create(&made->plan, rows, 3, 5);
                check_network(&p, runtime, &made->plan, precision, batch, want, scope.small);
                hr_random_batch_destroy(batch);
            }
            hr_random_batch_destroy(want);
            hr_random_plan_destroy(made);
        }
    }
    fprintf(out, "whole networks against the reference, and their bits in other batches: %d failed\n",
            p.n_failed);
    return p.n_failed;
}
