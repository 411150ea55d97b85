/* JSON values as JavaScript sees them, for conditions of the GrowthBook SDK: their truth, text, number,
 * equality and order are those of ECMAScript, for the SDK's specification leans on them. Private to
 * service/experiments.
 *
 * Values are immutable once made and live in an arena; any thread may read them. A NULL pointer is a value
 * that is not there (`undefined`), and counts as null. What has no place of its own (the text of an array,
 * say) goes into a scratch, which belongs to one thread.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_JS_VALUE_H
#define HOMERANK_SERVICE_EXPERIMENTS_JS_VALUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"

typedef enum hr_js_kind {
    HR_JS_NULL,
    HR_JS_FALSE,
    HR_JS_TRUE,
    HR_JS_NUMBER,
    HR_JS_STRING,
    HR_JS_ARRAY,
    HR_JS_OBJECT
} hr_js_kind;

/* Valid UTF-8 without NUL; not NUL-terminated. */
typedef struct hr_js_text {
    const char *bytes;
    size_t nbytes;
} hr_js_text;

typedef struct hr_js_value hr_js_value;
struct hr_js_value {
    hr_js_kind kind;
    uint32_t n;              /* elements of an array, members of an object */
    hr_js_text key;          /* of a member */
    const hr_js_value *next; /* the element or member behind this one */
    union {
        double number;
        hr_js_text text;
        const hr_js_value *first; /* of an array or object; NULL where it is empty */
    };
};

enum { HR_JS_MAX_DEPTH = 64, HR_JS_NUMBER_SIZE = 32 };

typedef struct hr_js_scratch {
    hr_arena *arena; /* borrowed */
    bool failed;     /* the arena was full: what was computed since is not to be used */
    void *match;     /* what patterns are matched with, once one was (js_regex.c) */
} hr_js_scratch;

static inline hr_js_text hr_js_text_of(const char *bytes, size_t nbytes) {
    return (hr_js_text){.bytes = bytes, .nbytes = nbytes};
}

/* ---- Making values ---- */

/* A copy of a JSON value in the arena. Errors: INVALID_ARGUMENT (nested deeper than HR_JS_MAX_DEPTH),
 * RESOURCE_EXHAUSTED. */
hr_status hr_js_from_json(const json_t *json, hr_arena *arena, const hr_js_value **value, hr_error *err);

/* Reads one JSON text, of which the value borrows the strings that need no unescaping: text[nbytes] must be
 * NUL, and the text must live as long as the value. Of members with one name the last counts. Errors:
 * INVALID_ARGUMENT with the position; RESOURCE_EXHAUSTED. */
hr_status hr_js_parse(const char *text, size_t nbytes, hr_arena *arena, const hr_js_value **value,
                      hr_error *err);

/* ---- Looking into values ---- */

static inline hr_js_kind hr_js_kind_of(const hr_js_value *value) {
    return value == NULL ? HR_JS_NULL : value->kind;
}

/* The member `name` of an object, the element of an array ("0", "1", ...); NULL where there is none. */
const hr_js_value *hr_js_get(const hr_js_value *value, hr_js_text name);

static inline bool hr_js_text_is(hr_js_text text, const char *word) {
    return text.nbytes == __builtin_strlen(word) && __builtin_memcmp(text.bytes, word, text.nbytes) == 0;
}

/* ---- Conversions ---- */

bool hr_js_truthy(const hr_js_value *value); /* !!value */

/* String(number), NUL-terminated: its length. */
size_t hr_js_number_text(double number, char text[HR_JS_NUMBER_SIZE]);

/* String(value): an array's elements are joined by commas, an object is "[object Object]". `number` holds
 * the text of a number. */
hr_js_text hr_js_to_text(const hr_js_value *value, char number[HR_JS_NUMBER_SIZE], hr_js_scratch *scratch);

double hr_js_text_number(hr_js_text text, hr_js_scratch *scratch); /* Number("12"); NaN if it is none */
double hr_js_to_number(const hr_js_value *value, hr_js_scratch *scratch); /* Number(value) */
hr_js_text hr_js_lower(hr_js_text text, hr_js_scratch *scratch); /* toLowerCase, character by character */
hr_js_text hr_js_print(const hr_js_value *value, hr_js_scratch *scratch); /* JSON.stringify, NUL-terminated */

/* ---- Comparisons ---- */

bool hr_js_strict_equal(const hr_js_value *a, const hr_js_value *b); /* ===: arrays and objects never are */
bool hr_js_deep_equal(const hr_js_value *a, const hr_js_value *b);   /* whatever the order of members */

/* By UTF-16 code units, as JavaScript orders strings: < 0, 0 or > 0. */
int hr_js_text_compare(hr_js_text a, hr_js_text b);

typedef enum hr_js_order { HR_JS_LESS, HR_JS_EQUAL, HR_JS_GREATER, HR_JS_UNORDERED } hr_js_order;

static inline hr_js_order hr_js_number_order(double x, double y) {
    return x < y ? HR_JS_LESS : x > y ? HR_JS_GREATER : x == y ? HR_JS_EQUAL : HR_JS_UNORDERED;
}

/* What a < b, a > b, ... go by: two strings as strings, all else as numbers. */
hr_js_order hr_js_compare(const hr_js_value *a, const hr_js_value *b, hr_js_scratch *scratch);

#endif
