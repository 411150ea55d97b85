/* Reading configuration from JSON: what is taken, and what the errors say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "schema/json_read.h"

static json_t *parse(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    return value;
}

static void an_absent_optional_key_leaves_the_default(void **state) {
    (void)state;
    json_t *object = parse("{}");
    const char *text = "x";
    uint32_t integer = 7;
    double number = 2.5;
    bool flag = true;
    unsigned choice = 1;
    const json_t *value = object;
    assert_int_equal(hr_json_get_string(object, "w", "k", false, &text, NULL), HR_OK);
    assert_int_equal(hr_json_get_name(object, "w", "k", false, &text, NULL), HR_OK);
    assert_int_equal(hr_json_get_uint(object, "w", "k", false, 0, 9, &integer, NULL), HR_OK);
    assert_int_equal(hr_json_get_number(object, "w", "k", false, &number, NULL), HR_OK);
    assert_int_equal(hr_json_get_positive(object, "w", "k", false, &number, NULL), HR_OK);
    assert_int_equal(hr_json_get_bool(object, "w", "k", false, &flag, NULL), HR_OK);
    assert_int_equal(hr_json_get_choice(object, "w", "k", false, NULL, 0, &choice, NULL), HR_OK);
    assert_int_equal(hr_json_get_array(object, "w", "k", false, 0, 9, &value, NULL), HR_OK);
    assert_int_equal(hr_json_get_object(object, "w", "k", false, &value, NULL), HR_OK);
    assert_string_equal(text, "x");
    assert_int_equal(integer, 7);
    assert_true(number == 2.5);
    assert_true(flag);
    assert_int_equal(choice, 1);
    assert_ptr_equal(value, object);
    json_decref(object);
}

static void a_missing_key_is_an_error_that_says_what_it_should_hold(void **state) {
    (void)state;
    json_t *object = parse("{}");
    uint32_t integer;
    hr_error err;
    assert_int_equal(hr_json_get_uint(object, "here", "k", true, 2, 9, &integer, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "here: k: expected an integer from 2 to 9, found nothing");
    json_decref(object);
}

static void an_integer_is_exact_and_in_its_range(void **state) {
    (void)state;
    static const struct {
        const char *json, *found; /* NULL: taken */
    } cases[] = {
        {"2", NULL},         {"9", NULL},
        {"1", "1"},          {"10", "10"},
        {"-3", "-3"},        {"3.0", "3.0"},
        {"3e0", "3.0"},      {"4294967298", "4294967298"},
        {"true", "true"},    {"\"3\"", "\"3\""},
        {"null", "null"},    {"[3]", "an array"},
        {"{}", "an object"}, {"-9223372036854775808", "-9223372036854775808"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *value = parse(cases[i].json);
        uint32_t integer;
        hr_error err = {0};
        hr_status status = hr_json_as_uint(value, "w", NULL, 2, 9, &integer, &err);
        assert_int_equal(status, cases[i].found == NULL ? HR_OK : HR_INVALID_ARGUMENT);
        if (cases[i].found != NULL) assert_string_equal(strstr(err.message, "found ") + 6, cases[i].found);
        json_decref(value);
    }
}

static void a_null_is_never_a_value(void **state) {
    (void)state;
    json_t *object = parse("{\"k\": null}");
    const char *text = NULL;
    double number = 0;
    bool flag = false;
    const json_t *value = NULL;
    assert_int_equal(hr_json_get_string(object, "w", "k", false, &text, NULL), HR_INVALID_ARGUMENT);
    assert_int_equal(hr_json_get_number(object, "w", "k", false, &number, NULL), HR_INVALID_ARGUMENT);
    assert_int_equal(hr_json_get_bool(object, "w", "k", false, &flag, NULL), HR_INVALID_ARGUMENT);
    assert_int_equal(hr_json_get_object(object, "w", "k", false, &value, NULL), HR_INVALID_ARGUMENT);
    assert_int_equal(hr_json_get_array(object, "w", "k", false, 0, 1, &value, NULL), HR_INVALID_ARGUMENT);
    json_decref(object);
}

static void an_unknown_key_is_named_with_the_ones_there_are(void **state) {
    (void)state;
    static const char *const keys[] = {"rows", "dim", "index"};
    json_t *object = parse("{\"rows\": 1, \"dims\": 2}");
    hr_error err;
    assert_int_equal(hr_json_check_keys(object, "tables \"a\"", keys, 3, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "tables \"a\": unknown key \"dims\", expected rows, dim or index");
    json_object_del(object, "dims");
    assert_int_equal(hr_json_check_keys(object, "w", keys, 3, &err), HR_OK);
    json_decref(object);
    assert_int_equal(hr_json_check_keys(NULL, "w", keys, 3, &err), HR_INVALID_ARGUMENT);
}

static void a_choice_is_one_of_its_words(void **state) {
    (void)state;
    static const char *const words[] = {"mean", "sum"};
    json_t *object = parse("{\"a\": \"sum\", \"b\": \"SUM\", \"c\": \"sum\\u0000\", \"d\": 1}");
    unsigned choice = 9;
    hr_error err;
    assert_int_equal(hr_json_get_choice(object, "w", "a", true, words, 2, &choice, &err), HR_OK);
    assert_int_equal(choice, 1);
    assert_int_equal(hr_json_get_choice(object, "w", "b", true, words, 2, &choice, &err),
                     HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "w: b: expected mean or sum, found \"SUM\"");
    assert_int_equal(hr_json_get_choice(object, "w", "c", true, words, 2, &choice, &err),
                     HR_INVALID_ARGUMENT);
    assert_int_equal(hr_json_get_choice(object, "w", "d", true, words, 2, &choice, &err),
                     HR_INVALID_ARGUMENT);
    json_decref(object);
}

static void a_name_is_a_letter_and_then_letters_digits_and_dashes(void **state) {
    (void)state;
    static const char *const good[] = {"a", "_", "Z9", "a-b_c", "_1"};
    static const char *const bad[] = {"", "1a", "-a", "a b", "a.b", "\xc3\xa9", "a\n"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(hr_json_is_name(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(hr_json_is_name(bad[i]));
    json_t *with_nul = parse("\"a\\u0000b\"");
    const char *name;
    assert_int_equal(hr_json_as_name(with_nul, "w", "k", &name, NULL), HR_INVALID_ARGUMENT);
    assert_int_equal(hr_json_as_string(with_nul, "w", "k", &name, NULL), HR_INVALID_ARGUMENT);
    json_decref(with_nul);
}

static void an_array_has_as_many_elements_as_allowed(void **state) {
    (void)state;
    json_t *object = parse("{\"k\": [1, 2, 3]}");
    const json_t *list = NULL;
    hr_error err;
    assert_int_equal(hr_json_get_array(object, "w", "k", true, 1, 3, &list, &err), HR_OK);
    assert_int_equal(json_array_size(list), 3);
    assert_int_equal(hr_json_get_array(object, "w", "k", true, 1, 2, &list, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "w: k: expected 1 to 2 elements, found 3");
    assert_int_equal(hr_json_get_array(object, "w", "k", true, 4, 5, &list, &err), HR_INVALID_ARGUMENT);
    json_decref(object);
}

static void a_place_names_the_element_and_never_overruns(void **state) {
    (void)state;
    json_t *element = parse("{\"name\": \"age\"}");
    assert_string_equal(hr_json_place_of("features", 3, element).text, "features[3] \"age\"");
    assert_string_equal(hr_json_place_of("features", 3, NULL).text, "features[3]");
    json_t *name = json_stringn("", 0);
    for (int i = 0; i < 12; i++) {
        json_t *longer = json_sprintf("%s%s\x01x", json_string_value(name), json_string_value(name));
        json_decref(name);
        name = longer;
    }
    json_object_set_new(element, "name", name);
    char list[400];
    memset(list, 'l', sizeof list - 1);
    list[sizeof list - 1] = '\0';
    hr_json_place place = hr_json_place_of(list, SIZE_MAX, element);
    assert_true(memchr(place.text, '\0', sizeof place.text) != NULL);
    json_decref(element);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_absent_optional_key_leaves_the_default),
        cmocka_unit_test(a_missing_key_is_an_error_that_says_what_it_should_hold),
        cmocka_unit_test(an_integer_is_exact_and_in_its_range),
        cmocka_unit_test(a_null_is_never_a_value),
        cmocka_unit_test(an_unknown_key_is_named_with_the_ones_there_are),
        cmocka_unit_test(a_choice_is_one_of_its_words),
        cmocka_unit_test(a_name_is_a_letter_and_then_letters_digits_and_dashes),
        cmocka_unit_test(an_array_has_as_many_elements_as_allowed),
        cmocka_unit_test(a_place_names_the_element_and_never_overruns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
