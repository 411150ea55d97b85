/* What the readers of layers (network.c), units (network_unit.c) and tasks share. Internal to them. */
#ifndef HOMERANK_MODEL_NETWORK_INTERNAL_H
#define HOMERANK_MODEL_NETWORK_INTERNAL_H

#include "model/network.h"

/* Bounds that no real network meets. They keep every product of sizes within 64 bits and, the last two, what
 * a backend prepares and keeps for a row in proportion: a config.json can ask for very much without tensors,
 * since a unit that mixes a single expert has none. */
enum {
    HR_MAX_LAYERS = 64,
    HR_MAX_UNITS = 1024,
    HR_MAX_TASKS = 1024,
    HR_MAX_EXPERTS = 1024,
    HR_MAX_HIDDEN = 64,
    HR_MAX_WIDTH = 1 << 16,
    HR_MAX_SOURCES = 1024,
    HR_MAX_INPUT_WIDTH = 1 << 22,
    HR_MAX_LORAS = 64,
    HR_MAX_PRODUCTS = 1 << 14,
    HR_MAX_ROW_VALUES = 1 << 23
};

/* A network is read key by key, and the first that is wrong ends it: returns its status from the caller. */
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        hr_status try_status = (call);                                                                       \
        if (try_status != HR_OK) return try_status;                                                          \
    } while (0)

typedef struct hr_network_reader {
    hr_plan *plan;   /* its first n_layers layers are complete */
    hr_arena *arena; /* borrowed; owns what is read */
    hr_error *err;
} hr_network_reader;

/* Zeroed arena memory; on NULL the error is set. */
void *hr_network_alloc__(hr_network_reader *r, size_t count, size_t size);

/* A copy of text in *copy. */
hr_status hr_network_copy__(hr_network_reader *r, const char *text, const char **copy);

/* The unit's output that text ("layer.unit") names, in a layer that is complete; expected is for the error.
 */
hr_status hr_network_source__(hr_network_reader *r, const char *where, const char *key, const char *expected,
                              const char *text, hr_source *source);

/* An array of widths, each 1 to HR_MAX_WIDTH; in the arena. */
hr_status hr_network_widths__(hr_network_reader *r, const json_t *object, const char *where, const char *key,
                              bool required, const uint32_t **widths, uint32_t *n_widths);

/* The units of one layer, from the list that is that layer's "units". */
hr_status hr_network_units__(hr_network_reader *r, const json_t *list, const char *layer_name,
                             hr_layer *layer);

#endif
