/* The log's two forms, read back from stderr. */
#include "base/log.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/thread.h"
#include "base/utf8.h"

enum { CAPTURE_NBYTES = 1 << 20 };

static int real_stderr, captured;

static void capture_begin(void) {
    captured = memfd_create("stderr", 0);
    real_stderr = dup(STDERR_FILENO);
    dup2(captured, STDERR_FILENO);
}

/* What was written since capture_begin; NUL-terminated, to be freed. */
static char *capture_end(void) {
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    char *text = malloc(CAPTURE_NBYTES);
    ssize_t n = pread(captured, text, CAPTURE_NBYTES - 1, 0);
    close(captured);
    assert_true(n >= 0);
    text[n] = '\0';
    return text;
}

static void configure(const char *level, const char *form) {
    assert_int_equal(hr_log_configure(level, form, NULL), HR_OK);
}

/* "2026-11-22T20:42:26.123Z " */
static const char *after_time(const char *line) {
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ ";
    for (size_t i = 0; i < sizeof shape - 1; i++) {
        if (shape[i] == 'd')
            assert_in_range(line[i], '0', '9');
        else
            assert_int_equal(line[i], shape[i]);
    }
    return line + sizeof shape - 1;
}

static void a_text_line_has_time_level_message_and_fields(void **state) {
    (void)state;
    configure("info", "text");
    capture_begin();
    hr_log(HR_LOG_INFO, "model loaded", HR_LOG_STR("model", "home@3"), HR_LOG_INT("tensors", 41),
           HR_LOG_NUM("seconds", 0.25));
    hr_log(HR_LOG_ERROR, "no fields");
    char *text = capture_end();
    char *second = strchr(text, '\n') + 1;
    assert_memory_equal(after_time(text), "INFO  model loaded model=home@3 tensors=41 seconds=0.25\n",
                        strlen("INFO  model loaded model=home@3 tensors=41 seconds=0.25\n"));
    assert_string_equal(after_time(second), "ERROR no fields\n");
    free(text);
}

static void text_values_are_quoted_and_escaped_when_they_must(void **state) {
    (void)state;
    static const struct {
        const char *value, *shown;
    } rows[] = {
        {"plain/value:1,2", "plain/value:1,2"},
        {"", "\"\""},
        {"two words", "\"two words\""},
        {"a=b", "\"a=b\""},
        {"say \"x\\y\"", "\"say \\\"x\\\\y\\\"\""},
        {"line\nbreak\x1b[31m", "\"line\\x0abreak\\x1b[31m\""},
        {"caf\xC3\xA9", "\"caf\xC3\xA9\""},
        {"bad\xFF", "\"bad\\xff\""},
        {"csi\xC2\x9B", "\"csi\\xc2\\x9b\""},
        {NULL, "-"},
    };
    configure("info", "text");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        capture_begin();
        hr_log(HR_LOG_INFO, "m", HR_LOG_STR("k", rows[i].value));
        char *text = capture_end();
        text[strlen(text) - 1] = '\0';
        const char *prefix = "INFO  m k=", *rest = after_time(text);
        assert_memory_equal(rest, prefix, strlen(prefix));
        assert_string_equal(rest + strlen(prefix), rows[i].shown);
        free(text);
    }
}

static void json_lines_are_valid_whatever_the_bytes(void **state) {
    (void)state;
    configure("debug", "json");
    unsigned seed = 11;
    for (int round = 0; round < 500; round++) {
        char message[64], value[1500], key[16];
        size_t n = (size_t)rand_r(&seed) % sizeof value;
        for (size_t i = 0; i < n; i++) value[i] = (char)(1 + rand_r(&seed) % 255);
        value[n == sizeof value ? n - 1 : n] = '\0';
        for (size_t i = 0; i < sizeof message; i++) message[i] = (char)(1 + rand_r(&seed) % 255);
        message[sizeof message - 1] = '\0';
        for (size_t i = 0; i < sizeof key; i++) key[i] = (char)(1 + rand_r(&seed) % 255);
        key[sizeof key - 1] = '\0';
        capture_begin();
        hr_log(HR_LOG_DEBUG, message, HR_LOG_STR(key, value), HR_LOG_NUM("nan", (double)NAN),
               HR_LOG_NUM("inf", (double)-INFINITY), HR_LOG_INT("least", INT64_MIN),
               HR_LOG_STR("none", NULL));
        char *text = capture_end();
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        json_error_t why;
        json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, &why);
        if (line == NULL) fail_msg("%s: %s", why.text, text);
        assert_string_equal(json_string_value(json_object_get(line, "level")), "debug");
        assert_true(json_is_null(json_object_get(line, "nan")));
        assert_true(json_is_null(json_object_get(line, "inf")));
        assert_true(json_is_null(json_object_get(line, "none")));
        assert_true(json_integer_value(json_object_get(line, "least")) == INT64_MIN);
        json_decref(line);
        free(text);
    }
}

static void json_keeps_valid_text_and_replaces_bad_bytes(void **state) {
    (void)state;
    configure("info", "json");
    capture_begin();
    hr_log(HR_LOG_WARN, "a \"b\"\\\n", HR_LOG_STR("k", "\xE2\x82\xAC|\xED\xA0\x80|\xC3"));
    char *text = capture_end();
    json_t *line = json_loads(text, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(line, "message")), "a \"b\"\\\n");
    assert_string_equal(json_string_value(json_object_get(line, "k")),
                        "\xE2\x82\xAC|\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD");
    assert_non_null(json_string_value(json_object_get(line, "time")));
    json_decref(line);
    free(text);
}

static void long_values_are_cut_and_fields_that_do_not_fit_are_left_out(void **state) {
    (void)state;
    char value[5000], euros[5000];
    memset(value, '\n', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    for (size_t i = 0; i + 3 < sizeof euros; i += 3) memcpy(euros + i, "\xE2\x82\xAC", 4);
    static const char *const forms[] = {"text", "json"};
    for (int form = 0; form < 2; form++) {
        configure("info", forms[form]);
        capture_begin();
        hr_log(HR_LOG_INFO, value, HR_LOG_STR("a", euros), HR_LOG_STR("b", value), HR_LOG_STR("c", value));
        char *text = capture_end();
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        assert_true(hr_utf8_valid(text, strlen(text)));
        assert_non_null(strstr(text, "\xE2\x82\xAC..."));
        assert_non_null(strstr(text, form == 0 ? " truncated=true\n" : ",\"truncated\":true}\n"));
        json_t *line = form == 0 ? json_null() : json_loads(text, 0, NULL);
        assert_non_null(line);
        json_decref(line);
        free(text);
    }
}

static hr_log_field counted(int *evaluations) {
    ++*evaluations;
    return HR_LOG_INT("n", 1);
}

static void below_the_level_nothing_is_written_or_evaluated(void **state) {
    (void)state;
    int evaluations = 0;
    configure("warn", "text");
    capture_begin();
    hr_log(HR_LOG_DEBUG, "no", counted(&evaluations));
    hr_log(HR_LOG_INFO, "no", counted(&evaluations));
    hr_log(HR_LOG_WARN, "yes", counted(&evaluations));
    errno = ENOENT;
    hr_log(HR_LOG_ERROR, "yes", counted(&evaluations));
    assert_int_equal(errno, ENOENT);
    char *text = capture_end();
    assert_int_equal(evaluations, 2);
    assert_null(strstr(text, "no"));
    free(text);
}

static void configure_names_what_it_does_not_know(void **state) {
    (void)state;
    hr_error err;
    assert_int_equal(hr_log_configure("loud", "text", &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "log level: expected debug, info, warn or error, found \"loud\"");
    assert_int_equal(hr_log_configure("info", "xml", &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "log form: expected text or json, found \"xml\"");
}

static void *log_many(void *arg) {
    (void)arg;
    for (int i = 0; i < 500; i++)
        hr_log(HR_LOG_INFO, "from a thread", HR_LOG_INT("i", i), HR_LOG_STR("s", "a b"));
    return NULL;
}

static void lines_of_many_threads_do_not_mix(void **state) {
    (void)state;
    configure("info", "json");
    capture_begin();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) hr_thread_start(&threads[i], "logger", log_many, NULL, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    char *text = capture_end();
    size_t n_lines = 0;
    for (char *save, *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        json_decref(object);
        n_lines++;
    }
    assert_int_equal(n_lines, 2000);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_line_has_time_level_message_and_fields),
        cmocka_unit_test(text_values_are_quoted_and_escaped_when_they_must),
        cmocka_unit_test(json_lines_are_valid_whatever_the_bytes),
        cmocka_unit_test(json_keeps_valid_text_and_replaces_bad_bytes),
        cmocka_unit_test(long_values_are_cut_and_fields_that_do_not_fit_are_left_out),
        cmocka_unit_test(below_the_level_nothing_is_written_or_evaluated),
        cmocka_unit_test(configure_names_what_it_does_not_know),
        cmocka_unit_test(lines_of_many_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
