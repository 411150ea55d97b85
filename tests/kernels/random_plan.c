/* Random networks and batches: see random_plan.h. */
#include "tests/kernels/random_plan.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_NBYTES = 1 << 28, N_GROUPS = 2, N_TASKS = 4 };

const char *hr_random_kind_name(hr_random_kind kind) {
    static const char *const names[] = {"HoME-1", "HoME-2", "HoME-3",        "MMoE",
                                        "CGC",    "PLE",    "shared-bottom", "wide"};
    return names[kind];
}

uint64_t hr_random_next(hr_random *random) {
    uint64_t z = random->state += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

uint32_t hr_random_between(hr_random *random, uint32_t low, uint32_t high) {
    return low + (uint32_t)(hr_random_next(random) % (high - low + 1));
}

double hr_random_signed(hr_random *random) {
    return (double)(hr_random_next(random) >> 11) * 0x1p-52 - 1.0;
}

typedef struct builder {
    hr_random_plan *out;
    hr_random random;
    uint64_t seed;
    uint32_t group_hidden[3]; /* the expert widths of the layers of groups; the last is the units' width */
    uint32_t n_group_hidden;
    uint32_t task_hidden[3];
    uint32_t n_task_hidden;
    bool feature_gates, self_gates;
} builder;

static void *allocate(builder *b, size_t count, size_t size) {
    void *p = hr_arena_calloc(b->out->arena, count, size);
    assert(p != NULL);
    return p;
}

/* n values, uniform in center ± range. */
static const float *tensor(builder *b, size_t n, double center, double range) {
    float *values = allocate(b, n, sizeof *values);
    for (size_t i = 0; i < n; i++) values[i] = (float)(center + range * hr_random_signed(&b->random));
    return values;
}

/* A weight whose products with inputs of variance 1 have variance 1. */
static const float *weight(builder *b, size_t n, size_t in) {
    return tensor(b, n, 0.0, sqrt(3.0 / (double)in));
}

static uint32_t random_width(builder *b) {
    static const uint32_t widths[] = {1, 3, 8, 15, 16, 17, 31, 32, 33, 48, 64, 70};
    return widths[hr_random_between(&b->random, 0, sizeof widths / sizeof widths[0] - 1)];
}

/* ---- Schema ---- */

static void add_feature(builder *b, hr_feature *features, hr_feature feature) {
    hr_schema *schema = &b->out->schema;
    hr_row_layout *row = &schema->rows[feature.entity];
    bool dense = feature.kind == HR_FEATURE_NUMBER || feature.kind == HR_FEATURE_NUMBERS;
    feature.field = feature.name;
    feature.std = 1.0;
    feature.width = feature.kind == HR_FEATURE_NUMBER    ? 1
                    : feature.kind == HR_FEATURE_NUMBERS ? feature.length
                                                         : schema->tables[feature.table].dim;
    feature.slot = dense ? row->n_dense : row->n_index;
    if (dense) {
        row->n_dense += feature.width;
    } else {
        row->n_index += 1 + (feature.kind == HR_FEATURE_IDS ? feature.max_length : 0);
    }
    feature.vector_offset = schema->width;
    schema->width += feature.width;
    features[schema->n_features++] = feature;
}

static void build_schema(builder *b) {
    static const double boundaries[] = {-0.5, 0.0, 0.5};
    static const char *const names[] = {"user", "video", "age"};
    hr_schema *schema = &b->out->schema;
    hr_table *tables = allocate(b, 3, sizeof *tables);
    for (uint32_t t = 0; t < 3; t++) {
        tables[t] = (hr_table){.name = names[t], .dim = random_width(b), .index = HR_INDEX_DIRECT};
        tables[t].rows = t == 2 ? 5 : hr_random_between(&b->random, 2, 200);
    }
    schema->tables = tables;
    schema->n_tables = 3;
    hr_feature *f = allocate(b, 10, sizeof *f);
    const hr_feature list[] = {
        {.name = "user_id", .entity = HR_ENTITY_USER, .kind = HR_FEATURE_ID, .table = 0},
        {.name = "tastes", .entity = HR_ENTITY_USER, .kind = HR_FEATURE_NUMBERS, .length = random_width(b)},
        {.name = "history", .entity = HR_ENTITY_USER, .kind = HR_FEATURE_IDS, .table = 1, .max_length = 20},
        {.name = "video_id", .entity = HR_ENTITY_ITEM, .kind = HR_FEATURE_ID, .table = 1},
        {.name = "similar",
         .entity = HR_ENTITY_ITEM,
         .kind = HR_FEATURE_IDS,
         .table = 1,
         .max_length = 3,
         .pool = HR_POOL_SUM},
        {.name = "age_days",
         .entity = HR_ENTITY_ITEM,
         .kind = HR_FEATURE_BUCKET,
         .table = 2,
         .boundaries = boundaries,
         .n_boundaries = 3},
        {.name = "duration", .entity = HR_ENTITY_ITEM, .kind = HR_FEATURE_NUMBER},
        {.name = "vision", .entity = HR_ENTITY_ITEM, .kind = HR_FEATURE_NUMBERS, .length = random_width(b)},
        {.name = "hour", .entity = HR_ENTITY_CONTEXT, .kind = HR_FEATURE_NUMBER},
        {.name = "tab", .entity = HR_ENTITY_CONTEXT, .kind = HR_FEATURE_ID, .table = 2},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) add_feature(b, f, list[i]);
    schema->features = f;
    const float **embeddings = allocate(b, 3, sizeof *embeddings);
    for (uint32_t t = 0; t < 3; t++) {
        embeddings[t] = tensor(b, (size_t)tables[t].rows * tables[t].dim, 0.0, 1.0);
    }
    b->out->plan.schema = schema;
    b->out->plan.embeddings = embeddings;
}

/* ---- Units ---- */

/* n sources: unit units[i] of `layer`, or v where layer is HR_SOURCE_FEATURES. */
static hr_input input_of(builder *b, int32_t layer, const uint32_t *units, uint32_t n) {
    const hr_plan *plan = &b->out->plan;
    hr_source *sources = allocate(b, n, sizeof *sources);
    hr_input input = {.sources = sources, .n_sources = n};
    for (uint32_t i = 0; i < n; i++) {
        sources[i].layer = layer;
        sources[i].unit = layer == HR_SOURCE_FEATURES ? 0 : units[i];
        sources[i].width =
            layer == HR_SOURCE_FEATURES ? b->out->schema.width : plan->layers[layer].units[units[i]].width;
        input.width += sources[i].width;
    }
    return input;
}

static void add_experts(builder *b, hr_unit *unit, uint32_t n_experts, const uint32_t *hidden,
                        uint32_t n_hidden) {
    hr_expert_layer *layers = allocate(b, n_hidden, sizeof *layers);
    uint32_t in = unit->input.width;
    for (uint32_t i = 0; i < n_hidden; i++) {
        size_t n = (size_t)n_experts * hidden[i];
        layers[i].in = in;
        layers[i].out = hidden[i];
        layers[i].weight = weight(b, n * in, in);
        layers[i].bias = tensor(b, n, 0.0, 0.5);
        if (b->out->plan.norm == HR_NORM_LAYER) {
            layers[i].norm_weight = tensor(b, n, 1.0, 0.5);
            layers[i].norm_bias = tensor(b, n, 0.0, 0.5);
        }
        in = hidden[i];
    }
    unit->n_experts = n_experts;
    unit->n_expert_layers = n_hidden;
    unit->expert_layers = layers;
}

static void add_feature_gate(builder *b, hr_unit *unit) {
    size_t in = unit->input.width;
    hr_feature_gate *gate = &unit->feature_gate;
    gate->loras = hr_random_between(&b->random, 1, 3);
    gate->rank = random_width(b);
    gate->down = weight(b, gate->loras * gate->rank * in, in);
    gate->up = weight(b, gate->loras * gate->rank * in, gate->rank);
    gate->mix_weight = weight(b, gate->loras * in, in);
    gate->mix_bias = tensor(b, gate->loras, 0.0, 0.5);
}

/* Gives units[u] a mix over the listed units and, perhaps, a self gate. All units of the layer must already
 * have their experts. */
static void add_mix(builder *b, hr_unit *units, uint32_t u, const uint32_t *mix, uint32_t n_mix) {
    hr_unit *unit = &units[u];
    uint32_t *own = allocate(b, n_mix, sizeof *own);
    memcpy(own, mix, n_mix * sizeof *own);
    unit->mix = own;
    unit->n_mix = n_mix;
    for (uint32_t m = 0; m < n_mix; m++) unit->n_mixed += units[mix[m]].n_experts;
    size_t in = unit->gate_input.width;
    if (unit->n_mixed > 1) {
        unit->gate_weight = weight(b, unit->n_mixed * in, in);
        unit->gate_bias = tensor(b, unit->n_mixed, 0.0, 0.5);
    }
    unit->self_gate = b->self_gates && unit->n_experts > 0;
    if (unit->self_gate) {
        unit->self_gate_weight = weight(b, unit->n_experts * in, in);
        unit->self_gate_bias = tensor(b, unit->n_experts, 0.0, 0.5);
    }
}

static hr_unit *add_layer(builder *b, const char *name, uint32_t n_units, uint32_t width) {
    hr_plan *plan = &b->out->plan;
    hr_unit *units = allocate(b, n_units, sizeof *units);
    for (uint32_t u = 0; u < n_units; u++) {
        units[u].name = "unit";
        units[u].width = width;
    }
    hr_layer *layers = (hr_layer *)plan->layers;
    layers[plan->n_layers++] = (hr_layer){.name = name, .units = units, .n_units = n_units};
    return units;
}

/* HoME's layer of groups: unit 0 is shared and mixes all, the others mix shared and themselves. */
static void add_groups(builder *b, int32_t from) {
    enum { N_UNITS = 1 + N_GROUPS };
    uint32_t n_hidden = b->n_group_hidden;
    hr_unit *units = add_layer(b, "meta", N_UNITS, b->group_hidden[n_hidden - 1]);
    for (uint32_t u = 0; u < N_UNITS; u++) {
        units[u].input = units[u].gate_input = input_of(b, from, &u, 1);
        add_experts(b, &units[u], hr_random_between(&b->random, 1, 3), b->group_hidden, n_hidden);
        if (b->feature_gates) add_feature_gate(b, &units[u]);
    }
    add_mix(b, units, 0, (uint32_t[]){0, 1, 2}, N_UNITS);
    for (uint32_t u = 1; u < N_UNITS; u++) add_mix(b, units, u, (uint32_t[]){0, u}, 2);
}

/* HoME's layer of tasks: shared and group units lend experts; task t's unit mixes shared, its group, itself;
 * but the last shared and, for odd seeds, its group. */
static void add_home_tasks(builder *b, int32_t from) {
    uint32_t n_hidden = b->n_task_hidden;
    hr_unit *units = add_layer(b, "task", 1 + N_GROUPS + N_TASKS, b->task_hidden[n_hidden - 1]);
    for (uint32_t u = 0; u < 1 + N_GROUPS + N_TASKS; u++) {
        uint32_t group = u <= N_GROUPS ? u : 1 + (u - 1 - N_GROUPS) % N_GROUPS;
        units[u].input = input_of(b, from, &group, 1);
        bool two = u > N_GROUPS && from != HR_SOURCE_FEATURES;
        units[u].gate_input = two ? input_of(b, from, (uint32_t[]){group, 0}, 2) : units[u].input;
        add_experts(b, &units[u], hr_random_between(&b->random, 1, 2), b->task_hidden, n_hidden);
        if (b->feature_gates && from == HR_SOURCE_FEATURES) add_feature_gate(b, &units[u]);
    }
    for (uint32_t t = 0; t < N_TASKS; t++) {
        uint32_t u = 1 + N_GROUPS + t;
        add_mix(b, units, u, (uint32_t[]){0, 1 + t % N_GROUPS, u}, t + 1 < N_TASKS ? 3 : 1 + b->seed % 2);
    }
}

/* MMoE: one pool of experts, a gate a task. Every other seed the last task's unit mixes other experts
 * instead, of another width, that the first task's unit lends beside its own output. */
static void add_mmoe(builder *b, uint32_t n_experts, bool lend) {
    hr_unit *units = add_layer(b, "mmoe", 1 + N_TASKS, b->task_hidden[b->n_task_hidden - 1]);
    for (uint32_t u = 0; u <= N_TASKS; u++) {
        units[u].input = units[u].gate_input = input_of(b, HR_SOURCE_FEATURES, NULL, 1);
    }
    add_experts(b, &units[0], n_experts, b->task_hidden, b->n_task_hidden);
    for (uint32_t u = 1; u < N_TASKS; u++) add_mix(b, units, u, (uint32_t[]){0}, 1);
    uint32_t lender = 0;
    if (lend) {
        lender = 1;
        add_experts(b, &units[lender], hr_random_between(&b->random, 1, 3), b->group_hidden,
                    b->n_group_hidden);
        units[N_TASKS].width = b->group_hidden[b->n_group_hidden - 1];
    }
    add_mix(b, units, N_TASKS, &lender, 1);
}

/* CGC: task units mix shared and their own experts; below another such layer (PLE) the shared one mixes all.
 */
static void add_cgc(builder *b, int32_t from, bool last) {
    const uint32_t *hidden = last ? b->task_hidden : b->group_hidden;
    uint32_t n_hidden = last ? b->n_task_hidden : b->n_group_hidden;
    hr_unit *units = add_layer(b, "cgc", 1 + N_TASKS, hidden[n_hidden - 1]);
    for (uint32_t u = 0; u <= N_TASKS; u++) {
        units[u].input = units[u].gate_input = input_of(b, from, &u, 1);
        bool many = u == N_TASKS && b->seed % 4 == 0; /* more than a row of a GPU's mix has threads */
        add_experts(b, &units[u], many ? 10 : hr_random_between(&b->random, 1, 3), hidden, n_hidden);
    }
    uint32_t all[1 + N_TASKS];
    for (uint32_t u = 0; u <= N_TASKS; u++) all[u] = N_TASKS - u; /* units that stand later come first */
    if (!last) add_mix(b, units, 0, all, 1 + N_TASKS);
    for (uint32_t u = 1; u <= N_TASKS; u++) add_mix(b, units, u, (uint32_t[]){0, u}, 2);
}

static void add_shared_bottom(builder *b) {
    hr_unit *units = add_layer(b, "bottom", 1, b->task_hidden[b->n_task_hidden - 1]);
    units[0].input = units[0].gate_input = input_of(b, HR_SOURCE_FEATURES, NULL, 1);
    add_experts(b, &units[0], 1, b->task_hidden, b->n_task_hidden);
    add_mix(b, units, 0, (uint32_t[]){0}, 1);
}

/* ---- Tasks ---- */

/* Task t reads unit first_unit + t of the last layer, or unit 0 where all share it. Every fourth seed all
 * towers have hidden layers, the first wider than a GPU's tile. */
static void add_tasks(builder *b, uint32_t first_unit, bool shared) {
    static const char *const names[] = {"click", "like", "follow", "long_view"};
    hr_plan *plan = &b->out->plan;
    hr_task *tasks = allocate(b, N_TASKS, sizeof *tasks);
    const hr_layer *last = &plan->layers[plan->n_layers - 1];
    for (uint32_t t = 0; t < N_TASKS; t++) {
        uint32_t unit = shared ? 0 : first_unit + t;
        uint32_t in = last->units[unit].width;
        bool deep = b->seed % 4 == 0;
        uint32_t n_tower = hr_random_between(&b->random, deep ? 2 : 1, 5);
        hr_linear *tower = allocate(b, n_tower, sizeof *tower);
        for (uint32_t i = 0; i < n_tower; i++) {
            uint32_t out = i + 1 == n_tower ? 1 : random_width(b);
            if (deep && i == 0) out = hr_random_between(&b->random, 65, 100);
            tower[i] = (hr_linear){in, out, weight(b, (size_t)in * out, in), tensor(b, out, 0.0, 0.5)};
            in = out;
        }
        tasks[t] = (hr_task){.name = names[t], .tower = tower, .n_tower = n_tower, .output = (hr_output)t};
        tasks[t].input = (hr_source){(int32_t)plan->n_layers - 1, unit, last->units[unit].width};
    }
    plan->tasks = tasks;
    plan->n_tasks = N_TASKS;
}

static void build_network(builder *b, hr_random_kind kind) {
    switch (kind) {
    case HR_RANDOM_HOME_1:
    case HR_RANDOM_HOME_2:
    case HR_RANDOM_HOME_3: {
        int32_t from = HR_SOURCE_FEATURES;
        for (; from + 1 < (int32_t)kind - HR_RANDOM_HOME_1; from++) add_groups(b, from);
        add_home_tasks(b, from);
        add_tasks(b, 1 + N_GROUPS, false);
        break;
    }
    case HR_RANDOM_MMOE:
        add_mmoe(b, hr_random_between(&b->random, 1, 8), b->seed % 2 == 1);
        add_tasks(b, 1, false);
        break;
    case HR_RANDOM_WIDE:
        b->n_task_hidden = 2;
        for (uint32_t i = 0; i < b->n_task_hidden; i++)
            b->task_hidden[i] = hr_random_between(&b->random, 193, 256);
        add_mmoe(b, 12, false);
        add_tasks(b, 1, false);
        break;
    case HR_RANDOM_CGC:
    case HR_RANDOM_PLE:
        if (kind == HR_RANDOM_PLE) add_cgc(b, HR_SOURCE_FEATURES, false);
        add_cgc(b, kind == HR_RANDOM_PLE ? 0 : HR_SOURCE_FEATURES, true);
        add_tasks(b, 1, false);
        break;
    default:
        add_shared_bottom(b);
        add_tasks(b, 0, true);
        break;
    }
}

hr_random_plan *hr_random_plan_create(hr_random_kind kind, uint64_t seed) {
    hr_random_plan *out = calloc(1, sizeof *out);
    assert(out != NULL);
    out->arena = hr_arena_create(ARENA_NBYTES);
    assert(out->arena != NULL);
    builder b = {.out = out, .random = {seed * HR_RANDOM_KIND_COUNT + kind}, .seed = seed};
    b.n_group_hidden = hr_random_between(&b.random, 1, 3);
    b.n_task_hidden = hr_random_between(&b.random, 1, 3);
    for (int i = 0; i < 3; i++) {
        b.group_hidden[i] = random_width(&b);
        b.task_hidden[i] = random_width(&b);
    }
    b.feature_gates = seed % 4 < 3;
    b.self_gates = seed % 4 != 1;
    out->plan.norm = seed % 2 == 0 ? HR_NORM_NONE : HR_NORM_LAYER;
    out->plan.norm_eps = 1e-5;
    out->plan.activation = seed / 2 % 2 == 0 ? HR_ACTIVATION_SWISH : HR_ACTIVATION_RELU;
    out->plan.tower_activation = seed % 2 == 0 ? HR_ACTIVATION_RELU : HR_ACTIVATION_SWISH;
    out->plan.layers = allocate(&b, 3, sizeof *out->plan.layers);
    build_schema(&b);
    build_network(&b, kind);
    return out;
}

void hr_random_plan_destroy(hr_random_plan *random_plan) {
    if (random_plan == NULL) return;
    hr_arena_destroy(random_plan->arena);
    free(random_plan);
}

/* ---- Batches ---- */

static void random_row(hr_random *random, const hr_schema *schema, hr_entity entity, uint32_t *row) {
    float *dense = (float *)(row + schema->rows[entity].n_index);
    for (uint32_t i = 0; i < schema->rows[entity].n_dense; i++) dense[i] = (float)hr_random_signed(random);
    for (uint32_t f = 0; f < schema->n_features; f++) {
        const hr_feature *feature = &schema->features[f];
        if (feature->entity != entity) continue;
        uint32_t *index = row + feature->slot;
        uint32_t last = schema->tables[feature->table].rows - 1;
        if (feature->kind == HR_FEATURE_ID || feature->kind == HR_FEATURE_BUCKET) {
            index[0] = hr_random_between(random, 0, last);
        } else if (feature->kind == HR_FEATURE_IDS) {
            index[0] = hr_random_between(random, 0, feature->max_length);
            for (uint32_t i = 0; i < feature->max_length; i++) {
                /* What lies past the count is not to be read: make a reader of it fail. */
                index[1 + i] = i < index[0] ? hr_random_between(random, 0, last) : UINT32_MAX;
            }
        }
    }
}

static uint32_t *random_rows(hr_arena *arena, hr_random *random, const hr_schema *schema, hr_entity entity,
                             size_t n) {
    size_t words = hr_row_words(schema, entity);
    uint32_t *rows = hr_arena_calloc(arena, n * words + 1, sizeof *rows);
    assert(rows != NULL);
    for (size_t i = 0; i < n; i++) random_row(random, schema, entity, rows + i * words);
    return rows;
}

static const float guard_word = -12345.5F;

hr_random_batch *hr_random_batch_create(const hr_plan *plan, const uint32_t *n_rows, size_t n_slices,
                                        uint64_t seed) {
    hr_random_batch *batch = calloc(1, sizeof *batch);
    assert(batch != NULL);
    hr_arena *arena = batch->arena = hr_arena_create(ARENA_NBYTES);
    assert(arena != NULL);
    for (size_t s = 0; s < n_slices; s++) batch->n_rows += n_rows[s];
    batch->n_logits = batch->n_rows * plan->n_tasks;
    batch->n_slices = n_slices;
    batch->slices = hr_arena_calloc(arena, n_slices, sizeof *batch->slices);
    float *logits = hr_arena_calloc(arena, batch->n_logits + 2, sizeof *logits);
    assert(batch->slices != NULL && logits != NULL);
    logits[0] = logits[batch->n_logits + 1] = guard_word;
    batch->logits = logits + 1;
    for (size_t i = 0; i < batch->n_logits; i++) batch->logits[i] = NAN;
    hr_random random = {seed};
    float *cursor = batch->logits;
    for (size_t s = 0; s < n_slices; s++) {
        hr_slice *slice = &batch->slices[s];
        slice->user = random_rows(arena, &random, plan->schema, HR_ENTITY_USER, 1);
        slice->context = random_rows(arena, &random, plan->schema, HR_ENTITY_CONTEXT, 1);
        slice->items = random_rows(arena, &random, plan->schema, HR_ENTITY_ITEM, n_rows[s]);
        slice->n_rows = n_rows[s];
        slice->logits = cursor;
        cursor += (size_t)n_rows[s] * plan->n_tasks;
    }
    return batch;
}

void hr_random_batch_destroy(hr_random_batch *batch) {
    if (batch == NULL) return;
    hr_arena_destroy(batch->arena);
    free(batch);
}

bool hr_random_batch_guards_intact(const hr_random_batch *batch) {
    return batch->logits[-1] == guard_word && batch->logits[batch->n_logits] == guard_word;
}
