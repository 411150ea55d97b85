/* The decimal text of integral numbers: exact, independent of the locale, any thread. */
#ifndef HOMERANK_BASE_DECIMAL_H
#define HOMERANK_BASE_DECIMAL_H

#include <stddef.h>

/* The longest is -DBL_MAX: a sign, 309 digits, a NUL. */
enum { HR_DECIMAL_SIZE = 312 };

/* The shortest decimal form of a number with an integral value ("7"; both zeros are "0"): its length, and the
 * digits, NUL-terminated, in text. 0 for any other number. */
size_t hr_decimal_text(double number, char text[HR_DECIMAL_SIZE]);

#endif
