/* Properties of the configuration: flags, their order of precedence, what is refused and in which words. */
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

enum { MAX_ARGS = 32 };

/* Parses "--a b --c=d" cut at spaces, as the shell would. */
static hr_status parse(hr_command command, const char *line, hr_options **options, hr_error *err) {
    static char text[4096];
    char *args[MAX_ARGS], *save = NULL;
    int n = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        assert_true(n < MAX_ARGS);
        args[n++] = word;
    }
    memset(err, 0, sizeof *err);
    return hr_options_parse(command, n, args, options, err);
}

static void assert_refused(hr_command command, const char *line, const char *message) {
    hr_options *options = NULL;
    hr_error err;
    assert_int_equal(parse(command, line, &options, &err), HR_INVALID_ARGUMENT);
    assert_null(options);
    assert_string_equal(err.message, message);
}

static hr_options *accepted(hr_command command, const char *line) {
    hr_options *options = NULL;
    hr_error err;
    if (parse(command, line, &options, &err)) fail_msg("%s: %s", line, err.message);
    return options;
}

#define SERVE "--models m --store none: "

static void values_follow_a_space_or_an_equals_sign(void **state) {
    (void)state;
    hr_options *options = accepted(HR_COMMAND_SERVE, "--models=a=b --store none: --max-items 7 --threads=3");
    assert_string_equal(options->models, "a=b");
    assert_string_equal(options->store, "none:");
    assert_int_equal(options->max_items, 7);
    assert_int_equal(options->threads, 3);
    hr_options_destroy(options);
}

static void what_is_not_given_has_its_default(void **state) {
    (void)state;
    hr_options *options = accepted(HR_COMMAND_SERVE, SERVE);
    assert_string_equal(options->listen, "127.0.0.1:50051");
    assert_string_equal(options->backend, "auto");
    assert_string_equal(options->precision, "f32");
    assert_string_equal(options->default_model, "");
    assert_int_equal(options->max_items, 10000);
    assert_false(options->strict_features);
    assert_true(options->threads >= 1);
    hr_options_destroy(options);
}

static void a_switch_alone_is_true_and_may_be_said_false(void **state) {
    (void)state;
    hr_options *options = accepted(HR_COMMAND_SERVE, SERVE "--strict-features");
    assert_true(options->strict_features);
    hr_options_destroy(options);
    options = accepted(HR_COMMAND_SERVE, SERVE "--strict-features=false");
    assert_false(options->strict_features);
    hr_options_destroy(options);
    assert_refused(HR_COMMAND_SERVE, SERVE "--strict-features=yes",
                   "--strict-features: expected true or false, found \"yes\"");
}

static void a_list_keeps_every_value_in_order(void **state) {
    (void)state;
    hr_options *options =
        accepted(HR_COMMAND_RANK, "--user u --items a --context x=1 --context y=2 --context=xy=3");
    assert_int_equal(options->context.n, 3);
    assert_string_equal(options->context.values[0], "x=1");
    assert_string_equal(options->context.values[2], "xy=3");
    hr_options_destroy(options);
}

static void one_name_may_mean_different_things_to_two_commands(void **state) {
    (void)state;
    hr_options *score = accepted(HR_COMMAND_SCORE, "--model dir --store none: --in - --out -");
    assert_string_equal(score->model, "dir");
    assert_string_equal(score->in, "-");
    hr_options_destroy(score);
    hr_options *rank = accepted(HR_COMMAND_RANK, "--user u --items a");
    assert_string_equal(rank->model, "");
    hr_options_destroy(rank);
}

static void help_asks_for_nothing_else(void **state) {
    (void)state;
    hr_options *options = accepted(HR_COMMAND_SERVE, "--help");
    assert_true(options->help);
    hr_options_destroy(options);
    options = accepted(HR_COMMAND_INSPECT, "-h");
    assert_true(options->help);
    hr_options_destroy(options);
}

static void wrong_usage_is_one_line_that_names_the_flag(void **state) {
    (void)state;
    assert_refused(HR_COMMAND_SERVE, "--store none:", "--models ROOT is required");
    assert_refused(HR_COMMAND_SERVE, SERVE "--nonsense", "unknown flag --\"nonsense\"");
    assert_refused(HR_COMMAND_SERVE, SERVE "--user u", "unknown flag --\"user\"");
    assert_refused(HR_COMMAND_SERVE, SERVE "stray", "expected a flag, found \"stray\"");
    assert_refused(HR_COMMAND_SERVE, SERVE "--threads", "--threads: expected N, found nothing");
    assert_refused(HR_COMMAND_SERVE, "--models --store none:", "--models: expected ROOT, found nothing");
    assert_refused(HR_COMMAND_SERVE, SERVE "--store none:", "--store: expected once, found again");
    assert_refused(HR_COMMAND_SERVE,
                   "--models= --store none:", "--models: expected ROOT, found an empty text");
    assert_refused(HR_COMMAND_SERVE, SERVE "--precision f16",
                   "--precision: expected one of f32, bf16, found \"f16\"");
    assert_refused(HR_COMMAND_INSPECT, "", "DIR is required");
    assert_refused(HR_COMMAND_INSPECT, "a b", "expected a flag, found \"b\"");
    assert_refused(HR_COMMAND_SERVE,
                   "--models \xff --store none:", "--models: expected valid UTF-8, found \"\\xff\"");
}

static void integers_are_decimal_and_in_range(void **state) {
    (void)state;
    static const char *const bad[] = {
        "0", "1000001", "-1", "+1", "1e3", "0x10", "1.0", "99999999999999999999999", "1k"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[256], message[256];
        snprintf(line, sizeof line, SERVE "--max-items %s", bad[i]);
        snprintf(message, sizeof message, "--max-items: expected an integer from 1 to 1000000, found \"%s\"",
                 bad[i]);
        assert_refused(HR_COMMAND_SERVE, line, message);
    }
    hr_options *options = accepted(HR_COMMAND_SERVE, SERVE "--max-items 1000000");
    assert_int_equal(options->max_items, 1000000);
    hr_options_destroy(options);
    assert_refused(HR_COMMAND_SERVE, SERVE "--max-queued-items 9999",
                   "--max-queued-items: expected room for one request of --max-items 10000, found 9999");
    options = accepted(HR_COMMAND_FEATURES_LOAD, "--store lmdb:x --in - --from-line 18446744073709551615");
    assert_true(options->from_line == UINT64_MAX);
    hr_options_destroy(options);
}

static void malformed_values_are_wrong_usage_and_name_the_flag(void **state) {
    (void)state;
    static const char *const addresses[] = {"nowhere", "host:",  ":1",  "host:65536",
                                            "host:-1", "::1:80", "[]:1"};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        char line[128], message[128];
        snprintf(line, sizeof line, SERVE "--listen %s", addresses[i]);
        snprintf(message, sizeof message,
                 "--listen: expected HOST:PORT (an IPv6 host in brackets), found \"%s\"", addresses[i]);
        assert_refused(HR_COMMAND_SERVE, line, message);
    }
    assert_refused(HR_COMMAND_RANK, "--user u --items a --target host:65536",
                   "--target: expected HOST:PORT (an IPv6 host in brackets), found \"host:65536\"");
    assert_refused(HR_COMMAND_SERVE, "--models m --store lmdb:", "--store: store URI: lmdb: expected a path");
    assert_refused(HR_COMMAND_RANK, "--user u --items a --context =1",
                   "--context: expected KEY=VALUE, found \"=1\"");
    assert_refused(HR_COMMAND_RANK, "--user u --items a --context x=1 --context xy=1 --context x=2",
                   "--context: expected \"x\" once, found again");
    hr_options *options = accepted(HR_COMMAND_SERVE, SERVE "--listen [::1]:0");
    assert_string_equal(options->listen, "[::1]:0");
    hr_options_destroy(options);
}

static void specific_versions_are_listed_and_only_with_their_policy(void **state) {
    (void)state;
    hr_options *options =
        accepted(HR_COMMAND_SERVE, SERVE "--version-policy specific --versions home@3 --versions mmoe@12");
    assert_int_equal(options->versions.n, 2);
    assert_string_equal(options->versions.values[0], "home@3");
    assert_string_equal(options->versions.values[1], "mmoe@12");
    hr_options_destroy(options);
    static const char *const bad[] = {
        "home",   "home@",       "@3",    "home@03", "home@0",
        "home@x", "home:stable", "a:b@3", "home@3x", "home@99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[256], message[256];
        snprintf(line, sizeof line, SERVE "--version-policy specific --versions %s", bad[i]);
        snprintf(message, sizeof message, "--versions: expected NAME@VERSION, found \"%s\"", bad[i]);
        assert_refused(HR_COMMAND_SERVE, line, message);
    }
    assert_refused(HR_COMMAND_SERVE, SERVE "--version-policy specific --versions a@1 --versions a@1",
                   "--versions: expected a@1 once, found again");
    assert_refused(HR_COMMAND_SERVE, SERVE "--version-policy specific",
                   "--versions: expected with --version-policy specific, and only then, found 0");
    assert_refused(HR_COMMAND_SERVE, SERVE "--versions home@3",
                   "--versions: expected with --version-policy specific, and only then, found 1");
    assert_refused(HR_COMMAND_SERVE, SERVE "--version-policy newest",
                   "--version-policy: expected one of latest, all, specific, found \"newest\"");
}

static void commands_are_found_by_their_words(void **state) {
    (void)state;
    hr_command command;
    int n_words;
    hr_error err;
    char *load[] = {"homerank", "features", "load", "--in"};
    assert_int_equal(hr_command_find(4, load, &command, &n_words, &err), HR_OK);
    assert_int_equal(command, HR_COMMAND_FEATURES_LOAD);
    assert_int_equal(n_words, 2);
    assert_int_equal(hr_command_find(2, load, &command, &n_words, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(
        err.message,
        "expected \"features load\", \"features get\", \"features stats\" or \"features check\"");
    assert_int_equal(hr_command_find(1, load, &command, &n_words, &err), HR_INVALID_ARGUMENT);
    char *unknown[] = {"homerank", "rnak"};
    assert_int_equal(hr_command_find(2, unknown, &command, &n_words, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "unknown command \"rnak\"");
}

static char *slurp(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s cannot be read", path);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static void the_documentation_is_what_the_table_says(void **state) {
    (void)state;
    char *printed = NULL, *committed = slurp("docs/configuration.md");
    size_t nbytes;
    FILE *out = open_memstream(&printed, &nbytes);
    assert_non_null(out);
    hr_options_print_markdown(out);
    assert_int_equal(fclose(out), 0);
    if (strcmp(printed, committed) != 0)
        fail_msg(
            "docs/configuration.md is out of date: run `homerank help --markdown > docs/configuration.md`");
    free(printed);
    free(committed);
}

static void every_commands_help_names_each_of_its_flags(void **state) {
    (void)state;
    for (int c = 0; c < HR_COMMAND_COUNT; c++) {
        char *text = NULL;
        size_t nbytes;
        FILE *out = open_memstream(&text, &nbytes);
        assert_non_null(out);
        hr_options_print_help((hr_command)c, out);
        assert_int_equal(fclose(out), 0);
        assert_non_null(strstr(text, hr_command_name((hr_command)c)));
        assert_non_null(strstr(text, "--log-level"));
        assert_non_null(strstr(text, "example: homerank "));
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_follow_a_space_or_an_equals_sign),
        cmocka_unit_test(what_is_not_given_has_its_default),
        cmocka_unit_test(a_switch_alone_is_true_and_may_be_said_false),
        cmocka_unit_test(a_list_keeps_every_value_in_order),
        cmocka_unit_test(one_name_may_mean_different_things_to_two_commands),
        cmocka_unit_test(help_asks_for_nothing_else),
        cmocka_unit_test(wrong_usage_is_one_line_that_names_the_flag),
        cmocka_unit_test(integers_are_decimal_and_in_range),
        cmocka_unit_test(malformed_values_are_wrong_usage_and_name_the_flag),
        cmocka_unit_test(specific_versions_are_listed_and_only_with_their_policy),
        cmocka_unit_test(commands_are_found_by_their_words),
        cmocka_unit_test(the_documentation_is_what_the_table_says),
        cmocka_unit_test(every_commands_help_names_each_of_its_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
