/* Numbers and their texts (MODEL.md 3). Exact, independent of the locale, any thread. */
#ifndef HOMERANK_FEATURES_ENCODER_TEXT_H
#define HOMERANK_FEATURES_ENCODER_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* The longest is -DBL_MAX: a sign, 309 digits, a NUL. */
enum { HR_INTEGRAL_TEXT_SIZE = 312 };

/* The shortest decimal form of a number with an integral value ("7"; both zeros are "0"): its length, and the
 * digits, NUL-terminated, in text. 0 for any other number. */
size_t hr__integral_text(double number, char text[HR_INTEGRAL_TEXT_SIZE]);

/* The double nearest to a text that matches -?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)? from its first byte to its
 * last (infinite where it is too large). False where it does not match. */
bool hr__text_number(const char *text, size_t nbytes, double *number);

#endif
