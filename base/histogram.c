/* Log-linear buckets: see histogram.h.
 *
 * Values below 128 have a bucket each. Above, every power of two is cut into 64 buckets of equal width, so
 * that a bucket's largest value is within 1/64 above any other in it.
 */
#include "base/histogram.h"

#include <string.h>

enum { HALF = 1 << (HR_HISTOGRAM_SUB_BITS - 1) };

static unsigned bucket_shift(uint64_t value) {
    unsigned top_bit = 63u - (unsigned)__builtin_clzll(value | 1);
    return top_bit < HR_HISTOGRAM_SUB_BITS ? 0 : top_bit - (HR_HISTOGRAM_SUB_BITS - 1);
}

static unsigned bucket_of(uint64_t value) {
    unsigned shift = bucket_shift(value);
    return shift * HALF + (unsigned)(value >> shift);
}

uint64_t hr_histogram_bucket_top(unsigned bucket) {
    if (bucket < 2 * HALF) return bucket;
    unsigned shift = bucket / HALF - 1;
    uint64_t lowest = (uint64_t)(bucket - shift * HALF) << shift;
    return lowest + ((UINT64_C(1) << shift) - 1);
}

void hr_histogram_reset(hr_histogram *histogram) {
    memset(histogram, 0, sizeof *histogram);
}

void hr_histogram_record(hr_histogram *histogram, uint64_t value) {
    histogram->counts[bucket_of(value)]++;
    if (histogram->count == 0 || value < histogram->min) histogram->min = value;
    if (value > histogram->max) histogram->max = value;
    histogram->count++;
    histogram->sum += value;
}

void hr_histogram_merge(hr_histogram *into, const hr_histogram *from) {
    if (from->count == 0) return;
    for (unsigned i = 0; i < HR_HISTOGRAM_BUCKETS; i++) into->counts[i] += from->counts[i];
    if (into->count == 0 || from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
    into->count += from->count;
    into->sum += from->sum;
}

/* The 1-based rank of quantile q: the smallest r with r >= q * count. */
static uint64_t quantile_rank(uint64_t count, double q) {
    if (!(q > 0)) return 1;
    double exact = q * (double)count;
    if (exact >= (double)count) return count;
    uint64_t rank = (uint64_t)exact;
    return (double)rank < exact ? rank + 1 : rank > 0 ? rank : 1;
}

uint64_t hr_histogram_quantile(const hr_histogram *histogram, double q) {
    if (histogram->count == 0) return 0;
    uint64_t rank = quantile_rank(histogram->count, q);
    uint64_t seen = 0;
    for (unsigned i = 0; i < HR_HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen < rank) continue;
        uint64_t top = hr_histogram_bucket_top(i);
        return top < histogram->max ? top : histogram->max;
    }
    return histogram->max;
}
