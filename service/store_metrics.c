/* What a feature store and its cache count: see store_metrics.h. */
#include "service/store_metrics.h"

#include <stddef.h>

#include "features/store.h"

typedef struct family {
    const char *name, *help;
    size_t offset; /* of a uint64_t */
} family;

#define COUNT(member, text)                                                                                  \
    {"homerank_store_" #member "_total", "Feature store: " text ".", offsetof(hr_store_counts, member)},
static const family store_counters[] = {HR_STORE_COUNT_MAP(COUNT)};

#define OF_CACHE(member) offsetof(hr_cache_stats, member)
static const family cache_counters[] = {
    {"homerank_cache_hits_total", "Records found in the cache, absent ones too.", OF_CACHE(n_hits)},
    {"homerank_cache_negative_hits_total", "Records found in the cache to be absent.",
     OF_CACHE(n_negative_hits)},
    {"homerank_cache_misses_total", "Records that the cache did not have: asked of the store.",
     OF_CACHE(n_misses)},
    {"homerank_cache_joins_total", "Records that another request had just asked for: waited for with it.",
     OF_CACHE(n_joins)},
    {"homerank_cache_stale_total", "Records past their time that stood in because the store did not answer.",
     OF_CACHE(n_stale)},
    {"homerank_cache_evictions_total", "Entries given up for room.", OF_CACHE(n_evictions)},
    {"homerank_cache_invalidations_total", "Entries that a change of their record outdated.",
     OF_CACHE(n_invalidations)},
    {"homerank_cache_losses_total",
     "Times that all entries from a server were doubtful: it could not tell of changes, or was emptied.",
     OF_CACHE(n_losses)},
};
static const family cache_gauges[] = {
    {"homerank_cache_bytes", "Memory of the cache, its tables included.", OF_CACHE(nbytes)},
    {"homerank_cache_entries", "Entries of the cache.", OF_CACHE(n_entries)},
};

static void print(hr_metrics_text *text, hr_metric_kind kind, const family *families, size_t n,
                  const void *values) {
    for (size_t i = 0; i < n; i++) {
        const uint64_t *value = (const uint64_t *)((const char *)values + families[i].offset);
        hr_metrics_text_family(text, kind, families[i].name, families[i].help);
        hr_metrics_text_sample(text, (double)*value, NULL, 0);
    }
}

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

void hr_store_metrics_collect(hr_metrics_text *text, void *store) {
    hr_store_counts counts;
    hr_cache_stats stats;
    if (hr_store_count(store, &counts))
        print(text, HR_METRIC_COUNTER, store_counters, N_OF(store_counters), &counts);
    if (!hr_store_cache_stats(store, &stats)) return;
    print(text, HR_METRIC_COUNTER, cache_counters, N_OF(cache_counters), &stats);
    print(text, HR_METRIC_GAUGE, cache_gauges, N_OF(cache_gauges), &stats);
}
