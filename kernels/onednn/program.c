/* From plan to steps; see program.h. Section numbers are MODEL.md's. */
#include "kernels/onednn/program.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/builder.h"
#include "kernels/onednn/memory.h"

/* Columns of a feature gate computed at a time: L * M * this many f32 lie between the up product and the
 * multiplication with x, and should stay near. */
enum { FEATURE_GATE_COLUMNS = 512 };

/* A concatenation of sources, as units list them. */
typedef struct input {
    const hr_input *sources; /* borrowed: one of the plan's that lists them */
    hr_reading reading;
    uint32_t f32; /* buffer, or HR_NONE until a feature gate needs it */
} input;

/* Where a unit's gate weights and experts are, while its layer is built. */
typedef struct unit_place {
    uint32_t x_input, g_input;                  /* inputs, or HR_NONE */
    uint32_t feature_gates, gates;              /* buffers; gates: or HR_NONE */
    uint32_t feature_gate_at, gate_at, self_at; /* offsets in a row of them */
    uint32_t first_expert;                      /* index into network.experts */
} unit_place;

typedef struct network {
    hr_builder b;
    const hr_plan *plan;
    input *inputs;
    uint32_t n_inputs;
    uint32_t **values; /* (layers) of (units): buffer of the unit's output */
    unit_place *units; /* of the layer being built */
    uint32_t *experts; /* buffers of all experts' outputs of the layer being built, unit by unit */
} network;

static hr_gemm_activation gemm_activation(hr_activation activation) {
    return activation == HR_ACTIVATION_RELU ? HR_GEMM_RELU : HR_GEMM_SWISH;
}

/* ---- Inputs (2.1, 2.2) ---- */

static bool same_sources(const hr_input *a, const hr_input *b) {
    bool same = a->n_sources == b->n_sources;
    for (uint32_t s = 0; same && s < a->n_sources; s++) {
        same = a->sources[s].layer == b->sources[s].layer && a->sources[s].unit == b->sources[s].unit;
    }
    return same;
}

static uint32_t padded_width(const network *n, const hr_source *source) {
    const hr_vector_layout *v = &n->b.program->layout;
    return source->layer == HR_SOURCE_FEATURES ? v->shared_padded + v->item_padded : hr_padded(source->width);
}

static uint32_t source_buffer(network *n, const hr_source *source) {
    hr_program *program = n->b.program;
    if (source->layer != HR_SOURCE_FEATURES) return n->values[source->layer][source->unit];
    return hr__gathered_buffer(&n->b, &program->v,
                               program->layout.shared_padded + program->layout.item_padded);
}

/* The columns of a source: real ones from `from` on stand from `to` on. v has its parts side by side. */
static void add_source_pieces(network *n, hr_pieces *pieces, const hr_source *source, uint32_t from,
                              uint32_t to) {
    const hr_schema *schema = n->plan->schema;
    const hr_vector_layout *v = &n->b.program->layout;
    if (source->layer != HR_SOURCE_FEATURES) {
        hr__add_piece(&n->b, pieces, from, source->width, to);
        return;
    }
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *f = &schema->features[i];
        uint32_t part = f->entity == HR_ENTITY_ITEM ? v->shared_padded : 0;
        hr__add_piece(&n->b, pieces, from + f->vector_offset, f->width, to + part + v->column[i]);
    }
}

/* The sources side by side in one buffer: the source itself where there is one and its kind fits. */
static uint32_t concatenate(network *n, const hr_input *sources, uint32_t width, hr_operand kind) {
    if (sources->n_sources == 1 && kind == HR_OPERAND_F32) return source_buffer(n, &sources->sources[0]);
    uint32_t y = hr__add_buffer(&n->b, width, 1, kind);
    for (uint32_t s = 0, column = 0; s < sources->n_sources; s++) {
        hr_step *step = hr__add_step(&n->b, HR_STEP_STORE, source_buffer(n, &sources->sources[s]), y);
        step->store.column = column;
        column += padded_width(n, &sources->sources[s]);
    }
    return y;
}

/* One part of v as operands. */
static uint32_t part_operand(network *n, uint32_t *buffer, uint32_t width, bool shared) {
    uint32_t x = hr__gathered_buffer(&n->b, buffer, width);
    hr_operand kind = n->b.program->operand;
    if (kind == HR_OPERAND_F32) return x;
    uint32_t y = hr__add_buffer(&n->b, width, 1, kind);
    hr__add_step(&n->b, HR_STEP_STORE, x, y)->shared = shared;
    return y;
}

/* Products that read v alone: one part of their sum over the slices, one over the rows. */
static void split_reading(network *n, hr_reading *reading) {
    const hr_schema *schema = n->plan->schema;
    hr_program *program = n->b.program;
    const hr_vector_layout *v = &program->layout;
    reading->split = true;
    reading->operand = HR_NONE;
    reading->shared.width = v->shared_padded;
    reading->item.width = v->item_padded;
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *f = &schema->features[i];
        hr_pieces *part = f->entity == HR_ENTITY_ITEM ? &reading->item : &reading->shared;
        hr__add_piece(&n->b, part, f->vector_offset, f->width, v->column[i]);
    }
    n->b.shared_operand = part_operand(n, &program->shared, v->shared_padded, true);
    n->b.items_operand = part_operand(n, &program->items, v->item_padded, false);
}

/* The index of the input that concatenates these sources, made on first use. */
static uint32_t input_of(network *n, const hr_input *sources) {
    for (uint32_t i = 0; i < n->n_inputs; i++) {
        if (same_sources(n->inputs[i].sources, sources)) return i;
    }
    input *added = hr__append(&n->b, &n->inputs, &n->n_inputs, sizeof *added);
    if (!added) return 0;
    added->sources = sources;
    added->f32 = HR_NONE;
    hr_pieces *all = &added->reading.all;
    for (uint32_t s = 0, from = 0; s < sources->n_sources; s++) {
        add_source_pieces(n, all, &sources->sources[s], from, all->width);
        from += sources->sources[s].width;
        all->width += padded_width(n, &sources->sources[s]);
    }
    const hr_vector_layout *v = &n->b.program->layout;
    bool reads_v = sources->n_sources == 1 && sources->sources[0].layer == HR_SOURCE_FEATURES;
    if (reads_v && v->shared_width && v->item_width && !n->plan->unshared) {
        split_reading(n, &added->reading);
    } else {
        added->reading.operand = concatenate(n, sources, all->width, n->b.program->operand);
    }
    return n->n_inputs - 1;
}

static uint32_t input_f32(network *n, input *in) {
    if (in->f32 == HR_NONE) in->f32 = concatenate(n, in->sources, in->reading.all.width, false);
    return in->f32;
}

/* Linear of k -> width, with everything that belongs to it, into a new buffer. */
static uint32_t add_linear(network *n, const hr_reading *reads, uint32_t k, uint32_t width,
                           const float *weight, const float *bias, hr_gemm_activation activation,
                           hr_operand kind) {
    hr_product product = hr__product_begin(&n->b, reads, width, activation, kind);
    hr__product_rows(&n->b, &product, 0, k, weight, bias, width);
    return hr__product_end(&n->b, &product);
}

/* ---- Gates (2.3, 2.5, 2.6) ---- */

static void add_segment(network *n, uint32_t offset, uint32_t count, bool sigmoid) {
    hr_gate_segment *segment =
        hr__append(&n->b, &n->b.program->segments, &n->b.program->n_segments, sizeof *segment);
    if (segment) *segment = (hr_gate_segment){offset, count, sigmoid};
}

/* The gate logits of unit u that read the input: how many they are, and, where asked (product), their weights
 * as the product's rows from `at` on. */
static uint32_t gate_rows(network *n, const hr_unit *u, unit_place *place, uint32_t in,
                          const hr_product *product, uint32_t at) {
    const hr_feature_gate *f = &u->feature_gate;
    uint32_t start = at, g_width = u->gate_input.width;
    if (f->loras && place->x_input == in) {
        place->feature_gate_at = at;
        if (product) {
            hr__product_rows(&n->b, product, at, u->input.width, f->mix_weight, f->mix_bias, f->loras);
            add_segment(n, at, f->loras, false);
        }
        at += f->loras;
    }
    if (place->g_input != in) return at - start;
    if (u->gate_weight) {
        place->gate_at = at;
        if (product) {
            hr__product_rows(&n->b, product, at, g_width, u->gate_weight, u->gate_bias, u->n_mixed);
            add_segment(n, at, u->n_mixed, false);
        }
        at += u->n_mixed;
    }
    if (u->self_gate) {
        place->self_at = at;
        if (product) {
            hr__product_rows(&n->b, product, at, g_width, u->self_gate_weight, u->self_gate_bias,
                             u->n_experts);
            add_segment(n, at, u->n_experts, u->n_experts == 1);
        }
        at += u->n_experts;
    }
    return at - start;
}

/* All gate logits of the layer that read one input, as one product, and their softmaxes. */
static void add_gates(network *n, const hr_layer *layer, uint32_t in) {
    uint32_t width = 0, at = 0, first = n->b.program->n_segments;
    for (uint32_t u = 0; u < layer->n_units; u++) {
        width += gate_rows(n, &layer->units[u], &n->units[u], in, NULL, 0);
    }
    if (width == 0) return;
    hr_product product =
        hr__product_begin(&n->b, &n->inputs[in].reading, width, HR_GEMM_LINEAR, HR_OPERAND_F32);
    for (uint32_t u = 0; u < layer->n_units; u++) {
        at += gate_rows(n, &layer->units[u], &n->units[u], in, &product, at);
    }
    uint32_t y = hr__product_end(&n->b, &product);
    hr_step *step = hr__add_step(&n->b, HR_STEP_GATES, y, y);
    step->gates.first = first;
    step->gates.count = n->b.program->n_segments - first;
    for (uint32_t u = 0; u < layer->n_units; u++) {
        if (n->units[u].x_input == in) n->units[u].feature_gates = y;
        if (n->units[u].g_input == in) n->units[u].gates = y;
    }
}

/* ---- Experts (2.3, 2.4) ---- */

/* y[l] = low Up_l^T for columns [column, column + n_columns) of x. */
static void feature_gate_up(network *n, const hr_unit *u, const hr_pieces *x, uint32_t l, uint32_t low,
                            uint32_t y, uint32_t column, uint32_t n_columns) {
    const hr_feature_gate *f = &u->feature_gate;
    const float *up = f->up + (size_t)l * u->input.width * f->rank;
    uint32_t matrix = hr__add_plain_product(&n->b, low, y, l, f->rank, n_columns);
    for (uint32_t i = 0; i < x->count; i++) {
        const hr_piece *piece = &x->items[i];
        uint32_t c = piece->to < column ? column - piece->to : 0;
        for (; c < piece->width && piece->to + c < column + n_columns; c++) {
            hr__plain_row(&n->b, matrix, piece->to + c - column, f->rank,
                          up + (size_t)(piece->from + c) * f->rank);
        }
    }
}

static void feature_gate_columns(network *n, const hr_unit *u, const unit_place *place, uint32_t x,
                                 const uint32_t *lows, uint32_t y, uint32_t column) {
    const hr_feature_gate *f = &u->feature_gate;
    const hr_pieces *all = &n->inputs[place->x_input].reading.all;
    uint32_t left = all->width - column,
             n_columns = left < FEATURE_GATE_COLUMNS ? left : FEATURE_GATE_COLUMNS;
    uint32_t up = hr__add_buffer(&n->b, n_columns, f->loras, HR_OPERAND_F32);
    for (uint32_t l = 0; l < f->loras; l++) feature_gate_up(n, u, all, l, lows[l], up, column, n_columns);
    hr_step *step = hr__add_step(&n->b, HR_STEP_FEATURE_GATE, x, y);
    step->feature_gate.up = up;
    step->feature_gate.gates = place->feature_gates;
    step->feature_gate.gate = place->feature_gate_at;
    step->feature_gate.loras = f->loras;
    step->feature_gate.column = column;
    step->feature_gate.n_columns = n_columns;
    hr__touch(&n->b, up);
    hr__touch(&n->b, place->feature_gates);
}

/* The gated input of a unit's experts. */
static uint32_t add_feature_gate(network *n, const hr_unit *u, const unit_place *place) {
    const hr_feature_gate *f = &u->feature_gate;
    input *in = &n->inputs[place->x_input];
    uint32_t *lows = calloc(f->loras, sizeof *lows); /* buffers of x Down_l^T */
    if (!lows) {
        n->b.oom = true;
        return 0;
    }
    for (uint32_t l = 0; l < f->loras; l++) {
        lows[l] = add_linear(n, &in->reading, u->input.width, f->rank,
                             f->down + (size_t)l * f->rank * u->input.width, NULL, HR_GEMM_LINEAR,
                             n->b.program->operand);
    }
    uint32_t x = input_f32(n, in);
    uint32_t y = hr__add_buffer(&n->b, in->reading.all.width, 1, n->b.program->operand);
    for (uint32_t column = 0; column < in->reading.all.width; column += FEATURE_GATE_COLUMNS) {
        feature_gate_columns(n, u, place, x, lows, y, column);
    }
    free(lows);
    return y;
}

/* Layer i of expert k: Linear -> Norm -> Activation. */
static uint32_t add_expert_layer(network *n, const hr_unit *u, uint32_t k, uint32_t i,
                                 const hr_reading *reads) {
    const hr_expert_layer *layer = &u->expert_layers[i];
    hr_operand kind = i + 1 < u->n_expert_layers ? n->b.program->operand : HR_OPERAND_F32;
    bool norm = n->plan->norm == HR_NORM_LAYER;
    hr_gemm_activation activation = norm ? HR_GEMM_LINEAR : gemm_activation(n->plan->activation);
    size_t rows = (size_t)k * layer->out;
    uint32_t h = add_linear(n, reads, layer->in, layer->out, layer->weight + rows * layer->in,
                            layer->bias + rows, activation, norm ? HR_OPERAND_F32 : kind);
    if (!norm) return h;
    uint32_t y = kind == HR_OPERAND_F32 ? h : hr__add_buffer(&n->b, layer->out, 1, kind);
    hr_step *step = hr__add_step(&n->b, HR_STEP_NORM, h, y);
    step->norm.width = layer->out;
    step->norm.weight = hr__add_vector(&n->b, layer->norm_weight + rows, layer->out);
    step->norm.bias = hr__add_vector(&n->b, layer->norm_bias + rows, layer->out);
    return y;
}

static void add_experts(network *n, const hr_unit *u, const unit_place *place) {
    if (u->n_experts == 0) return;
    hr_reading first = n->inputs[place->x_input].reading; /* its pieces are borrowed */
    if (u->feature_gate.loras) first.operand = add_feature_gate(n, u, place), first.split = false;
    for (uint32_t k = 0; k < u->n_experts; k++) {
        uint32_t h = add_expert_layer(n, u, k, 0, &first);
        for (uint32_t i = 1; i < u->n_expert_layers; i++) {
            hr_piece whole = {0, u->expert_layers[i].in, 0};
            const hr_reading hidden = {.all = {&whole, 1, hr_padded(whole.width)}, .operand = h};
            h = add_expert_layer(n, u, k, i, &hidden);
        }
        n->experts[place->first_expert + k] = h;
    }
}

/* ---- Mixes (2.5, 2.6) and layers ---- */

static void add_term(network *n, uint32_t expert, int64_t gate) {
    hr_program_term *term = hr__append(&n->b, &n->b.program->terms, &n->b.program->n_terms, sizeof *term);
    if (!term) return;
    *term = (hr_program_term){expert, gate};
    hr__touch(&n->b, expert);
}

static uint32_t add_mix(network *n, const hr_layer *layer, const hr_unit *u, const unit_place *place) {
    hr_program *program = n->b.program;
    uint32_t y = hr__add_buffer(&n->b, u->width, 1, HR_OPERAND_F32), first = program->n_terms;
    hr_step *step = hr__add_step(&n->b, HR_STEP_MIX, HR_NONE, y);
    step->mix.gates = place->gates;
    hr__touch(&n->b, place->gates);
    int64_t gate = u->gate_weight ? (int64_t)place->gate_at : -1;
    for (uint32_t j = 0; j < u->n_mix; j++) {
        for (uint32_t k = 0; k < layer->units[u->mix[j]].n_experts; k++) {
            add_term(n, n->experts[n->units[u->mix[j]].first_expert + k], gate);
            gate += gate >= 0;
        }
    }
    for (uint32_t k = 0; u->self_gate && k < u->n_experts; k++) {
        add_term(n, n->experts[place->first_expert + k], (int64_t)place->self_at + k);
    }
    step->mix.first = first;
    step->mix.count = program->n_terms - first;
    if (step->mix.count > program->max_terms) program->max_terms = step->mix.count;
    return y;
}

/* Where a layer's units read, and where their experts will be listed. */
static void place_units(network *n, const hr_layer *layer) {
    uint32_t n_experts = 0;
    for (uint32_t u = 0; u < layer->n_units; u++) {
        const hr_unit *unit = &layer->units[u];
        bool gates = unit->gate_weight || unit->self_gate;
        n->units[u] = (unit_place){.x_input = HR_NONE, .g_input = HR_NONE, .gates = HR_NONE};
        n->units[u].first_expert = n_experts;
        n_experts += unit->n_experts;
        if (unit->n_experts) n->units[u].x_input = input_of(n, &unit->input);
        if (gates) n->units[u].g_input = input_of(n, &unit->gate_input);
    }
}

/* Inputs first, then the gates of each, the experts unit by unit, and the mixes. */
static void add_layer(network *n, uint32_t index) {
    const hr_layer *layer = &n->plan->layers[index];
    uint32_t n_experts = 0;
    for (uint32_t u = 0; u < layer->n_units; u++) n_experts += layer->units[u].n_experts;
    n->values[index] = calloc((size_t)layer->n_units + 1, sizeof **n->values);
    n->units = calloc((size_t)layer->n_units + 1, sizeof *n->units);
    n->experts = calloc((size_t)n_experts + 1, sizeof *n->experts);
    if (!n->values[index] || !n->units || !n->experts) n->b.oom = true;
    if (!n->b.oom) place_units(n, layer);
    for (uint32_t in = 0; !n->b.oom && in < n->n_inputs; in++) add_gates(n, layer, in);
    for (uint32_t u = 0; !n->b.oom && u < layer->n_units; u++) add_experts(n, &layer->units[u], &n->units[u]);
    for (uint32_t u = 0; !n->b.oom && u < layer->n_units; u++) {
        if (layer->units[u].n_mix) n->values[index][u] = add_mix(n, layer, &layer->units[u], &n->units[u]);
    }
    free(n->units);
    free(n->experts);
    n->units = NULL;
    n->experts = NULL;
}

/* Towers stay f32 whatever the other products take: they are a hundredth of the work, and rounding their
 * operands would move a rare task's logit as much as all of the experts' products do. */
static void add_tower(network *n, uint32_t index) {
    const hr_task *task = &n->plan->tasks[index];
    hr_gemm_activation activation = gemm_activation(n->plan->tower_activation);
    uint32_t h = source_buffer(n, &task->input);
    for (uint32_t i = 0; !n->b.oom && i + 1 < task->n_tower; i++) {
        const hr_linear *layer = &task->tower[i];
        hr_piece whole = {0, layer->in, 0};
        const hr_reading reads = {.all = {&whole, 1, hr_padded(layer->in)}, .operand = h};
        h = add_linear(n, &reads, layer->in, layer->out, layer->weight, layer->bias, activation,
                       HR_OPERAND_F32);
    }
    const hr_linear *last = &task->tower[task->n_tower - 1];
    hr_step *step = hr__add_step(&n->b, HR_STEP_LOGIT, h, HR_NONE);
    step->logit.task = index;
    step->logit.weight = hr__add_vector(&n->b, last->weight, last->in);
    step->logit.bias = last->bias[0];
}

/* ---- The program ---- */

static void network_clear(network *n) {
    for (uint32_t i = 0; n->values && i < n->plan->n_layers; i++) free(n->values[i]);
    for (uint32_t i = 0; i < n->n_inputs; i++) hr__reading_clear(&n->inputs[i].reading);
    free(n->values);
    free(n->inputs);
}

hr_status hr_program_create(const hr_plan *plan, hr_operand operand, hr_program **result, hr_error *err) {
    network n = {.plan = plan, .b = {.plan = plan}};
    hr_program *program = calloc(1, sizeof *program);
    n.values = calloc((size_t)plan->n_layers + 1, sizeof *n.values);
    n.b.oom = !program || !n.values;
    if (!n.b.oom) {
        program->plan = plan;
        program->operand = operand;
        program->v = program->shared = program->items = HR_NONE;
        n.b.program = program;
        n.b.oom = hr_vector_layout_init(&program->layout, plan->schema, err) != HR_OK;
    }
    if (!n.b.oom) hr__gathered_buffer(&n.b, &program->shared, program->layout.shared_padded);
    for (uint32_t i = 0; !n.b.oom && i < plan->n_layers; i++) add_layer(&n, i);
    for (uint32_t t = 0; !n.b.oom && t < plan->n_tasks; t++) add_tower(&n, t);
    network_clear(&n);
    if (n.b.oom) {
        hr_program_destroy(program);
        if (n.b.narrow) {
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "backend onednn: expected layers wide enough to be padded to %d, found %llu "
                                "weights that take the room of %llu or more",
                                HR_PAD, (unsigned long long)n.b.n_weights, (unsigned long long)n.b.n_padded);
        }
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory preparing the network");
    }
    *result = program;
    return HR_OK;
}

void hr_program_destroy(hr_program *program) {
    if (!program) return;
    for (uint32_t i = 0; i < program->n_matrices; i++) {
        free(program->matrices[i].weight);
        free(program->matrices[i].bias);
        hr_gemm_weights_destroy(&program->matrices[i].packed);
    }
    for (uint32_t i = 0; i < program->n_vectors; i++) free(program->vectors[i]);
    hr_vector_layout_clear(&program->layout);
    free(program->buffers);
    free(program->steps);
    free(program->specs);
    free(program->matrices);
    free(program->segments);
    free(program->terms);
    free(program->vectors);
    hr__pages_free(program->panels, program->n_panels * sizeof(float));
    free(program);
}

/* Whether two buffers are ever needed at once. */
static bool live_together(const hr_buffer *a, const hr_buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

typedef struct placement {
    hr_buffer *buffers;
    uint32_t max_rows;
    uint32_t lowest; /* placed buffers by offset, but for those that none to come can meet; linked by next */
    size_t nbytes;
} placement;

/* The first gap between the buffers that live while this one does. */
static void place_buffer(placement *p, uint32_t index) {
    hr_buffer *buffer = &p->buffers[index];
    size_t nbytes = hr_buffer_nbytes(buffer, p->max_rows);
    uint32_t *link = &p->lowest;
    buffer->offset = 0;
    while (*link != HR_NONE) {
        const hr_buffer *placed = &p->buffers[*link];
        if (placed->last < buffer->since) {
            *link = placed->next;
            continue;
        }
        if (live_together(buffer, placed)) {
            if (buffer->offset + nbytes <= placed->offset) break;
            size_t end = placed->offset + hr_buffer_nbytes(placed, p->max_rows);
            if (end > buffer->offset) buffer->offset = end;
        }
        link = &p->buffers[*link].next;
    }
    for (link = &p->lowest; *link != HR_NONE && p->buffers[*link].offset < buffer->offset;)
        link = &p->buffers[*link].next;
    buffer->next = *link;
    *link = index;
    if (buffer->offset + nbytes > p->nbytes) p->nbytes = buffer->offset + nbytes;
}

/* First fit in the order of creation, which is nearly that of first use: the same bytes are written again
 * soon after they were last read, while they are still in the cache. What is there from the start goes first:
 * some of it was created late. */
void hr_program_place(hr_program *program, uint32_t max_rows) {
    hr_buffer *buffers = program->buffers;
    placement p = {.buffers = buffers, .max_rows = max_rows, .lowest = HR_NONE};
    uint32_t since = HR_NONE;
    for (uint32_t i = program->n_buffers; i-- > 0;) {
        if (buffers[i].first != 0 && buffers[i].first < since) since = buffers[i].first;
        buffers[i].since = buffers[i].first == 0 ? 0 : since;
    }
    for (uint32_t i = 0; i < program->n_buffers; i++) {
        if (buffers[i].first == 0) place_buffer(&p, i);
    }
    for (uint32_t i = 0; i < program->n_buffers; i++) {
        if (buffers[i].first != 0) place_buffer(&p, i);
    }
    program->nbytes = p.nbytes;
}

hr_status hr_program_pack(hr_program *program, const hr_gemm_set *set, hr_error *err) {
    for (uint32_t i = 0; i < program->n_matrices; i++)
        program->n_panels += hr_gemm_panels_count(set, program->matrices[i].gemm);
    const size_t nbytes = program->n_panels * sizeof(float);
    float *panels = program->panels = hr__pages_alloc(nbytes);
    if (!panels) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %zu bytes of weights", nbytes);
    for (uint32_t i = 0; i < program->n_matrices; i++) {
        hr_matrix *m = &program->matrices[i];
        hr_status status = hr_gemm_pack(set, m->gemm, m->weight, m->bias, panels, &m->packed, err);
        if (status != HR_OK) return status;
        panels += hr_gemm_panels_count(set, m->gemm);
        free(m->weight);
        free(m->bias);
        m->weight = m->bias = NULL;
    }
    return HR_OK;
}
