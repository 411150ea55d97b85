/* How long a batch takes: see service_time.h. */
#include "service/service_time.h"

enum { SAMPLES = 8, OUTLIER = 4 };

static uint64_t get(const atomic_ullong *value) {
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void set(atomic_ullong *value, uint64_t to) {
    atomic_store_explicit(value, to, memory_order_relaxed);
}

static uint32_t size_of(uint32_t n_rows) {
    uint32_t size = 0;
    while (size + 1 < HR_SERVICE_TIME_SIZES && n_rows >> (size + 1) != 0) size++;
    return size;
}

/* The average moved towards the sample by 1/weight of the way. */
static uint64_t moved(uint64_t average, uint64_t sample, uint32_t weight) {
    return sample >= average ? average + (sample - average) / weight : average - (average - sample) / weight;
}

void hr_service_time_add(hr_service_time *time, uint32_t n_rows, uint64_t ns, uint64_t now_ns) {
    uint32_t size = size_of(n_rows);
    uint32_t n = atomic_load_explicit(&time->sizes[size].n_samples, memory_order_relaxed);
    uint32_t weight = n < SAMPLES ? n + 1 : SAMPLES;
    uint64_t average = get(&time->sizes[size].ns);
    if (ns == 0) ns = 1; /* zero stands for none */
    if (n > 0 && ns > OUTLIER * average) ns = OUTLIER * average;
    set(&time->sizes[size].ns, moved(average, ns, weight));
    set(&time->sizes[size].rows_q8, moved(get(&time->sizes[size].rows_q8), (uint64_t)n_rows << 8, weight));
    if (n < SAMPLES) atomic_store_explicit(&time->sizes[size].n_samples, n + 1, memory_order_relaxed);
    set(&time->measured_ns, now_ns);
}

uint64_t hr_service_time_estimate(const hr_service_time *time, uint32_t n_rows) {
    uint64_t most = 0;
    for (uint32_t size = 0; size < HR_SERVICE_TIME_SIZES; size++) {
        uint64_t ns = get(&time->sizes[size].ns), rows_q8 = get(&time->sizes[size].rows_q8);
        if (ns == 0 || rows_q8 == 0) continue;
        if (rows_q8 > (uint64_t)n_rows << 8) ns = (uint64_t)((double)ns * 256.0 * n_rows / (double)rows_q8);
        if (ns > most) most = ns;
    }
    return most;
}

uint64_t hr_service_time_measured_ns(const hr_service_time *time) {
    return get(&time->measured_ns);
}
