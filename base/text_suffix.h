/* How the reader and the writer of text files tell a file's coding by its name. Theirs alone. */
#ifndef HOMERANK_BASE_TEXT_SUFFIX_H
#define HOMERANK_BASE_TEXT_SUFFIX_H

#include <stdbool.h>
#include <string.h>

/* Whether the path ends in suffix, with something before it. */
static inline bool hr__path_has_suffix(const char *path, const char *suffix) {
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && memcmp(path + n - m, suffix, m) == 0;
}

#endif
