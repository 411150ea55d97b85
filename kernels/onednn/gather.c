/* Embedding lookup and pooling; see gather.h. */
#include "kernels/onednn/gather.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/rows.h"

hr_status hr_vector_layout_init(hr_vector_layout *layout, const hr_schema *schema, hr_error *err) {
    memset(layout, 0, sizeof *layout);
    layout->column = calloc((size_t)schema->n_features + 1, sizeof *layout->column);
    if (!layout->column)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %u features", schema->n_features);
    for (uint32_t i = 0; i < schema->n_features; i++) {
        bool item = schema->features[i].entity == HR_ENTITY_ITEM;
        uint32_t *width = item ? &layout->item_width : &layout->shared_width;
        layout->column[i] = *width;
        *width += schema->features[i].width;
    }
    layout->shared_padded = hr_padded(layout->shared_width);
    layout->item_padded = hr_padded(layout->item_width);
    return HR_OK;
}

void hr_vector_layout_clear(hr_vector_layout *layout) {
    free(layout->column);
    layout->column = NULL;
}

/* index: the count, then the rows. The order of the sum is the list's. */
static void pool(const hr_feature *f, const float *table, const uint32_t *index, float *out) {
    uint32_t count = index[0];
    memset(out, 0, f->width * sizeof(float));
    for (uint32_t i = 0; i < count; i++) {
        const float *row = table + (size_t)index[1 + i] * f->width;
        for (uint32_t d = 0; d < f->width; d++) out[d] += row[d];
    }
    if (f->pool != HR_POOL_MEAN || count == 0) return;
    for (uint32_t d = 0; d < f->width; d++) out[d] /= (float)count;
}

/* One feature from its entity's encoded row. */
static void gather_feature(const hr_plan *plan, const hr_feature *f, const uint32_t *row, float *out) {
    const uint32_t *index = row + f->slot;
    const uint32_t *dense = row + plan->schema->rows[f->entity].n_index + f->slot;
    switch (f->kind) {
    case HR_FEATURE_ID:
    case HR_FEATURE_BUCKET:
        memcpy(out, plan->embeddings[f->table] + (size_t)*index * f->width, f->width * sizeof(float));
        break;
    case HR_FEATURE_IDS: pool(f, plan->embeddings[f->table], index, out); break;
    case HR_FEATURE_NUMBER:
    case HR_FEATURE_NUMBERS: memcpy(out, dense, f->width * sizeof(float)); break;
    }
}

static void gather_shared(const hr_plan *plan, const hr_vector_layout *layout, const hr_slice *slice,
                          float *out) {
    for (uint32_t i = 0; i < plan->schema->n_features; i++) {
        const hr_feature *f = &plan->schema->features[i];
        if (f->entity == HR_ENTITY_ITEM) continue;
        gather_feature(plan, f, f->entity == HR_ENTITY_USER ? slice->user : slice->context,
                       out + layout->column[i]);
    }
    for (uint32_t c = layout->shared_width; c < layout->shared_padded; c++) out[c] = 0.0f;
}

static void gather_item(const hr_plan *plan, const hr_vector_layout *layout, const uint32_t *item,
                        float *out) {
    for (uint32_t i = 0; i < plan->schema->n_features; i++) {
        const hr_feature *f = &plan->schema->features[i];
        if (f->entity == HR_ENTITY_ITEM) gather_feature(plan, f, item, out + layout->column[i]);
    }
    for (uint32_t c = layout->item_width; c < layout->item_padded; c++) out[c] = 0.0f;
}

uint32_t hr_gather(const hr_plan *plan, const hr_vector_layout *layout, hr_batch_cursor *cursor,
                   uint32_t n_rows, const hr_gathered *to) {
    size_t item_words = hr_row_words(plan->schema, HR_ENTITY_ITEM);
    size_t width = (size_t)layout->shared_padded + layout->item_padded;
    uint32_t n_slices = 0;
    assert(to->v || to->items);
    for (size_t r = 0; r < n_rows; r++) {
        bool enters = r == 0;
        for (; cursor->item == cursor->slices[cursor->slice].n_rows; enters = true)
            cursor->slice++, cursor->item = 0;
        const hr_slice *slice = &cursor->slices[cursor->slice];
        if (enters)
            gather_shared(plan, layout, slice, to->shared + n_slices++ * (size_t)layout->shared_padded);
        to->slice_of[r] = n_slices - 1;
        to->logits[r] = slice->logits + (size_t)cursor->item * plan->n_tasks;

        float *v = to->v ? to->v + r * width : NULL;
        const uint32_t *item = (const uint32_t *)slice->items + cursor->item++ * item_words;
        float *items = to->items ? to->items + r * layout->item_padded : v + layout->shared_padded;
        gather_item(plan, layout, item, items);
        if (!v) continue;
        memcpy(v, to->shared + (n_slices - 1) * (size_t)layout->shared_padded,
               layout->shared_padded * sizeof(float));
        if (to->items) memcpy(v + layout->shared_padded, items, layout->item_padded * sizeof(float));
    }
    return n_slices;
}
