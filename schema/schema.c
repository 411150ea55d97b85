/* The schema: `tables` and `features` of config.json, read and checked (MODEL.md 3). See schema.h.
 *
 * Tables are sorted by name, so that the order of the keys of a JSON object means nothing. All memory is one
 * arena, owned by the schema.
 */
#include "schema/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "schema/json_read.h"
#include "schema/schema_internal.h"

enum { SCHEMA_MAX_NBYTES = 256 << 20 };

typedef struct owned_schema {
    hr_schema schema; /* first: what callers hold */
    hr_arena *arena;
} owned_schema;

/* What reading one schema works on. */
typedef struct reader {
    hr_schema *schema;
    hr_arena *arena;
    hr_table *tables;
    hr_feature *features;
} reader;

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

static hr_status out_of_memory(hr_error *err) {
    return hr_error_set(err, HR_OUT_OF_MEMORY, "features: expected memory for the schema, found none");
}

static hr_status copy_text(const reader *in, const char *text, const char **copy, hr_error *err) {
    *copy = hr_arena_strndup(in->arena, text, strlen(text));
    return *copy == NULL ? out_of_memory(err) : HR_OK;
}

static int compare_tables(const void *a, const void *b) {
    return strcmp(((const hr_table *)a)->name, ((const hr_table *)b)->name);
}

static hr_status read_table(const reader *in, const char *name, const json_t *json, hr_table *table,
                            hr_error *err) {
    static const char *const keys[] = {"rows", "dim", "index"};
    static const char *const indices[] = {[HR_INDEX_HASH] = "hash", [HR_INDEX_DIRECT] = "direct"};
    char where[128];
    if (!hr_json_is_name(name))
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "tables: expected a name [A-Za-z_][A-Za-z0-9_-]*, found %s",
                            hr_quote(name, strlen(name)).text);
    snprintf(where, sizeof where, "tables %s", hr_quote(name, strlen(name)).text);
    unsigned index = 0;
    hr_status status = hr_json_check_keys(json, where, keys, N_OF(keys), err);
    if (status == HR_OK)
        status = hr_json_get_uint(json, where, "rows", true, 2, HR_SCHEMA_MAX_ROWS, &table->rows, err);
    if (status == HR_OK)
        status = hr_json_get_uint(json, where, "dim", true, 1, HR_SCHEMA_MAX_DIM, &table->dim, err);
    if (status == HR_OK)
        status = hr_json_get_choice(json, where, "index", true, indices, N_OF(indices), &index, err);
    table->index = (hr_table_index)index;
    return status == HR_OK ? copy_text(in, name, &table->name, err) : status;
}

static hr_status read_tables(reader *in, const json_t *json, hr_error *err) {
    if (!json_is_object(json)) return hr_json_expected("tables", NULL, "an object", json, err);
    if (json_object_size(json) > HR_SCHEMA_MAX_FEATURES)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "tables: expected at most %d, found %zu",
                            HR_SCHEMA_MAX_FEATURES, json_object_size(json));
    in->tables = hr_arena_calloc(in->arena, json_object_size(json), sizeof *in->tables);
    if (in->tables == NULL) return out_of_memory(err);
    in->schema->tables = in->tables;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)json, name, value) {
        hr_status status = read_table(in, name, value, &in->tables[in->schema->n_tables], err);
        if (status != HR_OK) return status;
        in->schema->n_tables++;
    }
    qsort(in->tables, in->schema->n_tables, sizeof *in->tables, compare_tables);
    return HR_OK;
}

static hr_status read_table_of(const reader *in, const json_t *json, const char *where, hr_feature *feature,
                               hr_error *err) {
    hr_table key = {0};
    hr_status status = hr_json_get_name(json, where, "table", true, &key.name, err);
    if (status != HR_OK) return status;
    const hr_table *table =
        bsearch(&key, in->tables, in->schema->n_tables, sizeof *in->tables, compare_tables);
    if (table == NULL)
        return hr_json_expected(where, "table", "the name of one of tables", json_object_get(json, "table"),
                                err);
    feature->table = (uint32_t)(table - in->tables);
    return HR_OK;
}

static hr_status read_id(const reader *in, const json_t *json, const char *where, hr_feature *feature,
                         hr_error *err) {
    return read_table_of(in, json, where, feature, err);
}

static hr_status read_ids(const reader *in, const json_t *json, const char *where, hr_feature *feature,
                          hr_error *err) {
    static const char *const pools[] = {[HR_POOL_MEAN] = "mean", [HR_POOL_SUM] = "sum"};
    unsigned pool = HR_POOL_MEAN;
    feature->max_length = 50;
    hr_status status = read_table_of(in, json, where, feature, err);
    if (status == HR_OK)
        status = hr_json_get_choice(json, where, "pool", false, pools, N_OF(pools), &pool, err);
    if (status == HR_OK)
        status = hr_json_get_uint(json, where, "max_length", false, 1, HR_SCHEMA_MAX_IDS,
                                  &feature->max_length, err);
    feature->pool = (hr_pool)pool;
    return status;
}

static hr_status read_number(const reader *in, const json_t *json, const char *where, hr_feature *feature,
                             hr_error *err) {
    (void)in;
    feature->std = 1;
    hr_status status = hr_json_get_bool(json, where, "log1p", false, &feature->log1p, err);
    if (status == HR_OK) status = hr_json_get_number(json, where, "mean", false, &feature->mean, err);
    if (status == HR_OK) status = hr_json_get_positive(json, where, "std", false, &feature->std, err);
    return status;
}

static hr_status read_boundaries(const reader *in, const json_t *list, const char *where, hr_feature *feature,
                                 hr_error *err) {
    double *boundaries = hr_arena_calloc(in->arena, json_array_size(list), sizeof *boundaries);
    if (boundaries == NULL) return out_of_memory(err);
    feature->boundaries = boundaries;
    feature->n_boundaries = (uint32_t)json_array_size(list);
    for (uint32_t i = 0; i < feature->n_boundaries; i++) {
        const json_t *value = json_array_get(list, i);
        hr_status status = hr_json_as_number(value, where, "boundaries", &boundaries[i], err);
        if (status != HR_OK) return status;
        if (i > 0 && !(boundaries[i] > boundaries[i - 1]))
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "%s: boundaries: expected strictly increasing numbers, found %s after %s",
                                where, hr_json_show(value).text,
                                hr_json_show(json_array_get(list, i - 1)).text);
    }
    return HR_OK;
}

static hr_status read_bucket(const reader *in, const json_t *json, const char *where, hr_feature *feature,
                             hr_error *err) {
    const json_t *list;
    hr_status status = read_table_of(in, json, where, feature, err);
    if (status == HR_OK)
        status = hr_json_get_array(json, where, "boundaries", true, 0, HR_SCHEMA_MAX_BOUNDARIES, &list, err);
    if (status == HR_OK) status = read_boundaries(in, list, where, feature, err);
    if (status != HR_OK) return status;
    const hr_table *table = &in->tables[feature->table];
    if (table->rows < feature->n_boundaries + 2)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "%s: table: expected at least %u rows for %u boundaries, found %u in \"%.64s\"",
                            where, (unsigned)feature->n_boundaries + 2, (unsigned)feature->n_boundaries,
                            (unsigned)table->rows, table->name);
    return HR_OK;
}

static hr_status read_numbers(const reader *in, const json_t *json, const char *where, hr_feature *feature,
                              hr_error *err) {
    (void)in;
    return hr_json_get_uint(json, where, "length", true, 1, HR_SCHEMA_MAX_NUMBERS, &feature->length, err);
}

/* The kinds: their names, the keys each allows, and what reads the ones of its own. */
#define COMMON_KEYS "name", "entity", "field", "kind"
static const char *const id_keys[] = {COMMON_KEYS, "table"};
static const char *const ids_keys[] = {COMMON_KEYS, "table", "pool", "max_length"};
static const char *const number_keys[] = {COMMON_KEYS, "log1p", "mean", "std"};
static const char *const bucket_keys[] = {COMMON_KEYS, "boundaries", "table"};
static const char *const numbers_keys[] = {COMMON_KEYS, "length"};

static const struct {
    const char *const *keys;
    size_t n_keys;
    hr_status (*read)(const reader *in, const json_t *json, const char *where, hr_feature *feature,
                      hr_error *err);
} kinds[] = {
    [HR_FEATURE_ID] = {id_keys, N_OF(id_keys), read_id},
    [HR_FEATURE_IDS] = {ids_keys, N_OF(ids_keys), read_ids},
    [HR_FEATURE_NUMBER] = {number_keys, N_OF(number_keys), read_number},
    [HR_FEATURE_BUCKET] = {bucket_keys, N_OF(bucket_keys), read_bucket},
    [HR_FEATURE_NUMBERS] = {numbers_keys, N_OF(numbers_keys), read_numbers},
};
static const char *const kind_names[] = {
    [HR_FEATURE_ID] = "id",         [HR_FEATURE_IDS] = "ids",         [HR_FEATURE_NUMBER] = "number",
    [HR_FEATURE_BUCKET] = "bucket", [HR_FEATURE_NUMBERS] = "numbers",
};
static const char *const entity_names[] = {
    [HR_ENTITY_USER] = "user",
    [HR_ENTITY_ITEM] = "item",
    [HR_ENTITY_CONTEXT] = "context",
};

static hr_status read_feature(const reader *in, const json_t *json, const char *where, hr_feature *feature,
                              hr_error *err) {
    unsigned kind, entity;
    const char *name, *field;
    if (!json_is_object(json)) return hr_json_expected(where, NULL, "an object", json, err);
    hr_status status =
        hr_json_get_choice(json, where, "kind", true, kind_names, N_OF(kind_names), &kind, err);
    if (status != HR_OK) return status;
    status = hr_json_check_keys(json, where, kinds[kind].keys, kinds[kind].n_keys, err);
    if (status == HR_OK) status = hr_json_get_name(json, where, "name", true, &name, err);
    if (status == HR_OK)
        status =
            hr_json_get_choice(json, where, "entity", true, entity_names, N_OF(entity_names), &entity, err);
    if (status != HR_OK) return status;
    field = name;
    status = hr_json_get_string(json, where, "field", false, &field, err);
    if (status == HR_OK) status = copy_text(in, name, &feature->name, err);
    if (status == HR_OK) status = copy_text(in, field, &feature->field, err);
    if (status != HR_OK) return status;
    feature->kind = (hr_feature_kind)kind;
    feature->entity = (hr_entity)entity;
    return kinds[kind].read(in, json, where, feature, err);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static hr_status check_names_are_unique(const reader *in, hr_error *err) {
    uint32_t n = in->schema->n_features;
    const char **names = hr_arena_alloc(in->arena, n * sizeof *names);
    if (names == NULL) return out_of_memory(err);
    for (uint32_t i = 0; i < n; i++) names[i] = in->features[i].name;
    qsort(names, n, sizeof *names, compare_names);
    for (uint32_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "features: expected unique names, found %s twice",
                                hr_quote(names[i], strlen(names[i])).text);
    return HR_OK;
}

static hr_status read_features(reader *in, const json_t *json, hr_error *err) {
    size_t n = json_array_size(json);
    if (!json_is_array(json)) return hr_json_expected("features", NULL, "an array", json, err);
    if (n < 1 || n > HR_SCHEMA_MAX_FEATURES)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "features: expected 1 to %d features, found %zu",
                            HR_SCHEMA_MAX_FEATURES, n);
    in->features = hr_arena_calloc(in->arena, n, sizeof *in->features);
    if (in->features == NULL) return out_of_memory(err);
    in->schema->features = in->features;
    in->schema->n_features = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *element = json_array_get(json, i);
        hr_status status =
            read_feature(in, element, hr_json_place_of("features", i, element).text, &in->features[i], err);
        if (status != HR_OK) return status;
    }
    return check_names_are_unique(in, err);
}

hr_status hr_schema_create(const json_t *tables, const json_t *features, hr_schema **schema, hr_error *err) {
    *schema = NULL;
    hr_arena *arena = hr_arena_create(SCHEMA_MAX_NBYTES);
    owned_schema *owned = arena == NULL ? NULL : hr_arena_calloc(arena, 1, sizeof *owned);
    if (owned == NULL) {
        hr_arena_destroy(arena);
        return out_of_memory(err);
    }
    owned->arena = arena;
    reader in = {.schema = &owned->schema, .arena = arena};
    hr_status status = read_tables(&in, tables, err);
    if (status == HR_OK) status = read_features(&in, features, err);
    if (status == HR_OK) status = hr__schema_lay_out(&owned->schema, in.features, err);
    if (status != HR_OK) {
        hr_arena_destroy(arena);
        return status;
    }
    owned->schema.fingerprint = hr__schema_fingerprint(&owned->schema);
    *schema = &owned->schema;
    return HR_OK;
}

void hr_schema_destroy(hr_schema *schema) {
    if (schema == NULL) return;
    hr_arena_destroy(((owned_schema *)schema)->arena);
}
