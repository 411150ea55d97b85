/* Any bytes as a request's attributes: read by our reader exactly where jansson reads them (but for how deep
 * they may nest), and to the same values. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "service/experiments/js_value.h"
#include "tests/fuzz/fuzz.h"

enum { ARENA_CAP = 64 << 20 };

static void require(int holds) {
    if (!holds) abort();
}

static bool same_members(const hr_js_value *ours, const json_t *theirs);

static bool same(const hr_js_value *ours, const json_t *theirs) {
    static const hr_js_kind kinds[] = {
        [JSON_OBJECT] = HR_JS_OBJECT,  [JSON_ARRAY] = HR_JS_ARRAY, [JSON_STRING] = HR_JS_STRING,
        [JSON_INTEGER] = HR_JS_NUMBER, [JSON_REAL] = HR_JS_NUMBER, [JSON_TRUE] = HR_JS_TRUE,
        [JSON_FALSE] = HR_JS_FALSE,    [JSON_NULL] = HR_JS_NULL};
    if (ours->kind != kinds[json_typeof(theirs)]) return false;
    if (ours->kind == HR_JS_NUMBER) return ours->number == json_number_value(theirs);
    if (ours->kind == HR_JS_STRING)
        return ours->text.nbytes == json_string_length(theirs) &&
               memcmp(ours->text.bytes, json_string_value(theirs), ours->text.nbytes) == 0;
    return ours->kind < HR_JS_ARRAY || same_members(ours, theirs);
}

static bool same_members(const hr_js_value *ours, const json_t *theirs) {
    size_t i = 0;
    for (const hr_js_value *at = ours->first; at != NULL; at = at->next, i++) {
        const json_t *other = json_array_get(theirs, i);
        if (ours->kind == HR_JS_OBJECT) {
            if (hr_js_get(ours, at->key) != at) continue; /* of one name the last counts */
            other = json_object_getn(theirs, at->key.bytes, at->key.nbytes);
        }
        if (other == NULL || !same(at, other)) return false;
    }
    return i == ours->n && (ours->kind == HR_JS_OBJECT || i == json_array_size(theirs));
}

/* What was read prints, and reads again as the same. */
static void require_round_trip(const hr_js_value *value, hr_arena *arena) {
    hr_js_scratch scratch = {.arena = arena};
    hr_js_text text = hr_js_print(value, &scratch), again;
    const hr_js_value *copy;
    if (scratch.failed) return;
    require(hr_js_parse(text.bytes, text.nbytes, arena, &copy, NULL) == HR_OK);
    again = hr_js_print(copy, &scratch);
    require(scratch.failed ||
            (again.nbytes == text.nbytes && memcmp(again.bytes, text.bytes, text.nbytes) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    hr_arena *arena = hr_arena_create(ARENA_CAP);
    char *text = malloc(nbytes + 1);
    if (arena == NULL || text == NULL) abort();
    if (nbytes > 0) memcpy(text, data, nbytes);
    text[nbytes] = '\0';
    nbytes = strlen(text); /* a request's texts hold no NUL */
    const hr_js_value *ours;
    hr_error err = {.code = HR_OK, .message = ""};
    json_error_t why;
    hr_status status = hr_js_parse(text, nbytes, arena, &ours, &err);
    json_t *theirs = json_loadb(text, nbytes, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &why);
    if (status == HR_OK) {
        require(theirs != NULL && same(ours, theirs));
        require_round_trip(ours, arena);
    } else {
        require(err.code == status && err.message[0] != '\0' && ours == NULL);
        require(theirs == NULL || strstr(err.message, "levels of nesting") != NULL);
    }
    json_decref(theirs);
    hr_arena_destroy(arena);
    free(text);
    return 0;
}
