/* The model repository: which versions are served, and who gets which (MODEL.md 1, DESIGN 5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/repository.h"
#include "tests/model/model_folder.h"

static const hr_repository_options options = {.model = {.backend = "reference", .n_workers = 1}};
static char root[256];

static int make_root(void **state) {
    (void)state;
    test_folder_make(root, sizeof root);
    return 0;
}

static int remove_root(void **state) {
    (void)state;
    test_folder_remove(root);
    return 0;
}

/* root/name/version with the tiny model, or without its tensors. */
static void add_version(const char *name, const char *version, bool whole) {
    char dir[512];
    test_tensors tensors = {0};
    snprintf(dir, sizeof dir, "%s/%s", root, name);
    test_folder_sub(dir, version);
    snprintf(dir, sizeof dir, "%s/%s/%s", root, name, version);
    test_write_config(dir, test_tiny_config);
    test_tiny_tensors(&tensors, "batch");
    if (whole) test_write_tensors(dir, &tensors);
    test_tensors_clear(&tensors);
}

static hr_repository *open_ok(const hr_repository_options *with) {
    hr_repository *repository;
    hr_error err = {0};
    if (hr_repository_open(root, with, &repository, &err) != HR_OK) fail_msg("%s", err.message);
    return repository;
}

static void expect_acquired(hr_repository *repository, const char *spec, const char *label) {
    hr_model *model;
    hr_error err = {0};
    if (hr_repository_acquire(repository, spec, &model, &err) != HR_OK) fail_msg("%s: %s", spec, err.message);
    assert_string_equal(hr_model_label(model), label);
    hr_model_unref(model);
}

static void expect_refused(hr_repository *repository, const char *spec, hr_status status,
                           const char *message) {
    hr_model *model;
    hr_error err = {0};
    hr_status found = hr_repository_acquire(repository, spec, &model, &err);
    if (found != status || strstr(err.message, message) == NULL) {
        fail_msg("%s: expected %d \"%s\", found %d \"%s\"", spec, status, message, found, err.message);
    }
    assert_null(model);
}

static void the_newest_version_that_loads_is_served(void **state) {
    (void)state;
    test_folder_sub(root, "home");
    add_version("home", "2", true);
    add_version("home", "9", true);
    add_version("home", "10", true); /* newer than 9 by number, not by text */
    add_version("home", "11", false);
    add_version("home", "012", true); /* no version */
    add_version("home", "x", true);
    hr_repository *repository = open_ok(&options);
    expect_acquired(repository, "", "home@10");
    expect_acquired(repository, "home", "home@10");
    expect_acquired(repository, "home@10", "home@10");
    expect_refused(repository, "home@9", HR_NOT_FOUND, "model \"home@9\" is not served, version 10 is");
    expect_refused(repository, "house", HR_NOT_FOUND, "model \"house\" is not served");
    expect_refused(repository, "house@1", HR_NOT_FOUND, "model \"house@1\" is not served");
    expect_refused(repository, "home:stable", HR_NOT_FOUND, "there is no such label");
    static const char *const malformed[] = {"home@",   "@1",    "home@x", "home@010", "home@0",
                                            "home@-1", "home:", ":x",     "@"};
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        expect_refused(repository, malformed[i], HR_INVALID_ARGUMENT,
                       "expected name, name@version or name:label");
    }
    hr_repository_close(repository);
}

enum { LABELS_SIZE = 128 };

static void collect(const hr_model *model, void *arg) {
    char *labels = arg; /* of LABELS_SIZE */
    size_t used = strlen(labels);
    snprintf(labels + used, LABELS_SIZE - used, "%s ", hr_model_label(model));
}

static void several_models_need_a_name_or_a_default(void **state) {
    (void)state;
    test_folder_sub(root, "other");
    test_folder_sub(root, ".hidden");
    test_folder_sub(root, "empty");
    test_write_bytes(root, "README", "hello", 5);
    add_version("other", "1", true);
    add_version(".hidden", "1", true);
    hr_repository *repository = open_ok(&options);
    expect_refused(repository, "", HR_INVALID_ARGUMENT, "expected a name, since 2 models are served");
    expect_acquired(repository, "other", "other@1");
    char labels[LABELS_SIZE] = "";
    hr_repository_visit(repository, collect, labels);
    assert_string_equal(labels, "home@10 other@1 ");
    hr_repository_close(repository);

    hr_repository_options with_default = options;
    with_default.default_model = "other";
    repository = open_ok(&with_default);
    expect_acquired(repository, "", "other@1");
    hr_repository_close(repository);

    hr_error err = {0};
    with_default.default_model = "nobody";
    assert_int_equal(hr_repository_open(root, &with_default, &repository, &err), HR_NOT_FOUND);
    assert_non_null(strstr(err.message, "default model \"nobody\""));
    assert_null(repository);
}

/* A version whose preparation fails is as good as one that does not load. */
static hr_status refuse_version_10(hr_model *model, const char *dir, void *arg, hr_error *err) {
    (void)dir;
    ++*(int *)arg;
    if (hr_model_version(model) == 10) return hr_error_set(err, HR_INVALID_ARGUMENT, "verify.jsonl:1: wrong");
    return HR_OK;
}

static void a_version_that_cannot_be_prepared_is_not_served(void **state) {
    (void)state;
    int prepared = 0;
    hr_repository_options with_prepare = options;
    with_prepare.prepare = refuse_version_10;
    with_prepare.prepare_arg = &prepared;
    hr_repository *repository = open_ok(&with_prepare);
    expect_acquired(repository, "home", "home@9");
    assert_int_equal(prepared, 3); /* home@10, home@9, other@1 */
    hr_repository_close(repository);

    char dir[300];
    hr_error err = {0};
    snprintf(dir, sizeof dir, "%s/home/10", root);
    assert_int_equal(hr_repository_open_folder(dir, &with_prepare, &repository, &err), HR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "model home@10: verify.jsonl:1: wrong");
    assert_null(repository);
}

static void nothing_to_serve_is_said_with_the_reason(void **state) {
    (void)state;
    char bad[300];
    hr_repository *repository;
    hr_error err = {0};
    snprintf(bad, sizeof bad, "%s/nowhere", root);
    assert_int_equal(hr_repository_open(bad, &options, &repository, &err), HR_IO);
    test_folder_sub(root, "root2");
    snprintf(bad, sizeof bad, "%s/root2/", root);
    assert_int_equal(hr_repository_open(bad, &options, &repository, &err), HR_NOT_FOUND);
    assert_non_null(strstr(err.message, "found no such folder"));
    test_folder_sub(root, "root2/m");
    add_version("root2/m", "4", false);
    assert_int_equal(hr_repository_open(bad, &options, &repository, &err), HR_NOT_FOUND);
    assert_non_null(strstr(err.message, "model m@4: model.safetensors: cannot open"));
    assert_null(repository);
    hr_repository_close(NULL);
}

static void a_plain_folder_is_a_repository_of_one(void **state) {
    (void)state;
    char dir[300];
    hr_repository *repository;
    hr_error err = {0};
    test_folder_sub(root, "a@b:c");
    add_version("a@b:c", "3", true);
    snprintf(dir, sizeof dir, "%s/a@b:c/3/", root);
    if (hr_repository_open_folder(dir, &options, &repository, &err) != HR_OK) fail_msg("%s", err.message);
    expect_acquired(repository, "", "a@b:c@3");
    expect_acquired(repository, "a@b:c", "a@b:c@3");
    expect_acquired(repository, "a@b:c@3", "a@b:c@3");
    hr_repository_close(repository);
    snprintf(dir, sizeof dir, "%s/nowhere", root);
    assert_int_equal(hr_repository_open_folder(dir, &options, &repository, &err), HR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_version_that_loads_is_served),
        cmocka_unit_test(several_models_need_a_name_or_a_default),
        cmocka_unit_test(a_version_that_cannot_be_prepared_is_not_served),
        cmocka_unit_test(nothing_to_serve_is_said_with_the_reason),
        cmocka_unit_test(a_plain_folder_is_a_repository_of_one),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
