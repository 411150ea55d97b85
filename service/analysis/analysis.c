/* The analysis of experiments: see analysis.h. */
#include "service/analysis/analysis.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "service/analysis/analysis_result.h"
#include "service/analysis/statistics.h"

enum { ARENA_CAP_NBYTES = 256 << 20 };

const char *const hr_measure_names[HR_MEASURE_COUNT] = {[HR_MEASURE_MEAN] = "mean", [HR_MEASURE_AUC] = "AUC"};

hr_interval hr_interval_of(const hr_estimate *estimate) {
    double half = hr_student_95(estimate->freedom) * estimate->standard_error;
    double p = hr_student_two_sided(estimate->value / estimate->standard_error, estimate->freedom);
    return (hr_interval){estimate->value - half, estimate->value + half, p};
}

hr_status hr_analysis_read_weights(const char *text, double weights[HR_ANALYSIS_MAX_WEIGHTS],
                                   size_t *n_weights, hr_error *err) {
    double sum = 0;
    const char *at = text;
    for (*n_weights = 0; *n_weights < HR_ANALYSIS_MAX_WEIGHTS; at++) {
        char *end;
        double weight = strtod(at, &end);
        if (end == at || !(weight >= 0 && weight <= 1e9) || (*end != ',' && *end != '\0')) break;
        weights[(*n_weights)++] = weight;
        sum += weight;
        at = end;
        if (*at == '\0' && sum > 0) return HR_OK;
        if (*at == '\0') break;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected weights like 0.5,0.3,0.2, found %s",
                        hr_quote(text, strlen(text)).text);
}

static hr_status test_shares(const hr_analysis_options *options, hr_analysis_result *result, hr_error *err) {
    const uint32_t n = result->trial->n_variations;
    double equal[HR_TRIAL_MAX_VARIATIONS];
    result->known_shares = options->n_weights > 0;
    if (result->known_shares && options->n_weights != n)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "weights: expected %" PRIu32 ", one for each variation of %s, found %zu", n,
                            hr_quote(result->experiment, strlen(result->experiment)).text,
                            options->n_weights);
    for (uint32_t v = 0; v < n; v++) equal[v] = 1;
    result->shares_p_value =
        hr_shares_p_value(result->trial->n_users, result->known_shares ? options->weights : equal, n);
    return HR_OK;
}

static hr_status estimate_cell(const hr_outcomes *outcomes, uint32_t trial, uint32_t task, hr_measure measure,
                               uint32_t variation, hr_analysis_cell *cell, hr_error *err) {
    hr_status status = HR_OK;
    if (measure == HR_MEASURE_MEAN)
        cell->estimate = hr_estimate_mean(outcomes, trial, variation, task);
    else
        status = hr_estimate_auc(outcomes, trial, variation, task, &cell->estimate, err);
    return status;
}

static hr_status estimate_trial(const hr_analysis_options *options, const hr_outcomes *outcomes,
                                uint32_t trial, hr_arena *arena, hr_analysis_result *result, hr_error *err) {
    const hr_trials *trials = outcomes->trials;
    *result = (hr_analysis_result){.experiment = hr_interner_text(trials->experiments, trial),
                                   .trial = &trials->trials[trial],
                                   .tasks = outcomes->tasks,
                                   .n_tasks = hr_interner_count(outcomes->tasks)};
    const uint32_t n_variations = result->trial->n_variations;
    size_t n_rows = (size_t)result->n_tasks * HR_MEASURE_COUNT;
    hr_analysis_cell *cells = hr_arena_calloc(arena, n_rows * n_variations + 1, sizeof *cells);
    if (cells == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the analysis");
    result->cells = cells;
    hr_status status = test_shares(options, result, err);
    if (status != HR_OK) return status;
    for (size_t row = 0; row < n_rows; row++) {
        hr_analysis_cell *of = cells + row * n_variations;
        for (uint32_t v = 0; v < n_variations; v++) {
            status = estimate_cell(outcomes, trial, (uint32_t)(row / HR_MEASURE_COUNT),
                                   (hr_measure)(row % HR_MEASURE_COUNT), v, &of[v], err);
            if (status != HR_OK) return status;
            if (v > 0) of[v].difference = hr_estimate_difference(&of[0].estimate, &of[v].estimate);
        }
    }
    return HR_OK;
}

static hr_status estimate_all(const hr_analysis_options *options, const hr_outcomes *outcomes,
                              hr_arena *arena, hr_error *err) {
    const uint32_t n_trials = hr_interner_count(outcomes->trials->experiments);
    hr_analysis_result *results = hr_arena_calloc(arena, n_trials, sizeof *results);
    size_t n = 0;
    if (results == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the analysis");
    for (uint32_t t = 0; t < n_trials; t++) {
        const char *name = hr_interner_text(outcomes->trials->experiments, t);
        if (options->experiment[0] != '\0' && strcmp(options->experiment, name) != 0) continue;
        hr_status status = estimate_trial(options, outcomes, t, arena, &results[n], err);
        if (status == HR_OK && !options->json) status = hr_analysis_print(&results[n], options->out, err);
        if (status != HR_OK) return status;
        n++;
    }
    return options->json ? hr_analysis_print_json(results, n, options->out, err) : HR_OK;
}

static hr_status check_exposures(const hr_analysis_options *options, const hr_trials *trials, hr_error *err) {
    const char *path = options->exposures, *name = options->experiment;
    if (hr_interner_count(trials->experiments) == 0)
        return hr_error_set(err, HR_NOT_FOUND, "%s: expected exposures to an experiment, found none",
                            hr_quote(path, strlen(path)).text);
    if (name[0] == '\0' || hr_interner_find(trials->experiments, name) != HR_INTERNER_NONE) return HR_OK;
    return hr_error_set(err, HR_NOT_FOUND, "%s: expected exposures to the experiment %s, found none",
                        hr_quote(path, strlen(path)).text, hr_quote(name, strlen(name)).text);
}

hr_status hr_analyze(const hr_analysis_options *options, uint64_t *n_bad, hr_error *err) {
    hr_trials trials;
    hr_outcomes outcomes = {0};
    *n_bad = 0;
    hr_status status = hr_trials_create(&trials, err);
    if (status != HR_OK) return status;
    hr_arena *arena = hr_arena_create(ARENA_CAP_NBYTES);
    if (arena == NULL) status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the analysis");
    if (status == HR_OK) status = hr_trials_read(&trials, options->exposures, options->messages, n_bad, err);
    if (status == HR_OK) status = check_exposures(options, &trials, err);
    if (status == HR_OK)
        status = hr_outcomes_read(&outcomes, &trials, options->outcomes, options->messages, n_bad, err);
    if (status == HR_OK && outcomes.n_unexposed > 0)
        fprintf(options->messages, "%" PRIu64 " of %" PRIu64 " outcomes are of users in no experiment\n",
                outcomes.n_unexposed, outcomes.n_lines);
    if (status == HR_OK) status = estimate_all(options, &outcomes, arena, err);
    hr_arena_destroy(arena);
    hr_outcomes_destroy(&outcomes);
    hr_trials_destroy(&trials);
    return status;
}
