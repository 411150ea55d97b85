/* Repositories of tiny models: see repository_fixture.h. */
#include "tests/model/repository_fixture.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tests/model/model_folder.h"

enum { WAIT_S = 60 };

const hr_repository_options repository_fixture_options = {
    .model = {.backend = "reference", .n_workers = 4},
    .warm_rows = 3,
};

int repository_fixture_setup(void **state) {
    repository_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    test_folder_make(f->root, sizeof f->root);
    *state = f;
    return 0;
}

int repository_fixture_teardown(void **state) {
    repository_fixture *f = *state;
    hr_repository_close(f->repository);
    test_folder_remove(f->root);
    free(f);
    return 0;
}

void repository_fixture_open(repository_fixture *f, const hr_repository_options *options) {
    hr_error err;
    if (hr_repository_open(f->root, options, &f->repository, &err) != HR_OK) fail_msg("%s", err.message);
}

void repository_fixture_reopen(repository_fixture *f, const hr_repository_options *options) {
    hr_repository_close(f->repository);
    f->repository = NULL;
    repository_fixture_open(f, options);
}

/* ---- Files ---- */

static void write_tensors(const char *dir, uint64_t version, bool whole) {
    test_tensors tensors = {0};
    test_tiny_tensors(&tensors, "batch");
    test_tensors_find(&tensors, "tower.time.0.bias")->values[0] = (float)version;
    if (!whole) test_tensors_remove(&tensors, "tower.click.0.bias");
    test_write_tensors(dir, &tensors);
    test_tensors_clear(&tensors);
}

static void add(const repository_fixture *f, const char *name, uint64_t version, bool whole) {
    char hidden[300], made[600], wanted[600];
    snprintf(made, sizeof made, "%s/%s", f->root, name);
    mkdir(made, 0755);
    snprintf(hidden, sizeof hidden, ".new-%llu", (unsigned long long)version);
    test_folder_sub(made, hidden);
    snprintf(made, sizeof made, "%s/%s/%s", f->root, name, hidden);
    test_write_config(made, test_tiny_config);
    write_tensors(made, version, whole);
    snprintf(wanted, sizeof wanted, "%s/%s/%llu", f->root, name, (unsigned long long)version);
    test_folder_remove(wanted);
    assert_int_equal(rename(made, wanted), 0);
}

void add_version(const repository_fixture *f, const char *name, uint64_t version) {
    add(f, name, version, true);
}

void add_broken_version(const repository_fixture *f, const char *name, uint64_t version) {
    add(f, name, version, false);
}

void remove_version(const repository_fixture *f, const char *name, uint64_t version) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s/%llu", f->root, name, (unsigned long long)version);
    test_folder_remove(path);
}

void write_text(const repository_fixture *f, const char *path, const char *text) {
    char temporary[600], wanted[600];
    snprintf(temporary, sizeof temporary, "%s/.text", f->root);
    snprintf(wanted, sizeof wanted, "%s/%s", f->root, path);
    test_write_bytes(f->root, ".text", text, strlen(text));
    assert_int_equal(rename(temporary, wanted), 0);
}

char *read_text(const repository_fixture *f, const char *path) {
    char full[600];
    snprintf(full, sizeof full, "%s/%s", f->root, path);
    FILE *file = fopen(full, "rb");
    assert_non_null(file);
    char *text = calloc(1, 4096);
    assert_true(fread(text, 1, 4095, file) < 4095);
    fclose(file);
    return text;
}

/* ---- Questions ---- */

void expect_acquired(const repository_fixture *f, const char *spec, const char *label) {
    hr_model *model;
    hr_error err = {0};
    if (hr_repository_acquire(f->repository, spec, &model, &err) != HR_OK)
        fail_msg("%s: %s", spec, err.message);
    assert_string_equal(hr_model_label(model), label);
    hr_model_unref(model);
}

void expect_refused(const repository_fixture *f, const char *spec, hr_status status, const char *message) {
    hr_model *model;
    hr_error err = {0};
    hr_status found = hr_repository_acquire(f->repository, spec, &model, &err);
    if (found != status || strstr(err.message, message) == NULL)
        fail_msg("%s: expected %d \"%s\", found %d \"%s\"", spec, status, message, found, err.message);
    assert_null(model);
}

typedef struct question {
    const char *name;
    uint64_t version;
    version_seen *seen;
} question;

static void look_for(const hr_model_status *model, const hr_version_status *version, void *arg) {
    const question *q = arg;
    if (strcmp(model->name, q->name) != 0 || version->version != q->version) return;
    q->seen->known = true;
    q->seen->state = version->state;
    snprintf(q->seen->reason, sizeof q->seen->reason, "%s", version->reason);
    snprintf(q->seen->model_error, sizeof q->seen->model_error, "%s", model->error);
    assert_int_equal(version->model != NULL, version->state == HR_VERSION_SERVING);
}

version_seen see_version(const repository_fixture *f, const char *name, uint64_t version) {
    version_seen seen = {.state = HR_VERSION_AVAILABLE};
    char error[HR_ERROR_MESSAGE_SIZE];
    hr_repository_status(f->repository, look_for, &(question){name, version, &seen}, error);
    return seen;
}

void wait_for_state(const repository_fixture *f, const char *name, uint64_t version, hr_version_state state) {
    const struct timespec pause = {.tv_nsec = 1000000};
    const uint64_t until_ns = hr_clock_ns() + WAIT_S * UINT64_C(1000000000);
    version_seen seen;
    do {
        seen = see_version(f, name, version);
        if (seen.known && seen.state == state) return;
        nanosleep(&pause, NULL);
    } while (hr_clock_ns() < until_ns);
    fail_msg("%s@%llu is %s, not %s: %s", name, (unsigned long long)version,
             hr_version_state_text(seen.state), hr_version_state_text(state), seen.reason);
}

/* ---- Changes ---- */

static void post(hr_repository_call *call) {
    sem_post(call->arg);
}

hr_status change(const repository_fixture *f, hr_repository_action action, const char *name, uint64_t version,
                 const char *label, uint64_t *resolved, hr_error *err) {
    sem_t finished;
    sem_init(&finished, 0, 0);
    hr_repository_call call = {
        .action = action, .name = name, .version = version, .label = label, .done = post, .arg = &finished};
    hr_repository_submit(f->repository, &call);
    while (sem_wait(&finished) != 0) continue;
    sem_destroy(&finished);
    if (resolved != NULL) *resolved = call.resolved;
    if (err != NULL) *err = call.error;
    return call.error.code;
}

void expect_change(const repository_fixture *f, hr_repository_action action, const char *name,
                   uint64_t version, const char *label, hr_status status, const char *message) {
    hr_error err = {0};
    hr_status found = change(f, action, name, version, label, NULL, &err);
    if (found != status || (status != HR_OK && strstr(err.message, message) == NULL))
        fail_msg("expected %d \"%s\", found %d \"%s\"", status, message, found, err.message);
}

/* A call that changes nothing, but looks before it finds so. */
void look_once(const repository_fixture *f) {
    expect_change(f, HR_REPOSITORY_LOAD, "no-such-model", 0, NULL, HR_NOT_FOUND, "no-such-model");
}

void look(const repository_fixture *f) {
    look_once(f);
    look_once(f);
}

/* ---- Models ---- */

void tiny_logits(const hr_model *model, uint32_t worker, float logits[2]) {
    const uint32_t user[1] = {0}, context[1] = {0};
    const float items[1] = {0};
    const hr_slice slice = {.user = user, .context = context, .items = items, .n_rows = 1, .logits = logits};
    hr_error err;
    if (hr_model_forward(model, worker, &slice, 1, &err) != HR_OK) fail_msg("%s", err.message);
}

void tiny_expected(uint64_t version, float logits[2]) {
    char dir[256];
    hr_model *model;
    hr_error err;
    test_folder_make(dir, sizeof dir);
    test_write_config(dir, test_tiny_config);
    write_tensors(dir, version, true);
    if (hr_model_load(dir, "m", version, &repository_fixture_options.model, &model, &err) != HR_OK)
        fail_msg("%s", err.message);
    tiny_logits(model, 0, logits);
    hr_model_unref(model);
    test_folder_remove(dir);
}
