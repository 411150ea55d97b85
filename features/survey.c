/* What a store's records are to a model: see survey.h. Every record is encoded as a server would. */
#include "features/survey.h"

#include <stdlib.h>
#include <string.h>

#include "features/encoder.h"
#include "features/record_scan.h"

enum { BATCH_ARENA_NBYTES = 1 << 30 };

/* Being taken. All owned but schema and options. */
typedef struct work {
    const hr_survey_options *options;
    const hr_schema *schema;
    hr_survey *survey;
    hr_store_uri *uri;
    hr_encoder *encoder;
    hr_record_scan *scan;
    hr_arena *arena;         /* a batch's */
    hr_binding *bindings;    /* (the larger entity's fields) */
    uint32_t *row, *n_wrong; /* (the larger entity's words, counts) */
} work;

bool hr_survey_reads(const hr_feature *feature) {
    if (feature->entity == HR_ENTITY_CONTEXT) return false;
    return strcmp(feature->field, feature->entity == HR_ENTITY_USER ? "user_id" : "item_id") != 0;
}

static bool has_value(const hr_binding *binding) {
    if (binding->plain != NULL) return binding->plain_nbytes > 0;
    return binding->value != NULL && binding->value->kind_case != HOMERANK__V1__FEATURE_VALUE__KIND__NOT_SET;
}

static const hr_binding *binding_of(const work *w, const hr_feature *feature) {
    const hr_field_list *fields = hr_encoder_fields(w->encoder, feature->entity);
    size_t i = 0;
    while (strcmp(fields->names[i], feature->field) != 0) i++; /* it is one of them */
    return &w->bindings[i];
}

static void count_features(work *w, hr_entity entity) {
    size_t place = 0; /* among the entity's features */
    for (uint32_t i = 0; i < w->schema->n_features; i++) {
        const hr_feature *feature = &w->schema->features[i];
        if (feature->entity != entity) continue;
        const uint32_t n_wrong = w->n_wrong[1 + place++];
        if (!hr_survey_reads(feature) || !has_value(binding_of(w, feature))) continue;
        hr_survey_feature *counts = &w->survey->features[i];
        counts->n_present++;
        counts->n_wrong += n_wrong > 0;
        counts->n_unknown += feature->kind == HR_FEATURE_ID && n_wrong == 0 && w->row[feature->slot] == 0;
    }
}

static size_t record_nbytes(const hr_record *record, size_t n_fields) {
    size_t nbytes = 0;
    if (record->kind == HR_RECORD_PACKED) return record->nbytes;
    for (size_t f = 0; f < n_fields; f++) nbytes += record->fields[f].nbytes;
    return nbytes;
}

static hr_status count_record(work *w, hr_entity entity, const char *id, const hr_record *record,
                              hr_error *err) {
    hr_survey_entity *counts = &w->survey->entities[entity];
    const size_t n_fields = hr_encoder_fields(w->encoder, entity)->n_names;
    uint32_t n_invalid = 0;
    if (record->kind == HR_RECORD_MISSING) {
        counts->n_unreadable += record->invalid;
        return HR_OK;
    }
    memset(w->bindings, 0, n_fields * sizeof *w->bindings);
    hr_status status = hr_bind_record(w->encoder, entity, w->bindings, record, w->arena, &n_invalid, err);
    if (status != HR_OK) return status;
    if (record->kind == HR_RECORD_PACKED && n_invalid > 0) {
        counts->n_unreadable++;
        return HR_OK;
    }
    const size_t nbytes = record_nbytes(record, n_fields);
    counts->n_records++;
    counts->nbytes += nbytes;
    if (nbytes > counts->max_nbytes) counts->max_nbytes = nbytes;
    hr_encode_stored(w->encoder, entity, id, w->bindings, w->row, w->n_wrong);
    count_features(w, entity);
    return HR_OK;
}

static hr_status count_entity(work *w, hr_entity entity, hr_error *err) {
    const hr_survey_entity *counts = &w->survey->entities[entity];
    hr_scanned scanned = {.ended = false};
    hr_status status = HR_OK;
    hr_record_scan_begin(w->scan, entity);
    while (status == HR_OK && !scanned.ended) {
        if (w->options->stop != NULL && atomic_load(w->options->stop))
            return hr_error_set(err, HR_CANCELLED, "interrupted");
        if (w->options->sample > 0 && counts->n_records >= w->options->sample) {
            w->survey->whole = false;
            return HR_OK;
        }
        hr_arena_reset(w->arena);
        status = hr_record_scan_next(w->scan, w->arena, &scanned, err);
        for (size_t i = 0; status == HR_OK && i < scanned.n; i++)
            status = count_record(w, entity, scanned.ids[i], &scanned.records[i], err);
    }
    return status;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static hr_status prepare(work *w, hr_error *err) {
    hr_status status = hr_encoder_create(w->schema, &w->encoder, err);
    if (status != HR_OK) return status;
    const hr_field_list *const fields[] = {hr_encoder_fields(w->encoder, HR_ENTITY_USER),
                                           hr_encoder_fields(w->encoder, HR_ENTITY_ITEM)};
    const size_t n_words =
        larger(hr_row_words(w->schema, HR_ENTITY_USER), hr_row_words(w->schema, HR_ENTITY_ITEM));
    const size_t n_counts = larger(hr_encoder_n_counts(w->encoder, HR_ENTITY_USER),
                                   hr_encoder_n_counts(w->encoder, HR_ENTITY_ITEM));
    w->uri = malloc(sizeof *w->uri);
    w->arena = hr_arena_create(BATCH_ARENA_NBYTES);
    w->bindings = calloc(larger(fields[0]->n_names, fields[1]->n_names) + 1, sizeof *w->bindings);
    w->row = calloc(n_words + 1, sizeof *w->row);
    w->n_wrong = calloc(n_counts, sizeof *w->n_wrong);
    w->survey->features = calloc(w->schema->n_features + 1, sizeof *w->survey->features);
    if (w->uri == NULL || w->arena == NULL || w->bindings == NULL || w->row == NULL || w->n_wrong == NULL ||
        w->survey->features == NULL)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "survey: out of memory");
    status = hr_store_uri_parse(w->options->store, w->uri, err);
    return status != HR_OK ? status : hr_record_scan_open(w->options->store, w->uri, fields, &w->scan, err);
}

hr_status hr_survey_take(const hr_survey_options *options, const hr_schema *schema, hr_survey *survey,
                         hr_error *err) {
    *survey = (hr_survey){.whole = true};
    work w = {.options = options, .schema = schema, .survey = survey};
    hr_status status = prepare(&w, err);
    if (status == HR_OK) status = count_entity(&w, HR_ENTITY_USER, err);
    if (status == HR_OK) status = count_entity(&w, HR_ENTITY_ITEM, err);
    hr_record_scan_close(w.scan);
    hr_encoder_destroy(w.encoder);
    hr_arena_destroy(w.arena);
    free(w.n_wrong);
    free(w.row);
    free(w.bindings);
    free(w.uri);
    if (status != HR_OK) hr_survey_clear(survey);
    return status;
}

void hr_survey_clear(hr_survey *survey) {
    free(survey->features);
    survey->features = NULL;
}
