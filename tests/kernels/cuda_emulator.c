/* What each kernel must do with its descriptors, in plain C: see cuda_fake.h. Sums are in double. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schema/schema.h"
#include "tests/kernels/cuda_fake.h"

static float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value)) return 0x7FC0;
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

static float load(const void *from, uint32_t ld, uint32_t row, uint32_t column, bool is_bf16) {
    return is_bf16 ? from_bf16(((const uint16_t *)from)[hr_cuda_panel_at(ld, row, column)])
                   : ((const float *)from)[(size_t)row * ld + column];
}

static void store(void *to, uint32_t ld, uint32_t row, uint32_t column, bool is_bf16, double value) {
    if (is_bf16) {
        ((uint16_t *)to)[hr_cuda_panel_at(ld, row, column)] = to_bf16((float)value);
    } else {
        ((float *)to)[(size_t)row * ld + column] = (float)value;
    }
}

static double activate(uint32_t activation, double z) {
    if (activation == HR_CUDA_RELU) return z > 0 ? z : 0;
    return activation == HR_CUDA_SWISH ? z / (1 + exp(-z)) : z;
}

static const hr_cuda_header *header_of(const uint32_t *staging) {
    return (const hr_cuda_header *)staging;
}

/* ---- Gather ---- */

static double column_value(const hr_cuda_feature *f, const uint32_t *row, uint32_t d) {
    if (f->table == NULL) {
        float value;
        memcpy(&value, &row[f->word + d], sizeof value);
        return value;
    }
    uint32_t count = f->is_list ? row[f->word] : 1;
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += f->table[(size_t)row[f->word + f->is_list + i] * f->width + d];
    return f->is_mean && count > 0 ? sum / count : sum;
}

/* Row `at` of the f32 part is the operands' rows [first, end). */
static void gather_row(const hr_cuda_gather *g, const hr_cuda_gather_part *part, const uint32_t *const *rows,
                       uint32_t at, uint32_t first, uint32_t end) {
    for (uint32_t c = 0; c < part->width; c++) {
        double value = 0;
        if (part->feature_of[c] != UINT32_MAX) {
            const hr_cuda_feature *f = &g->features[part->feature_of[c]];
            value = column_value(f, rows[f->entity], c - f->column);
        }
        if (part->y) part->y[(size_t)at * part->width + c] = (float)value;
        for (uint32_t r = first; part->high && r < end; r++) {
            store(part->high, part->ld_bf16, r, c, true, value);
            if (part->low)
                store(part->low, part->ld_bf16, r, c, true, value - from_bf16(to_bf16((float)value)));
        }
    }
}

static void gather(const hr_cuda_gather *g) {
    const hr_cuda_header *h = header_of(g->staging);
    const uint32_t *rows[HR_ENTITY_COUNT] = {0};
    for (uint32_t s = 0; s < h->n_slices; s++) {
        rows[HR_ENTITY_USER] = g->staging + h->users + (size_t)s * g->user_words;
        rows[HR_ENTITY_CONTEXT] = g->staging + h->contexts + (size_t)s * g->context_words;
        const uint32_t *starts = g->staging + h->starts;
        gather_row(g, &g->shared, rows, s, starts[s], starts[s + 1]);
    }
    for (uint32_t r = 0; r < h->n_rows; r++) {
        rows[HR_ENTITY_ITEM] = g->staging + h->items + (size_t)r * g->item_words;
        gather_row(g, &g->items, rows, r, r, r + 1);
    }
}

/* ---- Products ---- */

static double part_value(const hr_cuda_part *part, uint32_t begin, uint32_t row, uint32_t slice,
                         uint32_t column, bool is_bf16) {
    return load(part->x, part->ld, part->shared ? slice : row, column - begin, is_bf16);
}

/* Columns [from, to) of row times W's row n. */
static double dot(const hr_cuda_product *p, uint32_t row, uint32_t slice, uint32_t n, uint32_t from,
                  uint32_t to, bool is_bf16) {
    const hr_cuda_part *part = p->x;
    double sum = 0;
    uint32_t begin = 0;
    for (uint32_t c = from; c < to; c++) {
        while (part->end <= c) begin = part++->end;
        uint32_t ld = is_bf16 ? p->n_padded * HR_CUDA_PAD : p->k;
        sum += part_value(part, begin, row, slice, c, is_bf16) * load(p->weight, ld, n, c, is_bf16);
    }
    return sum;
}

static double gate_value(const hr_cuda_product *p, uint32_t row, uint32_t slice, uint32_t n, bool is_bf16) {
    const float *z = p->logits + (size_t)row * p->ld_logits;
    double top = z[0], total = 0, gate = 0;
    uint32_t rank = p->k / p->loras, begin = 0;
    for (uint32_t l = 1; l < p->loras; l++) top = fmax(top, z[l]);
    for (uint32_t l = 0; l < p->loras; l++) total += exp(z[l] - top);
    for (uint32_t l = 0; l < p->loras; l++) {
        double up = dot(p, row, slice, n, l * rank, (l + 1) * rank, is_bf16);
        gate += exp(z[l] - top) / total * 2 / (1 + exp(-up));
    }
    const hr_cuda_part *part = p->gated;
    while (part->end <= n) begin = part++->end;
    double x = part_value(part, begin, row, slice, n, is_bf16);
    if (is_bf16) x += part_value(p->gated_low + (part - p->gated), begin, row, slice, n, true);
    return gate * x;
}

static void product_tile(const hr_cuda_launch *launch, const hr_cuda_tile *tile) {
    const hr_cuda_product *p = (const hr_cuda_product *)launch->items + tile->product;
    const uint32_t *slice_of = launch->staging + HR_CUDA_HEADER_WORDS;
    bool is_bf16 = !launch->f32;
    for (uint32_t r = 0; r < header_of(launch->staging)->n_rows; r++) {
        for (uint32_t n = tile->column; n < tile->column + launch->tile_n && n < p->n_padded; n++) {
            double y = 0;
            if (n < p->n && p->loras > 0) y = gate_value(p, r, slice_of[r], n, is_bf16);
            if (n < p->n && p->loras == 0) {
                y = dot(p, r, slice_of[r], n, 0, p->k, is_bf16) + (p->bias ? p->bias[n] : 0);
                y = activate(p->activation, y);
            }
            store(p->y, p->ld_y, r, n, p->y_is_bf16, y);
        }
    }
}

/* ---- Rows ---- */

static void norm(const hr_cuda_norm *norm, uint32_t r) {
    const float *x = norm->x + (size_t)r * norm->ld;
    double mean = 0, variance = 0;
    for (uint32_t c = 0; c < norm->width; c++) mean += x[c];
    mean /= norm->width;
    for (uint32_t c = 0; c < norm->width; c++) variance += (x[c] - mean) * (x[c] - mean);
    variance /= norm->width;
    for (uint32_t c = 0; c < hr_cuda_padded(norm->width); c++) {
        double y = 0;
        if (c < norm->width) y = (x[c] - mean) / sqrt(variance + norm->eps) * norm->weight[c] + norm->bias[c];
        store(norm->y, norm->ld_y, r, c, norm->y_is_bf16, activate(norm->activation, y));
    }
}

static double softmax(const float *z, uint32_t n, uint32_t j) {
    double top = z[0], total = 0;
    for (uint32_t i = 1; i < n; i++) top = fmax(top, z[i]);
    for (uint32_t i = 0; i < n; i++) total += exp(z[i] - top);
    return exp(z[j] - top) / total;
}

static double mix_weight(const hr_cuda_mix *mix, const float *z, uint32_t j) {
    if (z == NULL) return 1; /* one term: nothing is gated */
    double weight = 0;
    if (j < mix->n_mixed) weight = mix->n_mixed == 1 ? 1 : softmax(z + mix->gate_at, mix->n_mixed, j);
    if (j < mix->self_first || j - mix->self_first >= mix->n_self) return weight;
    if (mix->n_self == 1) return weight + 1 / (1 + exp(-(double)z[mix->self_at]));
    return weight + softmax(z + mix->self_at, mix->n_self, j - mix->self_first);
}

static double mixed(const hr_cuda_mix *mix, uint32_t r, uint32_t c, bool is_bf16) {
    const float *z = mix->logits ? mix->logits + (size_t)r * mix->ld_logits : NULL;
    double sum = 0;
    for (uint32_t j = 0; j < mix->n_terms; j++) {
        const hr_cuda_term *term = &mix->terms[j];
        sum += mix_weight(mix, z, j) * load(term->expert, term->ld, r, c, is_bf16);
    }
    return sum;
}

static void mix(const hr_cuda_mix *mix, uint32_t r, bool is_bf16) {
    for (uint32_t c = 0; c < mix->padded; c++) {
        double sum = mixed(mix, r, c, is_bf16);
        if (mix->y) store(mix->y, mix->padded, r, c, false, sum);
        if (mix->high) store(mix->high, mix->ld_bf16, r, c, true, sum);
        if (mix->low) store(mix->low, mix->ld_bf16, r, c, true, sum - from_bf16(to_bf16((float)sum)));
    }
}

/* Weight (n, c) of a tower's layer. */
static double tower_weight(const hr_cuda_tower_layer *layer, uint32_t n, uint32_t c) {
    uint32_t ld = hr_cuda_padded(layer->n) * HR_CUDA_PAD;
    if (layer->weight) return layer->weight[c];
    double sum = 0;
    for (uint32_t p = 0; p < HR_CUDA_PARTS && layer->parts[p]; p++)
        sum += load(layer->parts[p], ld, n, c, true);
    return sum;
}

static void tower_layer(const hr_cuda_tower *t, uint32_t i, const double *x, double *y) {
    const hr_cuda_tower_layer *layer = &t->layers[i];
    bool last = i + 1 == t->n_layers;
    for (uint32_t n = 0; n < layer->n; n++) {
        y[n] = layer->bias[n];
        for (uint32_t c = 0; c < layer->k; c++) y[n] += x[c] * tower_weight(layer, n, c);
        if (!last) y[n] = activate(t->activation, y[n]);
    }
}

/* What lies between hidden layers is written as the device writes it. */
static void tower(const hr_cuda_tower *t, uint32_t r, bool is_bf16) {
    uint32_t width = t->layers[0].k;
    for (uint32_t i = 1; i < t->n_layers; i++) width = t->layers[i].k > width ? t->layers[i].k : width;
    double *x = calloc(width, sizeof *x), *y = calloc(width, sizeof *y);
    if (x == NULL || y == NULL) abort();
    for (uint32_t c = 0; c < t->layers[0].k; c++)
        x[c] = t->mix.n_terms > 0 ? mixed(&t->mix, r, c, is_bf16) : t->x[(size_t)r * t->ld + c];
    for (uint32_t i = 0; i < t->n_layers; i++) {
        memset(y, 0, width * sizeof *y);
        tower_layer(t, i, x, y);
        for (uint32_t n = 0; i + 1 < t->n_layers && n < hr_cuda_padded(t->layers[i].n); n++) {
            if (i + 2 < t->n_layers) t->hidden[i % 2][(size_t)r * t->ld_hidden + n] = (float)y[n];
            x[n] = (float)y[n];
        }
    }
    t->logits[(size_t)r * t->n_tasks] = (float)y[0];
    free(x);
    free(y);
}

void hr_cuda_emulate(const hr_cuda_launch *launch) {
    uint32_t n_rows = header_of(launch->staging)->n_rows;
    if (launch->kind == HR_CUDA_GATHER) gather(launch->items);
    for (uint32_t i = 0; i < launch->count; i++) {
        if (launch->kind == HR_CUDA_PRODUCTS || launch->kind == HR_CUDA_FEATURE_GATES)
            product_tile(launch, &launch->tiles[i]);
        for (uint32_t r = 0; r < n_rows; r++) {
            if (launch->kind == HR_CUDA_NORMS) norm((const hr_cuda_norm *)launch->items + i, r);
            if (launch->kind == HR_CUDA_MIXES) mix((const hr_cuda_mix *)launch->items + i, r, !launch->f32);
            if (launch->kind == HR_CUDA_TOWERS)
                tower((const hr_cuda_tower *)launch->items + i, r, !launch->f32);
        }
    }
}
