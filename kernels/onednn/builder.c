/* The pieces a program is built of: buffers, steps, and products with their weights; see builder.h. */
#include "kernels/onednn/builder.h"

#include <stdlib.h>
#include <string.h>

/* Packed weights may take this much and, past it, so many times what the plan's take. Layers of one value,
 * padded in both directions, would take 256 times that. */
#define FREE_WEIGHTS ((uint64_t)1 << 26)
enum { MOST_PADDING = 8 };

/* Arrays grow by doubling at powers of two. */
void *hr__append(hr_builder *b, void *array, uint32_t *n, size_t size) {
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

uint32_t hr__add_buffer(hr_builder *b, uint32_t width, uint32_t parts, hr_operand kind) {
    hr_buffer *buffer = hr__append(b, &b->program->buffers, &b->program->n_buffers, sizeof *buffer);
    if (!buffer) return 0;
    *buffer = (hr_buffer){.width = hr_padded(width), .parts = parts, .kind = kind};
    buffer->first = HR_NONE;
    return b->program->n_buffers - 1;
}

uint32_t hr__gathered_buffer(hr_builder *b, uint32_t *buffer, uint32_t width) {
    if (*buffer != HR_NONE) return *buffer;
    *buffer = hr__add_buffer(b, width, 1, HR_OPERAND_F32);
    if (!b->oom) b->program->buffers[*buffer].first = 0;
    return *buffer;
}

void hr__touch(hr_builder *b, uint32_t buffer) {
    if (b->oom || buffer == HR_NONE) return;
    uint32_t step = b->program->n_steps - 1;
    hr_buffer *used = &b->program->buffers[buffer];
    if (used->first == HR_NONE) used->first = step;
    used->last = step;
}

hr_step *hr__add_step(hr_builder *b, hr_step_kind kind, uint32_t x, uint32_t y) {
    hr_step *step = hr__append(b, &b->program->steps, &b->program->n_steps, sizeof *step);
    if (!step) return &b->spare;
    step->kind = kind, step->x = x, step->y = y;
    hr__touch(b, x);
    hr__touch(b, y);
    return step;
}

const float *hr__add_vector(hr_builder *b, const float *values, uint32_t count) {
    float **slot = hr__append(b, &b->program->vectors, &b->program->n_vectors, sizeof *slot);
    if (!slot) return NULL;
    *slot = aligned_alloc(64, hr_padded(count) * sizeof(float));
    if (!*slot) {
        b->oom = true;
        return NULL;
    }
    memset(*slot, 0, hr_padded(count) * sizeof(float));
    memcpy(*slot, values, count * sizeof(float));
    return *slot;
}

/* ---- Readings ---- */

void hr__add_piece(hr_builder *b, hr_pieces *pieces, uint32_t from, uint32_t width, uint32_t to) {
    hr_piece *last = pieces->count ? &pieces->items[pieces->count - 1] : NULL;
    if (last && last->from + last->width == from && last->to + last->width == to) {
        last->width += width;
        return;
    }
    hr_piece *piece = hr__append(b, &pieces->items, &pieces->count, sizeof *piece);
    if (piece) *piece = (hr_piece){from, width, to};
}

void hr__reading_clear(hr_reading *reading) {
    free(reading->all.items);
    free(reading->item.items);
    free(reading->shared.items);
}

/* ---- Products ---- */

static uint32_t add_spec(hr_builder *b, hr_gemm_spec spec) {
    hr_program *p = b->program;
    for (uint32_t i = 0; i < p->n_specs; i++) {
        const hr_gemm_spec *s = &p->specs[i];
        bool same = s->k == spec.k && s->n == spec.n && s->activation == spec.activation && s->x == spec.x &&
                    s->y == spec.y;
        if (same) return i;
    }
    hr_gemm_spec *added = hr__append(b, &p->specs, &p->n_specs, sizeof *added);
    if (added) *added = spec;
    return p->n_specs - 1;
}

/* Zeros. Returns its index; void when out of memory. */
static uint32_t add_matrix(hr_builder *b, hr_gemm_spec spec) {
    b->n_padded += (uint64_t)spec.n * spec.k;
    if (b->n_padded > FREE_WEIGHTS + MOST_PADDING * b->n_weights) b->narrow = b->oom = true;
    uint32_t gemm = add_spec(b, spec);
    hr_matrix *m = hr__append(b, &b->program->matrices, &b->program->n_matrices, sizeof *m);
    if (!m) return 0;
    m->gemm = gemm;
    m->weight = calloc((size_t)spec.n * spec.k, sizeof(float));
    m->bias = calloc(spec.n, sizeof(float));
    if (!m->weight || !m->bias) b->oom = true;
    return b->program->n_matrices - 1;
}

static float *matrix_row(const hr_builder *b, uint32_t matrix, uint32_t row) {
    const hr_matrix *m = &b->program->matrices[matrix];
    return m->weight + (size_t)row * b->program->specs[m->gemm].k;
}

static void copy_pieces(const hr_pieces *pieces, const float *weight, float *row) {
    for (uint32_t i = 0; i < pieces->count; i++) {
        const hr_piece *piece = &pieces->items[i];
        memcpy(row + piece->to, weight + piece->from, piece->width * sizeof(float));
    }
}

static hr_operand kind_of(const hr_builder *b, uint32_t buffer) {
    return b->oom ? HR_OPERAND_F32 : b->program->buffers[buffer].kind;
}

hr_product hr__product_begin(hr_builder *b, const hr_reading *reads, uint32_t n,
                             hr_gemm_activation activation, hr_operand kind) {
    hr_product product = {.reads = reads, .n = hr_padded(n), .activation = activation, .kind = kind};
    if (reads->split) {
        hr_operand x = b->program->operand;
        hr_gemm_spec item = {reads->item.width, product.n, HR_GEMM_LINEAR, x, HR_OPERAND_F32};
        hr_gemm_spec shared = {reads->shared.width, product.n, HR_GEMM_LINEAR, x, HR_OPERAND_F32};
        product.shared = add_matrix(b, shared); /* in the order in which they are read */
        product.matrix = add_matrix(b, item);
    } else {
        hr_operand x = kind_of(b, reads->operand);
        product.matrix = add_matrix(b, (hr_gemm_spec){reads->all.width, product.n, activation, x, kind});
    }
    return product;
}

void hr__product_rows(hr_builder *b, const hr_product *product, uint32_t to, uint32_t k, const float *weight,
                      const float *bias, uint32_t count) {
    const hr_reading *reads = product->reads;
    if (b->oom) return;
    b->n_weights += (uint64_t)count * k;
    for (uint32_t i = 0; i < count; i++, weight += k) {
        copy_pieces(reads->split ? &reads->item : &reads->all, weight,
                    matrix_row(b, product->matrix, to + i));
        if (reads->split) copy_pieces(&reads->shared, weight, matrix_row(b, product->shared, to + i));
        if (bias) b->program->matrices[product->matrix].bias[to + i] = bias[i];
    }
}

static void add_gemm(hr_builder *b, uint32_t x, uint32_t y, uint32_t matrix, bool shared) {
    hr_step *step = hr__add_step(b, HR_STEP_GEMM, x, y);
    step->gemm.matrix = matrix;
    step->shared = shared;
}

static void add_finish(hr_builder *b, const hr_product *product, uint32_t x, uint32_t y, uint32_t shared) {
    if (b->oom) return;
    hr_step *step = hr__add_step(b, HR_STEP_FINISH, x, y);
    step->finish.gemm = b->program->matrices[product->matrix].gemm;
    step->finish.shared = shared;
    step->finish.activation = product->activation;
    hr__touch(b, shared);
}

uint32_t hr__product_end(hr_builder *b, const hr_product *product) {
    if (!product->reads->split) {
        uint32_t y = hr__add_buffer(b, product->n, 1, product->kind);
        add_gemm(b, product->reads->operand, y, product->matrix, false);
        if (product->activation != HR_GEMM_LINEAR) add_finish(b, product, y, y, HR_NONE);
        return y;
    }
    uint32_t share = hr__add_buffer(b, product->n, 1, HR_OPERAND_F32);
    uint32_t sum = hr__add_buffer(b, product->n, 1, HR_OPERAND_F32);
    uint32_t y = product->kind == HR_OPERAND_F32 ? sum : hr__add_buffer(b, product->n, 1, product->kind);
    add_gemm(b, b->shared_operand, share, product->shared, true);
    add_gemm(b, b->items_operand, sum, product->matrix, false);
    add_finish(b, product, sum, y, share);
    return y;
}

uint32_t hr__add_plain_product(hr_builder *b, uint32_t x, uint32_t y, uint32_t part, uint32_t k, uint32_t n) {
    hr_gemm_spec spec = {hr_padded(k), n, HR_GEMM_LINEAR, kind_of(b, x), HR_OPERAND_F32};
    uint32_t matrix = add_matrix(b, spec);
    hr_step *step = hr__add_step(b, HR_STEP_GEMM, x, y);
    step->gemm.matrix = matrix;
    step->gemm.part = part;
    return matrix;
}

void hr__plain_row(hr_builder *b, uint32_t matrix, uint32_t to, uint32_t k, const float *weight) {
    if (b->oom) return;
    b->n_weights += k;
    memcpy(matrix_row(b, matrix, to), weight, k * sizeof(float));
}
