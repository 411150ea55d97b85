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

/* The next character's UTF-16 code units: 1 or 2. */
static size_t next_units(const unsigned char **at, const unsigned char *end, uint32_t units[2]) {
    if (**at < 0x80) {
        units[0] = *(*at)++;
        return 1;
    }
    size_t length = hr_utf8_char(*at, (size_t)(end - *at));
    uint32_t code = length == 0 ? **at : character(*at, length);
    *at += length == 0 ? 1 : length; /* never 0 in valid UTF-8 */
    units[0] = code < 0x10000 ? code : 0xD800 + ((code - 0x10000) >> 10);
    units[1] = 0xDC00 + ((code - 0x10000) & 0x3FF);
    return code < 0x10000 ? 1 : 2;
}

uint32_t hr_fnv_add(uint32_t state, hr_js_text text) {
    const unsigned char *at = (const unsigned char *)text.bytes, *end = at + text.nbytes;
    while (at < end) {
        uint32_t units[2];
        size_t n = next_units(&at, end, units);
        for (size_t i = 0; i < n; i++) state = add_unit(state, units[i]);
    }
    return state;
}

/* The state behind two digits. */
static uint32_t add_pair(uint32_t state, uint32_t pair) {
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
        "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
        "8081828384858687888990919293949596979899";
    state = add_unit(state, (unsigned char)pairs[pair * 2]);
    return add_unit(state, (unsigned char)pairs[pair * 2 + 1]);
}

/* One hash of forty has a text as short as that. */
__attribute__((noinline)) static uint32_t add_short_decimal(uint32_t state, uint32_t n) {
    uint32_t unit = 1;
    while (n / unit >= 10) unit *= 10;
    for (; unit > 0; unit /= 10) state = add_unit(state, '0' + n / unit % 10);
    return state;
}

/* The state behind the decimal text of n. */
static inline uint32_t add_decimal(uint32_t state, uint32_t n) {
    const uint32_t high = n / 100000000, middle = n / 10000 % 10000, low = n % 10000;
    if (high == 0) return add_short_decimal(state, n);
    const uint32_t has_tenth =
        -(uint32_t)(high >= 10); /* a mask: a branch would be a user's hash to foresee */
    state ^= (state ^ add_unit(state, '0' + high / 10)) & has_tenth;
    state = add_unit(state, '0' + high % 10);
    state = add_pair(add_pair(state, middle / 100), middle % 100);
    return add_pair(add_pair(state, low / 100), low % 100);
}

static inline uint32_t bucket_2(uint32_t state) {
    return add_decimal(HR_FNV_BASIS, state) % 10000;
}

uint32_t hr_fnv_bucket(uint32_t state, int version) {
    return version == 2 ? bucket_2(state) : state % 1000;
}

void hr_fnv_buckets(const uint32_t states[HR_HASH_LANES], hr_js_text value, uint32_t buckets[HR_HASH_LANES]) {
    const unsigned char *at = (const unsigned char *)value.bytes, *end = at + value.nbytes;
    uint32_t hash[HR_HASH_LANES];
    for (int l = 0; l < HR_HASH_LANES; l++) hash[l] = states[l];
    for (; at < end && *at < 0x80; at++) /* most ids, in all */
        for (int l = 0; l < HR_HASH_LANES; l++) hash[l] = add_unit(hash[l], *at);
    while (at < end) {
        uint32_t units[2];
        size_t n = next_units(&at, end, units);
        for (size_t i = 0; i < n; i++)
            for (int l = 0; l < HR_HASH_LANES; l++) hash[l] = add_unit(hash[l], units[i]);
    }
    for (int l = 0; l < HR_HASH_LANES; l++) buckets[l] = bucket_2(hash[l]);
}

/* The first bucket whose place is not before `at`; their number where there is none. */
static uint32_t first_bucket_at(double at, int version) {
    uint32_t first = 0, end = version == 2 ? 10000 : 1000;
    while (first < end) {
        uint32_t middle = (first + end) / 2;
        if (hr_bucket_place(middle, version) >= at)
            end = middle;
        else
            first = middle + 1;
    }
    return first;
}

hr_bucket_span hr_bucket_span_of(hr_range range, int version) {
    uint32_t first = first_bucket_at(range.start, version), end = first_bucket_at(range.end, version);
    return (hr_bucket_span){.first = first, .n = end > first ? end - first : 0};
}

bool hr_hash(hr_js_text seed, hr_js_text value, int version, double *bucket) {
    if (version != 1 && version != 2) return false;
    uint32_t state = hr_fnv_add(HR_FNV_BASIS, version == 2 ? seed : value);
    state = hr_fnv_add(state, version == 2 ? value : seed);
    *bucket = hr_bucket_place(hr_fnv_bucket(state, version), version);
    return true;
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
