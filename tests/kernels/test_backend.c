/* The dispatch to backends: names, precisions, what is not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "kernels/backend.h"
#include "tests/kernels/random_plan.h"

static hr_random_plan *random_plan;

static int make_plan(void **state) {
    (void)state;
    random_plan = hr_random_plan_create(HR_RANDOM_HOME_2, 1);
    return 0;
}

static int free_plan(void **state) {
    (void)state;
    hr_random_plan_destroy(random_plan);
    return 0;
}

static void expect_refused(const char *name, hr_precision precision, hr_status status, const char *message) {
    hr_engine *engine;
    hr_error err = {0};
    assert_int_equal(hr_engine_create(name, precision, &random_plan->plan, &engine, &err), status);
    assert_null(engine);
    if (strstr(err.message, message) == NULL) fail_msg("%s: %s", name, err.message);
}

/* A build may have a backend that this machine has no device for. */
static bool runs_here(const char *name) {
    hr_engine *engine;
    hr_error err;
    hr_status status = hr_engine_create(name, HR_PRECISION_F32, &random_plan->plan, &engine, &err);
    hr_engine_destroy(engine);
    return status != HR_UNAVAILABLE;
}

static void unknown_and_missing_backends_are_told_apart(void **state) {
    (void)state;
    expect_refused("abacus", HR_PRECISION_F32, HR_INVALID_ARGUMENT,
                   "backend: expected auto or one of reference");
    expect_refused("", HR_PRECISION_F32, HR_INVALID_ARGUMENT, "found \"\"");
    if (strstr(hr_backend_names(), "cuda") == NULL) {
        expect_refused("cuda", HR_PRECISION_F32, HR_UNAVAILABLE,
                       "\"cuda\" is not in this build (it has reference");
    } else if (!runs_here("cuda")) {
        expect_refused("cuda", HR_PRECISION_F32, HR_UNAVAILABLE, "backend cuda: no CUDA device");
    }
}

static void the_reference_backend_has_no_bf16(void **state) {
    (void)state;
    expect_refused("reference", HR_PRECISION_BF16, HR_UNIMPLEMENTED,
                   "reference backend computes in f32 only, not in bf16");
}

static void every_backend_of_the_build_is_found_by_its_name(void **state) {
    (void)state;
    char names[64], text[160];
    strncpy(names, hr_backend_names(), sizeof names - 1);
    names[sizeof names - 1] = '\0';
    assert_non_null(strstr(names, "reference"));
    for (char *rest = names, *name; (name = strtok_r(rest, ", ", &rest)) != NULL;) {
        hr_engine *engine;
        hr_error err = {0};
        if (!runs_here(name)) continue;
        if (hr_engine_create(name, HR_PRECISION_F32, &random_plan->plan, &engine, &err) != HR_OK)
            fail_msg("%s", err.message);
        assert_string_equal(hr_engine_backend(engine), name);
        assert_int_equal(hr_engine_precision(engine), HR_PRECISION_F32);
        hr_engine_describe(engine, text, sizeof text);
        assert_non_null(strstr(text, name));
        hr_engine_destroy(engine);
    }
}

/* "auto" gives an engine that agrees with the reference, whichever it chose. */
static void auto_is_one_that_runs_here(void **state) {
    (void)state;
    const uint32_t n_rows[] = {5};
    float logits[2][5 * 4];
    const char *const names[] = {"auto", "reference"};
    for (int i = 0; i < 2; i++) {
        hr_engine *engine;
        hr_worker *worker;
        hr_error err = {0};
        hr_random_batch *batch = hr_random_batch_create(&random_plan->plan, n_rows, 1, 3);
        if (hr_engine_create(names[i], HR_PRECISION_F32, &random_plan->plan, &engine, &err) != HR_OK)
            fail_msg("%s", err.message);
        assert_non_null(strstr(hr_backend_names(), hr_engine_backend(engine)));
        assert_int_equal(hr_worker_create(engine, &worker, &err), HR_OK);
        assert_int_equal(hr_forward(worker, batch->slices, 1, &err), HR_OK);
        assert_int_equal(batch->n_logits, 20);
        memcpy(logits[i], batch->logits, sizeof logits[i]);
        hr_worker_destroy(worker);
        hr_engine_destroy(engine);
        hr_random_batch_destroy(batch);
    }
    for (int i = 0; i < 20; i++)
        assert_true(fabsf(logits[0][i] - logits[1][i]) <= 1e-4F * fmaxf(1.0F, fabsf(logits[1][i])));
}

static void precisions_are_read_by_name(void **state) {
    (void)state;
    hr_precision precision;
    hr_error err = {0};
    assert_int_equal(hr_precision_parse("bf16", &precision, &err), HR_OK);
    assert_int_equal(precision, HR_PRECISION_BF16);
    assert_int_equal(hr_precision_parse("f32", &precision, &err), HR_OK);
    assert_int_equal(precision, HR_PRECISION_F32);
    assert_string_equal(hr_precision_name(HR_PRECISION_BF16), "bf16");
    assert_int_equal(hr_precision_parse("f16", &precision, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "precision: expected f32 or bf16, found \"f16\"");
}

static void only_gpus_are_listed_as_devices(void **state) {
    (void)state;
    hr_engine *engine;
    hr_error err = {0};
    assert_int_equal(
        hr_engine_create_on("reference", "0", HR_PRECISION_F32, &random_plan->plan, &engine, &err),
        HR_INVALID_ARGUMENT);
    assert_null(engine);
    assert_string_equal(err.message, "devices: expected none for backend reference, found \"0\"");
}

static void destroying_nothing_is_allowed(void **state) {
    (void)state;
    hr_engine_destroy(NULL);
    hr_worker_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_and_missing_backends_are_told_apart),
        cmocka_unit_test(the_reference_backend_has_no_bf16),
        cmocka_unit_test(every_backend_of_the_build_is_found_by_its_name),
        cmocka_unit_test(auto_is_one_that_runs_here),
        cmocka_unit_test(precisions_are_read_by_name),
        cmocka_unit_test(only_gpus_are_listed_as_devices),
        cmocka_unit_test(destroying_nothing_is_allowed),
    };
    return cmocka_run_group_tests(tests, make_plan, free_plan);
}
