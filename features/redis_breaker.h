/* Whether a node may be asked at all: a circuit breaker, and what it needs to know of the node's answers.
 *
 *            failures in a row                   the node answers a PING
 *   CLOSED -------------------> OPEN <----------------------------------> HALF OPEN
 *     ^                               one read more fails                     |
 *     +-----------------------------------------------------------------------+
 *                                     one read is answered
 *
 * While it is open nobody waits for the node; while it is half open one read at a time finds out. No clock
 * and no I/O here: the caller says what time it is.
 *
 * Thread rule: one thread at a time. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_BREAKER_H
#define HOMERANK_FEATURES_REDIS_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "features/redis_backoff.h"

enum { HR_BREAKER_FAILURES = 5, HR_BREAKER_FIRST_MS = 50, HR_BREAKER_MOST_MS = 500 };

typedef struct hr_redis_breaker {
    enum { HR_BREAKER_CLOSED, HR_BREAKER_OPEN, HR_BREAKER_HALF_OPEN } state;
    uint32_t n_failures;     /* in a row */
    uint64_t probe_until_ns; /* HALF_OPEN: a read is under way until then; 0: none is */
    uint64_t probe_ns;       /* how long one may be */
    hr_redis_backoff backoff;
} hr_redis_breaker;

hr_redis_breaker hr_redis_breaker_init(uint64_t probe_ns);

/* May a read be sent now? `take` also takes the half open breaker's one. */
bool hr_redis_breaker_admits(const hr_redis_breaker *breaker, uint64_t now_ns);
void hr_redis_breaker_take(hr_redis_breaker *breaker, uint64_t now_ns);

/* A read was answered, or failed. `failed` is true where that opens the breaker: the node is to be asked by a
 * PING after hr_redis_breaker_wait_ms, and again after each that fails. */
void hr_redis_breaker_answered(hr_redis_breaker *breaker);
bool hr_redis_breaker_failed(hr_redis_breaker *breaker);
uint32_t hr_redis_breaker_wait_ms(hr_redis_breaker *breaker);

/* The node has answered a PING; nothing where the breaker is closed. */
void hr_redis_breaker_half_open(hr_redis_breaker *breaker);

/* The last answers' times, for "slower than most". */
enum { HR_LATENCY_SAMPLES = 128 };
typedef struct hr_redis_latency {
    uint32_t us[HR_LATENCY_SAMPLES]; /* ring */
    uint32_t n_samples;              /* ever, but never past 2^31 */
    uint32_t p50_us, p95_us;         /* of the ring as of some samples ago; 0: not known yet */
} hr_redis_latency;

void hr_redis_latency_add(hr_redis_latency *latency, uint64_t ns);

#endif
