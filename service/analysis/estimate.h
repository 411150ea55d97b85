/* Estimates of one task in one variation, with intervals by user: users, not impressions, are independent.
 * Pure; any thread. */
#ifndef HOMERANK_SERVICE_ANALYSIS_ESTIMATE_H
#define HOMERANK_SERVICE_ANALYSIS_ESTIMATE_H

#include <stdbool.h>

#include "service/analysis/outcomes.h"

typedef struct hr_estimate {
    bool known;     /* there is a value */
    bool has_error; /* there is a standard error: two users or more */
    double value, standard_error;
    uint64_t n_users, n; /* users with an outcome, and outcomes */
} hr_estimate;

/* The mean outcome, R = sum y / sum n over users: a ratio of two sums over users, whose variance is by the
 * delta method sum (y_u - R n_u)^2 U/(U-1) / (sum n)^2. */
hr_estimate hr_estimate_mean(const hr_outcomes *outcomes, uint32_t trial, uint32_t variation, uint32_t task);

/* The area under the ROC curve of the predictions, ties counting one half. With A the area, V10 of a positive
 * the share of negatives that it beats and V01 of a negative the share of positives that beat it (DeLong,
 * DeLong and Clarke-Pearson 1988), a user's share of A's error is
 *     psi_u = sum over its positives (V10 - A)/P + sum over its negatives (V01 - A)/N,
 * and the variance U/(U-1) sum psi_u^2: users as clusters (Obuchowski 1997). Unknown where a class is empty.
 * Errors: OUT_OF_MEMORY. */
hr_status hr_estimate_auc(const hr_outcomes *outcomes, uint32_t trial, uint32_t variation, uint32_t task,
                          hr_estimate *estimate, hr_error *err);

/* b - a of independent users; known and has_error where both are. */
hr_estimate hr_estimate_difference(const hr_estimate *a, const hr_estimate *b);

#endif
