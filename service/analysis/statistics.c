/* Distributions: see statistics.h. */
#include "service/analysis/statistics.h"

#include <math.h>

enum { MOST_TERMS = 10000 };
#define PRECISION 1e-15

double hr_normal_two_sided(double z) {
    return erfc(fabs(z) * M_SQRT1_2);
}

/* x^a e^-x / Gamma(a). */
static double gamma_factor(double a, double x) {
    return exp(a * log(x) - x - lgamma(a));
}

/* P(a, x), which converges fast where x < a + 1. */
static double gamma_lower_series(double a, double x) {
    double term = 1 / a, sum = term;
    for (int n = 1; n < MOST_TERMS && term > sum * PRECISION; n++) {
        term *= x / (a + n);
        sum += term;
    }
    return sum * gamma_factor(a, x);
}

/* Q(a, x) by Lentz's method, which converges fast elsewhere. */
static double gamma_upper_fraction(double a, double x) {
    const double tiny = 1e-300;
    double b = x + 1 - a, c = 1 / tiny, d = 1 / b, h = d;
    for (int n = 1; n < MOST_TERMS; n++) {
        double an = -n * (n - a);
        b += 2;
        d = an * d + b;
        c = b + an / c;
        if (fabs(d) < tiny) d = tiny;
        if (fabs(c) < tiny) c = tiny;
        d = 1 / d;
        h *= d * c;
        if (fabs(d * c - 1) < PRECISION) break;
    }
    return h * gamma_factor(a, x);
}

double hr_chi_square_upper(double x, double df) {
    double a = df / 2, half = x / 2;
    if (!(half > 0)) return 1;
    return half < a + 1 ? 1 - gamma_lower_series(a, half) : gamma_upper_fraction(a, half);
}

double hr_shares_p_value(const double *counts, const double *shares, size_t n) {
    double total = 0, whole = 0, x = 0;
    size_t n_positive = 0;
    for (size_t i = 0; i < n; i++) {
        if (shares[i] <= 0 && counts[i] > 0) return 0;
        total += counts[i];
        whole += shares[i];
        n_positive += shares[i] > 0;
    }
    if (total <= 0 || n_positive < 2) return 1;
    for (size_t i = 0; i < n; i++) {
        if (shares[i] <= 0) continue;
        double expected = total * shares[i] / whole;
        x += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    return hr_chi_square_upper(x, (double)(n_positive - 1));
}
