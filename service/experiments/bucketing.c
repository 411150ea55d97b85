/* Hashing users into buckets: see bucketing.h. */
#include "service/experiments/bucketing.h"

#include "base/utf8.h"

enum { FNV_PRIME = 0x01000193 };

static uint32_t add_unit(uint32_t state, uint32_t unit) {
    return (state ^ unit) * FNV_PRIME;
}

/* The character at p, of `length` bytes. */
static uint32_t character(const unsigned char *p, size_t length) {
    uint32_t code = p[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) code = code << 6 | (p[i] & 0x3F);
    return code;
}

uint32_t hr_fnv_add(uint32_t state, hr_js_text text) {
    const unsigned char *at = (const unsigned char *)text.bytes, *end = at + text.nbytes;
    while (at < end) {
        if (*at < 0x80) {
            state = add_unit(state, *at++);
            continue;
        }
        size_t length = hr_utf8_char(at, (size_t)(end - at));
        if (length == 0) length = 1; /* never in valid UTF-8 */
        uint32_t code = length == 1 ? *at : character(at, length);
        at += length;
        if (code < 0x10000) {
            state = add_unit(state, code);
        } else {
            state = add_unit(state, 0xD800 + ((code - 0x10000) >> 10));
            state = add_unit(state, 0xDC00 + ((code - 0x10000) & 0x3FF));
        }
    }
    return state;
}

/* The state behind the decimal text of n. */
static uint32_t add_decimal(uint32_t state, uint32_t n) {
    unsigned char digits[10];
    int i = 10;
    do {
        digits[--i] = (unsigned char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    for (; i < 10; i++) state = add_unit(state, digits[i]);
    return state;
}

uint32_t hr_fnv_bucket(uint32_t state, int version) {
    return version == 2 ? add_decimal(HR_FNV_BASIS, state) % 10000 : state % 1000;
}

double hr_bucket_place(uint32_t bucket, int version) {
    return bucket / (version == 2 ? 10000.0 : 1000.0);
}

bool hr_hash(hr_js_text seed, hr_js_text value, int version, double *bucket) {
    if (version != 1 && version != 2) return false;
    uint32_t state = hr_fnv_add(HR_FNV_BASIS, version == 2 ? seed : value);
    state = hr_fnv_add(state, version == 2 ? value : seed);
    *bucket = hr_bucket_place(hr_fnv_bucket(state, version), version);
    return true;
}

int hr_choose_variation(double bucket, const hr_range *ranges, size_t n_ranges) {
    for (size_t i = 0; i < n_ranges; i++)
        if (hr_in_range(bucket, ranges[i])) return (int)i;
    return -1;
}

void hr_equal_weights(size_t n, double *weights) {
    for (size_t i = 0; i < n; i++) weights[i] = 1.0 / (double)n;
}

bool hr_weights_add_up(const double *weights, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += weights[i];
    return sum >= 0.99 && sum <= 1.01;
}

void hr_bucket_ranges(size_t n_variations, double coverage, const double *weights, size_t n_weights,
                      hr_range *ranges) {
    coverage = coverage < 0 ? 0 : coverage > 1 ? 1 : coverage;
    bool equal = weights == NULL || n_weights != n_variations || !hr_weights_add_up(weights, n_weights);
    double cumulative = 0;
    for (size_t i = 0; i < n_variations; i++) {
        double weight = equal ? 1.0 / (double)n_variations : weights[i];
        ranges[i] = (hr_range){.start = cumulative, .end = cumulative + coverage * weight};
        cumulative += weight;
    }
}
