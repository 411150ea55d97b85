/* `homerank inspect`: see inspect.h. */
#include "service/inspect.h"

#include <inttypes.h>
#include <string.h>

#include "model/model.h"

enum { NAME_SIZE = 256 };

/* ---- Work ---- */

/* Multiply-adds (2 FLOPs each) of all matrix products for one item, by part. The norms, activations,
 * softmaxes and weighted sums are not counted. */
typedef struct macs {
    uint64_t experts, feature_gates, gates, towers;
} macs;

static void unit_macs(const hr_unit *unit, macs *sum) {
    uint64_t in = unit->input.width, gate_in = unit->gate_input.width;
    const hr_feature_gate *gate = &unit->feature_gate;
    for (uint32_t i = 0; i < unit->n_expert_layers; i++) {
        sum->experts += (uint64_t)unit->n_experts * unit->expert_layers[i].in * unit->expert_layers[i].out;
    }
    sum->feature_gates += gate->loras * (2 * in * gate->rank + in);
    if (unit->n_mix > 0 && unit->n_mixed > 1) sum->gates += gate_in * unit->n_mixed;
    if (unit->self_gate) sum->gates += gate_in * unit->n_experts;
}

static macs plan_macs(const hr_plan *plan) {
    macs sum = {0};
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        for (uint32_t u = 0; u < plan->layers[y].n_units; u++) unit_macs(&plan->layers[y].units[u], &sum);
    }
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        for (uint32_t i = 0; i < plan->tasks[t].n_tower; i++) {
            sum.towers += (uint64_t)plan->tasks[t].tower[i].in * plan->tasks[t].tower[i].out;
        }
    }
    return sum;
}

/* ---- The network ---- */

static void print_source(const hr_plan *plan, const hr_source *source, FILE *out) {
    if (source->layer == HR_SOURCE_FEATURES) {
        fprintf(out, "features");
    } else {
        const hr_layer *layer = &plan->layers[source->layer];
        fprintf(out, "%s.%s", layer->name, layer->units[source->unit].name);
    }
}

static void print_input(const hr_plan *plan, const hr_input *input, FILE *out) {
    for (uint32_t s = 0; s < input->n_sources; s++) {
        if (s > 0) fprintf(out, ", ");
        print_source(plan, &input->sources[s], out);
    }
    fprintf(out, " (%u)", (unsigned)input->width);
}

static bool same_input(const hr_input *a, const hr_input *b) {
    if (a->n_sources != b->n_sources) return false;
    for (uint32_t s = 0; s < a->n_sources; s++) {
        if (a->sources[s].layer != b->sources[s].layer || a->sources[s].unit != b->sources[s].unit)
            return false;
    }
    return true;
}

static void print_experts(const hr_plan *plan, const hr_unit *unit, FILE *out) {
    fprintf(out, "      input         ");
    print_input(plan, &unit->input, out);
    fprintf(out, "\n");
    if (unit->feature_gate.loras > 0) {
        fprintf(out, "      feature gate  %u LoRAs of rank %u\n", (unsigned)unit->feature_gate.loras,
                (unsigned)unit->feature_gate.rank);
    }
    fprintf(out, "      experts       %u x %u", (unsigned)unit->n_experts, (unsigned)unit->input.width);
    for (uint32_t i = 0; i < unit->n_expert_layers; i++) {
        fprintf(out, " -> %u", (unsigned)unit->expert_layers[i].out);
    }
    fprintf(out, "\n");
}

static void print_mix(const hr_plan *plan, const hr_layer *layer, const hr_unit *unit, FILE *out) {
    if (unit->n_mix == 0) {
        fprintf(out, "      mix           none: it lends its experts\n");
        return;
    }
    if (unit->n_experts == 0 || !same_input(&unit->input, &unit->gate_input)) {
        fprintf(out, "      gate input    ");
        print_input(plan, &unit->gate_input, out);
        fprintf(out, "\n");
    }
    fprintf(out, "      mix           ");
    for (uint32_t m = 0; m < unit->n_mix; m++) {
        fprintf(out, "%s%s", m == 0 ? "" : ", ", layer->units[unit->mix[m]].name);
    }
    fprintf(out, ": %u expert%s%s -> %u\n", (unsigned)unit->n_mixed, unit->n_mixed == 1 ? "" : "s",
            unit->self_gate ? ", self gate" : "", (unsigned)unit->width);
}

static void print_network(const hr_model *model, FILE *out) {
    static const char *const activations[] = {[HR_ACTIVATION_RELU] = "relu", [HR_ACTIVATION_SWISH] = "swish"};
    const hr_plan *plan = hr_model_plan(model);
    fprintf(out, "network: activation %s, norm %s (eps %g), tower activation %s\n",
            activations[plan->activation], hr_model_norm(model), plan->norm_eps,
            activations[plan->tower_activation]);
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        const hr_layer *layer = &plan->layers[y];
        fprintf(out, "  layer %s\n", layer->name);
        for (uint32_t u = 0; u < layer->n_units; u++) {
            fprintf(out, "    unit %s\n", layer->units[u].name);
            if (layer->units[u].n_experts > 0) print_experts(plan, &layer->units[u], out);
            print_mix(plan, layer, &layer->units[u], out);
        }
    }
}

static void print_tasks(const hr_plan *plan, FILE *out) {
    static const char *const outputs[] = {[HR_OUTPUT_SIGMOID] = "sigmoid",
                                          [HR_OUTPUT_IDENTITY] = "identity",
                                          [HR_OUTPUT_SOFTPLUS] = "softplus",
                                          [HR_OUTPUT_EXP] = "exp"};
    fprintf(out, "\ntasks: %u\n", (unsigned)plan->n_tasks);
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        const hr_task *task = &plan->tasks[t];
        fprintf(out, "  %-24s  ", task->name);
        print_source(plan, &task->input, out);
        fprintf(out, " (%u)", (unsigned)task->input.width);
        for (uint32_t i = 0; i < task->n_tower; i++) fprintf(out, " -> %u", (unsigned)task->tower[i].out);
        fprintf(out, " -> %s\n", outputs[task->output]);
    }
}

/* ---- The schema ---- */

static void print_tables(const hr_schema *schema, FILE *out) {
    fprintf(out, "\ntables: %u\n", (unsigned)schema->n_tables);
    for (uint32_t t = 0; t < schema->n_tables; t++) {
        const hr_table *table = &schema->tables[t];
        fprintf(out, "  %-24s  %10u x %-5u %s\n", table->name, (unsigned)table->rows, (unsigned)table->dim,
                table->index == HR_INDEX_HASH ? "hash" : "direct");
    }
}

static void print_feature(const hr_schema *schema, const hr_feature *feature, FILE *out) {
    static const char *const entities[] = {
        [HR_ENTITY_USER] = "user", [HR_ENTITY_ITEM] = "item", [HR_ENTITY_CONTEXT] = "context"};
    static const char *const kinds[] = {[HR_FEATURE_ID] = "id",
                                        [HR_FEATURE_IDS] = "ids",
                                        [HR_FEATURE_NUMBER] = "number",
                                        [HR_FEATURE_BUCKET] = "bucket",
                                        [HR_FEATURE_NUMBERS] = "numbers"};
    fprintf(out, "  v[%u:%u]  %s: %s of %s.%s", (unsigned)feature->vector_offset,
            (unsigned)(feature->vector_offset + feature->width), feature->name, kinds[feature->kind],
            entities[feature->entity],
            /* A field may have any name; one that is not the feature's is shown quoted. */
            strcmp(feature->field, feature->name) == 0
                ? feature->name
                : hr_quote(feature->field, strlen(feature->field)).text);
    switch (feature->kind) {
    case HR_FEATURE_ID: fprintf(out, ", table %s", schema->tables[feature->table].name); break;
    case HR_FEATURE_IDS:
        fprintf(out, ", table %s, %s of at most %u", schema->tables[feature->table].name,
                feature->pool == HR_POOL_MEAN ? "mean" : "sum", (unsigned)feature->max_length);
        break;
    case HR_FEATURE_NUMBER:
        fprintf(out, ", (%s - %g) / %g", feature->log1p ? "ln(1 + x)" : "x", feature->mean, feature->std);
        break;
    case HR_FEATURE_BUCKET:
        fprintf(out, ", table %s, %u boundaries", schema->tables[feature->table].name,
                (unsigned)feature->n_boundaries);
        break;
    case HR_FEATURE_NUMBERS: fprintf(out, ", %u values", (unsigned)feature->length); break;
    }
    fprintf(out, "\n");
}

static void print_features(const hr_schema *schema, FILE *out) {
    fprintf(out, "\nfeatures: %u, v has D = %u\n", (unsigned)schema->n_features, (unsigned)schema->width);
    for (uint32_t f = 0; f < schema->n_features; f++) print_feature(schema, &schema->features[f], out);
}

/* ---- Sizes ---- */

static double percent(uint64_t part, uint64_t whole) {
    return whole == 0 ? 0.0 : 100.0 * (double)part / (double)whole;
}

static void print_sizes(const hr_model *model, FILE *out) {
    uint64_t embeddings, network = hr_model_parameters(model, &embeddings);
    macs m = plan_macs(hr_model_plan(model));
    uint64_t all = m.experts + m.feature_gates + m.gates + m.towers;
    fprintf(out, "\nparameters: network %" PRIu64 ", embeddings %" PRIu64 "\n", network, embeddings);
    fprintf(out,
            "FLOPs per item: %" PRIu64
            " (experts %.0f %%, feature gates %.0f %%, gates %.0f %%, towers %.0f %%)\n",
            2 * all, percent(m.experts, all), percent(m.feature_gates, all), percent(m.gates, all),
            percent(m.towers, all));
}

hr_status hr_inspect(const char *dir, FILE *out, hr_error *err) {
    static const hr_model_options options = {
        .backend = "reference", .precision = HR_PRECISION_F32, .n_workers = 1};
    char name[NAME_SIZE];
    uint64_t version;
    hr_model *model;
    hr_status status = hr_model_identify(dir, name, sizeof name, &version, err);
    if (status == HR_OK) status = hr_model_load(dir, name, version, &options, &model, err);
    if (status != HR_OK) return status;
    fprintf(out, "%s\n\n", hr_model_label(model));
    print_network(model, out);
    print_tasks(hr_model_plan(model), out);
    print_tables(hr_model_schema(model), out);
    print_features(hr_model_schema(model), out);
    print_sizes(model, out);
    hr_model_unref(model);
    if (fflush(out) != 0 || ferror(out)) return hr_error_set(err, HR_IO, "inspect: cannot write the text");
    return HR_OK;
}
