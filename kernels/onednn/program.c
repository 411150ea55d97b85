/* From plan to steps; see program.h. Section numbers are MODEL.md's. */
#include "kernels/onednn/program.h"

#include <stdlib.h>
#include <string.h>

/* Columns of a feature gate computed at a time: L * M * this many f32 lie between the up product and the
 * multiplication with x, and should stay near. */
enum { FEATURE_GATE_COLUMNS = 512 };

/* A concatenation of sources that products read. */
typedef struct input {
    const hr_input *sources; /* borrowed: one of the plan's that lists them */
    uint32_t width;          /* padded */
    uint32_t operand;        /* buffer */
    uint32_t f32;            /* buffer, or HR_NONE until a feature gate needs it */
} input;

/* Where a unit's gate weights and experts are, while its layer is built. */
typedef struct unit_place {
    uint32_t x_input, g_input;                  /* inputs */
    uint32_t feature_gates, gates;              /* buffers */
    uint32_t feature_gate_at, gate_at, self_at; /* offsets in a row of them */
    uint32_t first_expert;                      /* index into builder.experts */
} unit_place;

/* Appending is allowed to fail quietly: oom is looked at once, at the end. */
typedef struct builder {
    const hr_plan *plan;
    hr_program *program;
    bool bf16, oom;
    input *inputs;
    uint32_t n_inputs;
    uint32_t **values; /* (layers) of (units): buffer of the unit's output */
    unit_place *units; /* of the layer being built */
    uint32_t *experts; /* buffers of all experts' outputs of the layer being built, unit by unit */
    hr_step spare;     /* what a failed append returns */
} builder;

/* ---- Appending ---- */

/* Room for one more element past n, zeroed; arrays grow by doubling at powers of two. */
static void *append(builder *b, void *array, uint32_t *n, size_t size) {
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

static uint32_t add_buffer(builder *b, uint32_t width, uint32_t parts, bool operand) {
    hr_buffer *buffer = append(b, &b->program->buffers, &b->program->n_buffers, sizeof *buffer);
    if (!buffer) return 0;
    *buffer = (hr_buffer){.width = hr_padded(width), .parts = parts, .operand = operand && b->bf16};
    buffer->first = HR_NONE;
    return b->program->n_buffers - 1;
}

/* The step being built uses the buffer. */
static void touch(builder *b, uint32_t buffer) {
    if (b->oom || buffer == HR_NONE) return;
    uint32_t step = b->program->n_steps - 1;
    hr_buffer *used = &b->program->buffers[buffer];
    if (used->first == HR_NONE) used->first = step;
    used->last = step;
}

static hr_step *add_step(builder *b, hr_step_kind kind, uint32_t x, uint32_t y) {
    hr_step *step = append(b, &b->program->steps, &b->program->n_steps, sizeof *step);
    if (!step) return &b->spare;
    step->kind = kind, step->x = x, step->y = y;
    touch(b, x);
    touch(b, y);
    return step;
}

/* count floats from values, zeros up to the padded count; owned by the program. */
static const float *add_vector(builder *b, const float *values, uint32_t count) {
    float **slot = append(b, &b->program->vectors, &b->program->n_vectors, sizeof *slot);
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

static uint32_t add_spec(builder *b, hr_gemm_spec spec) {
    hr_program *p = b->program;
    for (uint32_t i = 0; i < p->n_specs; i++) {
        const hr_gemm_spec *s = &p->specs[i];
        if (s->k == spec.k && s->n == spec.n && s->activation == spec.activation &&
            s->operand_out == spec.operand_out) {
            return i;
        }
    }
    hr_gemm_spec *added = append(b, &p->specs, &p->n_specs, sizeof *added);
    if (added) *added = spec;
    return p->n_specs - 1;
}

/* ---- Weights ---- */

static hr_matrix *add_matrix(builder *b, hr_gemm_spec spec) {
    uint32_t gemm = add_spec(b, spec);
    hr_matrix *m = append(b, &b->program->matrices, &b->program->n_matrices, sizeof *m);
    if (!m) return NULL;
    m->gemm = gemm;
    m->weight = calloc((size_t)spec.n * spec.k, sizeof(float));
    m->bias = calloc(spec.n, sizeof(float));
    if (m->weight && m->bias) return m;
    b->oom = true;
    return NULL;
}

/* One row of weights (k real columns) into row `to` of m. reads: how the columns of a concatenated input are
 * padded; NULL: k columns in one piece. */
static void matrix_row(const builder *b, hr_matrix *m, uint32_t to, const hr_input *reads, uint32_t k,
                       const float *weight, float bias) {
    float *row = m->weight + (size_t)to * b->program->specs[m->gemm].k;
    m->bias[to] = bias;
    if (!reads) {
        memcpy(row, weight, k * sizeof(float));
        return;
    }
    for (uint32_t s = 0; s < reads->n_sources; s++) {
        uint32_t width = reads->sources[s].width;
        memcpy(row, weight, width * sizeof(float));
        weight += width;
        row += hr_padded(width);
    }
}

/* weight (count, k) and bias (count, or NULL) into rows from `to` on. */
static void matrix_rows(const builder *b, hr_matrix *m, uint32_t to, const hr_input *reads, uint32_t k,
                        const float *weight, const float *bias, uint32_t count) {
    for (uint32_t i = 0; m && i < count; i++) {
        matrix_row(b, m, to + i, reads, k, weight + (size_t)i * k, bias ? bias[i] : 0.0f);
    }
}

/* y[part] = act(x W^T + b) with the matrix added last. */
static void add_gemm(builder *b, uint32_t x, uint32_t y, uint32_t part) {
    hr_step *step = add_step(b, HR_STEP_GEMM, x, y);
    step->gemm.matrix = b->program->n_matrices - 1;
    step->gemm.part = part;
}

static hr_gemm_activation gemm_activation(hr_activation activation) {
    return activation == HR_ACTIVATION_RELU ? HR_GEMM_RELU : HR_GEMM_SWISH;
}

/* Linear of k -> n into a new buffer, which is an operand or f32. */
static uint32_t add_linear(builder *b, uint32_t x, const hr_input *reads, uint32_t k, uint32_t n,
                           const float *weight, const float *bias, hr_gemm_activation activation,
                           bool operand) {
    uint32_t k_padded = b->oom ? 0 : b->program->buffers[x].width;
    uint32_t y = add_buffer(b, n, 1, operand);
    hr_gemm_spec spec = {k_padded, hr_padded(n), activation, operand && b->bf16};
    matrix_rows(b, add_matrix(b, spec), 0, reads, k, weight, bias, n);
    add_gemm(b, x, y, 0);
    if (b->oom) return 0;
    if (spec.operand_out || activation != HR_GEMM_LINEAR) {
        add_step(b, HR_STEP_FINISH, y, y)->finish.gemm =
            b->program->matrices[b->program->n_matrices - 1].gemm;
    }
    return y;
}

/* ---- Inputs (2.1, 2.2) ---- */

static bool same_sources(const hr_input *a, const hr_input *b) {
    if (a->n_sources != b->n_sources) return false;
    for (uint32_t s = 0; s < a->n_sources; s++) {
        if (a->sources[s].layer != b->sources[s].layer || a->sources[s].unit != b->sources[s].unit)
            return false;
    }
    return true;
}

static uint32_t source_buffer(const builder *b, const hr_source *source) {
    return source->layer == HR_SOURCE_FEATURES ? b->program->v : b->values[source->layer][source->unit];
}

/* The sources side by side in one buffer: the source itself where there is one and its kind fits. */
static uint32_t concatenate(builder *b, const hr_input *sources, uint32_t width, bool operand) {
    if (sources->n_sources == 1 && !(operand && b->bf16)) return source_buffer(b, &sources->sources[0]);
    uint32_t y = add_buffer(b, width, 1, operand);
    for (uint32_t s = 0, column = 0; s < sources->n_sources; s++) {
        hr_step *step = add_step(b, HR_STEP_STORE, source_buffer(b, &sources->sources[s]), y);
        step->store.column = column;
        column += hr_padded(sources->sources[s].width);
    }
    return y;
}

/* The index of the input that concatenates these sources, made on first use. */
static uint32_t input_of(builder *b, const hr_input *sources) {
    for (uint32_t i = 0; i < b->n_inputs; i++) {
        if (same_sources(b->inputs[i].sources, sources)) return i;
    }
    input *added = append(b, &b->inputs, &b->n_inputs, sizeof *added);
    if (!added) return 0;
    added->sources = sources;
    for (uint32_t s = 0; s < sources->n_sources; s++) added->width += hr_padded(sources->sources[s].width);
    added->operand = concatenate(b, sources, added->width, true);
    added->f32 = HR_NONE;
    return b->n_inputs - 1;
}

static uint32_t input_f32(builder *b, input *in) {
    if (in->f32 == HR_NONE) in->f32 = b->bf16 ? concatenate(b, in->sources, in->width, false) : in->operand;
    return in->f32;
}

/* Which column of a padded input is column c of the real one; HR_NONE for padding. */
static uint32_t real_column(const hr_input *sources, uint32_t c) {
    uint32_t real = 0;
    for (uint32_t s = 0; s < sources->n_sources; s++) {
        uint32_t width = sources->sources[s].width;
        if (c < width) return real + c;
        if (c < hr_padded(width)) return HR_NONE;
        c -= hr_padded(width);
        real += width;
    }
    return HR_NONE;
}

/* ---- Gates (2.3, 2.5, 2.6) ---- */

static void add_segment(builder *b, uint32_t offset, uint32_t count, bool sigmoid) {
    hr_gate_segment *segment = append(b, &b->program->segments, &b->program->n_segments, sizeof *segment);
    if (segment) *segment = (hr_gate_segment){offset, count, sigmoid};
}

/* How many gate logits of unit u read the input; where asked (m), puts their weights into m's rows. */
static uint32_t gate_rows(builder *b, const hr_unit *u, unit_place *places, uint32_t in, uint32_t y,
                          hr_matrix *m, uint32_t at) {
    uint32_t start = at;
    if (u->feature_gate.loras && places->x_input == in) {
        const hr_feature_gate *f = &u->feature_gate;
        places->feature_gates = y, places->feature_gate_at = at;
        matrix_rows(b, m, at, &u->input, u->input.width, f->mix_weight, f->mix_bias, f->loras);
        if (m) add_segment(b, at, f->loras, false);
        at += f->loras;
    }
    if (places->g_input != in) return at - start;
    if (u->n_mix && u->gate_weight) {
        places->gates = y, places->gate_at = at;
        matrix_rows(b, m, at, &u->gate_input, u->gate_input.width, u->gate_weight, u->gate_bias, u->n_mixed);
        if (m) add_segment(b, at, u->n_mixed, false);
        at += u->n_mixed;
    }
    if (u->self_gate) {
        places->gates = y, places->self_at = at;
        matrix_rows(b, m, at, &u->gate_input, u->gate_input.width, u->self_gate_weight, u->self_gate_bias,
                    u->n_experts);
        if (m) add_segment(b, at, u->n_experts, u->n_experts == 1);
        at += u->n_experts;
    }
    return at - start;
}

/* All gate logits of the layer that read one input, as one product, and their softmaxes. */
static void add_gates(builder *b, const hr_layer *layer, uint32_t in) {
    uint32_t n = 0, at = 0;
    for (uint32_t u = 0; u < layer->n_units; u++)
        n += gate_rows(b, &layer->units[u], &b->units[u], in, 0, NULL, 0);
    if (n == 0 || b->oom) return;
    uint32_t y = add_buffer(b, n, 1, false), first = b->program->n_segments;
    hr_matrix *m = add_matrix(b, (hr_gemm_spec){b->inputs[in].width, hr_padded(n), HR_GEMM_LINEAR, false});
    for (uint32_t u = 0; m && u < layer->n_units; u++) {
        at += gate_rows(b, &layer->units[u], &b->units[u], in, y, m, at);
    }
    add_gemm(b, b->inputs[in].operand, y, 0);
    hr_step *step = add_step(b, HR_STEP_GATES, y, y);
    step->gates.first = first;
    step->gates.count = b->program->n_segments - first;
}

/* ---- Experts (2.3, 2.4) ---- */

/* Rows of up_l for columns [column, column + n) of the padded x. */
static void feature_gate_up(builder *b, const hr_unit *u, uint32_t l, uint32_t low, uint32_t y,
                            uint32_t column, uint32_t n) {
    const hr_feature_gate *f = &u->feature_gate;
    hr_matrix *m = add_matrix(b, (hr_gemm_spec){hr_padded(f->rank), n, HR_GEMM_LINEAR, false});
    for (uint32_t c = 0; m && c < n; c++) {
        uint32_t real = real_column(&u->input, column + c);
        if (real == HR_NONE) continue;
        matrix_row(b, m, c, NULL, f->rank, f->up + ((size_t)l * u->input.width + real) * f->rank, 0.0f);
    }
    add_gemm(b, low, y, l);
}

static void feature_gate_columns(builder *b, const hr_unit *u, const unit_place *places, uint32_t x,
                                 uint32_t lows, uint32_t y, uint32_t column, uint32_t n) {
    const hr_feature_gate *f = &u->feature_gate;
    uint32_t up = add_buffer(b, n, f->loras, false);
    for (uint32_t l = 0; l < f->loras; l++) feature_gate_up(b, u, l, lows + l, up, column, n);
    hr_step *step = add_step(b, HR_STEP_FEATURE_GATE, x, y);
    step->feature_gate.up = up;
    step->feature_gate.gates = places->feature_gates;
    step->feature_gate.gate = places->feature_gate_at;
    step->feature_gate.loras = f->loras;
    step->feature_gate.column = column;
    step->feature_gate.n_columns = n;
    touch(b, up);
    touch(b, places->feature_gates);
}

/* The gated input of a unit's experts. */
static uint32_t add_feature_gate(builder *b, const hr_unit *u, const unit_place *places) {
    const hr_feature_gate *f = &u->feature_gate;
    if (b->oom) return 0;
    input *in = &b->inputs[places->x_input];
    uint32_t x = input_f32(b, in), lows = 0;
    for (uint32_t l = 0; l < f->loras; l++) {
        uint32_t low = add_linear(b, in->operand, &u->input, u->input.width, f->rank,
                                  f->down + (size_t)l * f->rank * u->input.width, NULL, HR_GEMM_LINEAR, true);
        if (l == 0) lows = low;
    }
    uint32_t y = add_buffer(b, in->width, 1, true);
    for (uint32_t column = 0; column < in->width; column += FEATURE_GATE_COLUMNS) {
        uint32_t n = in->width - column < FEATURE_GATE_COLUMNS ? in->width - column : FEATURE_GATE_COLUMNS;
        feature_gate_columns(b, u, places, x, lows, y, column, n);
    }
    return y;
}

/* Layer i of expert k: Linear -> Norm -> Activation. */
static uint32_t add_expert_layer(builder *b, const hr_unit *u, uint32_t k, uint32_t i, uint32_t x) {
    const hr_expert_layer *layer = &u->expert_layers[i];
    bool operand = i + 1 < u->n_expert_layers;
    bool norm = b->plan->norm == HR_NORM_LAYER;
    hr_gemm_activation activation = norm ? HR_GEMM_LINEAR : gemm_activation(b->plan->activation);
    size_t rows = (size_t)k * layer->out;
    uint32_t h =
        add_linear(b, x, i == 0 ? &u->input : NULL, layer->in, layer->out, layer->weight + rows * layer->in,
                   layer->bias + rows, activation, operand && !norm);
    if (!norm) return h;
    uint32_t y = operand ? add_buffer(b, layer->out, 1, true) : h;
    hr_step *step = add_step(b, HR_STEP_NORM, h, y);
    step->norm.width = layer->out;
    step->norm.weight = add_vector(b, layer->norm_weight + rows, layer->out);
    step->norm.bias = add_vector(b, layer->norm_bias + rows, layer->out);
    return y;
}

static void add_experts(builder *b, const hr_unit *u, const unit_place *place) {
    if (u->n_experts == 0 || b->oom) return;
    uint32_t x = u->feature_gate.loras ? add_feature_gate(b, u, place) : b->inputs[place->x_input].operand;
    for (uint32_t k = 0; k < u->n_experts; k++) {
        uint32_t h = x;
        for (uint32_t i = 0; i < u->n_expert_layers; i++) h = add_expert_layer(b, u, k, i, h);
        b->experts[place->first_expert + k] = h;
    }
}

/* ---- Mixes (2.5, 2.6) and layers ---- */

static void add_term(builder *b, uint32_t expert, int64_t gate) {
    hr_program_term *term = append(b, &b->program->terms, &b->program->n_terms, sizeof *term);
    if (!term) return;
    *term = (hr_program_term){expert, gate};
    touch(b, expert);
}

static uint32_t add_mix(builder *b, const hr_layer *layer, const hr_unit *u, const unit_place *place) {
    uint32_t y = add_buffer(b, u->width, 1, false);
    hr_step *step = add_step(b, HR_STEP_MIX, HR_NONE, y);
    step->mix.gates = place->gates;
    step->mix.first = b->program->n_terms;
    touch(b, place->gates);
    int64_t gate = u->gate_weight ? (int64_t)place->gate_at : -1;
    for (uint32_t j = 0; j < u->n_mix; j++) {
        for (uint32_t k = 0; k < layer->units[u->mix[j]].n_experts; k++) {
            add_term(b, b->experts[b->units[u->mix[j]].first_expert + k], gate);
            gate += gate >= 0;
        }
    }
    for (uint32_t k = 0; u->self_gate && k < u->n_experts; k++) {
        add_term(b, b->experts[place->first_expert + k], (int64_t)place->self_at + k);
    }
    step->mix.count = b->program->n_terms - step->mix.first;
    if (step->mix.count > b->program->max_terms) b->program->max_terms = step->mix.count;
    return y;
}

/* Inputs first, then the gates of each, the experts unit by unit, and the mixes. */
static void add_layer(builder *b, uint32_t index) {
    const hr_layer *layer = &b->plan->layers[index];
    uint32_t n_experts = 0;
    for (uint32_t u = 0; u < layer->n_units; u++) n_experts += layer->units[u].n_experts;
    b->values[index] = calloc(layer->n_units + 1, sizeof **b->values);
    b->units = calloc(layer->n_units + 1, sizeof *b->units);
    b->experts = calloc(n_experts + 1, sizeof *b->experts);
    if (!b->values[index] || !b->units || !b->experts) b->oom = true;
    n_experts = 0;
    for (uint32_t u = 0; !b->oom && u < layer->n_units; u++) {
        const hr_unit *unit = &layer->units[u];
        bool gates = unit->n_mix && (unit->gate_weight || unit->self_gate);
        b->units[u] = (unit_place){.x_input = HR_NONE, .g_input = HR_NONE, .gates = HR_NONE};
        b->units[u].first_expert = n_experts;
        n_experts += unit->n_experts;
        if (unit->n_experts) b->units[u].x_input = input_of(b, &unit->input);
        if (gates) b->units[u].g_input = input_of(b, &unit->gate_input);
    }
    for (uint32_t in = 0; !b->oom && in < b->n_inputs; in++) add_gates(b, layer, in);
    for (uint32_t u = 0; !b->oom && u < layer->n_units; u++) add_experts(b, &layer->units[u], &b->units[u]);
    for (uint32_t u = 0; !b->oom && u < layer->n_units; u++) {
        if (layer->units[u].n_mix) b->values[index][u] = add_mix(b, layer, &layer->units[u], &b->units[u]);
    }
    free(b->units);
    free(b->experts);
    b->units = NULL;
    b->experts = NULL;
}

/* A tower's last layer stays f32, so what it reads is not rounded. */
static void add_tower(builder *b, uint32_t index, const hr_input *reads) {
    const hr_task *task = &b->plan->tasks[index];
    uint32_t h = task->n_tower > 1 ? input_of(b, reads) : source_buffer(b, &task->input);
    if (b->oom) return;
    if (task->n_tower > 1) h = b->inputs[h].operand;
    for (uint32_t i = 0; i + 1 < task->n_tower; i++) {
        const hr_linear *layer = &task->tower[i];
        h = add_linear(b, h, i == 0 ? reads : NULL, layer->in, layer->out, layer->weight, layer->bias,
                       gemm_activation(b->plan->tower_activation), i + 2 < task->n_tower);
    }
    const hr_linear *last = &task->tower[task->n_tower - 1];
    hr_step *step = add_step(b, HR_STEP_LOGIT, h, HR_NONE);
    step->logit.task = index;
    step->logit.weight = add_vector(b, last->weight, last->in);
    step->logit.bias = last->bias[0];
}

/* ---- The program ---- */

hr_status hr_program_create(const hr_plan *plan, bool bf16, hr_program **program, hr_error *err) {
    builder b = {.plan = plan, .bf16 = bf16};
    hr_input *reads =
        calloc(plan->n_tasks + 1, sizeof *reads); /* the towers' inputs, as inputs of one source */
    b.values = calloc(plan->n_layers + 1, sizeof *b.values);
    b.program = calloc(1, sizeof *b.program);
    b.oom = !reads || !b.values || !b.program;
    if (!b.oom) {
        b.program->plan = plan;
        b.program->v = add_buffer(&b, plan->schema->width, 1, false);
    }
    if (!b.oom) b.program->buffers[b.program->v].first = 0;
    for (uint32_t i = 0; !b.oom && i < plan->n_layers; i++) add_layer(&b, i);
    for (uint32_t t = 0; !b.oom && t < plan->n_tasks; t++) {
        reads[t] =
            (hr_input){.sources = &plan->tasks[t].input, .n_sources = 1, .width = plan->tasks[t].input.width};
        add_tower(&b, t, &reads[t]);
    }
    for (uint32_t i = 0; b.values && i < plan->n_layers; i++) free(b.values[i]);
    free(b.values);
    free(b.inputs);
    free(reads);
    if (b.oom) {
        hr_program_destroy(b.program);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory preparing the network");
    }
    *program = b.program;
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
    free(program->buffers);
    free(program->steps);
    free(program->specs);
    free(program->matrices);
    free(program->segments);
    free(program->terms);
    free(program->vectors);
    free(program);
}

/* Whether two buffers are ever needed at once. */
static bool live_together(const hr_buffer *a, const hr_buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* First fit in the order of creation, which is the order of first use: the same bytes are written again soon
 * after they were last read, while they are still in the cache. */
void hr_program_place(hr_program *program, hr_operand operand, uint32_t max_rows) {
    program->nbytes = 0;
    for (uint32_t i = 0; i < program->n_buffers; i++) {
        hr_buffer *buffer = &program->buffers[i];
        size_t nbytes = hr_buffer_nbytes(buffer, operand, max_rows);
        buffer->offset = 0;
        for (uint32_t j = 0; j < i; j++) {
            const hr_buffer *placed = &program->buffers[j];
            size_t end = placed->offset + hr_buffer_nbytes(placed, operand, max_rows);
            bool clear = !live_together(buffer, placed) || end <= buffer->offset ||
                         buffer->offset + nbytes <= placed->offset;
            if (clear) continue;
            buffer->offset = end;
            j = UINT32_MAX; /* look at all of them again from here */
        }
        if (buffer->offset + nbytes > program->nbytes) program->nbytes = buffer->offset + nbytes;
    }
}

hr_status hr_program_pack(hr_program *program, const hr_gemm_set *set, hr_error *err) {
    for (uint32_t i = 0; i < program->n_matrices; i++) {
        hr_matrix *m = &program->matrices[i];
        hr_status status = hr_gemm_pack(set, m->gemm, m->weight, m->bias, &m->packed, err);
        if (status != HR_OK) return status;
        free(m->weight);
        free(m->bias);
        m->weight = m->bias = NULL;
    }
    return HR_OK;
}
