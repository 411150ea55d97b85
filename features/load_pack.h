/* The usual line of records, straight to its packed record: no tree, one pass.
 *
 * It takes what it surely understands and declines the rest, good or bad: escapes in texts, duplicate keys,
 * integers past 18 digits, ... For those hr_load_line_parse is there, which also says what is wrong. What it
 * takes is what that would make of the line, to the byte.
 *
 * One thread at a time. Private to features/.
 */
#ifndef HOMERANK_FEATURES_LOAD_PACK_H
#define HOMERANK_FEATURES_LOAD_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schema/schema.h"

/* All zero at first; its memory grows to what the longest line takes. */
typedef struct hr_load_packer {
    uint8_t *packed; /* nbytes of capacity: the last line's record */
    size_t nbytes;
    uint8_t *value; /* scratch */
    size_t capacity;
    /* The line's. */
    hr_entity entity;
    const char *id; /* NUL-terminated, in the line's text */
} hr_load_packer;

void hr_load_packer_clear(hr_load_packer *packer);

/* text is changed (a NUL behind the id) only where it returns true. */
bool hr_load_pack(hr_load_packer *packer, char *text, size_t nbytes);

#endif
