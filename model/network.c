/* Reads the network of config.json: see network.h. */
#include "model/network.h"

#include <stdio.h>
#include <string.h>

#include "model/network_internal.h"
#include "schema/json_read.h"

static const char *const norm_names[] = {"batch", "layer", "none"}; /* in the order of hr_config_norm */

const char *hr_config_norm_name(hr_config_norm norm) {
    return norm_names[norm];
}

/* ---- Shared with network_unit.c ---- */

void *hr_network_alloc__(hr_network_reader *r, size_t count, size_t size) {
    void *p = hr_arena_calloc(r->arena, count, size);
    if (p == NULL) hr_error_set(r->err, HR_OUT_OF_MEMORY, "network: out of memory");
    return p;
}

hr_status hr_network_copy__(hr_network_reader *r, const char *text, const char **copy) {
    *copy = hr_arena_strndup(r->arena, text, strlen(text));
    return *copy != NULL ? HR_OK : hr_error_set(r->err, HR_OUT_OF_MEMORY, "network: out of memory");
}

static bool equals(const char *name, const char *text, size_t nbytes) {
    return strlen(name) == nbytes && memcmp(name, text, nbytes) == 0;
}

hr_status hr_network_source__(hr_network_reader *r, const char *where, const char *key, const char *expected,
                              const char *text, hr_source *source) {
    const hr_plan *plan = r->plan;
    const char *found = "there is no such unit in a layer before it";
    const char *dot = strchr(text, '.');
    for (uint32_t y = 0; dot != NULL && y < plan->n_layers; y++) {
        const hr_layer *layer = &plan->layers[y];
        if (!equals(layer->name, text, (size_t)(dot - text))) continue;
        for (uint32_t u = 0; u < layer->n_units; u++) {
            const hr_unit *unit = &layer->units[u];
            if (strcmp(unit->name, dot + 1) != 0) continue;
            *source = (hr_source){(int32_t)y, u, unit->width};
            if (unit->n_mix > 0) return HR_OK;
            found = "that unit has no mix and so no output";
        }
    }
    return hr_error_set(r->err, HR_INVALID_ARGUMENT, "%s: %s: expected %s, found %s (%s)", where, key,
                        expected, hr_quote(text, strlen(text)).text, found);
}

hr_status hr_network_widths__(hr_network_reader *r, const json_t *object, const char *where, const char *key,
                              bool required, const uint32_t **widths, uint32_t *n_widths) {
    const json_t *list = NULL;
    *widths = NULL;
    *n_widths = 0;
    TRY(hr_json_get_array(object, where, key, required, 0, HR_MAX_HIDDEN, &list, r->err));
    if (list == NULL) return HR_OK;
    uint32_t *values = hr_network_alloc__(r, json_array_size(list), sizeof *values);
    if (values == NULL) return HR_OUT_OF_MEMORY;
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(hr_json_as_uint(json_array_get(list, i), where, key, 1, HR_MAX_WIDTH, &values[i], r->err));
    }
    *widths = values;
    *n_widths = (uint32_t)json_array_size(list);
    return HR_OK;
}

/* ---- Layers ---- */

static hr_status read_layer_name(hr_network_reader *r, const json_t *object, const char *where,
                                 hr_layer *layer) {
    static const char *const reserved[] = {"features", "tower", "embedding"};
    const char *name;
    TRY(hr_json_get_name(object, where, "name", true, &name, r->err));
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        if (strcmp(name, reserved[i]) != 0) continue;
        return hr_error_set(r->err, HR_INVALID_ARGUMENT,
                            "%s: name: expected none of features, tower, embedding, found %s", where, name);
    }
    for (uint32_t y = 0; y < r->plan->n_layers; y++) {
        if (strcmp(r->plan->layers[y].name, name) != 0) continue;
        return hr_error_set(r->err, HR_INVALID_ARGUMENT,
                            "%s: name: expected a unique name, found it in layers[%u] too", where,
                            (unsigned)y);
    }
    return hr_network_copy__(r, name, &layer->name);
}

static hr_status read_layers(hr_network_reader *r, const json_t *network) {
    static const char *const keys[] = {"name", "units"};
    const json_t *list, *units;
    TRY(hr_json_get_array(network, "network", "layers", true, 1, HR_MAX_LAYERS, &list, r->err));
    hr_layer *layers = hr_network_alloc__(r, json_array_size(list), sizeof *layers);
    if (layers == NULL) return HR_OUT_OF_MEMORY;
    r->plan->layers = layers;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        hr_json_place where = hr_json_place_of("layers", i, object);
        TRY(hr_json_check_keys(object, where.text, keys, sizeof keys / sizeof keys[0], r->err));
        TRY(read_layer_name(r, object, where.text, &layers[i]));
        TRY(hr_json_get_array(object, where.text, "units", true, 1, HR_MAX_UNITS, &units, r->err));
        TRY(hr_network_units__(r, units, layers[i].name, &layers[i]));
        r->plan->n_layers++; /* from here on its outputs may be read */
    }
    return HR_OK;
}

/* ---- Tasks ---- */

/* The tower's widths and, after them, the logit. */
static hr_status read_tower(hr_network_reader *r, const json_t *object, const char *where, hr_task *task) {
    const uint32_t *widths;
    uint32_t n_widths;
    TRY(hr_network_widths__(r, object, where, "tower", false, &widths, &n_widths));
    hr_linear *tower = hr_network_alloc__(r, (size_t)n_widths + 1, sizeof *tower);
    if (tower == NULL) return HR_OUT_OF_MEMORY;
    uint32_t in = task->input.width;
    for (uint32_t i = 0; i <= n_widths; i++) {
        tower[i].in = in;
        tower[i].out = in = i < n_widths ? widths[i] : 1;
    }
    task->tower = tower;
    task->n_tower = n_widths + 1;
    return HR_OK;
}

static hr_status read_task(hr_network_reader *r, const json_t *object, const char *where, hr_task *task) {
    static const char *const keys[] = {"name", "input", "tower", "output"};
    static const char *const outputs[] = {"sigmoid", "identity", "softplus", "exp"}; /* as hr_output */
    TRY(hr_json_check_keys(object, where, keys, sizeof keys / sizeof keys[0], r->err));
    const char *name, *input;
    TRY(hr_json_get_name(object, where, "name", true, &name, r->err));
    for (uint32_t t = 0; t < r->plan->n_tasks; t++) {
        if (strcmp(r->plan->tasks[t].name, name) != 0) continue;
        return hr_error_set(r->err, HR_INVALID_ARGUMENT,
                            "%s: name: expected a unique name, found it in tasks[%u] too", where,
                            (unsigned)t);
    }
    TRY(hr_network_copy__(r, name, &task->name));
    TRY(hr_json_get_string(object, where, "input", true, &input, r->err));
    TRY(hr_network_source__(r, where, "input", "a unit's output \"layer.unit\"", input, &task->input));
    TRY(read_tower(r, object, where, task));
    unsigned output = HR_OUTPUT_SIGMOID;
    TRY(hr_json_get_choice(object, where, "output", false, outputs, sizeof outputs / sizeof outputs[0],
                           &output, r->err));
    task->output = (hr_output)output;
    return HR_OK;
}

static hr_status read_tasks(hr_network_reader *r, const json_t *network) {
    const json_t *list;
    TRY(hr_json_get_array(network, "network", "tasks", true, 1, HR_MAX_TASKS, &list, r->err));
    hr_task *tasks = hr_network_alloc__(r, json_array_size(list), sizeof *tasks);
    if (tasks == NULL) return HR_OUT_OF_MEMORY;
    r->plan->tasks = tasks;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *object = json_array_get(list, i);
        TRY(read_task(r, object, hr_json_place_of("tasks", i, object).text, &tasks[i]));
        r->plan->n_tasks++;
    }
    return HR_OK;
}

/* ---- The network's own keys ---- */

static hr_status read_settings(hr_network_reader *r, const json_t *network, hr_config_norm *norm) {
    static const char *const activations[] = {"relu", "swish"}; /* as hr_activation */
    unsigned activation = HR_ACTIVATION_SWISH, tower_activation = HR_ACTIVATION_RELU,
             norm_index = HR_CONFIG_NORM_BATCH;
    double eps = 1e-5;
    TRY(hr_json_get_choice(network, "network", "activation", false, activations, 2, &activation, r->err));
    TRY(hr_json_get_choice(network, "network", "tower_activation", false, activations, 2, &tower_activation,
                           r->err));
    TRY(hr_json_get_choice(network, "network", "norm", false, norm_names, 3, &norm_index, r->err));
    TRY(hr_json_get_number(network, "network", "norm_eps", false, &eps, r->err));
    if (eps < 0.0) {
        return hr_json_expected("network", "norm_eps", "a number >= 0", json_object_get(network, "norm_eps"),
                                r->err);
    }
    *norm = (hr_config_norm)norm_index;
    r->plan->activation = (hr_activation)activation;
    r->plan->tower_activation = (hr_activation)tower_activation;
    r->plan->norm = *norm == HR_CONFIG_NORM_LAYER ? HR_NORM_LAYER : HR_NORM_NONE;
    r->plan->norm_eps = eps;
    return HR_OK;
}

/* ---- The whole ---- */

typedef struct extent {
    uint64_t products;   /* matrix products of a row */
    uint64_t row_values; /* inputs, experts' layers and outputs of a row */
} extent;

static void extent_add_unit(extent *sum, const hr_unit *unit) {
    bool own_gate_input = unit->gate_input.sources != unit->input.sources;
    sum->products +=
        2 * (uint64_t)unit->feature_gate.loras + (uint64_t)unit->n_experts * unit->n_expert_layers;
    sum->row_values += (uint64_t)unit->input.width + unit->width;
    if (own_gate_input) sum->row_values += unit->gate_input.width;
    for (uint32_t i = 0; i < unit->n_expert_layers; i++) {
        sum->row_values += (uint64_t)unit->n_experts * unit->expert_layers[i].out;
    }
}

static hr_status check_extent(const hr_plan *plan, hr_error *err) {
    extent sum = {0};
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        const hr_layer *layer = &plan->layers[y];
        for (uint32_t u = 0; u < layer->n_units; u++) extent_add_unit(&sum, &layer->units[u]);
    }
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        sum.products += plan->tasks[t].n_tower;
        for (uint32_t i = 0; i < plan->tasks[t].n_tower; i++) sum.row_values += plan->tasks[t].tower[i].out;
    }
    if (sum.products > HR_MAX_PRODUCTS) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "network: expected at most %d layers of experts, LoRAs and towers, found %llu",
                            HR_MAX_PRODUCTS, (unsigned long long)sum.products);
    }
    if (sum.row_values > HR_MAX_ROW_VALUES) {
        return hr_error_set(
            err, HR_INVALID_ARGUMENT,
            "network: expected inputs, experts' layers and outputs of at most %d values in all, "
            "found %llu",
            HR_MAX_ROW_VALUES, (unsigned long long)sum.row_values);
    }
    return HR_OK;
}

hr_status hr_network_read(const json_t *value, const hr_schema *schema, hr_arena *arena, hr_plan *plan,
                          hr_config_norm *norm, hr_error *err) {
    static const char *const keys[] = {"activation",       "norm",   "norm_eps",
                                       "tower_activation", "layers", "tasks"};
    hr_network_reader reader = {.plan = plan, .arena = arena, .err = err};
    *plan = (hr_plan){.schema = schema};
    TRY(hr_json_check_keys(value, "network", keys, sizeof keys / sizeof keys[0], err));
    TRY(read_settings(&reader, value, norm));
    TRY(read_layers(&reader, value));
    TRY(read_tasks(&reader, value));
    return check_extent(plan, err);
}
