/* The pieces a plan of launches is built of, and their order and places; see builder.h. */
#include "kernels/cuda/builder.h"

#include <stdlib.h>
#include <string.h>

/* Packed weights may take this much and, past it, so many times what the plan's take. */
#define FREE_WEIGHTS ((uint64_t)1 << 26)
enum { MOST_PADDING = 8 };

/* Of a worker's buffers and of its staging: the largest bucket is the largest that keeps within both. */
#define MOST_BUFFERS ((size_t)2 << 30)
#define MOST_STAGING ((size_t)1 << 28)

enum { WEIGHT_ALIGNMENT = 256 };

/* Arrays grow by doubling at powers of two. */
void *hr__cuda_append(hr_cuda_builder *b, void *array, uint32_t *n, size_t size) {
    void **items = array;
    if (b->oom) return NULL;
    if ((*n & (*n - 1)) == 0) {
        void *grown = *n > UINT32_MAX / 4 ? NULL : realloc(*items, (*n ? 2 * (size_t)*n : 1) * size);
        if (!grown) {
            b->oom = true;
            return NULL;
        }
        *items = grown;
    }
    void *item = (char *)*items + (size_t)*n * size;
    memset(item, 0, size);
    (*n)++;
    return item;
}

/* ---- Buffers and values ---- */

uint32_t hr__cuda_add_buffer(hr_cuda_builder *b, uint32_t width, bool is_bf16) {
    hr_cuda_buffer *buffer = hr__cuda_append(b, &b->out->buffers, &b->out->n_buffers, sizeof *buffer);
    if (!buffer) return 0;
    *buffer = (hr_cuda_buffer){.width = hr_cuda_padded(width), .is_bf16 = is_bf16, .first = HR_CUDA_NONE};
    return b->out->n_buffers - 1;
}

void hr__cuda_writes(hr_cuda_builder *b, uint32_t buffer, uint32_t level) {
    if (b->oom) return;
    hr_cuda_buffer *written = &b->out->buffers[buffer];
    if (level < written->first) written->first = level;
    if (level > written->ready) written->ready = level;
    if (level > written->last) written->last = level;
}

void hr__cuda_reads(hr_cuda_builder *b, uint32_t buffer, uint32_t level) {
    if (!b->oom && level > b->out->buffers[buffer].last) b->out->buffers[buffer].last = level;
}

uint32_t hr__cuda_ready(const hr_cuda_builder *b, uint32_t buffer) {
    return b->oom ? 0 : b->out->buffers[buffer].ready;
}

uint32_t hr__cuda_value_f32(hr_cuda_builder *b, uint32_t value) {
    if (b->oom) return 0;
    hr_cuda_value *v = &b->out->values[value];
    if (v->f32 != HR_CUDA_NONE) return v->f32;
    v->f32 = hr__cuda_add_buffer(b, v->width, false);
    if (!b->out->is_bf16) v->operand = v->f32;
    hr__cuda_writes(b, v->f32, v->level);
    return v->f32;
}

uint32_t hr__cuda_value_operand(hr_cuda_builder *b, uint32_t value) {
    if (b->oom) return 0;
    hr_cuda_value *v = &b->out->values[value];
    if (!b->out->is_bf16) return hr__cuda_value_f32(b, value);
    if (v->operand != HR_CUDA_NONE) return v->operand;
    v->operand = hr__cuda_add_buffer(b, v->width, true);
    hr__cuda_writes(b, v->operand, v->level);
    return v->operand;
}

uint32_t hr__cuda_value_low(hr_cuda_builder *b, uint32_t value) {
    if (b->oom) return 0;
    hr_cuda_value *v = &b->out->values[value];
    if (v->low != HR_CUDA_NONE) return v->low;
    v->low = hr__cuda_add_buffer(b, v->width, true);
    hr__cuda_writes(b, v->low, v->level);
    return v->low;
}

void hr__cuda_add_part(hr_cuda_builder *b, uint32_t buffer, uint32_t column, uint32_t end, bool shared) {
    hr_cuda_plan_part *part = hr__cuda_append(b, &b->out->parts, &b->out->n_parts, sizeof *part);
    if (part) *part = (hr_cuda_plan_part){buffer, column, end, shared};
}

void hr__cuda_add_step(hr_cuda_builder *b, hr_cuda_kind kind, uint32_t level, uint32_t index) {
    hr_cuda_step *step = hr__cuda_append(b, &b->out->steps, &b->out->n_steps, sizeof *step);
    if (step) *step = (hr_cuda_step){kind, level, index};
}

/* ---- Weights ---- */

/* Zeros, at a fresh multiple of WEIGHT_ALIGNMENT. */
static size_t take_weights(hr_cuda_builder *b, size_t nbytes) {
    hr_cuda_plan *out = b->out;
    size_t at = (out->weights_nbytes + WEIGHT_ALIGNMENT - 1) / WEIGHT_ALIGNMENT * WEIGHT_ALIGNMENT;
    if (b->oom) return 0;
    if (at + nbytes > out->weights_room) {
        size_t room = 2 * (at + nbytes);
        uint8_t *grown = realloc(out->weights, room);
        if (!grown) {
            b->oom = true;
            return 0;
        }
        out->weights = grown;
        out->weights_room = room;
    }
    memset(out->weights + out->weights_nbytes, 0, at + nbytes - out->weights_nbytes);
    out->weights_nbytes = at + nbytes;
    return at;
}

static uint16_t bf16_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)((bits >> 16) | 0x40); /* NaN stays one */
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);                /* ties to even */
}

/* Looks at what is there before n_padded more come, whose weights are not counted yet. */
static void pads(hr_cuda_builder *b, uint64_t n_padded) {
    hr_cuda_plan *out = b->out;
    if (out->n_padded > FREE_WEIGHTS + MOST_PADDING * out->n_weights) b->narrow = b->oom = true;
    out->n_padded += n_padded;
}

hr_cuda_plan_product *hr__cuda_add_product(hr_cuda_builder *b, uint32_t k, uint32_t n, bool bias) {
    hr_cuda_plan *out = b->out;
    size_t n_elements = (size_t)(out->is_bf16 ? hr_cuda_padded(n) : n) * k;
    pads(b, n_elements);
    size_t weight = take_weights(b, n_elements * (out->is_bf16 ? 2 : 4));
    size_t widths = (n + HR_CUDA_WIDEST - 1) / HR_CUDA_WIDEST;
    size_t bias_at = bias ? take_weights(b, widths * HR_CUDA_WIDEST * sizeof(float)) : SIZE_MAX;
    hr_cuda_plan_product *p = hr__cuda_append(b, &out->products, &out->n_products, sizeof *p);
    if (!p) return NULL;
    p->weight = weight, p->bias = bias_at;
    p->k = k, p->n = n;
    p->logits = HR_CUDA_NONE;
    return p;
}

void hr__cuda_put_row(hr_cuda_builder *b, const hr_cuda_plan_product *p, uint32_t row, const float *weight,
                      const uint32_t *columns, uint32_t from, uint32_t width) {
    if (b->oom) return;
    uint8_t *to = b->out->weights + p->weight;
    uint32_t panel = hr_cuda_padded(p->n) * HR_CUDA_PAD;
    b->out->n_weights += width;
    for (uint32_t c = 0; c < width; c++) {
        uint32_t column = columns ? columns[c] : from + c;
        if (b->out->is_bf16) {
            ((uint16_t *)to)[hr_cuda_panel_at(panel, row, column)] = bf16_of(weight[c]);
        } else {
            ((float *)to)[(size_t)row * p->k + column] = weight[c];
        }
    }
}

void hr__cuda_put_bias(hr_cuda_builder *b, const hr_cuda_plan_product *p, uint32_t row, const float *bias,
                       uint32_t n) {
    if (!b->oom) memcpy(b->out->weights + p->bias + row * sizeof(float), bias, n * sizeof(float));
}

size_t hr__cuda_add_floats(hr_cuda_builder *b, const float *values, uint32_t count, uint32_t width,
                           uint32_t padded) {
    pads(b, (uint64_t)count * padded);
    b->out->n_weights += (uint64_t)count * width;
    size_t at = take_weights(b, (size_t)count * padded * sizeof(float));
    for (uint32_t i = 0; !b->oom && i < count; i++) {
        memcpy(b->out->weights + at + (size_t)i * padded * sizeof(float), values + (size_t)i * width,
               width * sizeof(float));
    }
    return at;
}

static float f32_of(uint16_t bf16) {
    uint32_t bits = (uint32_t)bf16 << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void hr__cuda_add_parts(hr_cuda_builder *b, const float *values, uint32_t n, uint32_t width, uint32_t k,
                        size_t *parts) {
    uint32_t rows = hr_cuda_padded(n);
    uint32_t n_parts = hr_cuda_plan_parts(b->out);
    pads(b, n_parts * (uint64_t)rows * k);
    b->out->n_weights += n_parts * (uint64_t)n * width;
    for (uint32_t p = 0; p < n_parts; p++) parts[p] = take_weights(b, (size_t)rows * k * sizeof(uint16_t));
    for (uint32_t i = 0; !b->oom && i < n; i++) {
        for (uint32_t c = 0; c < width; c++) {
            float left = values[(size_t)i * width + c];
            size_t at = hr_cuda_panel_at(rows * HR_CUDA_PAD, i, c) * sizeof(uint16_t);
            for (uint32_t p = 0; p < n_parts; p++) {
                uint16_t part = bf16_of(left);
                memcpy(b->out->weights + parts[p] + at, &part, sizeof part);
                left -= f32_of(part);
            }
        }
    }
}

/* ---- Order, tiles, places ---- */

static int by_level_and_kind(const void *a, const void *b) {
    const hr_cuda_step *x = a, *y = b;
    if (x->level != y->level) return x->level < y->level ? -1 : 1;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void add_tiles(hr_cuda_builder *b, uint32_t stage, hr_cuda_tile_size size) {
    hr_cuda_plan *out = b->out;
    hr_cuda_stage *s = &out->stages[stage];
    uint32_t columns = hr_cuda_tile_columns(size);
    s->first_tile[size] = out->n_tiles;
    for (uint32_t i = 0; i < s->count; i++) {
        const hr_cuda_plan_product p = out->products[out->steps[s->first + i].index];
        for (uint32_t at = 0; at < p.n; at += columns) {
            hr_cuda_plan_tile *tile = hr__cuda_append(b, &out->tiles, &out->n_tiles, sizeof *tile);
            if (tile) *tile = (hr_cuda_plan_tile){i, at, p.k / HR_CUDA_PAD, p.loras ? p.loras : 1, p.bias};
        }
    }
    s->n_tiles[size] = out->n_tiles - s->first_tile[size];
}

static void add_stages(hr_cuda_builder *b) {
    hr_cuda_plan *out = b->out;
    for (uint32_t i = 0, end; i < out->n_steps && !b->oom; i = end) {
        for (end = i + 1; end < out->n_steps && out->steps[end].kind == out->steps[i].kind &&
                          out->steps[end].level == out->steps[i].level;)
            end++;
        hr_cuda_stage *stage = hr__cuda_append(b, &out->stages, &out->n_stages, sizeof *stage);
        if (!stage) return;
        stage->kind = out->steps[i].kind;
        stage->first = i, stage->count = end - i;
        if (stage->kind != HR_CUDA_PRODUCTS && stage->kind != HR_CUDA_FEATURE_GATES) continue;
        for (hr_cuda_tile_size size = 0; size < HR_CUDA_TILE_SIZES; size++)
            add_tiles(b, out->n_stages - 1, size);
    }
}

size_t hr_cuda_buffer_nbytes(const hr_cuda_buffer *buffer, uint32_t rows) {
    return (size_t)rows * buffer->width *
           (buffer->is_bf16 ? 2 : 4); /* rows * width * 2: a multiple of 16384 */
}

static bool live_together(const hr_cuda_buffer *a, const hr_cuda_buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* The first gap between the placed buffers that live while this one does. order: the placed ones, by offset.
 */
static size_t place_buffer(hr_cuda_plan *out, uint32_t *order, uint32_t n_placed, uint32_t index,
                           uint32_t rows) {
    hr_cuda_buffer *buffer = &out->buffers[index];
    size_t nbytes = hr_cuda_buffer_nbytes(buffer, rows);
    buffer->offset = 0;
    for (uint32_t i = 0; i < n_placed; i++) {
        const hr_cuda_buffer *placed = &out->buffers[order[i]];
        if (!live_together(buffer, placed)) continue;
        if (buffer->offset + nbytes <= placed->offset) break;
        size_t end = placed->offset + hr_cuda_buffer_nbytes(placed, rows);
        if (end > buffer->offset) buffer->offset = end;
    }
    uint32_t at = n_placed;
    for (; at > 0 && out->buffers[order[at - 1]].offset > buffer->offset; at--) order[at] = order[at - 1];
    order[at] = index;
    return buffer->offset + nbytes;
}

static size_t place(hr_cuda_plan *out, uint32_t *order, uint32_t rows) {
    size_t nbytes = 0;
    for (uint32_t i = 0; i < out->n_buffers; i++) {
        size_t end = place_buffer(out, order, i, i, rows);
        if (end > nbytes) nbytes = end;
    }
    return nbytes;
}

/* Of a row that is a slice of its own. */
static size_t row_nbytes(const hr_schema *schema) {
    size_t words = 1;
    for (hr_entity entity = 0; entity < HR_ENTITY_COUNT; entity++) words += hr_row_words(schema, entity);
    return words * sizeof(uint32_t);
}

/* Sizes of 128, 256, ... rows, as far as the buffers keep within bounds. Placing is linear in the rows, so
 * one row's worth says how far that is. */
static void add_buckets(hr_cuda_builder *b) {
    hr_cuda_plan *out = b->out;
    uint32_t *order = calloc((size_t)out->n_buffers + 1, sizeof *order);
    if (!order) {
        b->oom = true;
        return;
    }
    uint32_t rows = HR_CUDA_MIN_BUCKET;
    for (out->n_buckets = 0; out->n_buckets < HR_CUDA_BUCKETS; rows *= 2) {
        bool fits =
            out->buffers_nbytes * 2 <= MOST_BUFFERS && rows * row_nbytes(b->plan->schema) <= MOST_STAGING;
        if (out->n_buckets > 0 && !fits) break;
        out->buffers_nbytes = out->n_buckets ? out->buffers_nbytes * 2 : place(out, order, rows);
        out->buckets[out->n_buckets++] = rows;
    }
    out->buffers_nbytes = place(out, order, out->buckets[out->n_buckets - 1]);
    free(order);
}

void hr__cuda_finish(hr_cuda_builder *b) {
    if (b->oom) return;
    qsort(b->out->steps, b->out->n_steps, sizeof *b->out->steps, by_level_and_kind);
    add_stages(b);
    if (!b->oom) add_buckets(b);
}

uint32_t hr_cuda_plan_bucket(const hr_cuda_plan *plan, uint64_t n_rows) {
    uint32_t bucket = 0;
    while (bucket + 1 < plan->n_buckets && plan->buckets[bucket] < n_rows) bucket++;
    return bucket;
}

uint32_t hr_cuda_plan_parts(const hr_cuda_plan *plan) {
    return plan->is_bf16 ? 2 : HR_CUDA_PARTS;
}

uint32_t hr_cuda_plan_panel(const hr_cuda_plan *plan) {
    return plan->buckets[plan->n_buckets - 1] * HR_CUDA_PAD;
}

/* The widest tiles where most products are as wide, and there are two waves of them. */
static bool takes_widest(const hr_cuda_stage *stage, uint32_t rows, hr_cuda_device_kind device) {
    uint64_t wide = stage->n_tiles[HR_CUDA_TILE_256], large = stage->n_tiles[HR_CUDA_TILE_128];
    return device.hopper && stage->kind == HR_CUDA_PRODUCTS && 7 * wide <= 4 * large &&
           wide * (rows / 128) >= 2 * (uint64_t)device.n_sms;
}

hr_cuda_tile_size hr_cuda_stage_tile(const hr_cuda_stage *stage, uint32_t rows, hr_cuda_device_kind device) {
    uint64_t large = (uint64_t)stage->n_tiles[HR_CUDA_TILE_128] * (rows / 128);
    if (takes_widest(stage, rows, device)) return HR_CUDA_TILE_256;
    return 5 * large >= 3 * (uint64_t)device.n_sms ? HR_CUDA_TILE_128 : HR_CUDA_TILE_64;
}
