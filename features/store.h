/* A feature store: where the records of users and items come from (DESIGN 5).
 *
 * One interface, asynchronous from the start. hr_store_fetch starts a fetch and returns; `done` is called
 * exactly once for it, whatever happens, on a thread of the store's own, or on the caller's before
 * hr_store_fetch returns: where all of it is cached, and always where hr_store_is_synchronous (such a store
 * may block and must not be asked by an RPC poller). Between the call and `done` the fetch and its arena
 * belong to the store. Any thread may fetch.
 *
 * A store may keep a cache of encoded records (hr_store_options.cache_nbytes). Its fetches then give rows,
 * not records, of what is cached, whoever encodes the others offers their rows (hr_fetch_keep_row), and a
 * store that cannot answer is stood in for by what was true not long ago. docs/features.md tells how.
 *
 * URIs: none:  lmdb:PATH  redis://[USER:PASSWORD@]HOST:PORT[/DB]
 * redis-cluster://[USER:PASSWORD@]HOST:PORT,... each with ?prefix=hr&layout=packed|hash|feast; a cluster's
 * also with read=master|replica and hedge=off|on.
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
    HR_RECORD_FIELDS,  /* texts of a hash, one per requested field (see hr_fetch.fields) */
    HR_RECORD_VALUES,  /* the same of a Feast store: each is one serialised feast.types.Value */
    HR_RECORD_ROW      /* encoded already, see row; from a cache */
} hr_record_kind;

/* A field's text in a hash record, of FIELDS or VALUES; NULL where the hash has no such field. Arena. */
typedef struct hr_field_text {
    const char *text;
    size_t nbytes;
} hr_field_text;

typedef struct hr_record {
    hr_record_kind kind;
    const uint8_t *data; /* PACKED: nbytes bytes, from outside and unchecked; arena */
    size_t nbytes;
    const hr_field_text *fields; /* FIELDS, VALUES: one per field of the entity's field list; arena */
    bool invalid;  /* there was a value of a wrong type (a Redis list, say); kind is MISSING then */
    bool answered; /* that it is so the store has said, or said not long ago to a cache that hears of changes;
                      false: it could not answer, and the record is MISSING or stale */
    bool stale;    /* from a cache, past its time */
    /* From a cache: what hr_encode_stored made of the record, or, where kind is MISSING, of there being none;
     * it lies in the fetch's rows. NULL: yet to be encoded. */
    const uint32_t *row;
    const uint32_t *n_wrong; /* with row: hr_encode_stored's counts, arena; NULL: all zero */
    /* Between a store and its cache. */
    uint64_t cover;   /* what will tell of the record's next change, since before it was read; 0: nothing */
    uint64_t version; /* of the cache's entry that waits for the record's row; 0: none does */
} hr_record;

/* The distinct record fields that a schema reads of an entity, for layouts that ask field by field.
 * `user_id` and `item_id` are not among them. Borrowed from the encoder. */
typedef struct hr_field_list {
    const char *const *names;
    size_t n_names;
} hr_field_list;

/* Takes offers of rows; see hr_fetch_keep_row. */
typedef struct hr_row_offer hr_row_offer;
typedef struct hr_row_keeper hr_row_keeper;
struct hr_row_keeper {
    void (*keep)(hr_row_keeper *keeper, const hr_row_offer *offer);
};

typedef struct hr_fetch hr_fetch;
struct hr_fetch {
    /* In; all borrowed and unchanged until done. */
    const char *user_id;         /* NUL-terminated; NULL: no user is wanted */
    const char *const *item_ids; /* (n_items) NUL-terminated */
    size_t n_items;
    const hr_field_list *fields[HR_ENTITY_COUNT]; /* USER and ITEM */
    const hr_schema *schema; /* whose rows a cache is asked for; NULL: none, records are fetched as stored */
    uint64_t deadline_ns;    /* hr_clock_ns; UINT64_MAX: none */
    hr_arena *arena;
    void (*done)(hr_fetch *fetch);
    void *arg;
    /* Out. */
    hr_record user;
    hr_record *items; /* (n_items), arena; NULL where memory ran out and n_items > 0 */
    hr_error error;   /* code HR_OK, or why the store could not answer (part of) it */
    /* USER (words) and ITEM (n_items, words), words = hr_row_words: the rows of cached records, room for the
     * others. Arena; NULL where there is no cache. */
    uint32_t *rows[HR_ENTITY_COUNT];
    hr_row_keeper *keeper; /* NULL: nobody keeps rows */
    /* For a cache: the number of the store's state that all the records are of; 0: it does not tell. */
    uint64_t state;
    /* The store's own while it holds the fetch. */
    hr_fetch *next;
    void *store_private;
};

typedef struct hr_store_options {
    uint32_t connect_timeout_ms;
    uint32_t command_timeout_ms;
    uint32_t n_connections; /* redis: connections, spread over requests */
    /* The cache of encoded records, of lmdb and redis. */
    size_t cache_nbytes;   /* all that it takes, its tables too; 0: no cache, else at least 1 MiB */
    uint32_t cache_ttl_ms; /* a record is fetched again after that (a tenth less, at random); 0: never */
    uint32_t cache_max_stale_ms; /* redis: so long after its time a record may stand in where it fails */
    uint32_t
        cache_heartbeat_ms;  /* >= 2: a connection that would tell of changes is lost after such silence */
    size_t max_fetch_nbytes; /* memory of one fetch of the cache's own */
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

struct hr_row_offer {
    const hr_fetch *fetch;
    const hr_record *record; /* one of the fetch's */
    hr_entity entity;
    const char *id;
    const uint32_t *row;     /* (hr_row_words) what hr_encode_stored made of the record */
    const uint32_t *n_wrong; /* (n_wrong_counts) its counts; NULL: all zero */
    size_t n_wrong_counts;
};

/* Offers the encoded row of a record that came without; the cache copies it if it wants it. Any thread. */
static inline void hr_fetch_keep_row(const hr_row_offer *offer) {
    hr_row_keeper *keeper = offer->fetch->keeper;
    if (keeper != NULL) keeper->keep(keeper, offer);
}

/* Counts since the store was opened, but for the last two. */
typedef struct hr_cache_stats {
    uint64_t n_hits;          /* records found, n_negative_hits among them */
    uint64_t n_negative_hits; /* found to be absent */
    uint64_t n_misses;        /* records asked of the store */
    uint64_t n_joins;         /* records that another fetch had already asked for: waited for with it */
    uint64_t n_stale;         /* stale records that stood in for a store's answer */
    uint64_t n_evictions;     /* entries given up for room */
    uint64_t n_invalidations; /* entries that a change of their record outdated */
    uint64_t n_losses;        /* times that all entries from a server became doubtful at once */
    uint64_t nbytes, n_entries;
} hr_cache_stats;

/* False where the store has no cache. Any thread. */
bool hr_store_cache_stats(const hr_store *store, hr_cache_stats *stats);

/* What a store has done since it was opened: X(name, what it counts). Only Redis stores count. */
#define HR_STORE_COUNT_MAP(X)                                                                                \
    X(fetches, "fetches begun")                                                                              \
    X(degraded, "fetches that ended with an error: some of their records are missing for it")                \
    X(timeouts, "fetches that ended before all answers had come")                                            \
    X(records, "records asked for")                                                                          \
    X(commands, "commands sent, repeated and hedged ones included")                                          \
    X(expired, "views of records that were too old to be taken (layout feast)")                              \
    X(bytes, "bytes of records received")                                                                    \
    X(late_records, "records answered after their fetch had ended, for nobody")                              \
    X(connects, "connections made ready")                                                                    \
    X(disconnects, "connections and attempts to connect that failed")                                        \
    X(redirects, "records that a node sent to another (MOVED, ASK)")                                         \
    X(retries, "records asked for once more")                                                                \
    X(maps, "maps of the cluster taken")                                                                     \
    X(breaker_opens, "times a node was found not to answer, and was no longer asked")                        \
    X(breaker_refusals, "records not asked for because their node was not")                                  \
    X(overloads, "records not asked for because too many waited, or too little time was left")               \
    X(hedges, "reads asked of a second node because the first was slow")                                     \
    X(hedges_won, "of those, answered by the second node first")

typedef struct hr_store_counts {
#define HR_STORE_COUNT_MEMBER(name, text) uint64_t name;
    HR_STORE_COUNT_MAP(HR_STORE_COUNT_MEMBER)
#undef HR_STORE_COUNT_MEMBER
} hr_store_counts;

/* False, and all zero, where the store counts nothing. Any thread; each count is exact, all of them together
 * are not of one moment. */
bool hr_store_count(const hr_store *store, hr_store_counts *counts);

/* "redis://HOST:PORT/DB?..." without the password, for logs. */
const char *hr_store_label(const hr_store *store);

#endif
