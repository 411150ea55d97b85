/* Records from CSV: see load_csv.h. Cells are unquoted where they lie. */
#include "features/load_csv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "features/encoder_text.h"

typedef enum column_kind {
    COLUMN_ENTITY,
    COLUMN_ID,
    COLUMN_TEXT,
    COLUMN_NUMBER,
    COLUMN_IDS,
    COLUMN_NUMBERS
} column_kind;

typedef struct column {
    column_kind kind;
    const char *name;
} column;

struct hr_csv_header {
    column *columns; /* (n_columns) */
    size_t n_columns;
    bool has_entity;
    hr_entity entity; /* where there is no such column */
};

/* What is left of a row. */
typedef struct cells {
    char *at, *end;
    bool more; /* there is one, even if nothing is left of the text */
} cells;

static hr_status out_of_room(hr_error *err) {
    return hr_error_set(err, HR_INVALID_ARGUMENT, "the record is too large");
}

static hr_status malformed(const char *expected, const char *at, size_t n, hr_error *err) {
    return hr_error_set(err, HR_INVALID_ARGUMENT, "CSV: expected %s, found %s", expected,
                        hr_quote(at, n < 24 ? n : 24).text);
}

/* The text between quotes, its doubled ones made single; c->at goes behind the closing one. */
static hr_status take_quoted(cells *c, char **cell, hr_error *err) {
    char *to = ++c->at;
    *cell = to;
    for (;;) {
        if (c->at == c->end) return malformed("a closing '\"'", *cell, (size_t)(to - *cell), err);
        if (*c->at == '"' && (c->at + 1 == c->end || c->at[1] != '"')) break;
        c->at += *c->at == '"';
        *to++ = *c->at++;
    }
    *to = '\0'; /* at the closing quote, or before it */
    c->at++;
    if (c->at < c->end && *c->at != ',')
        return malformed("',' after a closing '\"'", c->at, (size_t)(c->end - c->at), err);
    return HR_OK;
}

/* The next cell, NUL-terminated; c->more must be true. */
static hr_status take_cell(cells *c, char **cell, hr_error *err) {
    *cell = c->at;
    if (c->at < c->end && *c->at == '"') {
        hr_status status = take_quoted(c, cell, err);
        if (status != HR_OK) return status;
    } else {
        while (c->at < c->end && *c->at != ',' && *c->at != '"') c->at++;
        if (c->at < c->end && *c->at == '"')
            return malformed("'\"' around the whole cell", *cell, (size_t)(c->end - *cell), err);
    }
    c->more = c->at < c->end;
    *c->at = '\0'; /* the comma, or the row's own NUL */
    c->at += c->more;
    return HR_OK;
}

bool hr_csv_is_open(const char *text, size_t nbytes) {
    bool open = false;
    for (const char *at = text, *end = text + nbytes; (at = memchr(at, '"', (size_t)(end - at))) != NULL;
         at++)
        open = !open;
    return open;
}

static hr_status check_text(const char *text, size_t nbytes, hr_error *err) {
    if (memchr(text, '\0', nbytes) != NULL) return hr_error_set(err, HR_INVALID_ARGUMENT, "CSV: holds a NUL");
    if (hr_utf8_valid(text, nbytes)) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "CSV: not valid UTF-8");
}

/* --- the header ------------------------------------------------------------------------------------------
 */

static column column_of(char *name) {
    static const struct {
        const char *suffix;
        column_kind kind;
    } kinds[] = {{":number", COLUMN_NUMBER}, {":ids", COLUMN_IDS}, {":numbers", COLUMN_NUMBERS}};
    if (strcmp(name, "entity") == 0) return (column){COLUMN_ENTITY, name};
    if (strcmp(name, "id") == 0) return (column){COLUMN_ID, name};
    const size_t n = strlen(name);
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        const size_t n_suffix = strlen(kinds[k].suffix);
        if (n <= n_suffix || strcmp(name + n - n_suffix, kinds[k].suffix) != 0) continue;
        name[n - n_suffix] = '\0';
        return (column){kinds[k].kind, name};
    }
    return (column){COLUMN_TEXT, name};
}

static hr_status add_column(hr_csv_header *header, const char *name, hr_arena *arena, hr_error *err) {
    char *copy = hr_arena_strndup(arena, name, strlen(name));
    if (copy == NULL) return out_of_room(err);
    if (copy[0] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "header: column %zu: expected a name, found none",
                            header->n_columns + 1);
    const column found = column_of(copy);
    for (size_t i = 0; i < header->n_columns; i++)
        if (strcmp(header->columns[i].name, found.name) == 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "header: column %s: given twice",
                                hr_quote(found.name, strlen(found.name)).text);
    header->columns[header->n_columns++] = found;
    return HR_OK;
}

static hr_status check_header(hr_csv_header *header, const hr_entity *entity, hr_error *err) {
    bool has_id = false;
    for (size_t i = 0; i < header->n_columns; i++) {
        has_id |= header->columns[i].kind == COLUMN_ID;
        header->has_entity |= header->columns[i].kind == COLUMN_ENTITY;
    }
    if (!has_id) return hr_error_set(err, HR_INVALID_ARGUMENT, "header: expected a column id, found none");
    if (!header->has_entity && entity == NULL)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "header: expected a column entity, or --entity, found neither");
    if (header->has_entity && entity != NULL)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "header: expected no column entity with --entity, found one");
    if (entity != NULL) header->entity = *entity;
    return HR_OK;
}

hr_status hr_csv_header_read(char *text, size_t nbytes, const hr_entity *entity, hr_arena *arena,
                             const hr_csv_header **header, hr_error *err) {
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    if (nbytes >= 3 && memcmp(text, byte_order_mark, 3) == 0) {
        text += 3;
        nbytes -= 3;
    }
    size_t n_most = 1;
    for (size_t i = 0; i < nbytes; i++) n_most += text[i] == ',';
    hr_csv_header *made = hr_arena_calloc(arena, 1, sizeof *made);
    if (made != NULL) made->columns = hr_arena_calloc(arena, n_most, sizeof *made->columns);
    if (made == NULL || made->columns == NULL) return out_of_room(err);
    cells c = {text, text + nbytes, true};
    hr_status status = check_text(text, nbytes, err);
    while (status == HR_OK && c.more) {
        char *name;
        status = take_cell(&c, &name, err);
        if (status == HR_OK) status = add_column(made, name, arena, err);
    }
    if (status == HR_OK) status = check_header(made, entity, err);
    *header = made;
    return status;
}

/* --- rows ------------------------------------------------------------------------------------------------
 */

static hr_status read_decimal(const char *text, size_t n, double *number, hr_error *err) {
    if (hr__text_number(text, n, number)) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a decimal number, found %s",
                        hr_quote(text, n).text);
}

static size_t count_elements(const char *text) {
    size_t n = 1;
    for (; *text != '\0'; text++) n += *text == ',';
    return n;
}

static hr_status read_ids(char *cell, hr_arena *arena, Homerank__V1__FeatureValue *value, hr_error *err) {
    const size_t n = count_elements(cell);
    Homerank__V1__IdList *ids = hr_arena_alloc(arena, sizeof *ids);
    char **texts = hr_arena_calloc(arena, n, sizeof *texts);
    if (ids == NULL || texts == NULL) return out_of_room(err);
    homerank__v1__id_list__init(ids);
    for (char *at = cell; ids->n_values < n; at += strlen(at) + 1) {
        at[strcspn(at, ",")] = '\0';
        texts[ids->n_values++] = at;
    }
    ids->values = texts;
    value->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_IDS;
    value->ids = ids;
    return HR_OK;
}

static hr_status read_numbers(const char *cell, hr_arena *arena, Homerank__V1__FeatureValue *value,
                              hr_error *err) {
    const size_t n = count_elements(cell);
    Homerank__V1__NumberList *numbers = hr_arena_alloc(arena, sizeof *numbers);
    double *values = hr_arena_calloc(arena, n, sizeof *values);
    if (numbers == NULL || values == NULL) return out_of_room(err);
    homerank__v1__number_list__init(numbers);
    for (const char *at = cell; numbers->n_values < n; at++) {
        const size_t n_text = strcspn(at, ",");
        double *number = &values[numbers->n_values++];
        *number = NAN;
        if (n_text > 0 && read_decimal(at, n_text, number, err) != HR_OK) return HR_INVALID_ARGUMENT;
        at += n_text;
    }
    numbers->values = values;
    value->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS;
    value->numbers = numbers;
    return HR_OK;
}

static hr_status read_value(column_kind kind, char *cell, hr_arena *arena, Homerank__V1__FeatureValue *value,
                            hr_error *err) {
    switch (kind) {
    case COLUMN_NUMBER:
        value->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER;
        return read_decimal(cell, strlen(cell), &value->number, err);
    case COLUMN_IDS: return read_ids(cell, arena, value, err);
    case COLUMN_NUMBERS: return read_numbers(cell, arena, value, err);
    default: break;
    }
    value->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_ID;
    value->id = cell;
    return HR_OK;
}

/* A row's record being made. */
typedef struct row {
    hr_load_line *line;
    Homerank__V1__FeatureMap *map;
    Homerank__V1__FeatureMap__FeaturesEntry *entries; /* (columns) */
    Homerank__V1__FeatureValue *values;               /* (columns) */
} row;

static hr_status begin_row(const hr_csv_header *header, hr_arena *arena, row *r, hr_error *err) {
    r->map = hr_arena_alloc(arena, sizeof *r->map);
    r->entries = hr_arena_calloc(arena, header->n_columns, sizeof *r->entries);
    r->values = hr_arena_calloc(arena, header->n_columns, sizeof *r->values);
    if (r->map == NULL || r->entries == NULL || r->values == NULL) return out_of_room(err);
    homerank__v1__feature_map__init(r->map);
    r->map->features = hr_arena_calloc(arena, header->n_columns, sizeof *r->map->features);
    return r->map->features != NULL ? HR_OK : out_of_room(err);
}

static hr_status take_column(row *r, const column *of, char *cell, hr_arena *arena, hr_error *err) {
    if (of->kind == COLUMN_ENTITY) return hr_load_entity_parse(cell, &r->line->entity, err);
    if (of->kind == COLUMN_ID && cell[0] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "id: expected a text, found an empty one");
    if (of->kind == COLUMN_ID) {
        r->line->id = cell;
        return HR_OK;
    }
    if (cell[0] == '\0') return HR_OK;
    const size_t i = r->map->n_features;
    homerank__v1__feature_map__features_entry__init(&r->entries[i]);
    homerank__v1__feature_value__init(&r->values[i]);
    r->entries[i].key = (char *)of->name; /* protobuf-c's is not const; nobody changes it */
    r->entries[i].value = &r->values[i];
    r->map->features[r->map->n_features++] = &r->entries[i];
    hr_status status = read_value(of->kind, cell, arena, &r->values[i], err);
    if (status != HR_OK) hr_error_prefix(err, "column %s", hr_quote(of->name, strlen(of->name)).text);
    return status;
}

hr_status hr_csv_row_read(const hr_csv_header *header, char *text, size_t nbytes, hr_arena *arena,
                          hr_load_line *line, hr_error *err) {
    row r = {.line = line};
    cells c = {text, text + nbytes, true};
    hr_status status = check_text(text, nbytes, err);
    if (status == HR_OK) status = begin_row(header, arena, &r, err);
    line->entity = header->entity;
    size_t n = 0;
    for (; status == HR_OK && c.more && n < header->n_columns; n++) {
        char *cell;
        status = take_cell(&c, &cell, err);
        if (status == HR_OK) status = take_column(&r, &header->columns[n], cell, arena, err);
    }
    if (status == HR_OK && (c.more || n < header->n_columns))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected %zu cells as in the header, found %s",
                            header->n_columns, c.more ? "more" : "fewer");
    line->features = r.map;
    return status;
}
