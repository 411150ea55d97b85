/* Version folders of a model repository: positive integers without leading zeros (MODEL.md 1). Internal to
 * model/. */
#ifndef HOMERANK_MODEL_VERSION_H
#define HOMERANK_MODEL_VERSION_H

#include <stdbool.h>
#include <stdint.h>

/* Leaves *version as it was where text is no version. */
static inline bool hr_version_parse(const char *text, uint64_t *version) {
    if (text[0] < '1' || text[0] > '9') return false;
    uint64_t value = 0;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') return false;
        if (__builtin_mul_overflow(value, 10, &value)) return false;
        if (__builtin_add_overflow(value, (uint64_t)(*text - '0'), &value)) return false;
    }
    *version = value;
    return true;
}

#endif
