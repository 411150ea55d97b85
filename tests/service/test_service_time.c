/* What a batch takes, from what batches took. */
#include "service/service_time.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void nothing_is_expected_where_nothing_was_measured(void **state) {
    (void)state;
    hr_service_time time = {0};
    assert_int_equal(hr_service_time_estimate(&time, 1), 0);
    assert_int_equal(hr_service_time_measured_ns(&time), 0);
}

static void what_was_measured_is_expected(void **state) {
    (void)state;
    hr_service_time time = {0};
    for (int i = 0; i < 20; i++) hr_service_time_add(&time, 128, 22000, 7);
    assert_int_equal(hr_service_time_estimate(&time, 128), 22000);
    assert_int_equal(hr_service_time_measured_ns(&time), 7);
}

/* A row of a small batch costs more than one of a large one; how much more is not guessed. */
static void an_estimate_is_never_more_than_can_be_known(void **state) {
    (void)state;
    hr_service_time time = {0};
    hr_service_time_add(&time, 128, 12800, 1);
    assert_int_equal(hr_service_time_estimate(&time, 256), 12800); /* as long as fewer rows */
    assert_int_equal(hr_service_time_estimate(&time, 32), 3200);   /* as long a row as more rows */
    hr_service_time_add(&time, 1, 1000, 1);
    assert_int_equal(hr_service_time_estimate(&time, 1), 1000);
    assert_int_equal(hr_service_time_estimate(&time, 2), 1000);
    assert_int_equal(hr_service_time_estimate(&time, 64), 6400);
    assert_int_equal(hr_service_time_estimate(&time, 128), 12800);
    assert_int_equal(hr_service_time_estimate(&time, 1000000), 12800);
}

static void the_average_follows_what_is_measured(void **state) {
    (void)state;
    hr_service_time time = {0};
    for (int i = 0; i < 8; i++) hr_service_time_add(&time, 64, 1000, 1);
    for (int i = 0; i < 60; i++) hr_service_time_add(&time, 64, 9000, 1);
    assert_in_range(hr_service_time_estimate(&time, 64), 8900, 9000);
    for (int i = 0; i < 60; i++) hr_service_time_add(&time, 64, 1000, 1);
    assert_in_range(hr_service_time_estimate(&time, 64), 1000, 1100);
}

/* One batch during which the machine slept for an hour makes nobody expect hours. */
static void an_outlier_counts_as_four_times_the_average(void **state) {
    (void)state;
    hr_service_time time = {0};
    for (int i = 0; i < 8; i++) hr_service_time_add(&time, 64, 8000, 1);
    hr_service_time_add(&time, 64, UINT64_C(3600000000000), 1);
    assert_int_equal(hr_service_time_estimate(&time, 64), 8000 + 3 * 8000 / 8);
}

static void any_number_of_rows_and_any_time_has_a_place(void **state) {
    (void)state;
    hr_service_time time = {0};
    hr_service_time_add(&time, UINT32_MAX, UINT64_C(1) << 50, 1);
    hr_service_time_add(&time, 1, 0, 1);
    assert_int_equal(hr_service_time_estimate(&time, UINT32_MAX), UINT64_C(1) << 50);
    assert_true(hr_service_time_estimate(&time, 1) >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_expected_where_nothing_was_measured),
        cmocka_unit_test(what_was_measured_is_expected),
        cmocka_unit_test(an_estimate_is_never_more_than_can_be_known),
        cmocka_unit_test(the_average_follows_what_is_measured),
        cmocka_unit_test(an_outlier_counts_as_four_times_the_average),
        cmocka_unit_test(any_number_of_rows_and_any_time_has_a_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
