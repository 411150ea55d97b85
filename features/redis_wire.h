/* What commands to Redis are made of (RESP2): heads, for those who write them. Private to features/. */
#ifndef HOMERANK_FEATURES_REDIS_WIRE_H
#define HOMERANK_FEATURES_REDIS_WIRE_H

#include <stddef.h>
#include <string.h>

enum { HR_REDIS_HEAD_NBYTES = 24 }; /* of a head, at most */

/* "*<n>\r\n" (n texts follow) or "$<n>\r\n" (n bytes and a CR LF do) at `at`; what is behind it. */
static inline char *hr_redis_put_head(char *at, char type, size_t n) {
    char digits[HR_REDIS_HEAD_NBYTES], *end = digits + sizeof digits, *first = end;
    do *--first = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    const size_t n_digits = (size_t)(end - first);
    *at++ = type;
    memcpy(at, first, n_digits);
    memcpy(at + n_digits, "\r\n", 2);
    return at + n_digits + 2;
}

#endif
