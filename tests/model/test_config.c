/* config.json: what it may say, and one clear error for everything else (MODEL.md 1 and 2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "tests/model/model_folder.h"

static void parse_ok(const char *text, hr_config *config) {
    hr_error err = {0};
    if (hr_config_parse(text, strlen(text), config, &err) != HR_OK) fail_msg("%s", err.message);
}

/* The tiny model with its first `old` replaced is refused, and the message says so. */
static void expect_refused(const char *old, const char *new_text, const char *message) {
    char *text = test_replace(test_tiny_config, old, new_text);
    hr_config config;
    hr_error err = {0};
    hr_status status = hr_config_parse(text, strlen(text), &config, &err);
    if (status != HR_INVALID_ARGUMENT || strstr(err.message, message) == NULL) {
        fail_msg("%s -> %s: expected \"%s\", found %d \"%s\"", old, new_text, message, status, err.message);
    }
    assert_null(config.arena);
    free(text);
}

static void expect_accepted(const char *old, const char *new_text) {
    char *text = test_replace(test_tiny_config, old, new_text);
    hr_config config;
    parse_ok(text, &config);
    hr_config_clear(&config);
    free(text);
}

static void the_tiny_model_is_read_in_full(void **state) {
    (void)state;
    hr_config config;
    parse_ok(test_tiny_config, &config);
    const hr_plan *plan = &config.plan;
    assert_int_equal(config.norm, HR_CONFIG_NORM_BATCH);
    assert_int_equal(plan->norm, HR_NORM_NONE); /* folded */
    assert_int_equal(plan->activation, HR_ACTIVATION_SWISH);
    assert_int_equal(plan->tower_activation, HR_ACTIVATION_RELU);
    assert_int_equal(plan->n_layers, 2);
    const hr_unit *shared = &plan->layers[0].units[0], *extra = &plan->layers[0].units[1];
    assert_string_equal(shared->name, "shared");
    assert_int_equal(shared->input.width, 3);
    assert_int_equal(shared->input.sources[0].layer, HR_SOURCE_FEATURES);
    assert_int_equal(shared->n_expert_layers, 2);
    assert_int_equal(shared->expert_layers[1].in, 4);
    assert_int_equal(shared->expert_layers[1].out, 3);
    assert_int_equal(shared->feature_gate.loras, 2);
    assert_int_equal(shared->n_mix, 2);
    assert_int_equal(shared->mix[1], 1); /* a unit that stands later */
    assert_int_equal(shared->n_mixed, 3);
    assert_true(shared->self_gate);
    assert_int_equal(extra->n_mix, 0);
    assert_false(extra->self_gate);
    const hr_unit *click = &plan->layers[1].units[0], *time = &plan->layers[1].units[1];
    assert_int_equal(click->input.width, 6);
    assert_int_equal(click->input.sources[0].layer, 0);
    assert_int_equal(click->gate_input.width, 3);
    assert_int_equal(click->n_mixed, 1);
    assert_int_equal(time->n_experts, 0);
    assert_int_equal(time->width, 2);
    assert_int_equal(plan->n_tasks, 2);
    assert_int_equal(plan->tasks[0].n_tower, 2);
    assert_int_equal(plan->tasks[0].tower[1].out, 1);
    assert_int_equal(plan->tasks[1].n_tower, 1);
    assert_int_equal(plan->tasks[1].output, HR_OUTPUT_IDENTITY);
    hr_config_clear(&config);
}

static void defaults_are_those_of_the_contract(void **state) {
    (void)state;
    char *text = test_replace(
        test_tiny_config,
        "\"activation\": \"swish\", \"norm\": \"batch\", \"norm_eps\": 1e-5, \"tower_activation\": \"relu\",",
        "");
    char *less = test_replace(text, ", \"output\": \"sigmoid\"", "");
    hr_config config;
    parse_ok(less, &config);
    assert_int_equal(config.norm, HR_CONFIG_NORM_BATCH);
    assert_true(config.plan.norm_eps == 1e-5);
    assert_int_equal(config.plan.activation, HR_ACTIVATION_SWISH);
    assert_int_equal(config.plan.tower_activation, HR_ACTIVATION_RELU);
    assert_int_equal(config.plan.tasks[0].output, HR_OUTPUT_SIGMOID);
    hr_config_clear(&config);
    free(less);
    free(text);
}

static void other_ways_to_say_it_are_accepted(void **state) {
    (void)state;
    expect_accepted("\"description\": \"one of everything\",", "");
    expect_accepted("\"experts\": 0, \"hidden\": []", "\"experts\": 0");
    /* A unit without experts reads only its gate's input. */
    expect_accepted("\"time\", \"input\": [\"features\"]", "\"time\", \"gate_input\": [\"features\"]");
    expect_accepted("\"norm\": \"batch\"", "\"norm\": \"layer\"");
    expect_accepted("\"norm\": \"batch\"", "\"norm\": \"none\"");
    /* A unit of one width mixes others of another; its own experts are lent only. */
    expect_accepted("\"experts\": 0, \"hidden\": []", "\"experts\": 1, \"hidden\": [7]");
    expect_accepted("\"input\": [\"meta.shared\", \"features\"]",
                    "\"input\": [\"features\", \"features\", \"meta.shared\"]");
}

static void unknown_keys_are_refused_at_every_level(void **state) {
    (void)state;
    expect_refused("\"format\"", "\"x\": 1, \"format\"", "config: unknown key \"x\"");
    expect_refused("\"rows\": 4", "\"x\": 1, \"rows\": 4", "unknown key \"x\"");
    expect_refused("\"kind\": \"number\"", "\"x\": 1, \"kind\": \"number\"", "unknown key \"x\"");
    expect_refused("\"norm\": \"batch\"", "\"x\": 1, \"norm\": \"batch\"", "network: unknown key \"x\"");
    expect_refused("{\"name\": \"meta\"", "{\"x\": 1, \"name\": \"meta\"",
                   "layers[0] \"meta\": unknown key \"x\"");
    expect_refused("\"experts\": 2", "\"x\": 1, \"experts\": 2",
                   "layer meta: units[0] \"shared\": unknown key \"x\"");
    expect_refused("\"rank\": 2", "\"rank\": 2, \"x\": 1", "feature_gate: unknown key \"x\"");
    expect_refused("\"tower\": [2]", "\"x\": 1, \"tower\": [2]", "tasks[0] \"click\": unknown key \"x\"");
    expect_refused("\"kind\": \"weighted_sum\"", "\"x\": 1, \"kind\": \"weighted_sum\"",
                   "fusion: unknown key \"x\"");
}

static void the_format_is_the_one_we_know(void **state) {
    (void)state;
    expect_refused("homerank/1", "homerank/2", "format: expected \"homerank/1\", found \"homerank/2\"");
    expect_refused("\"format\": \"homerank/1\", ", "", "format: expected \"homerank/1\", found nothing");
    expect_refused("\"one of everything\"", "7", "description: expected a string, found 7");
    expect_refused("{\"format\"", "{{\"format\"", "expected JSON");
    expect_refused("\"format\"", "\"format\": \"homerank/1\", \"format\"", "expected JSON");
    hr_config config;
    hr_error err;
    assert_int_equal(hr_config_parse("", 0, &config, &err), HR_INVALID_ARGUMENT);
    assert_int_equal(hr_config_parse("[]", 2, &config, &err), HR_INVALID_ARGUMENT);
    assert_int_equal(hr_config_parse("{}\0{}", 5, &config, &err), HR_INVALID_ARGUMENT);
}

static void names_are_names_and_unique(void **state) {
    (void)state;
    expect_refused("\"name\": \"meta\"", "\"name\": \"me.ta\"", "name: expected a name");
    expect_refused("\"name\": \"meta\"", "\"name\": \"tower\"",
                   "expected none of features, tower, embedding, found tower");
    expect_refused("\"name\": \"meta\"", "\"name\": \"features\"", "found features");
    expect_refused("\"name\": \"meta\"", "\"name\": \"embedding\"", "found embedding");
    expect_refused("\"name\": \"task\"", "\"name\": \"meta\"",
                   "layers[1] \"meta\": name: expected a unique name");
    expect_refused("\"name\": \"extra\"", "\"name\": \"shared\"",
                   "units[1] \"shared\": name: expected a unique name");
    expect_refused("{\"name\": \"time\", \"input\": \"task", "{\"name\": \"click\", \"input\": \"task",
                   "tasks[1] \"click\": name: expected a unique name");
    expect_refused("\"name\": \"meta\", ", "",
                   "name: expected a name [A-Za-z_][A-Za-z0-9_-]*, found nothing");
}

static void inputs_are_outputs_of_earlier_layers(void **state) {
    (void)state;
#define CLICK_INPUT "\"input\": [\"meta.shared\", \"features\"]"
    expect_refused(
        CLICK_INPUT, "\"input\": [\"meta.nobody\"]",
        "layer task: units[0] \"click\": input: expected \"features\" or an output \"layer.unit\" of an "
        "earlier layer, found \"meta.nobody\"");
    expect_refused(CLICK_INPUT, "\"input\": [\"task.time\"]", "found \"task.time\" (there is no such unit");
    expect_refused(CLICK_INPUT, "\"input\": [\"later.time\"]", "found \"later.time\"");
    expect_refused(CLICK_INPUT, "\"input\": [\"meta\"]", "found \"meta\"");
    expect_refused(CLICK_INPUT, "\"input\": [\"meta.\"]", "found \"meta.\"");
    expect_refused(CLICK_INPUT, "\"input\": [\"meta.shared.x\"]", "found \"meta.shared.x\"");
    expect_refused(CLICK_INPUT, "\"input\": [\"meta.extra\"]",
                   "found \"meta.extra\" (that unit has no mix and so no output)");
    expect_refused(CLICK_INPUT, "\"input\": []", "input: expected 1 to 1024 elements, found 0");
    expect_refused(CLICK_INPUT, "\"input\": \"features\"", "input: expected an array");
    expect_refused(CLICK_INPUT, "\"input\": [7]", "input: expected");
    expect_refused(CLICK_INPUT ", ", "", "input: expected an array");
    expect_refused("\"gate_input\": [\"features\"]", "\"gate_input\": [\"meta.extra\"]",
                   "gate_input: expected");
    expect_refused("\"input\": [\"features\"], \"experts\": 2", "\"input\": [\"task.click\"], \"experts\": 2",
                   "found \"task.click\"");
#undef CLICK_INPUT
}

static void tasks_read_a_units_output(void **state) {
    (void)state;
    expect_refused("\"input\": \"task.time\"", "\"input\": \"meta.extra\"",
                   "tasks[1] \"time\": input: expected a unit's output \"layer.unit\", found \"meta.extra\"");
    expect_refused("\"input\": \"task.time\"", "\"input\": \"features\"", "found \"features\"");
    expect_refused("\"input\": \"task.time\"", "\"input\": [\"task.time\"]",
                   "input: expected a non-empty string");
    expect_refused("\"output\": \"identity\"", "\"output\": \"tanh\"", "output: expected");
    expect_refused("\"tower\": [2]", "\"tower\": [0]", "tower: expected an integer from 1");
    expect_refused("\"tower\": [2]", "\"tower\": [2.0]", "tower: expected an integer");
}

static void mixes_make_sense(void **state) {
    (void)state;
    expect_refused("\"mix\": [\"shared\", \"extra\"]", "\"mix\": []",
                   "mix: expected 1 to 1024 elements, found 0");
    expect_refused("\"mix\": [\"shared\", \"extra\"]", "\"mix\": [\"shared\", \"extra\", \"shared\"]",
                   "mix: expected no unit twice, found \"shared\"");
    expect_refused("\"mix\": [\"shared\", \"extra\"]", "\"mix\": [\"shared\", \"click\"]",
                   "mix: expected a unit of the same layer, found \"click\"");
    expect_refused(
        "\"experts\": 1, \"hidden\": [3]", "\"experts\": 1, \"hidden\": [5]",
        "layer meta: units[0] \"shared\": mix: expected experts of one width, 3, found 5 in unit \"extra\"");
    /* The self gate adds the unit's own experts, which the mix does not name. */
    expect_refused("\"hidden\": [4, 3],", "\"hidden\": [4, 2],", "expected experts of one width");
    expect_refused("\"experts\": 0, \"hidden\": [], \"mix\": [\"click\"]",
                   "\"experts\": 0, \"mix\": [\"time\"]", "mix: expected at least one expert, found none");
}

static void a_self_gates_own_experts_have_the_mixes_width(void **state) {
    (void)state;
    expect_refused("\"experts\": 0, \"hidden\": [], \"mix\": [\"click\"]",
                   "\"experts\": 1, \"hidden\": [7], \"mix\": [\"click\"], \"self_gate\": true",
                   "mix: expected experts of one width, 2, found 7 in unit \"time\"");
}

static void gates_need_what_they_gate(void **state) {
    (void)state;
    expect_refused("\"mix\": [\"click\"], \"self_gate\": true", "\"self_gate\": true",
                   "self_gate: expected a mix");
    expect_refused("\"experts\": 0, \"hidden\": []", "\"experts\": 0, \"self_gate\": true",
                   "self_gate: expected experts of its own");
    expect_refused("\"experts\": 0, \"hidden\": []",
                   "\"experts\": 0, \"feature_gate\": {\"loras\": 1, \"rank\": 1}",
                   "feature_gate: expected none for a unit without experts");
    expect_refused("\"loras\": 2", "\"loras\": 0", "feature_gate: loras: expected an integer from 1");
    expect_refused("\"rank\": 2", "\"rank\": 0", "feature_gate: rank: expected an integer from 1");
    expect_refused(", \"rank\": 2", "", "feature_gate: rank: expected an integer");
    expect_refused("\"self_gate\": true", "\"self_gate\": 1", "self_gate: expected");
    expect_refused("\"self_gate\": true", "\"self_gate\": null", "self_gate: expected");
}

static void widths_are_bounded(void **state) {
    (void)state;
    expect_refused("\"hidden\": [4, 3]", "\"hidden\": [4, 65537]",
                   "hidden: expected an integer from 1 to 65536");
    expect_refused("\"hidden\": [4, 3]", "\"hidden\": []", "hidden: expected at least one width");
    expect_refused(" \"hidden\": [4, 3],", "", "hidden: expected an array");
    expect_refused("\"experts\": 0, \"hidden\": []", "\"experts\": 0, \"hidden\": [3]",
                   "hidden: expected none for a unit without experts, found 1 widths");
    expect_refused("\"experts\": 2", "\"experts\": -1", "experts: expected an integer from 0");
    expect_refused("\"experts\": 2", "\"experts\": 1000000000", "experts: expected an integer from 0");
    expect_refused("\"rank\": 2", "\"rank\": 99999999999", "rank: expected an integer");
    expect_refused("\"layers\": [", "\"layers\": [], \"x\": [", "network");
    expect_refused("\"norm_eps\": 1e-5", "\"norm_eps\": -1e-5", "norm_eps: expected a number >= 0");
    expect_refused("\"norm\": \"batch\"", "\"norm\": \"group\"", "norm: expected batch, layer or none");
    expect_refused("\"activation\": \"swish\"", "\"activation\": \"gelu\"", "activation: expected");
}

/* Each bound for itself allows what would take gigabytes, with next to no tensors. */
static void what_a_row_needs_is_bounded_in_all(void **state) {
    (void)state;
    const char *const hidden = "\"experts\": 0, \"hidden\": []";
    expect_refused(hidden, "\"experts\": 1024, \"hidden\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]",
                   "network: expected at most 16384 layers of experts, LoRAs and towers, found 16");
    expect_refused(hidden, "\"experts\": 200, \"hidden\": [65536, 1]",
                   "of at most 8388608 values in all, found 1");
    expect_accepted(hidden, "\"experts\": 1000, \"hidden\": [1,1,1,1,1,1,1,1]");
    expect_accepted(hidden, "\"experts\": 100, \"hidden\": [65536, 1]");
}

static void files_that_are_too_large_or_none_are_refused(void **state) {
    (void)state;
    char dir[256], path[300];
    hr_config config;
    hr_error err;
    test_folder_make(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(hr_config_load(path, &config, &err), HR_IO);
    assert_int_equal(hr_config_load(dir, &config, &err), HR_IO);
    size_t nbytes = ((size_t)8 << 20) + 1;
    char *spaces = malloc(nbytes);
    memset(spaces, ' ', nbytes);
    test_write_bytes(dir, "config.json", spaces, nbytes);
    free(spaces);
    assert_int_equal(hr_config_load(path, &config, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "expected at most 8388608 bytes"));
    hr_config_clear(&config);
    test_folder_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tiny_model_is_read_in_full),
        cmocka_unit_test(defaults_are_those_of_the_contract),
        cmocka_unit_test(other_ways_to_say_it_are_accepted),
        cmocka_unit_test(unknown_keys_are_refused_at_every_level),
        cmocka_unit_test(the_format_is_the_one_we_know),
        cmocka_unit_test(names_are_names_and_unique),
        cmocka_unit_test(inputs_are_outputs_of_earlier_layers),
        cmocka_unit_test(tasks_read_a_units_output),
        cmocka_unit_test(mixes_make_sense),
        cmocka_unit_test(a_self_gates_own_experts_have_the_mixes_width),
        cmocka_unit_test(gates_need_what_they_gate),
        cmocka_unit_test(widths_are_bounded),
        cmocka_unit_test(what_a_row_needs_is_bounded_in_all),
        cmocka_unit_test(files_that_are_too_large_or_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
