/* Lines into a Redis stream: see redis_stream.h. */
#include "features/redis_stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "features/redis_sync.h"
#include "features/store_uri.h"

enum { LINES_AT_ONCE = 512, ANSWER_TIMEOUT_S = 2 };

struct hr_redis_stream {
    hr_store_uri uri;
    char key[HR_STORE_PREFIX_SIZE + 16];
    char maxlen[24];
    redisContext *context; /* owned; NULL: not connected */
};

hr_status hr_redis_stream_open(const char *uri, uint64_t maxlen, hr_redis_stream **stream, hr_error *err) {
    *stream = NULL;
    hr_redis_stream *s = calloc(1, sizeof *s);
    if (s == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for a Redis stream");
    hr_status status = hr_store_uri_parse(uri, &s->uri, err);
    if (status == HR_OK && s->uri.kind != HR_STORE_REDIS)
        status =
            hr_error_set(err, HR_INVALID_ARGUMENT,
                         "stream: expected redis://[USER:PASSWORD@]HOST:PORT[/DB], found %s", s->uri.label);
    if (status != HR_OK) {
        free(s);
        return status;
    }
    snprintf(s->key, sizeof s->key, "%s:exposures", s->uri.prefix);
    snprintf(s->maxlen, sizeof s->maxlen, "%" PRIu64, maxlen);
    *stream = s;
    return HR_OK;
}

static void disconnect(hr_redis_stream *s) {
    if (s->context != NULL) redisFree(s->context);
    s->context = NULL;
}

void hr_redis_stream_close(hr_redis_stream *s) {
    if (s == NULL) return;
    disconnect(s);
    free(s);
}

static hr_status connect_stream(hr_redis_stream *s, hr_error *err) {
    if (s->context != NULL) return HR_OK;
    return hr_redis_sync_connect(&s->uri, &s->uri.servers[0], ANSWER_TIMEOUT_S, &s->context, err);
}

static hr_status append_line(hr_redis_stream *s, const char *line, size_t nbytes, hr_error *err) {
    const char *argv[] = {"XADD", s->key, "MAXLEN", "~", s->maxlen, "*", "exposure", line};
    const size_t sizes[] = {4, strlen(s->key), 6, 1, strlen(s->maxlen), 1, 8, nbytes};
    if (redisAppendCommandArgv(s->context, 8, argv, sizes) == REDIS_OK) return HR_OK;
    return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for a line of the stream");
}

/* Sends some lines and waits for their acknowledgements. */
static hr_status add_some(hr_redis_stream *s, const char *lines, size_t nbytes, size_t *n_done,
                          hr_error *err) {
    size_t ends[LINES_AT_ONCE]; /* of each line sent, behind its '\n' */
    size_t n_sent = 0, at = 0;
    hr_status status = HR_OK;
    for (; status == HR_OK && n_sent < LINES_AT_ONCE && at < nbytes; n_sent++) {
        const char *end = memchr(lines + at, '\n', nbytes - at);
        status = append_line(s, lines + at, (size_t)(end - lines) - at, err);
        at = (size_t)(end - lines) + 1;
        ends[n_sent] = at;
    }
    for (size_t i = 0; status == HR_OK && i < n_sent; i++) {
        redisReply *reply;
        status = hr_redis_sync_reply(s->context, &reply, err);
        if (status != HR_OK) break;
        freeReplyObject(reply);
        *n_done = ends[i];
    }
    return status;
}

hr_status hr_redis_stream_add(hr_redis_stream *s, const char *lines, size_t nbytes, size_t *n_done,
                              hr_error *err) {
    *n_done = 0;
    hr_status status = connect_stream(s, err);
    while (status == HR_OK && *n_done < nbytes) {
        size_t n = 0;
        status = add_some(s, lines + *n_done, nbytes - *n_done, &n, err);
        *n_done += n;
    }
    if (status != HR_OK) disconnect(s); /* answers may be on their way still */
    return status;
}
