/* A blocking client of homerank.v1.Ranker on the gRPC C core, for `homerank rank` and the tests.
 *
 * Thread rule: any number of threads may call one client at once; creation and destruction are one thread's.
 */
#ifndef HOMERANK_SERVICE_CLIENT_H
#define HOMERANK_SERVICE_CLIENT_H

#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "proto/homerank.pb-c.h"

typedef struct hr_client hr_client;

/* target: HOST:PORT, insecure. The connection is made by the first call and re-made when lost.
 * Errors: INVALID_ARGUMENT (not HOST:PORT), OUT_OF_MEMORY. */
hr_status hr_client_create(const char *target, hr_client **client, hr_error *err);

/* No call may be under way; NULL is allowed. */
void hr_client_destroy(hr_client *client);

/* One Rank call; timeout_ms 0: no deadline. *response lives in the arena.
 * Errors: the server's status with its text as sent (control bytes escaped); UNAVAILABLE where it cannot be
 * reached, DEADLINE_EXCEEDED past the timeout; INTERNAL for an answer that is no RankResponse. */
hr_status hr_client_rank(hr_client *client, const Homerank__V1__RankRequest *request, uint32_t timeout_ms,
                         hr_arena *arena, Homerank__V1__RankResponse **response, hr_error *err);

#endif
