/* Properties of the YAML file: what it may say, that flags win, and that every mistake is named by its line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> /* after what it needs */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/options.h"

static char config_path[4096];

static int make_path(void **state) {
    (void)state;
    const char *directory = getenv("TEST_TMPDIR");
    snprintf(config_path, sizeof config_path, "%s/config.yaml", directory ? directory : "/tmp");
    return 0;
}

static int remove_file(void **state) {
    (void)state;
    return remove(config_path);
}

static void write_config(const char *text, size_t nbytes) {
    FILE *file = fopen(config_path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, nbytes, file), nbytes);
    assert_int_equal(fclose(file), 0);
}

/* Reads the file's text with one more flag (may be NULL) on the command line. */
static hr_status parse_bytes(const char *text, size_t nbytes, const char *flag, hr_options **options,
                             hr_error *err) {
    char config[] = "--config", more[256];
    char *args[] = {config, config_path, more};
    write_config(text, nbytes);
    snprintf(more, sizeof more, "%s", flag ? flag : "");
    memset(err, 0, sizeof *err);
    return hr_options_parse(HR_COMMAND_SERVE, flag ? 3 : 2, args, options, err);
}

static hr_options *accepted(const char *text, const char *flag) {
    hr_options *options = NULL;
    hr_error err;
    if (parse_bytes(text, strlen(text), flag, &options, &err)) fail_msg("%s", err.message);
    return options;
}

static void assert_refused_bytes(const char *text, size_t nbytes, const char *message) {
    hr_options *options = NULL;
    hr_error err;
    char expected[8192];
    snprintf(expected, sizeof expected, "%s:%s", config_path, message);
    assert_int_equal(parse_bytes(text, nbytes, NULL, &options, &err), HR_INVALID_ARGUMENT);
    assert_null(options);
    assert_string_equal(err.message, expected);
}

static void assert_refused(const char *text, const char *message) {
    assert_refused_bytes(text, strlen(text), message);
}

static void a_file_gives_values_under_the_flags_names(void **state) {
    (void)state;
    hr_options *options = accepted("# ours\nmodels: /srv/models\nstore: \"lmdb:/srv/features\"\n"
                                   "max-items: 500\nstrict-features: true\n",
                                   NULL);
    assert_string_equal(options->models, "/srv/models");
    assert_string_equal(options->store, "lmdb:/srv/features");
    assert_int_equal(options->max_items, 500);
    assert_true(options->strict_features);
    assert_int_equal(options->grace_ms, 10000);
    hr_options_destroy(options);
}

static void a_flag_wins_over_the_file(void **state) {
    (void)state;
    hr_options *options = accepted("models: m\nstore: \"none:\"\nmax-items: 500\n", "--max-items=7");
    assert_int_equal(options->max_items, 7);
    hr_options_destroy(options);
}

static void a_list_is_one_in_the_file(void **state) {
    (void)state;
    static const char *const forms[] = {"versions: [home@3, \"mmoe@12\"]\n",
                                        "versions:\n  - home@3\n  - mmoe@12\n"};
    for (size_t i = 0; i < 2; i++) {
        char text[256];
        snprintf(text, sizeof text, "models: m\nstore: \"none:\"\nversion-policy: specific\n%s", forms[i]);
        hr_options *options = accepted(text, NULL);
        assert_int_equal(options->versions.n, 2);
        assert_string_equal(options->versions.values[0], "home@3");
        assert_string_equal(options->versions.values[1], "mmoe@12");
        hr_options_destroy(options);
        options = accepted(text, "--versions=home@4"); /* which wins */
        assert_int_equal(options->versions.n, 1);
        assert_string_equal(options->versions.values[0], "home@4");
        hr_options_destroy(options);
    }
    hr_options *options =
        accepted("models: m\nstore: \"none:\"\nversion-policy: specific\nversions: home@3\n", NULL);
    assert_int_equal(options->versions.n, 1);
    hr_options_destroy(options);
    assert_refused("versions: [home@3, home@3]\n", "1: versions: expected home@3 once, found again");
    assert_refused("models: m\nversions: [home@3, home]\n",
                   "2: versions: expected NAME@VERSION, found \"home\"");
    assert_refused("versions: [home@3, [home@4]]\n", "1: versions: expected one value, found a list");
    assert_refused("versions: [home@3, ~]\n", "1: versions: expected a value, found none");
    assert_refused("versions: {home: 3}\n", "1: versions: expected one value, found a mapping");
}

static void what_the_file_lacks_is_still_required(void **state) {
    (void)state;
    hr_options *options = NULL;
    hr_error err;
    assert_int_equal(parse_bytes("", 0, NULL, &options, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "--models ROOT is required");
    assert_int_equal(parse_bytes("models: m\n", 10, NULL, &options, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "--store URI is required");
}

static void mistakes_are_named_by_file_and_line(void **state) {
    (void)state;
    assert_refused("models: m\nmax_items: 5\n", "2: unknown key \"max_items\"");
    assert_refused("models: m\nconfig: other.yaml\n", "2: unknown key \"config\"");
    assert_refused("user: u\n", "1: unknown key \"user\"");
    assert_refused("\n\nmax-items: many\n",
                   "3: max-items: expected an integer from 1 to 1000000, found \"many\"");
    assert_refused("max-items: 0\n", "1: max-items: expected an integer from 1 to 1000000, found \"0\"");
    assert_refused("max-items: \"5\"\n", "1: max-items: expected an integer, found a quoted text");
    assert_refused("strict-features: yes\n", "1: strict-features: expected true or false, found \"yes\"");
    assert_refused("strict-features: 'true'\n",
                   "1: strict-features: expected true or false, found a quoted text");
    assert_refused("precision: f16\n", "1: precision: expected one of f32, bf16, found \"f16\"");
    assert_refused("models:\nstore: x\n", "1: models: expected a value, found none");
    assert_refused("models: ~\n", "1: models: expected a value, found none");
    assert_refused("models: [a, b]\n", "1: models: expected one value, found a list");
    assert_refused("models: {a: b}\n", "1: models: expected one value, found a mapping");
    assert_refused("? [a]\n: b\n", "1: expected one value, found a list");
    assert_refused("models: a\nmodels: b\n", "2: models: expected once, found again");
    assert_refused("- models\n", "1: expected \"name: value\" lines, found a list");
    assert_refused("models\n", "1: expected \"name: value\" lines, found one value");
    assert_refused("models: a\n---\nstore: b\n", "3: expected one document, found a second");
    assert_refused_bytes("models: \"a\\0b\"\n", 15,
                         "1: models: expected a text without NUL, found \"a\\x00b\"");
}

static void what_is_not_yaml_is_named_by_its_line(void **state) {
    (void)state;
    static const char *const bad[] = {"models: a\n  b: [\n", "models: \"a\n", "a: b: c\n", "\tmodels: a\n",
                                      "models: \xff\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        hr_options *options = NULL;
        hr_error err;
        assert_int_equal(parse_bytes(bad[i], strlen(bad[i]), NULL, &options, &err), HR_INVALID_ARGUMENT);
        assert_null(options);
        assert_non_null(strstr(err.message, "config.yaml:"));
        assert_non_null(strstr(err.message, ": not YAML: "));
    }
}

static void deep_nesting_is_refused_without_harm(void **state) {
    (void)state;
    enum { DEPTH = 20000 };
    char *text = malloc(DEPTH + 16);
    assert_non_null(text);
    size_t n = (size_t)sprintf(text, "models: ");
    memset(text + n, '[', DEPTH);
    hr_options *options = NULL;
    hr_error err;
    assert_int_equal(parse_bytes(text, n + DEPTH, NULL, &options, &err), HR_INVALID_ARGUMENT);
    assert_null(options);
    free(text);
}

static void a_file_that_cannot_be_read_is_an_io_error(void **state) {
    (void)state;
    hr_options *options = NULL;
    hr_error err;
    char config[] = "--config", missing[] = "/nonexistent/c.yaml", directory[] = "/";
    char *args[] = {config, missing};
    assert_int_equal(hr_options_parse(HR_COMMAND_SERVE, 2, args, &options, &err), HR_IO);
    assert_string_equal(err.message, "/nonexistent/c.yaml: No such file or directory");
    args[1] = directory;
    assert_int_equal(hr_options_parse(HR_COMMAND_SERVE, 2, args, &options, &err), HR_IO);
    assert_string_equal(err.message, "/: expected a file");
    char *large = calloc(1, (32 << 10) + 1);
    assert_non_null(large);
    assert_int_equal(parse_bytes(large, (32 << 10) + 1, NULL, &options, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "expected at most 32768 bytes, found 32769"));
    free(large);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_gives_values_under_the_flags_names),
        cmocka_unit_test(a_flag_wins_over_the_file),
        cmocka_unit_test(a_list_is_one_in_the_file),
        cmocka_unit_test(what_the_file_lacks_is_still_required),
        cmocka_unit_test(mistakes_are_named_by_file_and_line),
        cmocka_unit_test(what_is_not_yaml_is_named_by_its_line),
        cmocka_unit_test(deep_nesting_is_refused_without_harm),
        cmocka_unit_test(a_file_that_cannot_be_read_is_an_io_error),
    };
    return cmocka_run_group_tests(tests, make_path, remove_file);
}
