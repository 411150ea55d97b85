/* The histogram's quantiles against those of the sorted values. */
#include "base/histogram.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t draw(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = *state ^ (*state >> 29);
    return x * UINT64_C(0xBF58476D1CE4E5B9);
}

static void quantiles_are_within_a_64th_above_those_of_the_sorted_values(void **state) {
    (void)state;
    enum { N = 20011 };
    static const double qs[] = {0, 1e-9, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    static hr_histogram histogram;
    uint64_t *values = malloc(N * sizeof *values), random = 7;
    for (unsigned width = 1; width <= 64; width += 9) {
        hr_histogram_reset(&histogram);
        for (size_t i = 0; i < N; i++) {
            values[i] = draw(&random) >> (64 - width) >> (draw(&random) % width);
            hr_histogram_record(&histogram, values[i]);
        }
        qsort(values, N, sizeof *values, by_value);
        for (size_t k = 0; k < sizeof qs / sizeof qs[0]; k++) {
            size_t rank = (size_t)ceil(qs[k] * N);
            uint64_t truth = values[rank == 0 ? 0 : rank - 1],
                     found = hr_histogram_quantile(&histogram, qs[k]);
            if (found < truth || found - truth > truth / 64) fail_msg("width %u, q %g", width, qs[k]);
            assert_true(found <= values[N - 1]);
        }
        assert_int_equal(histogram.min, values[0]);
        assert_int_equal(histogram.max, values[N - 1]);
        assert_int_equal(histogram.count, N);
    }
    free(values);
}

static void the_extremes_of_the_range_have_a_bucket(void **state) {
    (void)state;
    static hr_histogram histogram;
    static const uint64_t edges[] = {
        0, 1, 127, 128, 129, 255, 256, UINT64_MAX / 2, UINT64_MAX / 2 + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        hr_histogram_reset(&histogram);
        hr_histogram_record(&histogram, edges[i]);
        assert_int_equal(hr_histogram_quantile(&histogram, 0.5), edges[i]);
    }
}

static void an_empty_one_answers_zero_and_odd_quantiles_are_clamped(void **state) {
    (void)state;
    static hr_histogram histogram;
    hr_histogram_reset(&histogram);
    assert_int_equal(hr_histogram_quantile(&histogram, 0.5), 0);
    hr_histogram_record(&histogram, 5);
    hr_histogram_record(&histogram, 9);
    assert_int_equal(hr_histogram_quantile(&histogram, -1), 5);
    assert_int_equal(hr_histogram_quantile(&histogram, 2), 9);
    assert_int_equal(hr_histogram_quantile(&histogram, (double)NAN), 5);
}

static void merging_equals_recording_everything_in_one(void **state) {
    (void)state;
    static hr_histogram all, even, odd;
    hr_histogram_reset(&all);
    hr_histogram_reset(&even);
    hr_histogram_reset(&odd);
    hr_histogram_merge(&even, &odd);
    assert_memory_equal(&even, &odd, sizeof even);
    uint64_t random = 3;
    for (int i = 0; i < 5000; i++) {
        uint64_t value = draw(&random) >> 40;
        hr_histogram_record(&all, value);
        hr_histogram_record(i % 2 == 0 ? &even : &odd, value);
    }
    hr_histogram_merge(&even, &odd);
    assert_memory_equal(&even, &all, sizeof all);
}

static void a_value_counts_in_the_bucket_whose_top_is_next_above_it(void **state) {
    (void)state;
    static hr_histogram histogram;
    uint64_t random = 3;
    for (unsigned b = 1; b < HR_HISTOGRAM_BUCKETS; b++)
        assert_true(hr_histogram_bucket_top(b) > hr_histogram_bucket_top(b - 1));
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t value = draw(&random) >> (i % 64);
        hr_histogram_reset(&histogram);
        hr_histogram_record(&histogram, value);
        unsigned b = 0;
        while (hr_histogram_bucket_top(b) < value) b++;
        if (histogram.counts[b] != 1) fail_msg("%llu is not in bucket %u", (unsigned long long)value, b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_within_a_64th_above_those_of_the_sorted_values),
        cmocka_unit_test(the_extremes_of_the_range_have_a_bucket),
        cmocka_unit_test(an_empty_one_answers_zero_and_odd_quantiles_are_clamped),
        cmocka_unit_test(merging_equals_recording_everything_in_one),
        cmocka_unit_test(a_value_counts_in_the_bucket_whose_top_is_next_above_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
