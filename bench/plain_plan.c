/* See plain_plan.h. */
#include "bench/plain_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAGIC = 0x31505248, ARENA_NBYTES = 1 << 26 };

typedef struct reader {
    hr_plain_plan *out;
    size_t at, n_words;
    bool bad; /* past the end of the file or of the arena; all that is read then is zero */
} reader;

static uint32_t word(reader *r) {
    if (r->at >= r->n_words) r->bad = true;
    return r->bad ? 0 : r->out->words[r->at++];
}

static const float *floats(reader *r, size_t n) {
    if (n > r->n_words - r->at) r->bad = true;
    if (r->bad) return NULL;
    const float *values = (const float *)(const void *)(r->out->words + r->at);
    r->at += n;
    return values;
}

static void *array(reader *r, size_t count, size_t size) {
    void *items = r->bad ? NULL : hr_arena_calloc(r->out->arena, count + 1, size);
    if (items == NULL) r->bad = true;
    return items;
}

static void read_feature(reader *r, hr_feature *f) {
    hr_schema *schema = &r->out->schema;
    f->name = f->field = "feature";
    f->entity = (hr_entity)(word(r) % HR_ENTITY_COUNT);
    f->kind = (hr_feature_kind)word(r);
    f->table = word(r);
    f->pool = (hr_pool)word(r);
    f->max_length = word(r);
    f->width = f->length = word(r);
    f->std = 1.0;
    hr_row_layout *row = &schema->rows[f->entity];
    bool dense = f->kind == HR_FEATURE_NUMBER || f->kind == HR_FEATURE_NUMBERS;
    f->slot = dense ? row->n_dense : row->n_index;
    if (dense) {
        row->n_dense += f->width;
    } else {
        row->n_index += f->kind == HR_FEATURE_IDS ? 1 + f->max_length : 1;
    }
    f->vector_offset = schema->width;
    schema->width += f->width;
}

static void read_schema(reader *r) {
    hr_schema *schema = &r->out->schema;
    schema->n_tables = word(r);
    hr_table *tables = array(r, schema->n_tables, sizeof *tables);
    const float **embeddings = array(r, schema->n_tables, sizeof *embeddings);
    for (uint32_t i = 0; !r->bad && i < schema->n_tables; i++) {
        tables[i].name = "table";
        tables[i].rows = word(r);
        tables[i].dim = word(r);
    }
    schema->n_features = word(r);
    hr_feature *features = array(r, schema->n_features, sizeof *features);
    for (uint32_t i = 0; !r->bad && i < schema->n_features; i++) read_feature(r, &features[i]);
    for (uint32_t i = 0; !r->bad && i < schema->n_tables; i++)
        embeddings[i] = floats(r, (size_t)tables[i].rows * tables[i].dim);
    schema->tables = tables;
    schema->features = features;
    r->out->plan.schema = schema;
    r->out->plan.embeddings = embeddings;
}

static uint32_t source_width(const reader *r, const hr_source *source) {
    const hr_plan *plan = &r->out->plan;
    if (source->layer == HR_SOURCE_FEATURES) return plan->schema->width;
    return plan->layers[source->layer].units[source->unit].width;
}

static hr_input read_input(reader *r) {
    hr_input input = {.n_sources = word(r)};
    hr_source *sources = array(r, input.n_sources, sizeof *sources);
    for (uint32_t i = 0; !r->bad && i < input.n_sources; i++) {
        sources[i].layer = (int32_t)word(r);
        sources[i].unit = word(r);
        sources[i].width = source_width(r, &sources[i]);
        input.width += sources[i].width;
    }
    input.sources = sources;
    return input;
}

static void read_experts(reader *r, hr_unit *u) {
    u->n_experts = word(r);
    u->n_expert_layers = word(r);
    hr_expert_layer *layers = array(r, u->n_expert_layers, sizeof *layers);
    uint32_t in = u->input.width;
    for (uint32_t i = 0; !r->bad && i < u->n_expert_layers; i++) {
        hr_expert_layer *layer = &layers[i];
        layer->in = in;
        layer->out = in = word(r);
        size_t n = (size_t)u->n_experts * layer->out;
        layer->weight = floats(r, n * layer->in);
        layer->bias = floats(r, n);
        if (r->out->plan.norm != HR_NORM_LAYER) continue;
        layer->norm_weight = floats(r, n);
        layer->norm_bias = floats(r, n);
    }
    u->expert_layers = layers;
}

static void read_feature_gate(reader *r, hr_unit *u) {
    hr_feature_gate *f = &u->feature_gate;
    f->loras = word(r);
    f->rank = word(r);
    if (f->loras == 0) return;
    size_t n = (size_t)f->loras * f->rank * u->input.width;
    f->down = floats(r, n);
    f->up = floats(r, n);
    f->mix_weight = floats(r, (size_t)f->loras * u->input.width);
    f->mix_bias = floats(r, f->loras);
}

/* The mixed experts' width and number are known once all units of the layer have been read. */
static void read_unit(reader *r, hr_unit *u) {
    u->name = "unit";
    u->input = read_input(r);
    u->gate_input = read_input(r);
    read_experts(r, u);
    read_feature_gate(r, u);
    u->n_mix = word(r);
    uint32_t *mix = array(r, u->n_mix, sizeof *mix);
    for (uint32_t i = 0; !r->bad && i < u->n_mix; i++) mix[i] = word(r);
    u->mix = mix;
    u->n_mixed = word(r);
    u->width = word(r);
    if (u->n_mixed > 1) {
        u->gate_weight = floats(r, (size_t)u->n_mixed * u->gate_input.width);
        u->gate_bias = floats(r, u->n_mixed);
    }
    u->self_gate = word(r) != 0;
    if (!u->self_gate) return;
    u->self_gate_weight = floats(r, (size_t)u->n_experts * u->gate_input.width);
    u->self_gate_bias = floats(r, u->n_experts);
}

static void read_tasks(reader *r) {
    hr_plan *plan = &r->out->plan;
    plan->n_tasks = word(r);
    hr_task *tasks = array(r, plan->n_tasks, sizeof *tasks);
    for (uint32_t t = 0; !r->bad && t < plan->n_tasks; t++) {
        hr_task *task = &tasks[t];
        task->name = "task";
        task->input.layer = (int32_t)word(r);
        task->input.unit = word(r);
        if (!r->bad) task->input.width = source_width(r, &task->input);
        task->n_tower = word(r);
        hr_linear *tower = array(r, task->n_tower, sizeof *tower);
        uint32_t in = task->input.width;
        for (uint32_t i = 0; !r->bad && i < task->n_tower; i++) {
            tower[i] = (hr_linear){.in = in, .out = word(r)};
            tower[i].weight = floats(r, (size_t)in * tower[i].out);
            tower[i].bias = floats(r, tower[i].out);
            in = tower[i].out;
        }
        task->tower = tower;
    }
    plan->tasks = tasks;
}

static void read_network(reader *r) {
    hr_plan *plan = &r->out->plan;
    plan->activation = (hr_activation)word(r);
    plan->tower_activation = (hr_activation)word(r);
    plan->norm = (hr_norm)word(r);
    const float *eps = floats(r, 1);
    plan->norm_eps = eps ? *eps : 0;
    uint32_t n_layers = word(r);
    hr_layer *layers = array(r, n_layers, sizeof *layers);
    plan->layers = layers;
    for (plan->n_layers = 0; !r->bad && plan->n_layers < n_layers; plan->n_layers++) {
        hr_layer *layer = &layers[plan->n_layers];
        layer->name = "layer";
        layer->n_units = word(r);
        hr_unit *units = array(r, layer->n_units, sizeof *units);
        for (uint32_t u = 0; !r->bad && u < layer->n_units; u++) read_unit(r, &units[u]);
        layer->units = units;
    }
    read_tasks(r);
}

static hr_status read_words(const char *path, hr_plain_plan *plan, size_t *n_words, hr_error *err) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return hr_error_set(err, HR_IO, "%s: cannot be read", path);
    long nbytes = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    rewind(file);
    hr_status status = nbytes < 4 ? hr_error_set(err, HR_IO, "%s: cannot be read", path) : HR_OK;
    if (status == HR_OK) {
        *n_words = (size_t)nbytes / 4;
        plan->words = malloc((size_t)nbytes);
        if (plan->words == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %s", path);
    }
    if (status == HR_OK && fread(plan->words, 4, *n_words, file) != *n_words)
        status = hr_error_set(err, HR_IO, "%s: cannot be read", path);
    fclose(file);
    return status;
}

hr_status hr_plain_plan_read(const char *path, hr_plain_plan **plan, hr_error *err) {
    hr_plain_plan *made = calloc(1, sizeof *made);
    reader r = {.out = made};
    *plan = NULL;
    if (made == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    hr_status status = read_words(path, made, &r.n_words, err);
    made->arena = hr_arena_create(ARENA_NBYTES);
    if (status == HR_OK && made->arena == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    if (status == HR_OK) {
        bool known = word(&r) == MAGIC;
        if (known) read_schema(&r);
        if (known) read_network(&r);
        if (!known || r.bad || r.at != r.n_words)
            status =
                hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected a file of bench/plain_plan.py", path);
    }
    if (status != HR_OK) {
        hr_plain_plan_destroy(made);
        return status;
    }
    *plan = made;
    return HR_OK;
}

void hr_plain_plan_destroy(hr_plain_plan *plan) {
    if (plan == NULL) return;
    hr_arena_destroy(plan->arena);
    free(plan->words);
    free(plan);
}
