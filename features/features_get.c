/* `features get`: one record, printed as a line that `features load` reads. See loader.h. */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "features/load_line.h"
#include "features/loader.h"
#include "features/redis_sync.h"
#include "features/store_internal.h"
#include "proto/json.h"
#include "proto/unpack.h"

enum { ARENA_NBYTES = 1 << 30 };

typedef Homerank__V1__FeatureMap feature_map;
typedef Homerank__V1__FeatureMap__FeaturesEntry feature_entry;

static hr_status not_found(const hr_store_uri *uri, hr_entity entity, const char *id, hr_error *err) {
    return hr_error_set(err, HR_NOT_FOUND, "no record of %s %s in %s", hr_entity__name(entity),
                        hr_quote(id, strlen(id)).text, uri->label);
}

static hr_status get_packed(const hr_store_uri *uri, const char *store_uri, hr_entity entity, const char *id,
                            hr_arena *arena, feature_map **features, hr_error *err) {
    hr_store *store;
    hr_status status = hr_store_open(store_uri, &hr_store_defaults, &store, err);
    if (status != HR_OK) return status;
    bool user = entity == HR_ENTITY_USER;
    hr_fetch fetch = {.user_id = user ? id : NULL,
                      .item_ids = &id,
                      .n_items = user ? 0 : 1,
                      .deadline_ns = UINT64_MAX,
                      .arena = arena};
    hr_store_fetch_wait(store, &fetch);
    hr_store_close(store);
    if (fetch.error.code != HR_OK) {
        if (err != NULL) *err = fetch.error;
        return fetch.error.code;
    }
    const hr_record *record = user ? &fetch.user : &fetch.items[0];
    if (record->kind != HR_RECORD_PACKED) return not_found(uri, entity, id, err);
    ProtobufCMessage *message;
    status = hr_proto_unpack(&homerank__v1__feature_map__descriptor, record->data, record->nbytes, arena,
                             &message, err);
    if (status != HR_OK)
        hr_error_prefix(err, "the stored value is not a record");
    else
        *features = (feature_map *)message;
    return status;
}

/* A field's name or text as a string of the arena; JSON and protobuf hold only UTF-8 without NUL. */
static hr_status text_of(const redisReply *reply, hr_arena *arena, char **text, hr_error *err) {
    if (reply->type != REDIS_REPLY_STRING || !hr_utf8_valid(reply->str, reply->len) ||
        memchr(reply->str, '\0', reply->len) != NULL)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "stored hash: expected UTF-8 without NUL, found %s",
                            reply->str != NULL ? hr_quote(reply->str, reply->len).text : "no text");
    *text = hr_arena_strndup(arena, reply->str, reply->len);
    return *text != NULL ? HR_OK : hr_error_set(err, HR_RESOURCE_EXHAUSTED, "stored hash: too large");
}

static hr_status features_of_hash(const redisReply *reply, hr_arena *arena, feature_map **features,
                                  hr_error *err) {
    size_t n = reply->elements / 2;
    feature_map *map = hr_arena_calloc(arena, 1, sizeof *map);
    feature_entry *entries = hr_arena_calloc(arena, n, sizeof *entries);
    Homerank__V1__FeatureValue *values = hr_arena_calloc(arena, n, sizeof *values);
    if (map != NULL) homerank__v1__feature_map__init(map);
    if (map != NULL) map->features = hr_arena_calloc(arena, n, sizeof(void *));
    if (map == NULL || entries == NULL || values == NULL || map->features == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "stored hash: too large");
    for (size_t i = 0; i < n; i++) {
        homerank__v1__feature_map__features_entry__init(&entries[i]);
        homerank__v1__feature_value__init(&values[i]);
        values[i].kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_ID;
        hr_status status = text_of(reply->element[2 * i], arena, &entries[i].key, err);
        if (status == HR_OK) status = text_of(reply->element[2 * i + 1], arena, &values[i].id, err);
        if (status != HR_OK) return status;
        entries[i].value = &values[i];
        map->features[i] = &entries[i];
    }
    map->n_features = n;
    *features = map;
    return HR_OK;
}

/* The server that has the key. */
static hr_status server_of(const hr_store_uri *uri, const char *key, hr_arena *arena,
                           const hr_address **server, hr_error *err) {
    hr_redis_map *map = hr_arena_alloc(arena, sizeof *map);
    if (map == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory");
    hr_status status = hr_redis_sync_map(uri, arena, map, err);
    if (status != HR_OK) return status;
    *server = &map->shards[map->shard_of[hr_redis_key_slot(key, strlen(key), NULL, 0)]].nodes[0];
    return HR_OK;
}

static hr_status get_hash(const hr_store_uri *uri, hr_entity entity, const char *id, hr_arena *arena,
                          feature_map **features, hr_error *err) {
    redisContext *redis;
    const hr_address *server = NULL;
    const size_t key_size = strlen(uri->prefix) + strlen(id) + 8; /* two colons, "user" or "item" */
    char *key = hr_arena_alloc(arena, key_size);
    if (key == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory");
    snprintf(key, key_size, "%s:%s:%s", uri->prefix, hr_entity__name(entity), id);
    hr_status status = server_of(uri, key, arena, &server, err);
    if (status == HR_OK) status = hr_redis_sync_connect(uri, server, HR_REDIS_SYNC_PATIENCE_S, &redis, err);
    if (status != HR_OK) return status;
    redisReply *reply = NULL;
    if (redisAppendCommand(redis, "HGETALL %s", key) != REDIS_OK)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "redis: %s", redis->errstr);
    if (status == HR_OK) status = hr_redis_sync_reply(redis, &reply, err);
    if (status == HR_OK && (reply->type != REDIS_REPLY_ARRAY || reply->elements % 2 != 0))
        status = hr_error_set(err, HR_UNAVAILABLE, "redis: HGETALL: not a hash's reply");
    if (status == HR_OK && reply->elements == 0) status = not_found(uri, entity, id, err);
    if (status == HR_OK) status = features_of_hash(reply, arena, features, err);
    if (reply != NULL) freeReplyObject(reply);
    redisFree(redis);
    return status;
}

/* With the fewest digits that give every number back as it is; NULL when out of memory. */
static char *dump(const json_t *line) {
    for (size_t digits = 15;; digits++) {
        char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(digits));
        json_t *again = text != NULL ? json_loads(text, 0, NULL) : NULL;
        bool same = json_equal(line, again);
        json_decref(again);
        if (same || text == NULL || digits == 17) return text;
        free(text);
    }
}

static hr_status print(hr_entity entity, const char *id, const feature_map *features, FILE *out,
                       hr_error *err) {
    json_t *line = json_pack("{s:s, s:s, s:o}", "entity", hr_entity__name(entity), "id", id, "features",
                             hr_json_from_features(features));
    char *text = line != NULL ? dump(line) : NULL;
    hr_status status = HR_OK;
    if (text == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    else if (fprintf(out, "%s\n", text) < 0 || fflush(out) != 0)
        status = hr_error_set(err, HR_IO, "cannot write the record: %s", strerror(errno));
    free(text);
    json_decref(line);
    return status;
}

hr_status hr_features_get(const char *store, const char *entity_name, const char *id, FILE *out,
                          hr_error *err) {
    hr_entity entity;
    feature_map *features = NULL;
    hr_status status = hr_load_entity_parse(entity_name, &entity, err);
    if (status == HR_OK && (id[0] == '\0' || !hr_utf8_valid(id, strlen(id))))
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "id: expected a text in UTF-8, found %s",
                              hr_quote(id, strlen(id)).text);
    if (status != HR_OK) return status;
    hr_store_uri *uri = malloc(sizeof *uri);
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    if (uri == NULL || arena == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    if (status == HR_OK) status = hr_store_uri_parse(store, uri, err);
    if (status == HR_OK && uri->layout == HR_LAYOUT_FEAST)
        status =
            hr_error_set(err, HR_INVALID_ARGUMENT,
                         "store: layout feast keeps no names of features: expected layout packed or hash");
    if (status == HR_OK)
        status = uri->layout == HR_LAYOUT_HASH /* of Redis alone */
                     ? get_hash(uri, entity, id, arena, &features, err)
                     : get_packed(uri, store, entity, id, arena, &features, err);
    if (status == HR_OK) status = print(entity, id, features, out, err);
    hr_arena_destroy(arena);
    free(uri);
    return status;
}
