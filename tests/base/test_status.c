/* Status codes and errors. */
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"

static void every_status_has_a_text_and_a_grpc_code(void **state) {
    (void)state;
#define CHECK_ROW(name, text, grpc)                                                                          \
    assert_string_equal(hr_status_text(HR_##name), text);                                                    \
    assert_int_equal(hr_status_grpc_code(HR_##name), grpc);                                                  \
    assert_non_null(hr_grpc_code_names[grpc]);
    HR_STATUS_MAP(CHECK_ROW)
#undef CHECK_ROW
    assert_int_equal(HR_OK, 0);
    assert_string_equal(hr_grpc_code_names[hr_status_grpc_code(HR_NOT_FOUND)], "NOT_FOUND");
}

static void set_returns_the_code_and_fills_the_message(void **state) {
    (void)state;
    hr_error err;
    assert_int_equal(hr_error_set(&err, HR_NOT_FOUND, "model %s: %d", "home", 3), HR_NOT_FOUND);
    assert_int_equal(err.code, HR_NOT_FOUND);
    assert_string_equal(err.message, "model home: 3");
    assert_int_equal(hr_error_set(NULL, HR_IO, "no one asks"), HR_IO);
}

static void long_messages_are_cut_between_characters(void **state) {
    (void)state;
    static const char *const characters[] = {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    for (size_t c = 0; c < 4; c++) {
        for (size_t shift = 0; shift < 4; shift++) {
            char text[600];
            memset(text, 'x', shift);
            text[shift] = '\0';
            while (strlen(text) < 500) strcat(text, characters[c]);
            hr_error err;
            hr_error_set(&err, HR_IO, "%s", text);
            size_t length = strlen(err.message);
            assert_in_range(length, HR_ERROR_MESSAGE_SIZE - 5, HR_ERROR_MESSAGE_SIZE - 1);
            assert_string_equal(err.message + length - 3, "...");
            assert_true(hr_utf8_valid(err.message, length));
            assert_memory_equal(err.message, text, length - 3);
        }
    }
}

static void prefix_keeps_the_code_and_what_was_said(void **state) {
    (void)state;
    hr_error err;
    hr_error_set(&err, HR_INVALID_ARGUMENT, "expected a list");
    assert_int_equal(hr_error_prefix(&err, "%s:%d", "in.jsonl", 7), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "in.jsonl:7: expected a list");
    for (int i = 0; i < 40; i++) hr_error_prefix(&err, "deeper \xC3\xA9");
    assert_true(hr_utf8_valid(err.message, strlen(err.message)));
    assert_string_equal(err.message + strlen(err.message) - 3, "...");
}

static void quote_makes_any_bytes_printable(void **state) {
    (void)state;
    assert_string_equal(hr_quote("home", 4).text, "\"home\"");
    assert_string_equal(hr_quote("a\"b\\\n\0\xFF", 7).text, "\"a\\x22b\\x5c\\x0a\\x00\\xff\"");
    assert_string_equal(hr_quote(NULL, 0).text, "\"\"");
    for (size_t nbytes = 0; nbytes < 200; nbytes++) {
        char bytes[200];
        memset(bytes, nbytes % 2 == 0 ? 'x' : 0x01, sizeof bytes);
        hr_quoted quoted = hr_quote(bytes, nbytes);
        size_t length = strnlen(quoted.text, sizeof quoted.text);
        assert_true(length < sizeof quoted.text);
        assert_int_equal(quoted.text[0], '"');
        assert_int_equal(quoted.text[length - 1], '"');
        if (nbytes > 70) assert_memory_equal(quoted.text + length - 4, "...", 3);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_text_and_a_grpc_code),
        cmocka_unit_test(set_returns_the_code_and_fills_the_message),
        cmocka_unit_test(long_messages_are_cut_between_characters),
        cmocka_unit_test(prefix_keeps_the_code_and_what_was_said),
        cmocka_unit_test(quote_makes_any_bytes_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
