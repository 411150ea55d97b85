/* Estimates of one task in one variation, with intervals by user: users, not impressions, are independent.
 * Pure; any thread. */
#ifndef HOMERANK_SERVICE_ANALYSIS_ESTIMATE_H
#define HOMERANK_SERVICE_ANALYSIS_ESTIMATE_H

#include <stdbool.h>

#include "service/analysis/outcomes.h"

typedef struct hr_estimate {
    bool known;     /* there is a value */
    bool has_error; /* there is a standard error: two users or more; of an AUC, in either class */
    double value, standard_error;
    double freedom;      /* of the standard error, in degrees; >= 1 where it has one */
    uint64_t n_users, n; /* users with an outcome, and outcomes */
} hr_estimate;

/* The mean outcome, R = sum y / sum n over users: a ratio of two sums over users, whose variance is by the
 * delta method sum (y_u - R n_u)^2 U/(U-1) / (sum n)^2, with U - 1 degrees of freedom. */
hr_estimate hr_estimate_mean(const hr_outcomes *outcomes, uint32_t trial, uint32_t variation, uint32_t task);

/* The area under the ROC curve of the predictions, ties counting one half. With A the area, V10 of a positive
 * the share of negatives that it beats and V01 of a negative the share of positives that beat it (DeLong,
 * DeLong and Clarke-Pearson 1988), a user's parts of A's error are
 *     p_u = sum over its positives (V10 - A)/P,   q_u = sum over its negatives (V01 - A)/N,
 * and the variance, users as clusters (Obuchowski 1997),
 *     U1/(U1-1) sum p_u^2 + U0/(U0-1) sum q_u^2 + 2 U/(U-1) sum p_u q_u,
 * U1 users having a positive, U0 a negative, U either: it is the number of users of the rarer class that
 * limits how well it is known. Its degrees of freedom are those of the first two terms, U1-1 and U0-1,
 * pooled. Unknown where a class is empty. Errors: OUT_OF_MEMORY. */
hr_status hr_estimate_auc(const hr_outcomes *outcomes, uint32_t trial, uint32_t variation, uint32_t task,
                          hr_estimate *estimate, hr_error *err);

/* b - a of independent users; known and has_error where both are. */
hr_estimate hr_estimate_difference(const hr_estimate *a, const hr_estimate *b);

#endif
