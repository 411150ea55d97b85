/* Reads the units of one layer: inputs, experts, feature gate, then, when all are known, who mixes whom
 * (MODEL.md 2). */
#include <stdio.h>
#include <string.h>

#include "model/network_internal.h"
#include "schema/json_read.h"

/* Where a unit stands, for errors: `layer meta: units[1] "watch"`. */
typedef struct unit_place {
    char text[HR_JSON_PLACE_SIZE + 80];
} unit_place;

static unit_place place_of(const char *layer_name, size_t index, const json_t *element) {
    unit_place place;
    snprintf(place.text, sizeof place.text, "layer %.64s: %s", layer_name,
             hr_json_place_of("units", index, element).text);
    return place;
}

static const char source_expected[] = "\"features\" or an output \"layer.unit\" of an earlier layer";

/* Steps 1 and 2: `input` or `gate_input`, a list of "features" and "layer.unit". Absent: no sources. */
static hr_status read_input(hr_network_reader *r, const json_t *object, const char *where, const char *key,
                            bool required, hr_input *input) {
    const json_t *list = NULL;
    TRY(hr_json_get_array(object, where, key, required, 1, HR_MAX_SOURCES, &list, r->err));
    if (list == NULL) return HR_OK;
    hr_source *sources = hr_network_alloc__(r, json_array_size(list), sizeof *sources);
    if (sources == NULL) return HR_OUT_OF_MEMORY;
    uint64_t width = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text;
        TRY(hr_json_as_string(json_array_get(list, i), where, key, &text, r->err));
        if (strcmp(text, "features") == 0) {
            sources[i] = (hr_source){HR_SOURCE_FEATURES, 0, r->plan->schema->width};
        } else {
            TRY(hr_network_source__(r, where, key, source_expected, text, &sources[i]));
        }
        width += sources[i].width;
    }
    if (width > HR_MAX_INPUT_WIDTH) {
        return hr_error_set(r->err, HR_INVALID_ARGUMENT, "%s: %s: expected a width of at most %d, found %llu",
                            where, key, HR_MAX_INPUT_WIDTH, (unsigned long long)width);
    }
    *input = (hr_input){sources, (uint32_t)json_array_size(list), (uint32_t)width};
    return HR_OK;
}

/* Step 4: the widths of the experts' layers. */
static hr_status read_hidden(hr_network_reader *r, const json_t *object, const char *where, hr_unit *unit) {
    const uint32_t *hidden = NULL;
    uint32_t n_hidden = 0;
    TRY(hr_network_widths__(r, object, where, "hidden", unit->n_experts > 0, &hidden, &n_hidden));
    if ((unit->n_experts > 0) != (n_hidden > 0)) {
        return hr_error_set(r->err, HR_INVALID_ARGUMENT, "%s: hidden: expected %s, found %u widths", where,
                            unit->n_experts > 0 ? "at least one width" : "none for a unit without experts",
                            (unsigned)n_hidden);
    }
    hr_expert_layer *layers = hr_network_alloc__(r, n_hidden, sizeof *layers);
    if (layers == NULL) return HR_OUT_OF_MEMORY;
    uint32_t in = unit->input.width;
    for (uint32_t i = 0; i < n_hidden; i++) {
        layers[i].in = in;
        layers[i].out = in = hidden[i];
    }
    unit->expert_layers = layers;
    unit->n_expert_layers = n_hidden;
    return HR_OK;
}

/* Step 3. */
static hr_status read_feature_gate(hr_network_reader *r, const json_t *object, const char *where,
                                   hr_unit *unit) {
    static const char *const keys[] = {"loras", "rank"};
    const json_t *gate = NULL;
    TRY(hr_json_get_object(object, where, "feature_gate", false, &gate, r->err));
    if (gate == NULL) return HR_OK;
    if (unit->n_experts == 0) {
        return hr_error_set(r->err, HR_INVALID_ARGUMENT,
                            "%s: feature_gate: expected none for a unit without experts", where);
    }
    char inside[sizeof(unit_place) + 16];
    snprintf(inside, sizeof inside, "%s: feature_gate", where);
    TRY(hr_json_check_keys(gate, inside, keys, sizeof keys / sizeof keys[0], r->err));
    TRY(hr_json_get_uint(gate, inside, "loras", true, 1, HR_MAX_LORAS, &unit->feature_gate.loras, r->err));
    return hr_json_get_uint(gate, inside, "rank", true, 1, HR_MAX_WIDTH, &unit->feature_gate.rank, r->err);
}

/* Everything of a unit that does not name its neighbours. */
static hr_status read_unit(hr_network_reader *r, const json_t *object, const char *where, hr_unit *unit) {
    static const char *const keys[] = {"name", "input",        "experts",   "hidden",
                                       "mix",  "feature_gate", "self_gate", "gate_input"};
    TRY(hr_json_check_keys(object, where, keys, sizeof keys / sizeof keys[0], r->err));
    const char *name;
    TRY(hr_json_get_name(object, where, "name", true, &name, r->err));
    TRY(hr_network_copy__(r, name, &unit->name));
    TRY(hr_json_get_uint(object, where, "experts", false, 0, HR_MAX_EXPERTS, &unit->n_experts, r->err));
    TRY(read_input(r, object, where, "gate_input", false, &unit->gate_input));
    /* A unit without experts reads only its gate's input. */
    bool only_gates = unit->n_experts == 0 && unit->gate_input.n_sources > 0;
    TRY(read_input(r, object, where, "input", !only_gates, &unit->input));
    if (unit->input.n_sources == 0) unit->input = unit->gate_input;
    if (unit->gate_input.n_sources == 0) unit->gate_input = unit->input;
    TRY(read_hidden(r, object, where, unit));
    TRY(read_feature_gate(r, object, where, unit));
    TRY(hr_json_get_bool(object, where, "self_gate", false, &unit->self_gate, r->err));
    if (unit->self_gate && (unit->n_experts == 0 || json_object_get(object, "mix") == NULL)) {
        return hr_error_set(r->err, HR_INVALID_ARGUMENT, "%s: self_gate: expected %s", where,
                            unit->n_experts == 0 ? "experts of its own" : "a mix");
    }
    return HR_OK;
}

static bool unit_index(const hr_unit *units, uint32_t n_units, const char *name, uint32_t *index) {
    for (uint32_t u = 0; u < n_units; u++) {
        if (strcmp(units[u].name, name) != 0) continue;
        *index = u;
        return true;
    }
    return false;
}

/* One name of a mix: an own index of the layer, not yet in mix[0..n). */
static hr_status read_mixed_unit(hr_network_reader *r, const json_t *value, const char *where,
                                 const hr_layer *layer, uint32_t *mix, size_t n) {
    const char *name;
    TRY(hr_json_as_string(value, where, "mix", &name, r->err));
    if (!unit_index(layer->units, layer->n_units, name, &mix[n])) {
        return hr_json_expected(where, "mix", "a unit of the same layer", value, r->err);
    }
    for (size_t i = 0; i < n; i++) {
        if (mix[i] == mix[n]) return hr_json_expected(where, "mix", "no unit twice", value, r->err);
    }
    return HR_OK;
}

/* The experts that the unit sums, itself included where it has a self gate, have one width: the unit's. */
static hr_status check_mix_widths(hr_network_reader *r, const char *where, const hr_layer *layer,
                                  hr_unit *unit) {
    unit->width = 0;
    for (uint32_t m = 0; m < unit->n_mix + (unit->self_gate ? 1 : 0); m++) {
        const hr_unit *lender = m < unit->n_mix ? &layer->units[unit->mix[m]] : unit;
        uint32_t width = hr_unit_expert_width(lender);
        if (m < unit->n_mix) unit->n_mixed += lender->n_experts;
        if (lender->n_experts == 0) continue;
        if (unit->width != 0 && width != unit->width) {
            return hr_error_set(r->err, HR_INVALID_ARGUMENT,
                                "%s: mix: expected experts of one width, %u, found %u in unit %s", where,
                                (unsigned)unit->width, (unsigned)width,
                                hr_quote(lender->name, strlen(lender->name)).text);
        }
        unit->width = width;
    }
    if (unit->n_mixed == 0) {
        return hr_error_set(r->err, HR_INVALID_ARGUMENT, "%s: mix: expected at least one expert, found none",
                            where);
    }
    return HR_OK;
}

/* Step 5. */
static hr_status read_mix(hr_network_reader *r, const json_t *object, const char *where,
                          const hr_layer *layer, hr_unit *unit) {
    const json_t *list = NULL;
    TRY(hr_json_get_array(object, where, "mix", false, 1, HR_MAX_UNITS, &list, r->err));
    unit->width = hr_unit_expert_width(unit);
    if (list == NULL) return HR_OK; /* step 7 */
    uint32_t *mix = hr_network_alloc__(r, json_array_size(list), sizeof *mix);
    if (mix == NULL) return HR_OUT_OF_MEMORY;
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(read_mixed_unit(r, json_array_get(list, i), where, layer, mix, i));
    }
    unit->mix = mix;
    unit->n_mix = (uint32_t)json_array_size(list);
    return check_mix_widths(r, where, layer, unit);
}

hr_status hr_network_units__(hr_network_reader *r, const json_t *list, const char *layer_name,
                             hr_layer *layer) {
    uint32_t n_units = (uint32_t)json_array_size(list);
    hr_unit *units = hr_network_alloc__(r, n_units, sizeof *units);
    if (units == NULL) return HR_OUT_OF_MEMORY;
    layer->units = units;
    for (uint32_t u = 0; u < n_units; u++) {
        const json_t *object = json_array_get(list, u);
        unit_place where = place_of(layer_name, u, object);
        TRY(read_unit(r, object, where.text, &units[u]));
        uint32_t other;
        if (unit_index(units, u, units[u].name, &other)) {
            return hr_error_set(r->err, HR_INVALID_ARGUMENT,
                                "%s: name: expected a unique name, found it in units[%u] too", where.text,
                                (unsigned)other);
        }
        layer->n_units = u + 1;
    }
    for (uint32_t u = 0; u < n_units; u++) {
        const json_t *object = json_array_get(list, u);
        TRY(read_mix(r, object, place_of(layer_name, u, object).text, layer, &units[u]));
    }
    return HR_OK;
}
