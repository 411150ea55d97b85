/* What keeps cached records true: covers.
 *
 * A cover is a source of invalidations, the tracking connection to one server, say. While it lasts, whatever
 * was read under it is true until the source says otherwise; when it ends, all of it is doubtful at once.
 * A record carries its cover as a number, so that ending one costs the same however many records it had.
 *
 * Thread rule: one thread opens, begins, ends and closes (the store's own); any may ask. Private to
 * features/.
 */
#ifndef HOMERANK_FEATURES_CACHE_COVER_H
#define HOMERANK_FEATURES_CACHE_COVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { HR_CACHE_MAX_SOURCES = 256, HR_CACHE_ENDS_REMEMBERED = 16 };

/* Source and epoch; 0 is none. */
typedef uint64_t hr_cover;

typedef struct hr_cache_covers {
    _Atomic uint64_t epochs[HR_CACHE_MAX_SOURCES]; /* of the cover that lasts, or else of the next one */
    _Atomic uint64_t ends_ns[HR_CACHE_MAX_SOURCES][HR_CACHE_ENDS_REMEMBERED]; /* by epoch */
    _Atomic uint64_t n_losses;                                                /* covers that have ended */
    bool used[HR_CACHE_MAX_SOURCES];
} hr_cache_covers; /* all zero is right */

/* A source without a cover yet; -1 where there are too many. */
int hr_cache_source_open(hr_cache_covers *covers);
void hr_cache_source_close(hr_cache_covers *covers, int source, uint64_t now_ns); /* -1 is allowed */

/* The cover of what is read from now on. */
hr_cover hr_cache_cover_begin(hr_cache_covers *covers, int source);

/* Also where none lasts. */
void hr_cache_cover_end(hr_cache_covers *covers, int source, uint64_t now_ns);

/* The store is in the state (> 0), or in a later one: the cover of what is read in it. Of a source that is
 * only told of states. */
hr_cover hr_cache_cover_of_state(hr_cache_covers *covers, int source, uint64_t state);

static inline bool hr_cache_cover_lasts(const hr_cache_covers *covers, hr_cover cover) {
    return cover != 0 && atomic_load_explicit(&covers->epochs[cover >> 48], memory_order_acquire) ==
                             (cover & ((UINT64_C(1) << 48) - 1));
}

/* When a cover ended, by hr_clock_ns; UINT64_MAX where it lasts, 0 where that was too many covers ago. */
uint64_t hr_cache_cover_end_ns(const hr_cache_covers *covers, hr_cover cover);

#endif
