/* The analysis of experiments: distributions, who counts for what, estimates worked out by hand. Random data
 * are judged in NumPy by tests/e2e/test_analyze.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "service/analysis/analysis.h"
#include "service/analysis/interner.h"
#include "service/analysis/statistics.h"

/* ---- Distributions; the expected values are those of R 4.2, Student's of mpmath 1.4. ---- */

static void p_values_are_those_of_the_distributions(void **state) {
    (void)state;
    assert_float_equal(hr_student_two_sided(0, 7), 1, 0);
    assert_float_equal(hr_student_two_sided(0.3, 1), 0.8144528418445153, 1e-14);
    assert_float_equal(hr_student_two_sided(-2.5, 24.0 / 7), 0.07719108349708496, 1e-14);
    assert_float_equal(hr_student_two_sided(1.5, 10000), 0.1336459718236196, 1e-11);
    assert_float_equal(hr_student_two_sided(6, 200) * 1e9, 9.115120348810385, 1e-10);
    assert_float_equal(hr_student_two_sided(1e200, 3), 0, 0);
    assert_float_equal(hr_student_95(1), 12.7062047361747, 1e-12);
    assert_float_equal(hr_student_95(30), 2.042272456301238, 1e-13);
    assert_float_equal(hr_student_95(1e8), 1.95996400826277, 1e-8);
    assert_float_equal(hr_chi_square_upper(3.841458820694124, 1), 0.05, 1e-10);
    assert_float_equal(hr_chi_square_upper(5.991464547107979, 2), 0.05, 1e-10);
    assert_float_equal(hr_chi_square_upper(124.3421134, 100), 0.05, 1e-7);
    assert_float_equal(hr_chi_square_upper(0, 3), 1, 0);
}

static void the_larger_error_says_how_far_a_sum_is_known(void **state) {
    (void)state;
    assert_float_equal(hr_pooled_freedom(1, 7, 1, 7), 14, 1e-12);
    assert_float_equal(hr_pooled_freedom(2, 3, 0, 100), 3, 1e-12);
    assert_float_equal(hr_pooled_freedom(0, 3, 0, 5), 5, 1e-12);
    assert_float_equal(hr_pooled_freedom(3e200, 1, 4e200, 2), 1 / (0.36 * 0.36 + 0.64 * 0.64 / 2), 1e-12);
}

static void shares_are_tested_against_what_they_should_be(void **state) {
    (void)state;
    /* (60-50)^2/50 + (40-50)^2/50 = 4 */
    assert_float_equal(hr_shares_p_value((double[]){60, 40}, (double[]){1, 1}, 2), hr_chi_square_upper(4, 1),
                       1e-15);
    assert_float_equal(hr_shares_p_value((double[]){90, 10}, (double[]){0.9, 0.1}, 2), 1, 1e-12);
    assert_float_equal(hr_shares_p_value((double[]){90, 1}, (double[]){1, 0}, 2), 0, 0);
    assert_float_equal(hr_shares_p_value((double[]){0, 0}, (double[]){1, 1}, 2), 1, 0);
}

static void texts_keep_their_numbers_as_the_interner_grows(void **state) {
    (void)state;
    enum { N = 5000 };
    char text[16];
    hr_interner *interner = hr_interner_create();
    for (uint32_t i = 0; i < N; i++) {
        snprintf(text, sizeof text, "u%u", i);
        assert_int_equal(hr_interner_find(interner, text), HR_INTERNER_NONE);
        assert_int_equal(hr_interner_add(interner, text), i);
    }
    for (uint32_t i = 0; i < N; i++) {
        snprintf(text, sizeof text, "u%u", i);
        assert_int_equal(hr_interner_add(interner, text), i);
        assert_string_equal(hr_interner_text(interner, i), text);
    }
    assert_int_equal(hr_interner_count(interner), N);
    hr_interner_destroy(interner);
}

/* ---- Analyses ---- */

typedef struct fixture {
    char exposures[64], outcomes[64];
    FILE *messages;
    char *said;
    size_t n_said;
} fixture;

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    snprintf(f->exposures, sizeof f->exposures, "/tmp/analysis-%d-exposures.jsonl", (int)getpid());
    snprintf(f->outcomes, sizeof f->outcomes, "/tmp/analysis-%d-outcomes.jsonl", (int)getpid());
    f->messages = open_memstream(&f->said, &f->n_said);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    unlink(f->exposures);
    unlink(f->outcomes);
    fclose(f->messages);
    free(f->said);
    free(f);
    return 0;
}

static hr_status analyze(fixture *f, const char *experiment, char **text, uint64_t *n_bad, hr_error *err) {
    size_t n;
    FILE *out = open_memstream(text, &n);
    hr_analysis_options options = {.exposures = f->exposures,
                                   .outcomes = f->outcomes,
                                   .experiment = experiment,
                                   .json = true,
                                   .out = out,
                                   .messages = f->messages};
    hr_status status = hr_analyze(&options, n_bad, err);
    fclose(out);
    fflush(f->messages);
    return status;
}

/* The only experiment of the analysis; a new reference. */
static json_t *analyzed(fixture *f, uint64_t n_bad_expected) {
    char *text;
    uint64_t n_bad;
    hr_error err;
    if (analyze(f, "", &text, &n_bad, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(n_bad, n_bad_expected);
    json_t *whole = json_loads(text, 0, NULL);
    assert_non_null(whole);
    json_t *experiment = json_incref(json_array_get(json_object_get(whole, "experiments"), 0));
    json_decref(whole);
    free(text);
    return experiment;
}

static double estimate_of(const json_t *experiment, const char *task, const char *measure, int variation,
                          const char *what) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(experiment, "estimates"), i, row) {
        if (strcmp(json_string_value(json_object_get(row, "task")), task) == 0 &&
            strcmp(json_string_value(json_object_get(row, "measure")), measure) == 0 &&
            json_integer_value(json_object_get(row, "variation")) == variation) {
            assert_true(json_is_number(json_object_get(row, what)));
            return json_number_value(json_object_get(row, what));
        }
    }
    fail_msg("no %s of %s", measure, task);
    return 0;
}

#define EXPOSED(user, time, variation, in)                                                                   \
    "{\"time\":\"" time "\",\"user_id\":\"" user "\",\"experiment\":\"ab\",\"variation\":" variation         \
    ",\"in_experiment\":" in "}\n"
#define AT "2026-11-23T10:00:00Z"

static void the_mean_is_a_ratio_with_an_error_by_user(void **state) {
    fixture *f = *state;
    write_file(f->exposures, EXPOSED("a", AT, "0", "true") EXPOSED("b", AT, "0", "true")
                                 EXPOSED("c", AT, "1", "true") EXPOSED("d", AT, "1", "true"));
    write_file(f->outcomes, "{\"user_id\":\"a\",\"outcomes\":{\"click\":1}}\n"
                            "{\"user_id\":\"a\",\"outcomes\":{\"click\":0}}\n"
                            "{\"user_id\":\"a\",\"outcomes\":{\"click\":0}}\n"
                            "{\"user_id\":\"b\",\"outcomes\":{\"click\":1}}\n"
                            "{\"user_id\":\"c\",\"outcomes\":{\"click\":1}}\n"
                            "{\"user_id\":\"d\",\"outcomes\":{\"click\":0}}\n");
    json_t *ab = analyzed(f, 0);
    /* R = 2/4; y - R n: a 1 - 1.5, b 1 - 0.5; (0.25 + 0.25) 2/1 / 16 */
    assert_float_equal(estimate_of(ab, "click", "mean", 0, "value"), 0.5, 1e-15);
    assert_float_equal(estimate_of(ab, "click", "mean", 0, "standard_error"), 0.25, 1e-15);
    /* R = 1/2; (0.25 + 0.25) 2/1 / 4 */
    assert_float_equal(estimate_of(ab, "click", "mean", 1, "standard_error"), 0.5, 1e-15);
    assert_float_equal(estimate_of(ab, "click", "mean", 1, "difference"), 0, 1e-15);
    /* one degree of freedom each, a fifth and four fifths of the variance: 1 / (0.04 + 0.64) = 25/17 */
    assert_float_equal(estimate_of(ab, "click", "mean", 1, "high"), 6.188114940769255 * 0.5590169943749475,
                       1e-12);
    json_decref(ab);
}

static void ties_of_predictions_count_one_half(void **state) {
    fixture *f = *state;
    write_file(f->exposures, EXPOSED("a", AT, "0", "true") EXPOSED("b", AT, "0", "true"));
    write_file(f->outcomes, "{\"user_id\":\"a\",\"outcomes\":{\"t\":1},\"predictions\":{\"t\":0.5}}\n"
                            "{\"user_id\":\"a\",\"outcomes\":{\"t\":0},\"predictions\":{\"t\":0.5}}\n"
                            "{\"user_id\":\"b\",\"outcomes\":{\"t\":1},\"predictions\":{\"t\":0.9}}\n"
                            "{\"user_id\":\"b\",\"outcomes\":{\"t\":0},\"predictions\":{\"t\":0.1}}\n");
    json_t *ab = analyzed(f, 0);
    /* V10: 0.75 and 1; V01: 0.75 and 1; A = 0.875; psi: a -0.0625 - 0.0625, b the opposite; 2/1 * 2/64 */
    assert_float_equal(estimate_of(ab, "t", "AUC", 0, "value"), 0.875, 1e-15);
    assert_float_equal(estimate_of(ab, "t", "AUC", 0, "standard_error"), 0.25, 1e-12);
    json_decref(ab);
}

static void the_users_of_the_rarer_class_limit_how_well_an_area_is_known(void **state) {
    fixture *f = *state;
    char outcomes[4096];
    size_t n = 0;
    const struct {
        char user;
        int label;
        double prediction;
    } lines[] = {{'a', 1, 0.4}, {'b', 1, 0.8}, {'c', 0, 0.1}, {'d', 0, 0.3}, {'e', 0, 0.5}, {'f', 0, 0.7},
                 {'g', 1, 0.4}, {'h', 1, 0.8}, {'i', 0, 0.1}, {'j', 0, 0.3}, {'k', 0, 0.5}, {'l', 0, 0.7}};
    FILE *exposures = fopen(f->exposures, "w");
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        fprintf(exposures, EXPOSED("%c", AT, "%d", "true"), lines[i].user, i >= 6);
        n += (size_t)sprintf(outcomes + n,
                             "{\"user_id\":\"%c\",\"outcomes\":{\"t\":%d},\"predictions\":{\"t\":%g}}\n",
                             lines[i].user, lines[i].label, lines[i].prediction);
    }
    fclose(exposures);
    write_file(f->outcomes, outcomes);
    json_t *ab = analyzed(f, 0);
    /* V10: 0.5, 1; V01: 1, 1, 0.5, 0.5; A = 0.75; 2/1 * 2 (0.25/2)^2 = 1/16 and 4/3 * 4 (0.25/4)^2 = 1/48 */
    assert_float_equal(estimate_of(ab, "t", "AUC", 1, "value"), 0.75, 1e-15);
    assert_float_equal(estimate_of(ab, "t", "AUC", 1, "standard_error"), sqrt(1.0 / 12), 1e-14);
    /* three quarters of it with one degree of freedom, the rest with three: 12/7, and twice that in all */
    assert_float_equal(estimate_of(ab, "t", "AUC", 1, "high"), 2.968818133154016 * sqrt(1.0 / 6), 1e-12);
    json_decref(ab);
}

static void an_area_of_one_users_positives_has_no_error(void **state) {
    fixture *f = *state;
    write_file(f->exposures, EXPOSED("a", AT, "0", "true") EXPOSED("b", AT, "0", "true"));
    write_file(f->outcomes, "{\"user_id\":\"a\",\"outcomes\":{\"t\":1},\"predictions\":{\"t\":0.5}}\n"
                            "{\"user_id\":\"a\",\"outcomes\":{\"t\":0},\"predictions\":{\"t\":0.6}}\n"
                            "{\"user_id\":\"b\",\"outcomes\":{\"t\":0},\"predictions\":{\"t\":0.1}}\n");
    json_t *ab = analyzed(f, 0);
    const json_t *area = json_array_get(json_object_get(ab, "estimates"), 1);
    assert_string_equal(json_string_value(json_object_get(area, "measure")), "AUC");
    assert_float_equal(json_number_value(json_object_get(area, "value")), 0.5, 0);
    assert_int_equal(json_integer_value(json_object_get(area, "users")), 2);
    assert_true(json_is_null(json_object_get(area, "standard_error")));
    json_decref(ab);
}

static void who_was_in_two_variations_is_left_out(void **state) {
    fixture *f = *state;
    write_file(f->exposures,
               EXPOSED("a", AT, "0", "true") EXPOSED("a", AT, "1", "true") EXPOSED("b", AT, "1", "true")
                   EXPOSED("b", AT, "1", "true") EXPOSED("c", AT, "0", "false"));
    write_file(f->outcomes, "{\"user_id\":\"a\",\"outcomes\":{\"click\":1}}\n"
                            "{\"user_id\":\"b\",\"outcomes\":{\"click\":0.25}}\n"
                            "{\"user_id\":\"c\",\"outcomes\":{\"click\":1}}\n");
    json_t *ab = analyzed(f, 0);
    assert_int_equal(json_integer_value(json_object_get(ab, "users_left_out")), 1);
    assert_int_equal(json_integer_value(json_object_get(ab, "exposures")), 4);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(ab, "users"), 0)), 0);
    assert_float_equal(estimate_of(ab, "click", "mean", 1, "value"), 0.25, 0);
    json_decref(ab);
    if (strstr(f->said, "1 of 3 outcomes are of users in no experiment") == NULL) fail_msg("%s", f->said);
}

static void outcomes_before_the_first_exposure_do_not_count(void **state) {
    fixture *f = *state;
    write_file(f->exposures, EXPOSED("a", "2026-11-23T10:00:01.5Z", "0", "true")
                                 EXPOSED("a", "2026-11-23T10:00:00.250Z", "0", "true"));
    write_file(f->outcomes,
               "{\"user_id\":\"a\",\"time\":\"2026-11-23T10:00:00.2Z\",\"outcomes\":{\"n\":1}}\n"
               "{\"user_id\":\"a\",\"time\":\"2026-11-23T10:00:00.25Z\",\"outcomes\":{\"n\":2}}\n"
               "{\"user_id\":\"a\",\"time\":1795428000.1,\"outcomes\":{\"n\":4}}\n"
               "{\"user_id\":\"a\",\"time\":1795428000.3,\"outcomes\":{\"n\":8}}\n"
               "{\"user_id\":\"a\",\"outcomes\":{\"n\":16}}\n");
    json_t *ab = analyzed(f, 0);
    assert_float_equal(estimate_of(ab, "n", "mean", 0, "value"), 26.0 / 3, 1e-12);
    json_decref(ab);
}

static void bad_lines_are_said_and_passed_over(void **state) {
    fixture *f = *state;
    write_file(f->exposures, "[]\n{\"time\":\"yesterday\",\"user_id\":\"a\",\"experiment\":\"ab\"}\n"
                             "{\"user_id\":7}\n" EXPOSED("a", AT, "100", "true") EXPOSED("a", AT, "0", "1")
                                 EXPOSED("a", AT, "0", "true") "{\"user_id\":\"a\"");
    write_file(f->outcomes, "{\"user_id\":\"a\",\"outcomes\":{\"n\":\"1\"}}\n"
                            "{\"user_id\":\"a\",\"outcomes\":{\"n\":1},\"predictions\":[]}\n"
                            "{\"outcomes\":{\"n\":1}}\n"
                            "{\"user_id\":\"a\",\"outcomes\":{\"n\":1}}\n");
    json_t *ab = analyzed(f, 9);
    assert_float_equal(estimate_of(ab, "n", "mean", 0, "value"), 1, 0);
    json_decref(ab);
    const char *const said[] = {
        ":1: expected a JSON object, found another kind of value",
        ":2: time: expected a time like \"2026-11-23T16:40:00.123Z\" or seconds since 1970",
        ":3: user_id: expected a string, found another kind of value",
        ":4: variation: expected an integer of 0 to 99",
        ":5: in_experiment: expected true or false",
        ":1: outcomes: \"n\": expected a number",
        ":2: predictions: expected an object of numbers, found another kind of value",
        ":3: user_id: expected a string, found nothing",
    };
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        if (strstr(f->said, said[i]) == NULL) fail_msg("expected \"%s\" in: %s", said[i], f->said);
    }
}

static void a_line_of_too_many_tasks_counts_for_none(void **state) {
    fixture *f = *state;
    char line[2048];
    size_t n = (size_t)sprintf(line, "{\"user_id\":\"a\",\"outcomes\":{\"n\":1}}\n"
                                     "{\"user_id\":\"a\",\"outcomes\":{\"n\":3");
    for (int i = 1; i <= 64; i++) n += (size_t)sprintf(line + n, ",\"t%d\":1", i);
    sprintf(line + n, "}}\n");
    write_file(f->exposures, EXPOSED("a", AT, "0", "true"));
    write_file(f->outcomes, line);
    json_t *ab = analyzed(f, 1);
    assert_float_equal(estimate_of(ab, "n", "mean", 0, "value"), 1, 0);
    json_decref(ab);
    assert_non_null(strstr(f->said, ":2: outcomes: expected at most 64 tasks, found one more, \"t64\""));
}

static void a_sum_that_is_no_number_is_null(void **state) {
    fixture *f = *state;
    write_file(f->exposures, EXPOSED("a", AT, "0", "true"));
    write_file(f->outcomes, "{\"user_id\":\"a\",\"outcomes\":{\"n\":1e308}}\n"
                            "{\"user_id\":\"a\",\"outcomes\":{\"n\":1e308}}\n");
    json_t *ab = analyzed(f, 0);
    const json_t *estimates = json_object_get(ab, "estimates");
    assert_int_equal(json_array_size(estimates), 1);
    assert_true(json_is_null(json_object_get(json_array_get(estimates, 0), "value")));
    json_decref(ab);
}

static void nothing_to_analyze_is_an_error(void **state) {
    fixture *f = *state;
    char *text;
    uint64_t n_bad;
    hr_error err;
    write_file(f->exposures, EXPOSED("a", AT, "0", "false"));
    write_file(f->outcomes, "");
    assert_int_equal(analyze(f, "", &text, &n_bad, &err), HR_NOT_FOUND);
    free(text);
    assert_non_null(strstr(err.message, "expected exposures to an experiment, found none"));
    write_file(f->exposures, EXPOSED("a", AT, "0", "true"));
    assert_int_equal(analyze(f, "other", &text, &n_bad, &err), HR_NOT_FOUND);
    free(text);
    assert_non_null(strstr(err.message, "expected exposures to the experiment \"other\", found none"));
    unlink(f->outcomes);
    assert_int_equal(analyze(f, "ab", &text, &n_bad, &err), HR_NOT_FOUND);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p_values_are_those_of_the_distributions),
        cmocka_unit_test(the_larger_error_says_how_far_a_sum_is_known),
        cmocka_unit_test(shares_are_tested_against_what_they_should_be),
        cmocka_unit_test(texts_keep_their_numbers_as_the_interner_grows),
        cmocka_unit_test_setup_teardown(the_mean_is_a_ratio_with_an_error_by_user, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ties_of_predictions_count_one_half, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_users_of_the_rarer_class_limit_how_well_an_area_is_known, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_area_of_one_users_positives_has_no_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_was_in_two_variations_is_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(outcomes_before_the_first_exposure_do_not_count, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_lines_are_said_and_passed_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_line_of_too_many_tasks_counts_for_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_sum_that_is_no_number_is_null, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_to_analyze_is_an_error, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
