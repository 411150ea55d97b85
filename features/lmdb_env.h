/* An LMDB environment of records, as the store reads it and the loader writes it. Private to features/.
 *
 * The path is a folder (data.mdb, lock.mdb); records lie in the unnamed database under
 * `{prefix}:{entity}:{id}`, each one serialised FeatureMap. One process must not open the same path twice at
 * a time (LMDB's rule).
 */
#ifndef HOMERANK_FEATURES_LMDB_ENV_H
#define HOMERANK_FEATURES_LMDB_ENV_H

#include <lmdb.h>
#include <stdbool.h>

#include "base/status.h"
#include "schema/schema.h"

typedef enum hr_lmdb_mode {
    HR_LMDB_READ,  /* must exist */
    HR_LMDB_CREATE /* for reading and writing; made where it does not exist */
} hr_lmdb_mode;

/* dbi is the unnamed database's handle. Close with mdb_env_close.
 * Errors: NOT_FOUND (nothing at path), IO (path is a file; LMDB's reason), each naming the path. */
hr_status hr_lmdb_env_open(const char *path, hr_lmdb_mode mode, MDB_env **env, MDB_dbi *dbi, hr_error *err);

/* Makes room after MDB_MAP_FULL: frees what readers that died have held, or else doubles the map; no
 * transaction of this process may be open. Errors: IO. */
hr_status hr_lmdb_env_grow(MDB_env *env, hr_error *err);

/* LMDB's longest key, and the size of a buffer for one. */
enum { HR_LMDB_KEY_MAX = 511, HR_LMDB_KEY_SIZE = 512 };

/* Writes the key of a record to key[HR_LMDB_KEY_SIZE]; 0 where it is longer than LMDB's keys may be. */
size_t hr_lmdb_key(char *key, const char *prefix, hr_entity entity, const char *id);

#endif
