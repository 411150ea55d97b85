/* The reference backend: MODEL.md 2 and 3 written down as they stand, slow and obviously right.
 *
 * One row goes through the whole network before the next. Values between the operators are f32; every sum and
 * every function is computed in double and rounded once. Rows share nothing, so batch invariance is plain.
 *
 * Letters: D width of v, E experts of a unit, L LoRA branches of a feature gate, T tasks.
 * Threads: the engine is the plan itself, immutable; a worker's memory belongs to the thread that runs it.
 */
#include "kernels/reference/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one layer of units leaves behind for one row. */
typedef struct layer_values {
    float **experts; /* (units) of (E, expert width): e, each expert's output */
    float **outputs; /* (units) of (width): y; NULL for a unit without mix */
} layer_values;

typedef struct reference_worker {
    const hr_plan *plan;         /* borrowed */
    const hr_observer *observer; /* borrowed while observe runs, else NULL */
    float *v;                    /* (D) the feature vector */
    layer_values *layers;
    float *x;         /* (widest input) a unit's input */
    float *gated;     /* (widest input) x after the feature gate */
    float *g;         /* (widest gate input) */
    float *low;       /* (largest L * rank) x Down_l^T of every branch l */
    float *hidden;    /* (widest hidden layer) what an expert's or tower's layer reads */
    float *hidden2;   /* (widest hidden layer) what it writes */
    float *weights;   /* (most mixed experts or LoRAs) a softmax */
    float **pointers; /* backs layers[].experts and .outputs; owned */
    float *values;    /* backs all the above; owned */
} reference_worker;

/* ---- Operators ---- */

static double sigmoid(double z) {
    return 1.0 / (1.0 + exp(-z));
}

static float activate(hr_activation activation, float z) {
    if (activation == HR_ACTIVATION_RELU) return z > 0.0F ? z : 0.0F;
    return (float)(z * sigmoid(z)); /* Swish */
}

static double dot(const float *a, const float *b, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* y (out) = W (out, in) x (in) + b (out); bias may be NULL. */
static void linear(const float *weight, const float *bias, const float *x, size_t in, size_t out, float *y) {
    for (size_t o = 0; o < out; o++) {
        y[o] = (float)(dot(weight + o * in, x, in) + (bias == NULL ? 0.0 : (double)bias[o]));
    }
}

static void softmax(float *z, size_t n) {
    float max = z[0];
    for (size_t i = 1; i < n; i++) max = z[i] > max ? z[i] : max;
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += exp((double)z[i] - (double)max);
    for (size_t i = 0; i < n; i++) z[i] = (float)(exp((double)z[i] - (double)max) / sum);
}

/* Layer norm over the width n with the biased variance, in place. */
static void layer_norm(const float *weight, const float *bias, double eps, size_t n, float *h) {
    double mean = 0.0;
    for (size_t i = 0; i < n; i++) mean += h[i];
    mean /= (double)n;
    double variance = 0.0;
    for (size_t i = 0; i < n; i++) variance += ((double)h[i] - mean) * ((double)h[i] - mean);
    variance /= (double)n;
    double scale = 1.0 / sqrt(variance + eps);
    for (size_t i = 0; i < n; i++) h[i] = (float)(((double)h[i] - mean) * scale * weight[i] + bias[i]);
}

/* ---- Features to v (MODEL.md 3) ---- */

/* The rows of table[index] pooled into out (dim): the mean or sum of the first count; none gives zeros. */
static void embedding_pool(const float *table, size_t dim, const uint32_t *index, uint32_t count,
                           hr_pool pool, float *out) {
    for (size_t d = 0; d < dim; d++) {
        double sum = 0.0;
        for (uint32_t i = 0; i < count; i++) sum += table[index[i] * dim + d];
        if (pool == HR_POOL_MEAN && count > 0) sum /= count;
        out[d] = (float)sum;
    }
}

/* One feature's part of v from its entity's encoded row (schema.h). */
static void feature_embed(const hr_plan *plan, const hr_feature *feature, const uint32_t *row, float *out) {
    const uint32_t *index = row + feature->slot;
    switch (feature->kind) {
    case HR_FEATURE_ID:
    case HR_FEATURE_BUCKET:
        embedding_pool(plan->embeddings[feature->table], feature->width, index, 1, HR_POOL_SUM, out);
        break;
    case HR_FEATURE_IDS:
        embedding_pool(plan->embeddings[feature->table], feature->width, index + 1, index[0], feature->pool,
                       out);
        break;
    case HR_FEATURE_NUMBER:
    case HR_FEATURE_NUMBERS: {
        const uint32_t *dense = row + plan->schema->rows[feature->entity].n_index + feature->slot;
        memcpy(out, dense, feature->width * sizeof *out);
        break;
    }
    }
}

/* v of item row `i` of a slice. */
static void features_embed(const hr_plan *plan, const hr_slice *slice, size_t i, float *v) {
    const hr_schema *schema = plan->schema;
    const uint32_t *rows[HR_ENTITY_COUNT] = {
        [HR_ENTITY_USER] = slice->user,
        [HR_ENTITY_ITEM] = (const uint32_t *)slice->items + i * hr_row_words(schema, HR_ENTITY_ITEM),
        [HR_ENTITY_CONTEXT] = slice->context,
    };
    for (uint32_t f = 0; f < schema->n_features; f++) {
        const hr_feature *feature = &schema->features[f];
        feature_embed(plan, feature, rows[feature->entity], v + feature->vector_offset);
    }
}

/* ---- A unit (MODEL.md 2, steps 1 to 6) ---- */

static const float *source_values(const reference_worker *w, const hr_source *source) {
    return source->layer == HR_SOURCE_FEATURES ? w->v : w->layers[source->layer].outputs[source->unit];
}

/* Steps 1 and 2: the concatenation of an input's sources. */
static void concatenate(const reference_worker *w, const hr_input *input, float *out) {
    for (uint32_t s = 0; s < input->n_sources; s++) {
        memcpy(out, source_values(w, &input->sources[s]), input->sources[s].width * sizeof *out);
        out += input->sources[s].width;
    }
}

/* Step 3: x̂ = x ⊙ Σ_l softmax(x M^T + m)_l · 2σ((x Down_l^T) Up_l^T), from w->x to w->gated. */
static void feature_gate(reference_worker *w, const hr_feature_gate *gate, size_t in) {
    float *branch = w->weights; /* (L) */
    linear(gate->mix_weight, gate->mix_bias, w->x, in, gate->loras, branch);
    softmax(branch, gate->loras);
    linear(gate->down, NULL, w->x, in, (size_t)gate->loras * gate->rank, w->low);
    for (size_t i = 0; i < in; i++) {
        double sum = 0.0; /* F(x)_i */
        for (uint32_t l = 0; l < gate->loras; l++) {
            const float *up = gate->up + (l * in + i) * gate->rank; /* (rank) */
            const float *low = w->low + (size_t)l * gate->rank;     /* (rank) */
            sum += branch[l] * 2.0 * sigmoid(dot(up, low, gate->rank));
        }
        w->gated[i] = (float)(w->x[i] * sum);
    }
}

/* Step 4 for expert k: Linear -> Norm -> Activation per hidden layer, from x to out (width). */
static void expert(reference_worker *w, const hr_unit *unit, uint32_t k, const float *x, float *out) {
    const hr_plan *plan = w->plan;
    float *h = w->hidden;
    float *spare = w->hidden2;
    for (uint32_t i = 0; i < unit->n_expert_layers; i++) {
        const hr_expert_layer *layer = &unit->expert_layers[i];
        size_t at = (size_t)k * layer->out;
        float *y = i + 1 == unit->n_expert_layers ? out : h;
        linear(layer->weight + at * layer->in, layer->bias + at, x, layer->in, layer->out, y);
        if (plan->norm == HR_NORM_LAYER) {
            layer_norm(layer->norm_weight + at, layer->norm_bias + at, plan->norm_eps, layer->out, y);
        }
        for (size_t o = 0; o < layer->out; o++) y[o] = activate(plan->activation, y[o]);
        if (w->observer != NULL) w->observer->expert(w->observer->arg, unit, k, i, y);
        x = y;
        h = spare;
        spare = y;
    }
}

/* Steps 1, 3 and 4: all experts of a unit into e (E, width). */
static void experts(reference_worker *w, const hr_unit *unit, float *e) {
    if (unit->n_experts == 0) return;
    concatenate(w, &unit->input, w->x);
    const float *x = w->x;
    if (unit->feature_gate.loras > 0) {
        feature_gate(w, &unit->feature_gate, unit->input.width);
        x = w->gated;
    }
    size_t width = hr_unit_expert_width(unit);
    for (uint32_t k = 0; k < unit->n_experts; k++) expert(w, unit, k, x, e + k * width);
}

/* Step 5: y = Σ_j softmax(g G^T + b)_j · e_j over the experts of the units in the mix, in list order. */
static void mix(reference_worker *w, const hr_layer *layer, const hr_unit *unit, const layer_values *values,
                float *y) {
    float *weights = w->weights; /* (n_mixed) */
    weights[0] = 1.0F;           /* of a mix of one expert */
    if (unit->n_mixed > 1) {
        linear(unit->gate_weight, unit->gate_bias, w->g, unit->gate_input.width, unit->n_mixed, weights);
        softmax(weights, unit->n_mixed);
    }
    if (w->observer != NULL) w->observer->mix(w->observer->arg, unit, weights);
    for (uint32_t d = 0; d < unit->width; d++) {
        double sum = 0.0;
        size_t j = 0;
        for (uint32_t m = 0; m < unit->n_mix; m++) {
            const hr_unit *lender = &layer->units[unit->mix[m]];
            const float *e = values->experts[unit->mix[m]]; /* (E, width) */
            for (uint32_t k = 0; k < lender->n_experts; k++, j++) {
                sum += (double)weights[j] * e[(size_t)k * unit->width + d];
            }
        }
        y[d] = (float)sum;
    }
}

/* Step 6: y += Σ_k s_k · e_k over the unit's own experts; s is a softmax, or σ where E = 1. */
static void self_gate(reference_worker *w, const hr_unit *unit, const float *e, float *y) {
    float *s = w->weights; /* (E) */
    linear(unit->self_gate_weight, unit->self_gate_bias, w->g, unit->gate_input.width, unit->n_experts, s);
    if (unit->n_experts > 1) {
        softmax(s, unit->n_experts);
    } else {
        s[0] = (float)sigmoid(s[0]);
    }
    if (w->observer != NULL) w->observer->self_gate(w->observer->arg, unit, s);
    for (uint32_t d = 0; d < unit->width; d++) {
        double sum = y[d];
        for (uint32_t k = 0; k < unit->n_experts; k++) sum += (double)s[k] * e[(size_t)k * unit->width + d];
        y[d] = (float)sum;
    }
}

/* A layer of units: all experts first, since a mix may name units that stand later in the layer. */
static void layer_forward(reference_worker *w, const hr_layer *layer, layer_values *values) {
    for (uint32_t u = 0; u < layer->n_units; u++) experts(w, &layer->units[u], values->experts[u]);
    for (uint32_t u = 0; u < layer->n_units; u++) {
        const hr_unit *unit = &layer->units[u];
        if (unit->n_mix == 0) continue; /* step 7: it only lends its experts */
        concatenate(w, &unit->gate_input, w->g);
        mix(w, layer, unit, values, values->outputs[u]);
        if (unit->self_gate) self_gate(w, unit, values->experts[u], values->outputs[u]);
    }
}

/* A task's tower down to its logit. */
static float tower(reference_worker *w, const hr_task *task) {
    const float *x = source_values(w, &task->input);
    float *h = w->hidden;
    float *spare = w->hidden2;
    for (uint32_t i = 0; i + 1 < task->n_tower; i++) {
        const hr_linear *layer = &task->tower[i];
        float *y = h;
        linear(layer->weight, layer->bias, x, layer->in, layer->out, y);
        for (size_t o = 0; o < layer->out; o++) y[o] = activate(w->plan->tower_activation, y[o]);
        x = y;
        h = spare;
        spare = y;
    }
    const hr_linear *last = &task->tower[task->n_tower - 1];
    float logit;
    linear(last->weight, last->bias, x, last->in, 1, &logit);
    return logit;
}

static hr_status reference_forward(void *worker, const hr_slice *slices, size_t n_slices, hr_error *err) {
    (void)err;
    reference_worker *w = worker;
    const hr_plan *plan = w->plan;
    for (size_t s = 0; s < n_slices; s++) {
        for (uint32_t i = 0; i < slices[s].n_rows; i++) {
            features_embed(plan, &slices[s], i, w->v);
            for (uint32_t y = 0; y < plan->n_layers; y++) layer_forward(w, &plan->layers[y], &w->layers[y]);
            float *logits = slices[s].logits + (size_t)i * plan->n_tasks;
            for (uint32_t t = 0; t < plan->n_tasks; t++) logits[t] = tower(w, &plan->tasks[t]);
        }
    }
    return HR_OK;
}

static hr_status reference_observe(void *worker, const hr_slice *slices, size_t n_slices,
                                   const hr_observer *observer, hr_error *err) {
    reference_worker *w = worker;
    w->observer = observer;
    hr_status status = reference_forward(w, slices, n_slices, err);
    w->observer = NULL;
    return status;
}

/* ---- Engine and worker ---- */

static hr_status reference_engine_create(const hr_plan *plan, hr_precision precision, const char *devices,
                                         void **context, hr_error *err) {
    (void)devices;
    if (precision != HR_PRECISION_F32) {
        return hr_error_set(err, HR_UNIMPLEMENTED, "the reference backend computes in f32 only, not in %s",
                            hr_precision_name(precision));
    }
    *context = (void *)plan; /* nothing to prepare */
    return HR_OK;
}

static void reference_engine_destroy(void *context) {
    (void)context;
}

/* The largest sizes that the network asks of the shared buffers. */
typedef struct extents {
    size_t x, g, low, hidden, weights;
    size_t per_row;  /* floats of all experts and outputs */
    size_t pointers; /* units, twice */
} extents;

static size_t max_size(size_t a, size_t b) {
    return a > b ? a : b;
}

static void extents_add_unit(extents *max, const hr_unit *unit) {
    max->x = max_size(max->x, unit->input.width);
    max->g = max_size(max->g, unit->gate_input.width);
    max->low = max_size(max->low, (size_t)unit->feature_gate.loras * unit->feature_gate.rank);
    max->weights = max_size(max->weights, unit->feature_gate.loras);
    max->weights = max_size(max->weights, max_size(unit->n_mixed, unit->n_experts));
    for (uint32_t i = 0; i < unit->n_expert_layers; i++) {
        max->hidden = max_size(max->hidden, unit->expert_layers[i].out);
    }
    max->per_row += (size_t)unit->n_experts * hr_unit_expert_width(unit) + unit->width;
    max->pointers += 2;
}

static extents plan_extents(const hr_plan *plan) {
    extents max = {.weights = 1};
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        for (uint32_t u = 0; u < plan->layers[y].n_units; u++)
            extents_add_unit(&max, &plan->layers[y].units[u]);
    }
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        for (uint32_t i = 0; i < plan->tasks[t].n_tower; i++) {
            max.hidden = max_size(max.hidden, plan->tasks[t].tower[i].out);
        }
    }
    return max;
}

static float *take(float **cursor, size_t n) {
    float *taken = *cursor;
    *cursor += n;
    return taken;
}

/* Points every buffer of the worker into w->values and w->pointers. */
static void worker_layout(reference_worker *w, const extents *max) {
    const hr_plan *plan = w->plan;
    float *cursor = w->values;
    float **pointers = w->pointers;
    w->v = take(&cursor, plan->schema->width);
    w->x = take(&cursor, max->x);
    w->gated = take(&cursor, max->x);
    w->g = take(&cursor, max->g);
    w->low = take(&cursor, max->low);
    w->hidden = take(&cursor, max->hidden);
    w->hidden2 = take(&cursor, max->hidden);
    w->weights = take(&cursor, max->weights);
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        const hr_layer *layer = &plan->layers[y];
        w->layers[y].experts = pointers;
        w->layers[y].outputs = pointers + layer->n_units;
        pointers += 2 * (size_t)layer->n_units;
        for (uint32_t u = 0; u < layer->n_units; u++) {
            const hr_unit *unit = &layer->units[u];
            w->layers[y].experts[u] = take(&cursor, (size_t)unit->n_experts * hr_unit_expert_width(unit));
            w->layers[y].outputs[u] = unit->n_mix == 0 ? NULL : take(&cursor, unit->width);
        }
    }
}

static void reference_worker_destroy(void *worker) {
    reference_worker *w = worker;
    if (w == NULL) return;
    free(w->values);
    free(w->pointers);
    free(w->layers);
    free(w);
}

static hr_status reference_worker_create(void *context, void **worker, hr_error *err) {
    const hr_plan *plan = context;
    extents max = plan_extents(plan);
    size_t n = plan->schema->width + 2 * max.x + max.g + max.low + 2 * max.hidden + max.weights + max.per_row;
    reference_worker *w = calloc(1, sizeof *w);
    if (w != NULL) {
        w->plan = plan;
        /* One more of each: a size of 0 may give NULL. */
        w->layers = calloc((size_t)plan->n_layers + 1, sizeof *w->layers);
        w->pointers = calloc(max.pointers + 1, sizeof *w->pointers);
        w->values = calloc(n + 1, sizeof *w->values);
    }
    if (w == NULL || w->layers == NULL || w->pointers == NULL || w->values == NULL) {
        reference_worker_destroy(w);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "reference worker: no memory for %zu floats", n);
    }
    worker_layout(w, &max);
    *worker = w;
    return HR_OK;
}

static void reference_describe(const void *context, char *text, size_t size) {
    (void)context;
    snprintf(text, size, "reference f32, one row at a time, double accumulation");
}

const hr_backend_i hr_backend_reference = {
    .name = "reference",
    .engine_create = reference_engine_create,
    .engine_destroy = reference_engine_destroy,
    .worker_create = reference_worker_create,
    .worker_destroy = reference_worker_destroy,
    .forward = reference_forward,
    .describe = reference_describe,
    .observe = reference_observe,
};
