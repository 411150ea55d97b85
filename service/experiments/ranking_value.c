/* What the ranking features may say: see ranking_value.h. */
#include "service/experiments/ranking_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema/json_read.h"

struct hr_fusion_node {
    hr_fusion_spec *fusion; /* owned */
    struct hr_fusion_node *next;
};

/* One value that a feature can give, and where it stands. */
typedef struct value_place {
    hr_ranking_feature feature;
    hr_flag_value *value;
    char text[192]; /* "feature "ranking": rules[2] "exp": variations[1]" */
} value_place;

typedef struct reader {
    hr_flag_program *program;
    const hr_experiments_options *options;
    hr_ranking_values *values;
    hr_error *err;
} reader;

const char *hr_ranking_suffix(hr_ranking_feature feature) {
    static const char *const suffixes[] = {
#define HR_RANKING_SUFFIX(name, suffix) suffix,
        HR_RANKING_MAP(HR_RANKING_SUFFIX)
#undef HR_RANKING_SUFFIX
    };
    return suffixes[feature];
}

static hr_status no_room(const reader *r) {
    return hr_error_set(r->err, HR_RESOURCE_EXHAUSTED, "the experiments need more memory than there is");
}

/* ---- All values of a feature ---- */

typedef hr_status (*visit_value)(reader *r, const value_place *place);

static void say_rule(value_place *place, const hr_flag *feature, uint32_t rule) {
    const hr_experiment *experiment = feature->rules[rule].experiment;
    hr_quoted name = hr_quote(feature->name, strlen(feature->name)), key = {.text = ""};
    if (experiment != NULL) key = hr_quote(experiment->key, strlen(experiment->key));
    snprintf(place->text, sizeof place->text, "feature %.60s: rules[%u]%s%.60s", name.text, (unsigned)rule,
             key.text[0] == '\0' ? "" : " ", key.text);
}

/* A variation that passes through to the next rule gives nothing. */
static hr_status visit_variations(reader *r, const hr_experiment *experiment, value_place *place,
                                  visit_value visit) {
    size_t n_text = strlen(place->text);
    hr_status status = HR_OK;
    for (uint32_t v = 0; v < experiment->n_variations && status == HR_OK; v++) {
        if (experiment->variations[v].passthrough) continue;
        snprintf(place->text + n_text, sizeof place->text - n_text, ": variations[%u]", (unsigned)v);
        place->value = &experiment->variations[v].value;
        status = visit(r, place);
    }
    return status;
}

static hr_status visit_values(reader *r, hr_ranking_feature which, visit_value visit) {
    hr_flag *feature = &r->program->features[which];
    value_place place = {.feature = which};
    hr_status status = HR_OK;
    for (uint32_t i = 0; i < feature->n_rules && status == HR_OK; i++) {
        hr_rule *rule = &feature->rules[i];
        say_rule(&place, feature, i);
        if (rule->kind == HR_RULE_FORCE) {
            snprintf(place.text + strlen(place.text), sizeof place.text - strlen(place.text), ": force");
            place.value = &rule->force;
            status = visit(r, &place);
        } else if (rule->kind == HR_RULE_EXPERIMENT) {
            status = visit_variations(r, rule->experiment, &place, visit);
        }
    }
    if (status != HR_OK || !feature->known) return status;
    snprintf(place.text, sizeof place.text, "feature %.60s: defaultValue",
             hr_quote(feature->name, strlen(feature->name)).text);
    place.value = &feature->fallback;
    return visit(r, &place);
}

/* ---- Reading ---- */

static hr_status copy(reader *r, const char *text, const char **out) {
    *out = hr_arena_strndup(r->program->arena, text, strlen(text));
    return *out == NULL ? no_room(r) : HR_OK;
}

/* name, name@version or name:label. */
static hr_status read_model(reader *r, const json_t *json, const char *where, const char **model) {
    const char *spec = NULL;
    hr_status status = hr_json_as_string(json, where, NULL, &spec, r->err);
    if (status != HR_OK) return status;
    size_t n_name = strcspn(spec, "@:");
    const char *rest = spec[n_name] == '\0' ? NULL : spec + n_name + 1;
    bool is_version = rest != NULL && spec[n_name] == '@';
    bool whole = n_name > 0 && (rest == NULL || rest[0] != '\0') &&
                 (!is_version || strspn(rest, "0123456789") == strlen(rest));
    if (!whole) return hr_json_expected(where, NULL, "name, name@version or name:label", json, r->err);
    return copy(r, spec, model);
}

static hr_status read_fusion(reader *r, const json_t *json, const hr_fusion_spec **fusion) {
    struct hr_fusion_node *node = calloc(1, sizeof *node);
    if (node == NULL) return hr_error_set(r->err, HR_OUT_OF_MEMORY, "no memory for experiments");
    hr_status status = hr_fusion_spec_create(json, &node->fusion, r->err);
    if (status != HR_OK) {
        free(node);
        return status;
    }
    node->next = r->values->fusions;
    r->values->fusions = node;
    *fusion = node->fusion;
    return HR_OK;
}

static bool has_text(const char *const *texts, size_t n, const char *text) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(texts[i], text) == 0) return true;
    return false;
}

static hr_status read_tasks(reader *r, const json_t *json, hr_ranking_value *value) {
    enum { MAX_TASKS = 1000 };
    size_t n = json_array_size(json);
    if (n == 0 || n > MAX_TASKS) return hr_json_expected("tasks", NULL, "a list of tasks", json, r->err);
    const char **tasks = hr_arena_calloc(r->program->arena, n, sizeof *tasks);
    if (tasks == NULL) return no_room(r);
    hr_status status = HR_OK;
    for (size_t i = 0; i < n && status == HR_OK; i++) {
        const char *name = "";
        char where[32];
        snprintf(where, sizeof where, "tasks[%zu]", i);
        status = hr_json_as_string(json_array_get(json, i), where, NULL, &name, r->err);
        if (status == HR_OK && has_text(tasks, i, name))
            status = hr_error_set(r->err, HR_INVALID_ARGUMENT, "%s: expected each task once, found %s again",
                                  where, hr_quote(name, strlen(name)).text);
        if (status == HR_OK) status = copy(r, name, &tasks[i]);
    }
    value->tasks = tasks;
    value->n_tasks = n;
    return status;
}

static hr_status read_shadow(reader *r, const json_t *json, hr_ranking_value *value) {
    static const char *const keys[] = {"model", "percent"};
    hr_status status = hr_json_check_keys(json, "shadow", keys, 2, r->err);
    if (status == HR_OK)
        status = read_model(r, json_object_get(json, "model"), "shadow: model", &value->shadow_model);
    if (status == HR_OK)
        status = hr_json_get_number(json, "shadow", "percent", true, &value->shadow_percent, r->err);
    if (status == HR_OK && !(value->shadow_percent >= 0 && value->shadow_percent <= 100))
        status = hr_json_expected("shadow", "percent", "a number from 0 to 100",
                                  json_object_get(json, "percent"), r->err);
    return status;
}

static hr_status read_all(reader *r, const json_t *json, hr_ranking_value *value) {
    static const char *const keys[] = {"model", "fusion", "tasks", "shadow"};
    hr_status status = hr_json_check_keys(json, "value", keys, sizeof keys / sizeof keys[0], r->err);
    const json_t *part = json_object_get(json, "model");
    if (status == HR_OK && part != NULL) status = read_model(r, part, "model", &value->model);
    part = json_object_get(json, "fusion");
    if (status == HR_OK && part != NULL) status = read_fusion(r, part, &value->fusion);
    part = json_object_get(json, "tasks");
    if (status == HR_OK && part != NULL) status = read_tasks(r, part, value);
    part = json_object_get(json, "shadow");
    if (status == HR_OK && part != NULL) status = read_shadow(r, part, value);
    return status;
}

static hr_status read_as(reader *r, hr_ranking_feature feature, const json_t *json, hr_ranking_value *value) {
    switch (feature) {
    case HR_RANKING_MODEL: return read_model(r, json, "value", &value->model);
    case HR_RANKING_FUSION: return read_fusion(r, json, &value->fusion);
    case HR_RANKING_TASKS: return read_tasks(r, json, value);
    case HR_RANKING_SHADOW: return read_shadow(r, json, value);
    default: return read_all(r, json, value);
    }
}

/* A null says nothing; anything else is read, and attached to the feature's value. */
static hr_status attach(reader *r, const value_place *place) {
    if (hr_js_kind_of(place->value->json) == HR_JS_NULL) return HR_OK;
    hr_arena *arena = r->program->arena;
    hr_js_scratch memory = {.arena = arena};
    hr_ranking_value *value = hr_arena_calloc(arena, 1, sizeof *value);
    hr_js_text text = hr_js_print(place->value->json, &memory);
    if (value == NULL || memory.failed) return no_room(r);
    json_t *json = json_loadb(text.bytes, text.nbytes, JSON_DECODE_ANY, NULL);
    if (json == NULL) return hr_error_set(r->err, HR_OUT_OF_MEMORY, "no memory for experiments");
    hr_status status = read_as(r, place->feature, json, value);
    json_decref(json);
    if (status != HR_OK) return hr_error_prefix(r->err, "%s", place->text);
    place->value->meaning = value;
    return HR_OK;
}

/* ---- Checking what can come together ---- */

/* Whether the feature's value may be null: then what else says something counts. */
static bool may_be_null(const hr_flag *feature) {
    if (!feature->known || feature->fallback.meaning == NULL) return true;
    for (uint32_t i = 0; i < feature->n_rules; i++) {
        const hr_rule *rule = &feature->rules[i];
        for (uint32_t p = 0; p < rule->n_prerequisites; p++)
            if (rule->prerequisites[p].gate) return true;
        if (rule->kind == HR_RULE_FORCE && rule->force.meaning == NULL) return true;
        for (uint32_t v = 0; rule->kind == HR_RULE_EXPERIMENT && v < rule->experiment->n_variations; v++)
            if (!rule->experiment->variations[v].passthrough &&
                rule->experiment->variations[v].value.meaning == NULL)
                return true;
    }
    return false;
}

/* The models that a fusion or a list of tasks may meet. */
typedef struct model_list {
    const char **models; /* (n) owned; NULL is the default model */
    size_t n, capacity;
} model_list;

static hr_status list_add(model_list *list, const char *model, hr_error *err) {
    for (size_t i = 0; i < list->n; i++) {
        const char *other = list->models[i];
        if (model == other || (model != NULL && other != NULL && strcmp(model, other) == 0)) return HR_OK;
    }
    if (list->n == list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        const char **grown = realloc(list->models, capacity * sizeof *grown);
        if (grown == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for experiments");
        list->models = grown;
        list->capacity = capacity;
    }
    list->models[list->n++] = model;
    return HR_OK;
}

typedef struct checker {
    reader reader;       /* first: what visits values hands it on */
    model_list own;      /* of ranking.model */
    model_list possible; /* of any request */
    bool own_may_be_null;
} checker;

static hr_status gather(reader *r, const value_place *place) {
    checker *c = (checker *)r;
    const hr_ranking_value *value = place->value->meaning;
    const char *model = value == NULL ? NULL : value->model;
    bool is_own = place->feature == HR_RANKING_MODEL;
    hr_status status = HR_OK;
    if (is_own && model == NULL) return HR_OK; /* then the other decides */
    if (is_own) status = list_add(&c->own, model, r->err);
    if (status != HR_OK || !(is_own || c->own_may_be_null)) return status;
    return list_add(&c->possible, model, r->err);
}

static hr_status check_with(const checker *c, const value_place *place, const char *model) {
    const hr_experiments_options *options = c->reader.options;
    const hr_ranking_value *value = place->value->meaning;
    hr_status status =
        options->check(options->check_arg, model, value->fusion, value->tasks, value->n_tasks, c->reader.err);
    return status == HR_OK ? HR_OK : hr_error_prefix(c->reader.err, "%s", place->text);
}

static hr_status check_with_each(const checker *c, const value_place *place, const model_list *models) {
    hr_status status = HR_OK;
    for (size_t i = 0; i < models->n && status == HR_OK; i++)
        status = check_with(c, place, models->models[i]);
    return status;
}

static hr_status check_value(reader *r, const value_place *place) {
    const checker *c = (const checker *)r;
    const hr_ranking_value *value = place->value->meaning;
    if (value == NULL) return HR_OK;
    const bool constrains = value->fusion != NULL || value->n_tasks > 0;
    hr_status status = HR_OK;
    if (value->shadow_model != NULL) {
        status = r->options->check(r->options->check_arg, value->shadow_model, NULL, NULL, 0, r->err);
        if (status != HR_OK) return hr_error_prefix(r->err, "%s: shadow", place->text);
    }
    if (place->feature == HR_RANKING_ALL || place->feature == HR_RANKING_MODEL) {
        if (value->model != NULL || (constrains && c->own_may_be_null))
            status = check_with(c, place, value->model);
        return status == HR_OK && constrains ? check_with_each(c, place, &c->own) : status;
    }
    return constrains ? check_with_each(c, place, &c->possible) : HR_OK;
}

static hr_status check_all(checker *c) {
    const hr_flag *features = c->reader.program->features;
    c->own_may_be_null = may_be_null(&features[HR_RANKING_MODEL]);
    hr_status status = visit_values(&c->reader, HR_RANKING_MODEL, gather);
    if (status == HR_OK) status = visit_values(&c->reader, HR_RANKING_ALL, gather);
    if (status == HR_OK && c->own_may_be_null && may_be_null(&features[HR_RANKING_ALL]))
        status = list_add(&c->possible, NULL, c->reader.err);
    for (int f = 0; f < HR_RANKING_N_FEATURES && status == HR_OK; f++)
        status = visit_values(&c->reader, (hr_ranking_feature)f, check_value);
    return status;
}

hr_status hr_ranking_values_attach(hr_flag_program *program, const hr_experiments_options *options,
                                   hr_ranking_values *values, hr_error *err) {
    checker c = {.reader = {.program = program, .options = options, .values = values, .err = err}};
    hr_status status = HR_OK;
    for (int f = 0; f < HR_RANKING_N_FEATURES && status == HR_OK; f++)
        status = visit_values(&c.reader, (hr_ranking_feature)f, attach);
    if (status == HR_OK && options->check != NULL) status = check_all(&c);
    free(c.own.models);
    free(c.possible.models);
    return status;
}

void hr_ranking_values_clear(hr_ranking_values *values) {
    while (values->fusions != NULL) {
        struct hr_fusion_node *node = values->fusions;
        values->fusions = node->next;
        hr_fusion_spec_destroy(node->fusion);
        free(node);
    }
}
