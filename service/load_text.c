/* Options' texts: see load_text.h. */
#include "service/load_text.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 10000000, MAX_ITEMS = 1000000, MAX_DIGITS = 15 };

hr_status hr_load_read_decimal(const char *text, double min, double max, double *value, hr_error *err) {
    size_t nbytes = strspn(text, "0123456789.");
    char *end = NULL;
    double number = strtod(text, &end);
    if (nbytes > 0 && text[nbytes] == '\0' && *end == '\0' && number >= min && number <= max) {
        *value = number;
        return HR_OK;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a number from %g to %g, found %s", min, max,
                        hr_quote(text, strlen(text)).text);
}

/* A number without leading zeros at text[0..nbytes). */
static bool read_number(const char *text, size_t nbytes, uint64_t *number) {
    *number = 0;
    if (nbytes == 0 || nbytes > MAX_DIGITS || (text[0] == '0' && nbytes > 1)) return false;
    for (size_t i = 0; i < nbytes; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        *number = *number * 10 + (uint64_t)(text[i] - '0');
    }
    return true;
}

static size_t trailing_digits(const char *text, size_t nbytes) {
    size_t n = 0;
    while (n < nbytes && text[nbytes - 1 - n] >= '0' && text[nbytes - 1 - n] <= '9') n++;
    return n;
}

static bool read_range(const char *text, hr_load_range *range) {
    const char *dots = strstr(text, "..");
    if (dots == NULL) return false;
    const char *end = dots + 2;
    const size_t nbytes = (size_t)(dots - text), n_prefix = nbytes - trailing_digits(text, nbytes);
    uint64_t last;
    if (n_prefix >= HR_LOAD_PREFIX_SIZE || strncmp(text, end, n_prefix) != 0) return false;
    if (!read_number(text + n_prefix, nbytes - n_prefix, &range->first)) return false;
    if (!read_number(end + n_prefix, strlen(end + n_prefix), &last)) return false;
    if (last < range->first || last - range->first >= MAX_IDS) return false;
    memcpy(range->prefix, text, n_prefix);
    range->prefix[n_prefix] = '\0';
    range->n = last - range->first + 1;
    return true;
}

hr_status hr_load_read_range(const char *text, hr_load_range *range, hr_error *err) {
    if (read_range(text, range)) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "expected a range like v0..v9999 of at most %d ids, found %s", MAX_IDS,
                        hr_quote(text, strlen(text)).text);
}

void hr_load_range_id(const hr_load_range *range, uint64_t index, char id[HR_LOAD_ID_SIZE]) {
    snprintf(id, HR_LOAD_ID_SIZE, "%s%" PRIu64, range->prefix, range->first + index);
}

hr_status hr_load_read_sizes(const char *text, hr_load_sizes *sizes, hr_error *err) {
    const char *at = text;
    *sizes = (hr_load_sizes){0};
    for (bool more = true; more;) {
        size_t nbytes = strcspn(at, ",");
        uint64_t size = 0;
        if (sizes->n == HR_LOAD_MAX_SIZES || !read_number(at, nbytes, &size) || size < 1 || size > MAX_ITEMS)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "expected up to %d numbers from 1 to %d like 1,100,500, found %s",
                                HR_LOAD_MAX_SIZES, MAX_ITEMS, hr_quote(text, strlen(text)).text);
        sizes->values[sizes->n++] = (uint32_t)size;
        if (size > sizes->max) sizes->max = (uint32_t)size;
        more = at[nbytes] == ',';
        at += nbytes + 1;
    }
    return HR_OK;
}
