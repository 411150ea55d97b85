/* The moment between a version's loading and requests' seeing it, made as long as a test wants: by a reader
 * that holds the table of before, and by memory that ends when the new one is to be made (--wrap). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "model/served.h"
#include "tests/model/repository_fixture.h"

static atomic_bool memory_has_ended;

hr_served *__real_hr_served_create(const hr_catalog *catalog, const char *default_spec);
hr_served *__wrap_hr_served_create(const hr_catalog *catalog, const char *default_spec);
hr_served *__wrap_hr_served_create(const hr_catalog *catalog, const char *default_spec) {
    return atomic_load(&memory_has_ended) ? NULL : __real_hr_served_create(catalog, default_spec);
}

static void expect_state(const repository_fixture *f, uint64_t version, hr_version_state state) {
    const version_seen seen = see_version(f, "home", version);
    if (seen.state != state)
        fail_msg("home@%d is %s, expected %s", (int)version, hr_version_state_text(seen.state),
                 hr_version_state_text(state));
}

/* ---- A reader ---- */

typedef struct reader {
    repository_fixture *fixture;
    sem_t reads, may_go;
} reader;

static void stay(const hr_model *model, void *arg) {
    (void)model;
    reader *r = arg;
    sem_post(&r->reads);
    while (sem_wait(&r->may_go) != 0) continue;
}

static void *read_slowly(void *arg) {
    hr_repository_visit(((reader *)arg)->fixture->repository, stay, arg);
    return NULL;
}

static void note_done(hr_repository_call *call) {
    sem_post(call->arg);
}

static void wait_until_acquired(const repository_fixture *f, const char *label) {
    const struct timespec pause = {.tv_nsec = 1000000};
    for (bool found = false; !found; nanosleep(&pause, NULL)) {
        hr_model *model;
        hr_error err;
        assert_int_equal(hr_repository_acquire(f->repository, "home", &model, &err), HR_OK);
        found = strcmp(hr_model_label(model), label) == 0;
        hr_model_unref(model);
    }
}

static void what_is_replaced_serves_until_the_new_one_does(void **state) {
    repository_fixture *f = *state;
    reader r = {.fixture = f};
    sem_t loaded;
    pthread_t thread;
    sem_init(&r.reads, 0, 0);
    sem_init(&r.may_go, 0, 0);
    sem_init(&loaded, 0, 0);
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, &r), 0);
    while (sem_wait(&r.reads) != 0) continue;
    add_version(f, "home", 2);
    hr_repository_call call = {
        .action = HR_REPOSITORY_LOAD, .name = "home", .version = 2, .done = note_done, .arg = &loaded};
    hr_repository_submit(f->repository, &call);
    wait_until_acquired(f, "home@2"); /* the table of before still has a reader */
    expect_state(f, 1, HR_VERSION_SERVING);
    expect_state(f, 2, HR_VERSION_LOADING);
    assert_int_not_equal(sem_trywait(&loaded), 0);
    sem_post(&r.may_go);
    while (sem_wait(&loaded) != 0) continue;
    assert_int_equal(call.error.code, HR_OK);
    expect_state(f, 2, HR_VERSION_SERVING);
    wait_for_state(f, "home", 1, HR_VERSION_AVAILABLE);
    pthread_join(thread, NULL);
    sem_destroy(&loaded);
    sem_destroy(&r.may_go);
    sem_destroy(&r.reads);
}

/* ---- Memory ---- */

static void expect_unchanged(const repository_fixture *f) {
    expect_acquired(f, "home", "home@1");
    expect_refused(f, "home@2", HR_NOT_FOUND, "version 1 is");
    expect_state(f, 1, HR_VERSION_SERVING);
    expect_state(f, 2, HR_VERSION_LOADING);
}

static void what_cannot_be_published_does_not_serve(void **state) {
    repository_fixture *f = *state;
    static const char memory[] = "no memory for the table of models";
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    add_version(f, "home", 2);
    atomic_store(&memory_has_ended, true);
    for (int i = 0; i < 2; i++) { /* also where it has been loaded already */
        expect_change(f, HR_REPOSITORY_LOAD, "home", 2, NULL, HR_OUT_OF_MEMORY, memory);
        expect_unchanged(f);
    }
    expect_change(f, HR_REPOSITORY_UNLOAD, "home", 1, NULL, HR_OUT_OF_MEMORY, memory);
    expect_change(f, HR_REPOSITORY_SET_LABEL, "home", 1, "stable", HR_OUT_OF_MEMORY, memory);
    expect_unchanged(f);
    atomic_store(&memory_has_ended, false);
    expect_change(f, HR_REPOSITORY_LOAD, "home", 2, NULL, HR_OK, "");
    expect_acquired(f, "home", "home@2");
    expect_state(f, 2, HR_VERSION_SERVING);
}

static void what_could_not_be_published_is_so_once_there_is_memory(void **state) {
    repository_fixture *f = *state;
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    add_version(f, "home", 2);
    atomic_store(&memory_has_ended, true);
    expect_change(f, HR_REPOSITORY_LOAD, "home", 2, NULL, HR_OUT_OF_MEMORY, "no memory");
    atomic_store(&memory_has_ended, false);
    wait_for_state(f, "home", 2, HR_VERSION_SERVING);
    expect_acquired(f, "home", "home@2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        REPOSITORY_TEST(what_is_replaced_serves_until_the_new_one_does),
        REPOSITORY_TEST(what_cannot_be_published_does_not_serve),
        REPOSITORY_TEST(what_could_not_be_published_is_so_once_there_is_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
