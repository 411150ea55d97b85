/* The feature encoder (MODEL.md 3): values of fields in, encoded rows out.
 *
 * An encoder is made once per schema and is immutable: any thread may use it. The scratch of one encoding, an
 * hr_bound, belongs to the caller's request. Values are doubles until the last step, then rounded to f32.
 *
 * To encode a row: clear the bindings (all zero), bind the stored record's values, then the inline ones (the
 * later wins, field by field), then hr_encode_row. Or in two parts, the first of which can be kept: bind the
 * stored values, hr_encode_stored; clear, bind the inline ones, hr_encode_inline. A feature reads one field,
 * so both ways give the same bits. A user's `user_id` and an item's `item_id` are always the
 * id asked for: they are no field of their record, and a value bound under that name is ignored.
 */
#ifndef HOMERANK_FEATURES_ENCODER_H
#define HOMERANK_FEATURES_ENCODER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "features/store.h"
#include "proto/homerank.pb-c.h"
#include "schema/schema.h"

typedef struct hr_encoder hr_encoder;

/* One field's value. All zero: missing. */
typedef struct hr_binding {
    const Homerank__V1__FeatureValue *value; /* borrowed; NULL: missing, or plain text */
    const char *plain; /* (plain_nbytes) the text of a hash's field (HR_RECORD_FIELDS), borrowed; else NULL */
    size_t plain_nbytes; /* what the text stands for depends on the feature: lists are split at commas */
    bool is_inline;      /* from the request: a wrong kind is an error, not a count */
} hr_binding;

/* The schema is borrowed and must outlive the encoder. Errors: OUT_OF_MEMORY. */
hr_status hr_encoder_create(const hr_schema *schema, hr_encoder **encoder, hr_error *err);
void hr_encoder_destroy(hr_encoder *encoder); /* NULL is allowed */

/* The distinct fields that the schema reads of an entity; the slots of a binding array. */
const hr_field_list *hr_encoder_fields(const hr_encoder *encoder, hr_entity entity);

/* Binds field `name` to value in bindings[n_names of the entity]; a field the schema does not read is
 * ignored. The caller clears bindings (all zero) before each row. */
void hr_bind(const hr_encoder *encoder, hr_entity entity, hr_binding *bindings, const char *name,
             const Homerank__V1__FeatureValue *value, bool is_inline);

/* Binds a stored record. A record that is not a valid FeatureMap binds nothing and adds 1 to *n_invalid, as
 * does each of VALUES that is no feature's value; a missing record binds nothing. What it unpacks lives in the arena. Errors: RESOURCE_EXHAUSTED when the
 * arena's cap is reached. */
hr_status hr_bind_record(const hr_encoder *encoder, hr_entity entity, hr_binding *bindings,
                         const hr_record *record, hr_arena *arena, uint32_t *n_invalid, hr_error *err);

/* Encodes one row of hr_row_words(schema, entity) words. id is the user's or item's id (ignored for context).
 * Values of the wrong kind: in a stored record they are missing and add 1 to *n_invalid for every feature
 * that reads them (in an `ids` list, for every such element); inline they are INVALID_ARGUMENT, "feature F:
 * expected E, found V". Writes the whole row, unused words of `ids` as zeros, unless it fails. */
hr_status hr_encode_row(const hr_encoder *encoder, hr_entity entity, const char *id,
                        const hr_binding *bindings, void *row, uint32_t *n_invalid, hr_error *err);

/* How many values of the wrong kind there were, by what they were read for: the record itself, then the
 * entity's features in the schema's order. */
size_t hr_encoder_n_counts(const hr_encoder *encoder, hr_entity entity);

/* hr_encode_row of stored values alone, which are never an error. n_wrong: (n_counts) [0], the record's own
 * count, is the caller's; sets the others. Returns the sum of those. */
uint32_t hr_encode_stored(const hr_encoder *encoder, hr_entity entity, const char *id,
                          const hr_binding *bindings, void *row, uint32_t *n_wrong);

/* Encodes the features whose field is bound inline over a row of stored ones. n_wrong: the row's counts
 * (NULL: all zero); what those features had counted is taken off *n_invalid, so that it counts as
 * hr_encode_row does. Errors: as hr_encode_row's. */
hr_status hr_encode_inline(const hr_encoder *encoder, hr_entity entity, const hr_binding *bindings, void *row,
                           const uint32_t *n_wrong, uint32_t *n_invalid, hr_error *err);

#endif
