/* Records into LMDB: one transaction a batch. The batch is kept until it is committed, so that it can be
 * written again once the map has grown. */
#include <lmdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "features/lmdb_env.h"
#include "features/record_writer.h"

enum { BATCH_RECORDS = 10000, BATCH_NBYTES = 32 << 20 };

/* A record in `bytes`: its key, then its value. */
typedef struct entry {
    size_t at, key_nbytes, value_nbytes;
} entry;

typedef struct lmdb_writer {
    hr_record_writer writer;
    MDB_env *env;
    MDB_dbi dbi;
    char prefix[HR_STORE_PREFIX_SIZE];
    entry entries[BATCH_RECORDS]; /* writer.n_taken of them */
    uint8_t *bytes;               /* writer.nbytes_taken of capacity */
    size_t capacity;
} lmdb_writer;

static hr_status reserve(lmdb_writer *w, size_t nbytes, hr_error *err) {
    size_t need = w->writer.nbytes_taken + nbytes;
    if (need <= w->capacity) return HR_OK;
    uint8_t *grown = realloc(w->bytes, need * 2);
    if (grown == NULL)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "lmdb: out of memory for a batch of records");
    w->bytes = grown;
    w->capacity = need * 2;
    return HR_OK;
}

static hr_status lmdb_put(hr_record_writer *writer, hr_entity entity, const char *id,
                          const Homerank__V1__FeatureMap *features, hr_error *err) {
    lmdb_writer *w = (lmdb_writer *)writer;
    char key[HR_LMDB_KEY_SIZE];
    size_t key_nbytes = hr_lmdb_key(key, w->prefix, entity, id);
    if (key_nbytes == 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "id %s: expected a key of at most %d bytes, found a longer one",
                            hr_quote(id, strlen(id)).text, HR_LMDB_KEY_MAX);
    size_t value_nbytes = homerank__v1__feature_map__get_packed_size(features);
    hr_status status = reserve(w, key_nbytes + value_nbytes, err);
    if (status != HR_OK) return status;
    uint8_t *at = w->bytes + writer->nbytes_taken;
    memcpy(at, key, key_nbytes);
    homerank__v1__feature_map__pack(features, at + key_nbytes);
    w->entries[writer->n_taken++] = (entry){writer->nbytes_taken, key_nbytes, value_nbytes};
    writer->nbytes_taken += key_nbytes + value_nbytes;
    return HR_OK;
}

static int write_batch(lmdb_writer *w) {
    MDB_txn *txn;
    int rc = mdb_txn_begin(w->env, NULL, 0, &txn);
    if (rc != 0) return rc;
    for (size_t i = 0; i < w->writer.n_taken && rc == 0; i++) {
        const entry *e = &w->entries[i];
        MDB_val key = {e->key_nbytes, w->bytes + e->at};
        MDB_val value = {e->value_nbytes, w->bytes + e->at + e->key_nbytes};
        rc = mdb_put(txn, w->dbi, &key, &value, 0);
    }
    if (rc == 0) return mdb_txn_commit(txn); /* frees txn, whatever it returns */
    mdb_txn_abort(txn);
    return rc;
}

static hr_status lmdb_commit(hr_record_writer *writer, hr_error *err) {
    lmdb_writer *w = (lmdb_writer *)writer;
    int rc;
    do {
        rc = write_batch(w);
        if (rc == MDB_MAP_FULL) {
            hr_status status = hr_lmdb_env_grow(w->env, err);
            if (status != HR_OK) return status;
        } else if (rc == MDB_MAP_RESIZED && mdb_env_set_mapsize(w->env, 0) != 0) { /* by another writer */
            break;
        }
    } while (rc == MDB_MAP_FULL || rc == MDB_MAP_RESIZED);
    if (rc != 0) return hr_error_set(err, HR_IO, "lmdb: cannot write: %s", mdb_strerror(rc));
    writer->n_taken = 0;
    writer->nbytes_taken = 0;
    return HR_OK;
}

static void lmdb_writer_close(hr_record_writer *writer) {
    lmdb_writer *w = (lmdb_writer *)writer;
    mdb_env_close(w->env);
    free(w->bytes);
    free(w);
}

static const hr_record_writer_i lmdb_writer_i = {lmdb_put, lmdb_commit, lmdb_writer_close};

hr_status hr_record_writer__open_lmdb(const hr_store_uri *uri, hr_record_writer **writer, hr_error *err) {
    lmdb_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "lmdb: out of memory");
    hr_status status = hr_lmdb_env_open(uri->path, HR_LMDB_CREATE, &w->env, &w->dbi, err);
    if (status != HR_OK) {
        free(w);
        return status;
    }
    memcpy(w->prefix, uri->prefix, sizeof w->prefix);
    w->writer.i = &lmdb_writer_i;
    w->writer.batch_records = BATCH_RECORDS;
    w->writer.batch_nbytes = BATCH_NBYTES;
    *writer = &w->writer;
    return HR_OK;
}
