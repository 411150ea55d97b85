/* A Redis store's counts while they grow: written by its loop's thread alone, read by any. Private to
 * features/. */
#ifndef HOMERANK_FEATURES_REDIS_COUNTS_H
#define HOMERANK_FEATURES_REDIS_COUNTS_H

#include <stdatomic.h>

#include "features/store.h"

typedef struct hr_redis_counts {
#define HR_REDIS_COUNT_MEMBER(name, text) atomic_uint_least64_t name;
    HR_STORE_COUNT_MAP(HR_REDIS_COUNT_MEMBER)
#undef HR_REDIS_COUNT_MEMBER
} hr_redis_counts;

/* There is one writer, so that no locked instruction is needed. */
static inline void hr_redis_count(atomic_uint_least64_t *count, uint64_t n) {
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n, memory_order_relaxed);
}

#endif
