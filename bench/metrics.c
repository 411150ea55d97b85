/* What recording costs: nanoseconds per ranking call told to the metrics, and per scrape.
 *
 *     metrics [THREADS]
 *
 * Every thread tells calls of one model as the pipeline does, each with a batch of its own: the dearest case,
 * one item a call. Medians of N_ROUNDS rounds of each thread's own CPU time.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/thread.h"
#include "service/service_metrics.h"

enum { N_ROUNDS = 9, N_CALLS = 1000000, MAX_THREADS = 256, N_VERSIONS = 60 };

static uint64_t thread_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

typedef struct teller {
    const hr_pipeline_observer *observer;
    double ns[N_ROUNDS]; /* per call */
} teller;

/* Stages of some tens of microseconds, no two alike, as of a small model. */
static void tell(const hr_pipeline_observer *observer, uint64_t i, const char *model) {
    const uint64_t jitter = i * UINT64_C(0x9E3779B97F4A7C15) >> 48; /* 0 to 65,535 ns */
    const hr_call_report call = {.model = model,
                                 .n_items = 1,
                                 .queue_ns = jitter / 4,
                                 .features_ns = 1000 + jitter / 16,
                                 .encode_ns = 500 + jitter / 32,
                                 .model_ns = 8000 + jitter / 2,
                                 .total_ns = 10000 + jitter};
    const hr_batch_report batch = {
        .model = model, .n_rows = 1, .n_calls = 1, .forward_ns = 7000 + jitter / 2};
    observer->batch(observer->arg, &batch);
    observer->call(observer->arg, &call);
}

static void *run(void *arg) {
    teller *t = arg;
    for (int round = 0; round < N_ROUNDS; round++) {
        uint64_t begun_ns = thread_ns();
        for (uint64_t i = 0; i < N_CALLS; i++) tell(t->observer, i, "home@1");
        t->ns[round] = (double)(thread_ns() - begun_ns) / N_CALLS;
    }
    return NULL;
}

static double run_threads(const hr_pipeline_observer *observer, unsigned n_threads) {
    static teller tellers[MAX_THREADS];
    static double medians[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    for (unsigned i = 0; i < n_threads; i++) {
        tellers[i].observer = observer;
        if (hr_thread_start(&threads[i], "teller", run, &tellers[i], NULL) != HR_OK) exit(1);
    }
    for (unsigned i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        medians[i] = median(tellers[i].ns, N_ROUNDS);
    }
    return median(medians, n_threads);
}

static void print_scrape(hr_metrics *metrics, const char *what) {
    double ns[N_ROUNDS];
    size_t nbytes = 0;
    for (int round = 0; round < N_ROUNDS; round++) {
        char *text;
        uint64_t begun_ns = thread_ns();
        if (hr_metrics_print(metrics, &text, &nbytes, NULL) != HR_OK) exit(1);
        ns[round] = (double)(thread_ns() - begun_ns);
        free(text);
    }
    printf("scrape, %s: %.2f ms, %zu bytes\n", what, median(ns, N_ROUNDS) / 1e6, nbytes);
}

int main(int argc, char **argv) {
    hr_service_metrics *service;
    hr_metrics *metrics = hr_metrics_create();
    unsigned n_threads = argc > 1 ? (unsigned)atoi(argv[1]) : hr_cpu_count();
    if (n_threads < 1 || n_threads > MAX_THREADS || metrics == NULL ||
        hr_service_metrics_create(metrics, &service, NULL) != HR_OK)
        return 1;
    const hr_pipeline_observer *observer = hr_service_metrics_observer(service);
    printf("recording a call and its batch, 1 thread: %.1f ns\n", run_threads(observer, 1));
    printf("recording a call and its batch, each of %u threads: %.1f ns\n", n_threads,
           run_threads(observer, n_threads));
    print_scrape(metrics, "1 version");
    for (int version = 2; version <= N_VERSIONS; version++) {
        char model[32];
        snprintf(model, sizeof model, "home@%d", version);
        tell(observer, 1, model);
    }
    print_scrape(metrics, "60 versions");
    hr_service_metrics_destroy(service);
    hr_metrics_destroy(metrics);
    return 0;
}
