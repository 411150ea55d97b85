/* JSON values as JavaScript sees them: numbers as texts and texts as numbers, patterns, order, lower case.
 * The answers are those of a JavaScript engine. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/experiments/bucketing.h"
#include "service/experiments/js_regex.h"
#include "service/experiments/js_set.h"
#include "service/experiments/js_value.h"

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

static hr_js_text text_of(const char *text) {
    return hr_js_text_of(text, strlen(text));
}

static int make_arena(void **state) {
    *state = hr_arena_create(1 << 22);
    return *state == NULL;
}

static int destroy_arena(void **state) {
    hr_arena_destroy(*state);
    return 0;
}

/* ---- Numbers ---- */

static void a_number_has_its_shortest_text(void **state) {
    (void)state;
    static const struct {
        double number;
        const char *text;
    } rows[] = {
        {0.0, "0"},
        {-0.0, "0"},
        {7.0, "7"},
        {-7.0, "-7"},
        {123456789012345.0, "123456789012345"},
        {1000000000000000.0, "1000000000000000"},
        {999999999999999.0, "999999999999999"},
        {100000000000000000000.0, "100000000000000000000"},
        {1e+21, "1e+21"},
        {-1e+21, "-1e+21"},
        {123456789012345680000.0, "123456789012345680000"},
        {0.1, "0.1"},
        {0.5, "0.5"},
        {1.5, "1.5"},
        {0.3333333333333333, "0.3333333333333333"},
        {100.25, "100.25"},
        {0.000001, "0.000001"},
        {1e-7, "1e-7"},
        {1.5e-7, "1.5e-7"},
        {0.000001234, "0.000001234"},
        {5e-324, "5e-324"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {1.7976931348623157e+308, "1.7976931348623157e+308"},
        {4.35, "4.35"},
        {0.30000000000000004, "0.30000000000000004"},
        {9007199254740992.0, "9007199254740992"},
        {12345.678, "12345.678"},
        {1e+300, "1e+300"},
        {-2.5e-10, "-2.5e-10"},
    };
    for (size_t i = 0; i < N_OF(rows); i++) {
        char text[HR_JS_NUMBER_SIZE];
        assert_int_equal(hr_js_number_text(rows[i].number, text), strlen(rows[i].text));
        assert_string_equal(text, rows[i].text);
    }
}

static void a_text_is_the_number_it_says_or_none(void **state) {
    static const struct {
        const char *text;
        double number;
    } rows[] = {
        {"", 0.0},
        {" ", 0.0},
        {"12", 12.0},
        {" 12 ", 12.0},
        {"\n12\t", 12.0},
        {"0x1F", 31.0},
        {"0X1f", 31.0},
        {"0o17", 15.0},
        {"0b11", 3.0},
        {"0b12", NAN},
        {"0x", NAN},
        {"-0x1", NAN},
        {".5", 0.5},
        {"5.", 5.0},
        {"+5", 5.0},
        {"-5e2", -500.0},
        {"1e", NAN},
        {"e1", NAN},
        {"1_000", NAN},
        {"Infinity", INFINITY},
        {"-Infinity", -INFINITY},
        {"+Infinity", INFINITY},
        {"infinity", NAN},
        {"NaN", NAN},
        {"12px", NAN},
        {"1 2", NAN},
        {"\xc2\xa0"
         "7\xc2\xa0",
         7.0},
        {"\xe2\x80\xa8"
         "7",
         7.0},
        {"1e400", INFINITY},
        {"0.1e-2", 0.001},
        {"--1", NAN},
        {"00012", 12.0},
        {"0x10000000000000000", 18446744073709552000.0},
    };
    hr_js_scratch scratch = {.arena = *state};
    for (size_t i = 0; i < N_OF(rows); i++) {
        double number = hr_js_text_number(text_of(rows[i].text), &scratch);
        if (!(number == rows[i].number || (isnan(number) && isnan(rows[i].number))))
            fail_msg("%s: expected %.17g, found %.17g", rows[i].text, rows[i].number, number);
    }
}

/* ---- Patterns ---- */

static void patterns_are_javascripts(void **state) {
    enum { DIFFERS, MATCHES, REFUSED };
    static const struct {
        const char *pattern, *text;
        int outcome;
    } rows[] = {
        {"a.c", "a\nc", DIFFERS},
        {"a.c",
         "a\xe2\x80\xa8"
         "c",
         DIFFERS},
        {"a.c", "abc", MATCHES},
        {"^b", "ab", DIFFERS},
        {"b$", "ab\n", DIFFERS},
        {"^b$", "a\nb\nc", DIFFERS},
        {"\\Aa", "Aa", MATCHES},
        {"\\Aa", "a", DIFFERS},
        {"\\z", "z", MATCHES},
        {"[[:alpha:]]", "a", DIFFERS},
        {"[[:alpha:]]", ":]", MATCHES},
        {"a++", "aa", REFUSED},
        {"(?i)a", "A", REFUSED},
        {"(?>a)", "a", REFUSED},
        {"(?R)", "a", REFUSED},
        {"(*FAIL)", "a", REFUSED},
        {"(?#x)a", "a", REFUSED},
        {"a{,2}", "a{,2}", MATCHES},
        {"a{2}", "aa", MATCHES},
        {"a{2,1}", "aa", REFUSED},
        {"{", "{", MATCHES},
        {"]", "]", MATCHES},
        {"x{", "x{", MATCHES},
        {"[]", "a", DIFFERS},
        {"[^]", "\n", MATCHES},
        {"[a-]", "-", MATCHES},
        {"[\\w-z]", "-", MATCHES},
        {"[z-a]", "z", REFUSED},
        {"[\\b]", "\b", MATCHES},
        {"\\bUS\\b", "the US.", MATCHES},
        {"\\1(a)", "a", MATCHES},
        {"(a)\\1", "aa", MATCHES},
        {"(a)|\\1b", "b", MATCHES},
        {"(?<n>a)\\k<n>", "aa", MATCHES},
        {"(?<n>a)\\k<m>", "aa", REFUSED},
        {"\\k<n>", "k<n>", MATCHES},
        {"(?<n>a)(?<n>b)", "ab", REFUSED},
        {"(?<=a)b", "ab", MATCHES},
        {"(?<!a)b", "ab", DIFFERS},
        {"(?<=a)*b", "ab", REFUSED},
        {"(?=a)*b", "b", MATCHES},
        {"^*", "a", REFUSED},
        {"\\b+", "a", REFUSED},
        {"a|*", "a", REFUSED},
        {"(", "", REFUSED},
        {")", "", REFUSED},
        {"\\", "\\", REFUSED},
        {"\\u00e9", "\xc3\xa9", MATCHES},
        {"\\u{e9}", "\xc3\xa9", DIFFERS},
        {"\\ud83d\\ude00", "\xf0\x9f\x98\x80", MATCHES},
        {"\\x41", "A", MATCHES},
        {"\\x4", "x4", MATCHES},
        {"\\cA", "\x01", MATCHES},
        {"\\c", "\\c", MATCHES},
        {"\\12", "\n", MATCHES},
        {"\\8", "8", MATCHES},
        {"\\0", "x", DIFFERS},
        {"\\d", "\xd9\xa3", DIFFERS},
        {"\\s", "\xc2\xa0", MATCHES},
        {"\\S", "\xc2\xa0", DIFFERS},
        {"[\\S]", "\xe2\x80\x83", DIFFERS},
        {"[^\\s]", "\xef\xbb\xbf", DIFFERS},
        {"\\v", "\x0b", MATCHES},
        {"\\h", "h", MATCHES},
        {"\\R", "R", MATCHES},
        {"\\Qa.b\\E", "Qa.bE", MATCHES},
        {"\\p{L}", "p{L}", MATCHES},
        {"/", "a/b", MATCHES},
        {"\\/", "a/b", MATCHES},
        {"", "x", MATCHES},
        {"(?:a|b){2,}?c", "abc", MATCHES},
        {"\xc3\xa9", "\xc3\x89", DIFFERS},
    };
    hr_js_scratch scratch = {.arena = *state};
    for (size_t i = 0; i < N_OF(rows); i++) {
        hr_js_regex *regex;
        hr_error err;
        hr_status status = hr_js_regex_create(text_of(rows[i].pattern), false, &regex, &err);
        int outcome = status != HR_OK                                            ? REFUSED
                      : hr_js_regex_test(regex, text_of(rows[i].text), &scratch) ? MATCHES
                                                                                 : DIFFERS;
        if (outcome != rows[i].outcome)
            fail_msg("/%s/ of \"%s\": expected %d, found %d", rows[i].pattern, rows[i].text, rows[i].outcome,
                     outcome);
        hr_js_regex_destroy(regex);
    }
    assert_false(scratch.failed);
}

static void a_pattern_in_any_case_matches_either(void **state) {
    hr_js_scratch scratch = {.arena = *state};
    hr_js_regex *regex;
    hr_error err;
    assert_int_equal(hr_js_regex_create(text_of("^(mobile|\xc3\xa9)$"), true, &regex, &err), HR_OK);
    assert_true(hr_js_regex_test(regex, text_of("MOBILE"), &scratch));
    assert_true(hr_js_regex_test(regex, text_of("\xc3\x89"), &scratch));
    assert_false(hr_js_regex_test(regex, text_of("MOBILES"), &scratch));
    hr_js_regex_destroy(regex);
}

static void long_and_large_patterns_are_refused(void **state) {
    static char pattern[HR_JS_REGEX_MAX_NBYTES + 2];
    hr_js_regex *regex;
    hr_error err;
    (void)state;
    memset(pattern, '(', sizeof pattern - 1);
    assert_int_equal(hr_js_regex_create(text_of(pattern), false, &regex, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "regular expression: expected at most 4096 bytes, found 4097");
    pattern[HR_JS_REGEX_MAX_NBYTES] = '\0';
    assert_int_equal(hr_js_regex_create(text_of(pattern), false, &regex, &err), HR_INVALID_ARGUMENT);
    /* One that becomes too large when it is spelled out. */
    for (size_t i = 0; i + 1 < sizeof pattern; i += 2) memcpy(pattern + i, "\\S", 2);
    pattern[HR_JS_REGEX_MAX_NBYTES] = '\0';
    assert_int_equal(hr_js_regex_create(text_of(pattern), false, &regex, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "not a regular expression: regular expression is too large");
    pattern[400] = '\0';
    assert_int_equal(hr_js_regex_create(text_of(pattern), false, &regex, &err), HR_OK);
    hr_js_regex_destroy(regex);
    hr_js_regex_destroy(NULL);
}

/* ---- Texts ---- */

static void texts_order_by_their_utf16_units(void **state) {
    /* Each before the next; U+10000 and more are surrogates, and come before U+E000. */
    static const char *const ordered[] = {"",
                                          "A",
                                          "B",
                                          "a",
                                          "aa",
                                          "b",
                                          "\xc3\xa9",
                                          "\xed\x9f\xbf",
                                          "\xf0\x90\x80\x80",
                                          "\xf4\x8f\xbf\xbf",
                                          "\xee\x80\x80",
                                          "\xef\xbf\xbd"};
    (void)state;
    for (size_t i = 0; i < N_OF(ordered); i++)
        for (size_t j = 0; j < N_OF(ordered); j++) {
            int order = hr_js_text_compare(text_of(ordered[i]), text_of(ordered[j]));
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
        }
}

static void lower_case_is_unicodes(void **state) {
    static const char *const rows[][2] = {{"AbC 1!", "abc 1!"},
                                          {"\xc3\x89T\xc3\x89", "\xc3\xa9t\xc3\xa9"},
                                          {"\xce\xa3", "\xcf\x83"},
                                          {"\xc8\xba", "\xe2\xb1\xa5"}, /* two bytes become three */
                                          {"\xf0\x90\x90\x80", "\xf0\x90\x90\xa8"},
                                          {"\xc3\x9f", "\xc3\x9f"}};
    hr_js_scratch scratch = {.arena = *state};
    for (size_t i = 0; i < N_OF(rows); i++) {
        hr_js_text lower = hr_js_lower(text_of(rows[i][0]), &scratch);
        assert_int_equal(lower.nbytes, strlen(rows[i][1]));
        assert_memory_equal(lower.bytes, rows[i][1], lower.nbytes);
    }
}

/* ---- Sets ---- */

/* Few elements lie in a list, many in a table: both answer as a walk over them does. */
static void a_set_has_what_it_was_made_of(void **state) {
    hr_js_scratch scratch = {.arena = *state};
    for (int n = 0; n < 40; n++) {
        const hr_js_set *set;
        hr_error err;
        json_t *list = json_array();
        for (int i = 0; i < n; i++)
            json_array_append_new(list, i % 2 ? json_sprintf("t%d", i) : json_real(i));
        assert_int_equal(hr_js_set_create(list, false, *state, &set, &err), HR_OK);
        json_decref(list);
        for (int i = 0; i < 45; i++) {
            char text[16];
            snprintf(text, sizeof text, i % 2 ? "t%d" : "%d", i);
            const hr_js_value as_text = {.kind = HR_JS_STRING, .text = text_of(text)};
            const hr_js_value as_number = {.kind = HR_JS_NUMBER, .number = i};
            assert_int_equal(hr_js_set_has(set, &as_text, &scratch), i < n && i % 2 == 1);
            assert_int_equal(hr_js_set_has(set, &as_number, &scratch), i < n && i % 2 == 0);
        }
        assert_false(hr_js_set_has(set, NULL, &scratch));
    }
}

/* ---- Buckets ---- */

static void buckets_side_by_side_are_those_one_by_one(void **state) {
    static const char *const values[] = {"", "7", "user-0123456789", "\xc3\xa9", "a\xf0\x9f\x98\x80z"};
    (void)state;
    for (int round = 0; round < 2000; round++) {
        const hr_js_text value = text_of(values[round % (int)N_OF(values)]);
        uint32_t states[HR_HASH_LANES], buckets[HR_HASH_LANES];
        char seeds[HR_HASH_LANES][40];
        for (int l = 0; l < HR_HASH_LANES; l++) {
            snprintf(seeds[l], sizeof seeds[l], "seed %d.%d", round, l);
            states[l] = hr_fnv_add(HR_FNV_BASIS, text_of(seeds[l]));
        }
        hr_fnv_buckets(states, value, buckets);
        for (int l = 0; l < HR_HASH_LANES; l++) {
            double alone;
            assert_true(hr_hash(text_of(seeds[l]), value, 2, &alone));
            assert_true(alone == hr_bucket_place(buckets[l], 2));
        }
    }
}

/* The decimal text of a hash, which is hashed again, has one to ten digits. */
static void a_hash_of_few_digits_is_hashed_as_its_text(void **state) {
    static const struct {
        uint32_t hash;
        const char *text;
    } rows[] = {{0, "0"},
                {7, "7"},
                {10, "10"},
                {99999999, "99999999"},
                {100000000, "100000000"},
                {909090909, "909090909"},
                {1000000000, "1000000000"},
                {4294967295u, "4294967295"}};
    (void)state;
    for (size_t i = 0; i < N_OF(rows); i++)
        assert_int_equal(hr_fnv_bucket(rows[i].hash, 2),
                         hr_fnv_add(HR_FNV_BASIS, text_of(rows[i].text)) % 10000);
}

static void expect_span_of_range(hr_range range, int version) {
    const hr_bucket_span span = hr_bucket_span_of(range, version);
    for (uint32_t bucket = 0; bucket < (version == 2 ? 10000u : 1000u); bucket++) {
        double place = hr_bucket_place(bucket, version);
        assert_int_equal(hr_choose_span(bucket, &span, 1), hr_choose_variation(place, &range, 1));
    }
}

/* Every bucket, for bounds on a bucket's place, as near to it as doubles lie, and anywhere. */
static void a_span_has_the_buckets_of_its_range(void **state) {
    static const double bounds[] = {-1, 0, 0.00005, 0.1, 0.3333, 1.0 / 3, 0.5, 0.7, 0.9999, 1, 1.5, 1e300};
    (void)state;
    for (int version = 1; version <= 2; version++) {
        for (size_t i = 0; i < N_OF(bounds); i++)
            for (size_t j = 0; j < N_OF(bounds); j++)
                expect_span_of_range((hr_range){.start = bounds[i], .end = bounds[j]}, version);
        for (uint32_t bucket = 0; bucket <= 1000; bucket += 7) {
            double place = hr_bucket_place(bucket, version), end = hr_bucket_place(bucket + 3, version);
            expect_span_of_range((hr_range){.start = nextafter(place, 2), .end = nextafter(end, 2)}, version);
            expect_span_of_range((hr_range){.start = nextafter(place, -1), .end = nextafter(end, -1)},
                                 version);
            expect_span_of_range((hr_range){.start = place, .end = end}, version);
        }
    }
}

int main(void) {
#define ARENA_TEST(test) cmocka_unit_test_setup_teardown(test, make_arena, destroy_arena)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_has_its_shortest_text),
        ARENA_TEST(a_text_is_the_number_it_says_or_none),
        ARENA_TEST(patterns_are_javascripts),
        ARENA_TEST(a_pattern_in_any_case_matches_either),
        cmocka_unit_test(long_and_large_patterns_are_refused),
        cmocka_unit_test(texts_order_by_their_utf16_units),
        ARENA_TEST(lower_case_is_unicodes),
        ARENA_TEST(a_set_has_what_it_was_made_of),
        cmocka_unit_test(buckets_side_by_side_are_those_one_by_one),
        cmocka_unit_test(a_hash_of_few_digits_is_hashed_as_its_text),
        cmocka_unit_test(a_span_has_the_buckets_of_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
