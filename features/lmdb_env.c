/* LMDB environments: see lmdb_env.h. */
#include "features/lmdb_env.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "features/store_internal.h"

/* The reader table is made by whoever opens an environment first, for all processes: a slot per fetch under
 * way. */
enum { MAX_READERS = 1024, FIRST_MAP_NBYTES = 16 << 20 };

static hr_status check_folder(const char *path, hr_lmdb_mode mode, hr_error *err) {
    struct stat st;
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode)) return HR_OK;
        return hr_error_set(err, HR_IO, "lmdb: %s: expected a folder, found a file", path);
    }
    if (errno != ENOENT) return hr_error_set(err, HR_IO, "lmdb: %s: %s", path, strerror(errno));
    if (mode == HR_LMDB_READ)
        return hr_error_set(err, HR_NOT_FOUND,
                            "lmdb: %s: expected a folder made by `homerank features load`, found nothing",
                            path);
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return hr_error_set(err, HR_IO, "lmdb: %s: cannot make the folder: %s", path, strerror(errno));
    return HR_OK;
}

static int open_dbi(MDB_env *env, MDB_dbi *dbi) {
    MDB_txn *txn;
    int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc != 0) return rc;
    rc = mdb_dbi_open(txn, NULL, 0, dbi);
    if (rc == 0) return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

hr_status hr_lmdb_env_open(const char *path, hr_lmdb_mode mode, MDB_env **env, MDB_dbi *dbi, hr_error *err) {
    hr_status status = check_folder(path, mode, err);
    if (status != HR_OK) return status;
    int rc = mdb_env_create(env);
    if (rc != 0) return hr_error_set(err, HR_OUT_OF_MEMORY, "lmdb: %s: %s", path, mdb_strerror(rc));
    int n_dead;
    rc = mdb_env_set_maxreaders(*env, MAX_READERS);
    if (rc == 0) rc = mdb_env_set_mapsize(*env, FIRST_MAP_NBYTES); /* an existing larger map keeps its size */
    /* NORDAHEAD: records are read at random. */
    unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | (mode == HR_LMDB_READ ? MDB_RDONLY : 0);
    if (rc == 0) rc = mdb_env_open(*env, path, flags, 0666);
    if (rc == 0) mdb_reader_check(*env, &n_dead); /* frees the slots of processes that died */
    if (rc == 0) rc = open_dbi(*env, dbi);
    if (rc == 0) return HR_OK;
    mdb_env_close(*env);
    *env = NULL;
    if (rc == ENOENT)
        return hr_error_set(err, HR_NOT_FOUND,
                            "lmdb: %s: expected records loaded by `homerank features load`, found none",
                            path);
    return hr_error_set(err, HR_IO, "lmdb: %s: cannot open: %s", path, mdb_strerror(rc));
}

hr_status hr_lmdb_env_grow(MDB_env *env, hr_error *err) {
    MDB_envinfo info;
    int n_dead = 0;
    if (mdb_reader_check(env, &n_dead) == 0 && n_dead > 0) return HR_OK;
    int rc = mdb_env_info(env, &info);
    if (rc == 0)
        rc = info.me_mapsize > SIZE_MAX / 4 ? MDB_MAP_FULL : mdb_env_set_mapsize(env, info.me_mapsize * 2);
    return rc == 0 ? HR_OK : hr_error_set(err, HR_IO, "lmdb: cannot grow the map: %s", mdb_strerror(rc));
}

size_t hr_lmdb_key(char *key, const char *prefix, hr_entity entity, const char *id) {
    int n = snprintf(key, HR_LMDB_KEY_SIZE, "%s:%s:%s", prefix, hr_entity__name(entity), id);
    return n > 0 && n <= HR_LMDB_KEY_MAX ? (size_t)n : 0;
}
