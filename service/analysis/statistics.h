/* The few distributions that tests of significance need. Pure; any thread. */
#ifndef HOMERANK_SERVICE_ANALYSIS_STATISTICS_H
#define HOMERANK_SERVICE_ANALYSIS_STATISTICS_H

#include <stddef.h>

#define HR_NORMAL_95                                                                                         \
    1.959963984540054 /* a normal deviate is within this many standard errors in 95 of 100                   \
                       */

/* The chance that a standard normal deviate is at least |z| from 0. */
double hr_normal_two_sided(double z);

/* The chance that a chi-square deviate with df > 0 degrees of freedom is at least x: the regularised upper
 * incomplete gamma function Q(df/2, x/2), by its series (DLMF 8.11.4) and continued fraction (8.9.2). */
double hr_chi_square_upper(double x, double df);

/* Pearson's test of counts (n) against shares (n) that need not add up to 1: the p-value. 1 where nothing is
 * counted or fewer than two shares are positive; 0 where a share of 0 was counted. */
double hr_shares_p_value(const double *counts, const double *shares, size_t n);

#endif
