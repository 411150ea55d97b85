/* What schema/'s own files share; nothing outside includes it. */
#ifndef HOMERANK_SCHEMA_SCHEMA_INTERNAL_H
#define HOMERANK_SCHEMA_SCHEMA_INTERNAL_H

#include "schema/schema.h"

/* Bounds on one feature and on their sums, far above any model: they keep every size in a uint32_t. */
enum {
    HR_SCHEMA_MAX_ROWS = INT32_MAX,
    HR_SCHEMA_MAX_DIM = 65536,
    HR_SCHEMA_MAX_IDS = 100000,
    HR_SCHEMA_MAX_NUMBERS = 65536,
    HR_SCHEMA_MAX_BOUNDARIES = 65536,
    HR_SCHEMA_MAX_FEATURES = 65536,
    HR_SCHEMA_MAX_WIDTH = 1 << 20,    /* elements of v */
    HR_SCHEMA_MAX_ROW_WORDS = 1 << 20 /* of one encoded row: 4 MiB */
};

/* Sets every feature's slot, vector_offset and width, the rows' layouts and the schema's width from features
 * and tables. Errors: INVALID_ARGUMENT naming the feature where a sum grows past its bound. */
hr_status hr__schema_lay_out(hr_schema *schema, hr_feature *features, hr_error *err);

/* The fingerprint of all that decides how values become encoded rows and v. */
uint64_t hr__schema_fingerprint(const hr_schema *schema);

#endif
