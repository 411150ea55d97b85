/* Distributions: see statistics.h. */
#include "service/analysis/statistics.h"

#include <math.h>
#include <stdbool.h>

enum { MOST_TERMS = 10000, HALVINGS = 60 };
#define PRECISION 1e-15

/* ---- Continued fractions: 1/(b0 + a1/(b1 + a2/(b2 + ...))) by Lentz's method ---- */

typedef struct fraction {
    double c, d, value;
} fraction;

static double away_from_zero(double x) {
    return fabs(x) < 1e-300 ? 1e-300 : x;
}

static fraction fraction_begin(double b) {
    double d = 1 / away_from_zero(b);
    return (fraction){.c = 1e300, .d = d, .value = d};
}

/* Takes a and b of the next level; whether the value moved. */
static bool fraction_step(fraction *f, double a, double b) {
    f->d = 1 / away_from_zero(a * f->d + b);
    f->c = away_from_zero(b + a / f->c);
    f->value *= f->c * f->d;
    return fabs(f->c * f->d - 1) >= PRECISION;
}

/* ---- Student's t ---- */

/* x^a y^b / B(a, b), where y = 1 - x. */
static double beta_factor(double a, double b, double x, double y) {
    return exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(y));
}

/* I_x(a, b), y = 1 - x, which converges fast where x < (a + 1) / (a + b + 2). */
static double beta_fraction(double a, double b, double x, double y) {
    fraction f = fraction_begin(1);
    fraction_step(&f, -(a + b) / (a + 1) * x, 1);
    for (int m = 1; m < MOST_TERMS; m++) {
        double at = a + 2 * m;
        fraction_step(&f, m * (b - m) * x / ((at - 1) * at), 1);
        if (!fraction_step(&f, -(a + m) * (a + b + m) * x / (at * (at + 1)), 1)) break;
    }
    return beta_factor(a, b, x, y) * f.value / a;
}

double hr_student_two_sided(double t, double freedom) {
    double a = freedom / 2, squared = t * t;
    double x = 1 / (1 + squared / freedom), y = 1 / (1 + freedom / squared);
    return x < (a + 1) / (a + 2.5) ? beta_fraction(a, 0.5, x, y) : 1 - beta_fraction(0.5, a, y, x);
}

double hr_student_95(double freedom) {
    double low = 1.9, high = 12.8; /* the normal distribution's is 1.96, that of one degree 12.71 */
    for (int i = 0; i < HALVINGS; i++) {
        double middle = (low + high) / 2;
        if (hr_student_two_sided(middle, freedom) > 0.05)
            low = middle;
        else
            high = middle;
    }
    return high;
}

double hr_pooled_freedom(double error, double freedom, double other_error, double other_freedom) {
    double whole = hypot(error, other_error), part = whole > 0 ? error / whole : 0;
    double share = part * part;
    return 1 / (share * share / freedom + (1 - share) * (1 - share) / other_freedom);
}

/* ---- Chi-square ---- */

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

/* Q(a, x), which converges fast elsewhere. */
static double gamma_upper_fraction(double a, double x) {
    double b = x + 1 - a;
    fraction f = fraction_begin(b);
    for (int n = 1; n < MOST_TERMS; n++)
        if (!fraction_step(&f, -n * (n - a), b += 2)) break;
    return f.value * gamma_factor(a, x);
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
