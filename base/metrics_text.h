/* The text in which Prometheus reads metrics: its exposition format 0.0.4. Written by whoever keeps values.
 *
 *     static void collect(hr_metrics_text *text, void *arg) {
 *         hr_metrics_text_gauge(text, "homerank_cache_bytes", "Memory of the cache.", cache_nbytes(arg));
 *     }
 *
 * A family (name, help, kind) is written once, its samples right behind it. Names are a module's own
 * constants and obey Prometheus: [a-zA-Z_:][a-zA-Z0-9_:]*, base units, `_total` on counters. Help texts and
 * label values may be any UTF-8: they are escaped. Thread rule: one thread at a time.
 */
#ifndef HOMERANK_BASE_METRICS_TEXT_H
#define HOMERANK_BASE_METRICS_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum hr_metric_kind { HR_METRIC_COUNTER, HR_METRIC_GAUGE, HR_METRIC_HISTOGRAM } hr_metric_kind;

enum { HR_METRIC_MAX_LABELS = 8 };

typedef struct hr_label {
    const char *name, *value;
} hr_label;

typedef struct hr_metrics_text {
    FILE *out;        /* borrowed; its error indicator tells a failure */
    const char *name; /* of the family begun */
} hr_metrics_text;

void hr_metrics_text_family(hr_metrics_text *text, hr_metric_kind kind, const char *name, const char *help);

/* A sample of the family begun, a counter or gauge. */
void hr_metrics_text_sample(hr_metrics_text *text, double value, const hr_label *labels, size_t n_labels);

/* Buckets, sum and count of the family begun, a histogram. counts[i] is how many values were in
 * (bounds[i - 1], bounds[i]], the last how many were above all bounds. Bounds and sum are divided by divisor.
 * n_labels < HR_METRIC_MAX_LABELS. */
typedef struct hr_metrics_buckets {
    const uint64_t *bounds; /* (n_bounds) ascending */
    size_t n_bounds;
    const uint64_t *counts; /* (n_bounds + 1) */
    uint64_t sum;
    uint64_t divisor; /* >= 1 */
} hr_metrics_buckets;
void hr_metrics_text_histogram(hr_metrics_text *text, const hr_metrics_buckets *buckets,
                               const hr_label *labels, size_t n_labels);

/* A family of one sample without labels. */
void hr_metrics_text_counter(hr_metrics_text *text, const char *name, const char *help, double value);
void hr_metrics_text_gauge(hr_metrics_text *text, const char *name, const char *help, double value);

#endif
