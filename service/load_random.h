/* Random numbers of the load generator: seeded, so that a run can be repeated. One thread each. */
#ifndef HOMERANK_SERVICE_LOAD_RANDOM_H
#define HOMERANK_SERVICE_LOAD_RANDOM_H

#include <stdint.h>

/* SplitMix64 (Steele, Lea, Flood 2014); any seed will do. */
typedef struct hr_load_random {
    uint64_t state;
} hr_load_random;

uint64_t hr_load_random_next(hr_load_random *random);

/* Uniform in (0, 1]. */
double hr_load_random_uniform(hr_load_random *random);

/* Exponential with the given mean: the time between the arrivals of a Poisson process. */
double hr_load_random_exponential(hr_load_random *random, double mean);

/* Draws k in [0, n) with a probability in proportion to 1 / (k + 1)^exponent, by rejection-inversion
 * (Hoermann, Derflinger 1996): no table, whatever n. Exponent 0 is uniform. */
typedef struct hr_load_zipf {
    uint64_t n;
    double exponent;
    double area_first, area_last, squeeze; /* constants of the method */
} hr_load_zipf;

/* n >= 1, exponent >= 0. */
void hr_load_zipf_init(hr_load_zipf *zipf, uint64_t n, double exponent);
uint64_t hr_load_zipf_draw(const hr_load_zipf *zipf, hr_load_random *random);

#endif
