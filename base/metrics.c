/* Sets of counters and histograms, and the registry: see metrics.h. */
#include "base/metrics.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/metrics_internal.h"

/* ---- Sets ----
 *
 * A set's cells: per slot a row of them, on cache lines of its own. A counter has a cell per value of its
 * label; a histogram one per bucket, then its sum. The rows are a mapping of their own, of zeros: those of
 * slots that no thread has, most of them, take no memory, and a set that goes leaves none behind. */

enum { LINE_NBYTES = 64, LINE_CELLS = LINE_NBYTES / sizeof(uint64_t) };

typedef _Atomic uint64_t cell;

struct hr_metric_set {
    const hr_metric_family *families; /* (n_families) borrowed */
    size_t n_families;
    hr_label labels[HR_METRIC_MAX_LABELS]; /* (n_labels) owned texts */
    size_t n_labels;
    size_t n_row;     /* cells of a row, padded to whole cache lines */
    cell *cells;      /* (HR_METRIC_SLOTS, n_row) owned, mapped; NULL: not yet */
    uint32_t first[]; /* (n_families) each family's first cell in a row */
};

static uint32_t cells_of(const hr_metric_family *family) {
    if (family->kind == HR_METRIC_HISTOGRAM) return family->n_bounds + 2;
    return family->n_values > 0 ? family->n_values : 1;
}

static size_t cells_nbytes(const hr_metric_set *set) {
    return HR_METRIC_SLOTS * set->n_row * sizeof *set->cells;
}

static bool map_cells(hr_metric_set *set) {
    void *zeros = mmap(NULL, cells_nbytes(set), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (zeros == MAP_FAILED) return false;
    set->cells = zeros;
    return true;
}

static bool copy_labels(hr_metric_set *set, const hr_label *labels, size_t n_labels) {
    assert(n_labels < HR_METRIC_MAX_LABELS);
    for (; set->n_labels < n_labels; set->n_labels++) {
        hr_label *copy = &set->labels[set->n_labels];
        *copy = (hr_label){strdup(labels[set->n_labels].name), strdup(labels[set->n_labels].value)};
        if (copy->name != NULL && copy->value != NULL) continue;
        free((char *)copy->name);
        free((char *)copy->value);
        return false;
    }
    return true;
}

hr_metric_set *hr_metric_set_create(const hr_metric_family *families, size_t n_families,
                                    const hr_label *labels, size_t n_labels) {
    hr_metric_set *set = calloc(1, sizeof *set + n_families * sizeof *set->first);
    if (set == NULL) return NULL;
    set->families = families;
    set->n_families = n_families;
    for (size_t f = 0; f < n_families; f++) {
        assert(families[f].n_bounds <= HR_METRIC_MAX_BOUNDS && families[f].kind != HR_METRIC_GAUGE);
        set->first[f] = (uint32_t)set->n_row;
        set->n_row += cells_of(&families[f]);
    }
    set->n_row = (set->n_row + LINE_CELLS - 1) / LINE_CELLS * LINE_CELLS;
    if (map_cells(set) && copy_labels(set, labels, n_labels)) return set;
    hr_metric_set_destroy(set);
    return NULL;
}

void hr_metric_set_destroy(hr_metric_set *set) {
    if (set == NULL) return;
    for (size_t i = 0; i < set->n_labels; i++) {
        free((char *)set->labels[i].name);
        free((char *)set->labels[i].value);
    }
    if (set->cells != NULL) munmap(set->cells, cells_nbytes(set));
    free(set);
}

/* A slot of one's own needs no atomic addition: nobody else writes there, and who reads sees the old or the
 * new value. */
static void add(cell *at, uint32_t slot, uint64_t n) {
    if (slot == HR_METRIC_SHARED_SLOT)
        atomic_fetch_add_explicit(at, n, memory_order_relaxed);
    else
        atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + n, memory_order_relaxed);
}

void hr_metric_count(hr_metric_set *set, uint32_t family, uint32_t value, uint64_t n) {
    assert(family < set->n_families && value < cells_of(&set->families[family]));
    uint32_t slot = hr_metric__slot();
    add(&set->cells[slot * set->n_row + set->first[family] + value], slot, n);
}

void hr_metric_observe(hr_metric_set *set, uint32_t family, uint64_t value) {
    assert(family < set->n_families && set->families[family].kind == HR_METRIC_HISTOGRAM);
    const hr_metric_family *row = &set->families[family];
    uint32_t slot = hr_metric__slot();
    cell *at = &set->cells[slot * set->n_row + set->first[family]];
    uint32_t bucket = 0;
    while (bucket < row->n_bounds && value > row->bounds[bucket]) bucket++;
    add(&at[bucket], slot, 1);
    add(&at[row->n_bounds + 1], slot, value);
}

static uint64_t sum_of(const hr_metric_set *set, uint32_t index) {
    uint64_t sum = 0;
    for (size_t slot = 0; slot < HR_METRIC_SLOTS; slot++)
        sum += atomic_load_explicit(&set->cells[slot * set->n_row + index], memory_order_relaxed);
    return sum;
}

uint64_t hr_metric_counted(const hr_metric_set *set, uint32_t family, uint32_t value) {
    return sum_of(set, set->first[family] + value);
}

static void print_counter(hr_metrics_text *text, const hr_metric_set *set, size_t f) {
    const hr_metric_family *family = &set->families[f];
    hr_label labels[HR_METRIC_MAX_LABELS];
    memcpy(labels, set->labels, sizeof labels);
    if (family->label == NULL) {
        hr_metrics_text_sample(text, (double)sum_of(set, set->first[f]), labels, set->n_labels);
        return;
    }
    for (uint32_t v = 0; v < family->n_values; v++) {
        if (family->values[v] == NULL) continue;
        labels[set->n_labels] = (hr_label){family->label, family->values[v]};
        hr_metrics_text_sample(text, (double)sum_of(set, set->first[f] + v), labels, set->n_labels + 1);
    }
}

static void print_histogram(hr_metrics_text *text, const hr_metric_set *set, size_t f) {
    const hr_metric_family *family = &set->families[f];
    uint64_t counts[HR_METRIC_MAX_BOUNDS + 1];
    for (uint32_t b = 0; b <= family->n_bounds; b++) counts[b] = sum_of(set, set->first[f] + b);
    const hr_metrics_buckets buckets = {.bounds = family->bounds,
                                        .n_bounds = family->n_bounds,
                                        .counts = counts,
                                        .sum = sum_of(set, set->first[f] + family->n_bounds + 1),
                                        .divisor = family->divisor > 0 ? family->divisor : 1};
    hr_metrics_text_histogram(text, &buckets, set->labels, set->n_labels);
}

void hr_metric_sets_print(hr_metrics_text *text, const hr_metric_family *families, size_t n_families,
                          hr_metric_set *const *sets, size_t n_sets) {
    for (size_t f = 0; f < n_families; f++) {
        hr_metrics_text_family(text, families[f].kind, families[f].name, families[f].help);
        for (size_t s = 0; s < n_sets; s++) {
            if (f >= sets[s]->n_families) continue;
            if (families[f].kind == HR_METRIC_HISTOGRAM)
                print_histogram(text, sets[s], f);
            else
                print_counter(text, sets[s], f);
        }
    }
}

/* ---- The registry ---- */

typedef struct collector {
    void (*collect)(hr_metrics_text *text, void *arg);
    void *arg;
} collector;

struct hr_metrics {
    pthread_mutex_t lock;  /* guards the collectors; held while they run */
    collector *collectors; /* (n_collectors) owned */
    size_t n_collectors;
};

hr_metrics *hr_metrics_create(void) {
    hr_metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics != NULL) pthread_mutex_init(&metrics->lock, NULL);
    return metrics;
}

void hr_metrics_destroy(hr_metrics *metrics) {
    if (metrics == NULL) return;
    pthread_mutex_destroy(&metrics->lock);
    free(metrics->collectors);
    free(metrics);
}

hr_status hr_metrics_add(hr_metrics *metrics, void (*collect)(hr_metrics_text *text, void *arg), void *arg,
                         hr_error *err) {
    if (metrics == NULL) return HR_OK;
    pthread_mutex_lock(&metrics->lock);
    collector *grown = realloc(metrics->collectors, (metrics->n_collectors + 1) * sizeof *grown);
    if (grown != NULL) {
        metrics->collectors = grown;
        grown[metrics->n_collectors++] = (collector){collect, arg};
    }
    pthread_mutex_unlock(&metrics->lock);
    return grown != NULL ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "metrics: no memory");
}

hr_status hr_metrics_print(hr_metrics *metrics, char **text, size_t *nbytes, hr_error *err) {
    *text = NULL;
    hr_metrics_text to = {.out = open_memstream(text, nbytes)};
    if (to.out == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "metrics: no memory");
    pthread_mutex_lock(&metrics->lock);
    for (size_t i = 0; i < metrics->n_collectors; i++)
        metrics->collectors[i].collect(&to, metrics->collectors[i].arg);
    pthread_mutex_unlock(&metrics->lock);
    bool failed = ferror(to.out) != 0;
    if (fclose(to.out) == 0 && !failed) return HR_OK;
    free(*text);
    *text = NULL;
    return hr_error_set(err, HR_OUT_OF_MEMORY, "metrics: no memory to print them");
}
