/* The row of a text in a table (MODEL.md 3, "Row of a text"). */
#include <xxhash.h>

#include "schema/schema.h"

/* `0` or `[1-9][0-9]*` with n < rows - 1 -> n + 1; 0 otherwise. */
static uint32_t direct_row(uint32_t rows, const char *text, size_t nbytes) {
    enum { MAX_DIGITS = 10 }; /* rows < 2^32: a longer number is beyond every table */
    if (nbytes == 0 || nbytes > MAX_DIGITS) return 0;
    if (text[0] == '0' && nbytes > 1) return 0;
    uint64_t n = 0;
    for (size_t i = 0; i < nbytes; i++) {
        unsigned digit = (unsigned char)text[i] - (unsigned)'0';
        if (digit > 9) return 0;
        n = n * 10 + digit;
    }
    return n < rows - 1 ? (uint32_t)n + 1 : 0;
}

uint32_t hr_table_row(const hr_table *table, const char *text, size_t nbytes) {
    if (nbytes == 0) return 0;
    if (table->index == HR_INDEX_DIRECT) return direct_row(table->rows, text, nbytes);
    return 1 + (uint32_t)(XXH64(text, nbytes, 0) % (table->rows - 1));
}
