/* What it saves to compute the user's and the context's part of everything linear in v once a request.
 *
 *     sharing MODEL_DIR [ROUNDS]
 *
 * Runs the model with and without, in turn, on one thread, and prints a table: items a second of CPU time
 * (medians of the rounds) and how far the logits are apart. A batch is one request.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model/model.h"
#include "tests/kernels/random_plan.h"

enum { MAX_ROUNDS = 99, REPEATS_ROWS = 512 };

static const uint32_t SIZES[] = {1, 16, 64, 128, 512};
enum { N_SIZES = sizeof SIZES / sizeof SIZES[0] };

/* One way to run: as a model does, or without sharing. */
typedef struct way {
    hr_plan plan;
    hr_engine *engine;
    hr_worker *worker;
    hr_random_batch *batch;
    uint64_t samples[MAX_ROUNDS]; /* CPU nanoseconds of one batch */
} way;

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

static hr_status way_open(way *w, const hr_plan *plan, bool unshared, hr_precision precision, hr_error *err) {
    w->plan = *plan;
    w->plan.unshared = unshared;
    hr_status status = hr_engine_create("onednn", precision, &w->plan, &w->engine, err);
    return status == HR_OK ? hr_worker_create(w->engine, &w->worker, err) : status;
}

static void way_close(way *w) {
    hr_worker_destroy(w->worker);
    hr_engine_destroy(w->engine);
}

static hr_status measure(way *w, uint32_t n_rows, uint64_t *sample, hr_error *err) {
    uint32_t repeats = (REPEATS_ROWS + n_rows - 1) / n_rows;
    uint64_t begun_ns = thread_ns();
    for (uint32_t i = 0; i < repeats; i++) {
        hr_status status = hr_forward(w->worker, w->batch->slices, w->batch->n_slices, err);
        if (status != HR_OK) return status;
    }
    *sample = (thread_ns() - begun_ns) / repeats;
    return HR_OK;
}

/* The largest difference of logits, relative to max(1, |logit|) as MODEL.md 5 has it. */
static double difference(const hr_random_batch *a, const hr_random_batch *b) {
    double most = 0;
    for (size_t i = 0; i < a->n_logits; i++) {
        double x = a->logits[i], y = b->logits[i];
        most = fmax(most, fabs(x - y) / fmax(1, fabs(y)));
    }
    return most;
}

static hr_status compare(way ways[2], const hr_plan *plan, uint32_t n_rows, uint32_t rounds, hr_error *err) {
    hr_status status = HR_OK;
    for (int i = 0; i < 2; i++) ways[i].batch = hr_random_batch_create(plan, &n_rows, 1, 1);
    for (uint32_t r = 0; status == HR_OK && r < rounds; r++)
        for (int i = 0; status == HR_OK && i < 2; i++)
            status = measure(&ways[i], n_rows, &ways[i].samples[r], err);
    if (status == HR_OK) {
        double rate[2];
        for (int i = 0; i < 2; i++) {
            qsort(ways[i].samples, rounds, sizeof ways[i].samples[0], by_value);
            const uint32_t median = rounds / 2;
            rate[i] = n_rows * 1e9 / (double)ways[i].samples[median];
        }
        printf("| %s | %u | %.0f | %.0f | %.3f | %.0e |\n",
               hr_precision_name(hr_engine_precision(ways[0].engine)), n_rows, rate[0], rate[1],
               rate[0] / rate[1], difference(ways[0].batch, ways[1].batch));
    }
    for (int i = 0; i < 2; i++) hr_random_batch_destroy(ways[i].batch);
    return status;
}

static hr_status compare_all(const hr_plan *plan, hr_precision precision, uint32_t rounds, hr_error *err) {
    way ways[2] = {{.engine = NULL}, {.engine = NULL}};
    hr_status status = HR_OK;
    for (int i = 0; status == HR_OK && i < 2; i++) status = way_open(&ways[i], plan, i == 1, precision, err);
    for (uint32_t s = 0; status == HR_OK && s < N_SIZES; s++)
        status = compare(ways, plan, SIZES[s], rounds, err);
    for (int i = 0; i < 2; i++) way_close(&ways[i]);
    return status;
}

int main(int argc, char **argv) {
    hr_error err;
    hr_model *model = NULL;
    const hr_model_options options = {.backend = "onednn", .n_workers = 1};
    long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 9;
    if (argc < 2 || argc > 3 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: sharing MODEL_DIR [ROUNDS]\n");
        return 2;
    }
    hr_status status = hr_model_load(argv[1], "bench", 1, &options, &model, &err);
    if (status == HR_OK) {
        printf("| precision | items a request | shared, items/s | not shared, items/s | shared / not shared "
               "| largest difference of logits |\n|---|--:|--:|--:|--:|--:|\n");
        status = compare_all(hr_model_plan(model), HR_PRECISION_F32, (uint32_t)rounds, &err);
    }
    if (status == HR_OK)
        status = compare_all(hr_model_plan(model), HR_PRECISION_BF16, (uint32_t)rounds, &err);
    hr_model_unref(model);
    if (status == HR_OK) return 0;
    fprintf(stderr, "sharing: %s\n", err.message);
    return 1;
}
