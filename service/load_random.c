/* Random numbers: see load_random.h. */
#include "service/load_random.h"

#include <math.h>

uint64_t hr_load_random_next(hr_load_random *random) {
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

double hr_load_random_uniform(hr_load_random *random) {
    return ((double)(hr_load_random_next(random) >> 11) + 1) * 0x1p-53;
}

double hr_load_random_exponential(hr_load_random *random, double mean) {
    return -mean * log(hr_load_random_uniform(random));
}

/* The method's names: h(x) = x^-s, the weight; H(x) its integral from 1; both written so that s near 1 and x
 * near 1 lose no digits. */
static double weight(double s, double x) {
    return exp(-s * log(x));
}

static double integral(double s, double x) {
    double log_x = log(x), t = (1 - s) * log_x;
    return fabs(t) > 1e-8 ? expm1(t) / t * log_x : (1 + t / 2) * log_x;
}

static double integral_inverse(double s, double y) {
    double t = fmax(-1, (1 - s) * y);
    return exp(fabs(t) > 1e-8 ? log1p(t) / t * y : (1 - t / 2) * y);
}

void hr_load_zipf_init(hr_load_zipf *zipf, uint64_t n, double exponent) {
    *zipf = (hr_load_zipf){.n = n, .exponent = exponent};
    zipf->area_first = integral(exponent, 1.5) - 1;
    zipf->area_last = integral(exponent, (double)n + 0.5);
    zipf->squeeze = 2 - integral_inverse(exponent, integral(exponent, 2.5) - weight(exponent, 2));
}

uint64_t hr_load_zipf_draw(const hr_load_zipf *zipf, hr_load_random *random) {
    const double s = zipf->exponent, last = (double)zipf->n;
    for (;;) {
        double u = zipf->area_last + hr_load_random_uniform(random) * (zipf->area_first - zipf->area_last);
        double x = integral_inverse(s, u);
        double k = fmin(last, fmax(1, floor(x + 0.5)));
        if (k - x <= zipf->squeeze || u >= integral(s, k + 0.5) - weight(s, k)) return (uint64_t)k - 1;
    }
}
