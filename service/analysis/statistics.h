/* The few distributions that tests of significance need. Pure; any thread. */
#ifndef HOMERANK_SERVICE_ANALYSIS_STATISTICS_H
#define HOMERANK_SERVICE_ANALYSIS_STATISTICS_H

#include <stddef.h>

/* The chance that Student's t with `freedom` > 0 degrees of freedom is at least |t| from 0: the regularised
 * incomplete beta function I_x(freedom/2, 1/2) at x = freedom/(freedom + t^2), by its continued fraction
 * (DLMF 8.17.22). */
double hr_student_two_sided(double t, double freedom);

/* How far from 0 Student's t stays in 95 of 100 cases; for `freedom` >= 1. */
double hr_student_95(double freedom);

/* The degrees of freedom of the standard error of a sum of two independent terms, given theirs (Satterthwaite
 * 1946, Welch 1947): between the smaller and the sum of both. */
double hr_pooled_freedom(double error, double freedom, double other_error, double other_freedom);

/* The chance that a chi-square deviate with df > 0 degrees of freedom is at least x: the regularised upper
 * incomplete gamma function Q(df/2, x/2), by its series (DLMF 8.11.4) and continued fraction (8.9.2). */
double hr_chi_square_upper(double x, double df);

/* Pearson's test of counts (n) against shares (n) that need not add up to 1: the p-value. 1 where nothing is
 * counted or fewer than two shares are positive; 0 where a share of 0 was counted. */
double hr_shares_p_value(const double *counts, const double *shares, size_t n);

#endif
