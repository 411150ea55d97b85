/* A blocking Redis connection, for tools. Private to features/. */
#ifndef HOMERANK_FEATURES_REDIS_SYNC_H
#define HOMERANK_FEATURES_REDIS_SYNC_H

#include <hiredis/hiredis.h>

#include "base/arena.h"
#include "base/status.h"
#include "features/redis_slots.h"
#include "features/store_uri.h"

enum { HR_REDIS_SYNC_PATIENCE_S = 30 }; /* of a tool, for an answer */

/* Connects to the server, one of the URI's or a node of its cluster, authenticates and selects the database
 * of the URI; this and every later answer may take answer_timeout_s. Free with redisFree. Errors: UNAVAILABLE
 * naming the server. */
hr_status hr_redis_sync_connect(const hr_store_uri *uri, const hr_address *server, uint32_t answer_timeout_s,
                                redisContext **context, hr_error *err);

/* Who serves which slots of a cluster, as the first of the URI's servers that answers says; of one server a
 * map of one shard. Errors: UNAVAILABLE: none answers, or not every slot is served. */
hr_status hr_redis_sync_map(const hr_store_uri *uri, hr_arena *arena, hr_redis_map *map, hr_error *err);

/* The next reply of a pipeline, to be freed with freeReplyObject; a server's error reply is UNAVAILABLE too.
 */
hr_status hr_redis_sync_reply(redisContext *context, redisReply **reply, hr_error *err);

#endif
