/* Adds lines to a Redis stream, blocking: for a thread that does nothing else. One thread at a time.
 *
 * Each line becomes one entry of the stream `{prefix}:exposures` with one field, `exposure`, by
 * XADD key MAXLEN ~ maxlen * exposure LINE. A connection is made when one is needed. A line is done when the
 * server has acknowledged it: one whose acknowledgement was lost is added again.
 */
#ifndef HOMERANK_FEATURES_REDIS_STREAM_H
#define HOMERANK_FEATURES_REDIS_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct hr_redis_stream hr_redis_stream;

/* uri: redis://[USER:PASSWORD@]HOST:PORT[/DB][?prefix=hr]. Connects nowhere yet. Errors: INVALID_ARGUMENT
 * (the URI: which part), OUT_OF_MEMORY. */
hr_status hr_redis_stream_open(const char *uri, uint64_t maxlen, hr_redis_stream **stream, hr_error *err);
void hr_redis_stream_close(hr_redis_stream *stream); /* NULL is allowed */

/* Adds lines[0..nbytes), whole lines each with its '\n'. *n_done: bytes of the lines done, also where it
 * fails. Errors: UNAVAILABLE naming the server; OUT_OF_MEMORY. */
hr_status hr_redis_stream_add(hr_redis_stream *stream, const char *lines, size_t nbytes, size_t *n_done,
                              hr_error *err);

#endif
