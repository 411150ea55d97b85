/* What a store's records are to a model: how many there are, how large, and of each feature of the schema how
 * many have a value, one of the wrong kind, or an id that the model does not know.
 *
 * Synchronous, for tools. One thread.
 */
#ifndef HOMERANK_FEATURES_SURVEY_H
#define HOMERANK_FEATURES_SURVEY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "schema/schema.h"

typedef struct hr_survey_options {
    const char *store;       /* URI */
    uint64_t sample;         /* look at so many records of each entity, at least; 0: at all */
    const atomic_bool *stop; /* once true the survey ends, CANCELLED; may be NULL */
} hr_survey_options;

typedef struct hr_survey_entity {
    uint64_t n_records, n_unreadable; /* unreadable ones are not among the others */
    uint64_t nbytes, max_nbytes;      /* of the records; of hashes, of what the schema reads of them */
} hr_survey_entity;

typedef struct hr_survey_feature {
    uint64_t n_present; /* records that have a value */
    uint64_t n_wrong;   /* of those, of the wrong kind (a list: with such an element) */
    uint64_t n_unknown; /* of those, id: the model's row for unknown ids */
} hr_survey_feature;

typedef struct hr_survey {
    hr_survey_entity entities[2]; /* USER and ITEM */
    hr_survey_feature *features;  /* (schema's n_features) owned; context features and the entity's own id,
                                     which  no record holds, stay zero */
    bool whole;                   /* all records were seen */
} hr_survey;

/* Whether the feature is read from records at all. */
bool hr_survey_reads(const hr_feature *feature);

/* Errors: INVALID_ARGUMENT (the URI, or a store that cannot be looked through), NOT_FOUND, UNAVAILABLE, IO,
 * CANCELLED, OUT_OF_MEMORY. survey is to be cleared only after OK. */
hr_status hr_survey_take(const hr_survey_options *options, const hr_schema *schema, hr_survey *survey,
                         hr_error *err);
void hr_survey_clear(hr_survey *survey);

#endif
