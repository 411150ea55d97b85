/* Descriptors with addresses, and staging; see cuda_bind.h. */
#include "kernels/cuda/cuda_bind.h"

#include <assert.h>
#include <string.h>

enum { SECTION_ALIGNMENT = 256 };
_Static_assert((int)HR_CUDA_USER == (int)HR_ENTITY_USER, "one number");

/* ---- The image ---- */

static size_t section(size_t *at, size_t count, size_t size) {
    size_t start = *at;
    *at = (start + count * size + SECTION_ALIGNMENT - 1) / SECTION_ALIGNMENT * SECTION_ALIGNMENT;
    return start;
}

hr_cuda_image hr_cuda_image_layout(const hr_cuda_plan *plan) {
    hr_cuda_image image;
    size_t at = 0;
    image.gather = section(&at, 1, sizeof(hr_cuda_gather));
    image.features = section(&at, plan->plan->schema->n_features, sizeof(hr_cuda_feature));
    image.shared_map = section(&at, hr_cuda_padded(plan->shared_width), sizeof(uint32_t));
    image.items_map = section(&at, hr_cuda_padded(plan->item_width), sizeof(uint32_t));
    image.parts = section(&at, plan->n_parts, sizeof(hr_cuda_part));
    image.products = section(&at, plan->n_products, sizeof(hr_cuda_product));
    image.tiles = section(&at, plan->n_tiles, sizeof(hr_cuda_tile));
    image.norms = section(&at, plan->n_norms, sizeof(hr_cuda_norm));
    image.terms = section(&at, plan->n_terms, sizeof(hr_cuda_term));
    image.mixes = section(&at, plan->n_mixes, sizeof(hr_cuda_mix));
    image.tower_layers = section(&at, plan->n_tower_layers, sizeof(hr_cuda_tower_layer));
    image.towers = section(&at, plan->n_towers, sizeof(hr_cuda_tower));
    image.nbytes = at;
    return image;
}

/* Of a buffer's row 0; a bf16 buffer's column is the first of a panel. */
static uint8_t *buffer_at(const hr_cuda_plan *plan, const hr_cuda_places *at, uint32_t buffer,
                          uint32_t column) {
    const hr_cuda_buffer *b = &plan->buffers[buffer];
    uint8_t *start = at->buffers + b->offset;
    return start +
           (b->is_bf16 ? hr_cuda_panel_at(hr_cuda_plan_panel(plan), 0, column) * 2 : column * sizeof(float));
}

static uint32_t buffer_ld(const hr_cuda_plan *plan, uint32_t buffer) {
    return plan->buffers[buffer].is_bf16 ? hr_cuda_plan_panel(plan) : plan->buffers[buffer].width;
}

static bool is_bf16(const hr_cuda_plan *plan, uint32_t buffer) {
    return plan->buffers[buffer].is_bf16;
}

static float *f32_at(const hr_cuda_plan *plan, const hr_cuda_places *at, uint32_t buffer, uint32_t column) {
    assert(!plan->buffers[buffer].is_bf16);
    return (float *)(void *)buffer_at(plan, at, buffer, column);
}

static const float *floats_at(const hr_cuda_places *at, size_t offset) {
    return (const float *)(const void *)(at->weights + offset);
}

static void fill_features(const hr_cuda_plan *plan, const hr_cuda_image *image, const hr_cuda_places *at,
                          uint8_t *to) {
    const hr_schema *schema = plan->plan->schema;
    hr_cuda_feature *features = (void *)(to + image->features);
    uint32_t *shared = (void *)(to + image->shared_map), *items = (void *)(to + image->items_map);
    for (uint32_t c = 0; c < hr_cuda_padded(plan->shared_width); c++) shared[c] = HR_CUDA_NONE;
    for (uint32_t c = 0; c < hr_cuda_padded(plan->item_width); c++) items[c] = HR_CUDA_NONE;
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *f = &schema->features[i];
        bool dense = f->kind == HR_FEATURE_NUMBER || f->kind == HR_FEATURE_NUMBERS;
        features[i] = (hr_cuda_feature){
            .table = dense ? NULL : at->tables[f->table],
            .entity = f->entity,
            .word = f->slot + (dense ? schema->rows[f->entity].n_index : 0),
            .is_list = f->kind == HR_FEATURE_IDS,
            .is_mean = f->kind == HR_FEATURE_IDS && f->pool == HR_POOL_MEAN,
            .width = f->width,
            .column = plan->columns[i],
        };
        uint32_t *map = f->entity == HR_ENTITY_ITEM ? items : shared;
        for (uint32_t c = 0; c < f->width; c++) map[plan->columns[i] + c] = i;
    }
}

static hr_cuda_gather_part gather_part(const hr_cuda_plan *plan, const hr_cuda_places *at, size_t map,
                                       uint32_t value) {
    const hr_cuda_value *v = &plan->values[value];
    hr_cuda_gather_part part = {.feature_of = (const void *)(at->image + map),
                                .ld_bf16 = hr_cuda_plan_panel(plan)};
    if (v->operand == HR_CUDA_NONE) return part; /* nobody reads it */
    part.width = hr_cuda_padded(v->width);
    if (!plan->is_bf16) {
        part.y = f32_at(plan, at, v->operand, 0);
        return part;
    }
    part.high = (void *)buffer_at(plan, at, v->operand, 0);
    if (v->low != HR_CUDA_NONE) part.low = (void *)buffer_at(plan, at, v->low, 0);
    return part;
}

static void fill_gather(const hr_cuda_plan *plan, const hr_cuda_image *image, const hr_cuda_places *at,
                        uint8_t *to) {
    const hr_schema *schema = plan->plan->schema;
    *(hr_cuda_gather *)(void *)(to + image->gather) = (hr_cuda_gather){
        .staging = at->staging,
        .features = (const void *)(at->image + image->features),
        .user_words = (uint32_t)hr_row_words(schema, HR_ENTITY_USER),
        .context_words = (uint32_t)hr_row_words(schema, HR_ENTITY_CONTEXT),
        .item_words = (uint32_t)hr_row_words(schema, HR_ENTITY_ITEM),
        .shared = gather_part(plan, at, image->shared_map, HR_CUDA_VALUE_SHARED),
        .items = gather_part(plan, at, image->items_map, HR_CUDA_VALUE_ITEMS),
    };
}

static void fill_parts(const hr_cuda_plan *plan, const hr_cuda_places *at, hr_cuda_part *to) {
    for (uint32_t i = 0; i < plan->n_parts; i++) {
        const hr_cuda_plan_part *p = &plan->parts[i];
        to[i] = (hr_cuda_part){
            .x = buffer_at(plan, at, p->buffer, p->column),
            .ld = buffer_ld(plan, p->buffer),
            .end = p->end,
            .shared = p->shared && !is_bf16(plan, p->buffer),
        };
    }
}

static hr_cuda_product bind_product(const hr_cuda_plan *plan, const hr_cuda_image *image,
                                    const hr_cuda_places *at, const hr_cuda_plan_product *p) {
    const hr_cuda_part *parts = (const void *)(at->image + image->parts);
    hr_cuda_product bound = {
        .x = parts + p->first_part,
        .weight = at->weights + p->weight,
        .bias = p->bias == SIZE_MAX ? NULL : floats_at(at, p->bias),
        .y = buffer_at(plan, at, p->y, p->y_column),
        .k = p->k,
        .n = p->n,
        .n_padded = hr_cuda_padded(p->n),
        .ld_y = buffer_ld(plan, p->y),
        .activation = p->activation,
        .y_is_bf16 = is_bf16(plan, p->y),
        .loras = p->loras,
    };
    if (p->loras == 0) return bound;
    bound.logits = f32_at(plan, at, p->logits, p->logits_at);
    bound.ld_logits = plan->buffers[p->logits].width;
    bound.gated = parts + p->first_gated;
    if (p->first_low != HR_CUDA_NONE) bound.gated_low = parts + p->first_low;
    return bound;
}

static hr_cuda_norm bind_norm(const hr_cuda_plan *plan, const hr_cuda_places *at,
                              const hr_cuda_plan_norm *n) {
    return (hr_cuda_norm){
        .x = f32_at(plan, at, n->x, n->column),
        .weight = floats_at(at, n->weight),
        .bias = floats_at(at, n->bias),
        .y = buffer_at(plan, at, n->y, n->column),
        .width = n->width,
        .ld = plan->buffers[n->x].width,
        .ld_y = buffer_ld(plan, n->y),
        .activation = plan->plan->activation == HR_ACTIVATION_RELU ? HR_CUDA_RELU : HR_CUDA_SWISH,
        .y_is_bf16 = is_bf16(plan, n->y),
        .eps = (float)plan->plan->norm_eps,
    };
}

static hr_cuda_mix bind_mix(const hr_cuda_plan *plan, const hr_cuda_image *image, const hr_cuda_places *at,
                            const hr_cuda_plan_mix *m) {
    const hr_cuda_value *value = &plan->values[m->value];
    hr_cuda_mix bound = {
        .terms = (const hr_cuda_term *)(const void *)(at->image + image->terms) + m->first_term,
        .gate_at = m->gate_at,
        .self_at = m->self_at,
        .n_terms = m->n_terms,
        .n_mixed = m->n_mixed,
        .n_self = m->n_self,
        .self_first = m->self_first,
        .padded = hr_cuda_padded(value->width),
        .ld_bf16 = hr_cuda_plan_panel(plan),
    };
    if (m->logits != HR_CUDA_NONE) {
        bound.logits = f32_at(plan, at, m->logits, 0);
        bound.ld_logits = plan->buffers[m->logits].width;
    }
    if (value->f32 != HR_CUDA_NONE) bound.y = f32_at(plan, at, value->f32, 0);
    if (plan->is_bf16 && value->operand != HR_CUDA_NONE)
        bound.high = (void *)buffer_at(plan, at, value->operand, 0);
    if (value->low != HR_CUDA_NONE) bound.low = (void *)buffer_at(plan, at, value->low, 0);
    return bound;
}

static hr_cuda_tower bind_tower(const hr_cuda_plan *plan, const hr_cuda_image *image,
                                const hr_cuda_places *at, const hr_cuda_plan_tower *t) {
    hr_cuda_tower bound = {
        .n_layers = t->n_layers,
        .activation = plan->plan->tower_activation == HR_ACTIVATION_RELU ? HR_CUDA_RELU : HR_CUDA_SWISH,
        .layers =
            (const hr_cuda_tower_layer *)(const void *)(at->image + image->tower_layers) + t->first_layer,
        .logits = at->logits + t->task,
        .n_tasks = plan->plan->n_tasks,
    };
    if (t->mix == HR_CUDA_NONE) {
        bound.x = f32_at(plan, at, t->x, 0);
        bound.ld = plan->buffers[t->x].width;
    } else {
        bound.mix = bind_mix(plan, image, at, &plan->mixes[t->mix]);
    }
    for (int i = 0; i < 2; i++) {
        if (t->hidden[i] == HR_CUDA_NONE) continue;
        bound.hidden[i] = f32_at(plan, at, t->hidden[i], 0);
        bound.ld_hidden = plan->buffers[t->hidden[i]].width;
    }
    return bound;
}

static void fill_tower_layers(const hr_cuda_plan *plan, const hr_cuda_places *at, hr_cuda_tower_layer *to) {
    for (uint32_t t = 0; t < plan->n_towers; t++) {
        const hr_cuda_plan_tower *tower = &plan->towers[t];
        for (uint32_t i = tower->first_layer; i < tower->first_layer + tower->n_layers; i++) {
            const hr_cuda_plan_tower_layer *l = &plan->tower_layers[i];
            to[i] = (hr_cuda_tower_layer){.bias = floats_at(at, l->bias), .k = l->k, .n = l->n};
            bool last = i + 1 == tower->first_layer + tower->n_layers;
            if (last) to[i].weight = floats_at(at, l->weight);
            for (uint32_t p = 0; !last && p < hr_cuda_plan_parts(plan); p++)
                to[i].parts[p] = (const uint16_t *)(const void *)(at->weights + l->parts[p]);
        }
    }
}

/* A stage's descriptors stand in the order of its steps, which is that of all stages together. */
static void fill_steps(const hr_cuda_plan *plan, const hr_cuda_image *image, const hr_cuda_places *at,
                       uint8_t *to) {
    hr_cuda_product *products = (void *)(to + image->products);
    hr_cuda_norm *norms = (void *)(to + image->norms);
    hr_cuda_mix *mixes = (void *)(to + image->mixes);
    hr_cuda_tower *towers = (void *)(to + image->towers);
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        uint32_t index = plan->steps[i].index;
        switch (plan->steps[i].kind) {
        case HR_CUDA_GATHER: fill_gather(plan, image, at, to); break;
        case HR_CUDA_PRODUCTS:
        case HR_CUDA_FEATURE_GATES:
            *products++ = bind_product(plan, image, at, &plan->products[index]);
            break;
        case HR_CUDA_NORMS: *norms++ = bind_norm(plan, at, &plan->norms[index]); break;
        case HR_CUDA_MIXES: *mixes++ = bind_mix(plan, image, at, &plan->mixes[index]); break;
        case HR_CUDA_TOWERS: *towers++ = bind_tower(plan, image, at, &plan->towers[index]); break;
        }
    }
}

void hr_cuda_image_fill(const hr_cuda_plan *plan, const hr_cuda_image *image, const hr_cuda_places *at,
                        uint8_t *to) {
    fill_features(plan, image, at, to);
    fill_parts(plan, at, (void *)(to + image->parts));
    fill_steps(plan, image, at, to);
    fill_tower_layers(plan, at, (void *)(to + image->tower_layers));
    hr_cuda_tile *tiles = (void *)(to + image->tiles);
    for (uint32_t i = 0; i < plan->n_tiles; i++) {
        const hr_cuda_plan_tile *t = &plan->tiles[i];
        tiles[i] = (hr_cuda_tile){.product = t->product, .column = t->column, .panels = t->panels};
        tiles[i].branches = t->branches;
        if (t->bias != SIZE_MAX) tiles[i].bias = floats_at(at, t->bias) + t->column;
    }
    hr_cuda_term *terms = (void *)(to + image->terms);
    for (uint32_t i = 0; i < plan->n_terms; i++) {
        const hr_cuda_plan_term *t = &plan->terms[i];
        terms[i] = (hr_cuda_term){buffer_at(plan, at, t->buffer, t->column), buffer_ld(plan, t->buffer)};
    }
}

/* ---- Launches ---- */

static bool takes_products(hr_cuda_kind kind) {
    return kind == HR_CUDA_PRODUCTS || kind == HR_CUDA_FEATURE_GATES;
}

/* How many descriptors of the stage's section stand before its own. */
static size_t descriptors_before(const hr_cuda_plan *plan, uint32_t stage) {
    size_t n = 0;
    for (uint32_t i = 0; i < stage; i++) {
        bool same = plan->stages[i].kind == plan->stages[stage].kind ||
                    (takes_products(plan->stages[i].kind) && takes_products(plan->stages[stage].kind));
        if (same) n += plan->stages[i].count;
    }
    return n;
}

static size_t descriptors_of(const hr_cuda_image *image, hr_cuda_kind kind, size_t *size) {
    switch (kind) {
    case HR_CUDA_NORMS: *size = sizeof(hr_cuda_norm); return image->norms;
    case HR_CUDA_MIXES: *size = sizeof(hr_cuda_mix); return image->mixes;
    case HR_CUDA_TOWERS: *size = sizeof(hr_cuda_tower); return image->towers;
    case HR_CUDA_GATHER: *size = sizeof(hr_cuda_gather); return image->gather;
    case HR_CUDA_PRODUCTS:
    case HR_CUDA_FEATURE_GATES: break;
    }
    *size = sizeof(hr_cuda_product);
    return image->products;
}

static uint32_t widest_mix(const hr_cuda_plan *plan, const hr_cuda_stage *stage) {
    uint32_t widest = 0;
    for (uint32_t i = stage->first; i < stage->first + stage->count; i++) {
        uint32_t width = hr_cuda_padded(plan->values[plan->mixes[plan->steps[i].index].value].width);
        if (width > widest) widest = width;
    }
    return widest;
}

hr_cuda_launch hr_cuda_stage_launch(const hr_cuda_plan *plan, const hr_cuda_image *image,
                                    const hr_cuda_places *at, uint32_t stage, uint32_t rows,
                                    hr_cuda_device_kind device) {
    const hr_cuda_stage *s = &plan->stages[stage];
    size_t size, first = descriptors_of(image, s->kind, &size);
    hr_cuda_launch launch = {
        .kind = s->kind,
        .f32 = !plan->is_bf16,
        .hopper = device.hopper,
        .follows = stage > 0,
        .n_sms = device.n_sms,
        .m = rows,
        .count = s->count,
        .items = at->image + first + descriptors_before(plan, stage) * size,
        .staging = at->staging,
    };
    if (s->kind == HR_CUDA_GATHER)
        launch.count = (hr_cuda_padded(plan->shared_width) + hr_cuda_padded(plan->item_width)) / HR_CUDA_PAD;
    if (s->kind == HR_CUDA_MIXES) launch.panels = widest_mix(plan, s) / HR_CUDA_PAD;
    if (!takes_products(s->kind)) return launch;
    /* f32 products have one tile size. */
    hr_cuda_tile_size tile = launch.f32 ? HR_CUDA_TILE_64 : hr_cuda_stage_tile(s, rows, device);
    launch.tile_n = hr_cuda_tile_columns(tile);
    launch.tiles = (const hr_cuda_tile *)(const void *)(at->image + image->tiles) + s->first_tile[tile];
    launch.count = s->n_tiles[tile];
    return launch;
}

/* ---- Staging ---- */

static uint32_t padded_rows(uint32_t n_rows) {
    return (n_rows + HR_CUDA_ROWS - 1) / HR_CUDA_ROWS * HR_CUDA_ROWS;
}

size_t hr_cuda_staging_nbytes(const hr_plan *plan, uint32_t n_rows) {
    size_t row = hr_row_words(plan->schema, HR_ENTITY_USER) + hr_row_words(plan->schema, HR_ENTITY_CONTEXT) +
                 hr_row_words(plan->schema, HR_ENTITY_ITEM);
    return (HR_CUDA_HEADER_WORDS + padded_rows(n_rows) + n_rows + 1 + row * n_rows) * sizeof(uint32_t);
}

/* Rows of one slice, next to each other there and in a batch. */
typedef struct run {
    const hr_slice *slice;
    uint32_t item, n_rows;
} run;

/* The next run of 1 to `most` rows; moves the cursor behind it. */
static run next_run(hr_cuda_cursor *cursor, uint32_t most) {
    while (cursor->item == cursor->slices[cursor->slice].n_rows) cursor->slice++, cursor->item = 0;
    const hr_slice *slice = &cursor->slices[cursor->slice];
    uint32_t left = slice->n_rows - cursor->item;
    run next = {.slice = slice, .item = cursor->item, .n_rows = left < most ? left : most};
    cursor->item += next.n_rows;
    return next;
}

static uint32_t count_runs(hr_cuda_cursor cursor, uint32_t n_rows) {
    uint32_t n = 0;
    for (uint32_t r = 0; r < n_rows; n++) r += next_run(&cursor, n_rows - r).n_rows;
    return n;
}

static void copy_words(uint32_t *to, const void *from, size_t n_words) {
    if (n_words > 0) memcpy(to, from, n_words * sizeof *to);
}

size_t hr_cuda_stage_rows(const hr_plan *plan, hr_cuda_cursor *cursor, uint32_t n_rows, uint32_t *to) {
    size_t user = hr_row_words(plan->schema, HR_ENTITY_USER);
    size_t context = hr_row_words(plan->schema, HR_ENTITY_CONTEXT);
    size_t item = hr_row_words(plan->schema, HR_ENTITY_ITEM);
    hr_cuda_header header = {.n_rows = n_rows, .n_slices = count_runs(*cursor, n_rows)};
    header.starts = HR_CUDA_HEADER_WORDS + padded_rows(n_rows);
    header.users = header.starts + header.n_slices + 1;
    header.contexts = header.users + (uint32_t)(header.n_slices * user);
    header.items = header.contexts + (uint32_t)(header.n_slices * context);
    memcpy(to, &header, sizeof header);
    uint32_t *slice_of = to + HR_CUDA_HEADER_WORDS;
    for (uint32_t s = 0, r = 0; s < header.n_slices; s++) {
        const run next = next_run(cursor, n_rows - r);
        to[header.starts + s] = r;
        copy_words(to + header.users + s * user, next.slice->user, user);
        copy_words(to + header.contexts + s * context, next.slice->context, context);
        copy_words(to + header.items + r * item, (const uint32_t *)next.slice->items + next.item * item,
                   next.n_rows * item);
        for (const uint32_t end = r + next.n_rows; r < end; r++) slice_of[r] = s;
    }
    for (uint32_t r = n_rows; r < padded_rows(n_rows); r++) slice_of[r] = 0;
    to[header.starts + header.n_slices] = n_rows;
    return (header.items + (size_t)n_rows * item) * sizeof(uint32_t);
}

void hr_cuda_hand_out(const hr_plan *plan, hr_cuda_cursor cursor, uint32_t n_rows, const float *logits) {
    const size_t n_tasks = plan->n_tasks;
    for (uint32_t r = 0; r < n_rows;) {
        const run next = next_run(&cursor, n_rows - r);
        memcpy(next.slice->logits + next.item * n_tasks, logits + r * n_tasks,
               next.n_rows * n_tasks * sizeof *logits);
        r += next.n_rows;
    }
}
