/* A blocking Redis connection, for tools: see redis_sync.h. */
#include "features/redis_sync.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "features/redis_auth.h"

enum { CONNECT_TIMEOUT_S = 5 };

static hr_status failed(const redisContext *c, hr_error *err) {
    bool timeout = c->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    return hr_error_set(err, HR_UNAVAILABLE, "redis %s:%d: %s", c->tcp.host, c->tcp.port,
                        timeout ? "no answer in time" : c->errstr);
}

hr_status hr_redis_sync_reply(redisContext *c, redisReply **reply, hr_error *err) {
    void *got = NULL;
    *reply = NULL;
    if (redisGetReply(c, &got) != REDIS_OK) return failed(c, err);
    redisReply *r = got;
    if (r->type == REDIS_REPLY_ERROR) {
        hr_error_set(err, HR_UNAVAILABLE, "redis %s:%d: %s", c->tcp.host, c->tcp.port,
                     hr_quote(r->str, r->len).text);
        freeReplyObject(r);
        return HR_UNAVAILABLE;
    }
    *reply = r;
    return HR_OK;
}

static hr_status authenticate(redisContext *c, const hr_store_uri *uri, hr_error *err) {
    bool user = uri->user[0] != '\0';
    const char *argv[] = {"AUTH", user ? uri->user : uri->password, uri->password};
    redisReply *reply = redisCommandArgv(c, user ? 3 : 2, argv, NULL);
    if (reply == NULL) return failed(c, err);
    hr_status status = HR_OK;
    if (reply->type == REDIS_REPLY_ERROR)
        status = hr_error_set(err, HR_UNAVAILABLE, "redis %s:%d: AUTH refused: %s", c->tcp.host, c->tcp.port,
                              hr_redis_auth_refusal(reply->str, reply->len).text);
    freeReplyObject(reply);
    return status;
}

static hr_status select_db(redisContext *c, const hr_store_uri *uri, hr_error *err) {
    redisReply *reply = NULL;
    if (redisAppendCommand(c, "SELECT %u", uri->db) != REDIS_OK) return failed(c, err);
    hr_status status = hr_redis_sync_reply(c, &reply, err);
    if (reply != NULL) freeReplyObject(reply);
    return status;
}

hr_status hr_redis_sync_connect(const hr_store_uri *uri, uint32_t answer_timeout_s, redisContext **context,
                                hr_error *err) {
    *context = NULL;
    const char *host = uri->servers[0].host;
    const uint16_t port = uri->servers[0].port;
    redisContext *c = redisConnectWithTimeout(host, port, (struct timeval){.tv_sec = CONNECT_TIMEOUT_S});
    if (c == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "redis %s:%u: out of memory", host, port);
    hr_status status = HR_OK;
    if (c->err != 0)
        status = hr_error_set(err, HR_UNAVAILABLE, "redis %s:%u: cannot connect: %s", host, port, c->errstr);
    if (status == HR_OK && redisSetTimeout(c, (struct timeval){.tv_sec = answer_timeout_s}) != REDIS_OK)
        status = failed(c, err);
    if (status == HR_OK && uri->password[0] != '\0') status = authenticate(c, uri, err);
    if (status == HR_OK) status = select_db(c, uri, err);
    if (status != HR_OK) {
        redisFree(c);
        return status;
    }
    *context = c;
    return HR_OK;
}
