/* Stored records and inline features through the encoder: every schema kind, two entities.
 *
 * The first byte says how the rest is read: even, as a packed FeatureMap, once stored and once inline; odd,
 * as the texts of a hash record, one per field, with a line break between them (no text where one is just
 * "~").
 *
 * Invariants: what is encoded keeps schema.h's promise (rows inside their tables, counts inside their lists,
 * finite values); a value counts as invalid when stored exactly where it is an error when inline, and where
 * it is neither both rows are the same; a row in two parts, every other value inline, is the row of both at
 * once.
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "features/encoder.h"
#include "proto/unpack.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_WORDS = 256, MAX_FIELDS = 16 };

static const char tables_json[] = "{\"hashed\": {\"rows\": 7, \"dim\": 2, \"index\": \"hash\"},"
                                  " \"direct\": {\"rows\": 12, \"dim\": 2, \"index\": \"direct\"},"
                                  " \"smallest\": {\"rows\": 2, \"dim\": 1, \"index\": \"direct\"}}";
#define FEATURES_OF(entity)                                                                                  \
    "{\"name\": \"" entity "_a\", \"field\": \"a\", \"entity\": \"" entity "\", \"kind\": \"id\","           \
    " \"table\": \"hashed\"},"                                                                               \
    "{\"name\": \"" entity "_b\", \"field\": \"b\", \"entity\": \"" entity "\", \"kind\": \"id\","           \
    " \"table\": \"direct\"},"                                                                               \
    "{\"name\": \"" entity "_c\", \"field\": \"c\", \"entity\": \"" entity "\", \"kind\": \"ids\","          \
    " \"table\": \"direct\", \"max_length\": 3},"                                                            \
    "{\"name\": \"" entity "_d\", \"field\": \"d\", \"entity\": \"" entity "\", \"kind\": \"ids\","          \
    " \"table\": \"hashed\", \"max_length\": 20, \"pool\": \"sum\"},"                                        \
    "{\"name\": \"" entity "_e\", \"field\": \"e\", \"entity\": \"" entity "\", \"kind\": \"number\","       \
    " \"log1p\": true, \"std\": 1e-3},"                                                                      \
    "{\"name\": \"" entity "_f\", \"field\": \"e\", \"entity\": \"" entity "\", \"kind\": \"bucket\","       \
    " \"boundaries\": [-1, 0, 2.5], \"table\": \"direct\"},"                                                 \
    "{\"name\": \"" entity "_g\", \"field\": \"g\", \"entity\": \"" entity "\", \"kind\": \"numbers\","      \
    " \"length\": 3},"                                                                                       \
    "{\"name\": \"" entity "_h\", \"field\": \"e\", \"entity\": \"" entity "\", \"kind\": \"numbers\","      \
    " \"length\": 1},"                                                                                       \
    "{\"name\": \"" entity "_i\", \"field\": \"" entity "_id\", \"entity\": \"" entity "\","                 \
    " \"kind\": \"id\", \"table\": \"smallest\"}"
static const char features_json[] = "[" FEATURES_OF("user") "," FEATURES_OF("item") "]";

/* Made once, kept for the process. */
static hr_schema *schema;
static hr_encoder *encoder;
static hr_arena *arena;

static void require(bool held) {
    if (!held) abort();
}

static void start(void) {
    json_t *tables = json_loads(tables_json, 0, NULL), *features = json_loads(features_json, 0, NULL);
    require(hr_schema_create(tables, features, &schema, NULL) == HR_OK);
    require(hr_encoder_create(schema, &encoder, NULL) == HR_OK);
    arena = hr_arena_create(8 << 20);
    require(arena != NULL);
    json_decref(tables);
    json_decref(features);
}

static void check_row(hr_entity entity, const uint32_t *row) {
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *feature = &schema->features[i];
        if (feature->entity != entity) continue;
        const uint32_t *index = row + feature->slot;
        if (feature->kind == HR_FEATURE_NUMBER || feature->kind == HR_FEATURE_NUMBERS) {
            const uint32_t n = feature->kind == HR_FEATURE_NUMBER ? 1 : feature->length;
            for (uint32_t j = 0; j < n; j++) {
                float number;
                memcpy(&number, row + schema->rows[entity].n_index + feature->slot + j, sizeof number);
                require(isfinite(number));
            }
        } else if (feature->kind == HR_FEATURE_IDS) {
            require(index[0] <= feature->max_length);
            for (uint32_t j = 1; j <= feature->max_length; j++)
                require(j <= index[0] ? index[j] < schema->tables[feature->table].rows : index[j] == 0);
        } else {
            require(index[0] < schema->tables[feature->table].rows);
        }
    }
    require(row[hr_row_words(schema, entity)] == UINT32_MAX);
}

static hr_status encode(hr_entity entity, const hr_binding *bindings, uint32_t row[MAX_WORDS],
                        uint32_t *n_invalid) {
    hr_error err = {HR_OK, ""};
    memset(row, 0xFF, MAX_WORDS * sizeof *row);
    hr_status status = hr_encode_row(encoder, entity, "0", bindings, row, n_invalid, &err);
    if (status == HR_OK) check_row(entity, row);
    if (status != HR_OK) require(status == HR_INVALID_ARGUMENT && strstr(err.message, ", found ") != NULL);
    return status;
}

/* Values 0, 2, 4, ... are stored, 1, 3, 5, ... inline. */
static void run_in_parts(hr_entity entity, const Homerank__V1__FeatureMap *map) {
    hr_binding both[MAX_FIELDS] = {{0}}, parts[2][MAX_FIELDS] = {{{0}}};
    uint32_t whole[MAX_WORDS], row[MAX_WORDS], n_wrong[MAX_FIELDS], n_whole = 0;
    for (size_t part = 0; part < 2; part++) {
        for (size_t i = part; i < map->n_features; i += 2) {
            const Homerank__V1__FeatureMap__FeaturesEntry *entry = map->features[i];
            hr_bind(encoder, entity, parts[part], entry->key, entry->value, part == 1);
            hr_bind(encoder, entity, both, entry->key, entry->value, part == 1);
        }
    }
    hr_status status = encode(entity, both, whole, &n_whole);
    memset(row, 0xFF, sizeof row);
    uint32_t n_parts = hr_encode_stored(encoder, entity, "0", parts[0], row, n_wrong);
    require(hr_encode_inline(encoder, entity, parts[1], row, n_wrong, &n_parts, NULL) == status);
    if (status != HR_OK) return;
    require(n_parts == n_whole);
    require(memcmp(row, whole, sizeof row) == 0);
}

static void run_packed(hr_entity entity, const uint8_t *data, size_t nbytes) {
    hr_binding bindings[MAX_FIELDS] = {{0}};
    uint32_t stored[MAX_WORDS], given[MAX_WORDS], n_unreadable = 0, n_invalid = 0, n_unused = 0;
    const hr_record record = {.kind = HR_RECORD_PACKED, .data = data, .nbytes = nbytes};
    hr_status status = hr_bind_record(encoder, entity, bindings, &record, arena, &n_unreadable, NULL);
    require(status == HR_OK || status == HR_RESOURCE_EXHAUSTED);
    require(encode(entity, bindings, stored, &n_invalid) == HR_OK);
    ProtobufCMessage *message;
    if (hr_proto_unpack(&homerank__v1__feature_map__descriptor, data, nbytes, arena, &message, NULL) !=
        HR_OK) {
        require(n_unreadable == 1 || status == HR_RESOURCE_EXHAUSTED || hr_arena_used(arena) > 4 << 20);
        return;
    }
    const Homerank__V1__FeatureMap *map = (const Homerank__V1__FeatureMap *)message;
    run_in_parts(entity, map);
    memset(bindings, 0, sizeof bindings);
    for (size_t i = 0; i < map->n_features; i++)
        hr_bind(encoder, entity, bindings, map->features[i]->key, map->features[i]->value, true);
    status = encode(entity, bindings, given, &n_unused);
    require(n_unused == 0);
    require((status == HR_OK) == (n_invalid == 0));
    if (status == HR_OK) require(memcmp(stored, given, sizeof stored) == 0);
}

static void run_fields(hr_entity entity, const uint8_t *data, size_t nbytes) {
    const size_t n_fields = hr_encoder_fields(encoder, entity)->n_names;
    hr_field_text texts[MAX_FIELDS] = {{NULL, 0}};
    const char *at = (const char *)data, *end = at + nbytes;
    for (size_t i = 0; i < n_fields && at < end; i++) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL) line_end = end;
        if (!(line_end - at == 1 && *at == '~')) texts[i] = (hr_field_text){at, (size_t)(line_end - at)};
        at = line_end < end ? line_end + 1 : end;
    }
    hr_binding bindings[MAX_FIELDS] = {{0}};
    uint32_t row[MAX_WORDS], n_invalid = 0;
    const hr_record record = {.kind = HR_RECORD_FIELDS, .fields = texts};
    require(hr_bind_record(encoder, entity, bindings, &record, arena, &n_invalid, NULL) == HR_OK);
    require(encode(entity, bindings, row, &n_invalid) == HR_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    if (schema == NULL) start();
    if (nbytes == 0) return 0;
    for (hr_entity entity = HR_ENTITY_USER; entity <= HR_ENTITY_ITEM; entity++) {
        if (data[0] % 2 == 0)
            run_packed(entity, data + 1, nbytes - 1);
        else
            run_fields(entity, data + 1, nbytes - 1);
        hr_arena_reset(arena);
    }
    return 0;
}
