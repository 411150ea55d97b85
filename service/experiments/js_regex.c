/* JavaScript's regular expressions by libpcre2: see js_regex.h.
 *
 * A match is bounded three ways: by steps (MATCH_LIMIT), by the depth of its backtracking and by heap. The
 * compiled code runs on the thread's stack; where its 32 KiB do not do, the interpreter tries again with
 * memory of the scratch.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "service/experiments/js_regex.h"

#include <pcre2.h>
#include <stdlib.h>

enum { MATCH_LIMIT = 100000, DEPTH_LIMIT = 10000, HEAP_LIMIT_KIB = 1024, TRANSLATION_NBYTES = 1 << 20 };

struct hr_js_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
};

static hr_status compile(hr_js_regex *regex, hr_js_text pattern, bool any_case, hr_error *err) {
    uint32_t options = PCRE2_UTF | PCRE2_NO_UTF_CHECK | PCRE2_MATCH_UNSET_BACKREF | PCRE2_NEVER_BACKSLASH_C |
                       (any_case ? PCRE2_CASELESS : 0);
    int code;
    size_t offset;
    regex->code = pcre2_compile((PCRE2_SPTR)pattern.bytes, pattern.nbytes, options, &code, &offset, NULL);
    if (regex->code == NULL) {
        char reason[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
        return hr_error_set(err, HR_INVALID_ARGUMENT, "not a regular expression: %s", reason);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* where it cannot be, the interpreter does */
    regex->limits = pcre2_match_context_create(NULL);
    if (regex->limits == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for a pattern");
    pcre2_set_match_limit(regex->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(regex->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(regex->limits, HEAP_LIMIT_KIB);
    return HR_OK;
}

hr_status hr_js_regex_create(hr_js_text pattern, bool any_case, hr_js_regex **regex, hr_error *err) {
    *regex = NULL;
    if (pattern.nbytes > HR_JS_REGEX_MAX_NBYTES)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "regular expression: expected at most %d bytes, found %zu",
                            HR_JS_REGEX_MAX_NBYTES, pattern.nbytes);
    hr_js_regex *made = calloc(1, sizeof *made);
    hr_arena *arena = hr_arena_create(TRANSLATION_NBYTES);
    hr_js_text translated;
    hr_status status = made == NULL || arena == NULL
                           ? hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for a pattern")
                           : hr_js_regex_translate(pattern, arena, &translated, err);
    if (status == HR_OK) status = compile(made, translated, any_case, err);
    hr_arena_destroy(arena);
    if (status == HR_OK)
        *regex = made;
    else
        hr_js_regex_destroy(made);
    return status;
}

void hr_js_regex_destroy(hr_js_regex *regex) {
    if (regex == NULL) return;
    pcre2_match_context_free(regex->limits);
    pcre2_code_free(regex->code);
    free(regex);
}

/* PCRE's memory for matching comes from the scratch, is used for one match after the other, and goes back
 * with it. */
static void *scratch_alloc(size_t nbytes, void *scratch) {
    return hr_arena_alloc(((hr_js_scratch *)scratch)->arena, nbytes);
}

static void scratch_free(void *memory, void *scratch) {
    (void)memory;
    (void)scratch;
}

static pcre2_match_data *match_data(hr_js_scratch *scratch) {
    if (scratch->match != NULL) return scratch->match;
    pcre2_general_context *memory = pcre2_general_context_create(scratch_alloc, scratch_free, scratch);
    scratch->match = memory == NULL ? NULL : pcre2_match_data_create(1, memory);
    scratch->failed |= scratch->match == NULL;
    return scratch->match;
}

bool hr_js_regex_test(const hr_js_regex *regex, hr_js_text text, hr_js_scratch *scratch) {
    pcre2_match_data *match = match_data(scratch);
    if (match == NULL) return false;
    PCRE2_SPTR bytes = (PCRE2_SPTR)text.bytes;
    int found = pcre2_match(regex->code, bytes, text.nbytes, 0, PCRE2_NO_UTF_CHECK, match, regex->limits);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(regex->code, bytes, text.nbytes, 0, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match,
                            regex->limits);
    return found >= 0;
}
