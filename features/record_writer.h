/* Writing records into a store, in batches: the loader's side of LMDB and Redis. Synchronous. Private to
 * features/. */
#ifndef HOMERANK_FEATURES_RECORD_WRITER_H
#define HOMERANK_FEATURES_RECORD_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "features/store_uri.h"
#include "proto/homerank.pb-c.h"
#include "schema/schema.h"

typedef struct hr_record_writer hr_record_writer;

/* A kind of store's functions; each kind begins its own state with an hr_record_writer. */
typedef struct hr_record_writer_i {
    /* Takes the record; it is in the store only after commit. Errors: INVALID_ARGUMENT: the store cannot hold
     * this record, which is left out, and writing may go on; any other error is final. */
    hr_status (*put)(hr_record_writer *writer, hr_entity entity, const char *id,
                     const Homerank__V1__FeatureMap *features, hr_error *err);
    /* Puts all taken records into the store. */
    hr_status (*commit)(hr_record_writer *writer, hr_error *err);
    void (*close)(hr_record_writer *writer);
} hr_record_writer_i;

struct hr_record_writer {
    const hr_record_writer_i *i;
    size_t n_taken, nbytes_taken;       /* since the last commit */
    size_t batch_records, batch_nbytes; /* commit when one is reached */
};

/* Errors: INVALID_ARGUMENT (none: cannot be written), IO (lmdb: the path), UNAVAILABLE (redis: the server).
 */
hr_status hr_record_writer_open(const hr_store_uri *uri, hr_record_writer **writer, hr_error *err);

hr_status hr_record_writer__open_lmdb(const hr_store_uri *uri, hr_record_writer **writer, hr_error *err);
hr_status hr_record_writer__open_redis(const hr_store_uri *uri, hr_record_writer **writer, hr_error *err);

#endif
