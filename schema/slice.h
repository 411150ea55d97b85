/* One request's share of a batch: candidates of one user in one context, as encoded rows (see schema.h).
 * A batch is an array of slices, of one request or of many; no row is copied to form it. */
#ifndef HOMERANK_SCHEMA_SLICE_H
#define HOMERANK_SCHEMA_SLICE_H

#include <stdint.h>

typedef struct hr_slice {
    const void *user;    /* one encoded user row; borrowed */
    const void *context; /* one encoded context row; borrowed */
    const void *items;   /* (n_rows) encoded item rows, contiguous; borrowed */
    uint32_t n_rows;     /* may be 0 */
    float *logits;       /* (n_rows, T) out, owned by the caller */
} hr_slice;

#endif
