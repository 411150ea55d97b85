/* Feature values and records from JSON, and back (DESIGN 5, "JSON form"; MODEL 3 for the text of an id).
 *
 *   string                                            id
 *   integer                                           id, its decimal text
 *   other number                                      number
 *   null                                              nothing set
 *   list with a string, or of integers (and nulls)    ids; a null is the empty text
 *   other list                                        numbers; a null is NaN
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "proto/json_internal.h"

/* MODEL 3: an integral value is that integer's decimal form; another the shortest digits that give it back.
 */
static void number_text(double number, char text[HR_DECIMAL_SIZE]) {
    if (hr_decimal_text(number, text) > 0) return;
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, HR_DECIMAL_SIZE, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
}

/* A scalar's text in the arena; NULL where the arena is full. Null is the empty text. */
static char *scalar_text(const json_t *value, hr_arena *arena) {
    char text[HR_DECIMAL_SIZE];
    switch (json_typeof(value)) {
    case JSON_STRING: return hr_arena_strndup(arena, json_string_value(value), json_string_length(value));
    case JSON_INTEGER: snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value)); break;
    case JSON_REAL: number_text(json_real_value(value), text); break;
    default: text[0] = '\0'; break;
    }
    return hr_arena_strndup(arena, text, strlen(text));
}

hr_status hr_json_id__(const json_t *value, const hr_json_at *at, hr_arena *arena, char **id, hr_error *err) {
    if (!json_is_string(value) && !json_is_integer(value))
        return hr_json_refuse__(at, "a string or an integer", value, err);
    *id = scalar_text(value, arena);
    return *id == NULL ? hr_json_no_room__(at, err) : HR_OK;
}

static hr_status read_ids(const json_t *list, const hr_json_at *at, hr_arena *arena,
                          Homerank__V1__FeatureValue *out, hr_error *err) {
    size_t n = json_array_size(list);
    Homerank__V1__IdList *ids = hr_arena_alloc(arena, sizeof *ids);
    char **values = hr_arena_calloc(arena, n, sizeof *values);
    if (ids == NULL || values == NULL) return hr_json_no_room__(at, err);
    homerank__v1__id_list__init(ids);
    for (size_t i = 0; i < n; i++) {
        values[i] = scalar_text(json_array_get(list, i), arena);
        if (values[i] == NULL) return hr_json_no_room__(at, err);
    }
    ids->n_values = n;
    ids->values = values;
    out->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_IDS;
    out->ids = ids;
    return HR_OK;
}

static hr_status read_numbers(const json_t *list, const hr_json_at *at, hr_arena *arena,
                              Homerank__V1__FeatureValue *out, hr_error *err) {
    size_t n = json_array_size(list);
    Homerank__V1__NumberList *numbers = hr_arena_alloc(arena, sizeof *numbers);
    double *values = hr_arena_calloc(arena, n, sizeof *values);
    if (numbers == NULL || values == NULL) return hr_json_no_room__(at, err);
    homerank__v1__number_list__init(numbers);
    for (size_t i = 0; i < n; i++) {
        const json_t *element = json_array_get(list, i);
        values[i] = json_is_null(element) ? (double)NAN : json_number_value(element);
    }
    numbers->n_values = n;
    numbers->values = values;
    out->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS;
    out->numbers = numbers;
    return HR_OK;
}

static hr_status read_list(const json_t *list, const hr_json_at *at, hr_arena *arena,
                           Homerank__V1__FeatureValue *out, hr_error *err) {
    bool has_string = false, has_real = false;
    size_t i;
    json_t *element;
    json_array_foreach(list, i, element) {
        has_string |= json_is_string(element);
        has_real |= json_is_real(element);
        if (json_is_string(element) || json_is_number(element) || json_is_null(element)) continue;
        hr_json_at here = {.up = at, .index = i};
        return hr_json_refuse__(&here, "a string, a number or null", element, err);
    }
    return has_real && !has_string ? read_numbers(list, at, arena, out, err)
                                   : read_ids(list, at, arena, out, err);
}

static hr_status read_value(const json_t *value, const hr_json_at *at, hr_arena *arena,
                            Homerank__V1__FeatureValue *out, hr_error *err) {
    homerank__v1__feature_value__init(out);
    switch (json_typeof(value)) {
    case JSON_NULL: return HR_OK;
    case JSON_ARRAY: return read_list(value, at, arena, out, err);
    case JSON_REAL:
        out->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER;
        out->number = json_real_value(value);
        return HR_OK;
    case JSON_STRING:
    case JSON_INTEGER:
        out->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_ID;
        return hr_json_id__(value, at, arena, &out->id, err);
    default: return hr_json_refuse__(at, "a string, a number, a list or null", value, err);
    }
}

hr_status hr_json_features__(const json_t *value, const hr_json_at *at, hr_arena *arena,
                             hr_json_features *features, hr_error *err) {
    *features = (hr_json_features){.n = 0};
    if (json_is_null(value)) return HR_OK;
    if (!json_is_object(value)) return hr_json_refuse__(at, "an object {feature: value}", value, err);
    size_t n = json_object_size(value);
    features->keys = hr_arena_calloc(arena, n, sizeof *features->keys);
    features->values = hr_arena_calloc(arena, n, sizeof *features->values);
    if (features->keys == NULL || features->values == NULL) return hr_json_no_room__(at, err);
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)value, key,
                        member) { /* jansson's iterators are not const; nothing is changed */
        hr_json_at here = {.up = at, .key = key};
        char *copy = hr_arena_strndup(arena, key, strlen(key));
        if (copy == NULL) return hr_json_no_room__(&here, err);
        hr_status status = read_value(member, &here, arena, &features->values[features->n], err);
        if (status != HR_OK) return status;
        features->keys[features->n++] = copy;
    }
    return HR_OK;
}

hr_status hr_json_feature_map__(const json_t *value, const hr_json_at *at, hr_arena *arena,
                                Homerank__V1__FeatureMap *map, hr_error *err) {
    homerank__v1__feature_map__init(map);
    hr_json_features found;
    hr_status status = hr_json_features__(value, at, arena, &found, err);
    if (status != HR_OK || found.n == 0) return status;
    Homerank__V1__FeatureMap__FeaturesEntry *entries = hr_arena_calloc(arena, found.n, sizeof *entries);
    map->features = hr_arena_calloc(arena, found.n, sizeof *map->features);
    if (entries == NULL || map->features == NULL) return hr_json_no_room__(at, err);
    for (size_t i = 0; i < found.n; i++) {
        homerank__v1__feature_map__features_entry__init(&entries[i]);
        entries[i].key = found.keys[i];
        entries[i].value = &found.values[i];
        map->features[i] = &entries[i];
    }
    map->n_features = found.n;
    return HR_OK;
}

hr_status hr_json_to_features(const json_t *value, hr_arena *arena, Homerank__V1__FeatureMap **features,
                              hr_error *err) {
    if (!json_is_object(value)) return hr_json_refuse__(NULL, "an object {feature: value}", value, err);
    Homerank__V1__FeatureMap *map = hr_arena_alloc(arena, sizeof *map);
    if (map == NULL) return hr_json_no_room__(NULL, err);
    hr_status status = hr_json_feature_map__(value, NULL, arena, map, err);
    if (status == HR_OK) *features = map;
    return status;
}

/* Whether a text is an integer's shortest decimal form and within int64, so that JSON gives it back as it
 * was. */
static bool integer_of(const char *text, json_int_t *integer) {
    const char *digits = text + (*text == '-');
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || digits[n] != '\0') return false;
    if (*digits == '0' && (n > 1 || digits != text)) return false;
    errno = 0;
    *integer = strtoll(text, NULL, 10);
    return errno == 0;
}

static json_t *from_id(const char *id) {
    json_int_t integer;
    return integer_of(id, &integer) ? json_integer(integer) : json_string(id);
}

/* Integers where every text is one (or empty), else strings, so that the list's kind survives the way back.
 */
static json_t *from_ids(const Homerank__V1__IdList *ids) {
    bool integers = true;
    json_int_t integer = 0;
    for (size_t i = 0; i < ids->n_values; i++)
        integers = integers && (ids->values[i][0] == '\0' || integer_of(ids->values[i], &integer));
    json_t *list = json_array();
    bool whole = list != NULL;
    for (size_t i = 0; whole && i < ids->n_values; i++) {
        const char *id = ids->values[i];
        json_t *element = id[0] == '\0' ? json_null() : integers ? from_id(id) : json_string(id);
        whole = json_array_append_new(list, element) == 0;
    }
    if (whole) return list;
    json_decref(list);
    return NULL;
}

static json_t *from_number(double number) {
    return isfinite(number) ? json_real(number) : json_null();
}

static json_t *from_numbers(const Homerank__V1__NumberList *numbers) {
    json_t *list = json_array();
    bool whole = list != NULL;
    for (size_t i = 0; whole && i < numbers->n_values; i++)
        whole = json_array_append_new(list, from_number(numbers->values[i])) == 0;
    if (whole) return list;
    json_decref(list);
    return NULL;
}

static json_t *from_value(const Homerank__V1__FeatureValue *value) {
    if (value == NULL) return json_null();
    switch (value->kind_case) {
    case HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER: return from_number(value->number);
    case HOMERANK__V1__FEATURE_VALUE__KIND_ID: return from_id(value->id);
    case HOMERANK__V1__FEATURE_VALUE__KIND_IDS: return from_ids(value->ids);
    case HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS: return from_numbers(value->numbers);
    default: return json_null();
    }
}

json_t *hr_json_from_features(const Homerank__V1__FeatureMap *features) {
    json_t *object = json_object();
    bool whole = object != NULL;
    for (size_t i = 0; whole && i < features->n_features; i++)
        whole = json_object_set_new(object, features->features[i]->key,
                                    from_value(features->features[i]->value)) == 0;
    if (whole) return object;
    json_decref(object);
    return NULL;
}
