/* Fusion and the tasks' outputs (MODEL.md 2 and 4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "model/model.h"

static const hr_task tasks[] = {{.name = "click", .output = HR_OUTPUT_SIGMOID},
                                {.name = "like", .output = HR_OUTPUT_SOFTPLUS},
                                {.name = "time", .output = HR_OUTPUT_IDENTITY},
                                {.name = "price", .output = HR_OUTPUT_EXP}};

static hr_status create(const char *text, hr_fusion **fusion, hr_error *err) {
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    hr_status status = hr_fusion_create(value, tasks, 4, fusion, err);
    json_decref(value);
    return status;
}

static void fusions_give_the_contracts_scores(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double score;
    } rows[] = {
        {"{\"kind\": \"weighted_sum\", \"weights\": {\"click\": 1.0, \"time\": -8}}", 0.25 - 8 * 3.0},
        {"{\"kind\": \"weighted_sum\", \"weights\": {}}", 0.0},
        {"{\"kind\": \"weighted_sum\", \"weights\": {\"price\": 0}}", 0.0},
        {"{\"kind\": \"power_product\", \"terms\": {\"click\": {\"power\": 0.5, \"offset\": 0.5}, \"like\": "
         "{}}}",
         0.86602540378443864676 * 2.0},
        {"{\"kind\": \"power_product\", \"terms\": {}}", 1.0},
        {"{\"kind\": \"power_product\", \"terms\": {\"price\": {\"power\": -2}}}", 0.0625},
    };
    const double outputs[] = {0.25, 2.0, 3.0, 4.0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        hr_fusion *fusion;
        hr_error err = {0};
        if (create(rows[i].text, &fusion, &err) != HR_OK) fail_msg("%s: %s", rows[i].text, err.message);
        double score = hr_fusion_score(fusion, outputs);
        if (!(fabs(score - rows[i].score) <= 1e-15)) fail_msg("%s: %.17g", rows[i].text, score);
        hr_fusion_destroy(fusion);
    }
    hr_fusion_destroy(NULL);
}

static void the_order_of_the_names_changes_no_bit(void **state) {
    (void)state;
    const double outputs[] = {0.1, 0.2, 1e16, 0.3};
    hr_fusion *a, *b;
    hr_error err;
    assert_int_equal(
        create("{\"kind\": \"weighted_sum\", \"weights\": {\"click\": 1, \"time\": 1, \"price\": 1}}", &a,
               &err),
        0);
    assert_int_equal(
        create("{\"kind\": \"weighted_sum\", \"weights\": {\"time\": 1, \"price\": 1, \"click\": 1}}", &b,
               &err),
        0);
    assert_true(hr_fusion_score(a, outputs) == hr_fusion_score(b, outputs));
    hr_fusion_destroy(a);
    hr_fusion_destroy(b);
}

static void what_is_not_finite_stays_so(void **state) {
    (void)state;
    const double infinite[] = {0.5, INFINITY, 0.0, 0.0}, nan_output[] = {NAN, 0.0, 0.0, 0.0}, zero[4] = {0.0};
    hr_fusion *sum, *product;
    hr_error err;
    assert_int_equal(
        create("{\"kind\": \"weighted_sum\", \"weights\": {\"click\": 1, \"like\": 2}}", &sum, &err), 0);
    assert_int_equal(
        create("{\"kind\": \"power_product\", \"terms\": {\"click\": {\"power\": -1}}}", &product, &err), 0);
    assert_true(isinf(hr_fusion_score(sum, infinite)));
    assert_true(isnan(hr_fusion_score(sum, nan_output)));
    assert_true(isinf(hr_fusion_score(product, zero)));
    hr_fusion_destroy(sum);
    hr_fusion_destroy(product);
}

static void a_wrong_fusion_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"[]", "fusion: expected an object, found an array"},
        {"{}", "fusion: kind: expected"},
        {"{\"kind\": \"sum\"}", "fusion: kind: expected weighted_sum or power_product, found \"sum\""},
        {"{\"kind\": \"weighted_sum\"}", "fusion: weights: expected an object"},
        {"{\"kind\": \"weighted_sum\", \"weights\": []}", "fusion: weights: expected an object"},
        {"{\"kind\": \"weighted_sum\", \"terms\": {}}", "fusion: unknown key \"terms\""},
        {"{\"kind\": \"weighted_sum\", \"weights\": {}, \"terms\": {}}", "fusion: unknown key \"terms\""},
        {"{\"kind\": \"power_product\", \"weights\": {}}", "fusion: unknown key \"weights\""},
        {"{\"kind\": \"weighted_sum\", \"weights\": {\"buy\": 1}}",
         "fusion: weights: expected a task of the network, found \"buy\""},
        {"{\"kind\": \"weighted_sum\", \"weights\": {\"click\": \"1\"}}",
         "fusion: weights: click: expected a finite number"},
        {"{\"kind\": \"weighted_sum\", \"weights\": {\"click\": null}}",
         "fusion: weights: click: expected a finite number"},
        {"{\"kind\": \"power_product\", \"terms\": {\"click\": 1}}",
         "fusion: terms: click: expected an object"},
        {"{\"kind\": \"power_product\", \"terms\": {\"click\": {\"x\": 1}}}", "unknown key \"x\""},
        {"{\"kind\": \"power_product\", \"terms\": {\"click\": {\"offset\": -0.1}}}",
         "offset: expected a number >= 0, found -0.1"},
        {"{\"kind\": \"power_product\", \"terms\": {\"click\": {\"power\": true}}}",
         "power: expected a finite number"},
        {"{\"kind\": \"power_product\", \"terms\": {\"time\": {}}}",
         "fusion: terms: time: expected a task with output sigmoid, softplus or exp, found identity"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        hr_fusion *fusion;
        hr_error err = {0};
        hr_status status = create(rows[i].text, &fusion, &err);
        if (status != HR_INVALID_ARGUMENT || strstr(err.message, rows[i].message) == NULL) {
            fail_msg("%s: expected \"%s\", found %d \"%s\"", rows[i].text, rows[i].message, status,
                     err.message);
        }
        assert_null(fusion);
    }
    hr_fusion *fusion;
    hr_error err = {0};
    assert_int_equal(hr_fusion_create(NULL, tasks, 4, &fusion, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "fusion: expected an object, found nothing");
}

/* One fusion, written once, for networks whose tasks differ. */
static void a_spec_fits_every_network_that_has_its_tasks(void **state) {
    (void)state;
    static const hr_task others[] = {{.name = "price", .output = HR_OUTPUT_EXP},
                                     {.name = "click", .output = HR_OUTPUT_SIGMOID}};
    static const double outputs[] = {0.25, 2.0, 3.0, 4.0}, other_outputs[] = {4.0, 0.25};
    json_t *value =
        json_loads("{\"kind\": \"weighted_sum\", \"weights\": {\"click\": 8, \"price\": 1}}", 0, NULL);
    hr_arena *arena = hr_arena_create(4096), *full = hr_arena_create(16);
    const hr_fusion *fusion;
    hr_fusion_spec *spec;
    hr_error err;
    assert_int_equal(hr_fusion_spec_create(value, &spec, &err), HR_OK);
    json_decref(value);
    assert_int_equal(hr_fusion_bind(spec, tasks, 4, arena, &fusion, &err), HR_OK);
    assert_true(hr_fusion_score(fusion, outputs) == 6.0);
    assert_int_equal(hr_fusion_bind(spec, others, 2, arena, &fusion, &err), HR_OK);
    assert_true(hr_fusion_score(fusion, other_outputs) == 6.0);
    assert_int_equal(hr_fusion_bind(spec, others, 1, arena, &fusion, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "fusion: weights: expected a task of the network, found \"click\"");
    assert_int_equal(hr_fusion_bind(spec, tasks, 4, full, &fusion, &err), HR_RESOURCE_EXHAUSTED);
    hr_fusion_spec_destroy(spec);
    hr_fusion_spec_destroy(NULL);
    hr_arena_destroy(full);
    hr_arena_destroy(arena);
}

static void outputs_are_exact_over_the_whole_range(void **state) {
    (void)state;
    static const struct {
        hr_output output;
        double logit, value;
    } rows[] = {
        {HR_OUTPUT_SIGMOID, 0.0, 0.5},
        {HR_OUTPUT_SIGMOID, 2.0, 0.88079707797788244406},
        {HR_OUTPUT_SIGMOID, -2.0, 0.11920292202211755594},
        {HR_OUTPUT_SIGMOID, -700.0, 9.8596765437597708567e-305},
        {HR_OUTPUT_SIGMOID, 1e300, 1.0},
        {HR_OUTPUT_SIGMOID, -1e300, 0.0},
        {HR_OUTPUT_IDENTITY, -3.25, -3.25},
        {HR_OUTPUT_SOFTPLUS, 0.0, 0.69314718055994530942},
        {HR_OUTPUT_SOFTPLUS, -40.0, 4.2483542552915889953e-18},
        {HR_OUTPUT_SOFTPLUS, 40.0, 40.0},
        {HR_OUTPUT_SOFTPLUS, 1e300, 1e300},
        {HR_OUTPUT_EXP, 1.0, 2.7182818284590452354},
        {HR_OUTPUT_EXP, 1000.0, INFINITY},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double value = hr_output_apply(rows[i].output, rows[i].logit);
        if (value != rows[i].value && !(fabs(value - rows[i].value) <= 4e-16 * fabs(rows[i].value))) {
            fail_msg("output %d of %g: expected %.17g, found %.17g", rows[i].output, rows[i].logit,
                     rows[i].value, value);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fusions_give_the_contracts_scores),
        cmocka_unit_test(the_order_of_the_names_changes_no_bit),
        cmocka_unit_test(what_is_not_finite_stays_so),
        cmocka_unit_test(a_wrong_fusion_is_refused),
        cmocka_unit_test(a_spec_fits_every_network_that_has_its_tasks),
        cmocka_unit_test(outputs_are_exact_over_the_whole_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
