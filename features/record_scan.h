/* All records of one entity in a store, one batch after the other, in no order that means anything.
 *
 * Of LMDB in the order of their ids, each batch of one state; of Redis by SCAN (of one master of a cluster
 * after the other), which tells of every record that is there all the while, now and then twice. Synchronous,
 * for tools; one thread at a time. Private to features/.
 */
#ifndef HOMERANK_FEATURES_RECORD_SCAN_H
#define HOMERANK_FEATURES_RECORD_SCAN_H

#include "features/store.h"
#include "features/store_uri.h"

typedef struct hr_record_scan hr_record_scan;

/* In the arena that was given for them. */
typedef struct hr_scanned {
    size_t n;
    const char **ids;         /* (n) */
    const hr_record *records; /* (n) MISSING where it has gone meanwhile, or is invalid */
    bool ended;               /* there are no more */
} hr_scanned;

/* uri as text and parsed, fields (USER and ITEM): borrowed for its life. Errors: INVALID_ARGUMENT (not a
 * store that can be scanned), and those of opening it. */
hr_status hr_record_scan_open(const char *text, const hr_store_uri *uri, const hr_field_list *const fields[2],
                              hr_record_scan **scan, hr_error *err);

/* Begins with the entity's records. */
void hr_record_scan_begin(hr_record_scan *scan, hr_entity entity);

/* The next some (perhaps none). Errors: UNAVAILABLE, IO, RESOURCE_EXHAUSTED (the arena). */
hr_status hr_record_scan_next(hr_record_scan *scan, hr_arena *arena, hr_scanned *scanned, hr_error *err);

void hr_record_scan_close(hr_record_scan *scan); /* NULL is allowed */

#endif
