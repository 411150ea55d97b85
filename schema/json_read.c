/* Reading configuration from JSON with complete checks: see json_read.h. */
#include "schema/json_read.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

hr_json_place hr_json_place_of(const char *list, size_t index, const json_t *element) {
    hr_json_place place;
    const json_t *name = json_object_get(element, "name");
    int n = snprintf(place.text, sizeof place.text, "%.64s[%zu]", list, index);
    if (json_is_string(name) && n > 0 && (size_t)n < sizeof place.text) {
        hr_quoted quoted = hr_quote(json_string_value(name), json_string_length(name));
        snprintf(place.text + n, sizeof place.text - (size_t)n, " %.*s", (int)sizeof quoted.text,
                 quoted.text);
    }
    return place;
}

hr_quoted hr_json_show(const json_t *value) {
    hr_quoted shown;
    if (json_is_string(value)) return hr_quote(json_string_value(value), json_string_length(value));
    if (json_is_integer(value)) {
        snprintf(shown.text, sizeof shown.text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_real(value)) {
        /* With a point, so that 3.0 where an integer is expected does not show as 3. */
        int n = snprintf(shown.text, sizeof shown.text, "%.17g", json_real_value(value));
        if (n > 0 && strpbrk(shown.text, ".en") == NULL)
            snprintf(shown.text + n, sizeof shown.text - (size_t)n, ".0");
    } else {
        const char *text = json_is_true(value)     ? "true"
                           : json_is_false(value)  ? "false"
                           : json_is_null(value)   ? "null"
                           : json_is_array(value)  ? "an array"
                           : json_is_object(value) ? "an object"
                                                   : "nothing";
        snprintf(shown.text, sizeof shown.text, "%s", text);
    }
    return shown;
}

hr_status hr_json_expected(const char *where, const char *key, const char *expected, const json_t *found,
                           hr_error *err) {
    if (key == NULL)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected %s, found %s", where, expected,
                            hr_json_show(found).text);
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: %s: expected %s, found %s", where, key, expected,
                        hr_json_show(found).text);
}

/* `a, b or c`, cut where it does not fit. */
static void join_words(const char *const *words, size_t n, char *out, size_t room) {
    out[0] = '\0';
    size_t used = 0;
    for (size_t i = 0; i < n && used < room; i++) {
        const char *separator = i == 0 ? "" : i + 1 < n ? ", " : " or ";
        int m = snprintf(out + used, room - used, "%s%s", separator, words[i]);
        if (m < 0) return;
        used += (size_t)m;
    }
}

static bool is_one_of(const char *text, const char *const *words, size_t n, unsigned *index) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, words[i]) == 0) {
            *index = (unsigned)i;
            return true;
        }
    return false;
}

hr_status hr_json_check_keys(const json_t *object, const char *where, const char *const *allowed,
                             size_t n_allowed, hr_error *err) {
    if (!json_is_object(object)) return hr_json_expected(where, NULL, "an object", object, err);
    const char *key;
    json_t *value;
    unsigned index;
    /* The iteration macros want a non-const object; nothing is changed. */
    json_object_foreach((json_t *)object, key, value) {
        if (is_one_of(key, allowed, n_allowed, &index)) continue;
        char words[128];
        join_words(allowed, n_allowed, words, sizeof words);
        return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: unknown key %s, expected %s", where,
                            hr_quote(key, strlen(key)).text, words);
    }
    return HR_OK;
}

bool hr_json_is_name(const char *text) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    if (text[0] == '\0' || strchr(letters, text[0]) == NULL) return false;
    size_t n = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789-");
    return text[n] == '\0';
}

hr_status hr_json_as_string(const json_t *value, const char *where, const char *key, const char **out,
                            hr_error *err) {
    const char *text = json_string_value(value);
    size_t nbytes = json_string_length(value);
    if (text == NULL || nbytes == 0 || strlen(text) != nbytes)
        return hr_json_expected(where, key, "a non-empty string", value, err);
    *out = text;
    return HR_OK;
}

hr_status hr_json_as_name(const json_t *value, const char *where, const char *key, const char **out,
                          hr_error *err) {
    const char *text = json_string_value(value);
    if (text == NULL || strlen(text) != json_string_length(value) || !hr_json_is_name(text))
        return hr_json_expected(where, key, "a name [A-Za-z_][A-Za-z0-9_-]*", value, err);
    *out = text;
    return HR_OK;
}

hr_status hr_json_as_uint(const json_t *value, const char *where, const char *key, uint32_t min, uint32_t max,
                          uint32_t *out, hr_error *err) {
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < (json_int_t)min || n > (json_int_t)max) {
        char expected[64];
        snprintf(expected, sizeof expected, "an integer from %u to %u", (unsigned)min, (unsigned)max);
        return hr_json_expected(where, key, expected, value, err);
    }
    *out = (uint32_t)n;
    return HR_OK;
}

hr_status hr_json_as_number(const json_t *value, const char *where, const char *key, double *out,
                            hr_error *err) {
    if (!json_is_number(value) || !isfinite(json_number_value(value)))
        return hr_json_expected(where, key, "a finite number", value, err);
    *out = json_number_value(value);
    return HR_OK;
}

/* Whether there is nothing to read: the key is absent and may be. An absent key that is required is read as
 * the NULL value, which is of no type. */
static bool absent(const json_t *object, const char *key, bool required, const json_t **value) {
    *value = json_object_get(object, key);
    return *value == NULL && !required;
}

hr_status hr_json_get_string(const json_t *object, const char *where, const char *key, bool required,
                             const char **out, hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    return hr_json_as_string(value, where, key, out, err);
}

hr_status hr_json_get_name(const json_t *object, const char *where, const char *key, bool required,
                           const char **out, hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    return hr_json_as_name(value, where, key, out, err);
}

hr_status hr_json_get_choice(const json_t *object, const char *where, const char *key, bool required,
                             const char *const *choices, size_t n_choices, unsigned *out, hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    if (json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value) &&
        is_one_of(json_string_value(value), choices, n_choices, out))
        return HR_OK;
    char words[128];
    join_words(choices, n_choices, words, sizeof words);
    return hr_json_expected(where, key, words, value, err);
}

hr_status hr_json_get_uint(const json_t *object, const char *where, const char *key, bool required,
                           uint32_t min, uint32_t max, uint32_t *out, hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    return hr_json_as_uint(value, where, key, min, max, out, err);
}

hr_status hr_json_get_number(const json_t *object, const char *where, const char *key, bool required,
                             double *out, hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    return hr_json_as_number(value, where, key, out, err);
}

hr_status hr_json_get_positive(const json_t *object, const char *where, const char *key, bool required,
                               double *out, hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    double number = json_number_value(value);
    if (!json_is_number(value) || !isfinite(number) || !(number > 0))
        return hr_json_expected(where, key, "a finite number > 0", value, err);
    *out = number;
    return HR_OK;
}

hr_status hr_json_get_bool(const json_t *object, const char *where, const char *key, bool required, bool *out,
                           hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    if (!json_is_boolean(value)) return hr_json_expected(where, key, "true or false", value, err);
    *out = json_is_true(value);
    return HR_OK;
}

hr_status hr_json_get_array(const json_t *object, const char *where, const char *key, bool required,
                            size_t min_n, size_t max_n, const json_t **out, hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    if (!json_is_array(value)) return hr_json_expected(where, key, "an array", value, err);
    if (json_array_size(value) < min_n || json_array_size(value) > max_n)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: %s: expected %zu to %zu elements, found %zu",
                            where, key, min_n, max_n, json_array_size(value));
    *out = value;
    return HR_OK;
}

hr_status hr_json_get_object(const json_t *object, const char *where, const char *key, bool required,
                             const json_t **out, hr_error *err) {
    const json_t *value;
    if (absent(object, key, required, &value)) return HR_OK;
    if (!json_is_object(value)) return hr_json_expected(where, key, "an object", value, err);
    *out = value;
    return HR_OK;
}
