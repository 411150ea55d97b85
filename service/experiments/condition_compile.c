/* Compiling conditions: see condition.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema/json_read.h"
#include "service/experiments/condition_internal.h"

/* A saved group that some condition named. */
typedef struct hr_group_node {
    const char *name; /* borrowed of the builder's saved_groups */
    const hr_js_set *set;
    struct hr_group_node *next;
} group_node;

/* One condition that is being compiled. */
typedef struct compiler {
    hr_condition_builder *builder;
    bool of_attributes;
    int depth;
    hr_error *err;
} compiler;

static hr_status no_room(const compiler *c) {
    return hr_error_set(c->err, HR_RESOURCE_EXHAUSTED, "the conditions need more memory than there is");
}

static void say(const compiler *c, const char *key, const char *what) {
    char text[HR_ERROR_MESSAGE_SIZE + 96];
    snprintf(text, sizeof text, "condition: %s: %s", hr_quote(key, strlen(key)).text, what);
    c->builder->warn(c->builder->warn_arg, text);
}

static void warn(const compiler *c, const char *key, const char *expected, const json_t *found) {
    char text[192];
    snprintf(text, sizeof text, "expected %s, found %s", expected, hr_json_show(found).text);
    say(c, key, text);
}

static void *make(const compiler *c, size_t n, size_t size) {
    return hr_arena_calloc(c->builder->arena, n, size);
}

static hr_status literal_of(const compiler *c, const json_t *json, const hr_js_value **literal) {
    return hr_js_from_json(json, c->builder->arena, literal, c->err);
}

/* ---- Paths ---- */

static hr_status split_path(const compiler *c, const char *text, hr_path *path) {
    size_t nbytes = strlen(text), n_parts = 1;
    const char *copy = hr_arena_strndup(c->builder->arena, text, nbytes);
    for (size_t i = 0; i < nbytes; i++) n_parts += text[i] == '.';
    hr_js_text *parts = make(c, n_parts, sizeof *parts);
    if (copy == NULL || parts == NULL) return no_room(c);
    const char *at = copy;
    for (size_t i = 0; i < n_parts; i++) {
        parts[i] = hr_js_text_of(at, strcspn(at, "."));
        at += parts[i].nbytes + 1;
    }
    *path = (hr_path){.text = hr_js_text_of(copy, nbytes), .n_parts = (uint32_t)n_parts, .parts = parts};
    return HR_OK;
}

/* The path and, of attributes, its number. */
static hr_status find_path(const compiler *c, const char *text, const hr_path **path, int32_t *index) {
    hr_condition_builder *b = c->builder;
    *index = 0;
    for (hr_path *at = b->paths; c->of_attributes && at != NULL; at = at->next, ++*index) {
        *path = at;
        if (hr_js_text_is(at->text, text)) return HR_OK;
    }
    hr_path *made = make(c, 1, sizeof *made);
    if (made == NULL) return no_room(c);
    *path = made;
    *index = -1;
    hr_status status = split_path(c, text, made);
    if (status != HR_OK || !c->of_attributes) return status;
    if (b->n_paths == HR_MAX_PATHS)
        return hr_error_set(c->err, HR_INVALID_ARGUMENT,
                            "conditions: expected at most %d attributes in all, found more", HR_MAX_PATHS);
    if (b->last_path == NULL)
        b->paths = made;
    else
        b->last_path->next = made;
    b->last_path = made;
    *index = (int32_t)b->n_paths++;
    return HR_OK;
}

/* ---- Operators ---- */

static hr_status compile_condition(compiler *c, const json_t *json, const hr_condition **condition);
static hr_status compile_test(compiler *c, const json_t *json, bool any_case, hr_test *test);

static hr_status deeper(compiler *c) {
    if (++c->depth <= HR_JS_MAX_DEPTH) return HR_OK;
    return hr_error_set(c->err, HR_INVALID_ARGUMENT,
                        "condition: expected at most %d levels of nesting, found more", HR_JS_MAX_DEPTH);
}

static bool is_operator_object(const json_t *json) {
    const char *key;
    json_t *value;
    if (json_object_size(json) == 0) return false;
    /* The iteration macros want a non-const object; nothing is changed. */
    json_object_foreach((json_t *)json, key, value) {
        if (key[0] != '$') return false;
    }
    return true;
}

static hr_status regex_of(compiler *c, const char *key, const json_t *json, bool any_case, hr_operator *op) {
    hr_js_regex *regex;
    hr_error why;
    const char *pattern = json_string_value(json);
    if (pattern == NULL) {
        warn(c, key, "a regular expression", json);
        op->kind = HR_OPERATOR_NEVER;
        return HR_OK;
    }
    hr_js_text text = hr_js_text_of(pattern, json_string_length(json));
    hr_status status = hr_js_regex_create(text, any_case, &regex, &why);
    if (status == HR_INVALID_ARGUMENT) {
        say(c, key, why.message);
        op->kind = HR_OPERATOR_NEVER;
        return HR_OK;
    }
    if (status != HR_OK) return hr_error_set(c->err, status, "%s", why.message);
    struct hr_regex_node *node = make(c, 1, sizeof *node);
    if (node == NULL) {
        hr_js_regex_destroy(regex);
        return no_room(c);
    }
    *node = (struct hr_regex_node){.regex = regex, .next = c->builder->regexes};
    c->builder->regexes = node;
    op->regex = regex;
    return HR_OK;
}

static hr_status set_of(compiler *c, const char *key, const json_t *json, bool any_case, hr_operator *op) {
    if (json_is_array(json)) return hr_js_set_create(json, any_case, c->builder->arena, &op->set, c->err);
    warn(c, key, "a list", json);
    op->kind = HR_OPERATOR_NEVER;
    return HR_OK;
}

static hr_status group_of(compiler *c, const char *key, const json_t *json, hr_operator *op) {
    hr_condition_builder *b = c->builder;
    const char *name = json_string_value(json);
    json_t *members = name == NULL ? NULL : json_object_get(b->saved_groups, name);
    if (!json_is_array(members)) {
        warn(c, key, "a saved group of the file", json);
        return hr_js_set_create(NULL, false, b->arena, &op->set, c->err);
    }
    for (group_node *at = b->groups; at != NULL; at = at->next) {
        if (strcmp(at->name, name) != 0) continue;
        op->set = at->set;
        return HR_OK;
    }
    group_node *node = make(c, 1, sizeof *node);
    if (node == NULL) return no_room(c);
    hr_status status = hr_js_set_create(members, false, b->arena, &op->set, c->err);
    if (status != HR_OK) return status;
    *node = (group_node){.name = name, .set = op->set, .next = b->groups};
    b->groups = node;
    return HR_OK;
}

static hr_status version_of(compiler *c, const json_t *json, hr_operator *op) {
    const hr_js_value *literal;
    hr_status status = literal_of(c, json, &literal);
    hr_js_scratch memory = {.arena = c->builder->arena};
    if (status == HR_OK) op->text = hr_padded_version(literal, &memory);
    return status == HR_OK && memory.failed ? no_room(c) : status;
}

static hr_status test_of(compiler *c, const json_t *json, hr_operator *op) {
    hr_test *test = make(c, 1, sizeof *test);
    if (test == NULL) return no_room(c);
    op->test = test;
    return compile_test(c, json, false, test);
}

static hr_status elem_match_of(compiler *c, const char *key, const json_t *json, hr_operator *op) {
    if (is_operator_object(json)) return test_of(c, json, op);
    if (json_is_null(json)) {
        warn(c, key, "a condition", json);
        op->kind = HR_OPERATOR_NEVER;
        return HR_OK;
    }
    bool of_attributes = c->of_attributes;
    c->of_attributes = false; /* but of an element */
    hr_status status = compile_condition(c, json, &op->condition);
    c->of_attributes = of_attributes;
    return status;
}

static hr_status all_of(compiler *c, const char *key, const json_t *json, bool any_case, hr_operator *op) {
    if (!json_is_array(json)) {
        warn(c, key, "a list", json);
        op->kind = HR_OPERATOR_NEVER;
        return HR_OK;
    }
    size_t n = json_array_size(json);
    hr_test *tests = make(c, n, sizeof *tests);
    if (tests == NULL) return no_room(c);
    op->all.tests = tests;
    op->all.n = (uint32_t)n;
    hr_status status = HR_OK;
    for (size_t i = 0; i < n && status == HR_OK; i++)
        status = compile_test(c, json_array_get(json, i), any_case, &tests[i]);
    return status;
}

static hr_status type_of(compiler *c, const char *key, const json_t *json, hr_operator *op) {
    const hr_js_value *literal;
    hr_status status = literal_of(c, json, &literal);
    if (status != HR_OK) return status;
    if (literal->kind == HR_JS_STRING) {
        op->text = literal->text;
        return HR_OK;
    }
    warn(c, key, "the name of a type", json);
    op->kind = HR_OPERATOR_NEVER;
    return HR_OK;
}

static hr_operator_kind operator_named(const char *key) {
    static const char *const keys[] = {
#define HR_OPERATOR_KEY(name, key) key,
        HR_OPERATOR_MAP(HR_OPERATOR_KEY)
#undef HR_OPERATOR_KEY
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(keys[i], key) == 0) return (hr_operator_kind)i;
    return HR_OPERATOR_NEVER;
}

static hr_status compile_operator(compiler *c, const char *key, const json_t *json, hr_operator *op) {
    op->kind = operator_named(key);
    switch (op->kind) {
    case HR_OPERATOR_VEQ:
    case HR_OPERATOR_VNE:
    case HR_OPERATOR_VGT:
    case HR_OPERATOR_VGTE:
    case HR_OPERATOR_VLT:
    case HR_OPERATOR_VLTE: return version_of(c, json, op);
    case HR_OPERATOR_IN:
    case HR_OPERATOR_NIN: return set_of(c, key, json, false, op);
    case HR_OPERATOR_INI:
    case HR_OPERATOR_NINI: return set_of(c, key, json, true, op);
    case HR_OPERATOR_IN_GROUP:
    case HR_OPERATOR_NOT_IN_GROUP: return group_of(c, key, json, op);
    case HR_OPERATOR_NOT:
    case HR_OPERATOR_SIZE: return test_of(c, json, op);
    case HR_OPERATOR_ELEM_MATCH: return elem_match_of(c, key, json, op);
    case HR_OPERATOR_ALL:
    case HR_OPERATOR_ALLI: return all_of(c, key, json, op->kind == HR_OPERATOR_ALLI, op);
    case HR_OPERATOR_REGEX:
    case HR_OPERATOR_REGEXI: return regex_of(c, key, json, op->kind == HR_OPERATOR_REGEXI, op);
    case HR_OPERATOR_TYPE: return type_of(c, key, json, op);
    case HR_OPERATOR_NEVER: say(c, key, "unknown operator"); return HR_OK;
    default: return literal_of(c, json, &op->value);
    }
}

static hr_status compile_operators(compiler *c, const json_t *json, hr_test *test) {
    hr_operator *operators = make(c, json_object_size(json), sizeof *operators);
    if (operators == NULL) return no_room(c);
    test->kind = HR_TEST_OPERATORS;
    test->operators = operators;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)json, key, value) {
        hr_status status = compile_operator(c, key, value, &operators[test->n_operators++]);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

/* ---- Tests and conditions ---- */

static hr_status compile_test(compiler *c, const json_t *json, bool any_case, hr_test *test) {
    hr_status status = deeper(c);
    if (status == HR_OK && is_operator_object(json)) {
        status = compile_operators(c, json, test);
    } else if (status == HR_OK) {
        status = literal_of(c, json, &test->literal);
        switch (json_typeof(json)) {
        case JSON_STRING: test->kind = any_case ? HR_TEST_TEXT_ANY : HR_TEST_TEXT; break;
        case JSON_INTEGER:
        case JSON_REAL: test->kind = HR_TEST_NUMBER; break;
        case JSON_TRUE:
        case JSON_FALSE: test->kind = HR_TEST_TRUTH; break;
        case JSON_NULL: test->kind = HR_TEST_NULL; break;
        case JSON_ARRAY:
        case JSON_OBJECT: test->kind = HR_TEST_DEEP; break;
        }
    }
    if (status == HR_OK && test->kind == HR_TEST_TEXT_ANY) {
        hr_js_scratch memory = {.arena = c->builder->arena};
        hr_js_value *lowered = make(c, 1, sizeof *lowered);
        if (lowered == NULL) return no_room(c);
        *lowered = (hr_js_value){.kind = HR_JS_STRING, .text = hr_js_lower(test->literal->text, &memory)};
        test->literal = lowered;
        if (memory.failed) return no_room(c);
    }
    c->depth--;
    return status;
}

/* $or, $nor and $and: anything but a list is an empty one. */
static hr_status compile_group(compiler *c, const char *key, const json_t *json, hr_term *term) {
    if (!json_is_array(json)) warn(c, key, "a list of conditions", json);
    size_t n = json_array_size(json);
    const hr_condition **conditions = make(c, n, sizeof *conditions);
    if (conditions == NULL) return no_room(c);
    term->conditions = conditions;
    term->n_conditions = (uint32_t)n;
    hr_status status = HR_OK;
    for (size_t i = 0; i < n && status == HR_OK; i++)
        status = compile_condition(c, json_array_get(json, i), &conditions[i]);
    return status;
}

static hr_status compile_not(compiler *c, const json_t *json, hr_term *term) {
    const hr_condition **condition = make(c, 1, sizeof *condition);
    if (condition == NULL) return no_room(c);
    term->kind = HR_TERM_NOT;
    term->conditions = condition;
    term->n_conditions = 1;
    return compile_condition(c, json, condition);
}

static hr_status compile_term(compiler *c, const char *key, const json_t *json, hr_term *term) {
    static const struct {
        const char *key;
        int kind;
    } groups[] = {{"$or", HR_TERM_OR}, {"$nor", HR_TERM_NOR}, {"$and", HR_TERM_AND}};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        if (strcmp(groups[i].key, key) != 0) continue;
        term->kind = groups[i].kind;
        return compile_group(c, key, json, term);
    }
    if (strcmp(key, "$not") == 0) return compile_not(c, json, term);
    term->kind = HR_TERM_TEST;
    hr_status status = find_path(c, key, &term->path, &term->path_index);
    return status == HR_OK ? compile_test(c, json, false, &term->test) : status;
}

/* The terms of an object, or of an array by its indices, as Object.entries has them. */
static hr_status compile_terms(compiler *c, const json_t *json, hr_term *terms) {
    const char *key;
    json_t *value;
    hr_status status = HR_OK;
    size_t n = 0;
    json_object_foreach((json_t *)json, key, value) {
        status = compile_term(c, key, value, &terms[n++]);
        if (status != HR_OK) return status;
    }
    for (size_t i = 0; i < json_array_size(json) && status == HR_OK; i++) {
        char index[24];
        snprintf(index, sizeof index, "%zu", i);
        status = compile_term(c, index, json_array_get(json, i), &terms[i]);
    }
    return status;
}

static hr_status compile_condition(compiler *c, const json_t *json, const hr_condition **condition) {
    hr_status status = deeper(c);
    if (status != HR_OK) return status;
    bool never = json_is_null(json) || json_string_length(json) > 0;
    size_t n = never ? 1 : json_object_size(json) + json_array_size(json);
    hr_condition *made = make(c, 1, sizeof *made);
    hr_term *terms = make(c, n, sizeof *terms);
    if (made == NULL || terms == NULL) return no_room(c);
    *made = (hr_condition){.n_terms = (uint32_t)n, .terms = terms};
    *condition = made;
    if (!json_is_object(json) && (!json_is_array(json) || n > 0)) warn(c, "it", "an object", json);
    if (never)
        terms[0].kind = HR_TERM_NEVER;
    else
        status = compile_terms(c, json, terms);
    c->depth--;
    return status;
}

hr_status hr_condition_compile(hr_condition_builder *builder, const json_t *json, bool of_attributes,
                               const hr_condition **condition, hr_error *err) {
    compiler c = {.builder = builder, .of_attributes = of_attributes, .err = err};
    return compile_condition(&c, json, condition);
}

void hr_condition_free_regexes(struct hr_regex_node *regexes) {
    for (; regexes != NULL; regexes = regexes->next) hr_js_regex_destroy(regexes->regex);
}
