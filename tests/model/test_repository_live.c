/* A repository that changes while requests run. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "tests/model/model_folder.h"
#include "tests/model/repository_fixture.h"

enum { N_REQUESTERS = 4, N_SWAPS = 30 };

/* What every version gives, by its number. */
static float expected[N_SWAPS + 2][2];

typedef struct requester {
    const repository_fixture *f;
    uint32_t worker;
    atomic_bool *stop;
    atomic_uint n_answers;
    uint64_t newest; /* version seen; never goes back */
    unsigned n_wrong, n_failed, n_back;
} requester;

static bool same_bits(const float a[2], const float b[2]) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x == y;
}

static void *request_until_stopped(void *arg) {
    const struct timespec breath = {.tv_nsec = 20000};
    requester *r = arg;
    while (!atomic_load(r->stop)) {
        hr_model *model;
        hr_error err;
        float logits[2];
        if (hr_repository_acquire(r->f->repository, "home", &model, &err) != HR_OK) {
            r->n_failed++;
            continue;
        }
        uint64_t version = hr_model_version(model);
        tiny_logits(model, r->worker, logits);
        r->n_wrong += !same_bits(logits, expected[version]);
        r->n_back += version < r->newest;
        r->newest = version;
        hr_model_unref(model);
        atomic_fetch_add(&r->n_answers, 1);
        nanosleep(&breath, NULL); /* or the loading thread would get next to no CPU */
    }
    return NULL;
}

/* Two more: the second was asked for after this call. */
static void wait_for_answers(requester *requesters, size_t n) {
    const struct timespec pause = {.tv_nsec = 100000};
    for (size_t i = 0; i < n; i++) {
        unsigned until = atomic_load(&requesters[i].n_answers) + 2;
        while (atomic_load(&requesters[i].n_answers) < until) nanosleep(&pause, NULL);
    }
}

/* Good and broken versions in turn, while requests run: none fails, each has the bits of the version that it
 * names, and nobody sees an older version after a newer one. */
static void swaps_disturb_no_request(void **state) {
    repository_fixture *f = *state;
    requester requesters[N_REQUESTERS];
    pthread_t threads[N_REQUESTERS];
    atomic_bool stop;
    atomic_init(&stop, false);
    for (uint64_t version = 1; version <= N_SWAPS + 1; version++) tiny_expected(version, expected[version]);
    assert_memory_not_equal(expected[1], expected[2], sizeof expected[1]);
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    for (uint32_t i = 0; i < N_REQUESTERS; i++) {
        requesters[i] = (requester){.f = f, .worker = i, .stop = &stop};
        assert_int_equal(
            hr_thread_start(&threads[i], "requester", request_until_stopped, &requesters[i], NULL), HR_OK);
    }
    for (uint64_t version = 2; version <= N_SWAPS + 1; version++) {
        bool broken = version % 3 == 0;
        if (broken)
            add_broken_version(f, "home", version);
        else
            add_version(f, "home", version);
        expect_change(f, HR_REPOSITORY_LOAD, "home", version, NULL, broken ? HR_FAILED_PRECONDITION : HR_OK,
                      "model.safetensors: tensor tower.click.0.bias");
        wait_for_answers(requesters, N_REQUESTERS);
    }
    atomic_store(&stop, true);
    for (uint32_t i = 0; i < N_REQUESTERS; i++) pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < N_REQUESTERS; i++) {
        assert_int_equal(requesters[i].n_failed, 0);
        assert_int_equal(requesters[i].n_wrong, 0);
        assert_int_equal(requesters[i].n_back, 0);
        assert_int_equal(requesters[i].newest, N_SWAPS + 1);
    }
}

/* Where a model is destroyed, and with which niceness. */
static atomic_int destroyed_by, destroyed_nice;

static void note_thread(void *attachment) {
    (void)attachment;
    atomic_store(&destroyed_nice, getpriority(PRIO_PROCESS, (id_t)gettid()));
    atomic_store(&destroyed_by, gettid());
}

static hr_status attach_note(hr_model *model, const char *dir, void *arg, hr_error *err) {
    (void)dir, (void)arg, (void)err;
    hr_model_attach(model, NULL, note_thread);
    return HR_OK;
}

static void the_last_request_does_not_free_the_model(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    hr_model *model;
    hr_error err;
    options.prepare = attach_note;
    add_version(f, "home", 1);
    repository_fixture_open(f, &options);
    assert_int_equal(hr_repository_acquire(f->repository, "home", &model, &err), HR_OK);
    add_version(f, "home", 2);
    expect_change(f, HR_REPOSITORY_LOAD, "home", 0, NULL, HR_OK, "");
    assert_int_equal(see_version(f, "home", 1).state, HR_VERSION_UNLOADING);
    assert_int_equal(atomic_load(&destroyed_by), 0);
    hr_model_unref(model);
    wait_for_state(f, "home", 1, HR_VERSION_AVAILABLE);
    assert_int_not_equal(atomic_load(&destroyed_by), 0);
    assert_int_not_equal(atomic_load(&destroyed_by), gettid());
    assert_int_equal(atomic_load(&destroyed_nice), 19);
}

static void the_folders_are_polled(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    options.poll_ms = 1;
    add_version(f, "home", 1);
    repository_fixture_open(f, &options);
    for (uint64_t version = 2; version <= 6; version++) {
        add_version(f, "home", version);
        wait_for_state(f, "home", version, HR_VERSION_SERVING);
        wait_for_state(f, "home", version - 1, HR_VERSION_AVAILABLE);
    }
    write_text(f, "home/labels.json", "{\"stable\": 2}");
    wait_for_state(f, "home", 2, HR_VERSION_SERVING);
    add_broken_version(f, "home", 7);
    wait_for_state(f, "home", 7, HR_VERSION_FAILED);
    expect_acquired(f, "home", "home@6");
    expect_acquired(f, "home:stable", "home@2");
}

static atomic_int n_tries;

/* As if memory were short at first. */
static hr_status fail_once(hr_model *model, const char *dir, void *arg, hr_error *err) {
    (void)dir, (void)arg;
    if (hr_model_version(model) == 2 && atomic_fetch_add(&n_tries, 1) == 0)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory");
    return HR_OK;
}

static void what_is_not_the_files_fault_is_tried_again(void **state) {
    repository_fixture *f = *state;
    hr_repository_options options = repository_fixture_options;
    options.poll_ms = 5;
    options.prepare = fail_once;
    add_version(f, "home", 1);
    repository_fixture_open(f, &options);
    add_version(f, "home", 2);
    wait_for_state(f, "home", 2, HR_VERSION_FAILED);
    assert_string_equal(see_version(f, "home", 2).reason, "model home@2: no memory");
    wait_for_state(f, "home", 2, HR_VERSION_SERVING);
    assert_int_equal(atomic_load(&n_tries), 2);
}

static void count(const hr_model *model, void *arg) {
    (void)model;
    ++*(unsigned *)arg;
}

static void *visit_until_stopped(void *arg) {
    requester *r = arg;
    while (!atomic_load(r->stop)) {
        unsigned n = 0;
        r->n_wrong += !see_version(r->f, "home", 1).known;
        hr_repository_visit(r->f->repository, count, &n);
        r->n_wrong += n < 1 || n > 2;
        atomic_fetch_add(&r->n_answers, 1);
    }
    return NULL;
}

static void status_may_be_asked_for_at_any_time(void **state) {
    repository_fixture *f = *state;
    pthread_t thread;
    atomic_bool stop;
    atomic_init(&stop, false);
    add_version(f, "home", 1);
    repository_fixture_open(f, &repository_fixture_options);
    requester r = {.f = f, .stop = &stop};
    assert_int_equal(hr_thread_start(&thread, "asker", visit_until_stopped, &r, NULL), HR_OK);
    for (uint64_t version = 2; version <= 10; version++) {
        add_version(f, "home", version);
        expect_change(f, HR_REPOSITORY_LOAD, "home", version, NULL, HR_OK, "");
        wait_for_answers(&r, 1);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(r.n_wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        REPOSITORY_TEST(swaps_disturb_no_request),
        REPOSITORY_TEST(the_last_request_does_not_free_the_model),
        REPOSITORY_TEST(the_folders_are_polled),
        REPOSITORY_TEST(what_is_not_the_files_fault_is_tried_again),
        REPOSITORY_TEST(status_may_be_asked_for_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
