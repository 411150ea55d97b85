/* The oneDNN backend's engine and workers.
 *
 * A batch is cut into blocks of a few fixed numbers of rows, across slices, and the whole network runs on one
 * block before the next: a block's activations stay in L2 while the weights stream past once a block. The
 * sizes are fixed because oneDNN picks its kernels by size, and a row's bits must not depend on the batch
 * (MODEL.md 5): gemm_check.c proves at load that the sizes in use agree. What a batch leaves over is covered
 * by smaller blocks, the last one filled up with rows of zeros. With products of our own (gemm.h) none of
 * this is needed: they take any number of rows, and the last block is as small as what is left. Their blocks
 * are of 132 rows, eleven tiles: v and what is computed of it stay in an L2 of 1 or 2 MiB.
 *
 * Measured on Zen 3 (AVX2, 512 KiB of L2, a busy machine) for a network of 15 MFLOP a row, in items a second:
 * blocks of 16 rows 4,400, of 32 5,100, of 64 5,700, of 128 5,900. The products reach their full speed from 4
 * rows on, and at 128 rows v and the gated input are no longer in L2; but 29 MB of weights pass once a block,
 * and that costs as much as some six rows. The small sizes are there for small batches: a block of one row
 * takes as long as its weights take to arrive.
 *
 * Threads: an engine is immutable and shared; a worker's memory, its bound calls and its oneDNN stream belong
 * to one thread at a time. oneDNN runs on OpenMP, which is kept to the calling thread by
 * omp_set_num_threads(1), a setting of each thread.
 */
#include "kernels/onednn/onednn.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/gather.h"
#include "kernels/onednn/memory.h"
#include "kernels/onednn/program.h"

/* What a block costs besides its rows, in rows: streaming the weights and the calls. */
enum { BLOCK_OVERHEAD_ROWS = 6 };

/* What a worker's buffers may take; a network so wide that they would take more runs in smaller blocks. */
enum { BUFFERS_NBYTES = 256 << 20 };

typedef struct onednn_engine {
    hr_program *program;
    hr_gemm_set *gemms;
    const hr_rows_i *rows;
    hr_precision precision;
    uint32_t max_rows;  /* of a block */
    uint8_t *next_size; /* (max_rows + 1) which size to run next, by rows left */
} onednn_engine;

typedef struct onednn_worker {
    const onednn_engine *engine; /* borrowed */
    dnnl_stream_t stream;        /* of oneDNN's products */
    uint8_t *memory;             /* the program's buffers */
    void *scratchpad;            /* of the call that runs */
    float *logits;               /* (max_rows, T) of the block */
    float **targets;             /* (max_rows) where each row's logits go */
    uint32_t *slice_of;          /* (max_rows) each row's slice, counted within the block */
    hr_mix_term *terms;          /* (max_terms) */
    hr_gemm_call *calls;         /* (n_steps, n_sizes); only GEMM steps have one */
} onednn_worker;

/* ---- Engine ---- */

/* next_size[r]: the first block of the cheapest cover of r rows. Blocks of the largest size come first, so r
 * never exceeds it. */
static void cover_init(onednn_engine *engine) {
    const hr_gemm_set *set = engine->gemms;
    uint32_t cost[HR_GEMM_MAX_ROWS + 1] = {0}; /* by rows left */
    for (uint32_t r = 1; r <= engine->max_rows; r++) {
        cost[r] = UINT32_MAX;
        for (uint32_t s = 0; s < set->n_sizes; s++) {
            uint32_t rest = r > set->sizes[s] ? r - set->sizes[s] : 0;
            uint32_t total = set->sizes[s] + BLOCK_OVERHEAD_ROWS + cost[rest];
            if (total >= cost[r]) continue;
            cost[r] = total;
            engine->next_size[r] = (uint8_t)s;
        }
    }
}

static void engine_destroy(void *context) {
    onednn_engine *engine = context;
    hr_program_destroy(engine->program);
    hr_gemm_set_destroy(engine->gemms);
    free(engine->next_size);
    free(engine);
}

/* The program and its products with operands of that kind; gemms stays NULL where this CPU has none such. */
static hr_status engine_products(onednn_engine *engine, const hr_plan *plan, hr_operand operand,
                                 hr_error *err) {
    hr_status status = hr_program_create(plan, operand, &engine->program, err);
    if (status != HR_OK) return status;
    hr_program_place(engine->program, 1);
    uint32_t max_rows = (uint32_t)(BUFFERS_NBYTES / (engine->program->nbytes + 1));
    return hr_gemm_set_create(engine->program->specs, engine->program->n_specs, max_rows, &engine->gemms,
                              err);
}

static hr_status engine_prepare(onednn_engine *engine, const hr_plan *plan, hr_error *err) {
    hr_operand operand = engine->precision == HR_PRECISION_BF16 ? HR_OPERAND_BF16 : HR_OPERAND_F32;
    hr_status status = engine_products(engine, plan, operand, err);
    if (status == HR_OK && engine->gemms == NULL) {
        /* bf16 is what products may take, not what they must (MODEL.md 5): f32's are as fast here. */
        hr_program_destroy(engine->program);
        engine->program = NULL;
        status = engine_products(engine, plan, HR_OPERAND_F32, err);
    }
    if (status != HR_OK) return status;
    engine->max_rows = engine->gemms->sizes[engine->gemms->n_sizes - 1];
    engine->next_size = calloc(engine->max_rows + 1, sizeof *engine->next_size);
    if (!engine->next_size) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory preparing the network");
    cover_init(engine);
    hr_program_place(engine->program, engine->max_rows);
    return hr_program_pack(engine->program, engine->gemms, err);
}

static hr_status engine_create(const hr_plan *plan, hr_precision precision, const char *devices,
                               void **context, hr_error *err) {
    (void)devices;
    onednn_engine *engine = calloc(1, sizeof *engine);
    if (!engine) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory preparing the network");
    engine->precision = precision;
    engine->rows = hr_rows_select();
    hr_status status = engine_prepare(engine, plan, err);
    if (status != HR_OK) {
        engine_destroy(engine);
        return status;
    }
    *context = engine;
    return HR_OK;
}

static void describe(const void *context, char *text, size_t size) {
    const onednn_engine *engine = context;
    const hr_gemm_set *set = engine->gemms;
    const dnnl_version_t *version = dnnl_version();
    bool without = engine->precision == HR_PRECISION_BF16 && engine->program->operand == HR_OPERAND_F32;
    int at = snprintf(text, size, "onednn %d.%d.%d %s%s, %s, %sblocks of%s", version->major, version->minor,
                      version->patch, hr_precision_name(engine->precision),
                      without ? " (in f32: no faster bf16 products on this CPU)" : "", hr_gemm_isa(),
                      set->own ? "own products, " : "", set->own ? " up to" : "");
    for (uint32_t s = 0; s < set->n_sizes && at > 0 && (size_t)at < size; s++) {
        at += snprintf(text + at, size - (size_t)at, "%s %u", s ? "," : "", set->sizes[s]);
    }
}

/* ---- Worker ---- */

static void worker_destroy(void *context) {
    onednn_worker *worker = context;
    size_t n_calls = (size_t)worker->engine->program->n_steps * worker->engine->gemms->n_sizes;
    for (size_t i = 0; worker->calls && i < n_calls; i++) hr_gemm_call_destroy(&worker->calls[i]);
    if (worker->stream) dnnl_stream_destroy(worker->stream);
    free(worker->calls);
    free(worker->terms);
    free(worker->slice_of);
    free(worker->targets);
    free(worker->logits);
    free(worker->scratchpad);
    hr__pages_free(worker->memory, worker->engine->program->nbytes);
    free(worker);
}

static void *buffer_at(const onednn_worker *worker, uint32_t buffer) {
    return worker->memory + worker->engine->program->buffers[buffer].offset;
}

static hr_status worker_bind(onednn_worker *worker, hr_error *err) {
    const hr_program *program = worker->engine->program;
    const hr_gemm_set *set = worker->engine->gemms;
    hr_gemm_call *first = NULL, *before = NULL;
    for (uint32_t i = 0; i < program->n_steps; i++) {
        const hr_step *step = &program->steps[i];
        if (step->kind != HR_STEP_GEMM) continue;
        const hr_matrix *matrix = &program->matrices[step->gemm.matrix];
        const hr_buffer *y = &program->buffers[step->y];
        size_t part = (size_t)step->gemm.part * y->width * hr_operand_nbytes(y->kind);
        for (uint32_t s = 0; s < set->n_sizes; s++) {
            uint8_t *to = (uint8_t *)buffer_at(worker, step->y) + part * set->sizes[s];
            hr_status status =
                hr_gemm_bind(set, matrix->gemm, s, &matrix->packed, buffer_at(worker, step->x), to,
                             worker->scratchpad, &worker->calls[i * set->n_sizes + s], err);
            if (status != HR_OK) return status;
        }
        if (before) hr_gemm_follow(before, &worker->calls[i * set->n_sizes]);
        before = &worker->calls[i * set->n_sizes];
        if (!first) first = before;
    }
    if (first) hr_gemm_follow(before, first); /* the next block begins anew */
    return HR_OK;
}

static hr_status worker_prepare(onednn_worker *worker, hr_error *err) {
    const onednn_engine *engine = worker->engine;
    const hr_program *program = engine->program;
    omp_set_num_threads(1);
    worker->memory = hr__pages_alloc(program->nbytes);
    worker->scratchpad = hr__lines_alloc(engine->gemms->scratchpad_nbytes);
    worker->logits = calloc((size_t)engine->max_rows * program->plan->n_tasks + 1, sizeof(float));
    worker->targets = calloc(engine->max_rows, sizeof *worker->targets);
    worker->slice_of = calloc(engine->max_rows, sizeof *worker->slice_of);
    worker->terms = calloc(program->max_terms + 1, sizeof *worker->terms);
    worker->calls = calloc((size_t)program->n_steps * engine->gemms->n_sizes + 1, sizeof *worker->calls);
    if (!worker->memory || !worker->scratchpad || !worker->logits || !worker->targets || !worker->slice_of ||
        !worker->terms || !worker->calls) {
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for a worker of %zu bytes",
                            program->nbytes);
    }
    dnnl_status_t dnnl = dnnl_success;
    if (!engine->gemms->own)
        dnnl = dnnl_stream_create(&worker->stream, engine->gemms->engine, dnnl_stream_default_flags);
    if (dnnl != dnnl_success) return hr__dnnl_error(err, dnnl, "creating a stream");
    return worker_bind(worker, err);
}

static hr_status worker_create(void *context, void **result, hr_error *err) {
    onednn_worker *worker = calloc(1, sizeof *worker);
    if (!worker) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for a worker");
    worker->engine = context;
    hr_status status = worker_prepare(worker, err);
    if (status != HR_OK) {
        worker_destroy(worker);
        return status;
    }
    *result = worker;
    return HR_OK;
}

/* ---- Forward ---- */

/* What a block's steps run over: a number of rows or slices, and the index of the size whose calls take it.
 * Products of our own take any number; oneDNN's take a size's, and what is missing is filled up. */
typedef struct extent {
    uint32_t n, size;
} extent;

typedef struct block_extents {
    extent rows, slices;
} block_extents;

/* The extent that holds n: of sizes[size] or more. */
static extent extent_of(const hr_gemm_set *set, uint32_t n, uint32_t size) {
    if (set->own) return (extent){n, 0};
    while (set->sizes[size] < n) size++;
    return (extent){set->sizes[size], size};
}

static void run_store(const onednn_worker *worker, const hr_step *step, uint32_t m) {
    const hr_program *program = worker->engine->program;
    const hr_buffer *x = &program->buffers[step->x], *y = &program->buffers[step->y];
    size_t element = hr_operand_nbytes(y->kind);
    worker->engine->rows->store(y->kind, buffer_at(worker, step->x), x->width,
                                (uint8_t *)buffer_at(worker, step->y) + step->store.column * element,
                                y->width, x->width, m);
}

static void run_finish(const onednn_worker *worker, const hr_step *step, uint32_t m) {
    const hr_program *program = worker->engine->program;
    const hr_buffer *y = &program->buffers[step->y];
    const hr_gemm *gemm = &worker->engine->gemms->gemms[step->finish.gemm];
    bool shares = step->finish.shared != HR_NONE;
    const hr_finish_args args = {
        .x = buffer_at(worker, step->x),
        .shared = shares ? buffer_at(worker, step->finish.shared) : NULL,
        .slice_of = worker->slice_of,
        .activation = gemm->activates ? HR_GEMM_LINEAR : step->finish.activation,
        .width = y->width,
        .n_rows = m,
        .y = buffer_at(worker, step->y),
    };
    if (step->x == step->y && !shares && args.activation == HR_GEMM_LINEAR)
        return; /* as the product wrote it */
    worker->engine->rows->finish(y->kind, &args);
}

static void run_feature_gate(const onednn_worker *worker, const hr_step *step, extent over) {
    const hr_program *program = worker->engine->program;
    const hr_buffer *y = &program->buffers[step->y];
    uint32_t column = step->feature_gate.column;
    const hr_feature_gate_args args = {
        .x = (const float *)buffer_at(worker, step->x) + column,
        .ld_x = program->buffers[step->x].width,
        .up = buffer_at(worker, step->feature_gate.up),
        .branch = (size_t)worker->engine->gemms->sizes[over.size] * step->feature_gate.n_columns,
        .p = (const float *)buffer_at(worker, step->feature_gate.gates) + step->feature_gate.gate,
        .ld_p = program->buffers[step->feature_gate.gates].width,
        .loras = step->feature_gate.loras,
        .n_cols = step->feature_gate.n_columns,
        .n_rows = over.n,
        .y = (uint8_t *)buffer_at(worker, step->y) + column * hr_operand_nbytes(y->kind),
        .ld_y = y->width,
    };
    worker->engine->rows->feature_gate(y->kind, &args);
}

static void run_norm(const onednn_worker *worker, const hr_step *step, uint32_t m) {
    const hr_program *program = worker->engine->program;
    const hr_norm_args args = {
        .x = buffer_at(worker, step->x),
        .width = step->norm.width,
        .n_rows = m,
        .weight = step->norm.weight,
        .bias = step->norm.bias,
        .eps = (float)program->plan->norm_eps,
        .activation = program->plan->activation,
        .y = buffer_at(worker, step->y),
    };
    worker->engine->rows->norm(program->buffers[step->y].kind, &args);
}

static void run_mix(const onednn_worker *worker, const hr_step *step, uint32_t m) {
    const hr_program *program = worker->engine->program;
    const hr_program_term *terms = program->terms + step->mix.first;
    const float *gates = NULL;
    size_t ld = 0;
    for (uint32_t j = 0; j < step->mix.count; j++) {
        worker->terms[j] = (hr_mix_term){buffer_at(worker, terms[j].expert), terms[j].gate};
    }
    if (step->mix.gates != HR_NONE) {
        gates = buffer_at(worker, step->mix.gates);
        ld = program->buffers[step->mix.gates].width;
    }
    worker->engine->rows->mix(worker->terms, step->mix.count, gates, ld, buffer_at(worker, step->y),
                              program->buffers[step->y].width, m);
}

/* One step of a block. */
static hr_status run_step(const onednn_worker *worker, uint32_t index, const block_extents *block,
                          hr_error *err) {
    const hr_program *program = worker->engine->program;
    const hr_gemm_set *gemms = worker->engine->gemms;
    const hr_step *step = &program->steps[index];
    const hr_rows_i *rows = worker->engine->rows;
    const extent over = step->shared ? block->slices : block->rows;
    uint32_t m = over.n;
    switch (step->kind) {
    case HR_STEP_STORE: run_store(worker, step, m); break;
    case HR_STEP_GEMM:
        return hr_gemm_run(&worker->calls[index * gemms->n_sizes + over.size], m, worker->stream, err);
    case HR_STEP_FINISH: run_finish(worker, step, m); break;
    case HR_STEP_GATES:
        rows->gates(buffer_at(worker, step->y), program->buffers[step->y].width,
                    program->segments + step->gates.first, step->gates.count, m);
        break;
    case HR_STEP_FEATURE_GATE: run_feature_gate(worker, step, over); break;
    case HR_STEP_NORM: run_norm(worker, step, m); break;
    case HR_STEP_MIX: run_mix(worker, step, m); break;
    case HR_STEP_LOGIT:
        rows->logit(buffer_at(worker, step->x), step->logit.weight, step->logit.bias,
                    worker->logits + step->logit.task, program->plan->n_tasks,
                    program->buffers[step->x].width, m);
        break;
    }
    return HR_OK;
}

static void clear_rows(const onednn_worker *worker, uint32_t buffer, uint32_t from, uint32_t to) {
    if (buffer == HR_NONE) return;
    size_t row = worker->engine->program->buffers[buffer].width * sizeof(float);
    memset((uint8_t *)buffer_at(worker, buffer) + from * row, 0, (to - from) * row);
}

/* Gathers n_rows rows and fills the block up to m with rows of zeros, which belong to the first slice.
 * Returns the extent of its slices. */
static extent gather_block(onednn_worker *worker, hr_batch_cursor *cursor, uint32_t n_rows, uint32_t m) {
    const hr_program *program = worker->engine->program;
    const hr_gathered to = {
        .v = program->v == HR_NONE ? NULL : buffer_at(worker, program->v),
        .shared = buffer_at(worker, program->shared),
        .items = program->items == HR_NONE ? NULL : buffer_at(worker, program->items),
        .slice_of = worker->slice_of,
        .logits = worker->targets,
    };
    uint32_t n_slices = hr_gather(program->plan, &program->layout, cursor, n_rows, &to);
    const extent slices = extent_of(worker->engine->gemms, n_slices, 0);
    clear_rows(worker, program->shared, n_slices, slices.n);
    clear_rows(worker, program->v, n_rows, m);
    clear_rows(worker, program->items, n_rows, m);
    for (uint32_t r = n_rows; r < m; r++) worker->slice_of[r] = 0;
    return slices;
}

static hr_status run_block(onednn_worker *worker, hr_batch_cursor *cursor, uint32_t size, uint32_t n_rows,
                           hr_error *err) {
    const hr_program *program = worker->engine->program;
    uint32_t n_tasks = program->plan->n_tasks;
    block_extents block = {.rows = extent_of(worker->engine->gemms, n_rows, size)};
    block.slices = gather_block(worker, cursor, n_rows, block.rows.n);
    for (uint32_t i = 0; i < program->n_steps; i++) {
        hr_status status = run_step(worker, i, &block, err);
        if (status != HR_OK) return status;
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        memcpy(worker->targets[r], worker->logits + (size_t)r * n_tasks, n_tasks * sizeof(float));
    }
    return HR_OK;
}

static hr_status forward(void *context, const hr_slice *slices, size_t n_slices, hr_error *err) {
    onednn_worker *worker = context;
    const onednn_engine *engine = worker->engine;
    hr_batch_cursor cursor = {.slices = slices};
    uint64_t left = 0;
    for (size_t i = 0; i < n_slices; i++) left += slices[i].n_rows;
    omp_set_num_threads(1);
    while (left > 0) {
        uint32_t size = engine->next_size[left < engine->max_rows ? left : engine->max_rows];
        uint32_t n_rows = left < engine->gemms->sizes[size] ? (uint32_t)left : engine->gemms->sizes[size];
        hr_status status = run_block(worker, &cursor, size, n_rows, err);
        if (status != HR_OK) return status;
        left -= n_rows;
    }
    return HR_OK;
}

const hr_backend_i hr_backend_onednn = {
    .name = "onednn",
    .engine_create = engine_create,
    .engine_destroy = engine_destroy,
    .worker_create = worker_create,
    .worker_destroy = worker_destroy,
    .forward = forward,
    .describe = describe,
};
