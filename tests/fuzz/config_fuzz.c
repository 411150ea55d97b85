/* Any bytes as a config.json: refused with a reason, or a network whose every index and width holds. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/config.h"
#include "tests/fuzz/fuzz.h"

static void require(int holds) {
    if (!holds) abort();
}

static void require_source(const hr_plan *plan, const hr_source *source, uint32_t before_layer) {
    if (source->layer == HR_SOURCE_FEATURES) {
        require(source->width == plan->schema->width);
        return;
    }
    require(source->layer >= 0 && (uint32_t)source->layer < before_layer);
    const hr_layer *layer = &plan->layers[source->layer];
    require(source->unit < layer->n_units && layer->units[source->unit].n_mix > 0);
    require(source->width == layer->units[source->unit].width && source->width > 0);
}

static void require_input(const hr_plan *plan, const hr_input *input, uint32_t layer) {
    uint64_t width = 0;
    for (uint32_t s = 0; s < input->n_sources; s++) {
        require_source(plan, &input->sources[s], layer);
        width += input->sources[s].width;
    }
    require(input->n_sources > 0 && width == input->width);
}

static void require_unit(const hr_plan *plan, uint32_t y, const hr_unit *unit) {
    const hr_layer *layer = &plan->layers[y];
    require_input(plan, &unit->input, y);
    require_input(plan, &unit->gate_input, y);
    require((unit->n_experts > 0) == (unit->n_expert_layers > 0));
    uint64_t mixed = 0;
    for (uint32_t m = 0; m < unit->n_mix; m++) {
        require(unit->mix[m] < layer->n_units);
        const hr_unit *lender = &layer->units[unit->mix[m]];
        mixed += lender->n_experts;
        require(lender->n_experts == 0 || hr_unit_expert_width(lender) == unit->width);
    }
    require(mixed == unit->n_mixed && (unit->n_mix == 0) == (mixed == 0));
    if (unit->self_gate) require(unit->n_mix > 0 && hr_unit_expert_width(unit) == unit->width);
    if (unit->feature_gate.loras > 0) require(unit->n_experts > 0 && unit->feature_gate.rank > 0);
}

static void require_config(const hr_config *config) {
    const hr_plan *plan = &config->plan;
    require(plan->schema == config->schema && plan->n_layers > 0 && plan->n_tasks > 0);
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        for (uint32_t u = 0; u < plan->layers[y].n_units; u++)
            require_unit(plan, y, &plan->layers[y].units[u]);
    }
    double *outputs = calloc(plan->n_tasks, sizeof *outputs);
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        require(plan->tasks[t].input.layer >= 0);
        require_source(plan, &plan->tasks[t].input, plan->n_layers);
        require(plan->tasks[t].tower[plan->tasks[t].n_tower - 1].out == 1);
    }
    if (outputs != NULL) hr_fusion_score(config->fusion, outputs);
    free(outputs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    hr_config config;
    hr_error err = {.code = HR_OK, .message = ""};
    hr_status status = hr_config_parse((const char *)data, nbytes, &config, &err);
    if (status == HR_OK) {
        require_config(&config);
    } else {
        require(err.code == status && err.message[0] != '\0' && config.arena == NULL);
        require(hr_utf8_valid(err.message, strlen(err.message)));
    }
    hr_config_clear(&config);
    return 0;
}
