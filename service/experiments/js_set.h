/* A set of JSON values, asked by JavaScript's strict equality: what $in and saved groups are compiled to.
 * Private to service/experiments. Immutable once made; any thread may ask. */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_JS_SET_H
#define HOMERANK_SERVICE_EXPERIMENTS_JS_SET_H

#include <jansson.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/status.h"
#include "service/experiments/js_value.h"

typedef struct hr_js_set hr_js_set;

/* Of the elements of an array (NULL: of none), in the arena; any_case: texts are compared in lower case.
 * Arrays and objects in it are left out, for they equal nothing. Errors: RESOURCE_EXHAUSTED. */
hr_status hr_js_set_create(const json_t *array, bool any_case, hr_arena *arena, const hr_js_set **set,
                           hr_error *err);

/* Whether the set has the value; of an array, whether it has one of its elements. */
bool hr_js_set_has(const hr_js_set *set, const hr_js_value *value, hr_js_scratch *scratch);

#endif
