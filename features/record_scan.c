/* All records of a store: see record_scan.h. */
#include "features/record_scan.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "features/lmdb_env.h"
#include "features/redis_sync.h"
#include "features/store_internal.h"

enum { BATCH_RECORDS = 1000 };

struct hr_record_scan {
    const hr_store_uri *uri;
    const hr_field_list *fields[2];
    hr_entity entity;
    /* LMDB */
    MDB_env *env;
    MDB_dbi dbi;
    char last[HR_LMDB_KEY_SIZE]; /* the key to go on behind */
    size_t last_nbytes;
    /* Redis */
    hr_arena *map_arena;
    hr_redis_map *map;
    size_t master;       /* of the map's shards, whose keys are being told */
    redisContext *redis; /* to it */
    hr_store *store;
    char cursor[24];
};

static hr_status out_of_room(hr_error *err) {
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "scan: a batch of records needs too much memory");
}

static hr_status allocate(hr_arena *arena, size_t n, hr_scanned *scanned, hr_record **records,
                          hr_error *err) {
    *scanned = (hr_scanned){.ids = hr_arena_calloc(arena, n, sizeof *scanned->ids)};
    *records = hr_arena_calloc(arena, n, sizeof **records);
    scanned->records = *records;
    return scanned->ids != NULL && *records != NULL ? HR_OK : out_of_room(err);
}

/* --- LMDB ------------------------------------------------------------------------------------------------
 */

static hr_status lmdb_failed(int rc, hr_error *err) {
    return hr_error_set(err, HR_IO, "lmdb: cannot read: %s", mdb_strerror(rc));
}

/* Takes what the cursor is at, unless it is no more of this entity's: then there are no more. */
static hr_status take_entry(hr_record_scan *scan, const MDB_val *key, const MDB_val *value, hr_arena *arena,
                            hr_scanned *scanned, hr_record *record, hr_error *err) {
    char head[HR_LMDB_KEY_SIZE];
    const size_t n_head = hr_lmdb_key(head, scan->uri->prefix, scan->entity, "");
    if (key->mv_size < n_head || memcmp(key->mv_data, head, n_head) != 0) {
        scanned->ended = true;
        return HR_OK;
    }
    const char *id = hr_arena_strndup(arena, (const char *)key->mv_data + n_head, key->mv_size - n_head);
    const char *data = hr_arena_strndup(arena, value->mv_data, value->mv_size);
    if (id == NULL || data == NULL) return out_of_room(err);
    memcpy(scan->last, key->mv_data, key->mv_size);
    scan->last_nbytes = key->mv_size;
    *record = (hr_record){
        .kind = HR_RECORD_PACKED, .data = (const uint8_t *)data, .nbytes = value->mv_size, .answered = true};
    scanned->ids[scanned->n++] = id;
    return HR_OK;
}

static hr_status scan_entries(hr_record_scan *scan, MDB_cursor *cursor, hr_arena *arena, hr_scanned *scanned,
                              hr_record *records, hr_error *err) {
    MDB_val key = {scan->last_nbytes, scan->last}, value;
    hr_status status = HR_OK;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (rc == 0 && key.mv_size == scan->last_nbytes && memcmp(key.mv_data, scan->last, key.mv_size) == 0)
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT); /* it was taken, or is no record */
    while (rc == 0 && status == HR_OK && !scanned->ended && scanned->n < BATCH_RECORDS) {
        status = take_entry(scan, &key, &value, arena, scanned, &records[scanned->n], err);
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    scanned->ended |= rc == MDB_NOTFOUND;
    return rc == 0 || rc == MDB_NOTFOUND ? status : lmdb_failed(rc, err);
}

static hr_status lmdb_next(hr_record_scan *scan, hr_arena *arena, hr_scanned *scanned, hr_error *err) {
    MDB_txn *txn;
    MDB_cursor *cursor;
    hr_record *records;
    hr_status status = allocate(arena, BATCH_RECORDS, scanned, &records, err);
    if (status != HR_OK) return status;
    int rc = mdb_txn_begin(scan->env, NULL, MDB_RDONLY, &txn);
    if (rc == MDB_MAP_RESIZED && mdb_env_set_mapsize(scan->env, 0) == 0)
        rc = mdb_txn_begin(scan->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0) return lmdb_failed(rc, err);
    rc = mdb_cursor_open(txn, scan->dbi, &cursor);
    if (rc == 0) {
        status = scan_entries(scan, cursor, arena, scanned, records, err);
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return rc == 0 ? status : lmdb_failed(rc, err);
}

/* --- Redis -----------------------------------------------------------------------------------------------
 */

/* Which keys SCAN is to tell of: "{prefix}:{entity}:*", the prefix's own wildcards escaped. Of Feast's keys,
 * which are not texts, all. */
static void match_pattern(const hr_record_scan *scan, char pattern[2 * HR_STORE_PREFIX_SIZE + 8]) {
    char *at = pattern;
    if (scan->uri->layout == HR_LAYOUT_FEAST) {
        strcpy(pattern, "*");
        return;
    }
    for (const char *c = scan->uri->prefix; *c != '\0'; c++) {
        if (strchr("*?[]\\", *c) != NULL) *at++ = '\\';
        *at++ = *c;
    }
    sprintf(at, ":%s:*", hr_entity__name(scan->entity));
}

/* The id in a key; NULL where it is nobody's record of this entity. */
static const char *id_of(const hr_record_scan *scan, const redisReply *key, hr_arena *arena, bool *full) {
    char decimal[24];
    size_t n = 0;
    const char *id;
    if (key->type != REDIS_REPLY_STRING) return NULL;
    if (scan->uri->layout == HR_LAYOUT_FEAST) {
        id = hr_feast_key_id(&scan->uri->feast, scan->entity, key->str, key->len, decimal, &n);
    } else {
        const size_t n_head = strlen(scan->uri->prefix) + 6; /* ":user:" */
        id = key->len > n_head ? key->str + n_head : NULL;
        n = key->len - n_head;
    }
    if (id == NULL || n == 0 || memchr(id, '\0', n) != NULL) return NULL;
    const char *copy = hr_arena_strndup(arena, id, n);
    *full |= copy == NULL;
    return copy;
}

/* Fetches under way. */
typedef struct fetches {
    pthread_mutex_t left_lock;
    pthread_cond_t left_changed;
    size_t n_left;
} fetches;

static void fetch_done(hr_fetch *fetch) {
    fetches *f = fetch->arg;
    pthread_mutex_lock(&f->left_lock);
    if (--f->n_left == 0) pthread_cond_signal(&f->left_changed);
    pthread_mutex_unlock(&f->left_lock);
}

/* A fetch is of one user and many items. All are under way at once and share the arena: only the store's loop
 * touches it until the last is done. */
static hr_status fetch_all(hr_record_scan *scan, hr_fetch *all, size_t n, hr_error *err) {
    fetches f = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, n};
    for (size_t i = 0; i < n; i++) {
        all[i].fields[HR_ENTITY_USER] = scan->fields[HR_ENTITY_USER];
        all[i].fields[HR_ENTITY_ITEM] = scan->fields[HR_ENTITY_ITEM];
        all[i].deadline_ns = UINT64_MAX;
        all[i].done = fetch_done;
        all[i].arg = &f;
        hr_store_fetch(scan->store, &all[i]);
    }
    pthread_mutex_lock(&f.left_lock);
    while (f.n_left > 0) pthread_cond_wait(&f.left_changed, &f.left_lock);
    pthread_mutex_unlock(&f.left_lock);
    pthread_cond_destroy(&f.left_changed);
    pthread_mutex_destroy(&f.left_lock);
    for (size_t i = 0; i < n; i++) {
        if (all[i].error.code == HR_OK) continue;
        if (err != NULL) *err = all[i].error;
        return all[i].error.code;
    }
    return HR_OK;
}

static hr_status fetch_ids(hr_record_scan *scan, hr_arena *arena, hr_scanned *scanned, hr_record *records,
                           hr_error *err) {
    const bool users = scan->entity == HR_ENTITY_USER;
    const size_t n = users ? scanned->n : scanned->n > 0;
    hr_fetch *all = hr_arena_calloc(arena, n, sizeof *all);
    if (all == NULL) return out_of_room(err);
    for (size_t i = 0; i < n; i++) {
        all[i].arena = arena;
        if (users) all[i].user_id = scanned->ids[i];
        if (!users) all[i].item_ids = scanned->ids;
        if (!users) all[i].n_items = scanned->n;
    }
    hr_status status = fetch_all(scan, all, n, err);
    for (size_t i = 0; status == HR_OK && i < scanned->n; i++)
        records[i] = users ? all[i].user : all[0].items[i];
    return status;
}

static hr_status take_keys(hr_record_scan *scan, const redisReply *reply, hr_arena *arena,
                           hr_scanned *scanned, hr_error *err) {
    hr_record *records;
    bool full = false;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING || reply->element[0]->len >= sizeof scan->cursor)
        return hr_error_set(err, HR_UNAVAILABLE, "redis: SCAN: expected a cursor and keys");
    const redisReply *keys = reply->element[1];
    hr_status status = allocate(arena, keys->elements, scanned, &records, err);
    if (status != HR_OK) return status;
    for (size_t i = 0; i < keys->elements; i++) {
        const char *id = id_of(scan, keys->element[i], arena, &full);
        if (id != NULL) scanned->ids[scanned->n++] = id;
    }
    memcpy(scan->cursor, reply->element[0]->str, reply->element[0]->len + 1);
    if (strcmp(scan->cursor, "0") == 0) {
        redisFree(scan->redis);
        scan->redis = NULL;
        scan->master++;
    }
    scanned->ended = scan->master == scan->map->n_shards;
    return full ? out_of_room(err) : fetch_ids(scan, arena, scanned, records, err);
}

/* One master after the other. What moves between them meanwhile may be told twice, or not at all. */
static hr_status redis_next(hr_record_scan *scan, hr_arena *arena, hr_scanned *scanned, hr_error *err) {
    char pattern[2 * HR_STORE_PREFIX_SIZE + 8];
    redisReply *reply = NULL;
    if (scan->redis == NULL) {
        const hr_address *master = &scan->map->shards[scan->master].nodes[0];
        hr_status connected =
            hr_redis_sync_connect(scan->uri, master, HR_REDIS_SYNC_PATIENCE_S, &scan->redis, err);
        if (connected != HR_OK) return connected;
    }
    match_pattern(scan, pattern);
    if (redisAppendCommand(scan->redis, "SCAN %s MATCH %s COUNT %d", scan->cursor, pattern, BATCH_RECORDS) !=
        REDIS_OK)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "redis: %s", scan->redis->errstr);
    hr_status status = hr_redis_sync_reply(scan->redis, &reply, err);
    if (status == HR_OK) status = take_keys(scan, reply, arena, scanned, err);
    if (reply != NULL) freeReplyObject(reply);
    return status;
}

/* --- all -------------------------------------------------------------------------------------------------
 */

static hr_status open_redis(const char *text, hr_record_scan *scan, hr_error *err) {
    enum { MAP_NBYTES = 64 << 20 };
    hr_store_options options = hr_store_defaults;
    options.connect_timeout_ms = options.command_timeout_ms = HR_REDIS_SYNC_PATIENCE_S * 1000;
    scan->map_arena = hr_arena_create(MAP_NBYTES);
    scan->map = scan->map_arena != NULL ? hr_arena_alloc(scan->map_arena, sizeof *scan->map) : NULL;
    if (scan->map == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "scan: out of memory");
    hr_status status = hr_redis_sync_map(scan->uri, scan->map_arena, scan->map, err);
    return status != HR_OK ? status : hr_store_open(text, &options, &scan->store, err);
}

static hr_status open_kind(const char *text, hr_record_scan *scan, hr_error *err) {
    switch (scan->uri->kind) {
    case HR_STORE_LMDB: return hr_lmdb_env_open(scan->uri->path, HR_LMDB_READ, &scan->env, &scan->dbi, err);
    case HR_STORE_REDIS:
    case HR_STORE_REDIS_CLUSTER: return open_redis(text, scan, err);
    case HR_STORE_NONE: break;
    }
    return hr_error_set(
        err, HR_INVALID_ARGUMENT,
        "store: expected lmdb:PATH, redis://HOST:PORT/DB or redis-cluster:// to look through");
}

hr_status hr_record_scan_open(const char *text, const hr_store_uri *uri, const hr_field_list *const fields[2],
                              hr_record_scan **scan, hr_error *err) {
    *scan = NULL;
    hr_record_scan *made = calloc(1, sizeof *made);
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "scan: out of memory");
    made->uri = uri;
    made->fields[HR_ENTITY_USER] = fields[HR_ENTITY_USER];
    made->fields[HR_ENTITY_ITEM] = fields[HR_ENTITY_ITEM];
    hr_status status = open_kind(text, made, err);
    if (status == HR_OK)
        *scan = made;
    else
        hr_record_scan_close(made);
    return status;
}

void hr_record_scan_begin(hr_record_scan *scan, hr_entity entity) {
    scan->entity = entity;
    scan->last_nbytes = hr_lmdb_key(scan->last, scan->uri->prefix, entity, "");
    strcpy(scan->cursor, "0");
    if (scan->redis != NULL) redisFree(scan->redis);
    scan->redis = NULL;
    scan->master = 0;
}

hr_status hr_record_scan_next(hr_record_scan *scan, hr_arena *arena, hr_scanned *scanned, hr_error *err) {
    return scan->env != NULL ? lmdb_next(scan, arena, scanned, err) : redis_next(scan, arena, scanned, err);
}

void hr_record_scan_close(hr_record_scan *scan) {
    if (scan == NULL) return;
    hr_store_close(scan->store);
    if (scan->redis != NULL) redisFree(scan->redis);
    hr_arena_destroy(scan->map_arena);
    if (scan->env != NULL) mdb_env_close(scan->env);
    free(scan);
}
