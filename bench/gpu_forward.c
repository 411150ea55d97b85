/* The cuda backend's forward pass, measured on demand: bench/gpu_forward.py drives it beside its peers.
 *
 *     gpu_forward PLAN_FILE       (bench/plain_plan.py writes it)
 *
 * reads commands, a line each, and answers each with a line:
 *
 * - engine P: how it runs; P: f32 or bf16
 * - run P B MILLISECONDS: the median nanoseconds of one forward pass of B rows, from encoded rows in host
 * memory to logits in host memory
 * - device P B: nanoseconds of one forward pass among many in a row, from encoded rows in device memory to
 *   logits in device memory
 * - stages P B: nanoseconds of each launch, one after another, each the mean of many in a row
 * - vectors B FILE: v (B, D) of input set 0 as f32
 * - logits P B FILE: the logits (B, T) of input set 0
 *
 * One thread, device 0. Inputs rotate between N_SETS sets; every 512 rows are a request of their own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "bench/plain_plan.h"
#include "kernels/cuda/cuda_engine.h"
#include "tests/kernels/cuda_rig.h"
#include "tests/kernels/random_plan.h"

enum { N_SETS = 4, REQUEST_ROWS = 512, MAX_ROWS = 8192, MAX_SAMPLES = 100000, WARM_UP = 20, REPEATS = 200 };

typedef struct bench {
    hr_plain_plan *file;
    hr_cuda_engine *engines[2]; /* by precision; NULL until asked for */
    hr_cuda_worker *workers[2];
    uint32_t n_rows; /* of the batches made */
    hr_random_batch *sets[N_SETS];
    uint64_t samples[MAX_SAMPLES];
} bench;

static hr_status open_engine(bench *b, hr_precision precision, hr_error *err) {
    if (b->workers[precision] != NULL) return HR_OK;
    hr_status status = hr_cuda_engine_create(&hr_cuda_runtime_device, &b->file->plan, precision, NULL,
                                             &b->engines[precision], err);
    if (status != HR_OK) return status;
    return hr_cuda_worker_create(b->engines[precision], &b->workers[precision], err);
}

static void sets_free(bench *b) {
    for (int s = 0; s < N_SETS; s++) {
        hr_random_batch_destroy(b->sets[s]);
        b->sets[s] = NULL;
    }
    b->n_rows = 0;
}

static void sets_make(bench *b, uint32_t n_rows) {
    uint32_t requests[MAX_ROWS / REQUEST_ROWS], n_requests = 0;
    if (b->n_rows == n_rows) return;
    sets_free(b);
    for (uint32_t left = n_rows; left > 0; left -= requests[n_requests++])
        requests[n_requests] = left < REQUEST_ROWS ? left : REQUEST_ROWS;
    for (uint32_t s = 0; s < N_SETS; s++)
        b->sets[s] = hr_random_batch_create(&b->file->plan, requests, n_requests, 1 + s);
    b->n_rows = n_rows;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static hr_status measure(bench *b, hr_precision precision, uint64_t duration_ns, uint64_t *median,
                         hr_error *err) {
    size_t n = 0;
    uint64_t end = 0;
    for (size_t i = 0; n == 0 || (n < MAX_SAMPLES && hr_clock_ns() < end); i++) {
        const hr_random_batch *set = b->sets[i % N_SETS];
        uint64_t start = hr_clock_ns();
        hr_status status = hr_cuda_forward(b->workers[precision], set->slices, set->n_slices, err);
        if (status != HR_OK) return status;
        if (i < WARM_UP) continue;
        if (n == 0) end = start + duration_ns;
        b->samples[n++] = hr_clock_ns() - start;
    }
    qsort(b->samples, n, sizeof b->samples[0], by_value);
    *median = b->samples[n / 2];
    return HR_OK;
}

/* "gather 2100, products 9000, ...": what one launch adds to a graph of many. */
static hr_status measure_stages(bench *b, hr_precision precision, char *answer, size_t size, hr_error *err) {
    static const char *const kinds[] = {"gather", "products", "feature_gates", "norms", "mixes", "towers"};
    hr_cuda_rig *rig;
    hr_status status =
        hr_cuda_rig_create(&hr_cuda_runtime_device, &b->file->plan, precision, b->n_rows, &rig, err);
    if (status != HR_OK) return status;
    status = hr_cuda_rig_stage(rig, b->sets[0]->slices, b->n_rows, err);
    size_t at = 0;
    for (uint32_t s = 0; status == HR_OK && s < rig->plan->n_stages && at < size; s++) {
        uint64_t one = 0, many = 0;
        status = hr_cuda_rig_run(rig, s, 2, &one, err);
        if (status == HR_OK) status = hr_cuda_rig_run(rig, s, 2 + REPEATS, &many, err);
        uint64_t each = many > one ? (many - one) / REPEATS : 0;
        at += (size_t)snprintf(answer + at, size - at, "%s%s %llu", s ? ", " : "",
                               kinds[rig->plan->stages[s].kind], (unsigned long long)each);
    }
    hr_cuda_rig_destroy(rig);
    return status;
}

/* Of one forward pass among many in a row, from the staged rows to the logits, both on the device. */
static hr_status measure_device(bench *b, hr_precision precision, uint64_t *each, hr_error *err) {
    hr_cuda_rig *rig;
    uint64_t one = 0, many = 0;
    hr_status status =
        hr_cuda_rig_create(&hr_cuda_runtime_device, &b->file->plan, precision, b->n_rows, &rig, err);
    if (status != HR_OK) return status;
    status = hr_cuda_rig_stage(rig, b->sets[0]->slices, b->n_rows, err);
    if (status == HR_OK) status = hr_cuda_rig_run_all(rig, 2, &one, err);
    if (status == HR_OK) status = hr_cuda_rig_run_all(rig, 2 + REPEATS, &many, err);
    *each = many > one ? (many - one) / REPEATS : 0;
    hr_cuda_rig_destroy(rig);
    return status;
}

/* MODEL.md 3 once more, plainly: the peers read v. */
static void feature_vector(const hr_plan *plan, const hr_slice *slice, uint32_t item, float *v) {
    const hr_schema *schema = plan->schema;
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *f = &schema->features[i];
        const uint32_t *row = f->entity == HR_ENTITY_USER ? slice->user : slice->context;
        if (f->entity == HR_ENTITY_ITEM)
            row = (const uint32_t *)slice->items + item * hr_row_words(schema, f->entity);
        float *out = v + f->vector_offset;
        if (f->kind == HR_FEATURE_NUMBER || f->kind == HR_FEATURE_NUMBERS) {
            memcpy(out, row + schema->rows[f->entity].n_index + f->slot, f->width * sizeof *out);
            continue;
        }
        bool list = f->kind == HR_FEATURE_IDS;
        uint32_t count = list ? row[f->slot] : 1;
        for (uint32_t d = 0; d < f->width; d++) {
            double sum = 0;
            for (uint32_t k = 0; k < count; k++)
                sum += plan->embeddings[f->table][(size_t)row[f->slot + list + k] * f->width + d];
            out[d] = (float)(list && f->pool == HR_POOL_MEAN && count ? sum / count : sum);
        }
    }
}

static hr_status write_floats(const char *path, const float *values, size_t n, hr_error *err) {
    FILE *file = fopen(path, "wb");
    if (!file) return hr_error_set(err, HR_IO, "%s: cannot be written", path);
    size_t written = fwrite(values, sizeof *values, n, file);
    if (fclose(file) != 0 || written != n) return hr_error_set(err, HR_IO, "%s: cannot be written", path);
    return HR_OK;
}

static hr_status write_vectors(const bench *b, const char *path, hr_error *err) {
    const hr_random_batch *set = b->sets[0];
    size_t width = b->file->plan.schema->width;
    float *v = calloc(set->n_rows * width, sizeof *v), *row = v;
    if (!v) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %zu feature vectors", set->n_rows);
    for (size_t s = 0; s < set->n_slices; s++) {
        for (uint32_t item = 0; item < set->slices[s].n_rows; item++, row += width)
            feature_vector(&b->file->plan, &set->slices[s], item, row);
    }
    hr_status status = write_floats(path, v, set->n_rows * width, err);
    free(v);
    return status;
}

static hr_status write_logits(bench *b, hr_precision precision, const char *path, hr_error *err) {
    const hr_random_batch *set = b->sets[0];
    hr_status status = hr_cuda_forward(b->workers[precision], set->slices, set->n_slices, err);
    return status == HR_OK ? write_floats(path, set->logits, set->n_logits, err) : status;
}

/* One command; the answer, without its newline, into answer. */
static hr_status run_command(bench *b, const char *line, char *answer, size_t size, hr_error *err) {
    char verb[16] = "", text[8] = "f32", path[512] = "";
    uint32_t n_rows = 1, milliseconds = 0;
    hr_precision precision;
    int n = sscanf(line, "%15s", verb);
    if (strcmp(verb, "vectors") == 0) {
        n = sscanf(line, "%*s %u %511s", &n_rows, path);
    } else if (n == 1) {
        n = sscanf(line, "%*s %7s %u %511s", text, &n_rows, path);
        milliseconds = (uint32_t)strtoul(path, NULL, 10);
    }
    if (n < 1 || n_rows < 1 || n_rows > MAX_ROWS)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a command, found %s",
                            hr_quote(line, strlen(line)).text);
    hr_status status = hr_precision_parse(text, &precision, err);
    if (status == HR_OK) status = open_engine(b, precision, err);
    if (status != HR_OK) return status;
    sets_make(b, n_rows);
    snprintf(answer, size, "ok");
    if (strcmp(verb, "engine") == 0) {
        hr_cuda_engine_describe(b->engines[precision], answer, size);
    } else if (strcmp(verb, "run") == 0) {
        uint64_t median = 0;
        status = measure(b, precision, milliseconds * UINT64_C(1000000), &median, err);
        snprintf(answer, size, "%llu", (unsigned long long)median);
    } else if (strcmp(verb, "device") == 0) {
        uint64_t each = 0;
        status = measure_device(b, precision, &each, err);
        snprintf(answer, size, "%llu", (unsigned long long)each);
    } else if (strcmp(verb, "stages") == 0) {
        status = measure_stages(b, precision, answer, size, err);
    } else if (strcmp(verb, "vectors") == 0) {
        status = write_vectors(b, path, err);
    } else if (strcmp(verb, "logits") == 0) {
        status = write_logits(b, precision, path, err);
    } else {
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "expected a command, found %s",
                              hr_quote(line, strlen(line)).text);
    }
    return status;
}

int main(int argc, char **argv) {
    static bench b;
    char line[640], answer[1024];
    hr_error err;
    int exit_code = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: gpu_forward PLAN_FILE\n");
        return 2;
    }
    if (hr_plain_plan_read(argv[1], &b.file, &err) != HR_OK) {
        fprintf(stderr, "gpu_forward: %s\n", err.message);
        return 1;
    }
    while (exit_code == 0 && fgets(line, sizeof line, stdin)) {
        if (run_command(&b, line, answer, sizeof answer, &err) != HR_OK) {
            fprintf(stderr, "gpu_forward: %s\n", err.message);
            exit_code = 1;
        } else {
            printf("%s\n", answer);
            fflush(stdout);
        }
    }
    sets_free(&b);
    for (int p = 0; p < 2; p++) {
        hr_cuda_worker_destroy(b.workers[p]);
        hr_cuda_engine_destroy(b.engines[p]);
    }
    hr_plain_plan_destroy(b.file);
    return exit_code;
}
