/* Targeting conditions of the GrowthBook SDK (MongoDB's syntax), compiled once and asked of each request's
 * attributes. Private to service/experiments.
 *
 * Compiling is as tolerant as the specification: an operator that is not known, a pattern that is none or an
 * operand of the wrong kind is said to `warn` and behaves as in the SDK (mostly: it is false).
 * A compiled condition lives in the builder's arena and is immutable; any thread may ask it.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_CONDITION_H
#define HOMERANK_SERVICE_EXPERIMENTS_CONDITION_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "service/experiments/js_regex.h"
#include "service/experiments/js_value.h"

typedef struct hr_condition hr_condition;

/* "a.b.c", split. */
typedef struct hr_path hr_path;
struct hr_path {
    hr_js_text text;
    uint32_t n_parts;
    const hr_js_text *parts; /* (n_parts) */
    hr_path *next;           /* of the builder's list */
};

enum { HR_MAX_PATHS = 4096 };

/* What conditions of one file share while they are compiled. */
typedef struct hr_condition_builder {
    hr_arena *arena;            /* owns all that is made, but for the patterns */
    const json_t *saved_groups; /* borrowed; {group: [value, ...]}, or NULL */
    void (*warn)(void *arg, const char *what);
    void *warn_arg;
    hr_path *paths, *last_path; /* into attributes, in the order of their numbers */
    uint32_t n_paths;
    struct hr_regex_node {
        hr_js_regex *regex; /* owned: hr_condition_builder_free */
        struct hr_regex_node *next;
    } * regexes;
    struct hr_group_node *groups; /* saved groups compiled so far */
} hr_condition_builder;

/* Frees the patterns of all conditions of a builder. */
void hr_condition_free_regexes(struct hr_regex_node *regexes);

/* json is borrowed for the call. of_attributes: it will be asked of attributes, else of one value at a time.
 * Errors: INVALID_ARGUMENT (nested too deep, more than HR_MAX_PATHS paths), RESOURCE_EXHAUSTED. */
hr_status hr_condition_compile(hr_condition_builder *builder, const json_t *json, bool of_attributes,
                               const hr_condition **condition, hr_error *err);

/* One request's attributes. user_id is what "id" and "user_id" are where the attributes lack them. One
 * thread. */
typedef struct hr_attributes {
    const hr_js_value *object;    /* NULL: none */
    const hr_js_value *user_id;   /* NULL: none */
    const hr_path *const *paths;  /* (n_paths) */
    const hr_js_value **resolved; /* (n_paths), each hr_unresolved at first */
    hr_js_scratch *scratch;
} hr_attributes;

extern const hr_js_value hr_unresolved;

/* The attribute of that name; NULL where there is none. */
const hr_js_value *hr_attribute(const hr_attributes *attributes, hr_js_text name);

/* Whether the condition holds of the attributes; of a value (of one compiled without of_attributes). */
bool hr_condition_holds(const hr_condition *condition, hr_attributes *attributes);
bool hr_condition_holds_of(const hr_condition *condition, const hr_js_value *value, hr_js_scratch *scratch);

#endif
