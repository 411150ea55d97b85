/* Decimal texts of integral numbers, against worked examples and the C library. */
#include "base/decimal.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

static void an_integral_number_has_its_shortest_decimal_form(void **state) {
    (void)state;
    static const struct {
        double number;
        const char *text;
    } cases[] = {
        {0.0, "0"},
        {-0.0, "0"},
        {7.0, "7"},
        {-7.0, "-7"},
        {1e15, "1000000000000000"},
        {9007199254740993.0, "9007199254740992"}, /* 2^53 + 1 is no double */
        {0x1p63, "9223372036854775808"},
        {-0x1p63, "-9223372036854775808"},
        {0x1.fffffffffffffp62, "9223372036854774784"}, /* the last below 2^63 */
        {1e20, "100000000000000000000"},
        {1e22, "10000000000000000000000"},
        {1e23, "99999999999999991611392"}, /* the double nearest to it */
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        char text[HR_DECIMAL_SIZE];
        assert_int_equal(hr_decimal_text(cases[i].number, text), strlen(cases[i].text));
        assert_string_equal(text, cases[i].text);
    }
}

static void the_longest_number_fits(void **state) {
    (void)state;
    char text[HR_DECIMAL_SIZE], expected[HR_DECIMAL_SIZE];
    snprintf(expected, sizeof expected, "%.0f", -DBL_MAX);
    assert_int_equal(hr_decimal_text(-DBL_MAX, text), 310);
    assert_string_equal(text, expected);
}

static void a_number_that_is_not_integral_has_no_text(void **state) {
    (void)state;
    static const double numbers[] = {0.5,  -1.25,    1e-300,    5e-324, 4503599627370495.5,
                                     -0.1, INFINITY, -INFINITY, NAN};
    char text[HR_DECIMAL_SIZE];
    for (size_t i = 0; i < N_OF(numbers); i++) assert_int_equal(hr_decimal_text(numbers[i], text), 0);
}

/* Every exponent, several mantissas each. */
static void numbers_of_every_size_agree_with_the_c_library(void **state) {
    (void)state;
    uint64_t seed = 88172645463325252u; /* xorshift64 */
    for (int exponent = 0; exponent <= 1023; exponent++)
        for (int k = 0; k < 20; k++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            double mantissa = k == 0 ? 1 : 1 + (double)(seed >> 12) * 0x1p-52;
            double number = trunc(ldexp(mantissa, exponent)) * (k % 2 ? -1 : 1);
            char text[HR_DECIMAL_SIZE], expected[HR_DECIMAL_SIZE];
            size_t n = (size_t)snprintf(expected, sizeof expected, "%.0f", number);
            assert_int_equal(hr_decimal_text(number, text), n);
            assert_string_equal(text, expected);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_integral_number_has_its_shortest_decimal_form),
        cmocka_unit_test(the_longest_number_fits),
        cmocka_unit_test(a_number_that_is_not_integral_has_no_text),
        cmocka_unit_test(numbers_of_every_size_agree_with_the_c_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
