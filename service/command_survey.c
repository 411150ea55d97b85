/* `homerank features stats` and `homerank features check`: what a store's records are to a model. */
#include <inttypes.h>
#include <stdio.h>

#include "features/survey.h"
#include "model/model.h"
#include "service/commands.h"
#include "service/text_table.h"

enum { NAME_SIZE = 256, TABLE_ARENA_NBYTES = 256 << 20, N_COLUMNS = 7 };

static const char *const entity_names[] = {[HR_ENTITY_USER] = "user", [HR_ENTITY_ITEM] = "item"};

static hr_status load_model(const char *dir, hr_model **model, hr_error *err) {
    static const hr_model_options options = {
        .backend = "reference", .precision = HR_PRECISION_F32, .n_workers = 1};
    char name[NAME_SIZE];
    uint64_t version;
    hr_status status = hr_model_identify(dir, name, sizeof name, &version, err);
    return status ? status : hr_model_load(dir, name, version, &options, model, err);
}

static hr_status take(const hr_options *options, hr_model **model, hr_survey *survey, hr_error *err) {
    const hr_survey_options of = {
        .store = options->store, .sample = options->sample, .stop = hr_command_stop_flag()};
    hr_status status = load_model(options->model, model, err);
    return status ? status : hr_survey_take(&of, hr_model_schema(*model), survey, err);
}

/* --- stats ------------------------------------------------------------------------------------------------
 */

static double percent(uint64_t part, uint64_t whole) {
    return whole == 0 ? 0 : 100.0 * (double)part / (double)whole;
}

static void print_entity(const char *name, const hr_survey_entity *of) {
    printf("%s: %" PRIu64 " records", name, of->n_records);
    if (of->n_records > 0)
        printf(", %.1f bytes each, %" PRIu64 " at most", (double)of->nbytes / (double)of->n_records,
               of->max_nbytes);
    if (of->n_unreadable > 0) printf("; %" PRIu64 " more cannot be read", of->n_unreadable);
    printf("\n");
}

static bool add_row(hr_text_table *table, const hr_feature *feature, const hr_survey_feature *of,
                    uint64_t n_records) {
    return hr_text_table_cell(table, feature->name) &&
           hr_text_table_cell(table, entity_names[feature->entity]) &&
           hr_text_table_cell(table, feature->field) &&
           hr_text_table_cellf(table, "%.1f %%", percent(of->n_present, n_records)) &&
           hr_text_table_cellf(table, "%.1f %%", percent(n_records - of->n_present, n_records)) &&
           hr_text_table_cellf(table, "%" PRIu64, of->n_wrong) &&
           hr_text_table_cellf(table, "%" PRIu64, of->n_unknown);
}

static hr_status print_features(const hr_schema *schema, const hr_survey *survey, hr_error *err) {
    static const char *const titles[N_COLUMNS] = {"feature", "entity",     "field",     "present",
                                                  "missing", "wrong kind", "unknown id"};
    hr_arena *arena = hr_arena_create(TABLE_ARENA_NBYTES);
    hr_text_table *table = arena == NULL ? NULL : hr_text_table_create(arena, N_COLUMNS, schema->n_features);
    bool whole = table != NULL;
    for (int i = 0; whole && i < N_COLUMNS; i++) hr_text_table_column(table, titles[i], i >= 3);
    for (uint32_t i = 0; whole && i < schema->n_features; i++) {
        const hr_feature *feature = &schema->features[i];
        if (!hr_survey_reads(feature)) continue;
        whole = add_row(table, feature, &survey->features[i], survey->entities[feature->entity].n_records);
    }
    if (whole) hr_text_table_print(table, stdout);
    hr_arena_destroy(arena);
    return whole ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "stats: out of memory");
}

int hr_command_features_stats(const hr_options *options) {
    hr_error err;
    hr_model *model = NULL;
    hr_survey survey;
    hr_status status = take(options, &model, &survey, &err);
    if (!status) {
        for (hr_entity e = HR_ENTITY_USER; e <= HR_ENTITY_ITEM; e++)
            print_entity(entity_names[e], &survey.entities[e]);
        if (!survey.whole) printf("a sample: not all records were looked at\n");
        printf("\n");
        status = print_features(hr_model_schema(model), &survey, &err);
        hr_survey_clear(&survey);
    }
    hr_model_unref(model);
    return status ? hr_command_fail(&err) : 0;
}

/* --- check ------------------------------------------------------------------------------------------------
 */

/* What would leave the model without a feature; how much of it there is. */
static int print_faults(const hr_schema *schema, const hr_survey *survey) {
    int n_faults = 0;
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *feature = &schema->features[i];
        const hr_survey_feature *of = &survey->features[i];
        if (!hr_survey_reads(feature)) continue;
        const char *fault = of->n_present == 0               ? "no record has a value"
                            : of->n_wrong == of->n_present   ? "every value is of the wrong kind"
                            : of->n_unknown == of->n_present ? "the model knows none of the ids"
                                                             : NULL;
        if (fault == NULL) continue;
        printf("error: feature ");
        hr_text_print_safe(feature->name, stdout);
        printf(" (%s field ", entity_names[feature->entity]);
        hr_text_print_safe(feature->field, stdout);
        printf("): %s\n", fault);
        n_faults++;
    }
    return n_faults;
}

static void print_warnings(const hr_schema *schema, const hr_survey *survey) {
    for (hr_entity e = HR_ENTITY_USER; e <= HR_ENTITY_ITEM; e++)
        if (survey->entities[e].n_unreadable > 0)
            printf("warning: %s: %" PRIu64 " records cannot be read\n", entity_names[e],
                   survey->entities[e].n_unreadable);
    for (uint32_t i = 0; i < schema->n_features; i++) {
        const hr_feature *feature = &schema->features[i];
        const hr_survey_feature *of = &survey->features[i];
        if (of->n_wrong == 0 || of->n_wrong == of->n_present) continue;
        printf("warning: feature ");
        hr_text_print_safe(feature->name, stdout);
        printf(": %" PRIu64 " of %" PRIu64 " values are of the wrong kind\n", of->n_wrong, of->n_present);
    }
}

int hr_command_features_check(const hr_options *options) {
    hr_error err;
    hr_model *model = NULL;
    hr_survey survey;
    hr_status status = take(options, &model, &survey, &err);
    if (status) {
        hr_model_unref(model);
        return hr_command_fail(&err);
    }
    const hr_schema *schema = hr_model_schema(model);
    const int n_faults = print_faults(schema, &survey);
    print_warnings(schema, &survey);
    printf("%s: %" PRIu64 " users and %" PRIu64 " items%s: %s\n", hr_model_label(model),
           survey.entities[HR_ENTITY_USER].n_records, survey.entities[HR_ENTITY_ITEM].n_records,
           survey.whole ? "" : " (a sample)",
           n_faults == 0 ? "every feature has values" : "not every feature has values");
    hr_survey_clear(&survey);
    hr_model_unref(model);
    return n_faults == 0 ? 0 : 1;
}
