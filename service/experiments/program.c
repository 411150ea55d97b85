/* Compiling a payload's features: see program.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/experiments/program_internal.h"

/* ---- What the parts share ---- */

hr_status hr_flag_builder__no_room(hr_flag_builder *b) {
    return hr_error_set(b->err, HR_RESOURCE_EXHAUSTED, "the experiments need more memory than there is");
}

static void warn(hr_flag_builder *b, const char *what) {
    char text[2 * HR_ERROR_MESSAGE_SIZE + sizeof b->where];
    snprintf(text, sizeof text, "%s: %s", b->where, what);
    b->source->warn(b->source->warn_arg, text);
}

void hr_flag_builder__warn(hr_flag_builder *b, const char *format, ...) {
    char what[HR_ERROR_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    warn(b, what);
}

hr_status hr_flag_builder__problem(hr_flag_builder *b, const char *format, ...) {
    char what[HR_ERROR_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (b->strict) return hr_error_set(b->err, HR_INVALID_ARGUMENT, "%s: %s", b->where, what);
    warn(b, what);
    return HR_OK;
}

static void warn_of_condition(void *arg, const char *what) {
    warn(arg, what);
}

hr_status hr_flag_builder__push(hr_flag_builder *b, hr_flag_list *list, const void *element) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        void *grown = realloc(list->elements, capacity * list->size);
        if (grown == NULL) return hr_error_set(b->err, HR_OUT_OF_MEMORY, "no memory for experiments");
        list->elements = grown;
        list->capacity = capacity;
    }
    memcpy((char *)list->elements + list->n++ * list->size, element, list->size);
    return HR_OK;
}

/* A copy of the list in the arena; NULL where there is no room. */
static void *settle(hr_flag_builder *b, const hr_flag_list *list) {
    void *copy = hr_arena_calloc(b->arena, list->n, list->size);
    if (copy != NULL && list->n > 0) memcpy(copy, list->elements, list->n * list->size);
    return copy;
}

hr_status hr_flag_builder__feature(hr_flag_builder *b, const char *name, uint32_t *index) {
    hr_flag *features = b->features.elements;
    for (*index = 0; *index < b->features.n; ++*index)
        if (strcmp(features[*index].name, name) == 0) return HR_OK;
    if (b->features.n == HR_MAX_FEATURES)
        return hr_error_set(b->err, HR_INVALID_ARGUMENT, "%s: expected at most %d prerequisites, found more",
                            b->where, HR_MAX_FEATURES);
    hr_flag feature = {.name = hr_arena_strndup(b->arena, name, strlen(name))};
    return feature.name == NULL ? hr_flag_builder__no_room(b)
                                : hr_flag_builder__push(b, &b->features, &feature);
}

hr_status hr_flag_builder__hash_attribute(hr_flag_builder *b, const char *name, uint32_t *index) {
    const hr_js_text *names = b->hash_attributes.elements;
    for (*index = 0; *index < b->hash_attributes.n; ++*index)
        if (hr_js_text_is(names[*index], name)) return HR_OK;
    const char *copy = hr_arena_strndup(b->arena, name, strlen(name));
    if (copy == NULL) return hr_flag_builder__no_room(b);
    hr_js_text text = hr_js_text_of(copy, strlen(copy));
    return hr_flag_builder__push(b, &b->hash_attributes, &text);
}

hr_status hr_flag_builder__hash(hr_flag_builder *b, const char *attribute, int version, const char *seed,
                                int32_t *index) {
    hr_hash_spec made = {.version = version};
    *index = HR_NO_HASH;
    if (version == 0) return HR_OK;
    hr_status status = hr_flag_builder__hash_attribute(b, attribute, &made.attribute);
    if (status != HR_OK) return status;
    const hr_hash_spec *hashes = b->hashes.elements;
    for (size_t i = 0; i < b->hashes.n; i++) {
        if (hashes[i].attribute != made.attribute || hashes[i].version != version ||
            !hr_js_text_is(hashes[i].seed, seed))
            continue;
        *index = (int32_t)i;
        return HR_OK;
    }
    const char *copy = hr_arena_strndup(b->arena, seed, strlen(seed));
    if (copy == NULL) return hr_flag_builder__no_room(b);
    made.seed = hr_js_text_of(copy, strlen(copy));
    made.state = hr_fnv_add(HR_FNV_BASIS, made.seed);
    *index = (int32_t)b->hashes.n;
    return hr_flag_builder__push(b, &b->hashes, &made);
}

/* ---- Rules ---- */

static const char *const rule_keys[] = {"id",
                                        "condition",
                                        "parentConditions",
                                        "force",
                                        "variations",
                                        "weights",
                                        "key",
                                        "hashAttribute",
                                        "fallbackAttribute",
                                        "hashVersion",
                                        "disableStickyBucketing",
                                        "bucketVersion",
                                        "minBucketVersion",
                                        "range",
                                        "coverage",
                                        "namespace",
                                        "ranges",
                                        "meta",
                                        "filters",
                                        "seed",
                                        "name",
                                        "phase",
                                        "tracks",
                                        "type",
                                        "contextualBanditRef",
                                        "contextualVariations"};

static void warn_unknown_keys(hr_flag_builder *b, const json_t *object, const char *const *known, size_t n) {
    const char *key;
    json_t *value;
    /* The iteration macros want a non-const object; nothing is changed. */
    json_object_foreach((json_t *)object, key, value) {
        size_t i = 0;
        while (i < n && strcmp(known[i], key) != 0) i++;
        if (i == n) hr_flag_builder__warn(b, "unknown key %s is ignored", hr_quote(key, strlen(key)).text);
    }
}

/* What needs a store of earlier assignments, which a server that keeps none has not. */
static void warn_of_sticky_bucketing(hr_flag_builder *b, const json_t *json) {
    bool fallback = json_string_length(json_object_get(json, "fallbackAttribute")) > 0;
    bool blocks = json_number_value(json_object_get(json, "minBucketVersion")) > 0;
    if (fallback || blocks)
        hr_flag_builder__warn(b, "%s is ignored: there is no sticky bucketing here",
                              fallback ? "fallbackAttribute" : "minBucketVersion");
}

static hr_status compile_force(hr_flag_builder *b, const json_t *json, const char *feature, hr_rule *rule) {
    const char *attribute = NULL, *seed = NULL;
    int version = 1;
    rule->kind = HR_RULE_FORCE;
    hr_status status = hr_flag_part__value(b, json_object_get(json, "force"), &rule->force);
    if (status == HR_OK) status = hr_flag_part__targeting(b, json, &rule->targeting);
    if (status == HR_OK) status = hr_flag_part__text(b, json, "hashAttribute", "id", &attribute);
    if (status == HR_OK) status = hr_flag_part__text(b, json, "seed", feature, &seed);
    if (status == HR_OK) status = hr_flag_part__hash_version(b, json, 1, &version);
    if (status == HR_OK)
        status = hr_flag_part__number(b, json, "coverage", &rule->has_coverage, &rule->coverage);
    json_t *range = json_object_get(json, "range");
    rule->has_range = range != NULL && !json_is_null(range);
    if (status == HR_OK && rule->has_range)
        status =
            hr_flag_part__range(b, json_array_get(range, 0), json_array_get(range, 1), "range", &rule->range);
    if (status != HR_OK || !(rule->has_range || rule->has_coverage)) return status;
    if (!rule->has_range && (rule->coverage < 0 || rule->coverage > 1))
        status = hr_flag_builder__problem(b, "coverage: expected 0 to 1, found %g", rule->coverage);
    return status == HR_OK ? hr_flag_builder__hash(b, attribute, version, seed, &rule->hash) : status;
}

static hr_status compile_kind(hr_flag_builder *b, const json_t *json, const char *feature, hr_rule *rule) {
    if (json_object_get(json, "force") != NULL) return compile_force(b, json, feature, rule);
    const json_t *variations = json_object_get(json, "contextualVariations");
    if (variations == NULL || json_is_null(variations)) variations = json_object_get(json, "variations");
    if (json_is_array(variations)) {
        rule->kind = HR_RULE_EXPERIMENT;
        warn_of_sticky_bucketing(b, json);
        return hr_experiment__compile(b, json, variations, feature, &rule->experiment);
    }
    rule->kind = HR_RULE_SKIP;
    if (rule->n_prerequisites > 0) return HR_OK; /* a gate */
    return hr_flag_builder__problem(b, "expected force or variations, found neither");
}

static hr_status compile_rule(hr_flag_builder *b, const json_t *json, const char *feature, hr_rule *rule) {
    if (++b->n_rules > HR_MAX_RULES)
        return hr_error_set(b->err, HR_INVALID_ARGUMENT, "%s: expected at most %d rules in all, found more",
                            b->where, HR_MAX_RULES);
    rule->id = "";
    if (!json_is_object(json)) return hr_flag_builder__problem(b, "expected an object");
    warn_unknown_keys(b, json, rule_keys, sizeof rule_keys / sizeof rule_keys[0]);
    hr_status status = hr_flag_part__text(b, json, "id", "", &rule->id);
    if (status == HR_OK)
        status = hr_flag_part__prerequisites(b, json, &rule->n_prerequisites, &rule->prerequisites);
    if (status == HR_OK) status = hr_flag_part__filters(b, json, &rule->filters);
    return status == HR_OK ? compile_kind(b, json, feature, rule) : status;
}

/* ---- Features ---- */

static void say_where(hr_flag_builder *b, const char *feature, size_t rule, const json_t *json) {
    hr_quoted name = hr_quote(feature, strlen(feature));
    const char *key = json_string_value(json_object_get(json, "key"));
    if (json == NULL)
        snprintf(b->where, sizeof b->where, "feature %.60s", name.text);
    else if (key == NULL)
        snprintf(b->where, sizeof b->where, "feature %.60s: rules[%zu]", name.text, rule);
    else
        snprintf(b->where, sizeof b->where, "feature %.60s: rules[%zu] %.60s", name.text, rule,
                 hr_quote(key, strlen(key)).text);
}

static hr_status compile_rules(hr_flag_builder *b, const json_t *json, hr_flag *feature) {
    const json_t *rules = json_object_get(json, "rules");
    if (rules == NULL || json_is_null(rules)) return HR_OK;
    if (!json_is_array(rules)) return hr_flag_builder__problem(b, "rules: expected a list");
    size_t n = json_array_size(rules);
    feature->rules = hr_arena_calloc(b->arena, n, sizeof *feature->rules);
    if (feature->rules == NULL) return hr_flag_builder__no_room(b);
    feature->n_rules = (uint32_t)n;
    hr_status status = HR_OK;
    for (size_t i = 0; i < n && status == HR_OK; i++) {
        const json_t *rule = json_array_get(rules, i);
        say_where(b, feature->name, i, rule);
        status = compile_rule(b, rule, feature->name, &feature->rules[i]);
    }
    return status;
}

/* The feature at `index`, which others may join behind while it is compiled. */
static hr_status compile_feature(hr_flag_builder *b, uint32_t index) {
    static const char *const keys[] = {"defaultValue", "rules"};
    hr_flag feature = ((hr_flag *)b->features.elements)[index];
    const json_t *json = json_object_get(json_object_get(b->source->payload, "features"), feature.name);
    b->strict = b->source->strict && index < b->source->n_features;
    b->feature = feature.name;
    say_where(b, feature.name, 0, NULL);
    hr_status status = hr_flag_part__value(b, json_object_get(json, "defaultValue"), &feature.fallback);
    feature.known = json != NULL;
    if (json != NULL && !json_is_object(json)) {
        status = hr_flag_builder__problem(b, "expected an object");
    } else if (json != NULL && status == HR_OK) {
        warn_unknown_keys(b, json, keys, sizeof keys / sizeof keys[0]);
        status = compile_rules(b, json, &feature);
    }
    ((hr_flag *)b->features.elements)[index] = feature;
    return status;
}

/* ---- The program ---- */

static hr_status compile_all(hr_flag_builder *b) {
    const hr_flag_program_source *source = b->source;
    uint32_t index;
    hr_status status = HR_OK;
    for (size_t i = 0; i < source->n_features && status == HR_OK; i++)
        status = hr_flag_builder__feature(b, source->features[i], &index);
    if (status == HR_OK && source->experiment != NULL) {
        hr_experiment *alone;
        snprintf(b->where, sizeof b->where, "experiment");
        status = hr_experiment__compile(b, source->experiment,
                                        json_object_get(source->experiment, "variations"), "", &alone);
    }
    for (uint32_t i = 0; i < b->features.n && status == HR_OK; i++) status = compile_feature(b, i);
    return status;
}

static hr_status settle_paths(hr_flag_builder *b, hr_flag_program *program) {
    const hr_path **paths = hr_arena_calloc(b->arena, b->conditions.n_paths, sizeof *paths);
    if (paths == NULL) return hr_flag_builder__no_room(b);
    for (const hr_path *at = b->conditions.paths; at != NULL; at = at->next) paths[program->n_paths++] = at;
    program->paths = paths;
    return HR_OK;
}

static void count_alike(hr_hash_spec *hashes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t *n_alike = &hashes[i].n_alike;
        for (*n_alike = 1; *n_alike < HR_HASH_LANES && i + *n_alike < n; ++*n_alike) {
            const hr_hash_spec *other = &hashes[i + *n_alike];
            if (other->attribute != hashes[i].attribute || other->version != hashes[i].version) break;
        }
    }
}

static hr_status settle_all(hr_flag_builder *b, hr_flag_program *program) {
    program->n_features = (uint32_t)b->features.n;
    program->n_experiments = (uint32_t)b->experiments.n;
    program->n_keys = b->n_keys;
    count_alike(b->hashes.elements, b->hashes.n);
    program->n_hashes = (uint32_t)b->hashes.n;
    program->n_hash_attributes = (uint32_t)b->hash_attributes.n;
    program->features = settle(b, &b->features);
    program->experiments = settle(b, &b->experiments);
    program->hashes = settle(b, &b->hashes);
    program->hash_attributes = settle(b, &b->hash_attributes);
    if (program->features == NULL || program->experiments == NULL || program->hashes == NULL ||
        program->hash_attributes == NULL)
        return hr_flag_builder__no_room(b);
    return settle_paths(b, program);
}

static hr_status compile(hr_flag_program *program, const hr_flag_program_source *source, hr_error *err) {
    hr_flag_builder b = {.source = source,
                         .arena = program->arena,
                         .features = {.size = sizeof(hr_flag)},
                         .experiments = {.size = sizeof(hr_experiment *)},
                         .hashes = {.size = sizeof(hr_hash_spec)},
                         .hash_attributes = {.size = sizeof(hr_js_text)},
                         .feature = "",
                         .strict = source->strict,
                         .err = err};
    b.conditions = (hr_condition_builder){.arena = program->arena,
                                          .saved_groups = json_object_get(source->payload, "savedGroups"),
                                          .warn = warn_of_condition,
                                          .warn_arg = &b};
    hr_status status = compile_all(&b);
    if (status == HR_OK) status = settle_all(&b, program);
    program->regexes = b.conditions.regexes;
    free(b.features.elements);
    free(b.experiments.elements);
    free(b.hashes.elements);
    free(b.hash_attributes.elements);
    return status;
}

hr_status hr_flag_program_create(const hr_flag_program_source *source, hr_flag_program **program,
                                 hr_error *err) {
    *program = NULL;
    hr_flag_program *made = calloc(1, sizeof *made);
    if (made == NULL || (made->arena = hr_arena_create(source->memory_nbytes)) == NULL) {
        free(made);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for experiments");
    }
    hr_status status = compile(made, source, err);
    if (status == HR_OK)
        *program = made;
    else
        hr_flag_program_destroy(made);
    return status;
}

void hr_flag_program_destroy(hr_flag_program *program) {
    if (program == NULL) return;
    hr_condition_free_regexes(program->regexes);
    hr_arena_destroy(program->arena);
    free(program);
}
