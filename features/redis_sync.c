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

hr_status hr_redis_sync_connect(const hr_store_uri *uri, const hr_address *server, uint32_t answer_timeout_s,
                                redisContext **context, hr_error *err) {
    *context = NULL;
    const char *host = server->host;
    const uint16_t port = server->port;
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

/* --- the map of a cluster ---------------------------------------------------------------------------------
 */

/* hiredis nests replies to a few levels only. False where the arena is full. */
static bool value_of(const redisReply *reply, hr_arena *arena, hr_redis_value *value) {
    *value = (hr_redis_value){.type = HR_REDIS_NIL};
    if (reply->type == REDIS_REPLY_STRING)
        *value = (hr_redis_value){.type = HR_REDIS_TEXT, .text = reply->str, .nbytes = reply->len};
    if (reply->type == REDIS_REPLY_INTEGER)
        *value = (hr_redis_value){.type = HR_REDIS_INTEGER, .integer = reply->integer};
    if (reply->type != REDIS_REPLY_ARRAY) return true;
    hr_redis_value *elements = hr_arena_calloc(arena, reply->elements, sizeof *elements);
    for (size_t i = 0; elements != NULL && i < reply->elements; i++)
        if (!value_of(reply->element[i], arena, &elements[i])) return false;
    *value = (hr_redis_value){.type = HR_REDIS_ARRAY, .elements = elements, .n_elements = reply->elements};
    return elements != NULL;
}

static hr_status ask_for_map(redisContext *c, const char *asked_host, bool slots, hr_arena *arena,
                             hr_redis_map *map, hr_error *err) {
    redisReply *reply = NULL;
    if (redisAppendCommand(c, slots ? "CLUSTER SLOTS" : "CLUSTER SHARDS") != REDIS_OK) return failed(c, err);
    hr_status status = hr_redis_sync_reply(c, &reply, err);
    if (status != HR_OK) return status;
    hr_redis_value value;
    if (value_of(reply, arena, &value))
        status =
            (slots ? hr_redis_map_read_slots : hr_redis_map_read_shards)(&value, asked_host, arena, map, err);
    else
        status = hr_error_set(err, HR_RESOURCE_EXHAUSTED, "cluster map: too large");
    freeReplyObject(reply);
    return status;
}

static hr_status map_of(const hr_store_uri *uri, const hr_address *server, hr_arena *arena, hr_redis_map *map,
                        hr_error *err) {
    redisContext *c;
    hr_status status = hr_redis_sync_connect(uri, server, HR_REDIS_SYNC_PATIENCE_S, &c, err);
    if (status != HR_OK) return status;
    status = ask_for_map(c, server->host, false, arena, map, err);
    if (status != HR_OK) status = ask_for_map(c, server->host, true, arena, map, err); /* before 7.0 */
    redisFree(c);
    return status;
}

static hr_status check_all_served(const hr_store_uri *uri, const hr_redis_map *map, hr_error *err) {
    for (size_t slot = 0; slot < HR_REDIS_N_SLOTS; slot++)
        if (map->shard_of[slot] == HR_REDIS_NO_SHARD)
            return hr_error_set(err, HR_UNAVAILABLE, "%.180s: nobody serves slot %zu", uri->label, slot);
    return HR_OK;
}

hr_status hr_redis_sync_map(const hr_store_uri *uri, hr_arena *arena, hr_redis_map *map, hr_error *err) {
    if (uri->kind == HR_STORE_REDIS) {
        memset(map, 0, sizeof *map);
        map->n_shards = 1;
        map->shards = hr_arena_calloc(arena, 1, sizeof *map->shards);
        if (map->shards == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory");
        map->shards[0] = (hr_redis_shard){uri->servers, 1};
        return HR_OK;
    }
    hr_status status = HR_UNAVAILABLE;
    for (size_t i = 0; i < uri->n_servers && status != HR_OK; i++)
        status = map_of(uri, &uri->servers[i], arena, map, err);
    return status == HR_OK ? check_all_served(uri, map, err) : status;
}
