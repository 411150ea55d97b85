/* The encoder, sentence by sentence of MODEL.md 3: a table of values per kind of feature, each read once as
 * stored and once as inline, and the bindings of records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "features/encoder.h"

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

typedef Homerank__V1__FeatureValue value;

/* Values. Strings and arrays are literals. */
#define MISSING    ((const value *)NULL)
#define UNSET      (&(const value)HOMERANK__V1__FEATURE_VALUE__INIT)
#define BASE_OF(t) .base = PROTOBUF_C_MESSAGE_INIT(&homerank__v1__##t##__descriptor)
#define NUMBER(x)                                                                                            \
    (&(const value){BASE_OF(feature_value), HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER, {.number = (x)}})
#define TEXT(s)                                                                                              \
    (&(const value){BASE_OF(feature_value), HOMERANK__V1__FEATURE_VALUE__KIND_ID, {.id = (char *)(s)}})
#define LIST(...) __VA_ARGS__
#define TEXTS(n, list)                                                                                       \
    (&(const value){BASE_OF(feature_value),                                                                  \
                    HOMERANK__V1__FEATURE_VALUE__KIND_IDS,                                                   \
                    {.ids = &(Homerank__V1__IdList){BASE_OF(id_list), (n), (char *[]){list}}}})
#define NUMBERS(n, list)                                                                                     \
    (&(const value){BASE_OF(feature_value),                                                                  \
                    HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS,                                               \
                    {.numbers = &(Homerank__V1__NumberList){BASE_OF(number_list), (n), (double[]){list}}}})

typedef struct fixture {
    hr_schema *schema;
    hr_encoder *encoder;
    hr_arena *arena;
    hr_binding bindings[16];
    uint32_t row[256];
    uint32_t n_invalid;
    hr_error err;
} fixture;

static const char tables_json[] = "{\"hashed\": {\"rows\": 1000, \"dim\": 2, \"index\": \"hash\"},"
                                  " \"direct\": {\"rows\": 102, \"dim\": 2, \"index\": \"direct\"},"
                                  " \"days\": {\"rows\": 6, \"dim\": 2, \"index\": \"direct\"}}";
static const char features_json[] =
    "[{\"name\": \"self\", \"entity\": \"item\", \"field\": \"item_id\", \"kind\": \"id\", \"table\": "
    "\"direct\"},"
    " {\"name\": \"id\", \"entity\": \"item\", \"kind\": \"id\", \"table\": \"direct\"},"
    " {\"name\": \"word\", \"entity\": \"item\", \"kind\": \"id\", \"table\": \"hashed\"},"
    " {\"name\": \"ids\", \"entity\": \"item\", \"kind\": \"ids\", \"table\": \"direct\", \"max_length\": 3},"
    " {\"name\": \"number\", \"entity\": \"item\", \"kind\": \"number\", \"mean\": 1, \"std\": 2},"
    " {\"name\": \"log\", \"entity\": \"item\", \"kind\": \"number\", \"log1p\": true},"
    " {\"name\": \"bucket\", \"entity\": \"item\", \"kind\": \"bucket\", \"boundaries\": [1, 3, 7, 30], "
    "\"table\": \"days\"},"
    " {\"name\": \"numbers\", \"entity\": \"item\", \"kind\": \"numbers\", \"length\": 3},"
    " {\"name\": \"one\", \"entity\": \"item\", \"kind\": \"numbers\", \"length\": 1},"
    /* One field, read by features of several kinds. */
    " {\"name\": \"many_id\", \"entity\": \"item\", \"field\": \"many\", \"kind\": \"id\", \"table\": "
    "\"hashed\"},"
    " {\"name\": \"many_ids\", \"entity\": \"item\", \"field\": \"many\", \"kind\": \"ids\", \"table\": "
    "\"direct\"},"
    " {\"name\": \"many_number\", \"entity\": \"item\", \"field\": \"many\", \"kind\": \"number\"},"
    " {\"name\": \"many_bucket\", \"entity\": \"item\", \"field\": \"many\", \"kind\": \"bucket\", "
    "\"boundaries\": [1, 3, 7, 30],"
    "  \"table\": \"days\"},"
    /* Fields named like ids. */
    " {\"name\": \"author\", \"entity\": \"item\", \"field\": \"user_id\", \"kind\": \"id\", \"table\": "
    "\"direct\"},"
    " {\"name\": \"user_id\", \"entity\": \"user\", \"kind\": \"id\", \"table\": \"hashed\"},"
    " {\"name\": \"user_ids\", \"entity\": \"user\", \"field\": \"user_id\", \"kind\": \"ids\", \"table\": "
    "\"direct\"},"
    " {\"name\": \"user_number\", \"entity\": \"user\", \"field\": \"user_id\", \"kind\": \"number\"},"
    " {\"name\": \"tab\", \"entity\": \"context\", \"kind\": \"id\", \"table\": \"direct\"}]";

static int set_up(void **state) {
    static fixture f;
    memset(&f, 0, sizeof f);
    json_t *tables = json_loads(tables_json, 0, NULL), *features = json_loads(features_json, 0, NULL);
    f.arena = hr_arena_create(1 << 20);
    int failed = f.arena == NULL || hr_schema_create(tables, features, &f.schema, &f.err) != HR_OK ||
                 hr_encoder_create(f.schema, &f.encoder, &f.err) != HR_OK;
    json_decref(tables);
    json_decref(features);
    *state = &f;
    return failed;
}

static int tear_down(void **state) {
    fixture *f = *state;
    hr_encoder_destroy(f->encoder);
    hr_schema_destroy(f->schema);
    hr_arena_destroy(f->arena);
    return 0;
}

static const hr_feature *feature_of(const fixture *f, const char *name) {
    for (uint32_t i = 0; i < f->schema->n_features; i++)
        if (strcmp(f->schema->features[i].name, name) == 0) return &f->schema->features[i];
    fail_msg("no feature %s", name);
    return NULL;
}

/* The feature's words in the row, and as floats. */
static const uint32_t *index_of(const fixture *f, const char *name) {
    return f->row + feature_of(f, name)->slot;
}
static float dense_of(const fixture *f, const char *name, uint32_t i) {
    const hr_feature *feature = feature_of(f, name);
    float number;
    memcpy(&number, f->row + f->schema->rows[feature->entity].n_index + feature->slot + i, sizeof number);
    return number;
}

static uint32_t row_of(const fixture *f, const char *table, const char *text) {
    for (uint32_t i = 0; i < f->schema->n_tables; i++)
        if (strcmp(f->schema->tables[i].name, table) == 0)
            return hr_table_row(&f->schema->tables[i], text, strlen(text));
    fail_msg("no table %s", table);
    return 0;
}

static void clear(fixture *f) {
    memset(f->bindings, 0, sizeof f->bindings);
    memset(f->row, 0xFF, sizeof f->row); /* so that what is not written shows */
    f->n_invalid = 0;
    memset(&f->err, 0, sizeof f->err);
}

static hr_status encode(fixture *f, hr_entity entity, const char *id) {
    hr_status status = hr_encode_row(f->encoder, entity, id, f->bindings, f->row, &f->n_invalid, &f->err);
    assert_int_equal(f->row[hr_row_words(f->schema, entity)],
                     UINT32_MAX); /* nothing behind the row is touched */
    return status;
}

/* Encodes one value of one feature as stored, then as inline: n_wrong of it is of the wrong kind. Leaves the
 * row of the stored one, which is the inline one's where nothing is wrong. */
static void encode_value(fixture *f, const char *name, const value *given, uint32_t n_wrong) {
    clear(f);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, name, given, true);
    hr_status status = encode(f, HR_ENTITY_ITEM, "5");
    if (status != (n_wrong > 0 ? HR_INVALID_ARGUMENT : HR_OK))
        fail_msg("%s: %d %s", name, status, f->err.message);
    assert_int_equal(f->n_invalid, 0);
    if (n_wrong > 0) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "feature \"%s\": expected ", name);
        assert_memory_equal(f->err.message, prefix, strlen(prefix));
        assert_non_null(strstr(f->err.message, ", found "));
    }
    uint32_t inline_row[N_OF(f->row)];
    memcpy(inline_row, f->row, sizeof inline_row);
    clear(f);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, name, given, false);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(f->n_invalid, n_wrong);
    if (n_wrong == 0) assert_memory_equal(f->row, inline_row, sizeof inline_row);
}

static void encode_plain(fixture *f, const char *name, const char *text, uint32_t n_wrong) {
    const hr_field_list *fields = hr_encoder_fields(f->encoder, HR_ENTITY_ITEM);
    hr_field_text texts[16] = {{NULL, 0}};
    clear(f);
    for (size_t i = 0; i < fields->n_names; i++)
        if (strcmp(fields->names[i], name) == 0) texts[i] = (hr_field_text){text, strlen(text)};
    const hr_record record = {.kind = HR_RECORD_FIELDS, .fields = texts};
    assert_int_equal(
        hr_bind_record(f->encoder, HR_ENTITY_ITEM, f->bindings, &record, f->arena, &f->n_invalid, NULL),
        HR_OK);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(f->n_invalid, n_wrong);
}

static void an_id_is_the_row_of_its_text(void **state) {
    fixture *f = *state;
    const struct {
        const value *given;
        uint32_t row, n_wrong;
    } cases[] = {
        {MISSING, 0, 0},
        {UNSET, 0, 0},
        {TEXT(""), 0, 0},
        {TEXT("7"), 8, 0},
        {TEXT("100"), 101, 0},
        {TEXT("101"), 0, 0},
        {TEXT("07"), 0, 0},
        {TEXT("7.0"), 0, 0}, /* a text is its bytes */
        {TEXT("3,4"), 0, 0}, /* and is never split */
        {NUMBER(7), 8, 0},
        {NUMBER(0.0), 1, 0},
        {NUMBER(-0.0), 1, 0},
        {NUMBER(-7), 0, 0},
        {NUMBER(1e300), 0, 0},
        {NUMBER(7.5), 0, 1},
        {NUMBER(NAN), 0, 1},
        {NUMBER(INFINITY), 0, 1},
        {TEXTS(1, LIST("7")), 0, 1}, /* one value is a list of one; a list is not one value */
        {TEXTS(0, LIST("")), 0, 1},
        {NUMBERS(1, LIST(7)), 0, 1},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        encode_value(f, "id", cases[i].given, cases[i].n_wrong);
        assert_int_equal(*index_of(f, "id"), cases[i].row);
    }
}

static void a_number_and_its_shortest_decimal_text_are_one_id(void **state) {
    fixture *f = *state;
    const struct {
        double number;
        const char *text;
    } cases[] = {
        {7, "7"}, {-3, "-3"}, {-0.0, "0"}, {1e20, "100000000000000000000"}, {0x1p53, "9007199254740992"}};
    for (size_t i = 0; i < N_OF(cases); i++) {
        encode_value(f, "word", NUMBER(cases[i].number), 0);
        assert_int_equal(*index_of(f, "word"), row_of(f, "hashed", cases[i].text));
    }
    encode_value(f, "word", TEXT("Web"), 0);
    assert_int_equal(*index_of(f, "word"), row_of(f, "hashed", "Web"));
}

static void ids_are_the_rows_of_the_first_max_length_values(void **state) {
    fixture *f = *state;
    const struct {
        const value *given;
        uint32_t count, rows[3], n_wrong;
    } cases[] = {
        {MISSING, 0, {0}, 0},
        {UNSET, 0, {0}, 0},
        {TEXTS(0, LIST("")), 0, {0}, 0},
        {TEXTS(2, LIST("7", "1")), 2, {8, 2}, 0},
        {TEXTS(3, LIST("7", "", "no")), 3, {8, 0, 0}, 0}, /* unknown ones count */
        {TEXTS(4, LIST("1", "2", "3", "4")), 3, {2, 3, 4}, 0},
        {TEXT("7"), 1, {8}, 0}, /* one value is a list of one */
        {TEXT(""), 1, {0}, 0},
        {TEXT("7,8"), 1, {0}, 0}, /* never split */
        {NUMBER(7), 1, {8}, 0},
        {NUMBER(7.5), 1, {0}, 1},
        {NUMBER(NAN), 1, {0}, 1},
        {NUMBERS(0, LIST(0)), 0, {0}, 0},
        {NUMBERS(3, LIST(7, 0, 2)), 3, {8, 1, 3}, 0},
        {NUMBERS(3, LIST(7, NAN, 2)), 3, {8, 0, 3}, 0}, /* a null of a list of numbers is a missing value */
        {NUMBERS(3, LIST(7, INFINITY, 2)), 3, {8, 0, 3}, 1},
        {NUMBERS(3, LIST(7.5, 1, 0.5)), 3, {0, 2, 0}, 2},
        {NUMBERS(4, LIST(1, 2, 3, 0.5)), 3, {2, 3, 4}, 0}, /* what is behind max_length is not read */
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        /* An inline value stops at the first wrong element; stored, every one counts. */
        encode_value(f, "ids", cases[i].given, cases[i].n_wrong);
        const uint32_t *words = index_of(f, "ids");
        assert_int_equal(words[0], cases[i].count);
        assert_memory_equal(words + 1, cases[i].rows, sizeof cases[i].rows);
    }
}

static void a_number_is_standardised_and_0_where_it_is_missing(void **state) {
    fixture *f = *state;
    const struct {
        const value *given;
        double number, log; /* (x - 1) / 2, and ln(1 + x) */
        uint32_t n_wrong;
    } cases[] = {
        {MISSING, 0, 0, 0},
        {UNSET, 0, 0, 0},
        {NUMBER(4), 1.5, 1.6094379124341003, 0},
        {NUMBER(0), -0.5, 0, 0},
        {NUMBER(-1), -1, 0, 0},
        {NUMBER(-0.5), -0.75, 0, 0}, /* ln has a value, but x < 0 counts as missing */
        {NUMBER(1e-12), (1e-12 - 1) / 2, 1e-12, 0},
        {NUMBER(NAN), 0, 0, 0},
        {NUMBER(INFINITY), 0, 0, 0},
        {NUMBER(-INFINITY), 0, 0, 0},
        {NUMBER(1e300), 0, 690.77552789821368, 0}, /* (x - 1) / 2 is past f32 */
        {TEXT("4"), 1.5, 1.6094379124341003, 0},
        {TEXT("40e-1"), 1.5, 1.6094379124341003, 0},
        {TEXT("1e999"), 0, 0, 0}, /* infinite */
        {TEXT(""), 0, 0, 1},
        {TEXT("four"), 0, 0, 1},
        {TEXT(" 4"), 0, 0, 1},
        {TEXT("nan"), 0, 0, 1},
        {TEXT("0x10"), 0, 0, 1},
        {TEXT("5."), 0, 0, 1},
        {TEXTS(1, LIST("4")), 0, 0, 1},
        {NUMBERS(1, LIST(4)), 0, 0, 1},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        encode_value(f, "number", cases[i].given, cases[i].n_wrong);
        assert_true(dense_of(f, "number", 0) == (float)cases[i].number);
        encode_value(f, "log", cases[i].given, cases[i].n_wrong);
        assert_true(dense_of(f, "log", 0) == (float)cases[i].log);
    }
}

static void a_bucket_is_one_plus_the_boundaries_not_above(void **state) {
    fixture *f = *state;
    const struct {
        const value *given;
        uint32_t row, n_wrong;
    } cases[] = {
        {MISSING, 0, 0},
        {NUMBER(-5), 1, 0},
        {NUMBER(0.999), 1, 0},
        {NUMBER(1), 2, 0},
        {NUMBER(2), 2, 0},
        {NUMBER(3), 3, 0},
        {NUMBER(6.9), 3, 0},
        {NUMBER(7), 4, 0},
        {NUMBER(29), 4, 0},
        {NUMBER(30), 5, 0},
        {NUMBER(1e300), 5, 0},
        {NUMBER(NAN), 0, 0},
        {NUMBER(INFINITY), 0, 0},
        {NUMBER(-INFINITY), 0, 0},
        {TEXT("7"), 4, 0},
        {TEXT("1e400"), 0, 0},
        {TEXT("x"), 0, 1},
        {TEXT(""), 0, 1},
        {TEXTS(1, LIST("7")), 0, 1},
        {NUMBERS(1, LIST(7)), 0, 1},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        encode_value(f, "bucket", cases[i].given, cases[i].n_wrong);
        assert_int_equal(*index_of(f, "bucket"), cases[i].row);
    }
}

static void numbers_are_all_as_they_are_or_all_zeros(void **state) {
    fixture *f = *state;
    const struct {
        const value *given;
        float numbers[3];
        uint32_t n_wrong;
    } cases[] = {
        {MISSING, {0}, 0},
        {UNSET, {0}, 0},
        {NUMBERS(3, LIST(1, -2.5, 1e-3)), {1, -2.5F, 1e-3F}, 0},
        {NUMBERS(3, LIST(1, NAN, 3)), {0}, 0},
        {NUMBERS(3, LIST(1, 2, -INFINITY)), {0}, 0},
        {NUMBERS(3, LIST(1, 2, 1e39)), {0}, 0}, /* infinite in f32 */
        {NUMBERS(2, LIST(1, 2)), {0}, 1},
        {NUMBERS(4, LIST(1, 2, 3, 4)), {0}, 1},
        {NUMBERS(4, LIST(1, 2, 3, NAN)), {0}, 1},
        {NUMBERS(0, LIST(0)), {0}, 1},
        {TEXTS(3, LIST("1", "-2.5", "1e-3")), {1, -2.5F, 1e-3F}, 0},
        {TEXTS(3, LIST("1", "", "3")), {0}, 0}, /* a null of a list of texts is a missing value */
        {TEXTS(3, LIST("1", "x", "y")), {0}, 1},
        {TEXTS(2, LIST("1", "2")), {0}, 1},
        {NUMBER(1), {0}, 1}, /* a list of one */
        {TEXT("1,2,3"), {0}, 1},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        encode_value(f, "numbers", cases[i].given, cases[i].n_wrong);
        for (uint32_t j = 0; j < 3; j++) assert_true(dense_of(f, "numbers", j) == cases[i].numbers[j]);
    }
}

static void one_value_is_a_list_of_one_number(void **state) {
    fixture *f = *state;
    encode_value(f, "one", NUMBER(2.5), 0);
    assert_true(dense_of(f, "one", 0) == 2.5F);
    encode_value(f, "one", TEXT("2.5"), 0);
    assert_true(dense_of(f, "one", 0) == 2.5F);
    encode_value(f, "one", TEXT("x"), 1);
    encode_value(f, "one", TEXT(""), 1);
    assert_true(dense_of(f, "one", 0) == 0);
}

static void a_hashs_text_is_split_at_commas_only_where_a_list_is_read(void **state) {
    fixture *f = *state;
    const uint32_t rows[3] = {8, 0, 9};
    encode_plain(f, "ids", "7,,8", 0);
    assert_int_equal(index_of(f, "ids")[0], 3);
    assert_memory_equal(index_of(f, "ids") + 1, rows, sizeof rows);
    encode_plain(f, "ids", "1,2,3,4", 0);
    assert_int_equal(index_of(f, "ids")[0], 3);
    encode_plain(f, "ids", "7,", 0);
    assert_int_equal(index_of(f, "ids")[0], 2);
    encode_plain(f, "word", "a,b", 0);
    assert_int_equal(*index_of(f, "word"), row_of(f, "hashed", "a,b"));
    encode_plain(f, "numbers", "1,-2.5,3e0", 0);
    assert_true(dense_of(f, "numbers", 0) == 1 && dense_of(f, "numbers", 1) == -2.5F &&
                dense_of(f, "numbers", 2) == 3);
    encode_plain(f, "numbers", "1,,3", 0);
    assert_true(dense_of(f, "numbers", 0) == 0 && dense_of(f, "numbers", 2) == 0);
    encode_plain(f, "numbers", "1,2", 1);
    encode_plain(f, "numbers", "1,2,3,", 1);
    encode_plain(f, "numbers", "1,x,3", 1);
    encode_plain(f, "number", "4", 0);
    assert_true(dense_of(f, "number", 0) == 1.5F);
    encode_plain(f, "number", "4,5", 1);
    encode_plain(f, "bucket", "7", 0);
    assert_int_equal(*index_of(f, "bucket"), 4);
}

static void a_hashs_empty_text_is_missing(void **state) {
    fixture *f = *state;
    static const char *const names[] = {"id", "word", "number", "bucket", "numbers", "ids"};
    for (size_t i = 0; i < N_OF(names); i++) encode_plain(f, names[i], "", 0);
    assert_int_equal(index_of(f, "ids")[0], 0);
}

static void one_field_feeds_features_of_several_kinds(void **state) {
    fixture *f = *state;
    encode_plain(f, "many", "7", 0);
    assert_int_equal(*index_of(f, "many_id"), row_of(f, "hashed", "7"));
    assert_int_equal(index_of(f, "many_ids")[0], 1);
    assert_int_equal(index_of(f, "many_ids")[1], 8);
    assert_true(dense_of(f, "many_number", 0) == 7);
    assert_int_equal(*index_of(f, "many_bucket"), 4);
    encode_plain(f, "many", "7,9", 2); /* neither a number nor a bucket */
    assert_int_equal(*index_of(f, "many_id"), row_of(f, "hashed", "7,9"));
    assert_int_equal(index_of(f, "many_ids")[0], 2);
    assert_int_equal(index_of(f, "many_ids")[2], 10);
}

static void an_error_names_the_feature_and_its_field(void **state) {
    fixture *f = *state;
    clear(f);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "many", TEXT("soon\n"), true);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_INVALID_ARGUMENT);
    assert_string_equal(
        f->err.message,
        "feature \"many_number\": field \"many\": expected a number, found the text \"soon\\x0a\"");
    clear(f);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "numbers", NUMBERS(2, LIST(1, 2)), true);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_INVALID_ARGUMENT);
    assert_string_equal(f->err.message, "feature \"numbers\": expected 3 numbers, found a list of 2 numbers");
}

static void the_id_asked_for_stands_above_every_value(void **state) {
    fixture *f = *state;
    clear(f);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "item_id", TEXT("9"), false);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "item_id", NUMBERS(0, LIST(0)), true);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(*index_of(f, "self"), 6);
    /* Another entity's id is a field like any other. */
    assert_int_equal(*index_of(f, "author"), 0);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "user_id", TEXT("9"), false);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(*index_of(f, "author"), 10);
}

static void a_users_id_is_read_by_features_of_any_kind(void **state) {
    fixture *f = *state;
    clear(f);
    assert_int_equal(encode(f, HR_ENTITY_USER, "7"), HR_OK);
    assert_int_equal(*index_of(f, "user_id"), row_of(f, "hashed", "7"));
    assert_int_equal(index_of(f, "user_ids")[0], 1);
    assert_int_equal(index_of(f, "user_ids")[1], 8);
    assert_true(dense_of(f, "user_number", 0) == 7);
    assert_int_equal(f->n_invalid, 0);
    assert_int_equal(encode(f, HR_ENTITY_USER, "u7"), HR_OK); /* no error: it is not an inline feature */
    assert_true(dense_of(f, "user_number", 0) == 0);
    assert_int_equal(f->n_invalid, 1);
}

static void a_later_binding_wins_and_an_inline_null_makes_missing(void **state) {
    fixture *f = *state;
    clear(f);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "id", TEXT("7"), false);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "number", TEXT("bad"), false);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "id", TEXT("8"), true);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "number", UNSET, true);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "unknown", NUMBERS(0, LIST(0)), true);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(*index_of(f, "id"), 9);
    assert_true(dense_of(f, "number", 0) == 0);
    assert_int_equal(f->n_invalid, 0);
    /* Over a hash's text too. */
    encode_plain(f, "id", "7", 0);
    assert_int_equal(*index_of(f, "id"), 8);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "id", MISSING, true);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(*index_of(f, "id"), 0);
}

static void context_features_have_no_id_of_their_own(void **state) {
    fixture *f = *state;
    clear(f);
    hr_bind(f->encoder, HR_ENTITY_CONTEXT, f->bindings, "tab", NUMBER(3), true);
    assert_int_equal(encode(f, HR_ENTITY_CONTEXT, NULL), HR_OK);
    assert_int_equal(*index_of(f, "tab"), 4);
}

static void the_field_list_has_each_field_once_and_not_the_own_id(void **state) {
    fixture *f = *state;
    const hr_field_list *fields = hr_encoder_fields(f->encoder, HR_ENTITY_ITEM);
    static const char *const expected[] = {"id",     "word",    "ids", "number", "log",
                                           "bucket", "numbers", "one", "many",   "user_id"};
    assert_int_equal(fields->n_names, N_OF(expected));
    for (size_t i = 0; i < N_OF(expected); i++) assert_string_equal(fields->names[i], expected[i]);
    assert_int_equal(hr_encoder_fields(f->encoder, HR_ENTITY_USER)->n_names, 0);
}

/* A packed record {"id": "7", "number": 4, "unread": "x"}. */
static hr_record packed_record(fixture *f) {
    static Homerank__V1__FeatureMap__FeaturesEntry entries[3];
    static Homerank__V1__FeatureMap__FeaturesEntry *list[3];
    static char *const keys[3] = {"id", "number", "unread"};
    const value *const values[3] = {TEXT("7"), NUMBER(4), TEXT("x")};
    Homerank__V1__FeatureMap map = HOMERANK__V1__FEATURE_MAP__INIT;
    for (int i = 0; i < 3; i++) {
        homerank__v1__feature_map__features_entry__init(&entries[i]);
        entries[i].key = keys[i];
        entries[i].value = (value *)values[i];
        list[i] = &entries[i];
    }
    map.features = list;
    map.n_features = 3;
    uint8_t *data = hr_arena_alloc(f->arena, homerank__v1__feature_map__get_packed_size(&map));
    assert_non_null(data);
    size_t nbytes = homerank__v1__feature_map__pack(&map, data);
    return (hr_record){.kind = HR_RECORD_PACKED, .data = data, .nbytes = nbytes};
}

static void a_packed_record_binds_its_values(void **state) {
    fixture *f = *state;
    clear(f);
    hr_record record = packed_record(f);
    assert_int_equal(
        hr_bind_record(f->encoder, HR_ENTITY_ITEM, f->bindings, &record, f->arena, &f->n_invalid, &f->err),
        HR_OK);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(*index_of(f, "id"), 8);
    assert_true(dense_of(f, "number", 0) == 1.5F);
    assert_int_equal(f->n_invalid, 0);
}

static void a_record_that_is_cut_binds_nothing_and_counts_once(void **state) {
    fixture *f = *state;
    hr_record record = packed_record(f);
    /* Cut inside its last entry; cut at an entry's end it would be a shorter record. */
    record.nbytes -= 1;
    clear(f);
    assert_int_equal(
        hr_bind_record(f->encoder, HR_ENTITY_ITEM, f->bindings, &record, f->arena, &f->n_invalid, &f->err),
        HR_OK);
    assert_int_equal(f->n_invalid, 1);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(*index_of(f, "id"), 0);
    assert_int_equal(*index_of(f, "self"), 6);
}

static void a_missing_record_binds_nothing(void **state) {
    fixture *f = *state;
    const hr_record record = {.kind = HR_RECORD_MISSING};
    clear(f);
    assert_int_equal(
        hr_bind_record(f->encoder, HR_ENTITY_ITEM, f->bindings, &record, f->arena, &f->n_invalid, &f->err),
        HR_OK);
    assert_int_equal(f->n_invalid, 0);
    assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), HR_OK);
    assert_int_equal(*index_of(f, "id"), 0);
}

static void a_record_past_the_memory_cap_is_an_error_not_a_count(void **state) {
    fixture *f = *state;
    hr_record record = packed_record(f);
    hr_arena *small = hr_arena_create(64);
    assert_non_null(small);
    clear(f);
    assert_int_equal(
        hr_bind_record(f->encoder, HR_ENTITY_ITEM, f->bindings, &record, small, &f->n_invalid, &f->err),
        HR_RESOURCE_EXHAUSTED);
    assert_int_equal(f->n_invalid, 0);
    hr_arena_destroy(small);
}

static void stored_and_then_inline_is_the_same_as_both_at_once(void **state) {
    fixture *f = *state;
    const value *const pool[] = {MISSING,
                                 UNSET,
                                 NUMBER(7),
                                 NUMBER(1.5),
                                 NUMBER(NAN),
                                 TEXT("12"),
                                 TEXT("word"),
                                 TEXTS(2, LIST("3", "x")),
                                 NUMBERS(3, LIST(1, 2.5, 4)),
                                 NUMBERS(4, LIST(1, 2, NAN, 0.5))};
    const hr_field_list *fields = hr_encoder_fields(f->encoder, HR_ENTITY_ITEM);
    uint32_t random = 1, n_errors = 0, n_overridden = 0;
    for (int round = 0; round < 5000; round++) {
        hr_binding both[16] = {{0}}, stored[16] = {{0}}, given[16] = {{0}};
        for (size_t i = 0; i < fields->n_names; i++) {
            random = random * 1103515245 + 12345;
            const value *first = pool[(random >> 8) % N_OF(pool)],
                        *second = pool[(random >> 16) % N_OF(pool)];
            both[i] = stored[i] = (hr_binding){.value = first};
            if ((random >> 24) % 4 != 0) continue;
            both[i] = given[i] = (hr_binding){.value = second, .is_inline = true};
        }
        uint32_t n_wrong[32] = {0}, row[N_OF(f->row)];
        clear(f);
        memcpy(row, f->row, sizeof row);
        const uint32_t n_stored = hr_encode_stored(f->encoder, HR_ENTITY_ITEM, "5", stored, row, n_wrong);
        uint32_t n_invalid = n_stored;
        hr_error err = {0};
        hr_status status =
            hr_encode_inline(f->encoder, HR_ENTITY_ITEM, given, row, n_wrong, &n_invalid, &err);
        memcpy(f->bindings, both, sizeof both);
        assert_int_equal(encode(f, HR_ENTITY_ITEM, "5"), status);
        assert_string_equal(f->err.message, err.message);
        n_errors += status != HR_OK;
        if (status != HR_OK) continue;
        n_overridden += n_invalid < n_stored;
        assert_int_equal(f->n_invalid, n_invalid);
        assert_memory_equal(f->row, row, sizeof row);
    }
    assert_in_range(n_errors, 500, 4500);
    assert_true(n_overridden > 100);
}

static void counts_are_by_feature_and_a_row_without_any_needs_none(void **state) {
    fixture *f = *state;
    const size_t n_counts = hr_encoder_n_counts(f->encoder, HR_ENTITY_ITEM);
    uint32_t n_wrong[32], n_invalid = 0;
    assert_int_equal(n_counts, 1 + 14); /* the record, and the item's features */
    memset(n_wrong, 0xFF, sizeof n_wrong);
    clear(f);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "ids", NUMBERS(3, LIST(0.5, 1, 1.5)), false);
    assert_int_equal(hr_encode_stored(f->encoder, HR_ENTITY_ITEM, "5", f->bindings, f->row, n_wrong), 2);
    assert_int_equal(n_wrong[0], UINT32_MAX); /* the caller's */
    for (size_t i = 1; i < n_counts; i++) assert_int_equal(n_wrong[i], i == 4 ? 2 : 0);
    assert_int_equal(n_wrong[n_counts], UINT32_MAX);

    clear(f);
    hr_bind(f->encoder, HR_ENTITY_ITEM, f->bindings, "id", TEXT("9"), true);
    assert_int_equal(
        hr_encode_inline(f->encoder, HR_ENTITY_ITEM, f->bindings, f->row, NULL, &n_invalid, &f->err), HR_OK);
    assert_int_equal(*index_of(f, "id"), 10);
    assert_int_equal(*index_of(f, "word"), UINT32_MAX); /* and nothing else */
    assert_int_equal(n_invalid, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_id_is_the_row_of_its_text),
        TEST(a_number_and_its_shortest_decimal_text_are_one_id),
        TEST(ids_are_the_rows_of_the_first_max_length_values),
        TEST(a_number_is_standardised_and_0_where_it_is_missing),
        TEST(a_bucket_is_one_plus_the_boundaries_not_above),
        TEST(numbers_are_all_as_they_are_or_all_zeros),
        TEST(one_value_is_a_list_of_one_number),
        TEST(a_hashs_text_is_split_at_commas_only_where_a_list_is_read),
        TEST(a_hashs_empty_text_is_missing),
        TEST(one_field_feeds_features_of_several_kinds),
        TEST(an_error_names_the_feature_and_its_field),
        TEST(the_id_asked_for_stands_above_every_value),
        TEST(a_users_id_is_read_by_features_of_any_kind),
        TEST(a_later_binding_wins_and_an_inline_null_makes_missing),
        TEST(context_features_have_no_id_of_their_own),
        TEST(the_field_list_has_each_field_once_and_not_the_own_id),
        TEST(a_packed_record_binds_its_values),
        TEST(a_record_that_is_cut_binds_nothing_and_counts_once),
        TEST(a_missing_record_binds_nothing),
        TEST(a_record_past_the_memory_cap_is_an_error_not_a_count),
        TEST(stored_and_then_inline_is_the_same_as_both_at_once),
        TEST(counts_are_by_feature_and_a_row_without_any_needs_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
