/* From plan to launches; see cuda_plan.h. Section numbers are MODEL.md's. */
#include "kernels/cuda/cuda_plan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/builder.h"

/* A concatenation of sources, as units list them. */
typedef struct input {
    const hr_input *sources; /* borrowed: one of the plan's that lists them */
    uint32_t *columns;       /* (width) where each column stands among the parts; owned */
    uint32_t k;              /* of the parts */
    uint32_t first_part;
    uint32_t
        first_low;  /* parts of what bf16 operands lack, or HR_CUDA_NONE until a feature gate needs them */
    uint32_t level; /* after which all of it is there */
} input;

/* Where a unit's gate logits and experts are, while its layer is built. */
typedef struct unit_place {
    uint32_t x_input, g_input;                  /* inputs, or HR_CUDA_NONE */
    uint32_t feature_gates, gates;              /* buffers, or HR_CUDA_NONE */
    uint32_t feature_gate_at, gate_at, self_at; /* offsets in a row of them */
    uint32_t experts, stride; /* buffer of all experts' outputs; columns from one to the next */
} unit_place;

/* What a unit's expert layer reads: expert i's from column i * stride of the buffer on; or an input. */
typedef struct reading {
    const input *in; /* or NULL: */
    uint32_t buffer, stride;
    const uint32_t *columns; /* where the weights' columns stand; NULL: in order */
    uint32_t k;
} reading;

typedef struct network {
    hr_cuda_builder b;
    const hr_plan *plan;
    input *inputs;
    uint32_t n_inputs;
    uint32_t **values; /* (layers) of (units): the value that is the unit's output */
    unit_place *units; /* of the layer being built */
    bool towers_mix;
} network;

static uint32_t device_activation(hr_activation activation) {
    return activation == HR_ACTIVATION_RELU ? HR_CUDA_RELU : HR_CUDA_SWISH;
}

/* ---- v and the inputs (2.1, 2.2) ---- */

static uint32_t add_value(network *n, uint32_t width, uint32_t level) {
    hr_cuda_plan *out = n->b.out;
    hr_cuda_value *value = hr__cuda_append(&n->b, &out->values, &out->n_values, sizeof *value);
    if (!value) return 0;
    *value = (hr_cuda_value){width, level, HR_CUDA_NONE, HR_CUDA_NONE, HR_CUDA_NONE};
    return out->n_values - 1;
}

static void add_features(network *n) {
    const hr_schema *schema = n->plan->schema;
    hr_cuda_plan *out = n->b.out;
    out->columns = calloc((size_t)schema->n_features + 1, sizeof *out->columns);
    if (!out->columns) {
        n->b.oom = true;
        return;
    }
    for (uint32_t i = 0; i < schema->n_features; i++) {
        bool item = schema->features[i].entity == HR_ENTITY_ITEM;
        uint32_t *width = item ? &out->item_width : &out->shared_width;
        out->columns[i] = *width;
        *width += schema->features[i].width;
    }
    add_value(n, out->shared_width, 0);
    add_value(n, out->item_width, 0);
    hr__cuda_add_step(&n->b, HR_CUDA_GATHER, 0, 0);
}

static bool same_sources(const hr_input *a, const hr_input *b) {
    bool same = a->n_sources == b->n_sources;
    for (uint32_t s = 0; same && s < a->n_sources; s++) {
        same = a->sources[s].layer == b->sources[s].layer && a->sources[s].unit == b->sources[s].unit;
    }
    return same;
}

/* v's columns from the input's `from` on: its parts stand at `start`. */
static void map_features(const network *n, input *in, uint32_t from, uint32_t start) {
    const hr_schema *schema = n->plan->schema;
    const hr_cuda_plan *out = n->b.out;
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *f = &schema->features[i];
        bool item = f->entity == HR_ENTITY_ITEM;
        for (uint32_t c = 0; c < f->width; c++) {
            uint32_t column = out->columns[i] + c + (item ? hr_cuda_padded(out->shared_width) : 0);
            in->columns[from + f->vector_offset + c] = start + column;
        }
    }
}

/* The value beside those before, as operands or what those lack. */
static void add_value_part(network *n, uint32_t value, bool shared, bool low, uint32_t *end,
                           uint32_t *level) {
    if (n->b.oom) return;
    const hr_cuda_value v = n->b.out->values[value];
    if (v.width == 0) return;
    *end += hr_cuda_padded(v.width);
    if (v.level > *level) *level = v.level;
    uint32_t buffer = low ? hr__cuda_value_low(&n->b, value) : hr__cuda_value_operand(&n->b, value);
    hr__cuda_add_part(&n->b, buffer, 0, *end, shared);
}

static uint32_t add_parts(network *n, const hr_input *sources, bool low, uint32_t *end, uint32_t *level) {
    uint32_t first = n->b.out->n_parts;
    *end = 0;
    for (uint32_t s = 0; s < sources->n_sources; s++) {
        const hr_source *source = &sources->sources[s];
        if (source->layer != HR_SOURCE_FEATURES) {
            add_value_part(n, n->values[source->layer][source->unit], false, low, end, level);
            continue;
        }
        add_value_part(n, HR_CUDA_VALUE_SHARED, true, low, end, level);
        add_value_part(n, HR_CUDA_VALUE_ITEMS, false, low, end, level);
    }
    return first;
}

/* The index of the input that concatenates these sources, made on first use. */
static uint32_t input_of(network *n, const hr_input *sources) {
    for (uint32_t i = 0; i < n->n_inputs; i++) {
        if (same_sources(n->inputs[i].sources, sources)) return i;
    }
    input *in = hr__cuda_append(&n->b, &n->inputs, &n->n_inputs, sizeof *in);
    if (!in) return 0;
    in->sources = sources;
    in->first_low = HR_CUDA_NONE;
    in->columns = calloc((size_t)sources->width + 1, sizeof *in->columns);
    if (!in->columns) {
        n->b.oom = true;
        return 0;
    }
    uint32_t from = 0, start = 0;
    const hr_cuda_plan *out = n->b.out;
    for (uint32_t s = 0; s < sources->n_sources; s++) {
        const hr_source *source = &sources->sources[s];
        if (source->layer == HR_SOURCE_FEATURES) {
            map_features(n, in, from, start);
            start += hr_cuda_padded(out->shared_width) + hr_cuda_padded(out->item_width);
        } else {
            for (uint32_t c = 0; c < source->width; c++) in->columns[from + c] = start + c;
            start += hr_cuda_padded(source->width);
        }
        from += source->width;
    }
    in->first_part = add_parts(n, sources, false, &in->k, &in->level);
    return n->n_inputs - 1;
}

/* The parts from first on, up to column `end`, are read at `level`. */
static void reads_parts(network *n, uint32_t first, uint32_t end, uint32_t level) {
    for (uint32_t i = first; !n->b.oom; i++) {
        hr__cuda_reads(&n->b, n->b.out->parts[i].buffer, level);
        if (n->b.out->parts[i].end == end) return;
    }
}

/* The step of product p, which writes columns of y from `column` on. */
static void end_product(network *n, hr_cuda_kind kind, hr_cuda_plan_product *p, uint32_t first_part,
                        uint32_t y, uint32_t column, uint32_t level) {
    if (n->b.oom) return;
    p->first_part = first_part;
    p->y = y, p->y_column = column;
    reads_parts(n, first_part, p->k, level);
    hr__cuda_writes(&n->b, y, level);
    hr__cuda_add_step(&n->b, kind, level, (uint32_t)(p - n->b.out->products));
}

/* ---- Gates (2.3, 2.5, 2.6) ---- */

static void put_rows(network *n, const hr_cuda_plan_product *p, uint32_t at, const input *in,
                     const float *weight, const float *bias, uint32_t count) {
    uint32_t width = in->sources->width;
    for (uint32_t i = 0; i < count; i++) {
        hr__cuda_put_row(&n->b, p, at + i, weight + (size_t)i * width, in->columns, 0, width);
    }
    hr__cuda_put_bias(&n->b, p, at, bias, count);
}

/* The gate logits of unit u that read the input: how many they are, and, where asked (p), their weights as
 * the product's rows from `at` on. */
static uint32_t gate_rows(network *n, const hr_unit *u, unit_place *place, uint32_t in,
                          const hr_cuda_plan_product *p, uint32_t at) {
    const hr_feature_gate *f = &u->feature_gate;
    const input *reads = &n->inputs[in];
    uint32_t start = at;
    if (f->loras && place->x_input == in) {
        place->feature_gate_at = at;
        if (p) put_rows(n, p, at, reads, f->mix_weight, f->mix_bias, f->loras);
        at += f->loras;
    }
    if (place->g_input != in) return at - start;
    if (u->gate_weight) {
        place->gate_at = at;
        if (p) put_rows(n, p, at, reads, u->gate_weight, u->gate_bias, u->n_mixed);
        at += u->n_mixed;
    }
    if (u->self_gate) {
        place->self_at = at;
        if (p) put_rows(n, p, at, reads, u->self_gate_weight, u->self_gate_bias, u->n_experts);
        at += u->n_experts;
    }
    return at - start;
}

/* All gate logits of the layer that read one input, as one product. */
static void add_gates(network *n, const hr_layer *layer, uint32_t in) {
    uint32_t width = 0, at = 0;
    const input *reads = &n->inputs[in];
    for (uint32_t u = 0; u < layer->n_units; u++) {
        width += gate_rows(n, &layer->units[u], &n->units[u], in, NULL, 0);
    }
    if (width == 0) return;
    uint32_t y = hr__cuda_add_buffer(&n->b, width, false);
    hr_cuda_plan_product *p = hr__cuda_add_product(&n->b, reads->k, width, true);
    if (!p) return;
    for (uint32_t u = 0; u < layer->n_units; u++) {
        at += gate_rows(n, &layer->units[u], &n->units[u], in, p, at);
        if (n->units[u].x_input == in) n->units[u].feature_gates = y;
        if (n->units[u].g_input == in) n->units[u].gates = y;
    }
    end_product(n, HR_CUDA_PRODUCTS, p, reads->first_part, y, 0, reads->level + 1);
}

/* ---- Experts (2.3, 2.4) ---- */

/* x Down_l^T of every branch, side by side. */
static uint32_t add_downs(network *n, const hr_unit *u, const input *in, uint32_t stride) {
    const hr_feature_gate *f = &u->feature_gate;
    uint32_t width = u->input.width, low = hr__cuda_add_buffer(&n->b, f->loras * stride, n->b.out->is_bf16);
    for (uint32_t l = 0; l < f->loras; l++) {
        hr_cuda_plan_product *p = hr__cuda_add_product(&n->b, in->k, f->rank, false);
        if (!p) return 0;
        for (uint32_t r = 0; r < f->rank; r++) {
            hr__cuda_put_row(&n->b, p, r, f->down + ((size_t)l * f->rank + r) * width, in->columns, 0, width);
        }
        end_product(n, HR_CUDA_PRODUCTS, p, in->first_part, low, l * stride, in->level + 1);
    }
    return low;
}

/* The gated input of a unit's experts, its columns as in->columns has them. */
static uint32_t add_feature_gate(network *n, const hr_unit *u, const unit_place *place) {
    const hr_feature_gate *f = &u->feature_gate;
    input *in = &n->inputs[place->x_input];
    uint32_t stride = hr_cuda_padded(f->rank), width = u->input.width, level = in->level;
    uint32_t low = add_downs(n, u, in, stride), end;
    if (n->b.out->is_bf16 && in->first_low == HR_CUDA_NONE)
        in->first_low = add_parts(n, in->sources, true, &end, &level);
    uint32_t first = n->b.out->n_parts;
    hr__cuda_add_part(&n->b, low, 0, f->loras * stride, false);
    uint32_t y = hr__cuda_add_buffer(&n->b, in->k, n->b.out->is_bf16);
    hr_cuda_plan_product *p = hr__cuda_add_product(&n->b, f->loras * stride, in->k, false);
    if (!p || n->b.oom) return 0;
    for (uint32_t l = 0; l < f->loras; l++) {
        for (uint32_t c = 0; c < width; c++) {
            const float *up = f->up + ((size_t)l * width + c) * f->rank;
            hr__cuda_put_row(&n->b, p, in->columns[c], up, NULL, l * stride, f->rank);
        }
    }
    p->loras = f->loras;
    p->logits = place->feature_gates, p->logits_at = place->feature_gate_at;
    p->first_gated = in->first_part, p->first_low = in->first_low;
    level = in->level + 2;
    reads_parts(n, p->first_gated, in->k, level);
    if (p->first_low != HR_CUDA_NONE) reads_parts(n, p->first_low, in->k, level);
    hr__cuda_reads(&n->b, place->feature_gates, level);
    end_product(n, HR_CUDA_FEATURE_GATES, p, first, y, 0, level);
    return y;
}

static void add_norm(network *n, const hr_expert_layer *layer, uint32_t k, uint32_t x, uint32_t y,
                     uint32_t stride) {
    hr_cuda_plan *out = n->b.out;
    uint32_t level = hr__cuda_ready(&n->b, x) + 1;
    size_t rows = (size_t)k * layer->out;
    hr_cuda_plan_norm norm = {x, y, k * stride, layer->out, 0, 0};
    norm.weight = hr__cuda_add_floats(&n->b, layer->norm_weight + rows, 1, layer->out, layer->out);
    norm.bias = hr__cuda_add_floats(&n->b, layer->norm_bias + rows, 1, layer->out, layer->out);
    hr_cuda_plan_norm *added = hr__cuda_append(&n->b, &out->norms, &out->n_norms, sizeof *added);
    if (!added) return;
    *added = norm;
    hr__cuda_reads(&n->b, x, level);
    hr__cuda_add_step(&n->b, HR_CUDA_NORMS, level, out->n_norms - 1);
}

static void add_expert_product(network *n, const hr_expert_layer *layer, uint32_t e, const reading *reads,
                               uint32_t activation, uint32_t y, uint32_t level) {
    uint32_t first = 0;
    if (reads->in) {
        first = reads->in->first_part;
    } else {
        first = n->b.out->n_parts;
        hr__cuda_add_part(&n->b, reads->buffer, e * reads->stride, reads->k, false);
    }
    hr_cuda_plan_product *p = hr__cuda_add_product(&n->b, reads->k, layer->out, true);
    if (!p) return;
    p->activation = activation;
    for (uint32_t o = 0; o < layer->out; o++) {
        size_t row = (size_t)e * layer->out + o;
        hr__cuda_put_row(&n->b, p, o, layer->weight + row * layer->in, reads->columns, 0, layer->in);
    }
    hr__cuda_put_bias(&n->b, p, 0, layer->bias + (size_t)e * layer->out, layer->out);
    end_product(n, HR_CUDA_PRODUCTS, p, first, y, e * hr_cuda_padded(layer->out), level);
}

/* Layer i of all the unit's experts: Linear -> Norm -> Activation. Returns the buffer of what they give. */
static uint32_t add_expert_layer(network *n, const hr_unit *u, uint32_t i, const reading *reads) {
    const hr_expert_layer *layer = &u->expert_layers[i];
    bool is_bf16 = n->b.out->is_bf16, norm = n->plan->norm == HR_NORM_LAYER;
    uint32_t stride = hr_cuda_padded(layer->out), width = u->n_experts * stride;
    uint32_t level = (reads->in ? reads->in->level : hr__cuda_ready(&n->b, reads->buffer)) + 1;
    uint32_t y = hr__cuda_add_buffer(&n->b, width, is_bf16 && !norm);
    for (uint32_t e = 0; e < u->n_experts; e++) {
        uint32_t activation = norm ? HR_CUDA_LINEAR : device_activation(n->plan->activation);
        add_expert_product(n, layer, e, reads, activation, y, level);
    }
    if (!norm) return y;
    uint32_t normed = hr__cuda_add_buffer(&n->b, width, is_bf16);
    for (uint32_t e = 0; e < u->n_experts; e++) add_norm(n, layer, e, y, normed, stride);
    hr__cuda_writes(&n->b, normed, hr__cuda_ready(&n->b, y) + 1);
    return normed;
}

static void add_experts(network *n, const hr_unit *u, unit_place *place) {
    if (u->n_experts == 0) return;
    const input *in = &n->inputs[place->x_input];
    reading reads = {.in = in, .columns = in->columns, .k = in->k};
    if (u->feature_gate.loras) {
        uint32_t gated = add_feature_gate(n, u, place);
        reads = (reading){.buffer = gated, .columns = in->columns, .k = in->k};
    }
    for (uint32_t i = 0; i < u->n_expert_layers; i++) {
        uint32_t h = add_expert_layer(n, u, i, &reads);
        uint32_t stride = hr_cuda_padded(u->expert_layers[i].out);
        reads = (reading){.buffer = h, .stride = stride, .k = stride};
    }
    place->experts = reads.buffer, place->stride = reads.stride;
}

/* ---- Mixes (2.5, 2.6) and layers ---- */

/* A unit's experts. */
static void add_terms(network *n, const hr_layer *layer, uint32_t unit, uint32_t *ready) {
    hr_cuda_plan *out = n->b.out;
    const unit_place *place = &n->units[unit];
    for (uint32_t k = 0; k < layer->units[unit].n_experts; k++) {
        hr_cuda_plan_term *term = hr__cuda_append(&n->b, &out->terms, &out->n_terms, sizeof *term);
        if (!term) return;
        *term = (hr_cuda_plan_term){place->experts, k * place->stride};
        uint32_t level = hr__cuda_ready(&n->b, place->experts);
        if (level > *ready) *ready = level;
    }
}

static bool reads_unit(const hr_input *sources, const hr_source *unit) {
    for (uint32_t s = 0; s < sources->n_sources; s++) {
        if (sources->sources[s].layer == unit->layer && sources->sources[s].unit == unit->unit) return true;
    }
    return false;
}

/* Whether task t's tower, which has a hidden layer, is all that reads its unit. */
static bool tower_alone_reads(const hr_plan *plan, uint32_t t) {
    const hr_source *read = &plan->tasks[t].input;
    for (uint32_t o = 0; o < plan->n_tasks; o++) {
        const hr_source *other = &plan->tasks[o].input;
        if (o != t && other->layer == read->layer && other->unit == read->unit) return false;
    }
    for (uint32_t l = 0; l < plan->n_layers; l++) {
        for (uint32_t u = 0; u < plan->layers[l].n_units; u++) {
            const hr_unit *unit = &plan->layers[l].units[u];
            if (reads_unit(&unit->input, read) || reads_unit(&unit->gate_input, read)) return false;
        }
    }
    return plan->tasks[t].n_tower > 1;
}

/* Whether towers compute the mixes they read: all do or none, so that they stay one launch. */
static bool towers_mix(const hr_plan *plan) {
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        if (!tower_alone_reads(plan, t)) return false;
    }
    return true;
}

static bool is_towers_input(const hr_plan *plan, uint32_t layer, uint32_t unit) {
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        const hr_source *read = &plan->tasks[t].input;
        if (read->layer == (int32_t)layer && read->unit == unit) return true;
    }
    return false;
}

/* Returns the value that is the unit's output. */
static uint32_t add_mix(network *n, uint32_t layer_index, uint32_t unit) {
    const hr_layer *layer = &n->plan->layers[layer_index];
    const hr_unit *u = &layer->units[unit];
    const unit_place *place = &n->units[unit];
    hr_cuda_plan *out = n->b.out;
    hr_cuda_plan_mix mix = {.first_term = out->n_terms, .logits = place->gates, .n_mixed = u->n_mixed};
    mix.gate_at = place->gate_at, mix.self_at = place->self_at;
    mix.n_self = u->self_gate ? u->n_experts : 0;
    mix.self_first = u->n_mixed;
    uint32_t ready = 0;
    for (uint32_t j = 0; j < u->n_mix; j++) {
        if (u->mix[j] == unit) mix.self_first = out->n_terms - mix.first_term;
        add_terms(n, layer, u->mix[j], &ready);
    }
    if (mix.n_self > 0 && mix.self_first == u->n_mixed) add_terms(n, layer, unit, &ready);
    mix.n_terms = out->n_terms - mix.first_term;
    if (mix.logits != HR_CUDA_NONE && hr__cuda_ready(&n->b, mix.logits) > ready)
        ready = hr__cuda_ready(&n->b, mix.logits);
    if (mix.logits != HR_CUDA_NONE) hr__cuda_reads(&n->b, mix.logits, ready + 1);
    for (uint32_t t = mix.first_term; !n->b.oom && t < out->n_terms; t++)
        hr__cuda_reads(&n->b, out->terms[t].buffer, ready + 1);
    mix.value = add_value(n, u->width, ready + 1);
    hr_cuda_plan_mix *added = hr__cuda_append(&n->b, &out->mixes, &out->n_mixes, sizeof *added);
    if (!added) return 0;
    mix.in_tower = n->towers_mix && is_towers_input(n->plan, layer_index, unit);
    *added = mix;
    if (!mix.in_tower) hr__cuda_add_step(&n->b, HR_CUDA_MIXES, ready + 1, out->n_mixes - 1);
    return mix.value;
}

/* Where a layer's units read. */
static void place_units(network *n, const hr_layer *layer) {
    for (uint32_t u = 0; u < layer->n_units; u++) {
        const hr_unit *unit = &layer->units[u];
        n->units[u] = (unit_place){.x_input = HR_CUDA_NONE, .g_input = HR_CUDA_NONE};
        n->units[u].feature_gates = n->units[u].gates = HR_CUDA_NONE;
        if (unit->n_experts) n->units[u].x_input = input_of(n, &unit->input);
        if (unit->gate_weight || unit->self_gate) n->units[u].g_input = input_of(n, &unit->gate_input);
    }
}

/* Inputs first, then the gates of each, the experts unit by unit, and the mixes. */
static void add_layer(network *n, uint32_t index) {
    const hr_layer *layer = &n->plan->layers[index];
    n->values[index] = calloc((size_t)layer->n_units + 1, sizeof **n->values);
    n->units = calloc((size_t)layer->n_units + 1, sizeof *n->units);
    if (!n->values[index] || !n->units) n->b.oom = true;
    if (!n->b.oom) place_units(n, layer);
    for (uint32_t in = 0; !n->b.oom && in < n->n_inputs; in++) add_gates(n, layer, in);
    for (uint32_t u = 0; !n->b.oom && u < layer->n_units; u++) add_experts(n, &layer->units[u], &n->units[u]);
    for (uint32_t u = 0; !n->b.oom && u < layer->n_units; u++) {
        if (layer->units[u].n_mix) n->values[index][u] = add_mix(n, index, u);
    }
    free(n->units);
    n->units = NULL;
}

/* ---- Towers ---- */

/* The mix whose output the value is, if its tower computes it. */
static uint32_t mix_in_tower(const hr_cuda_plan *out, uint32_t value) {
    for (uint32_t m = 0; m < out->n_mixes; m++) {
        if (out->mixes[m].value == value && out->mixes[m].in_tower) return m;
    }
    return HR_CUDA_NONE;
}

/* Towers stay as exact as f32, or nearly (tower.cu), whatever the other products take: see
 * kernels/onednn/program.c. */
static void add_tower(network *n, uint32_t index) {
    const hr_task *task = &n->plan->tasks[index];
    hr_cuda_plan *out = n->b.out;
    assert(task->input.layer != HR_SOURCE_FEATURES);
    uint32_t value = n->values[task->input.layer][task->input.unit], mix = mix_in_tower(out, value);
    uint32_t level = out->values[value].level + (mix == HR_CUDA_NONE);
    hr_cuda_plan_tower tower = {.mix = mix, .x = HR_CUDA_NONE, .n_layers = task->n_tower, .task = index};
    tower.first_layer = out->n_tower_layers;
    uint32_t widest = 0;
    for (uint32_t i = 0; i < task->n_tower; i++) {
        const hr_linear *layer = &task->tower[i];
        hr_cuda_plan_tower_layer made = {.k = hr_cuda_padded(layer->in), .n = layer->out};
        if (i + 1 < task->n_tower) {
            hr__cuda_add_parts(&n->b, layer->weight, layer->out, layer->in, made.k, made.parts);
        } else {
            made.weight = hr__cuda_add_floats(&n->b, layer->weight, layer->out, layer->in, made.k);
        }
        made.bias = hr__cuda_add_floats(&n->b, layer->bias, 1, layer->out, layer->out);
        hr_cuda_plan_tower_layer *added =
            hr__cuda_append(&n->b, &out->tower_layers, &out->n_tower_layers, sizeof *added);
        if (!added) return;
        *added = made;
        if (i + 2 < task->n_tower && layer->out > widest) widest = layer->out;
    }
    if (mix == HR_CUDA_NONE) {
        tower.x = hr__cuda_value_f32(&n->b, value);
        hr__cuda_reads(&n->b, tower.x, level);
    }
    for (int i = 0; i < 2; i++) {
        tower.hidden[i] = HR_CUDA_NONE;
        if (task->n_tower < 3 + (uint32_t)i) continue;
        tower.hidden[i] = hr__cuda_add_buffer(&n->b, widest, false);
        hr__cuda_writes(&n->b, tower.hidden[i], level);
    }
    hr_cuda_plan_tower *added = hr__cuda_append(&n->b, &out->towers, &out->n_towers, sizeof *added);
    if (!added) return;
    *added = tower;
    hr__cuda_add_step(&n->b, HR_CUDA_TOWERS, level, out->n_towers - 1);
}

/* ---- The plan ---- */

static void network_clear(network *n) {
    for (uint32_t i = 0; n->values && i < n->plan->n_layers; i++) free(n->values[i]);
    for (uint32_t i = 0; i < n->n_inputs; i++) {
        free(n->inputs[i].columns);
    }
    free(n->values);
    free(n->inputs);
}

hr_status hr_cuda_plan_create(const hr_plan *plan, hr_precision precision, hr_cuda_plan **result,
                              hr_error *err) {
    network n = {.plan = plan, .b = {.plan = plan}, .towers_mix = towers_mix(plan)};
    hr_cuda_plan *out = calloc(1, sizeof *out);
    n.values = calloc((size_t)plan->n_layers + 1, sizeof *n.values);
    n.b.oom = !out || !n.values;
    n.b.out = out;
    if (!n.b.oom) {
        out->plan = plan;
        out->is_bf16 = precision == HR_PRECISION_BF16;
        add_features(&n);
    }
    for (uint32_t i = 0; !n.b.oom && i < plan->n_layers; i++) add_layer(&n, i);
    for (uint32_t t = 0; !n.b.oom && t < plan->n_tasks; t++) add_tower(&n, t);
    hr__cuda_finish(&n.b);
    network_clear(&n);
    if (!n.b.oom) {
        *result = out;
        return HR_OK;
    }
    hr_status status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory preparing the network");
    if (n.b.narrow) {
        status =
            hr_error_set(err, HR_INVALID_ARGUMENT,
                         "backend cuda: expected layers wide enough to be padded to %d, found %llu weights "
                         "that take the room of %llu or more",
                         HR_CUDA_PAD, (unsigned long long)out->n_weights, (unsigned long long)out->n_padded);
    }
    hr_cuda_plan_destroy(out);
    return status;
}

void hr_cuda_plan_forget_weights(hr_cuda_plan *plan) {
    free(plan->weights);
    plan->weights = NULL;
    plan->weights_room = 0;
}

void hr_cuda_plan_destroy(hr_cuda_plan *plan) {
    if (!plan) return;
    free(plan->columns);
    free(plan->weights);
    free(plan->values);
    free(plan->buffers);
    free(plan->parts);
    free(plan->products);
    free(plan->norms);
    free(plan->terms);
    free(plan->mixes);
    free(plan->towers);
    free(plan->tower_layers);
    free(plan->steps);
    free(plan->stages);
    free(plan->tiles);
    free(plan);
}
