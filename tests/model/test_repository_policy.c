/* Which versions a repository serves, by its policy and by what comes and goes on disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/model/model_folder.h"
#include "tests/model/repository_fixture.h"

static void latest_replaces_a_version_by_a_newer_one(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 2);
    repository_fixture_open(f, &repository_fixture_options);
    add_version(f, "home", 1); /* older: nothing to do */
    add_version(f, "home", 10);
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_AVAILABLE);
    expect_acquired(f, "home", "home@10");
    expect_acquired(f, "", "home@10");
    expect_refused(f, "home@2", HR_NOT_FOUND, "model \"home@2\" is not served, version 10 is");
    assert_int_equal(see_version(f, "home", 1).state, HR_VERSION_AVAILABLE);
}

static void a_version_that_fails_leaves_the_old_one_and_is_tried_again_when_it_changes(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    add_broken_version(f, "home", 2);
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_FAILED);
    assert_non_null(strstr(see_version(f, "home", 2).reason,
                           "model home@2: model.safetensors: tensor tower.click.0.bias"));
    expect_acquired(f, "home", "home@1");
    add_version(f, "home", 2);
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_SERVING);
    assert_string_equal(see_version(f, "home", 2).reason, "");
    wait_for_state(f, "home", 1, HR_VERSION_AVAILABLE);
}

static int n_prepared;

static hr_status refuse_version_2(hr_model *model, const char *dir, void *arg, hr_error *err) {
    (void)dir, (void)arg;
    n_prepared++;
    if (hr_model_version(model) == 2) return hr_error_set(err, HR_INVALID_ARGUMENT, "verify.jsonl:1: wrong");
    return HR_OK;
}

static void a_failed_version_is_not_tried_again_while_it_does_not_change(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    options.prepare = refuse_version_2;
    add_version(f, "home", 1);
    repository_fixture_open(f, &options);
    n_prepared = 0;
    add_version(f, "home", 2);
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_FAILED);
    look(f);
    look(f);
    add_version(f, "other", 1);
    look(f);
    wait_for_state(f, "other", 1, HR_VERSION_SERVING); /* behind any other load */
    assert_int_equal(n_prepared, 2);
}

static void the_next_older_version_is_tried_where_the_newest_fails(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    add_version(f, "home", 2);
    add_broken_version(f, "home", 3);
    look(f);
    wait_for_state(f, "home", 1, HR_VERSION_AVAILABLE);
    expect_acquired(f, "home", "home@2");
    assert_int_equal(see_version(f, "home", 3).state, HR_VERSION_FAILED);
}

/* config.json is there, model.safetensors grows: nobody tries to load it before it has come to rest. */
static void a_version_that_is_being_copied_is_left_alone_until_it_is_whole(void **state) {
    repository_fixture *f = *state;
    char path[600];
    struct stat whole;
    add_version(f, "home", 1);
    add_version(f, "other", 2);
    repository_fixture_open(f, &repository_fixture_options);
    snprintf(path, sizeof path, "%s/home", f->root);
    test_folder_sub(path, "2");
    look_once(f);
    assert_string_equal(see_version(f, "home", 2).reason, "");
    write_text(f, "home/2/config.json", test_tiny_config);
    snprintf(path, sizeof path, "%s/other/2/model.safetensors", f->root);
    assert_int_equal(stat(path, &whole), 0);
    FILE *from = fopen(path, "rb");
    snprintf(path, sizeof path, "%s/home/2/model.safetensors", f->root);
    FILE *to = fopen(path, "wb");
    char part[256];
    for (size_t n; (n = fread(part, 1, sizeof part, from)) > 0;) {
        fwrite(part, 1, n, to);
        fflush(to);
        look_once(f);
        assert_int_equal(see_version(f, "home", 2).state, HR_VERSION_AVAILABLE);
        assert_string_equal(see_version(f, "home", 2).reason, "");
    }
    assert_int_equal(ftell(to), whole.st_size);
    fclose(from);
    fclose(to);
    expect_acquired(f, "home", "home@1");
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_SERVING);
}

static hr_status touch_version_2(hr_model *model, const char *dir, void *arg, hr_error *err) {
    (void)arg, (void)err;
    if (hr_model_version(model) == 2 && ++n_prepared == 1) test_write_config(dir, test_tiny_config);
    return HR_OK;
}

static void files_that_change_while_they_are_read_are_not_served(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    options.prepare = touch_version_2;
    add_version(f, "home", 1);
    repository_fixture_open(f, &options);
    n_prepared = 0;
    add_version(f, "home", 2);
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_FAILED);
    assert_string_equal(see_version(f, "home", 2).reason,
                        "model home@2: its files changed while they were read");
    expect_acquired(f, "home", "home@1");
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_SERVING);
    assert_int_equal(n_prepared, 2);
}

static void deleting_the_newest_version_rolls_back_but_the_last_one_stays(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    repository_fixture_open(f, &repository_fixture_options);
    expect_acquired(f, "home", "home@2");
    remove_version(f, "home", 2);
    look(f);
    wait_for_state(f, "home", 1, HR_VERSION_SERVING);
    expect_refused(f, "home@2", HR_NOT_FOUND, "version 1 is");
    remove_version(f, "home", 1);
    look(f);
    expect_acquired(f, "home", "home@1");
    char home[600];
    snprintf(home, sizeof home, "%s/home", f->root);
    test_folder_remove(home);
    look(f);
    expect_acquired(f, "home", "home@1");
}

static void a_root_that_is_gone_stops_nobody(void **state) {
    repository_fixture *f = *state;
    char moved[300];
    add_version(f, "home", 1);
    add_version(f, "other", 1);
    repository_fixture_open(f, &repository_fixture_options);
    snprintf(moved, sizeof moved, "%s-moved", f->root);
    assert_int_equal(rename(f->root, moved), 0);
    expect_change(f, HR_REPOSITORY_LOAD, "home", 0, NULL, HR_IO, "cannot open folder");
    expect_acquired(f, "home", "home@1");
    expect_acquired(f, "other", "other@1");
    assert_int_equal(rename(moved, f->root), 0);
    look(f);
    expect_acquired(f, "home", "home@1");
}

static void all_serves_every_version_that_loads(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    options.policy = HR_POLICY_ALL;
    add_version(f, "home", 1);
    add_broken_version(f, "home", 2);
    add_version(f, "home", 3);
    repository_fixture_open(f, &options);
    expect_acquired(f, "home", "home@3");
    expect_acquired(f, "home@1", "home@1");
    expect_refused(f, "home@2", HR_NOT_FOUND, "version 3 is");
    assert_int_equal(see_version(f, "home", 2).state, HR_VERSION_FAILED);
    add_version(f, "home", 4);
    remove_version(f, "home", 1);
    look(f);
    wait_for_state(f, "home", 4, HR_VERSION_SERVING);
    expect_acquired(f, "home@3", "home@3");
    expect_refused(f, "home@1", HR_NOT_FOUND, "version 4 is");
}

static void specific_serves_the_versions_it_is_given(void **state) {
    repository_fixture *f = *state;
    static const char *const versions[] = {"home@2", "mmoe@1", "home@30"};
    hr_repository_options options = repository_fixture_options;
    options.policy = HR_POLICY_SPECIFIC;
    options.versions = versions;
    options.n_versions = 3;
    for (uint64_t version = 1; version <= 3; version++) add_version(f, "home", version);
    add_version(f, "mmoe", 1);
    add_version(f, "third", 2);
    repository_fixture_open(f, &options);
    expect_acquired(f, "home", "home@2");
    expect_acquired(f, "mmoe", "mmoe@1");
    expect_refused(f, "home@3", HR_NOT_FOUND, "version 2 is");
    expect_refused(f, "third", HR_NOT_FOUND, "model \"third\" is not served");
    add_version(f, "home", 30); /* asked for before it was there */
    look(f);
    wait_for_state(f, "home", 30, HR_VERSION_SERVING);
    expect_acquired(f, "home@2", "home@2");
}

static void the_list_of_versions_is_checked(void **state) {
    repository_fixture *f = *state;
    static const char *const wrong[] = {"home", "home@", "@1", "home@0", "home@x", "home:stable"};
    hr_repository_options options = repository_fixture_options;
    hr_repository *repository;
    hr_error err;
    add_version(f, "home", 1);
    options.policy = HR_POLICY_SPECIFIC;
    assert_int_equal(hr_repository_open(f->root, &options, &repository, &err), HR_INVALID_ARGUMENT);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        options.versions = &wrong[i];
        options.n_versions = 1;
        assert_int_equal(hr_repository_open(f->root, &options, &repository, &err), HR_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "versions: expected NAME@VERSION, found"));
    }
    options.policy = HR_POLICY_ALL;
    assert_int_equal(hr_repository_open(f->root, &options, &repository, &err), HR_INVALID_ARGUMENT);
    assert_null(repository);
}

static void a_folder_that_cannot_be_read_is_said_and_harms_no_other(void **state) {
    repository_fixture *f = *state;
    add_version(f, "good", 1);
    char home[600];
    snprintf(home, sizeof home, "%s/loop", f->root);
    assert_int_equal(symlink("loop", home), 0); /* a link to itself */
    repository_fixture_open(f, &repository_fixture_options);
    expect_acquired(f, "", "good@1");
    add_version(f, "good", 2);
    look(f);
    wait_for_state(f, "good", 2, HR_VERSION_SERVING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        REPOSITORY_TEST(latest_replaces_a_version_by_a_newer_one),
        REPOSITORY_TEST(a_version_that_fails_leaves_the_old_one_and_is_tried_again_when_it_changes),
        REPOSITORY_TEST(a_failed_version_is_not_tried_again_while_it_does_not_change),
        REPOSITORY_TEST(the_next_older_version_is_tried_where_the_newest_fails),
        REPOSITORY_TEST(a_version_that_is_being_copied_is_left_alone_until_it_is_whole),
        REPOSITORY_TEST(files_that_change_while_they_are_read_are_not_served),
        REPOSITORY_TEST(deleting_the_newest_version_rolls_back_but_the_last_one_stays),
        REPOSITORY_TEST(a_root_that_is_gone_stops_nobody),
        REPOSITORY_TEST(all_serves_every_version_that_loads),
        REPOSITORY_TEST(specific_serves_the_versions_it_is_given),
        REPOSITORY_TEST(the_list_of_versions_is_checked),
        REPOSITORY_TEST(a_folder_that_cannot_be_read_is_said_and_harms_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
