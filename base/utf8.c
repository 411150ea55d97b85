/* UTF-8: see utf8.h. The table of well-formed sequences is Unicode's 3-7. */
#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

static bool is_tail(unsigned char byte) {
    return (byte & 0xC0) == 0x80;
}

/* Whether the second byte may follow the first: rules out overlong forms, surrogates and > U+10FFFF. */
static bool second_fits(unsigned char first, unsigned char second) {
    switch (first) {
    case 0xE0: return second >= 0xA0 && second <= 0xBF;
    case 0xED: return second >= 0x80 && second <= 0x9F;
    case 0xF0: return second >= 0x90 && second <= 0xBF;
    case 0xF4: return second >= 0x80 && second <= 0x8F;
    default: return is_tail(second);
    }
}

size_t hr_utf8_char(const void *bytes, size_t nbytes) {
    const unsigned char *p = bytes;
    if (nbytes == 0) return 0;
    if (p[0] < 0x80) return 1;
    size_t length = p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (length == 0 || length > nbytes || !second_fits(p[0], p[1])) return 0;
    for (size_t i = 2; i < length; i++)
        if (!is_tail(p[i])) return 0;
    return length;
}

size_t hr_utf8_prefix(const void *bytes, size_t nbytes) {
    const unsigned char *p = bytes;
    size_t i = 0;
    while (i < nbytes) {
        /* Most ids are ASCII: eight bytes at a time while no high bit is set. */
        for (uint64_t word; nbytes - i >= sizeof word; i += sizeof word) {
            memcpy(&word, p + i, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) != 0) break;
        }
        while (i < nbytes && p[i] < 0x80) i++;
        if (i == nbytes) break;
        size_t length = hr_utf8_char(p + i, nbytes - i);
        if (length == 0) break;
        i += length;
    }
    return i;
}

bool hr_utf8_valid(const void *bytes, size_t nbytes) {
    return hr_utf8_prefix(bytes, nbytes) == nbytes;
}
