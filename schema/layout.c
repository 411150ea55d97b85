/* Where each feature's words lie in its entity's encoded row and its elements in v (see schema.h), and the
 * schema's fingerprint. */
#include <string.h>
#include <xxhash.h>

#include "schema/schema_internal.h"

static uint32_t index_words(const hr_feature *feature) {
    switch (feature->kind) {
    case HR_FEATURE_ID:
    case HR_FEATURE_BUCKET: return 1;
    case HR_FEATURE_IDS: return 1 + feature->max_length;
    case HR_FEATURE_NUMBER:
    case HR_FEATURE_NUMBERS: break;
    }
    return 0;
}

static uint32_t dense_words(const hr_feature *feature) {
    if (feature->kind == HR_FEATURE_NUMBER) return 1;
    return feature->kind == HR_FEATURE_NUMBERS ? feature->length : 0;
}

hr_status hr__schema_lay_out(hr_schema *schema, hr_feature *features, hr_error *err) {
    for (uint32_t i = 0; i < schema->n_features; i++) {
        hr_feature *feature = &features[i];
        hr_row_layout *row = &schema->rows[feature->entity];
        uint32_t n_index = index_words(feature), n_dense = dense_words(feature);
        feature->slot = n_index > 0 ? row->n_index : row->n_dense;
        feature->width = n_index > 0 ? schema->tables[feature->table].dim : n_dense;
        feature->vector_offset = schema->width;
        row->n_index += n_index;
        row->n_dense += n_dense;
        schema->width += feature->width;
        if (row->n_index + row->n_dense > HR_SCHEMA_MAX_ROW_WORDS || schema->width > HR_SCHEMA_MAX_WIDTH)
            return hr_error_set(
                err, HR_INVALID_ARGUMENT,
                "features[%u] \"%.64s\": expected a vector of at most %d elements and rows of at "
                "most %d words, found %u and %u with this feature",
                (unsigned)i, feature->name, HR_SCHEMA_MAX_WIDTH, HR_SCHEMA_MAX_ROW_WORDS,
                (unsigned)schema->width, (unsigned)(row->n_index + row->n_dense));
    }
    return HR_OK;
}

/* The fingerprint is a chain: each part is hashed with the hash so far as the seed. */
static void add_bytes(uint64_t *hash, const void *bytes, size_t nbytes) {
    *hash = XXH64(bytes, nbytes, *hash);
}

static void add_word(uint64_t *hash, uint32_t word) {
    add_bytes(hash, &word, sizeof word);
}

static void add_number(uint64_t *hash, double number) {
    number += 0.0; /* -0.0 and 0.0 mean the same */
    add_bytes(hash, &number, sizeof number);
}

static void add_feature(uint64_t *hash, const hr_feature *feature) {
    add_bytes(hash, feature->name, strlen(feature->name));
    add_bytes(hash, feature->field, strlen(feature->field));
    add_word(hash, feature->entity);
    add_word(hash, feature->kind);
    add_word(hash, feature->table);
    add_word(hash, feature->pool);
    add_word(hash, feature->max_length);
    add_word(hash, feature->log1p);
    add_number(hash, feature->mean);
    add_number(hash, feature->std);
    add_word(hash, feature->n_boundaries);
    for (uint32_t i = 0; i < feature->n_boundaries; i++) add_number(hash, feature->boundaries[i]);
    add_word(hash, feature->length);
}

uint64_t hr__schema_fingerprint(const hr_schema *schema) {
    uint64_t hash = 0;
    add_word(&hash, schema->n_tables);
    for (uint32_t i = 0; i < schema->n_tables; i++) {
        const hr_table *table = &schema->tables[i];
        add_bytes(&hash, table->name, strlen(table->name));
        add_word(&hash, table->rows);
        add_word(&hash, table->dim);
        add_word(&hash, table->index);
    }
    add_word(&hash, schema->n_features);
    for (uint32_t i = 0; i < schema->n_features; i++) add_feature(&hash, &schema->features[i]);
    return hash;
}
