/* homerank's forward pass, measured on demand: bench/forward.py drives it beside its peers.
 *
 *     forward MODEL_DIR [BACKEND]
 *
 * reads commands, a line each, and answers each with a line:
 *
 *     engine f32|bf16               loads the model; answers how it runs
 *     run f32|bf16 B MILLISECONDS   the median CPU nanoseconds of one forward pass of B rows
 *     vectors B FILE                writes v (B, D) of input set 0 as f32
 *     logits f32|bf16 B FILE        writes the logits (B, T) of input set 0
 *
 * One thread. Inputs are random and rotate between N_SETS sets; every 512 rows are a request of their own.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "model/model.h"
#include "tests/kernels/random_plan.h"

enum { N_SETS = 4, REQUEST_ROWS = 512, MAX_ROWS = 8192, MAX_SAMPLES = 100000 };

typedef struct bench {
    const char *dir, *backend;
    hr_model *models[2]; /* by precision; NULL until asked for */
    uint32_t n_rows;     /* of the batches made */
    hr_random_batch *sets[N_SETS];
    uint64_t samples[MAX_SAMPLES];
} bench;

static hr_status model_of(bench *b, const char *precision_text, hr_model **model, hr_error *err) {
    hr_precision precision;
    hr_status status = hr_precision_parse(precision_text, &precision, err);
    if (status != HR_OK) return status;
    if (!b->models[precision]) {
        const hr_model_options options = {.backend = b->backend, .precision = precision, .n_workers = 1};
        status = hr_model_load(b->dir, "bench", 1, &options, &b->models[precision], err);
    }
    *model = b->models[precision];
    return status;
}

static void sets_free(bench *b) {
    for (int s = 0; s < N_SETS; s++) {
        hr_random_batch_destroy(b->sets[s]);
        b->sets[s] = NULL;
    }
    b->n_rows = 0;
}

static void sets_make(bench *b, const hr_plan *plan, uint32_t n_rows) {
    uint32_t requests[MAX_ROWS / REQUEST_ROWS], n_requests = 0;
    if (b->n_rows == n_rows) return;
    sets_free(b);
    for (uint32_t left = n_rows; left > 0; left -= requests[n_requests++]) {
        requests[n_requests] = left < REQUEST_ROWS ? left : REQUEST_ROWS;
    }
    for (uint32_t s = 0; s < N_SETS; s++)
        b->sets[s] = hr_random_batch_create(plan, requests, n_requests, 1 + s);
    b->n_rows = n_rows;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The thread's own time: what the machine's other work takes from the core does not count. */
static uint64_t thread_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static hr_status measure(bench *b, const hr_model *model, uint64_t duration_ns, uint64_t *median,
                         hr_error *err) {
    size_t n = 0;
    uint64_t end = hr_clock_ns() + duration_ns;
    while (n < MAX_SAMPLES && (n == 0 || hr_clock_ns() < end)) {
        const hr_random_batch *set = b->sets[n % N_SETS];
        uint64_t start = thread_ns();
        hr_status status = hr_model_forward(model, 0, set->slices, set->n_slices, err);
        if (status != HR_OK) return status;
        b->samples[n++] = thread_ns() - start;
    }
    qsort(b->samples, n, sizeof b->samples[0], by_value);
    *median = b->samples[n / 2];
    return HR_OK;
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
            for (uint32_t k = 0; k < count; k++) {
                sum += plan->embeddings[f->table][(size_t)row[f->slot + list + k] * f->width + d];
            }
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

static hr_status write_vectors(bench *b, const hr_plan *plan, const char *path, hr_error *err) {
    const hr_random_batch *set = b->sets[0];
    size_t width = plan->schema->width;
    float *v = calloc(set->n_rows * width, sizeof *v), *row = v;
    if (!v) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %zu feature vectors", set->n_rows);
    for (size_t s = 0; s < set->n_slices; s++) {
        for (uint32_t item = 0; item < set->slices[s].n_rows; item++, row += width) {
            feature_vector(plan, &set->slices[s], item, row);
        }
    }
    hr_status status = write_floats(path, v, set->n_rows * width, err);
    free(v);
    return status;
}

/* One command; the answer, without its newline, into answer. */
static hr_status run_command(bench *b, const char *line, char *answer, size_t size, hr_error *err) {
    char verb[16] = "", precision[8] = "f32", path[512] = "";
    uint32_t n_rows = 1, milliseconds = 0;
    hr_model *model;
    if (sscanf(line, "engine %7s", precision) == 1) {
        snprintf(verb, sizeof verb, "engine");
    } else if (sscanf(line, "run %7s %u %u", precision, &n_rows, &milliseconds) == 3) {
        snprintf(verb, sizeof verb, "run");
    } else if (sscanf(line, "vectors %u %511s", &n_rows, path) == 2) {
        snprintf(verb, sizeof verb, "vectors");
    } else if (sscanf(line, "logits %7s %u %511s", precision, &n_rows, path) == 3) {
        snprintf(verb, sizeof verb, "logits");
    }
    if (verb[0] == '\0' || n_rows < 1 || n_rows > MAX_ROWS) {
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a command, found %s",
                            hr_quote(line, strlen(line)).text);
    }
    hr_status status = model_of(b, precision, &model, err);
    if (status != HR_OK) return status;
    const hr_plan *plan = hr_model_plan(model);
    sets_make(b, plan, n_rows);
    snprintf(answer, size, "ok");
    if (strcmp(verb, "engine") == 0) {
        hr_engine_describe(hr_model_engine(model), answer, size);
    } else if (strcmp(verb, "run") == 0) {
        uint64_t median = 0;
        status = measure(b, model, milliseconds * UINT64_C(1000000), &median, err);
        snprintf(answer, size, "%llu", (unsigned long long)median);
    } else if (strcmp(verb, "vectors") == 0) {
        status = write_vectors(b, plan, path, err);
    } else {
        const hr_random_batch *set = b->sets[0];
        status = hr_model_forward(model, 0, set->slices, set->n_slices, err);
        if (status == HR_OK) status = write_floats(path, set->logits, set->n_logits, err);
    }
    return status;
}

int main(int argc, char **argv) {
    static bench b;
    char line[640], answer[256];
    hr_error err;
    int exit_code = 0;
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: forward MODEL_DIR [BACKEND]\n");
        return 2;
    }
    b.dir = argv[1];
    b.backend = argc == 3 ? argv[2] : "onednn";
    while (exit_code == 0 && fgets(line, sizeof line, stdin)) {
        if (run_command(&b, line, answer, sizeof answer, &err) != HR_OK) {
            fprintf(stderr, "forward: %s\n", err.message);
            exit_code = 1;
        } else {
            printf("%s\n", answer);
            fflush(stdout);
        }
    }
    sets_free(&b);
    hr_model_unref(b.models[0]);
    hr_model_unref(b.models[1]);
    return exit_code;
}
