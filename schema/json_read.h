/* Reading configuration from JSON with complete checks: every getter says where, which key, what it expected
 * and what it found: `features[3] "age": std: expected a number > 0, found -1`.
 *
 * `where` names the object in errors ("network", hr_json_place_of(...).text). A getter of a key that is
 * absent and not `required` leaves *out as it was, so a caller sets the default first; a null is never a
 * value. All errors are INVALID_ARGUMENT. What is read out is borrowed from the JSON value. Thread-safe on
 * values nobody changes.
 */
#ifndef HOMERANK_SCHEMA_JSON_READ_H
#define HOMERANK_SCHEMA_JSON_READ_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { HR_JSON_PLACE_SIZE = 160 };
typedef struct hr_json_place {
    char text[HR_JSON_PLACE_SIZE];
} hr_json_place;

/* `list[index]`, and its name where the element is an object with a string "name": `features[3] "age"`. */
hr_json_place hr_json_place_of(const char *list, size_t index, const json_t *element);

/* A value as an error shows it: strings quoted, scalars as they are, else "an array", "an object", "nothing".
 */
hr_quoted hr_json_show(const json_t *value);

/* "where: key: expected ..., found <value>". key may be NULL. Returns INVALID_ARGUMENT. */
hr_status hr_json_expected(const char *where, const char *key, const char *expected, const json_t *found,
                           hr_error *err);

/* The value is an object and has none but the allowed keys. */
hr_status hr_json_check_keys(const json_t *object, const char *where, const char *const *allowed,
                             size_t n_allowed, hr_error *err);

/* Whether text is a name of MODEL.md 1: [A-Za-z_][A-Za-z0-9_-]*. */
bool hr_json_is_name(const char *text);

/* Values of an object's keys. */
hr_status hr_json_get_string(const json_t *object, const char *where, const char *key, bool required,
                             const char **out, hr_error *err); /* non-empty, no NUL inside */
hr_status hr_json_get_name(const json_t *object, const char *where, const char *key, bool required,
                           const char **out, hr_error *err);
/* out: the index of the string in choices. */
hr_status hr_json_get_choice(const json_t *object, const char *where, const char *key, bool required,
                             const char *const *choices, size_t n_choices, unsigned *out, hr_error *err);
/* A JSON integer (3.0 is none) in [min, max]. */
hr_status hr_json_get_uint(const json_t *object, const char *where, const char *key, bool required,
                           uint32_t min, uint32_t max, uint32_t *out, hr_error *err);
/* A finite number, integer or real. */
hr_status hr_json_get_number(const json_t *object, const char *where, const char *key, bool required,
                             double *out, hr_error *err);
hr_status hr_json_get_positive(const json_t *object, const char *where, const char *key, bool required,
                               double *out, hr_error *err);
hr_status hr_json_get_bool(const json_t *object, const char *where, const char *key, bool required, bool *out,
                           hr_error *err);
/* An array of min_n to max_n elements. */
hr_status hr_json_get_array(const json_t *object, const char *where, const char *key, bool required,
                            size_t min_n, size_t max_n, const json_t **out, hr_error *err);
hr_status hr_json_get_object(const json_t *object, const char *where, const char *key, bool required,
                             const json_t **out, hr_error *err);

/* The same of a value at hand (an array's element, say); `key` only names it in errors and may be NULL. */
hr_status hr_json_as_string(const json_t *value, const char *where, const char *key, const char **out,
                            hr_error *err);
hr_status hr_json_as_name(const json_t *value, const char *where, const char *key, const char **out,
                          hr_error *err);
hr_status hr_json_as_uint(const json_t *value, const char *where, const char *key, uint32_t min, uint32_t max,
                          uint32_t *out, hr_error *err);
hr_status hr_json_as_number(const json_t *value, const char *where, const char *key, double *out,
                            hr_error *err);

#endif
