/* `lmdb:PATH`, the embedded store: records in a memory-mapped file, read on the caller's thread.
 *
 * One read transaction per fetch, so that a fetch sees one state of the store. Transactions are parked after
 * use and renewed, which takes no lock that a writer holds. Another process may grow the map: the next
 * transaction then begins with MDB_MAP_RESIZED, and the map is taken anew once no fetch of this process is
 * under way (map_lock).
 *
 * Any thread may fetch. Values are copied out before the transaction ends.
 */
#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "features/lmdb_env.h"
#include "features/store_internal.h"

enum { MAX_PARKED = 256, RECORDS_PER_CLOCK_CHECK = 64 };

typedef struct lmdb_store {
    MDB_env *env;
    MDB_dbi dbi;
    char prefix[HR_STORE_PREFIX_SIZE];
    pthread_rwlock_t map_lock; /* read: a transaction is open; write: the map may be replaced */
    pthread_mutex_t parked_lock;
    MDB_txn *parked[MAX_PARKED]; /* reset, ready to be renewed; guarded by parked_lock */
    size_t n_parked;
} lmdb_store;

static MDB_txn *unpark(lmdb_store *store) {
    pthread_mutex_lock(&store->parked_lock);
    MDB_txn *txn = store->n_parked > 0 ? store->parked[--store->n_parked] : NULL;
    pthread_mutex_unlock(&store->parked_lock);
    return txn;
}

static void park(lmdb_store *store, MDB_txn *txn) {
    mdb_txn_reset(txn);
    pthread_mutex_lock(&store->parked_lock);
    bool kept = store->n_parked < MAX_PARKED;
    if (kept) store->parked[store->n_parked++] = txn;
    pthread_mutex_unlock(&store->parked_lock);
    if (!kept) mdb_txn_abort(txn);
}

/* Slots of readers are shared by all processes, and those of dead ones are only freed by who looks. */
static int begin_new(lmdb_store *store, MDB_txn **txn) {
    int n_dead = 0, rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, txn);
    if (rc != MDB_READERS_FULL || mdb_reader_check(store->env, &n_dead) != 0 || n_dead == 0) return rc;
    return mdb_txn_begin(store->env, NULL, MDB_RDONLY, txn);
}

static int begin(lmdb_store *store, MDB_txn **txn) {
    *txn = unpark(store);
    if (*txn == NULL) return begin_new(store, txn);
    int rc = mdb_txn_renew(*txn);
    if (rc != 0) mdb_txn_abort(*txn);
    return rc;
}

/* Begins a transaction and leaves map_lock held for reading; neither where it fails. */
static int begin_locked(lmdb_store *store, MDB_txn **txn) {
    pthread_rwlock_rdlock(&store->map_lock);
    int rc = begin(store, txn);
    if (rc == MDB_MAP_RESIZED) {
        pthread_rwlock_unlock(&store->map_lock);
        pthread_rwlock_wrlock(&store->map_lock);
        rc = mdb_env_set_mapsize(store->env, 0); /* 0: as large as the file says */
        pthread_rwlock_unlock(&store->map_lock);
        pthread_rwlock_rdlock(&store->map_lock);
        if (rc == 0) rc = begin(store, txn);
    }
    if (rc != 0) pthread_rwlock_unlock(&store->map_lock);
    return rc;
}

static void fail_lmdb(hr_fetch *fetch, int rc) {
    char message[HR_ERROR_MESSAGE_SIZE];
    snprintf(message, sizeof message, "lmdb: cannot read: %s", mdb_strerror(rc));
    hr_fetch__fail(fetch, rc == MDB_READERS_FULL ? HR_RESOURCE_EXHAUSTED : HR_UNAVAILABLE, message);
}

static bool read_record(lmdb_store *store, MDB_txn *txn, hr_fetch *fetch, hr_fetch_slot slot) {
    char key[HR_LMDB_KEY_SIZE];
    size_t n = hr_lmdb_key(key, store->prefix, slot.entity, slot.id);
    if (n == 0) return slot.record->answered = true; /* no such key can have been written */
    MDB_val k = {n, key}, v;
    int rc = mdb_get(txn, store->dbi, &k, &v);
    if (rc == 0) hr_fetch__take_packed(fetch, slot.record, v.mv_data, v.mv_size);
    if (rc == MDB_NOTFOUND) slot.record->answered = true;
    if (rc != 0 && rc != MDB_NOTFOUND) fail_lmdb(fetch, rc);
    return fetch->error.code == HR_OK;
}

static void read_records(lmdb_store *store, MDB_txn *txn, hr_fetch *fetch) {
    size_t n = hr_fetch__count(fetch);
    for (size_t i = 0; i < n; i++) {
        if (i % RECORDS_PER_CLOCK_CHECK == 0 && hr_clock_ns() >= fetch->deadline_ns) {
            hr_fetch__fail(fetch, HR_DEADLINE_EXCEEDED, "lmdb: the call's deadline came before its records");
            return;
        }
        if (!read_record(store, txn, fetch, hr_fetch__slot(fetch, i))) return;
    }
}

/* Of the last transaction that was committed, by whichever process. */
static uint64_t lmdb_state(void *context) {
    lmdb_store *store = context;
    MDB_envinfo info = {.me_last_txnid = 0};
    pthread_rwlock_rdlock(&store->map_lock);
    mdb_env_info(store->env, &info);
    pthread_rwlock_unlock(&store->map_lock);
    return info.me_last_txnid;
}

static void lmdb_fetch(void *context, hr_fetch *fetch) {
    lmdb_store *store = context;
    if (hr_fetch__begin(fetch)) {
        MDB_txn *txn;
        int rc = begin_locked(store, &txn);
        if (rc == 0) {
            fetch->state = mdb_txn_id(txn);
            read_records(store, txn, fetch);
            park(store, txn);
            pthread_rwlock_unlock(&store->map_lock);
        } else {
            fail_lmdb(fetch, rc);
        }
    }
    fetch->done(fetch);
}

static void lmdb_close(void *context) {
    lmdb_store *store = context;
    for (size_t i = 0; i < store->n_parked; i++) mdb_txn_abort(store->parked[i]);
    mdb_env_close(store->env);
    pthread_mutex_destroy(&store->parked_lock);
    pthread_rwlock_destroy(&store->map_lock);
    free(store);
}

hr_status hr_store__open_lmdb(const hr_store_uri *uri, void **context, hr_error *err) {
    lmdb_store *store = calloc(1, sizeof *store);
    if (store == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "lmdb: out of memory");
    hr_status status = hr_lmdb_env_open(uri->path, HR_LMDB_READ, &store->env, &store->dbi, err);
    if (status != HR_OK) {
        free(store);
        return status;
    }
    memcpy(store->prefix, uri->prefix, sizeof store->prefix);
    pthread_rwlock_init(&store->map_lock, NULL);
    pthread_mutex_init(&store->parked_lock, NULL);
    *context = store;
    return HR_OK;
}

const hr_store_i hr_store__lmdb = {
    .synchronous = true, .fetch = lmdb_fetch, .close = lmdb_close, .state = lmdb_state};
