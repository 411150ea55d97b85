/* What one Redis server tells of the keys that change: its server-assisted invalidation, in RESP2.
 *
 * One connection subscribes to the channel of invalidations and has its own broadcasts redirected to itself
 * (`CLIENT TRACKING ON REDIRECT <its own id> BCAST PREFIX <prefix>`), so that tracking and subscription live
 * and die together. Every change of a key with the prefix, by whichever client, eviction or expiry, is then
 * told. A heartbeat tells a connection that swallows everything from one where nothing changes.
 *
 * Thread rule: everything here runs on the loop's thread, the listener too. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_INVALIDATION_H
#define HOMERANK_FEATURES_REDIS_INVALIDATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "features/redis_connection.h"

typedef struct hr_redis_invalidation hr_redis_invalidation;

typedef struct hr_redis_invalidation_listener {
    void *context;
    /* From now on changes are told; or no longer, and why (printable). What was read before the first, or
     * after the last, may have changed unseen. Begins as not covered; told at changes only, and at every
     * failure to begin. */
    void (*covered)(void *context, bool covered, const char *reason);
    void (*changed)(void *context, const char *key, size_t nbytes); /* borrowed, any bytes */
    void (*emptied)(void *context);                                 /* FLUSHALL, FLUSHDB: every key changed */
} hr_redis_invalidation_listener;

/* Connects at once and for ever. server's texts and prefix (what keys begin with, any bytes) are borrowed for
 * its life. A connection that is silent for heartbeat_ms (>= 2) is given up. NULL when out of memory. */
hr_redis_invalidation *hr_redis_invalidation_create(uv_loop_t *loop, const hr_redis_server *server,
                                                    const char *prefix, size_t prefix_nbytes,
                                                    uint32_t heartbeat_ms,
                                                    hr_redis_invalidation_listener listener);

/* The memory is freed by the loop, which must run on until its handles are closed. The listener is not called
 * any more. NULL is allowed. */
void hr_redis_invalidation_close(hr_redis_invalidation *invalidation);

#endif
