/* UTF-8 against an encoder that works the other way round: exactly the encodings of all scalar values are
 * valid. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static size_t encode(uint32_t scalar, unsigned char out[4]) {
    if (scalar < 0x80) return out[0] = (unsigned char)scalar, 1;
    size_t n = scalar < 0x800 ? 2 : scalar < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; scalar >>= 6) out[i] = 0x80 | (scalar & 0x3F);
    out[0] = (unsigned char)((0xF00 >> n) | scalar);
    return n;
}

static void every_scalar_value_is_valid_and_surrogates_are_not(void **state) {
    (void)state;
    for (uint32_t scalar = 0; scalar < 0x120000; scalar++) {
        unsigned char bytes[4];
        size_t n = encode(scalar, bytes);
        bool is_scalar = scalar <= 0x10FFFF && !(scalar >= 0xD800 && scalar < 0xE000);
        if (hr_utf8_char(bytes, n) != (is_scalar ? n : 0)) fail_msg("U+%X", scalar);
        for (size_t cut = 1; cut < n; cut++)
            if (hr_utf8_char(bytes, cut) != 0) fail_msg("U+%X cut to %zu bytes", scalar, cut);
    }
}

/* All 2^24 sequences of three bytes: the valid ones are 128^3 ASCII and so on; counted by hand. */
static void exactly_the_well_formed_sequences_are_valid(void **state) {
    (void)state;
    uint64_t n_valid = 0;
    for (uint32_t bits = 0; bits < 1u << 24; bits++) {
        unsigned char bytes[3] = {(unsigned char)(bits >> 16), (unsigned char)(bits >> 8),
                                  (unsigned char)bits};
        n_valid += hr_utf8_valid(bytes, 3);
    }
    const uint64_t one = 0x80, two = 0x800 - 0x80, three = 0x10000 - 0x800 - 0x800;
    assert_int_equal(n_valid, one * one * one + 2 * one * two + three);
}

static void overlong_forms_and_values_past_the_end_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "\xC0\x80",         "\xC1\xBF",         "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",         "\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(hr_utf8_valid(bad[i], strlen(bad[i])));
}

static void prefix_finds_the_first_bad_byte_at_any_offset(void **state) {
    (void)state;
    char text[64];
    for (size_t nbytes = 1; nbytes < sizeof text; nbytes++) {
        for (size_t bad = 0; bad < nbytes; bad++) {
            memset(text, 'a', nbytes);
            assert_int_equal(hr_utf8_prefix(text, nbytes), nbytes);
            text[bad] = (char)0xFF;
            assert_int_equal(hr_utf8_prefix(text, nbytes), bad);
        }
    }
    assert_true(hr_utf8_valid("", 0));
    assert_true(hr_utf8_valid("\0", 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scalar_value_is_valid_and_surrogates_are_not),
        cmocka_unit_test(exactly_the_well_formed_sequences_are_valid),
        cmocka_unit_test(overlong_forms_and_values_past_the_end_are_refused),
        cmocka_unit_test(prefix_finds_the_first_bad_byte_at_any_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
