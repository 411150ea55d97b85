/* What each kernel must do with its descriptors, in plain C: see cuda_fake.h. Sums are in double. */
#include <math.h>
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

static float load(const void *from, size_t at, bool is_bf16) {
    return is_bf16 ? from_bf16(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

static void store(void *to, size_t at, bool is_bf16, double value) {
    if (is_bf16) {
        ((uint16_t *)to)[at] = to_bf16((float)value);
    } else {
        ((float *)to)[at] = (float)value;
    }
}

static double activate(uint32_t activation, double z) {
    if (activation == HR_CUDA_RELU) return z > 0 ? z : 0;
    return activation == HR_CUDA_SWISH ? z / (1 + exp(-z)) : z;
}

static const hr_cuda_header *header_of(const uint32_t *staging) {
    return (const hr_cuda_header *)staging;
}

static uint32_t padded(uint32_t width) {
    return (width + HR_CUDA_PAD - 1) / HR_CUDA_PAD * HR_CUDA_PAD;
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

static void gather_row(const hr_cuda_gather *g, const hr_cuda_gather_part *part, const uint32_t *const *rows,
                       uint32_t at) {
    for (uint32_t c = 0; c < part->width; c++) {
        double value = 0;
        if (part->feature_of[c] != UINT32_MAX) {
            const hr_cuda_feature *f = &g->features[part->feature_of[c]];
            value = column_value(f, rows[f->entity], c - f->column);
        }
        if (part->y) part->y[(size_t)at * part->width + c] = (float)value;
        if (part->y_bf16) part->y_bf16[(size_t)at * part->width + c] = to_bf16((float)value);
    }
}

static void gather(const hr_cuda_gather *g) {
    const hr_cuda_header *h = header_of(g->staging);
    const uint32_t *rows[HR_ENTITY_COUNT] = {0};
    for (uint32_t s = 0; s < h->n_slices; s++) {
        rows[HR_ENTITY_USER] = g->staging + h->users + (size_t)s * g->user_words;
        rows[HR_ENTITY_CONTEXT] = g->staging + h->contexts + (size_t)s * g->context_words;
        gather_row(g, &g->shared, rows, s);
    }
    for (uint32_t r = 0; r < h->n_rows; r++) {
        rows[HR_ENTITY_ITEM] = g->staging + h->items + (size_t)r * g->item_words;
        gather_row(g, &g->items, rows, r);
    }
}

/* ---- Products ---- */

static double part_value(const hr_cuda_part *part, uint32_t begin, uint32_t row, uint32_t slice,
                         uint32_t column, bool is_bf16) {
    return load(part->x, (size_t)(part->shared ? slice : row) * part->ld + column - begin, is_bf16);
}

/* Columns [from, to) of row times W's row n. */
static double dot(const hr_cuda_product *p, uint32_t row, uint32_t slice, uint32_t n, uint32_t from,
                  uint32_t to, bool is_bf16) {
    const hr_cuda_part *part = p->x;
    double sum = 0;
    uint32_t begin = 0;
    for (uint32_t c = from; c < to; c++) {
        while (part->end <= c) begin = part++->end;
        sum +=
            part_value(part, begin, row, slice, c, is_bf16) * load(p->weight, (size_t)n * p->k + c, is_bf16);
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
    return gate * part_value(part, begin, row, slice, n, false);
}

static void product_tile(const hr_cuda_launch *launch, const hr_cuda_tile *tile) {
    const hr_cuda_product *p = (const hr_cuda_product *)launch->items + tile->product;
    const uint32_t *slice_of = launch->staging + HR_CUDA_HEADER_WORDS;
    bool is_bf16 = !launch->f32;
    for (uint32_t r = 0; r < header_of(launch->staging)->n_rows; r++) {
        for (uint32_t n = tile->column; n < tile->column + launch->tile && n < p->n_padded; n++) {
            double y = 0;
            if (n < p->n && p->loras > 0) y = gate_value(p, r, slice_of[r], n, is_bf16);
            if (n < p->n && p->loras == 0) {
                y = dot(p, r, slice_of[r], n, 0, p->k, is_bf16) + (p->bias ? p->bias[n] : 0);
                y = activate(p->activation, y);
            }
            store(p->y, (size_t)r * p->ld_y + n, p->y_is_bf16, y);
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
    for (uint32_t c = 0; c < padded(norm->width); c++) {
        double y = 0;
        if (c < norm->width) y = (x[c] - mean) / sqrt(variance + norm->eps) * norm->weight[c] + norm->bias[c];
        store(norm->y, (size_t)r * norm->ld + c, norm->y_is_bf16, activate(norm->activation, y));
    }
}

static double softmax(const float *z, uint32_t n, uint32_t j) {
    double top = z[0], total = 0;
    for (uint32_t i = 1; i < n; i++) top = fmax(top, z[i]);
    for (uint32_t i = 0; i < n; i++) total += exp(z[i] - top);
    return exp(z[j] - top) / total;
}

static double mix_weight(const hr_cuda_mix *mix, const float *z, uint32_t j) {
    if (j < mix->n_mixed) return mix->n_mixed == 1 ? 1 : softmax(z + mix->gate_at, mix->n_mixed, j);
    if (mix->n_self == 1) return 1 / (1 + exp(-(double)z[mix->self_at]));
    return softmax(z + mix->self_at, mix->n_self, j - mix->n_mixed);
}

static void mix(const hr_cuda_mix *mix, uint32_t r) {
    const float *z = mix->logits ? mix->logits + (size_t)r * mix->ld_logits : NULL;
    for (uint32_t c = 0; c < mix->ld; c++) {
        double sum = 0;
        for (uint32_t j = 0; c < mix->width && j < mix->n_mixed + mix->n_self; j++) {
            sum += mix_weight(mix, z, j) * mix->terms[j].expert[(size_t)r * mix->terms[j].ld + c];
        }
        if (mix->y) mix->y[(size_t)r * mix->ld + c] = (float)sum;
        if (mix->y_bf16) mix->y_bf16[(size_t)r * mix->ld + c] = to_bf16((float)sum);
    }
}

static void tower(const hr_cuda_tower *t, uint32_t r) {
    const float *x = t->x + (size_t)r * t->ld;
    for (uint32_t i = 0; i < t->n_layers; i++) {
        const hr_cuda_tower_layer *layer = &t->layers[i];
        bool last = i + 1 == t->n_layers;
        float *y = last ? t->logits + (size_t)r * t->n_tasks : t->hidden[i % 2] + (size_t)r * t->ld_hidden;
        for (uint32_t n = 0; n < (last ? 1 : padded(layer->n)); n++) {
            double sum = n < layer->n ? layer->bias[n] : 0;
            for (uint32_t c = 0; n < layer->n && c < layer->k; c++)
                sum += (double)x[c] * layer->weight[(size_t)n * layer->k + c];
            y[n] = (float)(n < layer->n && !last ? activate(t->activation, sum) : sum);
        }
        x = y;
    }
}

void hr_cuda_emulate(const hr_cuda_launch *launch) {
    uint32_t n_rows = header_of(launch->staging)->n_rows;
    if (launch->kind == HR_CUDA_GATHER) gather(launch->items);
    for (uint32_t i = 0; i < launch->count; i++) {
        if (launch->kind == HR_CUDA_PRODUCTS || launch->kind == HR_CUDA_FEATURE_GATES)
            product_tile(launch, &launch->tiles[i]);
        for (uint32_t r = 0; r < n_rows; r++) {
            if (launch->kind == HR_CUDA_NORMS) norm((const hr_cuda_norm *)launch->items + i, r);
            if (launch->kind == HR_CUDA_MIXES) mix((const hr_cuda_mix *)launch->items + i, r);
            if (launch->kind == HR_CUDA_TOWERS) tower((const hr_cuda_tower *)launch->items + i, r);
        }
    }
}
