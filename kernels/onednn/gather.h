/* The feature vector v of a block's rows, from encoded rows and embedding tables (MODEL.md 3).
 *
 * The user's and the context's part of v is made once for a slice and copied into its rows; only the item's
 * part is gathered row by row. A gatherer belongs to one thread.
 */
#ifndef HOMERANK_KERNELS_ONEDNN_GATHER_H
#define HOMERANK_KERNELS_ONEDNN_GATHER_H

#include "kernels/plan.h"
#include "schema/slice.h"

typedef struct hr_gather hr_gather;

/* A place in a batch. Slices without rows are stepped over. */
typedef struct hr_batch_cursor {
    const hr_slice *slices;
    size_t slice;
    uint32_t item; /* in that slice */
} hr_batch_cursor;

/* The plan is borrowed. NULL when out of memory. */
hr_gather *hr_gather_create(const hr_plan *plan);
void hr_gather_destroy(hr_gather *gather); /* NULL is allowed */

/* A new batch: nothing of the last one may be used again. */
void hr_gather_begin(hr_gather *gather);

/* Writes n_rows rows of v (n_rows, ld), zeros past D, and where each one's logits go; moves the cursor on.
 * The batch must have that many rows left. */
void hr_gather_rows(hr_gather *gather, hr_batch_cursor *cursor, uint32_t n_rows, float *v, size_t ld,
                    float **logits);

#endif
