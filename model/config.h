/* config.json (MODEL.md 1): schema, network and fusion, completely checked. Internal to model/. */
#ifndef HOMERANK_MODEL_CONFIG_H
#define HOMERANK_MODEL_CONFIG_H

#include "model/fusion.h"
#include "model/network.h"

typedef struct hr_config {
    hr_arena *arena; /* owns what plan points to */
    hr_schema *schema;
    hr_plan plan; /* all its tensors are NULL */
    hr_config_norm norm;
    hr_fusion *fusion;
} hr_config;

/* From the text of the file. Errors: INVALID_ARGUMENT naming the place, key, expected, found; OUT_OF_MEMORY.
 */
hr_status hr_config_parse(const char *text, size_t nbytes, hr_config *config, hr_error *err);

/* From the file. Errors as above, and IO. */
hr_status hr_config_load(const char *path, hr_config *config, hr_error *err);

/* Frees what config holds; a zeroed config is allowed. */
void hr_config_clear(hr_config *config);

#endif
