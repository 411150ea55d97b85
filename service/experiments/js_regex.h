/* JavaScript's regular expressions by libpcre2, compiled once and matched under limits. Private to
 * service/experiments.
 *
 * A pattern is translated first (js_regex_translate.c): what is no pattern to JavaScript is refused, and what
 * means something else to PCRE (\A, \Q, [[:alpha:]], recursion, callouts, (*VERBS)) means here what it does
 * there. Left to PCRE is \d, \w and \b, which agree, and which letters differ in case only.
 * A compiled pattern is immutable; any thread may match it.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_JS_REGEX_H
#define HOMERANK_SERVICE_EXPERIMENTS_JS_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/status.h"
#include "service/experiments/js_value.h"

typedef struct hr_js_regex hr_js_regex;

enum { HR_JS_REGEX_MAX_NBYTES = 4096 };

/* Errors: INVALID_ARGUMENT (not a pattern, longer than HR_JS_REGEX_MAX_NBYTES), OUT_OF_MEMORY. */
hr_status hr_js_regex_create(hr_js_text pattern, bool any_case, hr_js_regex **regex, hr_error *err);
void hr_js_regex_destroy(hr_js_regex *regex); /* NULL is allowed */

/* Whether the pattern matches somewhere in the text. One that runs into a limit does not. */
bool hr_js_regex_test(const hr_js_regex *regex, hr_js_text text, hr_js_scratch *scratch);

/* The pattern in PCRE's terms, NUL-terminated. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED. */
hr_status hr_js_regex_translate(hr_js_text pattern, hr_arena *arena, hr_js_text *translated, hr_error *err);

#endif
