/* Embedding lookup and pooling; see gather.h. */
#include "kernels/onednn/gather.h"

#include <stdlib.h>
#include <string.h>

/* A run of columns of v that come from the user or the context. */
typedef struct columns {
    uint32_t offset, width;
} columns;

struct hr_gather {
    const hr_plan *plan;   /* borrowed */
    const hr_slice *slice; /* whose user and context `shared` holds; NULL: none */
    float *shared;         /* (D) owned; the item's columns are unused */
    columns *runs;         /* (n_runs) owned */
    uint32_t n_runs;
    const hr_feature **item_features; /* (n_item_features) owned list */
    uint32_t n_item_features;
};

void hr_gather_destroy(hr_gather *gather) {
    if (!gather) return;
    free(gather->shared);
    free(gather->runs);
    free(gather->item_features);
    free(gather);
}

hr_gather *hr_gather_create(const hr_plan *plan) {
    const hr_schema *schema = plan->schema;
    hr_gather *gather = calloc(1, sizeof *gather);
    if (!gather) return NULL;
    gather->plan = plan;
    gather->shared = calloc((size_t)schema->width + 1, sizeof(float));
    gather->runs = calloc((size_t)schema->n_features + 1, sizeof *gather->runs);
    gather->item_features = calloc((size_t)schema->n_features + 1, sizeof(hr_feature *));
    if (!gather->shared || !gather->runs || !gather->item_features) {
        hr_gather_destroy(gather);
        return NULL;
    }
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *f = &schema->features[i];
        columns *last = gather->n_runs ? &gather->runs[gather->n_runs - 1] : NULL;
        if (f->entity == HR_ENTITY_ITEM) {
            gather->item_features[gather->n_item_features++] = f;
        } else if (last && last->offset + last->width == f->vector_offset) {
            last->width += f->width;
        } else {
            gather->runs[gather->n_runs++] = (columns){f->vector_offset, f->width};
        }
    }
    return gather;
}

void hr_gather_begin(hr_gather *gather) {
    gather->slice = NULL;
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

/* One feature's columns of v from an entity's encoded row. */
static void gather_feature(const hr_plan *plan, const hr_feature *f, const uint32_t *row, float *v) {
    const uint32_t *index = row + f->slot;
    const uint32_t *dense = row + plan->schema->rows[f->entity].n_index + f->slot;
    float *out = v + f->vector_offset;
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

static void gather_shared(hr_gather *gather, const hr_slice *slice) {
    const hr_schema *schema = gather->plan->schema;
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *f = &schema->features[i];
        if (f->entity == HR_ENTITY_USER) gather_feature(gather->plan, f, slice->user, gather->shared);
        if (f->entity == HR_ENTITY_CONTEXT) gather_feature(gather->plan, f, slice->context, gather->shared);
    }
    gather->slice = slice;
}

void hr_gather_rows(hr_gather *gather, hr_batch_cursor *cursor, uint32_t n_rows, float *v, size_t ld,
                    float **logits) {
    const hr_schema *schema = gather->plan->schema;
    size_t item_words = hr_row_words(schema, HR_ENTITY_ITEM);
    for (uint32_t r = 0; r < n_rows; r++, v += ld) {
        while (cursor->item == cursor->slices[cursor->slice].n_rows) cursor->slice++, cursor->item = 0;
        const hr_slice *slice = &cursor->slices[cursor->slice];
        if (slice != gather->slice) gather_shared(gather, slice);
        for (uint32_t i = 0; i < gather->n_runs; i++) {
            const columns *run = &gather->runs[i];
            memcpy(v + run->offset, gather->shared + run->offset, run->width * sizeof(float));
        }
        const uint32_t *item = (const uint32_t *)slice->items + cursor->item * item_words;
        for (uint32_t i = 0; i < gather->n_item_features; i++) {
            gather_feature(gather->plan, gather->item_features[i], item, v);
        }
        memset(v + schema->width, 0, (ld - schema->width) * sizeof(float));
        logits[r] = slice->logits + (size_t)cursor->item * gather->plan->n_tasks;
        cursor->item++;
    }
}
