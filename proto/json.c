/* Parsing JSON strictly, and what the readers say when they refuse: see json.h. */
#include "proto/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/json_internal.h"

hr_status hr_json_parse(const char *text, size_t nbytes, json_t **value, hr_error *err) {
    json_error_t failure;
    *value = json_loadb(nbytes == 0 ? "" : text, nbytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &failure);
    if (*value != NULL) return HR_OK;
    if (json_error_code(&failure) == json_error_out_of_memory)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "JSON text of %zu bytes: out of memory", nbytes);
    /* jansson goes on to quote the text, raw and perhaps cut inside a character. */
    char *quotation = strstr(failure.text, " near ");
    if (quotation != NULL) *quotation = '\0';
    return hr_error_set(err, HR_INVALID_ARGUMENT, "not valid JSON: at byte %d: %s", failure.position,
                        failure.text);
}

enum { WHERE_NBYTES = 120, FOUND_NBYTES = HR_QUOTE_SIZE };

/* Short and plain enough to stand in an error as it is. */
static bool is_plain_key(const char *key) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t n = strlen(key);
    return n > 0 && n <= 40 && strspn(key, plain) == n;
}

/* Appends at's own step to text[length..size). */
static int step_text(const hr_json_at *at, char *text, size_t length, size_t size) {
    if (at->key == NULL) return snprintf(text + length, size - length, "[%zu]", at->index);
    if (!is_plain_key(at->key))
        return snprintf(text + length, size - length, "[%s]", hr_quote(at->key, strlen(at->key)).text);
    return snprintf(text + length, size - length, "%s%s", length > 0 ? "." : "", at->key);
}

/* The length of the way to at, spelled out in text. */
static size_t where_text(const hr_json_at *at, char *text, size_t size) {
    if (at == NULL) return 0;
    size_t length = where_text(at->up, text, size);
    int n = step_text(at, text, length, size);
    length += n < 0 ? 0 : (size_t)n;
    return length < size ? length : size - 1;
}

static void found_text(const json_t *found, char text[FOUND_NBYTES]) {
    switch (json_typeof(found)) {
    case JSON_OBJECT: snprintf(text, FOUND_NBYTES, "an object"); break;
    case JSON_ARRAY: snprintf(text, FOUND_NBYTES, "a list"); break;
    case JSON_STRING:
        snprintf(text, FOUND_NBYTES, "%s",
                 hr_quote(json_string_value(found), json_string_length(found)).text);
        break;
    case JSON_INTEGER:
        snprintf(text, FOUND_NBYTES, "%" JSON_INTEGER_FORMAT, json_integer_value(found));
        break;
    case JSON_REAL: snprintf(text, FOUND_NBYTES, "%.9g", json_real_value(found)); break;
    case JSON_TRUE: snprintf(text, FOUND_NBYTES, "true"); break;
    case JSON_FALSE: snprintf(text, FOUND_NBYTES, "false"); break;
    case JSON_NULL: snprintf(text, FOUND_NBYTES, "null"); break;
    }
}

hr_status hr_json_refuse__(const hr_json_at *at, const char *expected, const json_t *found, hr_error *err) {
    char where[WHERE_NBYTES] = "", what[FOUND_NBYTES];
    where_text(at, where, sizeof where);
    found_text(found, what);
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s%sexpected %s, found %s", where,
                        where[0] == '\0' ? "" : ": ", expected, what);
}

hr_status hr_json_no_room__(const hr_json_at *at, hr_error *err) {
    char where[WHERE_NBYTES] = "";
    where_text(at, where, sizeof where);
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "%s%sneeds more memory than a call may have", where,
                        where[0] == '\0' ? "" : ": ");
}
