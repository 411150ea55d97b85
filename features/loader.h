/* `features load` and `features get`: records from lines of JSON, or rows of CSV (load_csv.h), into a store,
 * and back.
 *
 * A line is {"entity":"user"|"item","id":"...","features":{...}}; an id is a string or an integer; features
 * are in the JSON form of DESIGN 5. Records go into the store in the layout of its URI: one packed
 * FeatureMap, or a Redis hash with one text per feature (lists joined by commas). A record replaces the one
 * that was there.
 *
 * A load reads lines on several threads and, of Redis, writes on several connections; of two records of one
 * id the later in the file stays. Its memory does not grow with the file.
 *
 * Synchronous; for tools, which ignore SIGPIPE (a store's server may go away). One load per thread.
 */
#ifndef HOMERANK_FEATURES_LOADER_H
#define HOMERANK_FEATURES_LOADER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

typedef struct hr_load_options {
    const char *store;       /* URI; `none:` cannot be written */
    const char *in;          /* path; `-`, `.gz` and `.zst` as in base/text_file.h */
    uint64_t from_line;      /* the first line to load, from 1 (0 means 1) */
    const atomic_bool *stop; /* once true, the load commits what it has and ends; may be NULL */
    FILE *messages;          /* one line per bad line of the input, and the progress bar; NULL: none */
    bool progress;           /* draw the bar: messages is a terminal */
    bool csv;                /* rows of CSV below a header, not lines of JSON */
    const char *entity;      /* csv: of all rows, "user" or "item"; NULL: there is a column */
    uint32_t n_threads;      /* that read lines; 0: one per CPU */
    uint32_t n_connections;  /* redis: 1 to 64; 0: 4 */
    uint32_t ttl_s;          /* redis: records expire after that; 0: never */
    uint64_t rate;           /* records a second, at most; 0: as fast as it goes */
    const char *resume;      /* path of a file that remembers where to go on, removed once all is loaded; a
                                load that finds one begins there. NULL: none */
} hr_load_options;

typedef struct hr_load_result {
    uint64_t n_records;   /* written and acknowledged by the store */
    uint64_t n_bad_lines; /* each reported, none written */
    uint64_t resume_line; /* every line before it is in the store or was reported as bad */
    double seconds;
} hr_load_result;

/* result is filled whatever is returned. OK: every good line is in the store (n_bad_lines may be > 0: the
 * caller exits with 1 then). CANCELLED: stop was set. Otherwise the store or the file failed. After anything
 * but OK, from_line = result->resume_line goes on where this load ended, and the error's line says so. */
hr_status hr_features_load(const hr_load_options *options, hr_load_result *result, hr_error *err);

/* Prints the record as such a line. entity: "user" or "item". Errors: NOT_FOUND (no such record),
 * INVALID_ARGUMENT (the URI, the entity, or a stored value that is not a record), UNAVAILABLE, IO. */
hr_status hr_features_get(const char *store, const char *entity, const char *id, FILE *out, hr_error *err);

#endif
