/* Which slot a thread has: see metrics_internal.h. A slot is free again when its thread ends; the values in
 * it stay, and the next owner adds to them. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/metrics_internal.h"

static atomic_uint_fast64_t taken; /* a bit per slot that has an owner */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* its destructor gives the slot back */
static bool key_is_made;
static _Thread_local uint32_t own; /* slot + 1; 0: none yet */

/* What the ending thread still records, in another destructor, goes to the shared slot. */
static void give_back(void *arg) {
    own = HR_METRIC_SHARED_SLOT + 1;
    atomic_fetch_and_explicit(&taken, ~(UINT64_C(1) << ((uintptr_t)arg - 1)), memory_order_release);
}

static void make_key(void) {
    key_is_made = pthread_key_create(&key, give_back) == 0;
}

/* Takes the lowest free slot; the acquire pairs with give_back's release: the last owner's values are seen.
 */
static uint32_t take(void) {
    uint64_t seen = atomic_load_explicit(&taken, memory_order_relaxed);
    uint32_t slot;
    do {
        slot = (uint32_t)__builtin_ctzll(~seen | UINT64_C(1) << HR_METRIC_SHARED_SLOT);
        if (slot == HR_METRIC_SHARED_SLOT) return slot;
    } while (!atomic_compare_exchange_weak_explicit(&taken, &seen, seen | UINT64_C(1) << slot,
                                                    memory_order_acquire, memory_order_relaxed));
    return slot;
}

uint32_t hr_metric__slot(void) {
    if (own != 0) return own - 1;
    pthread_once(&once, make_key);
    uint32_t slot = key_is_made ? take() : HR_METRIC_SHARED_SLOT;
    if (slot != HR_METRIC_SHARED_SLOT && pthread_setspecific(key, (void *)(uintptr_t)(slot + 1)) != 0) {
        atomic_fetch_and(&taken, ~(UINT64_C(1) << slot));
        slot = HR_METRIC_SHARED_SLOT;
    }
    own = slot + 1;
    return slot;
}
