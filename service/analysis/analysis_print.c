/* An analysis as tables and as JSON. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "service/analysis/analysis_result.h"
#include "service/text_table.h"

enum { TABLE_CAP_NBYTES = 64 << 20 };

static const char *task_name(const hr_analysis_result *result, uint32_t task) {
    return hr_interner_text(result->tasks, task);
}

static void print_heading(const hr_analysis_result *result, FILE *out) {
    const hr_trial *trial = result->trial;
    fprintf(out, "experiment ");
    hr_text_print_safe(result->experiment, out);
    fprintf(out, ": %" PRIu64 " exposures, %" PRIu64 " users left out (in more than one variation)\n",
            trial->n_exposures, trial->n_crossed);
    fprintf(out, "users per variation against %s: p = %.4f%s\n",
            result->known_shares ? "the weights" : "equal shares", result->shares_p_value,
            result->shares_p_value < 0.001 ? " (a sample ratio mismatch: do not trust what follows)" : "");
}

static bool variation_cell(hr_text_table *table, const hr_trial *trial, uint32_t v) {
    if (trial->keys[v] == NULL) return hr_text_table_cellf(table, "%" PRIu32, v);
    return hr_text_table_cellf(table, "%" PRIu32 " (%s)", v, trial->keys[v]);
}

static bool difference_cells(hr_text_table *table, const hr_analysis_cell *cell) {
    const hr_estimate *d = &cell->difference;
    if (!d->known) {
        return hr_text_table_cell(table, "") && hr_text_table_cell(table, "") &&
               hr_text_table_cell(table, "");
    }
    if (!hr_text_table_cellf(table, "%+.5f", d->value)) return false;
    if (!d->has_error || d->standard_error == 0)
        return hr_text_table_cell(table, "unknown") && hr_text_table_cell(table, "");
    hr_interval i = hr_interval_of(d);
    return hr_text_table_cellf(table, "%+.5f to %+.5f", i.low, i.high) &&
           hr_text_table_cellf(table, "%.4f", i.p_value);
}

static bool add_row(hr_text_table *table, const hr_analysis_result *result, uint32_t task, hr_measure measure,
                    uint32_t v) {
    const hr_analysis_cell *cell = hr_analysis_at(result, task, measure, v);
    return hr_text_table_cell(table, v == 0 ? task_name(result, task) : "") &&
           hr_text_table_cell(table, v == 0 ? hr_measure_names[measure] : "") &&
           variation_cell(table, result->trial, v) &&
           hr_text_table_cellf(table, "%" PRIu64, cell->estimate.n_users) &&
           hr_text_table_cellf(table, "%" PRIu64, cell->estimate.n) &&
           (cell->estimate.known ? hr_text_table_cellf(table, "%.5f", cell->estimate.value)
                                 : hr_text_table_cell(table, "unknown")) &&
           difference_cells(table, cell);
}

/* AUC only where there were predictions. */
static bool is_shown(const hr_analysis_result *result, uint32_t task, hr_measure measure) {
    for (uint32_t v = 0; v < result->trial->n_variations; v++) {
        if (hr_analysis_at(result, task, measure, v)->estimate.n > 0) return true;
    }
    return false;
}

hr_status hr_analysis_print(const hr_analysis_result *result, FILE *out, hr_error *err) {
    static const struct {
        const char *title;
        bool to_the_right;
    } columns[] = {{"task", false},    {"", false},     {"variation", false}, {"users", true},
                   {"outcomes", true}, {"value", true}, {"difference", true}, {"95 % interval", true},
                   {"p", true}};
    enum { N_COLUMNS = sizeof columns / sizeof columns[0] };
    hr_arena *arena = hr_arena_create(TABLE_CAP_NBYTES);
    size_t n_rows = (size_t)result->n_tasks * HR_MEASURE_COUNT * result->trial->n_variations;
    hr_text_table *table = arena == NULL ? NULL : hr_text_table_create(arena, N_COLUMNS, n_rows);
    bool fits = table != NULL;
    for (size_t c = 0; fits && c < N_COLUMNS; c++)
        hr_text_table_column(table, columns[c].title, columns[c].to_the_right);
    for (uint32_t task = 0; fits && task < result->n_tasks; task++) {
        for (int measure = 0; measure < HR_MEASURE_COUNT; measure++) {
            if (!is_shown(result, task, (hr_measure)measure)) continue;
            for (uint32_t v = 0; fits && v < result->trial->n_variations; v++)
                fits = add_row(table, result, task, (hr_measure)measure, v);
        }
    }
    if (fits) {
        print_heading(result, out);
        hr_text_table_print(table, out);
        fputc('\n', out);
    }
    hr_arena_destroy(arena);
    return fits ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the table");
}

/* ---- JSON ---- */

/* Outcomes near the largest number may add up to more, which JSON has no way to write. */
static json_t *number_or_null(bool known, double value) {
    return known && isfinite(value) ? json_real(value) : json_null();
}

static json_t *cell_json(const hr_analysis_result *result, uint32_t task, hr_measure measure, uint32_t v) {
    const hr_analysis_cell *cell = hr_analysis_at(result, task, measure, v);
    const hr_estimate *e = &cell->estimate, *d = &cell->difference;
    bool tested = d->known && d->has_error && d->standard_error > 0;
    hr_interval i = tested ? hr_interval_of(d) : (hr_interval){0};
    return json_pack("{s:s, s:s, s:i, s:s*, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "task",
                     task_name(result, task), "measure", hr_measure_names[measure], "variation", (int)v,
                     "variation_key", result->trial->keys[v], "users", (json_int_t)e->n_users, "outcomes",
                     (json_int_t)e->n, "value", number_or_null(e->known, e->value), "standard_error",
                     number_or_null(e->has_error, e->standard_error), "difference",
                     number_or_null(d->known, d->value), "low", number_or_null(tested, i.low), "high",
                     number_or_null(tested, i.high), "p_value", number_or_null(tested, i.p_value));
}

static json_t *result_json(const hr_analysis_result *result) {
    json_t *cells = json_array(), *users = json_array();
    for (uint32_t v = 0; v < result->trial->n_variations; v++)
        json_array_append_new(users, json_integer((json_int_t)result->trial->n_users[v]));
    for (uint32_t task = 0; task < result->n_tasks; task++) {
        for (int measure = 0; measure < HR_MEASURE_COUNT; measure++) {
            if (!is_shown(result, task, (hr_measure)measure)) continue;
            for (uint32_t v = 0; v < result->trial->n_variations; v++)
                json_array_append_new(cells, cell_json(result, task, (hr_measure)measure, v));
        }
    }
    return json_pack("{s:s, s:I, s:I, s:o, s:f, s:b, s:o}", "experiment", result->experiment, "exposures",
                     (json_int_t)result->trial->n_exposures, "users_left_out",
                     (json_int_t)result->trial->n_crossed, "users", users, "shares_p_value",
                     result->shares_p_value, "shares_known", (int)result->known_shares, "estimates", cells);
}

hr_status hr_analysis_print_json(const hr_analysis_result *results, size_t n_results, FILE *out,
                                 hr_error *err) {
    json_t *experiments = json_array();
    for (size_t i = 0; i < n_results; i++) json_array_append_new(experiments, result_json(&results[i]));
    json_t *whole = json_pack("{s:o}", "experiments", experiments);
    char *text = whole == NULL ? NULL : json_dumps(whole, JSON_COMPACT);
    json_decref(whole);
    if (text == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the analysis");
    fprintf(out, "%s\n", text);
    free(text);
    return HR_OK;
}
