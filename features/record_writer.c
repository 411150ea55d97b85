/* Opening a record writer by the kind of its store: see record_writer.h. */
#include "features/record_writer.h"

hr_status hr_record_writer_open(const hr_store_uri *uri, hr_record_writer **writer, hr_error *err) {
    *writer = NULL;
    if (uri->layout == HR_LAYOUT_FEAST)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "store: layout feast is read only: expected layout packed or hash to load into");
    switch (uri->kind) {
    case HR_STORE_LMDB: return hr_record_writer__open_lmdb(uri, writer, err);
    case HR_STORE_REDIS: return hr_record_writer__open_redis(uri, writer, err);
    case HR_STORE_REDIS_CLUSTER:
        return hr_error_set(
            err, HR_INVALID_ARGUMENT,
            "store: expected lmdb:PATH or redis://HOST:PORT/DB to load into, found a cluster");
    case HR_STORE_NONE: break;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "store none: holds no records: expected lmdb:PATH or redis://HOST:PORT/DB");
}
