/* Experiments as a server has them: what a file may say, and what it decides for a request. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "service/experiments/experiments.h"

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

/* ---- Helpers ---- */

/* Two models are there: `home` with the tasks click and like, which is the default one, and `mmoe`, which has
 * click alone. */
static hr_status check_served(void *arg, const char *model, const hr_fusion_spec *fusion,
                              const char *const *tasks, size_t n_tasks, hr_error *err) {
    static const hr_task all[] = {{.name = "click"}, {.name = "like"}};
    (void)arg;
    const char *name = model == NULL ? "home" : model;
    bool is_home = strncmp(name, "home", 4) == 0;
    if (!is_home && strcmp(name, "mmoe") != 0) return hr_error_set(err, HR_NOT_FOUND, "no model %s", name);
    uint32_t n = is_home ? 2 : 1;
    hr_arena *arena = hr_arena_create(4096);
    const hr_fusion *bound;
    hr_status status = fusion == NULL ? HR_OK : hr_fusion_bind(fusion, all, n, arena, &bound, err);
    for (size_t i = 0; i < n_tasks && status == HR_OK; i++)
        if (strcmp(tasks[i], "click") != 0 && !(is_home && strcmp(tasks[i], "like") == 0))
            status = hr_error_set(err, HR_INVALID_ARGUMENT, "no task %s", tasks[i]);
    hr_arena_destroy(arena);
    return status;
}

static char warnings[4096];

static void gather_warning(void *arg, const char *what) {
    (void)arg;
    size_t n = strlen(warnings);
    snprintf(warnings + n, sizeof warnings - n, "%s\n", what);
}

static const hr_experiments_options options = {
    .feature = "ranking", .check = check_served, .warn = gather_warning};

static hr_status parse(const char *text, hr_experiments **experiments, hr_error *err) {
    warnings[0] = '\0';
    return hr_experiments_parse(text, strlen(text), &options, experiments, err);
}

static hr_experiments *parsed(const char *text) {
    hr_experiments *experiments = NULL;
    hr_error err = {.message = ""};
    if (parse(text, &experiments, &err) != HR_OK) fail_msg("%s: %s", text, err.message);
    return experiments;
}

static int make_arena(void **state) {
    *state = hr_arena_create(1 << 20);
    return *state == NULL;
}

static int destroy_arena(void **state) {
    hr_arena_destroy(*state);
    return 0;
}

static hr_decision decide(const hr_experiments *experiments, const char *user, const char *attributes,
                          hr_arena *arena) {
    hr_error err = {.message = ""};
    hr_decision decision;
    hr_experiments_subject subject = {.user_id = user};
    if (hr_experiments_read_attributes(attributes, arena, &subject.attributes, &err) != HR_OK ||
        hr_experiments_decide(experiments, &subject, arena, &decision, &err) != HR_OK)
        fail_msg("%s", err.message);
    return decision;
}

/* ---- What a file may say ---- */

/* A payload whose feature `ranking` has one rule. */
#define RULE(text)          "{\"features\": {\"ranking\": {\"rules\": [" text "]}}}"
#define FORCE(text)         RULE("{\"force\": " text "}")
#define WITH(feature, text) "{\"features\": {\"ranking." feature "\": {\"rules\": [{\"force\": " text "}]}}}"

static void a_bad_file_is_one_clear_error(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"", "expected JSON"},
        {"{\"features\": {}", "line 1, column 15: expected JSON"},
        {"{\"features\": {}} x", "expected JSON"},
        {"{\"features\": {\"a\": {}, \"a\": {}}}", "duplicate object key"},
        {"[]", "expected a GrowthBook SDK payload, found no object"},
        {"{}", "features: expected an object of features"},
        {"{\"features\": [], \"savedGroups\": {}}", "features: expected an object of features"},
        {"{\"features\": {}, \"savedGroups\": []}", "savedGroups: expected an object"},
        {"{\"encryptedFeatures\": \"abc.def\"}",
         "encryptedFeatures: expected a payload in clear text, found an encrypted one"},
        {FORCE("{\"modle\": \"home\"}"),
         "feature \"ranking\": rules[0]: force: value: unknown key \"modle\", expected model, fusion, tasks "
         "or shadow"},
        {FORCE("7"), "feature \"ranking\": rules[0]: force: value: expected an object, found 7"},
        {FORCE("{\"model\": 3}"), "rules[0]: force: model: expected a non-empty string, found 3"},
        {FORCE("{\"model\": null}"), "rules[0]: force: model: expected a non-empty string, found null"},
        {FORCE("{\"model\": \"home@\"}"),
         "model: expected name, name@version or name:label, found \"home@\""},
        {FORCE("{\"model\": \"home@x\"}"), "model: expected name, name@version or name:label"},
        {FORCE("{\"model\": \"best\"}"), "feature \"ranking\": rules[0]: force: no model best"},
        {FORCE("{\"fusion\": {\"kind\": \"sum\"}}"), "rules[0]: force: fusion: kind: expected weighted_sum"},
        {FORCE("{\"fusion\": {\"kind\": \"weighted_sum\", \"weights\": {\"buy\": 1}}}"),
         "rules[0]: force: fusion: weights: expected a task of the network, found \"buy\""},
        {FORCE("{\"tasks\": []}"), "rules[0]: force: tasks: expected a list of tasks, found an array"},
        {FORCE("{\"tasks\": [\"click\", 1]}"), "tasks[1]: expected a non-empty string, found 1"},
        {FORCE("{\"tasks\": [\"like\", \"like\"]}"), "tasks[1]: expected each task once, found \"like\""},
        {FORCE("{\"tasks\": [\"buy\"]}"), "rules[0]: force: no task buy"},
        {FORCE("{\"shadow\": {\"model\": \"home\"}}"), "shadow: percent: expected a finite number"},
        {FORCE("{\"shadow\": {\"model\": \"home\", \"percent\": 101}}"),
         "shadow: percent: expected a number from 0 to 100, found 101"},
        {FORCE("{\"shadow\": {\"model\": \"best\", \"percent\": 1}}"),
         "rules[0]: force: shadow: no model best"},
        {WITH("model", "{}"),
         "feature \"ranking.model\": rules[0]: force: value: expected a non-empty string"},
        {WITH("fusion", "1"), "feature \"ranking.fusion\": rules[0]: force: fusion: expected an object"},
        {RULE("{\"key\": \"e\", \"variations\": [{}, {\"x\": 1}]}"),
         "feature \"ranking\": rules[0] \"e\": variations[1]: value: unknown key \"x\""},
        {RULE("{\"key\": \"e\", \"variations\": [{}]}"),
         "feature \"ranking\": rules[0] \"e\": variations: expected at least 2, found 1"},
        {RULE("{\"key\": \"e\", \"variations\": [{}, {}], \"weights\": [0.5, 0.4]}"),
         "feature \"ranking\": rules[0] \"e\": weights: expected a sum of 1, found 0.9"},
        {RULE("{\"variations\": [{}, {}], \"weights\": [1]}"), "expected one per variation (2), found 1"},
        {RULE("{\"variations\": [{}, {}], \"weights\": [2, -1]}"),
         "weights[1]: expected a number of at least 0"},
        {RULE("{\"variations\": [{}, {}], \"ranges\": [[0, 0.6], [0.5, 1]]}"),
         "ranges: [0, 0.6] and [0.5, 1] overlap"},
        {RULE("{\"variations\": [{}, {}], \"ranges\": [[0, 0.5]]}"), "ranges: expected one per variation"},
        {RULE("{\"variations\": [{}, {}], \"ranges\": [[0, 0.5], [0.5, 1.5]]}"),
         "ranges[1]: expected 0 <= start <= end <= 1, found [0.5, 1.5]"},
        {RULE("{\"variations\": [{}, {}], \"ranges\": [[0, 0.5], 7]}"), "ranges[1]: expected [start, end]"},
        {RULE("{\"variations\": [{}, {}], \"coverage\": 1.1}"), "coverage: expected 0 to 1, found 1.1"},
        {RULE("{\"variations\": [{}, {}], \"coverage\": \"1\"}"), "coverage: expected a number"},
        {RULE("{\"variations\": [{}, {}], \"hashVersion\": 3}"), "hashVersion: expected 1 or 2"},
        {RULE("{\"variations\": [{}, {}], \"namespace\": [\"n\", 0.5]}"), "namespace: expected [start, end]"},
        {RULE("{\"force\": {}, \"filters\": [{\"seed\": \"s\"}]}"), "filters: ranges: expected a list"},
        {RULE("{\"condition\": {}}"), "rules[0]: expected force or variations, found neither"},
        {RULE("[]"), "rules[0]: expected an object"},
        {"{\"features\": {\"ranking\": {\"rules\": {}}}}", "feature \"ranking\": rules: expected a list"},
        {"{\"features\": {\"ranking\": 1}}", "feature \"ranking\": expected an object"},
        {"{\"features\": {\"ranking\": {\"defaultValue\": {\"y\": 1}}}}",
         "feature \"ranking\": defaultValue: value: unknown key \"y\""},
    };
    for (size_t i = 0; i < N_OF(rows); i++) {
        hr_experiments *experiments;
        hr_error err = {.message = ""};
        hr_status status = parse(rows[i].text, &experiments, &err);
        if (status == HR_OK || strstr(err.message, rows[i].message) == NULL)
            fail_msg("%s: expected \"%s\", found %d \"%s\"", rows[i].text, rows[i].message, status,
                     err.message);
        assert_int_equal(err.code, status);
        assert_null(experiments);
        assert_null(strchr(err.message, '\n'));
    }
}

/* A fusion fits one model and not the other, and a request may get both. */
static void a_fusion_must_fit_every_model_it_may_meet(void **state) {
    (void)state;
    static const char fusion[] =
        "\"ranking.fusion\": {\"defaultValue\": {\"kind\": \"weighted_sum\", \"weights\": {\"like\": 1}}}";
    static const struct {
        const char *others, *message;
    } rows[] = {
        {"", NULL},
        {", \"ranking.model\": {\"defaultValue\": \"home@2\"}", NULL},
        {", \"ranking.model\": {\"defaultValue\": \"mmoe\"}",
         "feature \"ranking.fusion\": defaultValue: fusion: weights: expected a task of the network"},
        {", \"ranking\": {\"rules\": [{\"force\": {\"model\": \"mmoe\"}}]}",
         "feature \"ranking.fusion\": defaultValue: fusion: weights"},
        /* ranking.model always says something, so what ranking says of it never counts. */
        {", \"ranking\": {\"rules\": [{\"force\": {\"model\": \"mmoe\"}}]},"
         " \"ranking.model\": {\"defaultValue\": \"home\"}",
         NULL},
        {", \"ranking.model\": {\"defaultValue\": \"home\", \"rules\": [{\"force\": null}]},"
         " \"ranking\": {\"defaultValue\": {\"model\": \"mmoe\"}}",
         "feature \"ranking.fusion\": defaultValue: fusion: weights"},
    };
    for (size_t i = 0; i < N_OF(rows); i++) {
        char text[1024];
        hr_experiments *experiments;
        hr_error err = {.message = ""};
        snprintf(text, sizeof text, "{\"features\": {%s%s}}", fusion, rows[i].others);
        hr_status status = parse(text, &experiments, &err);
        if (rows[i].message == NULL ? status != HR_OK : strstr(err.message, rows[i].message) == NULL)
            fail_msg("%s: %d %s", text, status, err.message);
        hr_experiments_unref(experiments);
    }
}

static void what_is_not_understood_is_a_warning(void **state) {
    (void)state;
    static const struct {
        const char *text, *warning;
    } rows[] = {
        {"{\"features\": {\"ranking\": {}}, \"extra\": 1}", "unknown key \"extra\" is ignored"},
        {"{\"features\": {}}", "feature \"ranking\": not in the file, nor one of its keys"},
        {"{\"features\": {\"ranking\": {}, \"ranking.modle\": {}}}",
         "feature \"ranking.modle\": expected .model, .fusion, .tasks or .shadow behind ranking"},
        {RULE("{\"force\": {}, \"colour\": 1}"), "feature \"ranking\": rules[0]: unknown key \"colour\""},
        {RULE("{\"force\": {}, \"condition\": {\"a\": {\"$regex\": \"(\"}}}"),
         "condition: \"$regex\": not a regular expression: a ( without its )"},
        {RULE("{\"force\": {}, \"condition\": {\"a\": {\"$near\": 1}}}"),
         "condition: \"$near\": unknown operator"},
        {RULE("{\"force\": {}, \"condition\": {\"a\": {\"$inGroup\": \"g\"}}}"),
         "condition: \"$inGroup\": expected a saved group of the file, found \"g\""},
        {RULE("{\"variations\": [{}, {}], \"fallbackAttribute\": \"anon\"}"),
         "fallbackAttribute is ignored: there is no sticky bucketing here"},
        /* Another feature may be as wrong as the SDK lets it be. */
        {"{\"features\": {\"ranking\": {\"rules\": [{\"force\": {}, \"parentConditions\": [{\"id\": "
         "\"p\"}]}]},"
         " \"p\": {\"rules\": [{\"variations\": [1, 2], \"weights\": [0.5]}]}}}",
         "feature \"p\": rules[0]: weights: expected one per variation (2), found 1"},
    };
    for (size_t i = 0; i < N_OF(rows); i++) {
        hr_experiments_unref(parsed(rows[i].text));
        if (strstr(warnings, rows[i].warning) == NULL)
            fail_msg("%s: expected \"%s\", found \"%s\"", rows[i].text, rows[i].warning, warnings);
    }
    hr_experiments_unref(parsed("{\"features\": {\"ranking\": {}}, \"status\": 200, \"experiments\": []}"));
    assert_string_equal(warnings, "");
}

static char *nested(const char *before, const char *open, size_t n) {
    char *text = malloc(strlen(before) + n * strlen(open) + 1), *at = stpcpy(text, before);
    for (size_t i = 0; i < n; i++) at = stpcpy(at, open);
    return text;
}

static void deep_nesting_is_an_error(void **state) {
    (void)state;
    hr_experiments *experiments;
    hr_error err;
    char *deep = nested("", "[", 1000000);
    assert_int_equal(parse(deep, &experiments, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "maximum parsing depth reached"));
    free(deep);

    char *condition = nested(
        "{\"features\": {\"ranking\": {\"rules\": [{\"force\": {}, \"condition\": ", "{\"$not\": ", 200);
    char *whole = malloc(strlen(condition) + 300), *at = stpcpy(whole, condition);
    for (int i = 0; i < 201; i++) at = stpcpy(at, i == 0 ? "{}" : "}");
    stpcpy(at, "}]}}}");
    assert_int_equal(parse(whole, &experiments, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "feature \"ranking\": rules[0]: expected at most 64 levels of nesting, "
                                     "found more");
    free(condition);
    free(whole);
}

static void a_file_has_errors_of_its_own(void **state) {
    (void)state;
    char dir[] = "/tmp/experiments.XXXXXX", path[64], expected[HR_ERROR_MESSAGE_SIZE];
    hr_experiments *experiments;
    hr_error err;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/e.json", dir);
    assert_int_equal(hr_experiments_load(path, &options, &experiments, &err), HR_NOT_FOUND);
    snprintf(expected, sizeof expected, "experiments %s: No such file or directory", path);
    assert_string_equal(err.message, expected);

    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(hr_experiments_load(path, &options, &experiments, &err), HR_IO);
    assert_non_null(strstr(err.message, "expected a regular file"));
    unlink(path);

    FILE *file = fopen(path, "w");
    assert_int_equal(ftruncate(fileno(file), 100 << 20), 0);
    assert_int_equal(hr_experiments_load(path, &options, &experiments, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "expected at most 33554432 bytes, found 104857600"));
    assert_int_equal(ftruncate(fileno(file), 0), 0);
    fputs("{\"features\": {\"ranking\": {}}}", file);
    fclose(file);
    assert_int_equal(hr_experiments_load(path, &options, &experiments, &err), HR_OK);
    assert_string_equal(hr_experiments_version(experiments), "4b8c22eed386fb94"); /* xxhsum -H64 */
    assert_ptr_equal(hr_experiments_ref(experiments), experiments);
    hr_experiments_unref(experiments);
    hr_experiments_unref(experiments);
    hr_experiments_unref(NULL);
    unlink(path);
    rmdir(dir);
}

/* ---- What it decides ---- */

static void a_feature_of_its_own_wins_over_the_same_key(void **state) {
    hr_experiments *e = parsed(
        "{\"features\": {\"ranking\": {\"defaultValue\": {\"model\": \"home\", \"tasks\": [\"click\"]}},"
        " \"ranking.model\": {\"rules\": [{\"condition\": {\"country\": \"de\"}, \"force\": "
        "\"home:canary\"}]},"
        " \"ranking.fusion\": {\"defaultValue\": {\"kind\": \"weighted_sum\", \"weights\": {\"click\": "
        "1}}}}}");
    hr_decision decision = decide(e, "u", "", *state);
    assert_string_equal(decision.model, "home");
    assert_non_null(decision.fusion);
    assert_int_equal(decision.n_tasks, 1);
    assert_string_equal(decision.tasks[0], "click");
    assert_int_equal(decision.n_assigned, 0);
    assert_string_equal(decide(e, "u", "{\"country\": \"de\"}", *state).model, "home:canary");
    hr_experiments_unref(e);
}

static void nothing_is_decided_where_no_feature_has_a_value(void **state) {
    static const char *const texts[] = {
        "{\"features\": {}}",
        "{\"features\": {\"ranking\": {}, \"ranking.model\": {\"defaultValue\": null}}}",
        "{\"features\": {\"ranking\": {\"rules\": [{\"parentConditions\": [{\"id\": \"q\", \"gate\": true}],"
        " \"force\": {\"model\": \"home\"}}], \"defaultValue\": {\"model\": \"home\"}},"
        " \"q\": {\"rules\": [{\"parentConditions\": [{\"id\": \"ranking\"}], \"force\": 1}]}}}",
    };
    for (size_t i = 0; i < N_OF(texts); i++) {
        hr_experiments *e = parsed(texts[i]);
        hr_decision decision = decide(e, "u", "", *state);
        assert_null(decision.model);
        assert_null(decision.fusion);
        assert_int_equal(decision.n_tasks + decision.n_assigned, 0);
        assert_null(decision.shadow_model);
        hr_experiments_unref(e);
    }
}

/* Both are 1/2 of "123" under these seeds: see the SDK's conformance cases, "empty experiment rule". */
static void an_assignment_says_what_was_assigned_and_by_what(void **state) {
    hr_experiments *e = parsed(
        "{\"features\": {\"ranking.model\": {\"rules\": [{\"key\": \"feature\", \"variations\": "
        "[\"home@1\", \"home@2\", \"home@3\"], \"meta\": [{\"key\": \"a\"}, {\"key\": \"b\"}, {\"key\": "
        "\"c\"}]}]}}}");
    hr_decision decision = decide(e, "123", "", *state);
    assert_string_equal(decision.model, "home@3");
    assert_int_equal(decision.n_assigned, 1);
    assert_string_equal(decision.assigned[0].experiment, "feature");
    assert_string_equal(decision.assigned[0].feature, "ranking.model");
    assert_string_equal(decision.assigned[0].variation_key, "c");
    assert_int_equal(decision.assigned[0].variation, 2);
    assert_true(decision.assigned[0].bucket == 0.863);
    /* The attributes' own id wins over the request's. */
    assert_string_equal(decide(e, "123", "{\"id\": \"fds\"}", *state).model, "home@2");
    hr_experiments_unref(e);
}

static void who_is_not_in_an_experiment_is_not_listed(void **state) {
    hr_experiments *e = parsed("{\"features\": {\"ranking.model\": {\"rules\": ["
                               "{\"key\": \"none\", \"coverage\": 0, \"variations\": [\"home\", \"mmoe\"]},"
                               "{\"key\": \"holdout\", \"variations\": [\"home\", \"mmoe\"],"
                               " \"weights\": [0, 1], \"meta\": [{}, {\"passthrough\": true}]},"
                               "{\"key\": \"one\", \"variations\": [\"home\", \"mmoe\"]}]},"
                               "\"ranking.tasks\": {\"rules\": ["
                               "{\"key\": \"one\", \"variations\": [[\"click\"], [\"click\"]]}]}}}");
    hr_decision decision = decide(e, "u", "", *state);
    assert_int_equal(decision.n_assigned, 2);
    assert_string_equal(decision.assigned[0].experiment, "holdout");
    assert_int_equal(decision.assigned[0].variation, 1);
    assert_string_equal(decision.assigned[1].experiment, "one"); /* once, though two features ask it */
    assert_string_equal(decision.model, decision.assigned[1].variation == 0 ? "home" : "mmoe");
    hr_experiments_unref(e);
}

static hr_decision decide_forced(const hr_experiments *e, bool may_force, const char *attributes,
                                 int32_t variation, hr_arena *arena) {
    hr_error err = {.message = ""};
    hr_decision decision;
    hr_forced_variation forced = {.experiment = "feature", .variation = variation};
    hr_experiments_subject subject = {
        .user_id = "123", .forced = &forced, .n_forced = variation >= 0, .may_force = may_force};
    assert_int_equal(hr_experiments_read_attributes(attributes, arena, &subject.attributes, &err), HR_OK);
    assert_int_equal(hr_experiments_decide(e, &subject, arena, &decision, &err), HR_OK);
    return decision;
}

static void variations_are_forced_only_by_whoever_may(void **state) {
    hr_experiments *e = parsed("{\"features\": {\"ranking.model\": {\"rules\": [{\"key\": \"feature\","
                               " \"variations\": [\"home@1\", \"home@2\", \"home@3\"]}]}}}");
    static const char url[] = "{\"url\": \"https://shop.example/?feature=0\"}";
    hr_decision decision = decide_forced(e, true, "", 1, *state);
    assert_string_equal(decision.model, "home@2");
    assert_int_equal(decision.n_assigned, 1);
    assert_true(decision.assigned[0].bucket == -1);
    assert_string_equal(decide_forced(e, false, "", 1, *state).model, "home@3");
    assert_string_equal(decide_forced(e, true, url, -1, *state).model, "home@1");
    assert_string_equal(decide_forced(e, false, url, -1, *state).model, "home@3");
    decision = decide_forced(e, true, "", 9, *state); /* no such variation: out */
    assert_null(decision.model);
    assert_int_equal(decision.n_assigned, 0);
    hr_experiments_unref(e);
}

static void a_share_of_requests_is_shadowed(void **state) {
    enum { N = 20000 };
    hr_experiments *e = parsed("{\"features\": {\"ranking.shadow\": {\"defaultValue\":"
                               " {\"model\": \"mmoe\", \"percent\": 5}}}}");
    hr_arena *arena = hr_arena_create(1 << 20);
    hr_error err;
    size_t n = 0;
    (void)state;
    for (uint64_t draw = 0; draw < N; draw++) {
        hr_experiments_subject subject = {.user_id = "u", .draw = draw};
        hr_decision decision;
        hr_arena_reset(arena);
        assert_int_equal(hr_experiments_decide(e, &subject, arena, &decision, &err), HR_OK);
        n += decision.shadow_model != NULL;
        if (decision.shadow_model != NULL) assert_string_equal(decision.shadow_model, "mmoe");
    }
    assert_true(fabs((double)n - N * 0.05) < 4 * sqrt(N * 0.05 * 0.95));
    hr_arena_destroy(arena);
    hr_experiments_unref(e);
}

/* ---- Attributes ---- */

static void attributes_are_a_json_object(void **state) {
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"[1]", "expected a JSON object"},
        {"{", "not valid JSON: at byte 1: expected a member's name, found the end"},
        {"{\"a\":1,}", "not valid JSON: at byte 7: expected a member's name, found \"}\""},
        {"{\"a\" 1}", "not valid JSON: at byte 5: expected a colon, found \"1\""},
        {"{\"a\":01}", "not valid JSON: at byte 5: expected a number, found \"0\""},
        {"{\"a\":1e999}", "at byte 5: expected a number that fits in a double"},
        {"{\"a\":tru}", "not valid JSON: at byte 5: expected a value, found \"t\""},
        {"{\"a\":\"\\u0000\"}", "expected an escape of JSON that is not NUL"},
        {"{\"a\":\"\\ud800\"}", "expected an escape of JSON that is not NUL"},
        {"{\"a\":\"\xff\"}",
         "at byte 6: expected a string's characters and its closing quote, found \"\\xff\""},
        {"{\"a\":\"\n\"}", "expected a string's characters"},
        {"{\"a\":1}}", "not valid JSON: at byte 7: expected the end, found \"}\""},
        {"{\"a\":[1 2]}", "expected a comma or ], found \"2\""},
    };
    for (size_t i = 0; i < N_OF(rows); i++) {
        const hr_experiments_attributes *attributes;
        hr_error err = {.message = ""};
        assert_int_equal(hr_experiments_read_attributes(rows[i].text, *state, &attributes, &err),
                         HR_INVALID_ARGUMENT);
        if (strstr(err.message, rows[i].message) == NULL)
            fail_msg("%s: expected \"%s\", found \"%s\"", rows[i].text, rows[i].message, err.message);
    }
    const hr_experiments_attributes *attributes;
    hr_error err;
    char *deep = nested("{\"a\":", "[", 65);
    assert_int_equal(hr_experiments_read_attributes(deep, *state, &attributes, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "at byte 68: expected at most 64 levels of nesting, found more");
    free(deep);
}

static void a_full_arena_is_an_error_and_never_a_decision(void **state) {
    (void)state;
    hr_experiments *e =
        parsed("{\"features\": {\"ranking.model\": {\"rules\": [{\"condition\": {\"tags\": "
               "{\"$regex\": \"a{2}$\"}, \"v\": {\"$vgt\": \"1.2\"}}, \"force\": \"home\"}]}}}");
    char attributes[2048] = "{\"v\": \"2\", \"tags\": [";
    while (strlen(attributes) < 1500) strcat(attributes, "\"aa\",");
    strcat(attributes, "\"aa\"]}");
    bool enough = false;
    for (size_t cap = 0; !enough; cap += 512) {
        hr_arena *arena = hr_arena_create(cap);
        hr_experiments_subject subject = {.user_id = "u"};
        hr_decision decision;
        hr_error err = {.message = ""};
        hr_status status = hr_experiments_read_attributes(attributes, arena, &subject.attributes, &err);
        if (status == HR_OK) status = hr_experiments_decide(e, &subject, arena, &decision, &err);
        enough = status == HR_OK;
        if (enough)
            assert_string_equal(decision.model, "home");
        else
            assert_int_equal(status, HR_RESOURCE_EXHAUSTED);
        hr_arena_destroy(arena);
    }
    hr_experiments_unref(e);
}

/* A pattern that takes exponential time does not match, in bounded time. */
static void a_runaway_pattern_ends(void **state) {
    hr_experiments *e = parsed("{\"features\": {\"ranking.model\": {\"rules\": [{\"condition\": {\"a\": "
                               "{\"$regex\": \"^(a+)+$\"}}, \"force\": \"home\"}]}}}");
    char attributes[256] = "{\"a\": \"";
    memset(attributes + 7, 'a', 60);
    strcpy(attributes + 67, "\"}");
    assert_string_equal(decide(e, "u", attributes, *state).model, "home");
    strcpy(attributes + 67, "!\"}");
    assert_null(decide(e, "u", attributes, *state).model);
    hr_experiments_unref(e);
}

int main(void) {
#define ARENA_TEST(test) cmocka_unit_test_setup_teardown(test, make_arena, destroy_arena)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_file_is_one_clear_error),
        cmocka_unit_test(a_fusion_must_fit_every_model_it_may_meet),
        cmocka_unit_test(what_is_not_understood_is_a_warning),
        cmocka_unit_test(deep_nesting_is_an_error),
        cmocka_unit_test(a_file_has_errors_of_its_own),
        ARENA_TEST(a_feature_of_its_own_wins_over_the_same_key),
        ARENA_TEST(nothing_is_decided_where_no_feature_has_a_value),
        ARENA_TEST(an_assignment_says_what_was_assigned_and_by_what),
        ARENA_TEST(who_is_not_in_an_experiment_is_not_listed),
        ARENA_TEST(variations_are_forced_only_by_whoever_may),
        ARENA_TEST(a_share_of_requests_is_shadowed),
        ARENA_TEST(attributes_are_a_json_object),
        ARENA_TEST(a_full_arena_is_an_error_and_never_a_decision),
        ARENA_TEST(a_runaway_pattern_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
