/* A feature store: where the records of users and items come from (DESIGN 5).
 *
 * One interface, asynchronous from the start. hr_store_fetch starts a fetch and returns; `done` is called
 * exactly once for it, whatever happens, on a thread of the store's own, or, where hr_store_is_synchronous,
 * on the caller's before hr_store_fetch returns (such a store may block and must not be asked by an RPC
 * poller). Between the call and `done` the fetch and its arena belong to the store. Any thread may fetch.
 *
 * URIs: none:  lmdb:PATH  redis://[USER:PASSWORD@]HOST:PORT[/DB]  each with ?prefix=hr&layout=packed|hash.
 */
#ifndef HOMERANK_FEATURES_STORE_H
#define HOMERANK_FEATURES_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "schema/schema.h"

typedef struct hr_store hr_store;

typedef enum hr_record_kind {
    HR_RECORD_MISSING, /* no such record, or the store could not answer for it */
    HR_RECORD_PACKED,  /* data is one serialised homerank.v1.FeatureMap */
    HR_RECORD_FIELDS   /* values of a hash, one per requested field (see hr_fetch.fields) */
} hr_record_kind;

/* A field's text in a hash record; text is NULL where the hash has no such field. Arena. */
typedef struct hr_field_text {
    const char *text;
    size_t nbytes;
} hr_field_text;

typedef struct hr_record {
    hr_record_kind kind;
    const uint8_t *data; /* PACKED: nbytes bytes, from outside and unchecked; arena */
    size_t nbytes;
    const hr_field_text *fields; /* FIELDS: one per field of the entity's field list; arena */
    bool invalid; /* there was a value of a wrong type (a Redis list, say); kind is MISSING then */
} hr_record;

/* The distinct record fields that a schema reads of an entity, for layouts that ask field by field.
 * `user_id` and `item_id` are not among them. Borrowed from the encoder. */
typedef struct hr_field_list {
    const char *const *names;
    size_t n_names;
} hr_field_list;

typedef struct hr_fetch hr_fetch;
struct hr_fetch {
    /* In; all borrowed and unchanged until done. */
    const char *user_id;         /* NUL-terminated; NULL: no user is wanted */
    const char *const *item_ids; /* (n_items) NUL-terminated */
    size_t n_items;
    const hr_field_list *fields[HR_ENTITY_COUNT]; /* USER and ITEM */
    uint64_t deadline_ns;                         /* hr_clock_ns; UINT64_MAX: none */
    hr_arena *arena;
    void (*done)(hr_fetch *fetch);
    void *arg;
    /* Out. */
    hr_record user;
    hr_record *items; /* (n_items), arena; NULL where memory ran out and n_items > 0 */
    hr_error error;   /* code HR_OK, or why the store could not answer (part of) it; then those are MISSING */
    /* The store's own while it holds the fetch. */
    hr_fetch *next;
    void *store_private;
};

typedef struct hr_store_options {
    uint32_t connect_timeout_ms;
    uint32_t command_timeout_ms;
    uint32_t n_connections; /* redis: connections, spread over requests */
} hr_store_options;
extern const hr_store_options hr_store_defaults;

/* Whether it is a store's URI; opens nothing. Errors: INVALID_ARGUMENT (which part), OUT_OF_MEMORY. */
hr_status hr_store_check(const char *uri, hr_error *err);

/* Errors: INVALID_ARGUMENT (the URI: which part), IO (lmdb: the path). A redis server that does not answer is
 * not an error: the store connects when it can and says so in the log. */
hr_status hr_store_open(const char *uri, const hr_store_options *options, hr_store **store, hr_error *err);

/* Finishes every fetch under way first; no thread may be inside hr_store_fetch, even where its fetch is done.
 * NULL is allowed. */
void hr_store_close(hr_store *store);

bool hr_store_is_synchronous(const hr_store *store);
void hr_store_fetch(hr_store *store, hr_fetch *fetch);

/* Blocks until the fetch is done, for tools and tests; `done` and `arg` of the fetch are used by it. */
void hr_store_fetch_wait(hr_store *store, hr_fetch *fetch);

/* "redis://HOST:PORT/DB?..." without the password, for logs. */
const char *hr_store_label(const hr_store *store);

#endif
