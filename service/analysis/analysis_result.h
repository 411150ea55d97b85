/* One experiment's analysis, for the files that make and print it. Not for other folders. */
#ifndef HOMERANK_SERVICE_ANALYSIS_ANALYSIS_RESULT_H
#define HOMERANK_SERVICE_ANALYSIS_ANALYSIS_RESULT_H

#include <stdio.h>

#include "base/arena.h"
#include "service/analysis/estimate.h"

typedef enum hr_measure { HR_MEASURE_MEAN, HR_MEASURE_AUC, HR_MEASURE_COUNT } hr_measure;

typedef struct hr_analysis_cell {
    hr_estimate estimate;
    hr_estimate difference; /* from variation 0; of variation 0 itself unknown */
} hr_analysis_cell;

typedef struct hr_analysis_result {
    const char *experiment;   /* borrowed */
    const hr_trial *trial;    /* borrowed */
    const hr_interner *tasks; /* borrowed */
    uint32_t n_tasks;
    bool known_shares; /* the shares are the experiment's own, not just equal ones */
    double shares_p_value;
    const hr_analysis_cell *cells; /* (n_tasks, HR_MEASURE_COUNT, n_variations); arena */
} hr_analysis_result;

static inline const hr_analysis_cell *hr_analysis_at(const hr_analysis_result *result, uint32_t task,
                                                     hr_measure measure, uint32_t variation) {
    size_t row = (size_t)task * HR_MEASURE_COUNT + measure;
    return &result->cells[row * result->trial->n_variations + variation];
}

/* What the estimate's interval and test say; only where it has_error. */
typedef struct hr_interval {
    double low, high, p_value; /* of a value of 0 */
} hr_interval;
hr_interval hr_interval_of(const hr_estimate *estimate);

extern const char *const hr_measure_names[HR_MEASURE_COUNT];

/* Errors: OUT_OF_MEMORY. */
hr_status hr_analysis_print(const hr_analysis_result *result, FILE *out, hr_error *err);
hr_status hr_analysis_print_json(const hr_analysis_result *results, size_t n_results, FILE *out,
                                 hr_error *err);

#endif
