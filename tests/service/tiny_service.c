/* The tiny model as a service: see tiny_service.h. */
#include "tests/service/tiny_service.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "proto/json.h"
#include "service/servable.h"
#include "tests/model/model_folder.h"

const hr_pipeline_options tiny_pipeline_options = {
    .n_workers = 2,
    .max_items = 100,
    .max_id_nbytes = 16,
    .max_queued_calls = 8,
    .max_queued_items = 200,
};

static void check(hr_status status, const hr_error *err) {
    if (status != HR_OK) fail_msg("%s", err->message);
}

static void write_model(tiny_service *s, const char *config) {
    test_tensors tensors = {0};
    char model[300];
    test_folder_make(s->root, sizeof s->root);
    test_folder_sub(s->root, "tiny");
    snprintf(model, sizeof model, "%s/tiny", s->root);
    test_folder_sub(model, "1");
    snprintf(s->folder, sizeof s->folder, "%s/1", model);
    test_tiny_tensors(&tensors, "batch");
    test_write_config(s->folder, config);
    test_write_tensors(s->folder, &tensors);
    test_tensors_clear(&tensors);
}

int tiny_service_setup(void **state) {
    return tiny_service_setup_with(state, test_tiny_config);
}

int tiny_service_setup_with(void **state, const char *config) {
    tiny_service *s = calloc(1, sizeof *s);
    assert_non_null(s);
    write_model(s, config);
    const hr_repository_options repository = {
        .model = {.backend = "reference", .n_workers = tiny_pipeline_options.n_workers},
        .prepare = hr_servable_prepare,
    };
    hr_error err;
    check(hr_store_open("none:", &hr_store_defaults, &s->store, &err), &err);
    check(hr_repository_open(s->root, &repository, &s->repository, &err), &err);
    check(hr_pipeline_create(&tiny_pipeline_options, s->repository, s->store, &s->pipeline, &err), &err);
    *state = s;
    return 0;
}

int tiny_service_teardown(void **state) {
    tiny_service *s = *state;
    hr_pipeline_destroy(s->pipeline);
    hr_repository_close(s->repository);
    hr_store_close(s->store);
    test_folder_remove(s->root);
    free(s);
    return 0;
}

Homerank__V1__RankRequest *tiny_request(hr_arena *arena, const char *json) {
    hr_error err;
    json_t *value = NULL;
    Homerank__V1__RankRequest *request = NULL;
    check(hr_json_parse(json, strlen(json), &value, &err), &err);
    check(hr_json_to_request(value, arena, &request, &err), &err);
    json_decref(value);
    return request;
}

static void post(hr_rank_call *call) {
    sem_post(call->arg);
}

hr_status tiny_rank(hr_pipeline *pipeline, const Homerank__V1__RankRequest *request, hr_arena *arena,
                    hr_rank_call *call) {
    sem_t finished;
    sem_init(&finished, 0, 0);
    call->request = request;
    call->arena = arena;
    call->received_ns = hr_clock_ns();
    call->done = post;
    call->arg = &finished;
    hr_pipeline_submit(pipeline, call);
    while (sem_wait(&finished) != 0) continue;
    sem_destroy(&finished);
    return call->error.code;
}
