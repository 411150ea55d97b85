/* What a model's inputs are (MODEL.md 3): tables, features, and the layout of an encoded row.
 *
 * A schema is immutable once made; any thread may read it. It is owned by whoever created it.
 *
 * Encoded rows. The feature encoder turns a user, an item or a request's context into one fixed-size row:
 *
 *     uint32_t index[n_index]   table rows: one word for an `id` or `bucket` feature; for `ids` a count
 *                               word and then max_length words, the first `count` of them valid
 *     float    dense[n_dense]   final values of `number` (1) and `numbers` (length) features
 *
 * so a row has n_index + n_dense 4-byte words, and rows of one entity lie one after another. Every table row
 * in it is < rows of its table and every count <= max_length: the encoder guarantees it and the backends rely
 * on it. This is all that passes between features/ and model/.
 */
#ifndef HOMERANK_SCHEMA_SCHEMA_H
#define HOMERANK_SCHEMA_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct json_t; /* jansson's; who has none needs none */

typedef enum hr_entity { HR_ENTITY_USER, HR_ENTITY_ITEM, HR_ENTITY_CONTEXT, HR_ENTITY_COUNT } hr_entity;
typedef enum hr_table_index { HR_INDEX_HASH, HR_INDEX_DIRECT } hr_table_index;
typedef enum hr_feature_kind {
    HR_FEATURE_ID,
    HR_FEATURE_IDS,
    HR_FEATURE_NUMBER,
    HR_FEATURE_BUCKET,
    HR_FEATURE_NUMBERS
} hr_feature_kind;
typedef enum hr_pool { HR_POOL_MEAN, HR_POOL_SUM } hr_pool;

typedef struct hr_table {
    const char *name;
    uint32_t rows; /* >= 2; row 0 stands for missing */
    uint32_t dim;
    hr_table_index index;
} hr_table;

typedef struct hr_feature {
    const char *name;
    const char *field; /* the record's field; defaults to name */
    hr_entity entity;
    hr_feature_kind kind;
    uint32_t table;           /* id, ids, bucket: index into hr_schema.tables */
    hr_pool pool;             /* ids */
    uint32_t max_length;      /* ids */
    bool log1p;               /* number */
    double mean, std;         /* number */
    const double *boundaries; /* bucket: strictly increasing */
    uint32_t n_boundaries;
    uint32_t length;        /* numbers */
    uint32_t slot;          /* first word in its entity's index[] (id, ids, bucket) or dense[] part */
    uint32_t vector_offset; /* first element in v */
    uint32_t width;         /* elements in v */
} hr_feature;

/* The size of one entity's encoded row, in 4-byte words. */
typedef struct hr_row_layout {
    uint32_t n_index, n_dense;
} hr_row_layout;

typedef struct hr_schema {
    const hr_table *tables; /* sorted by name */
    uint32_t n_tables;
    const hr_feature *features; /* in the order of config.json, which is v's order */
    uint32_t n_features;
    uint32_t width; /* D, the width of v */
    hr_row_layout rows[HR_ENTITY_COUNT];
    uint64_t fingerprint; /* equal schemas (tables, features, all parameters) have equal fingerprints */
} hr_schema;

/* Reads the `tables` and `features` values of config.json (borrowed; may be freed afterwards).
 * Errors: INVALID_ARGUMENT naming the table or feature and the key; OUT_OF_MEMORY. */
hr_status hr_schema_create(const struct json_t *tables, const struct json_t *features, hr_schema **schema,
                           hr_error *err);
void hr_schema_destroy(hr_schema *schema); /* NULL is allowed */

/* MODEL.md 3, "Row of a text": the row of text[0..nbytes) in the table; row 0 for empty or unknown texts. */
uint32_t hr_table_row(const hr_table *table, const char *text, size_t nbytes);

/* Words in one encoded row of the entity. */
static inline size_t hr_row_words(const hr_schema *schema, hr_entity entity) {
    return (size_t)schema->rows[entity].n_index + schema->rows[entity].n_dense;
}

#endif
