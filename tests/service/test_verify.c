/* verify.jsonl: a model is served only where it computes what its training code computed. The expected logits
 * come from the tests' own evaluation of the tiny model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "service/verify.h"
#include "tests/model/model_folder.h"
#include "tests/model/tiny_evaluation.h"
#include "tests/service/tiny_service.h"

/* The line for user "1" (row 2 of its table) and one item of this price, its click logit off by `error`. */
static void write_verify(const tiny_service *s, double error, const char *item, const char *task) {
    test_tensors tensors = {0};
    double logits[2];
    test_tiny_tensors(&tensors, "batch");
    test_tiny_evaluate(&tensors, "batch", 2, 1.5, logits);
    test_tensors_clear(&tensors);
    char line[512];
    int n = snprintf(line, sizeof line,
                     "{\"request\": {\"request_id\": \"v1\", \"user_id\": \"1\", \"item_ids\": [\"a\"], "
                     "\"item_features\": [{\"price\": 1.5}]}, \"logits\": {\"%s\": {\"%s\": %.17g}}}\n",
                     item, task, logits[0] + error);
    test_write_bytes(s->folder, "verify.jsonl", line, (size_t)n);
}

static hr_status verify(void **state, uint32_t *n_lines, hr_error *err) {
    const tiny_service *s = *state;
    hr_model *model = NULL;
    char path[600];
    snprintf(path, sizeof path, "%s/verify.jsonl", s->folder);
    assert_int_equal(hr_repository_acquire(s->repository, "tiny", &model, err), HR_OK);
    hr_status status = hr_verify_file(model, path, n_lines, err);
    hr_model_unref(model);
    return status;
}

static void expect_refused(void **state, const char *message) {
    uint32_t n_lines;
    hr_error err;
    assert_int_equal(verify(state, &n_lines, &err), HR_INVALID_ARGUMENT);
    if (strstr(err.message, message) == NULL) fail_msg("expected \"%s\" in \"%s\"", message, err.message);
}

static void what_was_trained_is_accepted(void **state) {
    uint32_t n_lines = 0;
    hr_error err;
    write_verify(*state, 0, "a", "click");
    if (verify(state, &n_lines, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(n_lines, 1);
}

static void a_logit_out_of_bounds_is_refused_by_line_request_item_and_task(void **state) {
    write_verify(*state, 2e-3, "a", "click");
    expect_refused(state, "verify.jsonl:1: request \"v1\", item \"a\", task click: expected ");
}

static void names_that_the_model_or_request_lacks_are_refused(void **state) {
    write_verify(*state, 0, "b", "click");
    expect_refused(state, "\"b\"");
    write_verify(*state, 0, "a", "share");
    expect_refused(state, "\"share\"");
}

static void lines_that_verify_nothing_are_refused(void **state) {
    const tiny_service *s = *state;
    static const char *const lines[] = {
        "not JSON",
        "{}",
        "[]",
        "{\"request\": {}, \"logits\": {}, \"more\": 1}",
        "{\"request\": {\"user_id\": \"1\", \"item_ids\": [\"a\"]}, \"logits\": {}}",
        "{\"request\": {\"user_id\": \"1\", \"item_ids\": [\"a\"]}, \"logits\": {\"a\": 1}}",
        "{\"request\": {\"user_id\": \"1\", \"item_ids\": [\"a\"]}, \"logits\": {\"a\": {\"click\": null}}}",
        "{\"request\": {\"user_id\": \"1\", \"item_ids\": [\"a\"]}, \"logits\": {\"a\": {}}}",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        test_write_bytes(s->folder, "verify.jsonl", lines[i], strlen(lines[i]));
        expect_refused(state, "verify.jsonl:1: ");
    }
    test_write_bytes(s->folder, "verify.jsonl", "", 0);
    expect_refused(state, "verify.jsonl: expected at least one line, found none");
}

static void without_the_file_there_is_nothing_to_check(void **state) {
    uint32_t n_lines = 7;
    hr_error err;
    assert_int_equal(verify(state, &n_lines, &err), HR_OK);
    assert_int_equal(n_lines, 0);
}

#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_service_setup, tiny_service_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TINY_TEST(what_was_trained_is_accepted),
        TINY_TEST(a_logit_out_of_bounds_is_refused_by_line_request_item_and_task),
        TINY_TEST(names_that_the_model_or_request_lacks_are_refused),
        TINY_TEST(lines_that_verify_nothing_are_refused),
        TINY_TEST(without_the_file_there_is_nothing_to_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
