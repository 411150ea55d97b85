/* A record as a store answered it: copied, and as one block of bytes, which is what a cache keeps until a
 * worker has encoded it.
 * Any thread. Private to features/. */
#ifndef HOMERANK_FEATURES_RECORD_BLOB_H
#define HOMERANK_FEATURES_RECORD_BLOB_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "features/store.h"

/* n_fields: of a record of FIELDS or VALUES. The block of a record that is MISSING is empty; a ROW has none.
 */
size_t hr_record_blob_nbytes(const hr_record *record, size_t n_fields);
void hr_record_blob_write(const hr_record *record, size_t n_fields, void *blob); /* aligned to 4 */

/* Sets the record's kind and what belongs to it, copied into the arena; false where that is full. */
bool hr_record_blob_read(hr_record_kind kind, const void *blob, size_t nbytes, hr_arena *arena,
                         hr_record *record);

/* Makes a record's texts and bytes the arena's; false where that is full. */
bool hr_record_copy(hr_record *record, size_t n_fields, hr_arena *arena);

#endif
