/* The feature vectors of a block's rows, from encoded rows and embedding tables (MODEL.md 3).
 *
 * v is laid out in two parts: first the columns that come from the user and the context, which all rows of a
 * slice share, then the item's; each part is padded to HR_PAD. The shared part is made once for a slice in a
 * block, so that what is linear in v can be computed once for it, and copied into the rows that need v whole.
 */
#ifndef HOMERANK_KERNELS_ONEDNN_GATHER_H
#define HOMERANK_KERNELS_ONEDNN_GATHER_H

#include "kernels/plan.h"
#include "schema/slice.h"

/* Where the features stand. Immutable; any thread. */
typedef struct hr_vector_layout {
    uint32_t shared_width, item_width; /* of the two parts */
    uint32_t shared_padded, item_padded;
    uint32_t *column; /* (n_features) of each feature in its part; owned */
} hr_vector_layout;

hr_status hr_vector_layout_init(hr_vector_layout *layout, const hr_schema *schema, hr_error *err);
void hr_vector_layout_clear(hr_vector_layout *layout);

/* A place in a batch. Slices without rows are stepped over. */
typedef struct hr_batch_cursor {
    const hr_slice *slices;
    size_t slice;
    uint32_t item; /* in that slice */
} hr_batch_cursor;

/* Where a block's vectors go; all borrowed. S is the number of its slices. */
typedef struct hr_gathered {
    float *v;           /* (M, shared_padded + item_padded), or NULL where items is not */
    float *shared;      /* (S, shared_padded) */
    float *items;       /* (M, item_padded), or NULL where v is not */
    uint32_t *slice_of; /* (M) row of `shared` */
    float **logits;     /* (M) where the row's logits belong */
} hr_gathered;

/* Gathers the next n_rows rows, of which the batch must have that many left, and moves the cursor on. Returns
 * the number of slices they belong to. */
uint32_t hr_gather(const hr_plan *plan, const hr_vector_layout *layout, hr_batch_cursor *cursor,
                   uint32_t n_rows, const hr_gathered *to);

#endif
