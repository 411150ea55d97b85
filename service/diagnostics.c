/* Gathering and measuring: see diagnostics.h.
 *
 * Means and deviations run along (Welford), so that a neuron that hardly varies about a large mean is told
 * from a constant one. Letters: y a layer of units, u a unit, k an expert, i a hidden layer of it, j a mixed
 * expert of a gate.
 */
#include "service/diagnostics.h"

#include <math.h>
#include <stdlib.h>

#include "base/arena.h"
#include "model/model.h"

enum { CAP_NBYTES = 1 << 30 };

/* The thresholds, so that the code and its words agree. */
#define COLLAPSED_ZERO 90 /* percent, as all but OUT_OF_SCALE */
#define COLLAPSED_DEAD 50
#define CONSTANT       1
#define OUT_OF_SCALE   10 /* times */
#define TAKES_ALL      90
#define USED_BY_ONE    90
#define UNUSED         10
#define UNDERFITS      25
#define DIGITS_OF(x)   #x
#define DIGITS(x)      DIGITS_OF(x)
#define PERCENT(x)     DIGITS(x) " %"

typedef struct verdict_row {
    const char *diagnostic, *word, *meaning;
} verdict_row;

/* clang-format off */
static const verdict_row verdicts[HR_VERDICT_COUNT] = {
    [HR_VERDICT_NONE] = {"", "", ""},
    [HR_VERDICT_NOT_FINITE] = {"collapse", "not finite",
        "a hidden layer's activations, or a gate's weights, overflowed on some row"},
    [HR_VERDICT_COLLAPSED] = {"collapse", "collapsed",
        "at least " PERCENT(COLLAPSED_ZERO) " of a hidden layer's activations are zero, or " PERCENT(COLLAPSED_DEAD)
        " of its neurons dead"},
    [HR_VERDICT_CONSTANT] = {"collapse", "constant",
        "a hidden layer's neurons vary over the rows by less than " PERCENT(CONSTANT)
        " of the size of its activations"},
    [HR_VERDICT_OUT_OF_SCALE] = {"collapse", "out of scale",
        "an expert's outputs spread more than " DIGITS(OUT_OF_SCALE)
        " times wider or narrower than the median of its layer's experts"},
    [HR_VERDICT_TAKES_ALL] = {"degradation", "one takes all",
        "one of a gate's experts has at least " PERCENT(TAKES_ALL) " of its weight"},
    [HR_VERDICT_USED_BY_ONE] = {"degradation", "used by one",
        "two or more gates of other units see the expert, and one of them gives at least " PERCENT(USED_BY_ONE)
        " of all its weight"},
    [HR_VERDICT_UNUSED] = {"degradation", "unused",
        "no gate, and no self gate, gives the expert " PERCENT(UNUSED) " of an even share"},
    [HR_VERDICT_UNDERFITS] = {"underfitting", "own ignored",
        "a unit's own experts, self gate included, have less than " PERCENT(UNDERFITS) " of an even share"},
};
/* clang-format on */

const char *hr_verdict_diagnostic(hr_verdict verdict) {
    return verdicts[verdict].diagnostic;
}

const char *hr_verdict_word(hr_verdict verdict) {
    return verdicts[verdict].word;
}

const char *hr_verdict_meaning(hr_verdict verdict) {
    return verdicts[verdict].meaning;
}

/* ---- State ---- */

typedef struct neuron {
    double mean, m2; /* m2: the sum of squared distances from the mean */
    uint64_t n_zero;
} neuron;

typedef struct hidden_layer {
    uint64_t n_rows;
    neuron *neurons; /* (out) */
} hidden_layer;

typedef struct unit_state {
    const hr_unit *unit;
    hidden_layer *hidden; /* (E, n_expert_layers) */
    uint64_t n_mixes, n_self_gates;
    double *weights;      /* (n_mixed) */
    double *self_weights; /* (E) */
    double row_entropy;
} unit_state;

/* A layer's median, kept while no row is added: every expert of the layer is judged by it. */
typedef struct kept_median {
    uint64_t n_rows; /* that it was made of; 0: none yet */
    double value;
} kept_median;

struct hr_diagnostics {
    hr_arena *arena; /* owns all below */
    const hr_plan *plan;
    unit_state **units; /* (n_layers) of (n_units) */
    double *outputs;    /* (T) */
    uint64_t n_rows;
    kept_median *medians; /* (n_layers) */
    double *spreads;      /* (most experts of a layer) for a median */
};

static uint32_t layer_experts(const hr_layer *layer) {
    uint32_t n = 0;
    for (uint32_t u = 0; u < layer->n_units; u++) n += layer->units[u].n_experts;
    return n;
}

static bool unit_state_init(unit_state *state, const hr_unit *unit, hr_arena *arena) {
    const uint32_t n_hidden = unit->n_expert_layers;
    state->unit = unit;
    state->hidden = hr_arena_calloc(arena, (size_t)unit->n_experts * n_hidden, sizeof *state->hidden);
    state->weights = hr_arena_calloc(arena, unit->n_mixed, sizeof *state->weights);
    state->self_weights = hr_arena_calloc(arena, unit->n_experts, sizeof *state->self_weights);
    if (state->hidden == NULL || state->weights == NULL || state->self_weights == NULL) return false;
    for (size_t i = 0; i < (size_t)unit->n_experts * n_hidden; i++) {
        uint32_t width = unit->expert_layers[i % n_hidden].out;
        state->hidden[i].neurons = hr_arena_calloc(arena, width, sizeof(neuron));
        if (state->hidden[i].neurons == NULL) return false;
    }
    return true;
}

static bool layers_init(hr_diagnostics *d, const hr_plan *plan) {
    uint32_t most_experts = 0;
    d->units = hr_arena_calloc(d->arena, plan->n_layers, sizeof *d->units);
    d->outputs = hr_arena_calloc(d->arena, plan->n_tasks, sizeof *d->outputs);
    d->medians = hr_arena_calloc(d->arena, plan->n_layers, sizeof *d->medians);
    if (d->units == NULL || d->outputs == NULL || d->medians == NULL) return false;
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        const hr_layer *layer = &plan->layers[y];
        if (layer_experts(layer) > most_experts) most_experts = layer_experts(layer);
        d->units[y] = hr_arena_calloc(d->arena, layer->n_units, sizeof *d->units[y]);
        if (d->units[y] == NULL) return false;
        for (uint32_t u = 0; u < layer->n_units; u++) {
            if (!unit_state_init(&d->units[y][u], &layer->units[u], d->arena)) return false;
        }
    }
    d->spreads = hr_arena_calloc(d->arena, most_experts, sizeof *d->spreads);
    return d->spreads != NULL;
}

hr_status hr_diagnostics_create(const hr_plan *plan, hr_diagnostics **diagnostics, hr_error *err) {
    hr_diagnostics *d = calloc(1, sizeof *d);
    *diagnostics = NULL;
    if (d != NULL) {
        d->plan = plan;
        d->arena = hr_arena_create(CAP_NBYTES);
    }
    if (d == NULL || d->arena == NULL || !layers_init(d, plan)) {
        hr_diagnostics_destroy(d);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "diagnostics: no memory for the network's neurons");
    }
    *diagnostics = d;
    return HR_OK;
}

void hr_diagnostics_destroy(hr_diagnostics *diagnostics) {
    if (diagnostics == NULL) return;
    hr_arena_destroy(diagnostics->arena);
    free(diagnostics);
}

/* ---- Gathering ---- */

static unit_state *find_unit(hr_diagnostics *d, const hr_unit *unit) {
    for (uint32_t y = 0; y < d->plan->n_layers; y++) {
        const hr_layer *layer = &d->plan->layers[y];
        if (unit >= layer->units && unit < layer->units + layer->n_units)
            return &d->units[y][unit - layer->units];
    }
    return NULL;
}

static void add_expert(void *arg, const hr_unit *unit, uint32_t k, uint32_t i, const float *values) {
    hidden_layer *hidden = &find_unit(arg, unit)->hidden[(size_t)k * unit->n_expert_layers + i];
    double n = (double)++hidden->n_rows;
    for (uint32_t o = 0; o < unit->expert_layers[i].out; o++) {
        neuron *at = &hidden->neurons[o];
        double from_old = values[o] - at->mean;
        at->mean += from_old / n;
        at->m2 += from_old * (values[o] - at->mean);
        at->n_zero += fabsf(values[o]) < HR_DIAGNOSTIC_ZERO;
    }
}

static void add_weights(double *means, const float *weights, uint32_t n_weights, uint64_t n_rows) {
    for (uint32_t j = 0; j < n_weights; j++) means[j] += (weights[j] - means[j]) / (double)n_rows;
}

/* One weight's term of an entropy. */
static double entropy_term(double p) {
    return p > 0.0 ? -p * log(p) : 0.0;
}

/* Over its largest value, ln n. */
static double normalised(double entropy, uint32_t n) {
    return n > 1 ? entropy / log(n) : 0.0;
}

static void add_mix(void *arg, const hr_unit *unit, const float *weights) {
    unit_state *state = find_unit(arg, unit);
    double entropy = 0.0;
    add_weights(state->weights, weights, unit->n_mixed, ++state->n_mixes);
    for (uint32_t j = 0; j < unit->n_mixed; j++) entropy += entropy_term(weights[j]);
    state->row_entropy += (normalised(entropy, unit->n_mixed) - state->row_entropy) / (double)state->n_mixes;
}

static void add_self_gate(void *arg, const hr_unit *unit, const float *weights) {
    unit_state *state = find_unit(arg, unit);
    add_weights(state->self_weights, weights, unit->n_experts, ++state->n_self_gates);
}

hr_observer hr_diagnostics_observer(hr_diagnostics *diagnostics) {
    return (hr_observer){diagnostics, add_expert, add_mix, add_self_gate};
}

void hr_diagnostics_add_logits(hr_diagnostics *diagnostics, const float *logits, uint32_t n_rows) {
    const hr_plan *plan = diagnostics->plan;
    for (uint32_t row = 0; row < n_rows; row++) {
        double n = (double)++diagnostics->n_rows;
        for (uint32_t t = 0; t < plan->n_tasks; t++) {
            double output = hr_output_apply(plan->tasks[t].output, *logits++);
            diagnostics->outputs[t] += (output - diagnostics->outputs[t]) / n;
        }
    }
}

/* ---- Collapse ---- */

/* All measures but the verdict. */
static hr_expert_measures measure_hidden(const unit_state *state, uint32_t k, uint32_t i) {
    const hidden_layer *hidden = &state->hidden[(size_t)k * state->unit->n_expert_layers + i];
    hr_expert_measures m = {.width = state->unit->expert_layers[i].out};
    double m2 = 0.0, n = (double)hidden->n_rows;
    uint64_t n_zero = 0;
    if (hidden->n_rows == 0) return m;
    for (uint32_t o = 0; o < m.width; o++) {
        m.mean += hidden->neurons[o].mean / m.width;
        m2 += hidden->neurons[o].m2;
        n_zero += hidden->neurons[o].n_zero;
        m.n_dead += hidden->neurons[o].n_zero == hidden->n_rows;
    }
    m.zero_share = (double)n_zero / (n * m.width);
    m.row_std = sqrt(m2 / (n * m.width));
    for (uint32_t o = 0; o < m.width; o++) {
        double distance = hidden->neurons[o].mean - m.mean;
        m2 += n * distance * distance;
    }
    m.std = sqrt(m2 / (n * m.width));
    return m;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of the output spreads of a layer's experts, of those that are finite; 0 where none is. */
static double median_spread(const hr_diagnostics *d, uint32_t y) {
    uint32_t n = 0;
    for (uint32_t u = 0; u < d->plan->layers[y].n_units; u++) {
        const unit_state *state = &d->units[y][u];
        for (uint32_t k = 0; k < state->unit->n_experts; k++) {
            double spread = measure_hidden(state, k, state->unit->n_expert_layers - 1).std;
            if (isfinite(spread)) d->spreads[n++] = spread;
        }
    }
    if (n == 0) return 0.0;
    qsort(d->spreads, n, sizeof *d->spreads, compare_doubles);
    return n % 2 == 1 ? d->spreads[n / 2] : (d->spreads[n / 2 - 1] + d->spreads[n / 2]) / 2.0;
}

static double layer_median(const hr_diagnostics *d, uint32_t y) {
    kept_median *kept = &d->medians[y];
    if (kept->n_rows != d->n_rows) *kept = (kept_median){d->n_rows, median_spread(d, y)};
    return kept->value;
}

static hr_verdict judge_hidden(const hr_expert_measures *m, double median) {
    double size = sqrt(m->mean * m->mean + m->std * m->std);
    if (!isfinite(size)) return HR_VERDICT_NOT_FINITE;
    if (m->zero_share >= COLLAPSED_ZERO / 100.0 || m->n_dead >= COLLAPSED_DEAD / 100.0 * m->width)
        return HR_VERDICT_COLLAPSED;
    if (m->row_std < CONSTANT / 100.0 * size) return HR_VERDICT_CONSTANT;
    if (median > 0.0 && (m->std > OUT_OF_SCALE * median || m->std * OUT_OF_SCALE < median))
        return HR_VERDICT_OUT_OF_SCALE;
    return HR_VERDICT_NONE;
}

hr_expert_measures hr_diagnostics_expert(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u,
                                         uint32_t k, uint32_t i) {
    const unit_state *state = &diagnostics->units[y][u];
    hr_expert_measures m = measure_hidden(state, k, i);
    bool is_output = i + 1 == state->unit->n_expert_layers;
    if (diagnostics->n_rows > 1) m.verdict = judge_hidden(&m, is_output ? layer_median(diagnostics, y) : 0.0);
    return m;
}

/* ---- Degradation and underfitting ---- */

/* Where the experts of unit u stand in the mix of unit `gate`: the first of them, or -1. */
static int64_t mix_offset(const hr_layer *layer, uint32_t gate, uint32_t u) {
    uint32_t j = 0;
    for (uint32_t m = 0; m < layer->units[gate].n_mix; m++) {
        if (layer->units[gate].mix[m] == u) return j;
        j += layer->units[layer->units[gate].mix[m]].n_experts;
    }
    return -1;
}

double hr_diagnostics_weight(const hr_diagnostics *diagnostics, uint32_t y, uint32_t gate, uint32_t u,
                             uint32_t k) {
    int64_t offset = mix_offset(&diagnostics->plan->layers[y], gate, u);
    return offset < 0 ? -1.0 : diagnostics->units[y][gate].weights[offset + k];
}

static void judge_gate(const hr_unit *unit, hr_gate_measures *m) {
    if (!isfinite(m->weights[m->largest] + m->self)) {
        m->degradation = HR_VERDICT_NOT_FINITE;
    } else if (unit->n_mixed > 1 && m->weights[m->largest] >= TAKES_ALL / 100.0) {
        m->degradation = HR_VERDICT_TAKES_ALL;
    }
    if (m->own_even > 0.0 && m->own_total < UNDERFITS / 100.0 * m->own_even)
        m->underfitting = HR_VERDICT_UNDERFITS;
}

hr_gate_measures hr_diagnostics_gate(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u) {
    const unit_state *state = &diagnostics->units[y][u];
    const hr_unit *unit = state->unit;
    hr_gate_measures m = {.weights = state->weights, .row_entropy = state->row_entropy};
    int64_t own = mix_offset(&diagnostics->plan->layers[y], u, u);
    for (uint32_t j = 0; j < unit->n_mixed; j++) {
        m.entropy += entropy_term(state->weights[j]);
        if (state->weights[j] > state->weights[m.largest]) m.largest = j;
    }
    m.entropy = normalised(m.entropy, unit->n_mixed);
    for (uint32_t k = 0; own >= 0 && k < unit->n_experts; k++) m.own += state->weights[own + k];
    if (own >= 0) m.own_even = (double)unit->n_experts / unit->n_mixed;
    if (unit->self_gate) {
        m.self_weights = state->self_weights;
        for (uint32_t k = 0; k < unit->n_experts; k++) m.self += state->self_weights[k];
    }
    m.own_total = (m.own + m.self) / (1.0 + m.self);
    if (diagnostics->n_rows > 1) judge_gate(unit, &m);
    return m;
}

/* Whether a gate of the layer, or the unit's self gate, gives the expert some part of an even share. */
static bool is_used(const hr_diagnostics *d, uint32_t y, uint32_t u, uint32_t k) {
    const hr_layer *layer = &d->plan->layers[y];
    const hr_unit *unit = &layer->units[u];
    if (unit->self_gate && d->units[y][u].self_weights[k] * unit->n_experts >= UNUSED / 100.0) return true;
    for (uint32_t g = 0; g < layer->n_units; g++) {
        if (hr_diagnostics_weight(d, y, g, u, k) * layer->units[g].n_mixed >= UNUSED / 100.0) return true;
    }
    return false;
}

hr_use_measures hr_diagnostics_use(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u, uint32_t k) {
    const uint32_t n_units = diagnostics->plan->layers[y].n_units;
    hr_use_measures m = {0};
    uint32_t n_others = 0;
    double sum = 0.0, largest = 0.0;
    for (uint32_t g = 0; g < n_units; g++) {
        double weight = hr_diagnostics_weight(diagnostics, y, g, u, k);
        if (weight < 0.0) continue;
        if (m.n_gates++ == 0 || weight > largest) {
            largest = weight;
            m.largest_unit = g;
        }
        n_others += g != u;
        sum += weight;
    }
    if (m.n_gates > 0) m.mean = sum / m.n_gates;
    if (sum > 0.0) m.largest_share = largest / sum;
    for (uint32_t g = 0; g < n_units && sum > 0.0; g++)
        m.entropy += entropy_term(hr_diagnostics_weight(diagnostics, y, g, u, k) / sum);
    m.entropy = normalised(m.entropy, m.n_gates);
    if (diagnostics->n_rows < 2 || !isfinite(sum)) return m; /* that is the gates' verdict */
    if (!is_used(diagnostics, y, u, k)) {
        m.verdict = HR_VERDICT_UNUSED;
    } else if (n_others > 1 && m.largest_unit != u && m.largest_share >= USED_BY_ONE / 100.0) {
        m.verdict = HR_VERDICT_USED_BY_ONE;
    }
    return m;
}

double hr_diagnostics_output(const hr_diagnostics *diagnostics, uint32_t task) {
    return diagnostics->outputs[task];
}

const hr_plan *hr_diagnostics_plan(const hr_diagnostics *diagnostics) {
    return diagnostics->plan;
}

uint64_t hr_diagnostics_rows(const hr_diagnostics *diagnostics) {
    return diagnostics->n_rows;
}
