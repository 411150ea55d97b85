/* What keeps cached records true: see cache_cover.h. An epoch is never handed out twice, not even to the next
 * user of a source's place. */
#include "features/cache_cover.h"

#define EPOCH_MASK ((UINT64_C(1) << 48) - 1)

int hr_cache_source_open(hr_cache_covers *covers) {
    for (int i = 0; i < HR_CACHE_MAX_SOURCES; i++) {
        if (covers->used[i]) continue;
        covers->used[i] = true;
        return i;
    }
    return -1;
}

void hr_cache_source_close(hr_cache_covers *covers, int source, uint64_t now_ns) {
    if (source < 0) return;
    hr_cache_cover_end(covers, source, now_ns);
    covers->used[source] = false;
}

hr_cover hr_cache_cover_begin(hr_cache_covers *covers, int source) {
    uint64_t epoch = atomic_load_explicit(&covers->epochs[source], memory_order_relaxed);
    if (epoch == 0) { /* so that no cover is 0 */
        epoch = 1;
        atomic_store_explicit(&covers->epochs[source], epoch, memory_order_release);
    }
    return (uint64_t)source << 48 | epoch;
}

void hr_cache_cover_end(hr_cache_covers *covers, int source, uint64_t now_ns) {
    const uint64_t epoch = atomic_load_explicit(&covers->epochs[source], memory_order_relaxed);
    atomic_store_explicit(&covers->ends_ns[source][epoch % HR_CACHE_ENDS_REMEMBERED], now_ns,
                          memory_order_release);
    atomic_store_explicit(&covers->epochs[source], epoch + 1, memory_order_release);
    atomic_fetch_add(&covers->n_losses, 1);
}

uint64_t hr_cache_cover_end_ns(const hr_cache_covers *covers, hr_cover cover) {
    const uint64_t epoch = cover & EPOCH_MASK;
    const unsigned source = (unsigned)(cover >> 48);
    uint64_t end_ns = atomic_load_explicit(&covers->ends_ns[source][epoch % HR_CACHE_ENDS_REMEMBERED],
                                           memory_order_acquire);
    const uint64_t now = atomic_load_explicit(&covers->epochs[source], memory_order_acquire);
    if (now == epoch) return UINT64_MAX;
    /* Read before its epoch: had its place been taken by another end meanwhile, the epoch would be that far
     * on.
     */
    return now - epoch < HR_CACHE_ENDS_REMEMBERED ? end_ns : 0;
}

hr_cover hr_cache_cover_of_state(hr_cache_covers *covers, int source, uint64_t state) {
    uint64_t newest = atomic_load_explicit(&covers->epochs[source], memory_order_relaxed);
    state &= EPOCH_MASK;
    while (newest < state &&
           !atomic_compare_exchange_weak_explicit(&covers->epochs[source], &newest, state,
                                                  memory_order_release, memory_order_relaxed)) {
    }
    return state == 0 ? 0 : (uint64_t)source << 48 | state;
}
