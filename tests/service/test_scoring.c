/* Offline scoring: answers in the order of the requests, bad lines told and passed over, files that fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/text_file.h"
#include "proto/json.h"
#include "service/scoring.h"
#include "tests/model/model_folder.h"
#include "tests/service/tiny_service.h"

static hr_status score(const tiny_service *s, const char *in, const char *out, hr_scoring_result *result,
                       hr_error *err) {
    const hr_scoring_options options = {.in_path = in,
                                        .out_path = out,
                                        .n_in_flight = 3,
                                        .n_items_in_flight = tiny_pipeline_options.max_queued_items,
                                        .max_call_nbytes = 1 << 20};
    return hr_score_file(s->pipeline, &options, result, err);
}

static void expect_ids(const char *path, int first, int last, int skipped) {
    hr_line_reader *reader = NULL;
    hr_error err;
    assert_int_equal(hr_line_reader_open(path, HR_LINE_MAX_NBYTES, NULL, &reader, &err), HR_OK);
    const char *line;
    size_t nbytes;
    for (int i = first; i <= last; i++) {
        char id[16];
        json_t *value = NULL;
        if (i == skipped) continue;
        assert_int_equal(hr_line_reader_next(reader, &line, &nbytes, &err), HR_OK);
        assert_non_null(line);
        assert_int_equal(hr_json_parse(line, nbytes, &value, &err), HR_OK);
        snprintf(id, sizeof id, "r%d", i);
        assert_string_equal(json_string_value(json_object_get(value, "request_id")), id);
        assert_string_equal(json_string_value(json_object_get(value, "model")), "tiny@1");
        assert_int_equal(json_array_size(json_object_get(value, "items")), 2);
        json_decref(value);
    }
    assert_int_equal(hr_line_reader_next(reader, &line, &nbytes, &err), HR_OK);
    assert_null(line);
    hr_line_reader_close(reader);
}

static void answers_keep_the_order_and_bad_lines_cost_only_themselves(void **state) {
    enum { N = 50, BAD = 17 };
    const tiny_service *s = *state;
    char text[8192], in[600], out[600];
    size_t n = 0;
    for (int i = 1; i <= N; i++)
        n += (size_t)snprintf(
            text + n, sizeof text - n,
            i == BAD ? "{\"request_id\": \"r%d\"\n"
                     : "{\"request_id\": \"r%d\", \"user_id\": \"2\", \"item_ids\": [\"a\", \"b\"]}\n",
            i);
    test_write_bytes(s->root, "in.jsonl", text, n);
    snprintf(in, sizeof in, "%s/in.jsonl", s->root);
    snprintf(out, sizeof out, "%s/out.jsonl.gz", s->root);
    hr_scoring_result result;
    hr_error err;
    if (score(s, in, out, &result, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(result.n_scored, N - 1);
    assert_int_equal(result.n_failed, 1);
    assert_int_equal(result.n_items, 2 * (N - 1));
    expect_ids(out, 1, N, BAD);
}

/* Three requests may be under way, but not more than 200 items: requests of 90 fit two at a time. */
static void large_requests_wait_for_room_in_the_queue(void **state) {
    enum { N = 60, N_ITEMS = 90 };
    const tiny_service *s = *state;
    char line[1024] = "{\"user_id\": \"2\", \"item_ids\": [\"a\"", in[600], out[600];
    for (int i = 1; i < N_ITEMS; i++) strcat(line, ", \"a\"");
    strcat(line, "]}\n");
    char *text = calloc(N, sizeof line);
    assert_non_null(text);
    for (int i = 0; i < N; i++) strcat(text, line);
    test_write_bytes(s->root, "in.jsonl", text, strlen(text));
    free(text);
    snprintf(in, sizeof in, "%s/in.jsonl", s->root);
    snprintf(out, sizeof out, "%s/out.jsonl", s->root);
    hr_scoring_result result;
    hr_error err;
    if (score(s, in, out, &result, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(result.n_scored, N);
    assert_int_equal(result.n_failed, 0);
    assert_int_equal(result.n_items, N * N_ITEMS);
}

static void files_that_cannot_be_used_are_named(void **state) {
    const tiny_service *s = *state;
    char in[600], out[600];
    hr_scoring_result result;
    hr_error err;
    snprintf(in, sizeof in, "%s/none.jsonl", s->root);
    snprintf(out, sizeof out, "%s/out.jsonl", s->root);
    assert_int_not_equal(score(s, in, out, &result, &err), HR_OK);
    assert_non_null(strstr(err.message, "none.jsonl"));
    test_write_bytes(s->root, "in.jsonl", "", 0);
    snprintf(in, sizeof in, "%s/in.jsonl", s->root);
    snprintf(out, sizeof out, "%s/no/such/folder.jsonl", s->root);
    assert_int_equal(score(s, in, out, &result, &err), HR_IO);
    assert_non_null(strstr(err.message, "folder.jsonl"));
}

static void the_input_is_not_overwritten(void **state) {
    const tiny_service *s = *state;
    const char *line = "{\"request_id\": \"r1\", \"user_id\": \"2\", \"item_ids\": [\"a\", \"b\"]}\n";
    char in[600], same[600], out[600];
    hr_scoring_result result;
    hr_error err;
    test_write_bytes(s->root, "in.jsonl", line, strlen(line));
    snprintf(in, sizeof in, "%s/in.jsonl", s->root);
    snprintf(same, sizeof same, "%s/./in.jsonl", s->root);
    assert_int_equal(score(s, in, same, &result, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "other than the input"));
    snprintf(out, sizeof out, "%s/out.jsonl", s->root);
    if (score(s, in, out, &result, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(result.n_scored, 1);
}

static void a_full_disk_is_an_error_and_nothing_hangs(void **state) {
    const tiny_service *s = *state;
    const char *line = "{\"user_id\": \"2\", \"item_ids\": [\"a\", \"b\"]}\n";
    char text[8192] = "", in[600];
    for (int i = 0; i < 100; i++) strcat(text, line);
    test_write_bytes(s->root, "in.jsonl", text, strlen(text));
    snprintf(in, sizeof in, "%s/in.jsonl", s->root);
    hr_scoring_result result;
    hr_error err;
    assert_int_equal(score(s, in, "/dev/full", &result, &err), HR_IO);
    assert_non_null(strstr(err.message, "/dev/full"));
}

#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_service_setup, tiny_service_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TINY_TEST(answers_keep_the_order_and_bad_lines_cost_only_themselves),
        TINY_TEST(large_requests_wait_for_room_in_the_queue),
        TINY_TEST(files_that_cannot_be_used_are_named),
        TINY_TEST(the_input_is_not_overwritten),
        TINY_TEST(a_full_disk_is_an_error_and_nothing_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
