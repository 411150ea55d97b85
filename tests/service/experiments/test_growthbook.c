/* The GrowthBook SDK's conformance cases, each a test of its own.
 *
 * A file of cases is an object of sections, each a list of cases as "Build your own SDK" describes them.
 * GROWTHBOOK_CASES names the file; else it is growthbook/cases.json of HOMERANK_SHARED; else, and in any case
 * too, our own cases.json beside this file is run: random inputs, answered by GrowthBook's SDK for
 * JavaScript. A section that is not known here is said and skipped.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "service/experiments/bucketing.h"
#include "service/experiments/condition.h"
#include "service/experiments/evaluate.h"
#include "service/experiments/program.h"

enum { ARENA_NBYTES = 16 << 20 };

/* ---- Helpers ---- */

static hr_js_text text_of(const json_t *json) {
    return hr_js_text_of(json_string_value(json), json_string_length(json));
}

static double number_at(const json_t *list, size_t index) {
    return json_number_value(json_array_get(list, index));
}

/* The value as the server would read it from a request's text. *text is owned by the caller. */
static const hr_js_value *parse(const json_t *json, hr_arena *arena, char **text) {
    hr_error err = {.message = ""};
    const hr_js_value *value = NULL;
    *text = json_dumps(json, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (hr_js_parse(*text, strlen(*text), arena, &value, &err) != HR_OK) fail_msg("%s", err.message);
    return value;
}

/* A value as jansson's, all numbers real. */
static json_t *json_of(const hr_js_value *value, hr_arena *arena) {
    hr_js_scratch scratch = {.arena = arena};
    hr_js_text text = hr_js_print(value, &scratch);
    return json_loadb(text.bytes, text.nbytes, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
}

static void assert_json_equal(json_t *actual, const json_t *expected) {
    if (!json_equal(actual, expected)) {
        char *found = json_dumps(actual, JSON_ENCODE_ANY | JSON_SORT_KEYS);
        char *wanted = json_dumps(expected, JSON_ENCODE_ANY | JSON_SORT_KEYS);
        print_error("expected %s\n   found %s\n", wanted, found);
        free(found);
        free(wanted);
        fail();
    }
    json_decref(actual);
}

static void ignore_warning(void *arg, const char *what) {
    (void)arg;
    (void)what;
}

/* ---- Hashing ---- */

static void check_hash(void **state) {
    const json_t *c = *state, *expected = json_array_get(c, 3);
    double bucket;
    bool known =
        hr_hash(text_of(json_array_get(c, 0)), text_of(json_array_get(c, 1)), (int)number_at(c, 2), &bucket);
    assert_int_equal(known, json_is_number(expected));
    if (known) assert_true(bucket == json_number_value(expected));
}

static size_t numbers_of(const json_t *list, double numbers[64]) {
    assert_true(json_array_size(list) <= 64);
    for (size_t i = 0; i < json_array_size(list); i++) numbers[i] = number_at(list, i);
    return json_array_size(list);
}

static size_t ranges_of(const json_t *list, hr_range ranges[64]) {
    assert_true(json_array_size(list) <= 64);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *range = json_array_get(list, i);
        ranges[i] = (hr_range){.start = number_at(range, 0), .end = number_at(range, 1)};
    }
    return json_array_size(list);
}

static void check_bucket_range(void **state) {
    const json_t *c = *state, *arguments = json_array_get(c, 1), *weights = json_array_get(arguments, 2);
    const json_t *coverage = json_array_get(arguments, 1);
    double weight_numbers[64];
    hr_range found[64], expected[64];
    size_t n = (size_t)number_at(arguments, 0);
    size_t n_weights = numbers_of(weights, weight_numbers);
    hr_bucket_ranges(n, json_is_number(coverage) ? json_number_value(coverage) : 1,
                     json_is_array(weights) ? weight_numbers : NULL, n_weights, found);
    assert_int_equal(ranges_of(json_array_get(c, 2), expected), n);
    for (size_t i = 0; i < n; i++) {
        assert_true(fabs(found[i].start - expected[i].start) < 1e-9);
        assert_true(fabs(found[i].end - expected[i].end) < 1e-9);
    }
}

static void check_choose_variation(void **state) {
    const json_t *c = *state;
    hr_range ranges[64] = {{0}};
    size_t n = ranges_of(json_array_get(c, 2), ranges);
    assert_int_equal(hr_choose_variation(number_at(c, 1), ranges, n), (int)number_at(c, 3));
}

static void check_equal_weights(void **state) {
    const json_t *c = *state, *expected = json_array_get(c, 1);
    double found[64];
    int n = (int)number_at(c, 0);
    assert_int_equal(json_array_size(expected), n < 0 ? 0 : n);
    hr_equal_weights(json_array_size(expected), found);
    for (size_t i = 0; i < json_array_size(expected); i++)
        assert_true(fabs(found[i] - number_at(expected, i)) < 5e-9);
}

static void check_query_string(void **state) {
    const json_t *c = *state, *expected = json_array_get(c, 4);
    int found = hr_url_variation(json_string_value(json_array_get(c, 1)), text_of(json_array_get(c, 2)),
                                 (uint32_t)number_at(c, 3));
    assert_int_equal(found, json_is_number(expected) ? (int)json_number_value(expected) : -1);
}

/* ---- Conditions ---- */

static void check_condition(void **state) {
    const json_t *c = *state;
    hr_arena *arena = hr_arena_create(ARENA_NBYTES);
    hr_error err = {.message = ""};
    hr_condition_builder builder = {
        .arena = arena, .saved_groups = json_array_get(c, 4), .warn = ignore_warning};
    const hr_condition *condition;
    if (hr_condition_compile(&builder, json_array_get(c, 1), true, &condition, &err) != HR_OK)
        fail_msg("%s", err.message);
    const hr_js_value **resolved = hr_arena_calloc(arena, builder.n_paths, sizeof *resolved);
    for (uint32_t i = 0; i < builder.n_paths; i++) resolved[i] = &hr_unresolved;
    hr_js_scratch scratch = {.arena = arena};
    char *text;
    hr_attributes attributes = {
        .object = parse(json_array_get(c, 2), arena, &text), .resolved = resolved, .scratch = &scratch};
    bool holds = hr_condition_holds(condition, &attributes);
    assert_false(scratch.failed);
    assert_int_equal(holds, json_is_true(json_array_get(c, 3)));
    hr_condition_free_regexes(builder.regexes);
    hr_arena_destroy(arena);
    free(text);
}

/* ---- Features and experiments ---- */

/* A program over a case's context, and its evaluation for the context's user. */
typedef struct fixture {
    const json_t *context;
    hr_arena *arena;
    hr_flag_program *program;
    hr_evaluation evaluation;
    hr_forced_variation forced[16];
    char *text;
} fixture;

static void begin(fixture *f, const json_t *context, const char *feature, const json_t *experiment) {
    hr_error err = {.message = ""};
    hr_flag_program_source source = {.payload = context,
                                     .features = &feature,
                                     .n_features = feature != NULL,
                                     .experiment = experiment,
                                     .warn = ignore_warning,
                                     .memory_nbytes = ARENA_NBYTES};
    *f = (fixture){.context = context, .arena = hr_arena_create(ARENA_NBYTES)};
    if (hr_flag_program_create(&source, &f->program, &err) != HR_OK) fail_msg("%s", err.message);
    const json_t *attributes = json_object_get(context, "attributes");
    hr_subject subject = {.forced = f->forced,
                          .disabled = json_is_false(json_object_get(context, "enabled")),
                          .qa_mode = json_is_true(json_object_get(context, "qaMode"))};
    if (attributes != NULL) subject.attributes = parse(attributes, f->arena, &f->text);
    if (json_object_get(context, "url") != NULL) subject.url = text_of(json_object_get(context, "url"));
    const char *key;
    json_t *variation;
    json_object_foreach(json_object_get(context, "forcedVariations"), key, variation) {
        f->forced[subject.n_forced++] = (hr_forced_variation){key, (int32_t)json_number_value(variation)};
    }
    assert_true(hr_evaluation_begin(&f->evaluation, f->program, &subject, f->arena, NULL));
}

static void end(fixture *f) {
    assert_false(f->evaluation.scratch.failed);
    hr_flag_program_destroy(f->program);
    hr_arena_destroy(f->arena);
    free(f->text);
}

static void set(json_t *object, const char *key, json_t *value) {
    json_object_set_new(object, key, value);
}

static json_t *weights_of(const hr_bandit_leaf *leaf) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < leaf->n_weights; i++) json_array_append_new(list, json_real(leaf->weights[i]));
    return list;
}

static void set_bandit(json_t *object, const hr_run *run) {
    const hr_bandit *bandit = run->experiment->bandit;
    set(object, "leafId", json_real(run->leaf->leaf_id));
    set(object, "variationWeights", weights_of(run->leaf));
    if (bandit->has_version) set(object, "banditVersion", json_real(bandit->version));
}

static json_t *json_of_run(fixture *f, const hr_run *run, const char *feature) {
    const hr_experiment *experiment = run->experiment;
    const hr_variation *variation = &experiment->variations[run->variation];
    hr_js_text attribute = f->program->hash_attributes[experiment->hash_attribute];
    const hr_js_value *value = hr_attribute(&f->evaluation.attributes, attribute);
    json_t *json = json_object();
    set(json, "key", json_string(variation->key));
    set(json, "featureId", json_string(feature));
    set(json, "inExperiment", json_boolean(run->in_experiment));
    set(json, "hashUsed", json_boolean(run->hash_used));
    set(json, "variationId", json_real(run->variation));
    set(json, "value", json_of(variation->value.json, f->arena));
    set(json, "hashAttribute", json_stringn(attribute.bytes, attribute.nbytes));
    set(json, "hashValue", hr_js_truthy(value) ? json_of(value, f->arena) : json_string(""));
    set(json, "stickyBucketUsed", json_false());
    if (run->hash_used) set(json, "bucket", json_real(hr_run_place(&f->evaluation, run)));
    if (variation->name[0] != '\0') set(json, "name", json_string(variation->name));
    if (variation->passthrough) set(json, "passthrough", json_true());
    if (run->leaf != NULL && run->hash_used && run->in_experiment) set_bandit(json, run);
    return json;
}

/* Whether a rule's member is taken over: the specification's SDK asks the one or the other of each. */
static bool is_taken(const char *key, const json_t *value) {
    if (strcmp(key, "coverage") == 0 || strcmp(key, "bucketVersion") == 0 ||
        strcmp(key, "minBucketVersion") == 0)
        return value != NULL;
    if (json_is_string(value)) return json_string_length(value) > 0;
    if (json_is_number(value)) return json_number_value(value) != 0;
    return json_is_object(value) || json_is_array(value) || json_is_true(value);
}

/* The experiment of a rule: what it takes over of the rule, its key and what assigned. */
static json_t *json_of_experiment(const json_t *rule, const hr_run *run) {
    static const char *const copied[] = {"coverage",
                                         "weights",
                                         "hashAttribute",
                                         "fallbackAttribute",
                                         "disableStickyBucketing",
                                         "namespace",
                                         "meta",
                                         "ranges",
                                         "name",
                                         "phase",
                                         "seed",
                                         "filters",
                                         "condition",
                                         "hashVersion",
                                         "bucketVersion",
                                         "minBucketVersion"};
    json_t *json = json_object();
    json_t *variations = json_object_get(rule, "contextualVariations");
    if (variations == NULL) variations = json_object_get(rule, "variations");
    set(json, "key", json_string(run->experiment->key));
    set(json, "variations", json_incref(variations));
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++) {
        json_t *value = json_object_get(rule, copied[i]);
        if (is_taken(copied[i], value)) json_object_set(json, copied[i], value);
    }
    if (run->leaf == NULL) return json;
    if (run->leaf != &run->experiment->bandit->fallback) set(json, "weights", weights_of(run->leaf));
    if (run->hash_used && run->in_experiment) {
        json_t *bandit = json_object();
        set_bandit(bandit, run);
        set(json, "contextualBandit", bandit);
    }
    return json;
}

static void check_feature(void **state) {
    static const char *const sources[] = {"unknownFeature", "defaultValue", "force",
                                          "experiment",     "prerequisite", "cyclicPrerequisite"};
    const json_t *c = *state, *context = json_array_get(c, 1);
    const char *name = json_string_value(json_array_get(c, 2));
    fixture f;
    begin(&f, context, name, NULL);
    const hr_flag_result *result = hr_evaluate_flag(&f.evaluation, 0);
    json_t *found = json_object();
    set(found, "value", json_of(result->value->json, f.arena));
    set(found, "on", json_boolean(hr_js_truthy(result->value->json)));
    set(found, "off", json_boolean(!hr_js_truthy(result->value->json)));
    set(found, "source", json_string(sources[result->source]));
    set(found, "ruleId", json_string(result->rule == NULL ? "" : result->rule->id));
    if (result->run != NULL) {
        const json_t *feature = json_object_get(json_object_get(context, "features"), name);
        size_t index = (size_t)(result->rule - f.program->features[0].rules);
        const json_t *rule = json_array_get(json_object_get(feature, "rules"), index);
        set(found, "experimentResult", json_of_run(&f, result->run, name));
        set(found, "experiment", json_of_experiment(rule, result->run));
    }
    assert_json_equal(found, json_array_get(c, 3));
    end(&f);
}

static void check_run(void **state) {
    const json_t *c = *state;
    fixture f;
    begin(&f, json_array_get(c, 1), NULL, json_array_get(c, 2));
    const hr_run *run = hr_evaluate_experiment(&f.evaluation, f.program->experiments[0]);
    const hr_variation *variation = &run->experiment->variations[run->variation];
    assert_json_equal(json_of(variation->value.json, f.arena), json_array_get(c, 3));
    assert_int_equal(run->in_experiment, json_is_true(json_array_get(c, 4)));
    assert_int_equal(run->hash_used, json_is_true(json_array_get(c, 5)));
    end(&f);
}

/* inNamespace: of an experiment in nothing but its namespace. */
static void check_namespace(void **state) {
    const json_t *c = *state;
    json_t *context = json_pack("{s:{s:O}}", "attributes", "id", json_array_get(c, 1));
    json_t *experiment =
        json_pack("{s:s, s:[i,i], s:O}", "key", "e", "variations", 0, 1, "namespace", json_array_get(c, 2));
    fixture f;
    begin(&f, context, NULL, experiment);
    const hr_run *run = hr_evaluate_experiment(&f.evaluation, f.program->experiments[0]);
    assert_int_equal(run->reason == HR_REASON_OUTSIDE_NAMESPACE, json_is_false(json_array_get(c, 3)));
    end(&f);
    json_decref(experiment);
    json_decref(context);
}

/* ---- The files ---- */

static const struct section {
    const char *name;
    CMUnitTestFunction check;
} sections[] = {
    {"hash", check_hash},
    {"getBucketRange", check_bucket_range},
    {"chooseVariation", check_choose_variation},
    {"inNamespace", check_namespace},
    {"getEqualWeights", check_equal_weights},
    {"getQueryStringOverride", check_query_string},
    {"evalCondition", check_condition},
    {"feature", check_feature},
    {"run", check_run},
};

/* A test per case; the case's name, where it has one, is its first element. */
static size_t add_section(const struct section *section, const json_t *cases, struct CMUnitTest *tests) {
    size_t n = json_array_size(cases);
    for (size_t i = 0; i < n; i++) {
        json_t *c = json_array_get(cases, i);
        const char *name = json_string_value(json_array_get(c, 0));
        char label[160];
        snprintf(label, sizeof label, "%s[%zu]: %s", section->name, i, name == NULL ? "" : name);
        tests[i] =
            (struct CMUnitTest){.name = strdup(label), .test_func = section->check, .initial_state = c};
    }
    return n;
}

static const struct section *find_section(const char *name) {
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++)
        if (strcmp(sections[i].name, name) == 0) return &sections[i];
    return NULL;
}

static int run_file(const char *path) {
    json_error_t why;
    json_t *file = json_load_file(path, JSON_DECODE_INT_AS_REAL, &why);
    if (!json_is_object(file)) {
        fprintf(stderr, "%s: expected an object of cases: %s\n", path, why.text);
        return 1;
    }
    size_t n = 0, n_max = 0;
    const char *name;
    json_t *cases;
    json_object_foreach(file, name, cases) n_max += json_array_size(cases);
    struct CMUnitTest *tests = calloc(n_max + 1, sizeof *tests);
    json_object_foreach(file, name, cases) {
        const struct section *section = find_section(name);
        if (section == NULL && json_is_array(cases))
            printf("%s: section \"%s\" is not known here: %zu cases skipped\n", path, name,
                   json_array_size(cases));
        if (section != NULL) n += add_section(section, cases, tests + n);
    }
    printf("%s: %zu cases\n", path, n);
    fflush(stdout);
    int failed = n == 0 ? 1 : _cmocka_run_group_tests(path, tests, n, NULL, NULL);
    for (size_t i = 0; i < n; i++) free((char *)tests[i].name);
    free(tests);
    json_decref(file);
    return failed;
}

int main(void) {
    const char *given = getenv("GROWTHBOOK_CASES"), *shared = getenv("HOMERANK_SHARED");
    char path[4096];
    int failed = run_file("tests/service/experiments/cases.json");
    if (given != NULL && given[0] != '\0') {
        failed += run_file(given);
    } else if (shared != NULL && shared[0] != '\0') {
        snprintf(path, sizeof path, "%s/growthbook/cases.json", shared);
        failed += run_file(path);
    }
    return failed;
}
