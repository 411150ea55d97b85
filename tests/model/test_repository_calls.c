/* Loading and unloading by calls. */
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/model/model_folder.h"
#include "tests/model/repository_fixture.h"

#define LOAD   HR_REPOSITORY_LOAD
#define UNLOAD HR_REPOSITORY_UNLOAD

static void a_version_is_loaded_when_the_call_returns(void **state) {
    repository_fixture *f = *state;
    uint64_t resolved = 0;
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    add_version(f, "home", 4);
    add_version(f, "home", 3);
    assert_int_equal(change(f, LOAD, "home", 0, NULL, &resolved, NULL), HR_OK);
    assert_int_equal(resolved, 4);
    expect_acquired(f, "home", "home@4");
    expect_refused(f, "home@1", HR_NOT_FOUND, "version 4 is"); /* as the policy wants */
    assert_int_equal(change(f, LOAD, "home", 4, NULL, &resolved, NULL), HR_OK);
    assert_int_equal(resolved, 4);
}

static void a_version_that_the_policy_does_not_want_stays_until_it_is_unloaded(void **state) {
    repository_fixture *f = *state;
    for (uint64_t version = 1; version <= 3; version++) add_version(f, "home", version);
    repository_fixture_open(f, &repository_fixture_options);
    expect_change(f, LOAD, "home", 1, NULL, HR_OK, "");
    expect_acquired(f, "home@1", "home@1");
    expect_acquired(f, "home", "home@3");
    add_version(f, "home", 4);
    look(f);
    wait_for_state(f, "home", 4, HR_VERSION_SERVING);
    expect_acquired(f, "home@1", "home@1");
    expect_change(f, UNLOAD, "home", 1, NULL, HR_OK, "");
    expect_refused(f, "home@1", HR_NOT_FOUND, "version 4 is");
}

/* Back to the version before: load it, take the new one out. It stays out, whatever is looked at, until it is
 * asked for or its files change; a newer one is loaded. */
static void a_version_that_was_unloaded_stays_out(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    repository_fixture_open(f, &repository_fixture_options);
    expect_change(f, LOAD, "home", 1, NULL, HR_OK, "");
    expect_change(f, UNLOAD, "home", 2, NULL, HR_OK, "");
    expect_acquired(f, "home", "home@1");
    look(f);
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_AVAILABLE);
    expect_change(f, LOAD, "home", 2, NULL, HR_OK, "");
    expect_acquired(f, "home", "home@2");
    expect_change(f, UNLOAD, "home", 2, NULL, HR_OK, "");
    add_version(f, "home", 2); /* other files */
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_SERVING);
    expect_change(f, UNLOAD, "home", 2, NULL, HR_OK, "");
    add_version(f, "home", 3);
    look(f);
    wait_for_state(f, "home", 3, HR_VERSION_SERVING);
    assert_int_equal(see_version(f, "home", 2).state, HR_VERSION_AVAILABLE);
}

static void a_whole_model_can_be_unloaded(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    add_version(f, "mmoe", 1);
    add_version(f, "mmoe", 2);
    repository_fixture_open(f, &repository_fixture_options);
    expect_change(f, UNLOAD, "mmoe", 0, NULL, HR_OK, "");
    look(f);
    expect_refused(f, "mmoe", HR_NOT_FOUND, "model \"mmoe\" is not served");
    expect_acquired(f, "", "home@1"); /* the only one now */
    expect_change(f, UNLOAD, "mmoe", 0, NULL, HR_NOT_FOUND, "model \"mmoe\" is not served");
    expect_change(f, LOAD, "mmoe", 0, NULL, HR_OK, "");
    expect_acquired(f, "mmoe", "mmoe@2");
}

static void what_must_not_go_is_refused_with_the_reason(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    write_text(f, "home/labels.json", "{\"stable\": 1}");
    repository_fixture_open(f, &options);
    expect_change(f, UNLOAD, "home", 1, NULL, HR_FAILED_PRECONDITION,
                  "home@1 is labelled stable: move the label to another version first");
    expect_change(f, UNLOAD, "home", 0, NULL, HR_FAILED_PRECONDITION, "is labelled stable");
    expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 0, "stable", HR_OK, "");
    expect_change(f, UNLOAD, "home", 2, NULL, HR_FAILED_PRECONDITION, "no model would be left");
    expect_change(f, UNLOAD, "home", 0, NULL, HR_FAILED_PRECONDITION, "no model would be left");
    expect_change(f, UNLOAD, "home", 1, NULL, HR_NOT_FOUND, "model \"home\"@1 is not served");
    expect_change(f, UNLOAD, "mmoe", 1, NULL, HR_NOT_FOUND, "model \"mmoe\"@1 is not served");
    add_version(f, "mmoe", 1);
    add_version(f, "home2", 1);
    look(f);
    wait_for_state(f, "home2", 1, HR_VERSION_SERVING);
    options.default_model = "home";
    repository_fixture_reopen(f, &options);
    expect_change(f, UNLOAD, "home", 2, NULL, HR_FAILED_PRECONDITION,
                  "no version of the default model home would be left: load another first");
    expect_change(f, UNLOAD, "home2", 1, NULL, HR_OK, "");
    expect_acquired(f, "", "home@2");
}

static void a_version_of_the_default_spec_must_not_go(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    options.policy = HR_POLICY_ALL;
    options.default_model = "home@1";
    add_version(f, "home", 1);
    add_version(f, "home", 2);
    repository_fixture_open(f, &options);
    expect_change(f, UNLOAD, "home", 1, NULL, HR_FAILED_PRECONDITION, "the default model is home@1");
    expect_change(f, UNLOAD, "home", 2, NULL, HR_OK, "");
}

static void what_cannot_be_loaded_is_told_with_the_reason(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    add_broken_version(f, "home", 2);
    for (int i = 0; i < 2; i++) /* asked for again, it is tried again */
        expect_change(f, LOAD, "home", 2, NULL, HR_FAILED_PRECONDITION,
                      "model home@2: model.safetensors: tensor tower.click.0.bias: expected [2], found none");
    expect_change(f, LOAD, "home", 3, NULL, HR_NOT_FOUND, "model \"home\"@3 is not in the repository");
    expect_change(f, LOAD, "mmoe", 0, NULL, HR_NOT_FOUND, "model \"mmoe\" is not in the repository");
    expect_change(f, LOAD, "../home", 1, NULL, HR_NOT_FOUND, "model \"../home\"@1 is not in the repository");
    expect_change(f, LOAD, "", 0, NULL, HR_NOT_FOUND, "model \"\" is not in the repository");
    expect_acquired(f, "home", "home@1");
}

/* In place of itself: the requests under way keep what they have. */
static void a_version_whose_files_changed_is_loaded_again_when_asked_for(void **state) {
    repository_fixture *f = *state;
    hr_model *before, *after;
    float logits[2], expected[2];
    hr_error err;
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    assert_int_equal(hr_repository_acquire(f->repository, "home", &before, &err), HR_OK);
    expect_change(f, LOAD, "home", 1, NULL, HR_OK, "");
    assert_int_equal(hr_repository_acquire(f->repository, "home", &after, &err), HR_OK);
    assert_ptr_equal(before, after); /* the same files */
    hr_model_unref(after);

    char tensors[600], version_2[600];
    add_version(f, "scratch", 2);
    snprintf(version_2, sizeof version_2, "%s/scratch/2/model.safetensors", f->root);
    snprintf(tensors, sizeof tensors, "%s/home/1/model.safetensors", f->root);
    assert_int_equal(rename(version_2, tensors), 0);
    look(f);
    assert_int_equal(hr_repository_acquire(f->repository, "home", &after, &err), HR_OK);
    assert_ptr_equal(before, after); /* a look alone changes nothing that is served */
    hr_model_unref(after);
    expect_change(f, LOAD, "home", 1, NULL, HR_OK, "");
    assert_int_equal(hr_repository_acquire(f->repository, "home@1", &after, &err), HR_OK);
    tiny_expected(2, expected);
    tiny_logits(after, 0, logits);
    assert_memory_equal(logits, expected, sizeof logits);
    tiny_expected(1, expected);
    tiny_logits(before, 1, logits);
    assert_memory_equal(logits, expected, sizeof logits);
    hr_model_unref(before);
    hr_model_unref(after);
}

/* Holds version 2 while it is being prepared; which may last until the repository is closed, after the test.
 */
typedef struct gate {
    sem_t reached, open;
} gate;

static gate the_gate;

static hr_status wait_at_gate(hr_model *model, const char *dir, void *arg, hr_error *err) {
    gate *g = arg;
    (void)dir, (void)err;
    if (hr_model_version(model) != 2) return HR_OK;
    sem_post(&g->reached);
    while (sem_wait(&g->open) != 0) continue;
    return HR_OK;
}

static void gate_open_repository(repository_fixture *f, gate *g) {
    hr_repository_options options = repository_fixture_options;
    sem_init(&g->reached, 0, 0);
    sem_init(&g->open, 0, 0);
    options.prepare = wait_at_gate;
    options.prepare_arg = g;
    add_version(f, "home", 1);
    repository_fixture_open(f, &options);
    add_version(f, "home", 2);
}

static void post_done(hr_repository_call *call) {
    sem_post(call->arg);
}

/* Submits a load of home@2 and waits until it is under way. */
static void begin_load(repository_fixture *f, gate *g, hr_repository_call *call, sem_t *done) {
    sem_init(done, 0, 0);
    *call = (hr_repository_call){
        .action = HR_REPOSITORY_LOAD, .name = "home", .version = 2, .done = post_done, .arg = done};
    hr_repository_submit(f->repository, call);
    while (sem_wait(&g->reached) != 0) continue;
}

static void unloading_a_version_that_is_being_loaded_stops_it(void **state) {
    repository_fixture *f = *state;
    gate *g = &the_gate;
    sem_t done;
    hr_repository_call call;
    gate_open_repository(f, g);
    begin_load(f, g, &call, &done);
    assert_int_equal(see_version(f, "home", 2).state, HR_VERSION_LOADING);
    expect_change(f, UNLOAD, "home", 2, NULL, HR_OK, "");
    sem_post(&g->open);
    while (sem_wait(&done) != 0) continue;
    assert_int_equal(call.error.code, HR_CANCELLED);
    expect_acquired(f, "home", "home@1");
    look(f);
    wait_for_state(f, "home", 2, HR_VERSION_AVAILABLE);
}

/* The calls are answered at once, though the load is not over. */
static void draining_answers_the_calls_that_wait(void **state) {
    repository_fixture *f = *state;
    gate *g = &the_gate;
    sem_t done;
    hr_repository_call call;
    gate_open_repository(f, g);
    begin_load(f, g, &call, &done);
    hr_repository_drain(f->repository);
    hr_repository_drain(f->repository);
    while (sem_wait(&done) != 0) continue;
    assert_int_equal(call.error.code, HR_UNAVAILABLE);
    expect_change(f, LOAD, "home", 1, NULL, HR_UNAVAILABLE, "shutting down");
    expect_acquired(f, "home", "home@1");
    sem_post(&g->open);
}

static void other_calls_are_answered_while_a_version_is_being_loaded(void **state) {
    repository_fixture *f = *state;
    gate *g = &the_gate;
    sem_t done;
    hr_repository_call call;
    gate_open_repository(f, g);
    begin_load(f, g, &call, &done);
    expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 1, "stable", HR_OK, "");
    expect_acquired(f, "home:stable", "home@1");
    sem_post(&g->open);
    while (sem_wait(&done) != 0) continue;
    assert_int_equal(call.error.code, HR_OK);
    expect_acquired(f, "home", "home@2");
}

static void a_repository_of_one_folder_does_not_change(void **state) {
    repository_fixture *f = *state;
    char dir[600];
    hr_error err;
    add_version(f, "home", 1);
    snprintf(dir, sizeof dir, "%s/home/1", f->root);
    assert_int_equal(hr_repository_open_folder(dir, &repository_fixture_options, &f->repository, &err),
                     HR_OK);
    expect_change(f, LOAD, "home", 1, NULL, HR_UNIMPLEMENTED, "does not change");
    assert_int_equal(see_version(f, "home", 1).state, HR_VERSION_SERVING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        REPOSITORY_TEST(a_version_is_loaded_when_the_call_returns),
        REPOSITORY_TEST(a_version_that_the_policy_does_not_want_stays_until_it_is_unloaded),
        REPOSITORY_TEST(a_version_that_was_unloaded_stays_out),
        REPOSITORY_TEST(a_whole_model_can_be_unloaded),
        REPOSITORY_TEST(what_must_not_go_is_refused_with_the_reason),
        REPOSITORY_TEST(a_version_of_the_default_spec_must_not_go),
        REPOSITORY_TEST(what_cannot_be_loaded_is_told_with_the_reason),
        REPOSITORY_TEST(a_version_whose_files_changed_is_loaded_again_when_asked_for),
        REPOSITORY_TEST(unloading_a_version_that_is_being_loaded_stops_it),
        REPOSITORY_TEST(draining_answers_the_calls_that_wait),
        REPOSITORY_TEST(other_calls_are_answered_while_a_version_is_being_loaded),
        REPOSITORY_TEST(a_repository_of_one_folder_does_not_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
