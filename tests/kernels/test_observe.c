/* Observing a forward pass: it tells what happened and changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "tests/kernels/random_plan.h"

static const uint32_t n_rows[] = {3, 0, 4};
enum { N_SLICES = 3, N_ROWS = 7 };

/* How often each entry was called, and whether all that it was given could be so. */
typedef struct counts {
    size_t experts, mixes, self_gates, bad;
} counts;

static bool sums_to_one(const float *weights, uint32_t n) {
    double sum = 0.0;
    for (uint32_t j = 0; j < n; j++) sum += weights[j];
    return fabs(sum - 1.0) < 1e-5;
}

static void on_expert(void *arg, const hr_unit *unit, uint32_t k, uint32_t i, const float *values) {
    counts *c = arg;
    c->experts++;
    c->bad += k >= unit->n_experts || i >= unit->n_expert_layers;
    for (uint32_t o = 0; o < unit->expert_layers[i].out; o++) c->bad += !isfinite(values[o]);
}

static void on_mix(void *arg, const hr_unit *unit, const float *weights) {
    counts *c = arg;
    c->mixes++;
    c->bad += !sums_to_one(weights, unit->n_mixed);
}

static void on_self_gate(void *arg, const hr_unit *unit, const float *weights) {
    counts *c = arg;
    c->self_gates++;
    c->bad += unit->n_experts > 1 ? !sums_to_one(weights, unit->n_experts)
                                  : !(weights[0] > 0.0F && weights[0] < 1.0F);
}

static counts expected_counts(const hr_plan *plan) {
    counts expected = {0};
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        for (uint32_t u = 0; u < plan->layers[y].n_units; u++) {
            const hr_unit *unit = &plan->layers[y].units[u];
            expected.experts += N_ROWS * unit->n_experts * unit->n_expert_layers;
            expected.mixes += unit->n_mix > 0 ? N_ROWS : 0;
            expected.self_gates += unit->self_gate ? N_ROWS : 0;
        }
    }
    return expected;
}

/* A worker of the backend over the plan; the engine is the caller's to destroy behind it. */
static hr_worker *make_worker(const char *backend, const hr_plan *plan, hr_engine **engine) {
    hr_worker *worker = NULL;
    hr_error err = {0};
    if (hr_engine_create(backend, HR_PRECISION_F32, plan, engine, &err) != HR_OK ||
        hr_worker_create(*engine, &worker, &err) != HR_OK)
        fail_msg("%s: %s", backend, err.message);
    return worker;
}

static void an_observer_sees_every_expert_and_gate_of_every_row_and_changes_no_bit(void **state) {
    (void)state;
    for (int kind = 0; kind < HR_RANDOM_KIND_COUNT; kind++) {
        hr_random_plan *made = hr_random_plan_create((hr_random_kind)kind, 2);
        hr_random_batch *batch = hr_random_batch_create(&made->plan, n_rows, N_SLICES, 5);
        hr_engine *engine;
        hr_worker *worker = make_worker("reference", &made->plan, &engine);
        counts seen = {0}, expected = expected_counts(&made->plan);
        hr_observer observer = {&seen, on_expert, on_mix, on_self_gate};
        hr_error err = {0};

        assert_int_equal(hr_forward(worker, batch->slices, N_SLICES, &err), HR_OK);
        float *plain = malloc(batch->n_logits * sizeof *plain);
        memcpy(plain, batch->logits, batch->n_logits * sizeof *plain);
        memset(batch->logits, 0, batch->n_logits * sizeof *plain);
        assert_int_equal(hr_observe(worker, batch->slices, N_SLICES, &observer, &err), HR_OK);
        assert_memory_equal(batch->logits, plain, batch->n_logits * sizeof *plain);
        assert_memory_equal(&seen, &expected, sizeof seen);

        /* Whoever comes later is not observed. */
        assert_int_equal(hr_forward(worker, batch->slices, N_SLICES, &err), HR_OK);
        assert_memory_equal(&seen, &expected, sizeof seen);

        free(plain);
        hr_worker_destroy(worker);
        hr_engine_destroy(engine);
        hr_random_batch_destroy(batch);
        hr_random_plan_destroy(made);
    }
}

static void a_backend_that_cannot_be_observed_says_so(void **state) {
    (void)state;
    if (strstr(hr_backend_names(), "onednn") == NULL) skip();
    hr_random_plan *made = hr_random_plan_create(HR_RANDOM_HOME_1, 0);
    hr_engine *engine;
    hr_worker *worker = make_worker("onednn", &made->plan, &engine);
    hr_observer observer = {0};
    hr_error err = {0};
    assert_int_equal(hr_observe(worker, NULL, 0, &observer, &err), HR_UNIMPLEMENTED);
    assert_string_equal(err.message, "backend onednn cannot be observed, only reference can");
    hr_worker_destroy(worker);
    hr_engine_destroy(engine);
    hr_random_plan_destroy(made);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_observer_sees_every_expert_and_gate_of_every_row_and_changes_no_bit),
        cmocka_unit_test(a_backend_that_cannot_be_observed_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
