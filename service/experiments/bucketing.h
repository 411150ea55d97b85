/* Hashing users into buckets, as the GrowthBook SDK's specification has it ("Build your own SDK": hash,
 * getBucketRanges, chooseVariation, inNamespace). Private to service/experiments.
 *
 * The hash is FNV-1a over UTF-16 code units. Version 1 hashes value + seed into 1,000 buckets, version 2
 * hashes seed + value, and its decimal text again, into 10,000. Either begins with a part that many hashes
 * share, so the state behind that part can be kept. Pure; any thread.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_BUCKETING_H
#define HOMERANK_SERVICE_EXPERIMENTS_BUCKETING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/experiments/js_value.h"

#define HR_FNV_BASIS 0x811c9dc5u

/* [start, end) of the buckets' line from 0 to 1. */
typedef struct hr_range {
    double start, end;
} hr_range;

/* The state behind more text. */
uint32_t hr_fnv_add(uint32_t state, hr_js_text text);

/* The number of the bucket of a state behind all the text, of version 1 (0 to 999) or 2 (0 to 9,999); and
 * where it lies between 0 and 1. */
uint32_t hr_fnv_bucket(uint32_t state, int version);
static inline double hr_bucket_place(uint32_t bucket, int version) {
    return bucket / (version == 2 ? 10000.0 : 1000.0);
}

/* The buckets of version 2 behind the same value, for HR_HASH_LANES states side by side: a hash waits for its
 * own multiplications, and several together cost hardly more than one. */
enum { HR_HASH_LANES = 4 };
void hr_fnv_buckets(const uint32_t states[HR_HASH_LANES], hr_js_text value, uint32_t buckets[HR_HASH_LANES]);

/* hash(seed, value, version). False where the version is neither 1 nor 2. */
bool hr_hash(hr_js_text seed, hr_js_text value, int version, double *bucket);

/* The buckets [first, first + n) of a version: those whose place lies in a range, and no others. */
typedef struct hr_bucket_span {
    uint32_t first, n;
} hr_bucket_span;
hr_bucket_span hr_bucket_span_of(hr_range range, int version);

/* hr_choose_variation of a bucket's number: one comparison a range, for two would have a user's bucket
 * decide a branch, which no processor foresees. */
static inline int hr_choose_span(uint32_t bucket, const hr_bucket_span *spans, size_t n_spans) {
    for (size_t i = 0; i < n_spans; i++)
        if (bucket - spans[i].first < spans[i].n) return (int)i;
    return -1;
}

static inline bool hr_in_range(double bucket, hr_range range) {
    return bucket >= range.start && bucket < range.end;
}

/* The first range that holds the bucket; -1 where none does. */
static inline int hr_choose_variation(double bucket, const hr_range *ranges, size_t n_ranges) {
    for (size_t i = 0; i < n_ranges; i++)
        if (hr_in_range(bucket, ranges[i])) return (int)i;
    return -1;
}

void hr_equal_weights(size_t n, double *weights); /* weights: (n) */

/* Ranges of n_variations, of which each gets coverage (clamped to [0, 1]) of its weight. Weights (n_weights)
 * that are of another number, or do not add up to 1 (0.99 to 1.01), are taken as equal; NULL: equal. */
void hr_bucket_ranges(size_t n_variations, double coverage, const double *weights, size_t n_weights,
                      hr_range *ranges); /* ranges: (n_variations) */

/* Whether weights add up to 1 by the specification's measure. */
bool hr_weights_add_up(const double *weights, size_t n);

#endif
