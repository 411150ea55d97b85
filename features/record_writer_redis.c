/* Records into Redis: a pipeline of commands a batch, their replies read at its commit.
 *
 * A hash record replaces the one before as a whole, between MULTI and EXEC: readers see the old one or the
 * new one. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "features/record_text.h"
#include "features/record_writer.h"
#include "features/redis_sync.h"
#include "features/store_internal.h"

enum { BATCH_RECORDS = 1000, BATCH_NBYTES = 8 << 20, RECORD_ARENA_NBYTES = 512 << 20 };

typedef struct redis_writer {
    hr_record_writer writer;
    redisContext *redis;
    char prefix[HR_STORE_PREFIX_SIZE];
    hr_store_layout layout;
    hr_arena *arena;  /* one record's; reset before each */
    size_t n_replies; /* to be read at commit */
} redis_writer;

static hr_status too_large(hr_error *err) {
    return hr_error_set(err, HR_INVALID_ARGUMENT, "the record is too large");
}

static hr_status send(redis_writer *w, size_t argc, const char **argv, const size_t *nbytes, hr_error *err) {
    if (redisAppendCommandArgv(w->redis, (int)argc, argv, nbytes) != REDIS_OK)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: %s", w->redis->errstr);
    w->n_replies++;
    for (size_t i = 0; i < argc; i++) w->writer.nbytes_taken += nbytes[i];
    return HR_OK;
}

static hr_status put_packed(redis_writer *w, const char *key, const Homerank__V1__FeatureMap *features,
                            hr_error *err) {
    size_t nbytes = homerank__v1__feature_map__get_packed_size(features);
    uint8_t *value = hr_arena_alloc(w->arena, nbytes);
    if (value == NULL) return too_large(err);
    homerank__v1__feature_map__pack(features, value);
    const char *argv[] = {"SET", key, (const char *)value};
    const size_t lengths[] = {3, strlen(key), nbytes};
    return send(w, 3, argv, lengths, err);
}

/* HSET key field text ...; *argc is 2 where the record has no text at all. */
static hr_status hset_arguments(redis_writer *w, const char *key, const Homerank__V1__FeatureMap *features,
                                const char ***argv, size_t *argc, hr_error *err) {
    *argv = hr_arena_calloc(w->arena, 2 + 2 * features->n_features, sizeof **argv);
    if (*argv == NULL) return too_large(err);
    (*argv)[0] = "HSET";
    (*argv)[1] = key;
    *argc = 2;
    for (size_t i = 0; i < features->n_features; i++) {
        const Homerank__V1__FeatureMap__FeaturesEntry *entry = features->features[i];
        const char *text = NULL;
        hr_status status = entry->value != NULL ? hr_record_text(entry->value, w->arena, &text, err) : HR_OK;
        if (status != HR_OK) {
            hr_error_prefix(err, "feature %s", hr_quote(entry->key, strlen(entry->key)).text);
            return status;
        }
        if (text == NULL) continue;
        (*argv)[(*argc)++] = entry->key;
        (*argv)[(*argc)++] = text;
    }
    return HR_OK;
}

static hr_status put_hash(redis_writer *w, const char *key, const Homerank__V1__FeatureMap *features,
                          hr_error *err) {
    const char **hset = NULL;
    size_t argc = 0;
    hr_status status = hset_arguments(w, key, features, &hset, &argc, err);
    if (status != HR_OK) return status;
    size_t *lengths = hr_arena_calloc(w->arena, argc, sizeof *lengths);
    if (lengths == NULL) return too_large(err);
    for (size_t i = 0; i < argc; i++) lengths[i] = strlen(hset[i]);
    const char *multi[] = {"MULTI"}, *del[] = {"DEL", key}, *exec[] = {"EXEC"};
    const size_t multi_lengths[] = {5}, del_lengths[] = {3, lengths[1]}, exec_lengths[] = {4};
    status = send(w, 1, multi, multi_lengths, err);
    if (status == HR_OK) status = send(w, 2, del, del_lengths, err);
    if (status == HR_OK && argc > 2) status = send(w, argc, hset, lengths, err);
    if (status == HR_OK) status = send(w, 1, exec, exec_lengths, err);
    return status;
}

static hr_status redis_put(hr_record_writer *writer, hr_entity entity, const char *id,
                           const Homerank__V1__FeatureMap *features, hr_error *err) {
    redis_writer *w = (redis_writer *)writer;
    hr_arena_reset(w->arena);
    size_t key_size = strlen(w->prefix) + strlen(id) + 16;
    char *key = hr_arena_alloc(w->arena, key_size);
    if (key == NULL) return too_large(err);
    snprintf(key, key_size, "%s:%s:%s", w->prefix, hr_entity__name(entity), id);
    hr_status status =
        w->layout == HR_LAYOUT_HASH ? put_hash(w, key, features, err) : put_packed(w, key, features, err);
    writer->n_taken += status == HR_OK;
    return status;
}

/* EXEC's reply holds the replies of the commands before it, errors among them. */
static hr_status check_elements(const redisReply *reply, hr_error *err) {
    for (size_t i = 0; i < reply->elements; i++)
        if (reply->element[i]->type == REDIS_REPLY_ERROR)
            return hr_error_set(err, HR_UNAVAILABLE, "redis: %s",
                                hr_quote(reply->element[i]->str, reply->element[i]->len).text);
    return HR_OK;
}

static hr_status redis_commit(hr_record_writer *writer, hr_error *err) {
    redis_writer *w = (redis_writer *)writer;
    hr_status status = HR_OK;
    for (; w->n_replies > 0 && status == HR_OK; w->n_replies--) {
        redisReply *reply = NULL;
        status = hr_redis_sync_reply(w->redis, &reply, err);
        if (status == HR_OK) status = check_elements(reply, err);
        freeReplyObject(reply);
    }
    if (status != HR_OK) return status;
    writer->n_taken = 0;
    writer->nbytes_taken = 0;
    return HR_OK;
}

static void redis_writer_close(hr_record_writer *writer) {
    redis_writer *w = (redis_writer *)writer;
    if (w->redis != NULL) redisFree(w->redis);
    hr_arena_destroy(w->arena);
    free(w);
}

static const hr_record_writer_i redis_writer_i = {redis_put, redis_commit, redis_writer_close};

hr_status hr_record_writer__open_redis(const hr_store_uri *uri, hr_record_writer **writer, hr_error *err) {
    redis_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory");
    w->arena = hr_arena_create(RECORD_ARENA_NBYTES);
    hr_status status = HR_OK;
    if (w->arena == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory");
    if (status == HR_OK) status = hr_redis_sync_connect(uri, &w->redis, err);
    if (status != HR_OK) {
        redis_writer_close(&w->writer);
        return status;
    }
    memcpy(w->prefix, uri->prefix, sizeof w->prefix);
    w->layout = uri->layout;
    w->writer.i = &redis_writer_i;
    w->writer.batch_records = BATCH_RECORDS;
    w->writer.batch_nbytes = BATCH_NBYTES;
    *writer = &w->writer;
    return HR_OK;
}
