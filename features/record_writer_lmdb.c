/* Records into LMDB: one transaction a batch, one lane, as LMDB has one writer at a time.
 *
 * A batch: (entry_head, key, value)*. It is whole before it is written, so that
 * it can be written again once the map has grown. */
#include <lmdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "features/lmdb_env.h"
#include "features/record_writer.h"

enum { BATCH_RECORDS = 10000, BATCH_NBYTES = 32 << 20 };

typedef struct entry_head {
    uint32_t key_nbytes, value_nbytes;
} entry_head;

typedef struct lmdb_writer {
    hr_record_writer writer;
    MDB_env *env;
    MDB_dbi dbi;
    char prefix[HR_STORE_PREFIX_SIZE];
} lmdb_writer;

/* An entry with room for its value, which *value points to. */
static hr_status add_entry(const hr_record_writer *writer, hr_record_batch *batch, hr_entity entity,
                           const char *id, size_t nbytes, uint8_t **value, hr_error *err) {
    const lmdb_writer *w = (const lmdb_writer *)writer;
    char key[HR_LMDB_KEY_SIZE];
    const size_t key_nbytes = hr_lmdb_key(key, w->prefix, entity, id);
    if (key_nbytes == 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "id %s: expected a key of at most %d bytes, found a longer one",
                            hr_quote(id, strlen(id)).text, HR_LMDB_KEY_MAX);
    const entry_head head = {(uint32_t)key_nbytes, (uint32_t)nbytes};
    uint8_t *at = hr_record_batch_reserve(batch, sizeof head + key_nbytes + nbytes);
    if (at == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "lmdb: out of memory for a batch of records");
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, key, key_nbytes);
    *value = at + sizeof head + key_nbytes;
    batch->nbytes += sizeof head + key_nbytes + nbytes;
    batch->n_records++;
    return HR_OK;
}

static hr_status lmdb_add_packed(const hr_record_writer *writer, hr_record_batch *batch, hr_entity entity,
                                 const char *id, const uint8_t *packed, size_t nbytes, hr_error *err) {
    uint8_t *value;
    hr_status status = add_entry(writer, batch, entity, id, nbytes, &value, err);
    if (status == HR_OK && nbytes > 0) memcpy(value, packed, nbytes);
    return status;
}

static hr_status lmdb_add_features(const hr_record_writer *writer, hr_record_batch *batch, hr_entity entity,
                                   const char *id, const Homerank__V1__FeatureMap *features, hr_arena *arena,
                                   hr_error *err) {
    (void)arena;
    uint8_t *value;
    const size_t nbytes = homerank__v1__feature_map__get_packed_size(features);
    hr_status status = add_entry(writer, batch, entity, id, nbytes, &value, err);
    if (status == HR_OK) homerank__v1__feature_map__pack(features, value);
    return status;
}

static int write_batch(lmdb_writer *w, const hr_record_batch *batch) {
    MDB_txn *txn;
    int rc = mdb_txn_begin(w->env, NULL, 0, &txn);
    if (rc != 0) return rc;
    uint8_t *at = batch->bytes;
    for (size_t i = 0; i < batch->n_records && rc == 0; i++) {
        entry_head head;
        memcpy(&head, at, sizeof head);
        at += sizeof head;
        MDB_val key = {head.key_nbytes, at}, value = {head.value_nbytes, at + head.key_nbytes};
        rc = mdb_put(txn, w->dbi, &key, &value, 0);
        at += head.key_nbytes + head.value_nbytes;
    }
    if (rc == 0) return mdb_txn_commit(txn); /* frees txn, whatever it returns */
    mdb_txn_abort(txn);
    return rc;
}

static hr_status lmdb_write(hr_record_writer *writer, size_t lane, const hr_record_batch *batch,
                            hr_error *err) {
    (void)lane; /* 0 */
    lmdb_writer *w = (lmdb_writer *)writer;
    int rc;
    do {
        rc = write_batch(w, batch);
        if (rc == MDB_MAP_FULL) {
            hr_status status = hr_lmdb_env_grow(w->env, err);
            if (status != HR_OK) return status;
        } else if (rc == MDB_MAP_RESIZED && mdb_env_set_mapsize(w->env, 0) != 0) { /* by another writer */
            break;
        }
    } while (rc == MDB_MAP_FULL || rc == MDB_MAP_RESIZED);
    return rc == 0 ? HR_OK : hr_error_set(err, HR_IO, "lmdb: cannot write: %s", mdb_strerror(rc));
}

static void lmdb_writer_close(hr_record_writer *writer) {
    lmdb_writer *w = (lmdb_writer *)writer;
    mdb_env_close(w->env);
    free(w);
}

static const hr_record_writer_i lmdb_writer_i = {.add_packed = lmdb_add_packed,
                                                 .add_features = lmdb_add_features,
                                                 .write = lmdb_write,
                                                 .close = lmdb_writer_close};

hr_status hr_record_writer__open_lmdb(const hr_store_uri *uri, hr_record_writer **writer, hr_error *err) {
    lmdb_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "lmdb: out of memory");
    hr_status status = hr_lmdb_env_open(uri->path, HR_LMDB_CREATE, &w->env, &w->dbi, err);
    if (status != HR_OK) {
        free(w);
        return status;
    }
    memcpy(w->prefix, uri->prefix, sizeof w->prefix);
    w->writer = (hr_record_writer){&lmdb_writer_i, 1, BATCH_RECORDS, BATCH_NBYTES};
    *writer = &w->writer;
    return HR_OK;
}
