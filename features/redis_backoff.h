/* How long to wait before the next attempt: twice as long after each failure, up to a most, and with jitter,
 * so that many clients do not come back in step. Private to features/. */
#ifndef HOMERANK_FEATURES_REDIS_BACKOFF_H
#define HOMERANK_FEATURES_REDIS_BACKOFF_H

#include <stdint.h>

typedef struct hr_redis_backoff {
    uint32_t first_ms, most_ms, next_ms;
    uint64_t random; /* xorshift state, never 0 */
} hr_redis_backoff;

/* first_ms >= 1. Two backoffs of one moment differ. */
hr_redis_backoff hr_redis_backoff_init(uint32_t first_ms, uint32_t most_ms);

/* The next wait: from half of it to all of it. */
uint32_t hr_redis_backoff_next_ms(hr_redis_backoff *backoff);

/* After a success: the next wait is the first again. */
void hr_redis_backoff_reset(hr_redis_backoff *backoff);

#endif
