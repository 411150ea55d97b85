/* Backoff: see redis_backoff.h. */
#include "features/redis_backoff.h"

#include <stdatomic.h>

#include "base/clock.h"

hr_redis_backoff hr_redis_backoff_init(uint32_t first_ms, uint32_t most_ms) {
    static atomic_uint_least64_t n_made; /* tells backoffs of one nanosecond apart */
    uint64_t nth = atomic_fetch_add_explicit(&n_made, 1, memory_order_relaxed) + 1;
    return (hr_redis_backoff){.first_ms = first_ms,
                              .most_ms = most_ms,
                              .next_ms = first_ms,
                              .random = (hr_clock_ns() ^ nth * UINT64_C(0x9E3779B97F4A7C15)) | 1};
}

uint32_t hr_redis_backoff_next_ms(hr_redis_backoff *b) {
    uint32_t wait_ms = b->next_ms;
    b->next_ms = wait_ms > b->most_ms / 2 ? b->most_ms : wait_ms * 2;
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return wait_ms - (uint32_t)(b->random % (wait_ms / 2 + 1));
}

void hr_redis_backoff_reset(hr_redis_backoff *b) {
    b->next_ms = b->first_ms;
}
