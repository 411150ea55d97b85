/* UTF-8, strictly: no overlong forms, no surrogates, nothing above U+10FFFF. NUL is a character like any
 * other. Any thread. */
#ifndef HOMERANK_BASE_UTF8_H
#define HOMERANK_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* The length (1 to 4) of the well-formed character at bytes[0..nbytes); 0 where there is none. */
size_t hr_utf8_char(const void *bytes, size_t nbytes);

/* The bytes before the first that begins no well-formed character: nbytes where all is valid. */
size_t hr_utf8_prefix(const void *bytes, size_t nbytes);

bool hr_utf8_valid(const void *bytes, size_t nbytes);

#endif
