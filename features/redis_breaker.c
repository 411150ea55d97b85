/* Circuit breaker and latency: see redis_breaker.h. */
#include "features/redis_breaker.h"

#include <stdlib.h>
#include <string.h>

hr_redis_breaker hr_redis_breaker_init(uint64_t probe_ns) {
    return (hr_redis_breaker){.probe_ns = probe_ns,
                              .backoff = hr_redis_backoff_init(HR_BREAKER_FIRST_MS, HR_BREAKER_MOST_MS)};
}

bool hr_redis_breaker_admits(const hr_redis_breaker *b, uint64_t now_ns) {
    return b->state == HR_BREAKER_CLOSED || (b->state == HR_BREAKER_HALF_OPEN && now_ns >= b->probe_until_ns);
}

void hr_redis_breaker_take(hr_redis_breaker *b, uint64_t now_ns) {
    if (b->state == HR_BREAKER_HALF_OPEN) b->probe_until_ns = now_ns + b->probe_ns;
}

void hr_redis_breaker_answered(hr_redis_breaker *b) {
    b->n_failures = 0;
    if (b->state != HR_BREAKER_HALF_OPEN) return; /* what an open one answers was asked before it opened */
    b->state = HR_BREAKER_CLOSED;
    hr_redis_backoff_reset(&b->backoff);
}

bool hr_redis_breaker_failed(hr_redis_breaker *b) {
    b->n_failures += b->n_failures < UINT32_MAX;
    bool opens = b->state == HR_BREAKER_HALF_OPEN ||
                 (b->state == HR_BREAKER_CLOSED && b->n_failures >= HR_BREAKER_FAILURES);
    if (opens) b->state = HR_BREAKER_OPEN;
    return opens;
}

uint32_t hr_redis_breaker_wait_ms(hr_redis_breaker *b) {
    return hr_redis_backoff_next_ms(&b->backoff);
}

void hr_redis_breaker_half_open(hr_redis_breaker *b) {
    if (b->state != HR_BREAKER_OPEN) return;
    b->state = HR_BREAKER_HALF_OPEN;
    b->probe_until_ns = 0;
}

/* --- latency -------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void hr_redis_latency_add(hr_redis_latency *l, uint64_t ns) {
    enum { EVERY = HR_LATENCY_SAMPLES / 4 };
    uint64_t us = ns / 1000;
    l->us[l->n_samples % HR_LATENCY_SAMPLES] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    l->n_samples = l->n_samples + 1 == UINT32_C(1) << 31 ? HR_LATENCY_SAMPLES : l->n_samples + 1;
    if (l->n_samples < HR_LATENCY_SAMPLES || l->n_samples % EVERY != 0) return;
    uint32_t sorted[HR_LATENCY_SAMPLES];
    memcpy(sorted, l->us, sizeof sorted);
    qsort(sorted, HR_LATENCY_SAMPLES, sizeof *sorted, ascending);
    l->p50_us = sorted[HR_LATENCY_SAMPLES / 2];
    l->p95_us = sorted[HR_LATENCY_SAMPLES * 95 / 100];
}
