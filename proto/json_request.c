/* A RankRequest from its JSON object: one row per key. Null is a key not given. */
#include <stdint.h>
#include <string.h>

#include "proto/json_internal.h"

typedef Homerank__V1__RankRequest rank_request;

static hr_status read_text(const json_t *value, const hr_json_at *at, hr_arena *arena, char **text,
                           hr_error *err) {
    if (!json_is_string(value)) return hr_json_refuse__(at, "a string", value, err);
    return hr_json_id__(value, at, arena, text, err);
}

typedef hr_status read_element(const json_t *value, const hr_json_at *at, hr_arena *arena, char **text,
                               hr_error *err);

static hr_status read_texts(const json_t *value, const hr_json_at *at, hr_arena *arena, const char *expected,
                            read_element *read, size_t *n, char ***texts, hr_error *err) {
    if (!json_is_array(value)) return hr_json_refuse__(at, expected, value, err);
    *texts = hr_arena_calloc(arena, json_array_size(value), sizeof **texts);
    if (*texts == NULL) return hr_json_no_room__(at, err);
    size_t i;
    json_t *element;
    json_array_foreach(value, i, element) {
        hr_json_at here = {.up = at, .index = i};
        hr_status status = read(element, &here, arena, &(*texts)[i], err);
        if (status != HR_OK) return status;
    }
    *n = json_array_size(value);
    return HR_OK;
}

static hr_status read_uint32(const json_t *value, const hr_json_at *at, uint32_t *number, hr_error *err) {
    json_int_t integer = json_integer_value(value); /* 0 where it is none */
    if (!json_is_integer(value) || integer < 0 || integer > UINT32_MAX)
        return hr_json_refuse__(at, "an integer from 0 to 4294967295", value, err);
    *number = (uint32_t)integer;
    return HR_OK;
}

static hr_status read_request_id(const json_t *value, const hr_json_at *at, hr_arena *arena,
                                 rank_request *request, hr_error *err) {
    return hr_json_id__(value, at, arena, &request->request_id, err);
}

static hr_status read_user_id(const json_t *value, const hr_json_at *at, hr_arena *arena,
                              rank_request *request, hr_error *err) {
    return hr_json_id__(value, at, arena, &request->user_id, err);
}

static hr_status read_item_ids(const json_t *value, const hr_json_at *at, hr_arena *arena,
                               rank_request *request, hr_error *err) {
    return read_texts(value, at, arena, "a list of ids", hr_json_id__, &request->n_item_ids,
                      &request->item_ids, err);
}

/* The entries of the two maps have types of their own, though alike. */
static hr_status read_context(const json_t *value, const hr_json_at *at, hr_arena *arena,
                              rank_request *request, hr_error *err) {
    hr_json_features found;
    hr_status status = hr_json_features__(value, at, arena, &found, err);
    if (status != HR_OK) return status;
    Homerank__V1__RankRequest__ContextEntry *entries = hr_arena_calloc(arena, found.n, sizeof *entries);
    request->context = hr_arena_calloc(arena, found.n, sizeof *request->context);
    if (entries == NULL || request->context == NULL) return hr_json_no_room__(at, err);
    for (size_t i = 0; i < found.n; i++) {
        homerank__v1__rank_request__context_entry__init(&entries[i]);
        entries[i].key = found.keys[i];
        entries[i].value = &found.values[i];
        request->context[i] = &entries[i];
    }
    request->n_context = found.n;
    return HR_OK;
}

static hr_status read_user_features(const json_t *value, const hr_json_at *at, hr_arena *arena,
                                    rank_request *request, hr_error *err) {
    hr_json_features found;
    hr_status status = hr_json_features__(value, at, arena, &found, err);
    if (status != HR_OK) return status;
    Homerank__V1__RankRequest__UserFeaturesEntry *entries = hr_arena_calloc(arena, found.n, sizeof *entries);
    request->user_features = hr_arena_calloc(arena, found.n, sizeof *request->user_features);
    if (entries == NULL || request->user_features == NULL) return hr_json_no_room__(at, err);
    for (size_t i = 0; i < found.n; i++) {
        homerank__v1__rank_request__user_features_entry__init(&entries[i]);
        entries[i].key = found.keys[i];
        entries[i].value = &found.values[i];
        request->user_features[i] = &entries[i];
    }
    request->n_user_features = found.n;
    return HR_OK;
}

static hr_status read_item_features(const json_t *value, const hr_json_at *at, hr_arena *arena,
                                    rank_request *request, hr_error *err) {
    if (!json_is_array(value)) return hr_json_refuse__(at, "a list of objects {feature: value}", value, err);
    size_t n = json_array_size(value);
    Homerank__V1__FeatureMap *maps = hr_arena_calloc(arena, n, sizeof *maps);
    request->item_features = hr_arena_calloc(arena, n, sizeof *request->item_features);
    if (maps == NULL || request->item_features == NULL) return hr_json_no_room__(at, err);
    for (size_t i = 0; i < n; i++) {
        hr_json_at here = {.up = at, .index = i};
        hr_status status = hr_json_feature_map__(json_array_get(value, i), &here, arena, &maps[i], err);
        if (status != HR_OK) return status;
        request->item_features[i] = &maps[i];
    }
    request->n_item_features = n;
    return HR_OK;
}

static hr_status read_top_k(const json_t *value, const hr_json_at *at, hr_arena *arena, rank_request *request,
                            hr_error *err) {
    (void)arena;
    return read_uint32(value, at, &request->top_k, err);
}

static hr_status read_model(const json_t *value, const hr_json_at *at, hr_arena *arena, rank_request *request,
                            hr_error *err) {
    return read_text(value, at, arena, &request->model, err);
}

/* The object's own JSON text: what it means is the experiments' business. */
static hr_status read_attributes(const json_t *value, const hr_json_at *at, hr_arena *arena,
                                 rank_request *request, hr_error *err) {
    if (!json_is_object(value)) return hr_json_refuse__(at, "an object", value, err);
    size_t nbytes = json_dumpb(value, NULL, 0, JSON_COMPACT);
    char *text = nbytes == 0 ? NULL : hr_arena_alloc(arena, nbytes + 1);
    if (text == NULL) return hr_json_no_room__(at, err);
    json_dumpb(value, text, nbytes, JSON_COMPACT);
    text[nbytes] = '\0';
    request->attributes = text;
    return HR_OK;
}

static hr_status read_forced_variations(const json_t *value, const hr_json_at *at, hr_arena *arena,
                                        rank_request *request, hr_error *err) {
    if (!json_is_object(value)) return hr_json_refuse__(at, "an object {experiment: variation}", value, err);
    size_t n = json_object_size(value), i = 0;
    Homerank__V1__RankRequest__ForcedVariationsEntry *entries = hr_arena_calloc(arena, n, sizeof *entries);
    request->forced_variations = hr_arena_calloc(arena, n, sizeof *request->forced_variations);
    if (entries == NULL || request->forced_variations == NULL) return hr_json_no_room__(at, err);
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)value, key,
                        member) { /* jansson's iterators are not const; nothing is changed */
        hr_json_at here = {.up = at, .key = key};
        json_int_t variation = json_integer_value(member);
        if (!json_is_integer(member) || variation < INT32_MIN || variation > INT32_MAX)
            return hr_json_refuse__(&here, "a 32-bit integer", member, err);
        homerank__v1__rank_request__forced_variations_entry__init(&entries[i]);
        entries[i].key = hr_arena_strndup(arena, key, strlen(key));
        if (entries[i].key == NULL) return hr_json_no_room__(&here, err);
        entries[i].value = (int32_t)variation;
        request->forced_variations[i] = &entries[i];
        i++;
    }
    request->n_forced_variations = n;
    return HR_OK;
}

static hr_status read_tasks(const json_t *value, const hr_json_at *at, hr_arena *arena, rank_request *request,
                            hr_error *err) {
    return read_texts(value, at, arena, "a list of task names", read_text, &request->n_tasks, &request->tasks,
                      err);
}

static hr_status read_priority(const json_t *value, const hr_json_at *at, hr_arena *arena,
                               rank_request *request, hr_error *err) {
    (void)arena;
    return read_uint32(value, at, &request->priority, err);
}

static hr_status read_strict_features(const json_t *value, const hr_json_at *at, hr_arena *arena,
                                      rank_request *request, hr_error *err) {
    (void)arena;
    if (!json_is_boolean(value)) return hr_json_refuse__(at, "true or false", value, err);
    request->strict_features = json_is_true(value);
    return HR_OK;
}

static const struct {
    const char *key;
    hr_status (*read)(const json_t *value, const hr_json_at *at, hr_arena *arena, rank_request *request,
                      hr_error *err);
} request_keys[] = {
    {"request_id", read_request_id},
    {"user_id", read_user_id},
    {"item_ids", read_item_ids},
    {"context", read_context},
    {"user_features", read_user_features},
    {"item_features", read_item_features},
    {"top_k", read_top_k},
    {"model", read_model},
    {"attributes", read_attributes},
    {"forced_variations", read_forced_variations},
    {"tasks", read_tasks},
    {"priority", read_priority},
    {"strict_features", read_strict_features},
};

static hr_status read_key(const char *key, const json_t *value, hr_arena *arena, rank_request *request,
                          hr_error *err) {
    hr_json_at at = {.key = key};
    for (size_t i = 0; i < sizeof request_keys / sizeof request_keys[0]; i++) {
        if (strcmp(key, request_keys[i].key) != 0) continue;
        return json_is_null(value) ? HR_OK : request_keys[i].read(value, &at, arena, request, err);
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT, "request: unknown key %s", hr_quote(key, strlen(key)).text);
}

hr_status hr_json_to_request(const json_t *value, hr_arena *arena, Homerank__V1__RankRequest **request,
                             hr_error *err) {
    if (!json_is_object(value)) return hr_json_refuse__(NULL, "an object", value, err);
    rank_request *made = hr_arena_alloc(arena, sizeof *made);
    if (made == NULL) return hr_json_no_room__(NULL, err);
    homerank__v1__rank_request__init(made);
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)value, key,
                        member) { /* jansson's iterators are not const; nothing is changed */
        hr_status status = read_key(key, member, arena, made, err);
        if (status != HR_OK) return status;
    }
    *request = made;
    return HR_OK;
}
