/* Writing records into a store: the loader's side of LMDB and Redis.
 *
 * Records are gathered in batches, which any threads may fill, and written lane by lane: a record's key says
 * its lane, and a lane's batches are written in order, so that of two records of one key the later stays.
 * Private to features/.
 */
#ifndef HOMERANK_FEATURES_RECORD_WRITER_H
#define HOMERANK_FEATURES_RECORD_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "features/store_uri.h"
#include "proto/homerank.pb-c.h"
#include "schema/schema.h"

typedef struct hr_record_writer hr_record_writer;

/* Records of one lane, as their writer keeps them. All zero: empty. One thread at a time. */
typedef struct hr_record_batch {
    uint8_t *bytes; /* nbytes of capacity, owned */
    size_t nbytes, capacity;
    size_t n_records;
    size_t n_replies; /* redis: what the server will answer */
} hr_record_batch;

/* Room for nbytes more at bytes + nbytes, which the caller fills and counts. NULL when out of memory. */
uint8_t *hr_record_batch_reserve(hr_record_batch *batch, size_t nbytes);
void hr_record_batch_empty(hr_record_batch *batch); /* keeps its memory */
void hr_record_batch_clear(hr_record_batch *batch);

/* A kind of store's functions; each kind begins its own state with an hr_record_writer. */
typedef struct hr_record_writer_i {
    /* Add a record; any thread, one per batch and arena. The first takes a serialised FeatureMap; NULL where
     * records are not stored so. Errors: INVALID_ARGUMENT: the store cannot hold this record, which is left
     * out; OUT_OF_MEMORY. */
    hr_status (*add_packed)(const hr_record_writer *writer, hr_record_batch *batch, hr_entity entity,
                            const char *id, const uint8_t *packed, size_t nbytes, hr_error *err);
    hr_status (*add_features)(const hr_record_writer *writer, hr_record_batch *batch, hr_entity entity,
                              const char *id, const Homerank__V1__FeatureMap *features, hr_arena *arena,
                              hr_error *err);
    /* Puts a batch into the store and waits until it is there. One thread per lane. */
    hr_status (*write)(hr_record_writer *writer, size_t lane, const hr_record_batch *batch, hr_error *err);
    void (*close)(hr_record_writer *writer);
    /* (optional) A record's lane; without it, by the hash of its id. Any thread. */
    size_t (*lane)(const hr_record_writer *writer, hr_entity entity, const char *id);
} hr_record_writer_i;

struct hr_record_writer {
    const hr_record_writer_i *i;
    size_t n_lanes;
    size_t batch_records, batch_nbytes; /* of input, at most: a good size of what is written at once */
};

typedef struct hr_record_writer_options {
    size_t n_lanes; /* redis: connections, at least one to each of a cluster's masters; 1 to
                       HR_RECORD_WRITER_MAX_LANES */
    uint32_t ttl_s; /* redis: records expire after that; 0: never */
} hr_record_writer_options;
enum { HR_RECORD_WRITER_MAX_LANES = 64 };

/* Errors: INVALID_ARGUMENT (what cannot be written), IO (lmdb: the path), UNAVAILABLE (redis: the server). */
hr_status hr_record_writer_open(const hr_store_uri *uri, const hr_record_writer_options *options,
                                hr_record_writer **writer, hr_error *err);

/* The lane of a record. */
size_t hr_record_writer_lane(const hr_record_writer *writer, hr_entity entity, const char *id);

size_t hr_record_writer__hash(hr_entity entity, const char *id);
hr_status hr_record_writer__open_lmdb(const hr_store_uri *uri, hr_record_writer **writer, hr_error *err);
hr_status hr_record_writer__open_redis(const hr_store_uri *uri, const hr_record_writer_options *options,
                                       hr_record_writer **writer, hr_error *err);

#endif
