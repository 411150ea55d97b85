/* A blocking Redis connection, for tools. Private to features/. */
#ifndef HOMERANK_FEATURES_REDIS_SYNC_H
#define HOMERANK_FEATURES_REDIS_SYNC_H

#include <hiredis/hiredis.h>

#include "base/status.h"
#include "features/store_uri.h"

/* Connects, authenticates and selects the database of the URI. Free with redisFree.
 * Errors: UNAVAILABLE naming the server. */
hr_status hr_redis_sync_connect(const hr_store_uri *uri, redisContext **context, hr_error *err);

/* The next reply of a pipeline, to be freed with freeReplyObject; a server's error reply is UNAVAILABLE too.
 */
hr_status hr_redis_sync_reply(redisContext *context, redisReply **reply, hr_error *err);

#endif
