/* Records into Redis: a connection a lane, a pipeline of commands a batch. On a cluster a lane is of one
 * master, and the records of its slots go there; a slot that moves meanwhile ends the load, which may then go
 * on where it was.
 *
 * A batch is the commands as they are sent. While it is written, what the server has answered is read, so
 * that neither side waits for the other's buffers. A hash record replaces the one before as a whole, between
 * MULTI and EXEC: readers see the old one or the new one. */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "features/record_text.h"
#include "features/record_writer.h"
#include "features/redis_reader.h"
#include "features/redis_sync.h"
#include "features/redis_wire.h"
#include "features/store_internal.h"

enum { BATCH_RECORDS = 1000, BATCH_NBYTES = 4 << 20, SILENCE_MS = 30000, READ_NBYTES = 16 << 10 };

typedef struct lane {
    redisContext *context;
    char server[HR_ADDRESS_TEXT_SIZE];
} lane;

typedef struct redis_writer {
    hr_record_writer writer;
    char prefix[HR_STORE_PREFIX_SIZE];
    uint32_t ttl_s;
    size_t lanes_per_master; /* beside each other, in the order of the map's shards */
    uint16_t shard_of[HR_REDIS_N_SLOTS];
    lane lanes[HR_RECORD_WRITER_MAX_LANES]; /* (n_lanes) */
} redis_writer;

static hr_status out_of_memory(hr_error *err) {
    return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory for a batch of records");
}

static hr_status too_large(hr_error *err) {
    return hr_error_set(err, HR_INVALID_ARGUMENT, "the record is too large");
}

/* --- batches ----------------------------------------------------------------------------------------------
 */

enum { HEAD_NBYTES = HR_REDIS_HEAD_NBYTES };

static uint8_t *put_head(uint8_t *at, char type, size_t n) {
    return (uint8_t *)hr_redis_put_head((char *)at, type, n);
}

static uint8_t *put_bytes(uint8_t *at, const void *bytes, size_t nbytes) {
    if (nbytes > 0) memcpy(at, bytes, nbytes);
    return at + nbytes;
}

static uint8_t *put_text(uint8_t *at, const void *text, size_t nbytes) {
    at = put_bytes(put_head(at, '$', nbytes), text, nbytes);
    return put_bytes(at, "\r\n", 2);
}

static uint8_t *put_word(uint8_t *at, const char *word) {
    return put_text(at, word, strlen(word));
}

static uint8_t *put_key(const redis_writer *w, uint8_t *at, hr_entity entity, const char *id) {
    const size_t n_prefix = strlen(w->prefix), n_id = strlen(id);
    at = put_head(at, '$', n_prefix + 6 + n_id);
    at = put_bytes(at, w->prefix, n_prefix);
    at = put_bytes(at, entity == HR_ENTITY_USER ? ":user:" : ":item:", 6);
    at = put_bytes(at, id, n_id);
    return put_bytes(at, "\r\n", 2);
}

static uint8_t *put_ttl(const redis_writer *w, uint8_t *at) {
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%u", w->ttl_s);
    return put_word(at, seconds);
}

static size_t key_room(const redis_writer *w, const char *id) {
    return HEAD_NBYTES + strlen(w->prefix) + 8 + strlen(id);
}

/* SET key value, up to the value's text; *value is where that goes, finish_set goes behind it. */
static uint8_t *begin_set(const redis_writer *w, uint8_t *at, hr_entity entity, const char *id,
                          size_t nbytes) {
    at = put_head(at, '*', w->ttl_s > 0 ? 5 : 3);
    at = put_key(w, put_word(at, "SET"), entity, id);
    return put_head(at, '$', nbytes);
}

static void finish_set(const redis_writer *w, hr_record_batch *batch, uint8_t *at) {
    at = put_bytes(at, "\r\n", 2);
    if (w->ttl_s > 0) at = put_ttl(w, put_word(at, "EX"));
    batch->nbytes = (size_t)(at - batch->bytes);
    batch->n_records++;
    batch->n_replies++;
}

static size_t set_room(const redis_writer *w, const char *id, size_t nbytes) {
    return 6 * HEAD_NBYTES + key_room(w, id) + nbytes;
}

static hr_status add_packed(const hr_record_writer *writer, hr_record_batch *batch, hr_entity entity,
                            const char *id, const uint8_t *packed, size_t nbytes, hr_error *err) {
    const redis_writer *w = (const redis_writer *)writer;
    uint8_t *at = hr_record_batch_reserve(batch, set_room(w, id, nbytes));
    if (at == NULL) return out_of_memory(err);
    finish_set(w, batch, put_bytes(begin_set(w, at, entity, id, nbytes), packed, nbytes));
    return HR_OK;
}

static hr_status pack_features(const hr_record_writer *writer, hr_record_batch *batch, hr_entity entity,
                               const char *id, const Homerank__V1__FeatureMap *features, hr_arena *arena,
                               hr_error *err) {
    (void)arena;
    const redis_writer *w = (const redis_writer *)writer;
    const size_t nbytes = homerank__v1__feature_map__get_packed_size(features);
    uint8_t *at = hr_record_batch_reserve(batch, set_room(w, id, nbytes));
    if (at == NULL) return out_of_memory(err);
    at = begin_set(w, at, entity, id, nbytes);
    finish_set(w, batch, at + homerank__v1__feature_map__pack(features, at));
    return HR_OK;
}

/* The fields that have a text, as pairs of name and text in the arena; *n counts texts: two a pair. */
static hr_status hash_texts(const Homerank__V1__FeatureMap *features, hr_arena *arena, const char ***texts,
                            size_t *n, hr_error *err) {
    *n = 0;
    *texts = hr_arena_calloc(arena, 2 * features->n_features, sizeof **texts);
    if (*texts == NULL) return too_large(err);
    for (size_t i = 0; i < features->n_features; i++) {
        const Homerank__V1__FeatureMap__FeaturesEntry *entry = features->features[i];
        const char *text = NULL;
        hr_status status = entry->value != NULL ? hr_record_text(entry->value, arena, &text, err) : HR_OK;
        if (status != HR_OK) {
            hr_error_prefix(err, "feature %s", hr_quote(entry->key, strlen(entry->key)).text);
            return status;
        }
        if (text == NULL) continue;
        (*texts)[(*n)++] = entry->key;
        (*texts)[(*n)++] = text;
    }
    return HR_OK;
}

/* MULTI, DEL key, HSET key field text ..., EXPIRE key seconds, EXEC */
static hr_status add_hash(const hr_record_writer *writer, hr_record_batch *batch, hr_entity entity,
                          const char *id, const Homerank__V1__FeatureMap *features, hr_arena *arena,
                          hr_error *err) {
    const redis_writer *w = (const redis_writer *)writer;
    const char **texts;
    size_t n, room = 16 * HEAD_NBYTES + 3 * key_room(w, id);
    hr_status status = hash_texts(features, arena, &texts, &n, err);
    if (status != HR_OK) return status;
    for (size_t i = 0; i < n; i++) room += HEAD_NBYTES + strlen(texts[i]) + 2;
    uint8_t *at = hr_record_batch_reserve(batch, room);
    if (at == NULL) return out_of_memory(err);
    at = put_word(put_head(at, '*', 1), "MULTI");
    at = put_key(w, put_word(put_head(at, '*', 2), "DEL"), entity, id);
    if (n > 0) at = put_key(w, put_word(put_head(at, '*', 2 + n), "HSET"), entity, id);
    for (size_t i = 0; i < n; i++) at = put_word(at, texts[i]);
    if (n > 0 && w->ttl_s > 0)
        at = put_ttl(w, put_key(w, put_word(put_head(at, '*', 3), "EXPIRE"), entity, id));
    at = put_word(put_head(at, '*', 1), "EXEC");
    batch->nbytes = (size_t)(at - batch->bytes);
    batch->n_records++;
    batch->n_replies += 3 + (n > 0) + (n > 0 && w->ttl_s > 0);
    return HR_OK;
}

/* --- writing ----------------------------------------------------------------------------------------------
 */

/* Answers being counted. */
typedef struct answers {
    size_t n;
    bool refused;
    char reason[HR_REDIS_LINE_SIZE];
} answers;

static bool on_line(void *context, hr_redis_place place, bool is_error, const char *text, size_t nbytes) {
    answers *a = context;
    (void)place;
    if (is_error && !a->refused) snprintf(a->reason, sizeof a->reason, "%s", hr_quote(text, nbytes).text);
    a->refused |= is_error;
    return true;
}

static bool on_array(void *context, hr_redis_place place, size_t n_elements) {
    (void)context;
    (void)place;
    (void)n_elements;
    return true;
}

static bool on_text(void *context, hr_redis_place place, const hr_redis_piece *piece) {
    (void)context;
    (void)place;
    (void)piece;
    return true;
}

static bool on_integer(void *context, hr_redis_place place, int64_t value) {
    (void)context;
    (void)place;
    (void)value;
    return true;
}

static bool on_nil(void *context, hr_redis_place place) {
    (void)context;
    (void)place;
    return true;
}

static bool on_end(void *context) {
    answers *a = context;
    a->n++;
    return true;
}

static hr_status failed(const lane *l, const char *reason, hr_error *err) {
    return hr_error_set(err, HR_UNAVAILABLE, "redis %s: %s", l->server, reason);
}

static bool would_block(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static hr_status read_answers(const lane *l, hr_redis_reader *reader, hr_error *err) {
    char bytes[READ_NBYTES];
    const ssize_t n = recv(l->context->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n == 0) return failed(l, "the server closed the connection", err);
    if (n < 0) return would_block() ? HR_OK : failed(l, strerror(errno), err);
    if (hr_redis_reader_feed(reader, bytes, (size_t)n) == HR_REDIS_READ_ALL) return HR_OK;
    return failed(l, reader->error, err);
}

static hr_status send_some(const lane *l, const hr_record_batch *batch, size_t *sent, hr_error *err) {
    const ssize_t n =
        send(l->context->fd, batch->bytes + *sent, batch->nbytes - *sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) return would_block() ? HR_OK : failed(l, strerror(errno), err);
    *sent += (size_t)n;
    return HR_OK;
}

static hr_status redis_write(hr_record_writer *writer, size_t number, const hr_record_batch *batch,
                             hr_error *err) {
    static const hr_redis_reader_i reader_i = {on_array, on_text, on_line, on_integer, on_nil, on_end};
    const lane *l = &((const redis_writer *)writer)->lanes[number];
    answers got = {.n = 0};
    hr_redis_reader reader;
    hr_redis_reader_init(&reader, &reader_i, &got);
    size_t sent = 0;
    hr_status status = HR_OK;
    while (status == HR_OK && got.n < batch->n_replies && !got.refused) {
        struct pollfd wait = {l->context->fd, (short)(POLLIN | (sent < batch->nbytes ? POLLOUT : 0)), 0};
        const int n_ready = poll(&wait, 1, SILENCE_MS);
        if (n_ready == 0) return failed(l, "no answer in time", err);
        if (n_ready < 0 && errno != EINTR) return failed(l, strerror(errno), err);
        if (n_ready < 0) continue;
        if (wait.revents & (POLLIN | POLLERR | POLLHUP)) status = read_answers(l, &reader, err);
        if (status == HR_OK && (wait.revents & POLLOUT)) status = send_some(l, batch, &sent, err);
    }
    if (status == HR_OK && got.refused) status = failed(l, got.reason, err);
    return status;
}

/* --- opening and closing ----------------------------------------------------------------------------------
 */

static size_t redis_lane(const hr_record_writer *writer, hr_entity entity, const char *id) {
    const redis_writer *w = (const redis_writer *)writer;
    const size_t beside = hr_record_writer__hash(entity, id) % w->lanes_per_master;
    if (writer->n_lanes == w->lanes_per_master) return beside;
    char head[HR_STORE_PREFIX_SIZE + 8];
    const int n_head = snprintf(head, sizeof head, "%s:%s:", w->prefix, hr_entity__name(entity));
    const uint16_t slot = hr_redis_key_slot(head, (size_t)n_head, id, strlen(id));
    return w->shard_of[slot] * w->lanes_per_master + beside;
}

static void redis_writer_close(hr_record_writer *writer) {
    redis_writer *w = (redis_writer *)writer;
    for (size_t i = 0; i < writer->n_lanes; i++) redisFree(w->lanes[i].context);
    free(w);
}

static hr_status open_lanes(redis_writer *w, const hr_store_uri *uri, const hr_redis_map *map, size_t n_lanes,
                            hr_error *err) {
    if (map->n_shards > HR_RECORD_WRITER_MAX_LANES)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "store: expected a cluster of at most %d masters, found %zu",
                            HR_RECORD_WRITER_MAX_LANES, map->n_shards);
    w->lanes_per_master = n_lanes > map->n_shards ? n_lanes / map->n_shards : 1;
    memcpy(w->shard_of, map->shard_of, sizeof w->shard_of);
    hr_status status = HR_OK;
    while (status == HR_OK && w->writer.n_lanes < w->lanes_per_master * map->n_shards) {
        const hr_address *master = &map->shards[w->writer.n_lanes / w->lanes_per_master].nodes[0];
        lane *l = &w->lanes[w->writer.n_lanes];
        hr_address_format(master, l->server);
        status = hr_redis_sync_connect(uri, master, HR_REDIS_SYNC_PATIENCE_S, &l->context, err);
        w->writer.n_lanes += status == HR_OK;
    }
    return status;
}

hr_status hr_record_writer__open_redis(const hr_store_uri *uri, const hr_record_writer_options *options,
                                       hr_record_writer **writer, hr_error *err) {
    enum { MAP_NBYTES = 64 << 20 };
    static const hr_record_writer_i packed_i = {add_packed, pack_features, redis_write, redis_writer_close,
                                                redis_lane},
                                    hash_i = {NULL, add_hash, redis_write, redis_writer_close, redis_lane};
    redis_writer *w = calloc(1, sizeof *w);
    hr_arena *arena = hr_arena_create(MAP_NBYTES);
    hr_redis_map *map = arena != NULL ? hr_arena_alloc(arena, sizeof *map) : NULL;
    hr_status status = HR_OK;
    if (w == NULL || map == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "redis: out of memory");
    if (status == HR_OK) {
        memcpy(w->prefix, uri->prefix, sizeof w->prefix);
        w->ttl_s = options->ttl_s;
        w->writer = (hr_record_writer){uri->layout == HR_LAYOUT_HASH ? &hash_i : &packed_i, 0, BATCH_RECORDS,
                                       BATCH_NBYTES};
        status = hr_redis_sync_map(uri, arena, map, err);
    }
    if (status == HR_OK) status = open_lanes(w, uri, map, options->n_lanes, err);
    hr_arena_destroy(arena);
    if (status == HR_OK)
        *writer = &w->writer;
    else if (w != NULL)
        redis_writer_close(&w->writer);
    return status;
}
