/* A histogram of unsigned values with fixed relative precision (HDR-style: log-linear buckets, 1/64 of the
 * value), for latencies. Fixed size, no allocation to record.
 * Thread rule: one writer at a time; merge per-thread histograms to read a total. */
#ifndef HOMERANK_BASE_HISTOGRAM_H
#define HOMERANK_BASE_HISTOGRAM_H

#include <stdint.h>

enum {
    HR_HISTOGRAM_SUB_BITS = 7,
    HR_HISTOGRAM_BUCKETS = (64 - HR_HISTOGRAM_SUB_BITS + 2) << (HR_HISTOGRAM_SUB_BITS - 1)
};

typedef struct hr_histogram {
    uint64_t counts[HR_HISTOGRAM_BUCKETS];
    uint64_t count, sum, min, max;
} hr_histogram;

void hr_histogram_reset(hr_histogram *histogram);
void hr_histogram_record(hr_histogram *histogram, uint64_t value);
void hr_histogram_merge(hr_histogram *into, const hr_histogram *from);

/* The largest value that counts[bucket] counts. */
uint64_t hr_histogram_bucket_top(unsigned bucket);

/* The value at quantile q in [0, 1], within 1/64 above the true one and never above max; 0 where empty. */
uint64_t hr_histogram_quantile(const hr_histogram *histogram, double q);

#endif
