/* A Redis server as the cover of cached records (cache_cover.h): what it tells of changed keys, the cache
 * forgets; while it cannot tell, nothing read from it is kept.
 *
 * Thread rule: the loop's thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_COVER_H
#define HOMERANK_FEATURES_REDIS_COVER_H

#include <uv.h>

#include "features/record_cache.h"
#include "features/redis_connection.h"
#include "features/store_uri.h"

typedef struct hr_redis_cover hr_redis_cover;

/* Keys are those of the uri's layout. The server's texts, uri, name (of the server, for the log) and the
 * cache are borrowed for its life. NULL when out of memory. */
hr_redis_cover *hr_redis_cover_create(uv_loop_t *loop, const hr_redis_server *server, const hr_store_uri *uri,
                                      const char *name, uint32_t heartbeat_ms, hr_record_cache *cache);

/* Everything that was read under it is doubtful: the server no longer tells of some of it. */
void hr_redis_cover_renew(hr_redis_cover *cover); /* NULL is allowed */

/* Everything under it is doubtful from now on; the loop frees what is left. NULL is allowed. */
void hr_redis_cover_close(hr_redis_cover *cover);

/* The cover of a read that is sent to this server now; 0 (none) where it does not tell of changes, or cover
 * is NULL. */
hr_cover hr_redis_cover_now(const hr_redis_cover *cover);

#endif
