/* Numbers from texts (MODEL.md 3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "features/encoder_text.h"

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

static void only_a_whole_decimal_text_is_a_number(void **state) {
    (void)state;
    static const char *const good[] = {"0",   "-0",  "7",    "007",  "1.5",   "-1.50",
                                       "1e3", "1E3", "1e+3", "1e-3", "0.0e0", "12.5e10"};
    static const char *const bad[] = {"",      "-",        "+1",  ".5",       "5.",  "1.e3",  "e3",
                                      "1e",    "1e+",      "1e-", " 1",       "1 ",  "1,5",   "1_0",
                                      "0x10",  "inf",      "nan", "Infinity", "--1", "1.2.3", "1e3.",
                                      "1e3e3", "\xd9\xa1", "1\n", "NaN",      "1f",  "/",     ":"};
    double number;
    for (size_t i = 0; i < N_OF(good); i++) {
        assert_true(hr__text_number(good[i], strlen(good[i]), &number));
        assert_true(number == strtod(good[i], NULL));
    }
    for (size_t i = 0; i < N_OF(bad); i++)
        if (hr__text_number(bad[i], strlen(bad[i]), &number)) fail_msg("taken as a number: \"%s\"", bad[i]);
    assert_false(hr__text_number("1\0", 2, &number));
}

static void no_byte_behind_the_text_is_read(void **state) {
    (void)state;
    static const char text[] = "12.5e1";
    static const double prefixes[] = {1, 12, NAN, 12.5, NAN, 125};
    double number;
    for (size_t n = 1; n <= strlen(text); n++) {
        char *exact = malloc(n); /* so that a sanitizer sees a byte too many */
        assert_non_null(exact);
        memcpy(exact, text, n);
        assert_int_equal(hr__text_number(exact, n, &number), !isnan(prefixes[n - 1]));
        if (!isnan(prefixes[n - 1])) assert_true(number == prefixes[n - 1]);
        free(exact);
    }
}

static void a_text_gives_the_nearest_double(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double number;
    } cases[] = {
        {"9007199254740993", 9007199254740992.0}, /* halfway: to even */
        {"9007199254740995", 9007199254740996.0},
        {"9007199254740993.0000000000000000000000000001", 9007199254740994.0},
        {"1e23", 1e23},
        {"123456789012345678901234567890e-30", 0.12345678901234568},
        {"1.7976931348623157e308", DBL_MAX},
        {"1.7976931348623159e308", INFINITY},
        {"-1e400", -INFINITY},
        {"1e99999999999999999999999999", INFINITY},
        {"0e99999999999999999999999999", 0},
        {"1e-99999999999999999999999999", 0},
        {"5e-324", 0x1p-1074},
        {"2e-324", 0},
        {"0.000000000000000000000000000000000000001e39", 1},
        {"100000000000000000000000000000000000000000e-41", 1},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        double number;
        assert_true(hr__text_number(cases[i].text, strlen(cases[i].text), &number));
        if (number != cases[i].number) fail_msg("%s gave %a", cases[i].text, number);
    }
}

static void texts_of_any_length_are_exact(void **state) {
    (void)state;
    /* 2^53 + 1 is halfway between two doubles; a digit 5000 places on decides. */
    enum { N = 5000 };
    char text[N + 64];
    double number;
    size_t n = (size_t)snprintf(text, sizeof text, "9007199254740993.");
    memset(text + n, '0', N);
    text[n + N - 1] = '1';
    assert_true(hr__text_number(text, n + N, &number));
    assert_true(number == 9007199254740994.0);
    text[n + N - 1] = '0';
    assert_true(hr__text_number(text, n + N, &number));
    assert_true(number == 9007199254740992.0);
    /* 5000 zeros before and after the point, undone by the exponent. */
    memset(text, '0', N);
    memcpy(text, "0.", 2);
    n = N + (size_t)snprintf(text + N, sizeof text - N, "25e%d", N);
    assert_true(hr__text_number(text, n, &number));
    assert_true(number == 25); /* 0.(4998 zeros)25 */
    memset(text, '0', N);
    text[0] = '3';
    n = N + (size_t)snprintf(text + N, sizeof text - N, "e-%d", N);
    assert_true(hr__text_number(text, n, &number));
    assert_true(number == 0.3);
}

static void random_texts_agree_with_the_c_library(void **state) {
    (void)state;
    uint64_t seed = 88172645463325252u; /* xorshift64 */
    for (int i = 0; i < 200000; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        char text[64];
        int digits = (int)(seed % 19) + 1, point = (int)(seed / 19 % 8),
            exponent = (int)(seed / 152 % 80) - 40;
        size_t n = 0;
        if (seed >> 63) text[n++] = '-';
        uint64_t pool = seed * 0x9E3779B97F4A7C15u;
        for (int d = 0; d < digits; d++, pool /= 7) {
            text[n++] = (char)('0' + pool % 10);
            if (d == point && d + 1 < digits) text[n++] = '.';
        }
        if (seed & 1) n += (size_t)snprintf(text + n, sizeof text - n, "e%d", exponent);
        text[n] = '\0';
        double number;
        assert_true(hr__text_number(text, n, &number));
        if (number != strtod(text, NULL)) fail_msg("%s gave %a, not %a", text, number, strtod(text, NULL));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_whole_decimal_text_is_a_number),
        cmocka_unit_test(no_byte_behind_the_text_is_read),
        cmocka_unit_test(a_text_gives_the_nearest_double),
        cmocka_unit_test(texts_of_any_length_are_exact),
        cmocka_unit_test(random_texts_agree_with_the_c_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
