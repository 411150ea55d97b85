/* Labels: labels.json as a person writes it, and as a call writes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/model/repository_fixture.h"

static void labels_keep_their_versions_and_resolve(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    add_version(f, "home", 3);
    write_text(f, "home/labels.json", "{\"stable\": 1, \"canary\": 3, \"lost\": 9}");
    repository_fixture_open(f, &repository_fixture_options);
    expect_acquired(f, "home", "home@3");
    expect_acquired(f, "home:stable", "home@1");
    expect_acquired(f, "home:canary", "home@3");
    expect_acquired(f, "home@1", "home@1");
    expect_refused(f, "home@2", HR_NOT_FOUND, "version 3 is");
    expect_refused(f, "home:lost", HR_NOT_FOUND, "there is no such label");
    expect_refused(f, "home:beta", HR_NOT_FOUND, "there is no such label");
    add_version(f, "home", 9);
    look(f);
    wait_for_state(f, "home", 9, HR_VERSION_SERVING);
    expect_acquired(f, "home:lost", "home@9");
    expect_acquired(f, "home:canary", "home@3");
}

/* Until the new version serves the label stays, and so does the old version. */
static void a_label_moves_when_its_new_version_serves(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    add_broken_version(f, "home", 3);
    write_text(f, "home/labels.json", "{\"stable\": 1}");
    repository_fixture_open(f, &repository_fixture_options);
    write_text(f, "home/labels.json", "{\"stable\": 3}");
    look(f);
    look(f);
    expect_acquired(f, "home:stable", "home@1");
    add_version(f, "home", 3);
    look(f);
    wait_for_state(f, "home", 3, HR_VERSION_SERVING);
    expect_acquired(f, "home:stable", "home@3");
    wait_for_state(f, "home", 1, HR_VERSION_AVAILABLE);
    expect_refused(f, "home@1", HR_NOT_FOUND, "version 3 is");
}

static void a_file_that_says_nonsense_leaves_the_labels(void **state) {
    repository_fixture *f = *state;
    static const struct {
        const char *text, *error;
    } wrong[] = {
        {"", "labels.json: line 1, column 0: expected JSON"},
        {"[1]", "labels.json: the file: expected an object {\"label\": version}, found an array"},
        {"{\"stable\": 0}", "labels.json: stable: expected a version, an integer >= 1, found 0"},
        {"{\"stable\": -1}", "labels.json: stable: expected a version, an integer >= 1, found -1"},
        {"{\"stable\": 1.0}", "found 1.0"},
        {"{\"stable\": \"1\"}", "found \"1\""},
        {"{\"stable\": 99999999999999999999}", "labels.json: line 1"},
        {"{\"a b\": 1}",
         "labels.json: expected a label of letters, digits, _ and - (at most 63), found \"a b\""},
        {"{\"\": 1}", "found \"\""},
        {"{\"a123456789012345678901234567890123456789012345678901234567890123\": 1}", "at most 63"},
        {"{\"stable\": 1, \"stable\": 2}", "labels.json: line 1"},
        {"{\"stable\": 1} x", "labels.json: line 1"},
    };
    add_version(f, "home", 1);
    write_text(f, "home/labels.json", "{\"stable\": 1}");
    repository_fixture_open(f, &repository_fixture_options);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_text(f, "home/labels.json", wrong[i].text);
        look(f);
        const version_seen seen = see_version(f, "home", 1);
        if (strstr(seen.model_error, wrong[i].error) == NULL)
            fail_msg("expected \"%s\", found \"%s\"", wrong[i].error, seen.model_error);
        expect_acquired(f, "home:stable", "home@1");
        expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 1, "beta", HR_FAILED_PRECONDITION,
                      "mend or remove the file first: labels.json");
    }
    write_text(f, "home/labels.json", "{\"beta\": 1}");
    look(f);
    assert_string_equal(see_version(f, "home", 1).model_error, "");
    expect_acquired(f, "home:beta", "home@1");
    expect_refused(f, "home:stable", HR_NOT_FOUND, "there is no such label");
}

static void a_file_that_is_none_or_too_large_leaves_the_labels(void **state) {
    repository_fixture *f = *state;
    char path[600];
    add_version(f, "home", 1);
    write_text(f, "home/labels.json", "{\"stable\": 1}");
    repository_fixture_open(f, &repository_fixture_options);
    char *large = malloc(70001);
    memset(large, ' ', 70000);
    large[70000] = '\0';
    write_text(f, "home/labels.json", large);
    free(large);
    look(f);
    assert_non_null(
        strstr(see_version(f, "home", 1).model_error, "expected at most 65536 bytes, found more"));
    snprintf(path, sizeof path, "%s/home/labels.json", f->root);
    unlink(path);
    assert_int_equal(mkfifo(path, 0644), 0); /* which nobody writes to */
    look(f);
    assert_string_equal(see_version(f, "home", 1).model_error, "labels.json: expected a regular file");
    expect_acquired(f, "home:stable", "home@1");
    unlink(path);
    look(f);
    assert_string_equal(see_version(f, "home", 1).model_error, "");
    expect_refused(f, "home:stable", HR_NOT_FOUND, "there is no such label");
}

static void a_label_that_is_set_survives_and_keeps_the_others(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    write_text(f, "home/labels.json", "{\"by-hand\": 1}");
    repository_fixture_open(f, &repository_fixture_options);
    expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 1, "stable", HR_OK, "");
    add_version(f, "home", 2);
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_SERVING);
    expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 2, "canary", HR_OK, "");
    expect_acquired(f, "home:stable", "home@1");
    expect_acquired(f, "home:canary", "home@2");
    char *text = read_text(f, "home/labels.json");
    assert_string_equal(text, "{\n  \"by-hand\": 1,\n  \"stable\": 1,\n  \"canary\": 2\n}");
    free(text);
    repository_fixture_reopen(f, &repository_fixture_options);
    expect_acquired(f, "home:by-hand", "home@1");
    expect_acquired(f, "home:stable", "home@1");
    expect_acquired(f, "home:canary", "home@2");
}

static void moving_and_removing_labels_lets_versions_go(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    write_text(f, "home/labels.json", "{\"stable\": 1, \"old\": 1}");
    repository_fixture_open(f, &repository_fixture_options);
    expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 2, "stable", HR_OK, "");
    expect_acquired(f, "home:stable", "home@2");
    expect_acquired(f, "home:old", "home@1");
    expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 0, "old", HR_OK, "");
    expect_refused(f, "home:old", HR_NOT_FOUND, "there is no such label");
    expect_refused(f, "home@1", HR_NOT_FOUND, "version 2 is");
    wait_for_state(f, "home", 1, HR_VERSION_AVAILABLE);
}

static void what_cannot_be_labelled_is_refused_with_the_reason(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    options.default_model = "home:stable";
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    write_text(f, "home/labels.json", "{\"stable\": 2}");
    repository_fixture_open(f, &options);
    expect_acquired(f, "", "home@2");
    const hr_repository_action set = HR_REPOSITORY_SET_LABEL;
    expect_change(f, set, "home", 1, "beta", HR_FAILED_PRECONDITION, "home@1 is not served: load it first");
    expect_change(f, set, "home", 7, "beta", HR_FAILED_PRECONDITION, "home@7 is not served");
    expect_change(f, set, "mmoe", 1, "beta", HR_NOT_FOUND, "model \"mmoe\"@1 is not in the repository");
    expect_change(f, set, "home", 0, "beta", HR_NOT_FOUND, "model home has no label beta");
    expect_change(f, set, "home", 0, "stable", HR_FAILED_PRECONDITION, "the default model is home:stable");
    expect_change(f, set, "home", 2, "a b", HR_INVALID_ARGUMENT, "expected a label of letters");
    expect_change(f, set, "home", 2, "", HR_INVALID_ARGUMENT, "found \"\"");
    expect_change(f, set, "home", UINT64_MAX, "beta", HR_INVALID_ARGUMENT, "a version below 2^63");
    char *text = read_text(f, "home/labels.json");
    assert_string_equal(text, "{\"stable\": 2}");
    free(text);
}

static void a_file_that_cannot_be_written_changes_nothing(void **state) {
    repository_fixture *f = *state;
    char path[600];
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    write_text(f, "home/labels.json", "{\"stable\": 1}");
    repository_fixture_open(f, &repository_fixture_options);
    snprintf(path, sizeof path, "%s/home/labels.json.tmp", f->root);
    assert_int_equal(mkdir(path, 0755), 0); /* where the new file would be written */
    expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 2, "stable", HR_IO, "labels.json: cannot write");
    expect_acquired(f, "home:stable", "home@1");
    char *text = read_text(f, "home/labels.json");
    assert_string_equal(text, "{\"stable\": 1}");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        REPOSITORY_TEST(labels_keep_their_versions_and_resolve),
        REPOSITORY_TEST(a_label_moves_when_its_new_version_serves),
        REPOSITORY_TEST(a_file_that_says_nonsense_leaves_the_labels),
        REPOSITORY_TEST(a_file_that_is_none_or_too_large_leaves_the_labels),
        REPOSITORY_TEST(a_label_that_is_set_survives_and_keeps_the_others),
        REPOSITORY_TEST(moving_and_removing_labels_lets_versions_go),
        REPOSITORY_TEST(what_cannot_be_labelled_is_refused_with_the_reason),
        REPOSITORY_TEST(a_file_that_cannot_be_written_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
