/* Batches, and opening a record writer by the kind of its store: see record_writer.h. */
#include "features/record_writer.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

uint8_t *hr_record_batch_reserve(hr_record_batch *batch, size_t nbytes) {
    const size_t need = batch->nbytes + nbytes;
    if (need > batch->capacity) {
        uint8_t *grown = realloc(batch->bytes, need * 2);
        if (grown == NULL) return NULL;
        batch->bytes = grown;
        batch->capacity = need * 2;
    }
    return batch->bytes + batch->nbytes;
}

void hr_record_batch_empty(hr_record_batch *batch) {
    batch->nbytes = batch->n_records = batch->n_replies = 0;
}

void hr_record_batch_clear(hr_record_batch *batch) {
    free(batch->bytes);
    *batch = (hr_record_batch){.bytes = NULL};
}

size_t hr_record_writer__hash(hr_entity entity, const char *id) {
    return XXH3_64bits_withSeed(id, strlen(id), (XXH64_hash_t)entity);
}

size_t hr_record_writer_lane(const hr_record_writer *writer, hr_entity entity, const char *id) {
    if (writer->i->lane != NULL) return writer->i->lane(writer, entity, id);
    return hr_record_writer__hash(entity, id) % writer->n_lanes;
}

hr_status hr_record_writer_open(const hr_store_uri *uri, const hr_record_writer_options *options,
                                hr_record_writer **writer, hr_error *err) {
    *writer = NULL;
    if (uri->layout == HR_LAYOUT_FEAST)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "store: layout feast is read only: expected layout packed or hash to load into");
    switch (uri->kind) {
    case HR_STORE_LMDB:
        if (options->ttl_s > 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "ttl: lmdb: keeps records until they are replaced: expected redis://");
        return hr_record_writer__open_lmdb(uri, writer, err);
    case HR_STORE_REDIS:
    case HR_STORE_REDIS_CLUSTER: return hr_record_writer__open_redis(uri, options, writer, err);
    case HR_STORE_NONE: break;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "store none: holds no records: expected lmdb:PATH or redis://HOST:PORT/DB");
}
