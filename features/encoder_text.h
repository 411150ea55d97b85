/* Numbers from texts (MODEL.md 3). Exact, independent of the locale, any thread. */
#ifndef HOMERANK_FEATURES_ENCODER_TEXT_H
#define HOMERANK_FEATURES_ENCODER_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* The double nearest to a text that matches -?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)? from its first byte to its
 * last (infinite where it is too large). False where it does not match. */
bool hr__text_number(const char *text, size_t nbytes, double *number);

#endif
