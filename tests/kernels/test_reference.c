/* The reference backend on networks whose logits can be worked out by hand (MODEL.md 2 and 3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "kernels/backend.h"
#include "tests/kernels/random_plan.h"

static const float zeros[8] = {0}, ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
static const float log3 = 1.0986122886681098F;

/* ---- One item with one number x, one unit, one task that adds up the unit's output ---- */

static const hr_feature x_feature = {
    .name = "x", .field = "x", .entity = HR_ENTITY_ITEM, .kind = HR_FEATURE_NUMBER, .std = 1.0, .width = 1};
static const hr_schema x_schema = {
    .features = &x_feature, .n_features = 1, .width = 1, .rows = {[HR_ENTITY_ITEM] = {.n_dense = 1}}};
static const hr_source from_v = {.layer = HR_SOURCE_FEATURES, .width = 1};
static const hr_input v_input = {&from_v, 1, 1};

static void run(const hr_plan *plan, const hr_slice *slice) {
    hr_engine *engine;
    hr_worker *worker;
    hr_error err = {0};
    if (hr_engine_create("reference", HR_PRECISION_F32, plan, &engine, &err) != HR_OK)
        fail_msg("%s", err.message);
    assert_int_equal(hr_worker_create(engine, &worker, &err), HR_OK);
    assert_int_equal(hr_forward(worker, slice, 1, &err), HR_OK);
    hr_worker_destroy(worker);
    hr_engine_destroy(engine);
}

/* The logit of item x: the sum of unit 0's output plus bias. */
static double logit_of(const hr_unit *units, uint32_t n_units, hr_activation activation, hr_norm norm,
                       double eps, float bias, float x) {
    const hr_layer layer = {.name = "l", .units = units, .n_units = n_units};
    const hr_linear tower = {.in = units[0].width, .out = 1, .weight = ones, .bias = &bias};
    const hr_task task = {.name = "t", .input = {0, 0, units[0].width}, .tower = &tower, .n_tower = 1};
    const hr_plan plan = {.schema = &x_schema,
                          .activation = activation,
                          .norm = norm,
                          .norm_eps = eps,
                          .layers = &layer,
                          .n_layers = 1,
                          .tasks = &task,
                          .n_tasks = 1};
    float logit;
    uint32_t none = 0;
    const hr_slice slice = {.user = &none, .context = &none, .items = &x, .n_rows = 1, .logits = &logit};
    run(&plan, &slice);
    return logit;
}

static void assert_near(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-6)) fail_msg("expected %.9g, found %.9g", expected, found);
}

static const uint32_t own_mix[] = {0};

/* e = (x, 2x), weights softmax(0, ln 3) = (1/4, 3/4), self gate softmax(0, 0) = (1/2, 1/2). */
static void mix_and_self_gate_are_weighted_sums(void **state) {
    (void)state;
    const float weight[] = {1, 2}, gate_bias[] = {0, log3};
    const hr_expert_layer expert = {.in = 1, .out = 1, .weight = weight, .bias = zeros};
    hr_unit unit = {.input = v_input,
                    .gate_input = v_input,
                    .n_experts = 2,
                    .n_expert_layers = 1,
                    .expert_layers = &expert,
                    .mix = own_mix,
                    .n_mix = 1,
                    .n_mixed = 2,
                    .gate_weight = zeros,
                    .gate_bias = gate_bias,
                    .width = 1};
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_RELU, HR_NORM_NONE, 0, -0.5F, 2.0F),
                0.25 * 2 + 0.75 * 4 - 0.5);
    unit.self_gate = true;
    unit.self_gate_weight = unit.self_gate_bias = zeros;
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_RELU, HR_NORM_NONE, 0, -0.5F, 2.0F), 3.5 + 3.0 - 0.5);
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_RELU, HR_NORM_NONE, 0, -0.5F, -2.0F), -0.5); /* relu */
}

/* The gates' weights see g: at x = 1 the gate's logits are (ln 3, 0). */
static void gates_read_their_input(void **state) {
    (void)state;
    const float weight[] = {1, 5}, gate_weight[] = {log3, 0};
    const hr_expert_layer expert = {.in = 1, .out = 1, .weight = weight, .bias = zeros};
    const hr_unit unit = {.input = v_input,
                          .gate_input = v_input,
                          .n_experts = 2,
                          .n_expert_layers = 1,
                          .expert_layers = &expert,
                          .mix = own_mix,
                          .n_mix = 1,
                          .n_mixed = 2,
                          .gate_weight = gate_weight,
                          .gate_bias = zeros,
                          .width = 1};
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_RELU, HR_NORM_NONE, 0, 0, 1.0F), 0.75 * 1 + 0.25 * 5);
}

/* A mix of one expert has weight 1; the self gate of one expert is σ, here σ(ln 3) = 3/4. */
static void one_expert_mixes_whole_and_gates_by_sigma(void **state) {
    (void)state;
    const hr_expert_layer expert = {.in = 1, .out = 1, .weight = ones, .bias = zeros};
    hr_unit unit = {.input = v_input,
                    .gate_input = v_input,
                    .n_experts = 1,
                    .n_expert_layers = 1,
                    .expert_layers = &expert,
                    .mix = own_mix,
                    .n_mix = 1,
                    .n_mixed = 1,
                    .width = 1};
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_RELU, HR_NORM_NONE, 0, 0, 4.0F), 4.0);
    unit.self_gate = true;
    unit.self_gate_weight = zeros;
    unit.self_gate_bias = &log3;
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_RELU, HR_NORM_NONE, 0, 0, 4.0F), 4.0 + 0.75 * 4.0);
}

static void swish_is_x_times_sigma(void **state) {
    (void)state;
    const hr_expert_layer expert = {.in = 1, .out = 1, .weight = ones, .bias = zeros};
    const hr_unit unit = {.input = v_input,
                          .gate_input = v_input,
                          .n_experts = 1,
                          .n_expert_layers = 1,
                          .expert_layers = &expert,
                          .mix = own_mix,
                          .n_mix = 1,
                          .n_mixed = 1,
                          .width = 1};
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_SWISH, HR_NORM_NONE, 0, 0, log3), 0.75 * log3);
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_SWISH, HR_NORM_NONE, 0, 0, -log3), -0.25 * log3);
}

/* Branch 0: 2σ(x ln 3), at x = 1 that is 3/2; branch 1: 2σ(0) = 1; mixed by (1/4, 3/4). The gate of the mix
 * reads the plain x, so its logits do not move. */
static void the_feature_gate_scales_what_experts_read(void **state) {
    (void)state;
    const float down[] = {1, 0}, up[] = {log3, 0}, mix_bias[] = {0, log3};
    const hr_expert_layer expert = {.in = 1, .out = 1, .weight = ones, .bias = zeros};
    const hr_unit unit = {
        .input = v_input,
        .gate_input = v_input,
        .n_experts = 1,
        .n_expert_layers = 1,
        .expert_layers = &expert,
        .feature_gate =
            {.loras = 2, .rank = 1, .down = down, .up = up, .mix_weight = zeros, .mix_bias = mix_bias},
        .mix = own_mix,
        .n_mix = 1,
        .n_mixed = 1,
        .self_gate = true,
        .self_gate_weight = &log3,
        .self_gate_bias = zeros,
        .width = 1};
    double gated = 0.25 * 1.5 + 0.75 * 1.0;
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_RELU, HR_NORM_NONE, 0, 0, 1.0F), gated + 0.75 * gated);
}

/* h = (x, 3x): mean 2x, biased variance x²; at x = 1 with eps 3 the norm gives (-1/2, 1/2), then weight,
 * bias. */
static void layer_norm_is_over_the_width_with_biased_variance(void **state) {
    (void)state;
    const float weight[] = {1, 3}, norm_weight[] = {4, 6}, norm_bias[] = {5, 1};
    const hr_expert_layer expert = {.in = 1,
                                    .out = 2,
                                    .weight = weight,
                                    .bias = zeros,
                                    .norm_weight = norm_weight,
                                    .norm_bias = norm_bias};
    const hr_unit unit = {.input = v_input,
                          .gate_input = v_input,
                          .n_experts = 1,
                          .n_expert_layers = 1,
                          .expert_layers = &expert,
                          .mix = own_mix,
                          .n_mix = 1,
                          .n_mixed = 1,
                          .width = 2};
    assert_near(logit_of(&unit, 1, HR_ACTIVATION_RELU, HR_NORM_LAYER, 3.0, 0, 1.0F),
                (-0.5 * 4 + 5) + (0.5 * 6 + 1));
}

/* Unit 0 has no experts and mixes (2, 1), in that order; both stand after it, and unit 1's own output is of
 * another width than its experts. */
static void mixes_follow_their_list_not_the_units_order(void **state) {
    (void)state;
    const float one_two[] = {1, 2}, four[] = {4}, gate_bias[] = {log3, 0, -40}; /* weights (3/4, 1/4, 0) */
    const float wide[] = {7, 7, 7};
    const hr_expert_layer experts[] = {{.in = 1, .out = 1, .weight = one_two, .bias = zeros},
                                       {.in = 1, .out = 1, .weight = four, .bias = zeros},
                                       {.in = 1, .out = 3, .weight = wide, .bias = zeros}};
    const uint32_t mix0[] = {2, 1}, mix1[] = {3};
    const hr_unit units[] = {{.input = v_input,
                              .gate_input = v_input,
                              .mix = mix0,
                              .n_mix = 2,
                              .n_mixed = 3,
                              .gate_weight = zeros,
                              .gate_bias = gate_bias,
                              .width = 1},
                             {.input = v_input,
                              .gate_input = v_input,
                              .n_experts = 2,
                              .n_expert_layers = 1,
                              .expert_layers = &experts[0],
                              .mix = mix1,
                              .n_mix = 1,
                              .n_mixed = 1,
                              .width = 3},
                             {.input = v_input,
                              .gate_input = v_input,
                              .n_experts = 1,
                              .n_expert_layers = 1,
                              .expert_layers = &experts[1],
                              .width = 1},
                             {.input = v_input,
                              .gate_input = v_input,
                              .n_experts = 1,
                              .n_expert_layers = 1,
                              .expert_layers = &experts[2],
                              .width = 3}};
    /* e in list order: unit 2's 4x, unit 1's x and 2x. */
    assert_near(logit_of(units, 4, HR_ACTIVATION_RELU, HR_NORM_NONE, 0, 0, 1.0F), 0.75 * 4 + 0.25 * 1);
}

/* ---- Features to v ---- */

/* One task that adds up v times (1, 10, 100, ...) through one linear expert. */
static void rows_are_gathered_and_pooled(void **state) {
    (void)state;
    static const float table[] = {1, 2, 3, 4, 50, 60}; /* (3 rows, 2) */
    static const float *const embeddings[] = {table};
    static const hr_table tables[] = {{.name = "t", .rows = 3, .dim = 2}};
    static const hr_feature features[] = {{.name = "id",
                                           .entity = HR_ENTITY_USER,
                                           .kind = HR_FEATURE_ID,
                                           .width = 2,
                                           .slot = 0,
                                           .vector_offset = 0},
                                          {.name = "mean",
                                           .entity = HR_ENTITY_ITEM,
                                           .kind = HR_FEATURE_IDS,
                                           .pool = HR_POOL_MEAN,
                                           .max_length = 3,
                                           .width = 2,
                                           .slot = 0,
                                           .vector_offset = 2},
                                          {.name = "sum",
                                           .entity = HR_ENTITY_ITEM,
                                           .kind = HR_FEATURE_IDS,
                                           .pool = HR_POOL_SUM,
                                           .max_length = 2,
                                           .width = 2,
                                           .slot = 4,
                                           .vector_offset = 4},
                                          {.name = "bucket",
                                           .entity = HR_ENTITY_CONTEXT,
                                           .kind = HR_FEATURE_BUCKET,
                                           .width = 2,
                                           .slot = 0,
                                           .vector_offset = 6},
                                          {.name = "numbers",
                                           .entity = HR_ENTITY_CONTEXT,
                                           .kind = HR_FEATURE_NUMBERS,
                                           .length = 2,
                                           .width = 2,
                                           .slot = 0,
                                           .vector_offset = 8}};
    const hr_schema schema = {
        .tables = tables,
        .n_tables = 1,
        .features = features,
        .n_features = 5,
        .width = 10,
        .rows = {[HR_ENTITY_USER] = {1, 0}, [HR_ENTITY_ITEM] = {7, 0}, [HR_ENTITY_CONTEXT] = {1, 2}}};
    float identity[100] = {0};
    for (size_t i = 0; i < 10; i++) identity[i * 11] = 1.0F;
    const float no_bias[10] = {0};
    const hr_source source = {.layer = HR_SOURCE_FEATURES, .width = 10};
    const hr_expert_layer expert = {.in = 10, .out = 10, .weight = identity, .bias = no_bias};
    const hr_unit unit = {.input = {&source, 1, 10},
                          .gate_input = {&source, 1, 10},
                          .n_experts = 1,
                          .n_expert_layers = 1,
                          .expert_layers = &expert,
                          .mix = own_mix,
                          .n_mix = 1,
                          .n_mixed = 1,
                          .width = 10};
    const hr_layer layer = {.units = &unit, .n_units = 1};
    hr_task tasks[10]; /* task i reads element i of v */
    hr_linear towers[10];
    for (size_t i = 0; i < 10; i++) {
        towers[i] = (hr_linear){.in = 10, .out = 1, .weight = identity + i * 10, .bias = zeros};
        tasks[i] = (hr_task){.input = {0, 0, 10}, .tower = &towers[i], .n_tower = 1};
    }
    const hr_plan plan = {.schema = &schema,
                          .embeddings = embeddings,
                          .layers = &layer,
                          .n_layers = 1,
                          .tasks = tasks,
                          .n_tasks = 10};
    const uint32_t user[] = {2};
    const uint32_t items[] = {2, 1, 2, 999, 0, 999, 999, /* mean of rows 1, 2; none */
                              3, 0, 0, 1,   2, 0,   1};  /* mean of rows 0, 0, 1; sum of rows 0, 1 */
    uint32_t context[3] = {1};
    const float numbers[] = {0.5F, 0.25F};
    memcpy(context + 1, numbers, sizeof numbers);
    float logits[20];
    const hr_slice slice = {.user = user, .context = context, .items = items, .n_rows = 2, .logits = logits};
    run(&plan, &slice);
    const float expected[20] = {50, 60, 26.5F,    32,       0, 0, 3, 4, 0.5F, 0.25F,
                                50, 60, 5 / 3.0F, 8 / 3.0F, 4, 6, 3, 4, 0.5F, 0.25F};
    for (size_t i = 0; i < 20; i++) assert_near(logits[i], expected[i]);
}

static void tower_layers_are_activated_but_the_last(void **state) {
    (void)state;
    const float weight[] = {1, -1}, down[] = {-1, -2}, bias[] = {0, 0};
    const hr_expert_layer expert = {.in = 1, .out = 1, .weight = ones, .bias = zeros};
    const hr_unit unit = {.input = v_input,
                          .gate_input = v_input,
                          .n_experts = 1,
                          .n_expert_layers = 1,
                          .expert_layers = &expert,
                          .mix = own_mix,
                          .n_mix = 1,
                          .n_mixed = 1,
                          .width = 1};
    const hr_layer layer = {.units = &unit, .n_units = 1};
    const hr_linear tower[] = {{1, 2, weight, bias}, {2, 1, down, zeros}};
    const hr_task task = {.input = {0, 0, 1}, .tower = tower, .n_tower = 2};
    hr_plan plan = {.schema = &x_schema,
                    .tower_activation = HR_ACTIVATION_RELU,
                    .layers = &layer,
                    .n_layers = 1,
                    .tasks = &task,
                    .n_tasks = 1};
    float x = log3, logit;
    uint32_t none = 0;
    const hr_slice slice = {.user = &none, .context = &none, .items = &x, .n_rows = 1, .logits = &logit};
    run(&plan, &slice);
    assert_near(logit, -log3); /* relu(ln 3), relu(-ln 3) */
    plan.tower_activation = HR_ACTIVATION_SWISH;
    run(&plan, &slice);
    assert_near(logit, -0.75 * log3 + 2 * 0.25 * log3);
}

/* ---- Any network ---- */

/* Every row's bits are the same in one large slice, in slices of other sizes, and alone. */
static void scores_do_not_depend_on_batch_mates(void **state) {
    (void)state;
    for (int kind = 0; kind < HR_RANDOM_KIND_COUNT; kind++) {
        for (uint64_t seed = 0; seed < 4; seed++) {
            hr_random_plan *random_plan = hr_random_plan_create((hr_random_kind)kind, seed);
            const hr_plan *plan = &random_plan->plan;
            const uint32_t n_rows[] = {7, 0, 2};
            hr_random_batch *batch = hr_random_batch_create(plan, n_rows, 3, seed);
            hr_engine *engine;
            hr_worker *worker;
            hr_error err;
            assert_int_equal(hr_engine_create("reference", HR_PRECISION_F32, plan, &engine, &err), HR_OK);
            assert_int_equal(hr_worker_create(engine, &worker, &err), HR_OK);
            assert_int_equal(hr_forward(worker, batch->slices, batch->n_slices, &err), HR_OK);
            assert_true(hr_random_batch_guards_intact(batch));
            size_t item_words = hr_row_words(plan->schema, HR_ENTITY_ITEM);
            for (size_t s = 0; s < batch->n_slices; s++) {
                for (uint32_t i = batch->slices[s].n_rows; i-- > 0;) {
                    float alone[8];
                    hr_slice one = batch->slices[s];
                    one.items = (const uint32_t *)one.items + i * item_words;
                    one.n_rows = 1;
                    one.logits = alone;
                    assert_int_equal(hr_forward(worker, &one, 1, &err), HR_OK);
                    const float *together = batch->slices[s].logits + (size_t)i * plan->n_tasks;
                    assert_memory_equal(alone, together, plan->n_tasks * sizeof *alone);
                    for (uint32_t t = 0; t < plan->n_tasks; t++) assert_true(isfinite(alone[t]));
                }
            }
            hr_worker_destroy(worker);
            hr_engine_destroy(engine);
            hr_random_batch_destroy(batch);
            hr_random_plan_destroy(random_plan);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mix_and_self_gate_are_weighted_sums),
        cmocka_unit_test(gates_read_their_input),
        cmocka_unit_test(one_expert_mixes_whole_and_gates_by_sigma),
        cmocka_unit_test(swish_is_x_times_sigma),
        cmocka_unit_test(the_feature_gate_scales_what_experts_read),
        cmocka_unit_test(layer_norm_is_over_the_width_with_biased_variance),
        cmocka_unit_test(mixes_follow_their_list_not_the_units_order),
        cmocka_unit_test(rows_are_gathered_and_pooled),
        cmocka_unit_test(tower_layers_are_activated_but_the_last),
        cmocka_unit_test(scores_do_not_depend_on_batch_mates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
