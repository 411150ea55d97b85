/* Metrics: counters and histograms that threads record without waiting for each other, and the registry that
 * prints them, and what else is known, for Prometheus.
 *
 * A module's families are rows of a constant table. An hr_metric_set holds their values under one set of
 * labels. A value is kept once per thread and summed when it is read, so that recording is an addition to
 * memory that no other thread writes: no lock, no allocation, no waiting, a few nanoseconds. A gauge is not
 * recorded but read off when asked, by a collector; so are counts that a module keeps itself.
 *
 *     static const hr_metric_family families[] = {
 *         [ORDERS] = {.name = "shop_orders_total", .help = "Orders.", .kind = HR_METRIC_COUNTER}};
 *     hr_metric_count(set, ORDERS, 0, 1);
 */
#ifndef HOMERANK_BASE_METRICS_H
#define HOMERANK_BASE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/metrics_text.h"
#include "base/status.h"

enum { HR_METRIC_MAX_BOUNDS = 64 };

/* Constant; outlives the sets made of it. */
typedef struct hr_metric_family {
    const char *name, *help;
    hr_metric_kind kind; /* COUNTER or HISTOGRAM */
    /* COUNTER (optional): a label of the family's own. A value that is NULL cannot be counted and is not
     * shown. */
    const char *label;
    const char *const *values; /* (n_values) */
    uint32_t n_values;
    /* HISTOGRAM: upper bounds, ascending, inclusive, in the unit recorded; shown divided by divisor, as the
     * sum is: 1000000000 shows recorded nanoseconds as seconds; 0 is 1. */
    const uint64_t *bounds; /* (n_bounds), n_bounds <= HR_METRIC_MAX_BOUNDS */
    uint32_t n_bounds;
    uint64_t divisor;
} hr_metric_family;

typedef struct hr_metric_set hr_metric_set;

/* All values zero. The labels (at most HR_METRIC_MAX_LABELS - 1) are copied. NULL when out of memory. */
hr_metric_set *hr_metric_set_create(const hr_metric_family *families, size_t n_families,
                                    const hr_label *labels, size_t n_labels);
void hr_metric_set_destroy(hr_metric_set *set); /* NULL is allowed */

/* Any thread. `value` is the index of the family's own label's value, 0 where it has none. */
void hr_metric_count(hr_metric_set *set, uint32_t family, uint32_t value, uint64_t n);
void hr_metric_observe(hr_metric_set *set, uint32_t family, uint64_t value);

/* What was counted so far. Any thread. */
uint64_t hr_metric_counted(const hr_metric_set *set, uint32_t family, uint32_t value);

/* Prints every family with the samples of all sets; a set may be made of the table's first rows only. */
void hr_metric_sets_print(hr_metrics_text *text, const hr_metric_family *families, size_t n_families,
                          hr_metric_set *const *sets, size_t n_sets);

/* ---- The registry ---- */

typedef struct hr_metrics hr_metrics;

hr_metrics *hr_metrics_create(void);          /* NULL when out of memory */
void hr_metrics_destroy(hr_metrics *metrics); /* NULL is allowed */

/* Has collect called whenever the metrics are printed, in the order of adding; arg must live until the last
 * print. metrics NULL: nobody will print, and that is no error. Any thread; collect runs on the printer's,
 * one at a time. Errors: OUT_OF_MEMORY. */
hr_status hr_metrics_add(hr_metrics *metrics, void (*collect)(hr_metrics_text *text, void *arg), void *arg,
                         hr_error *err);

/* The whole text, NUL-terminated, for the caller to free(). Errors: OUT_OF_MEMORY. */
hr_status hr_metrics_print(hr_metrics *metrics, char **text, size_t *nbytes, hr_error *err);

#endif
