/* One line of records: see load_line.h. */
#include "features/load_line.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "proto/json.h"

hr_status hr_load_entity_parse(const char *name, hr_entity *entity, hr_error *err) {
    *entity = strcmp(name, "user") == 0 ? HR_ENTITY_USER : HR_ENTITY_ITEM;
    if (*entity == HR_ENTITY_USER || strcmp(name, "item") == 0) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "entity: expected user or item, found %s",
                        hr_quote(name, strlen(name)).text);
}

static hr_status read_entity(const json_t *value, hr_load_line *line, hr_error *err) {
    if (!json_is_string(value))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "entity: expected \"user\" or \"item\", found %s",
                            value == NULL ? "nothing" : "another kind of value");
    return hr_load_entity_parse(json_string_value(value), &line->entity, err);
}

static hr_status read_id(const json_t *value, hr_arena *arena, hr_load_line *line, hr_error *err) {
    char decimal[24];
    const char *text = json_string_value(value);
    if (json_is_integer(value)) {
        snprintf(decimal, sizeof decimal, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        text = decimal;
    }
    if (text == NULL)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "id: expected a string or an integer, found %s",
                            value == NULL ? "nothing" : "another kind of value");
    if (text[0] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "id: expected a text, found an empty one");
    line->id = hr_arena_strndup(arena, text, strlen(text));
    return line->id != NULL ? HR_OK : hr_error_set(err, HR_INVALID_ARGUMENT, "id: too long");
}

static hr_status read_features(const json_t *value, hr_arena *arena, hr_load_line *line, hr_error *err) {
    if (!json_is_object(value))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "features: expected an object, found %s",
                            value == NULL ? "nothing" : "another kind of value");
    Homerank__V1__FeatureMap *features;
    if (hr_json_to_features(value, arena, &features, err) != HR_OK) {
        hr_error_prefix(err, "features");
        return HR_INVALID_ARGUMENT;
    }
    line->features = features;
    return HR_OK;
}

static hr_status check_keys(json_t *object, hr_error *err) {
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        if (strcmp(key, "entity") != 0 && strcmp(key, "id") != 0 && strcmp(key, "features") != 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "expected the keys entity, id and features, found %s",
                                hr_quote(key, strlen(key)).text);
    }
    return HR_OK;
}

hr_status hr_load_line_parse(const char *text, size_t nbytes, hr_arena *arena, hr_load_line *line,
                             hr_error *err) {
    json_t *object = NULL;
    hr_status status = hr_json_parse(text, nbytes, &object, err);
    if (status != HR_OK) return status;
    if (!json_is_object(object)) status = hr_error_set(err, HR_INVALID_ARGUMENT, "expected a JSON object");
    if (status == HR_OK) status = check_keys(object, err);
    if (status == HR_OK) status = read_entity(json_object_get(object, "entity"), line, err);
    if (status == HR_OK) status = read_id(json_object_get(object, "id"), arena, line, err);
    if (status == HR_OK) status = read_features(json_object_get(object, "features"), arena, line, err);
    json_decref(object);
    return status;
}
