/* Asking conditions: see condition.h. */
#include <string.h>

#include "service/experiments/condition_internal.h"

/* For what needs room on the stack, which the usual way of a test has not to make. */
#define OUT_OF_LINE __attribute__((noinline))

const hr_js_value hr_unresolved = {.kind = HR_JS_NULL};

/* ---- Attributes ---- */

const hr_js_value *hr_attribute(const hr_attributes *attributes, hr_js_text name) {
    const hr_js_value *value = hr_js_get(attributes->object, name);
    bool is_user = hr_js_text_is(name, "id") || hr_js_text_is(name, "user_id");
    return value == NULL && is_user ? attributes->user_id : value;
}

/* getPath, from the second step on. A text has no members, and what is missing is null. */
static const hr_js_value *walk(const hr_js_value *value, const hr_path *path, uint32_t from) {
    static const hr_js_value no_value = {.kind = HR_JS_NULL};
    for (uint32_t i = from; i < path->n_parts && value != NULL; i++) value = hr_js_get(value, path->parts[i]);
    return value == NULL ? &no_value : value;
}

static const hr_js_value *at_path(const hr_term *term, const hr_js_value *of, hr_attributes *attributes) {
    if (term->path_index < 0) return walk(of, term->path, 0);
    const hr_js_value **resolved = &attributes->resolved[term->path_index];
    if (*resolved == &hr_unresolved)
        *resolved = walk(hr_attribute(attributes, term->path->parts[0]), term->path, 1);
    return *resolved;
}

/* ---- Versions ---- */

static bool is_number(hr_js_text part) {
    if (part.nbytes == 0) return false;
    for (size_t i = 0; i < part.nbytes; i++)
        if (part.bytes[i] < '0' || part.bytes[i] > '9') return false;
    return true;
}

/* The version's part at `at`, up to a dot or dash. */
static hr_js_text part_at(const char *at, const char *end) {
    size_t n = 0;
    while (at + n < end && at[n] != '.' && at[n] != '-') n++;
    return hr_js_text_of(at, n);
}

/* The text of a version without a leading v and its build; "0" of what is none. */
static hr_js_text bare_version(const hr_js_value *version, char number[HR_JS_NUMBER_SIZE],
                               hr_js_scratch *scratch) {
    hr_js_text text = hr_js_text_of("0", 1);
    bool is_version = hr_js_kind_of(version) == HR_JS_NUMBER ||
                      (hr_js_kind_of(version) == HR_JS_STRING && version->text.nbytes > 0);
    if (is_version) text = hr_js_to_text(version, number, scratch);
    const char *plus = memchr(text.bytes, '+', text.nbytes);
    if (plus != NULL) text.nbytes = (size_t)(plus - text.bytes);
    if (text.nbytes > 0 && text.bytes[0] == 'v') text = hr_js_text_of(text.bytes + 1, text.nbytes - 1);
    return text;
}

hr_js_text hr_padded_version(const hr_js_value *version, hr_js_scratch *scratch) {
    enum { WIDTH = 5, SEMVER_PARTS = 3 };
    char number[HR_JS_NUMBER_SIZE];
    hr_js_text text = bare_version(version, number, scratch);
    char *out = hr_arena_alloc(scratch->arena, (text.nbytes + 1) * (WIDTH + 1) + 2);
    if (out == NULL) {
        scratch->failed = true;
        return hr_js_text_of("", 0);
    }
    const char *at = text.bytes, *end = at + text.nbytes;
    size_t n = 0, n_parts = 0;
    for (hr_js_text part; at <= end; at += part.nbytes + 1) {
        part = part_at(at, end);
        if (n_parts++ > 0) out[n++] = '-';
        for (size_t i = part.nbytes; is_number(part) && i < WIDTH; i++) out[n++] = ' ';
        if (part.nbytes > 0) memcpy(out + n, part.bytes, part.nbytes);
        n += part.nbytes;
    }
    /* A release sorts behind its pre-releases, for ~ is the last of ASCII. */
    if (n_parts == SEMVER_PARTS) {
        memcpy(out + n, "-~", 2);
        n += 2;
    }
    return hr_js_text_of(out, n);
}

/* ---- Operators ---- */

static bool test_holds(const hr_test *test, const hr_js_value *value, hr_js_scratch *scratch);

OUT_OF_LINE static bool version_holds(const hr_operator *op, const hr_js_value *value,
                                      hr_js_scratch *scratch) {
    int order = hr_js_text_compare(hr_padded_version(value, scratch), op->text);
    switch (op->kind) {
    case HR_OPERATOR_VEQ: return order == 0;
    case HR_OPERATOR_VNE: return order != 0;
    case HR_OPERATOR_VGT: return order > 0;
    case HR_OPERATOR_VGTE: return order >= 0;
    case HR_OPERATOR_VLT: return order < 0;
    default: return order <= 0;
    }
}

static bool order_holds(const hr_operator *op, const hr_js_value *value, hr_js_scratch *scratch) {
    const bool numbers = value->kind == HR_JS_NUMBER && op->value->kind == HR_JS_NUMBER;
    hr_js_order order = numbers ? hr_js_number_order(value->number, op->value->number)
                                : hr_js_compare(value, op->value, scratch);
    switch (op->kind) {
    case HR_OPERATOR_LT: return order == HR_JS_LESS;
    case HR_OPERATOR_LTE: return order == HR_JS_LESS || order == HR_JS_EQUAL;
    case HR_OPERATOR_GT: return order == HR_JS_GREATER;
    default: return order == HR_JS_GREATER || order == HR_JS_EQUAL;
    }
}

static bool is_of_type(const hr_js_value *value, hr_js_text name) {
    static const char *const names[] = {"null",   "boolean", "boolean", "number",
                                        "string", "array",   "object"}; /* as hr_js_kind */
    return hr_js_text_is(name, names[hr_js_kind_of(value)]);
}

static bool size_holds(const hr_operator *op, const hr_js_value *value, hr_js_scratch *scratch) {
    if (hr_js_kind_of(value) != HR_JS_ARRAY) return false;
    const hr_js_value size = {.kind = HR_JS_NUMBER, .number = value->n};
    return test_holds(op->test, &size, scratch);
}

static bool an_element_matches(const hr_operator *op, const hr_js_value *value, hr_js_scratch *scratch) {
    if (hr_js_kind_of(value) != HR_JS_ARRAY) return false;
    for (const hr_js_value *at = value->first; at != NULL; at = at->next) {
        if (!hr_js_truthy(at)) continue;
        if (op->condition != NULL ? hr_condition_holds_of(op->condition, at, scratch)
                                  : test_holds(op->test, at, scratch))
            return true;
    }
    return false;
}

static bool all_match(const hr_operator *op, const hr_js_value *value, hr_js_scratch *scratch) {
    if (hr_js_kind_of(value) != HR_JS_ARRAY) return false;
    for (uint32_t i = 0; i < op->all.n; i++) {
        const hr_js_value *at = value->first;
        while (at != NULL && !test_holds(&op->all.tests[i], at, scratch)) at = at->next;
        if (at == NULL) return false;
    }
    return true;
}

OUT_OF_LINE static bool regex_holds(const hr_operator *op, const hr_js_value *value, hr_js_scratch *scratch) {
    char number[HR_JS_NUMBER_SIZE];
    return hr_js_regex_test(op->regex, hr_js_to_text(value, number, scratch), scratch);
}

static bool operator_holds(const hr_operator *op, const hr_js_value *value, hr_js_scratch *scratch) {
    switch (op->kind) {
    case HR_OPERATOR_VEQ:
    case HR_OPERATOR_VNE:
    case HR_OPERATOR_VGT:
    case HR_OPERATOR_VGTE:
    case HR_OPERATOR_VLT:
    case HR_OPERATOR_VLTE: return version_holds(op, value, scratch);
    case HR_OPERATOR_EQ: return hr_js_strict_equal(value, op->value);
    case HR_OPERATOR_NE: return !hr_js_strict_equal(value, op->value);
    case HR_OPERATOR_LT:
    case HR_OPERATOR_LTE:
    case HR_OPERATOR_GT:
    case HR_OPERATOR_GTE: return order_holds(op, value, scratch);
    case HR_OPERATOR_EXISTS: return hr_js_truthy(op->value) == (hr_js_kind_of(value) != HR_JS_NULL);
    case HR_OPERATOR_IN:
    case HR_OPERATOR_INI:
    case HR_OPERATOR_IN_GROUP: return hr_js_set_has(op->set, value, scratch);
    case HR_OPERATOR_NIN:
    case HR_OPERATOR_NINI:
    case HR_OPERATOR_NOT_IN_GROUP: return !hr_js_set_has(op->set, value, scratch);
    case HR_OPERATOR_NOT: return !test_holds(op->test, value, scratch);
    case HR_OPERATOR_SIZE: return size_holds(op, value, scratch);
    case HR_OPERATOR_ELEM_MATCH: return an_element_matches(op, value, scratch);
    case HR_OPERATOR_ALL:
    case HR_OPERATOR_ALLI: return all_match(op, value, scratch);
    case HR_OPERATOR_REGEX:
    case HR_OPERATOR_REGEXI: return regex_holds(op, value, scratch);
    case HR_OPERATOR_TYPE: return is_of_type(value, op->text);
    case HR_OPERATOR_NEVER: return false;
    }
    return false;
}

/* ---- Tests and conditions ---- */

OUT_OF_LINE static bool has_text(const hr_test *test, const hr_js_value *value, hr_js_scratch *scratch) {
    char number[HR_JS_NUMBER_SIZE];
    hr_js_text text = hr_js_to_text(value, number, scratch);
    if (test->kind == HR_TEST_TEXT_ANY) text = hr_js_lower(text, scratch);
    return text.nbytes == test->literal->text.nbytes &&
           memcmp(text.bytes, test->literal->text.bytes, text.nbytes) == 0;
}

static bool test_holds(const hr_test *test, const hr_js_value *value, hr_js_scratch *scratch) {
    switch (test->kind) {
    case HR_TEST_TEXT:
    case HR_TEST_TEXT_ANY: return has_text(test, value, scratch);
    case HR_TEST_NUMBER: return hr_js_to_number(value, scratch) == test->literal->number;
    case HR_TEST_TRUTH:
        return hr_js_kind_of(value) != HR_JS_NULL && hr_js_truthy(value) == hr_js_truthy(test->literal);
    case HR_TEST_NULL: return hr_js_kind_of(value) == HR_JS_NULL;
    case HR_TEST_DEEP: return hr_js_deep_equal(value, test->literal);
    case HR_TEST_OPERATORS: break;
    }
    for (uint32_t i = 0; i < test->n_operators; i++)
        if (!operator_holds(&test->operators[i], value, scratch)) return false;
    return true;
}

static bool holds(const hr_condition *condition, const hr_js_value *of, hr_attributes *attributes,
                  hr_js_scratch *scratch);

/* An empty list counts as one that has a condition that holds. */
static bool one_holds(const hr_term *term, const hr_js_value *of, hr_attributes *attributes,
                      hr_js_scratch *scratch) {
    for (uint32_t i = 0; i < term->n_conditions; i++)
        if (holds(term->conditions[i], of, attributes, scratch)) return true;
    return term->n_conditions == 0;
}

static bool term_holds(const hr_term *term, const hr_js_value *of, hr_attributes *attributes,
                       hr_js_scratch *scratch) {
    switch (term->kind) {
    case HR_TERM_OR: return one_holds(term, of, attributes, scratch);
    case HR_TERM_NOR:
    case HR_TERM_NOT: return !one_holds(term, of, attributes, scratch);
    case HR_TERM_AND:
        for (uint32_t i = 0; i < term->n_conditions; i++)
            if (!holds(term->conditions[i], of, attributes, scratch)) return false;
        return true;
    case HR_TERM_TEST: return test_holds(&term->test, at_path(term, of, attributes), scratch);
    case HR_TERM_NEVER: break;
    }
    return false;
}

static bool holds(const hr_condition *condition, const hr_js_value *of, hr_attributes *attributes,
                  hr_js_scratch *scratch) {
    for (uint32_t i = 0; i < condition->n_terms; i++)
        if (!term_holds(&condition->terms[i], of, attributes, scratch)) return false;
    return true;
}

bool hr_condition_holds(const hr_condition *condition, hr_attributes *attributes) {
    return holds(condition, NULL, attributes, attributes->scratch);
}

bool hr_condition_holds_of(const hr_condition *condition, const hr_js_value *value, hr_js_scratch *scratch) {
    return holds(condition, value, NULL, scratch);
}
