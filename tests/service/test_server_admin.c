/* homerank.v1.Admin over its own listener, as grpcurl would use it. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/thread.h"
#include "proto/admin.pb-c.h"
#include "proto/health.pb-c.h"
#include "proto/reflection.pb-c.h"
#include "service/server.h"
#include "tests/model/repository_fixture.h"
#include "tests/service/rpc_peer.h"

enum {
    OK,
    INVALID_ARGUMENT = 3,
    DEADLINE_EXCEEDED,
    NOT_FOUND,
    FAILED_PRECONDITION = 9,
    UNIMPLEMENTED = 12,
    UNAVAILABLE = 14
};

#define PATH(method) "/homerank.v1.Admin/" method

static const hr_server_options server_options = {
    .listen = "127.0.0.1:0",
    .n_pollers = 1,
    .max_message_nbytes = 64 << 10,
    .max_open_calls = 8,
    .max_call_nbytes = 1 << 20,
    .max_open_nbytes = 1 << 20,
    .grace_ms = 30000,
};

/* Holds version 9 while it is being prepared. */
static sem_t gate_reached, gate_open;

static hr_status wait_at_gate(hr_model *model, const char *dir, void *arg, hr_error *err) {
    (void)dir, (void)arg, (void)err;
    if (hr_model_version(model) != 9) return HR_OK;
    sem_post(&gate_reached);
    while (sem_wait(&gate_open) != 0) continue;
    return HR_OK;
}

typedef struct admin {
    repository_fixture *f;
    hr_server *server; /* NULL once shut down */
    peer *client;
} admin;

/* home@1 and home@2 (stable), mmoe@1; the policy latest. */
static int start_admin(void **state) {
    admin *a = calloc(1, sizeof *a);
    hr_repository_options options = repository_fixture_options;
    hr_error err;
    sem_init(&gate_reached, 0, 0);
    sem_init(&gate_open, 0, 0);
    options.default_model = "home";
    options.prepare = wait_at_gate;
    repository_fixture_setup((void **)&a->f);
    add_version(a->f, "home", 1);
    add_version(a->f, "home", 2);
    add_version(a->f, "mmoe", 1);
    write_text(a->f, "home/labels.json", "{\"stable\": 2}");
    repository_fixture_open(a->f, &options);
    if (hr_server_start_admin(&server_options, a->f->repository, &a->server, &err) != HR_OK)
        fail_msg("%s", err.message);
    a->client = peer_connect(hr_server_port(a->server));
    *state = a;
    return 0;
}

static int stop_admin(void **state) {
    admin *a = *state;
    sem_post(&gate_open);
    peer_close(a->client);
    if (a->server != NULL) hr_server_shutdown(a->server);
    repository_fixture_teardown((void **)&a->f);
    free(a);
    return 0;
}

/* ---- Calls ---- */

static Homerank__V1__VersionStatus *load(admin *a, const char *name, uint64_t version, int code,
                                         const char *says) {
    Homerank__V1__LoadModelRequest request = HOMERANK__V1__LOAD_MODEL_REQUEST__INIT;
    void *answer = NULL;
    char text[512];
    request.model = (char *)name;
    request.version = version;
    int found = peer_unary(a->client, PATH("LoadModel"), &request.base,
                           &homerank__v1__load_model_response__descriptor, &answer, text);
    if (found != code || strstr(text, says) == NULL)
        fail_msg("expected %d \"%s\", found %d \"%s\"", code, says, found, text);
    if (answer == NULL) return NULL;
    Homerank__V1__VersionStatus *status = ((Homerank__V1__LoadModelResponse *)answer)->status;
    ((Homerank__V1__LoadModelResponse *)answer)->status = NULL;
    protobuf_c_message_free_unpacked(answer, NULL);
    return status;
}

static void unload(admin *a, const char *name, uint64_t version, int code, const char *says) {
    Homerank__V1__UnloadModelRequest request = HOMERANK__V1__UNLOAD_MODEL_REQUEST__INIT;
    void *answer = NULL;
    char text[512];
    request.model = (char *)name;
    request.version = version;
    int found = peer_unary(a->client, PATH("UnloadModel"), &request.base,
                           &homerank__v1__unload_model_response__descriptor, &answer, text);
    if (found != code || strstr(text, says) == NULL)
        fail_msg("expected %d \"%s\", found %d \"%s\"", code, says, found, text);
    if (answer != NULL) protobuf_c_message_free_unpacked(answer, NULL);
}

static Homerank__V1__SetLabelResponse *label(admin *a, const char *name, const char *label_name,
                                             uint64_t version, int code, const char *says) {
    Homerank__V1__SetLabelRequest request = HOMERANK__V1__SET_LABEL_REQUEST__INIT;
    void *answer = NULL;
    char text[512];
    request.model = (char *)name;
    request.label = (char *)label_name;
    request.version = version;
    int found = peer_unary(a->client, PATH("SetLabel"), &request.base,
                           &homerank__v1__set_label_response__descriptor, &answer, text);
    if (found != code || strstr(text, says) == NULL)
        fail_msg("expected %d \"%s\", found %d \"%s\"", code, says, found, text);
    return answer;
}

static Homerank__V1__GetStatusResponse *status_of(admin *a, const char *name, uint64_t version, int code) {
    Homerank__V1__GetStatusRequest request = HOMERANK__V1__GET_STATUS_REQUEST__INIT;
    void *answer = NULL;
    request.model = (char *)name;
    request.version = version;
    assert_int_equal(peer_unary(a->client, PATH("GetStatus"), &request.base,
                                &homerank__v1__get_status_response__descriptor, &answer, NULL),
                     code);
    return answer;
}

/* ---- Tests ---- */

static void models_are_listed_with_versions_and_labels(void **state) {
    admin *a = *state;
    Homerank__V1__ListModelsRequest request = HOMERANK__V1__LIST_MODELS_REQUEST__INIT;
    Homerank__V1__ListModelsResponse *list = NULL;
    for (uint64_t version = 3; version <= 8; version++) { /* kept beside the newest */
        add_version(a->f, "home", version);
        Homerank__V1__VersionStatus *loaded = load(a, "home", version, OK, "");
        homerank__v1__version_status__free_unpacked(loaded, NULL);
        protobuf_c_message_free_unpacked(
            &label(a, "home", version % 2 ? "odd" : "even", version, OK, "")->base, NULL);
    }
    assert_int_equal(peer_unary(a->client, PATH("ListModels"), &request.base,
                                &homerank__v1__list_models_response__descriptor, (void **)&list, NULL),
                     OK);
    assert_string_equal(list->default_model, "home");
    assert_int_equal(list->n_models, 2);
    const Homerank__V1__ServedModel *home = list->models[0];
    assert_string_equal(home->name, "home");
    assert_int_equal(home->n_versions, 3);
    assert_int_equal(home->versions[0], 8);
    assert_int_equal(home->versions[1], 7);
    assert_int_equal(home->versions[2], 2);
    assert_int_equal(home->n_labels, 3);
    assert_string_equal(home->labels[0]->name, "stable");
    assert_int_equal(home->labels[0]->version, 2);
    assert_int_equal(home->labels[0]->served, 2);
    assert_string_equal(home->labels[1]->name, "odd");
    assert_int_equal(home->labels[1]->served, 7);
    assert_string_equal(list->models[1]->name, "mmoe");
    assert_int_equal(list->models[1]->n_labels, 0);
    homerank__v1__list_models_response__free_unpacked(list, NULL);
}

static void a_load_answers_with_the_state_of_its_version(void **state) {
    admin *a = *state;
    add_version(a->f, "mmoe", 7);
    Homerank__V1__VersionStatus *loaded = load(a, "mmoe", 0, OK, "");
    assert_string_equal(loaded->model, "mmoe");
    assert_int_equal(loaded->version, 7);
    assert_int_equal(loaded->state, HOMERANK__V1__VERSION_STATE__VERSION_SERVING);
    assert_string_equal(loaded->reason, "");
    assert_non_null(strstr(loaded->backend, "reference"));
    assert_true(loaded->loaded_unix_ms > UINT64_C(1600000000000));
    homerank__v1__version_status__free_unpacked(loaded, NULL);
    expect_acquired(a->f, "mmoe", "mmoe@7");
    load(a, "mmoe", 8, NOT_FOUND, "model \"mmoe\"@8 is not in the repository");
    load(a, "", 0, NOT_FOUND, "model \"\" is not in the repository");
    unload(a, "mmoe", 7, OK, "");
    unload(a, "mmoe", 7, NOT_FOUND, "model \"mmoe\"@7 is not served");
}

static void a_refused_version_is_in_the_status_with_its_reason(void **state) {
    admin *a = *state;
    add_broken_version(a->f, "home", 3);
    load(a, "home", 3, FAILED_PRECONDITION, "model home@3: model.safetensors: tensor tower.click.0.bias");
    Homerank__V1__GetStatusResponse *all = status_of(a, "", 0, OK);
    assert_int_equal(all->n_versions, 4);
    const Homerank__V1__VersionStatus *failed = all->versions[0], *serving = all->versions[1];
    assert_int_equal(failed->version, 3);
    assert_int_equal(failed->state, HOMERANK__V1__VERSION_STATE__VERSION_FAILED);
    assert_non_null(strstr(failed->reason, "tensor tower.click.0.bias: expected [2], found none"));
    assert_int_equal(failed->loaded_unix_ms, 0);
    assert_int_equal(serving->version, 2);
    assert_int_equal(serving->state, HOMERANK__V1__VERSION_STATE__VERSION_SERVING);
    assert_int_equal(serving->n_labels, 1);
    assert_string_equal(serving->labels[0], "stable");
    assert_int_equal(all->versions[2]->state, HOMERANK__V1__VERSION_STATE__VERSION_AVAILABLE);
    assert_string_equal(all->versions[3]->model, "mmoe");
    assert_int_equal(all->n_errors, 0);
    assert_string_equal(all->repository_error, "");
    homerank__v1__get_status_response__free_unpacked(all, NULL);

    Homerank__V1__GetStatusResponse *one = status_of(a, "home", 1, OK);
    assert_int_equal(one->n_versions, 1);
    homerank__v1__get_status_response__free_unpacked(one, NULL);
    assert_null(status_of(a, "home", 77, NOT_FOUND));
    assert_null(status_of(a, "nobody", 0, NOT_FOUND));
}

static void labels_that_cannot_be_read_are_in_the_status(void **state) {
    admin *a = *state;
    write_text(a->f, "home/labels.json", "{\"stable\": \"two\"}");
    label(a, "home", "canary", 2, FAILED_PRECONDITION, "mend or remove the file first: labels.json: stable");
    Homerank__V1__GetStatusResponse *all = status_of(a, "", 0, OK);
    assert_int_equal(all->n_errors, 1);
    assert_string_equal(all->errors[0]->model, "home");
    assert_non_null(strstr(all->errors[0]->reason, "labels.json: stable: expected a version"));
    homerank__v1__get_status_response__free_unpacked(all, NULL);
}

static void refusals_are_statuses(void **state) {
    admin *a = *state;
    unload(a, "home", 2, FAILED_PRECONDITION, "home@2 is labelled stable");
    label(a, "home", "stable", 1, FAILED_PRECONDITION, "home@1 is not served: load it first");
    label(a, "home", "no good", 2, INVALID_ARGUMENT, "expected a label");
    Homerank__V1__SetLabelResponse *labels = label(a, "home", "stable", 0, OK, "");
    assert_int_equal(labels->n_labels, 0);
    homerank__v1__set_label_response__free_unpacked(labels, NULL);
    unload(a, "home", 2, FAILED_PRECONDITION, "no version of the default model home would be left");
    unload(a, "mmoe", 0, OK, "");
}

static void hostile_bytes_are_refused(void **state) {
    admin *a = *state;
    static const struct {
        const char *bytes;
        size_t nbytes;
    } rows[] = {{"\x0a\xff", 2},
                {"\x0a\x02\xff\xfe", 4},
                {"\x0a\x03"
                 "a\0b",
                 5},
                {"\xff\xff\xff", 3}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[512];
        peer_call *call = peer_open(a->client, PATH("LoadModel"), 0);
        peer_send(call, rows[i].bytes, rows[i].nbytes);
        peer_half_close(call);
        assert_int_equal(peer_finish(call, text), INVALID_ARGUMENT);
    }
    char text[512];
    peer_call *empty = peer_open(a->client, PATH("LoadModel"), 0);
    peer_half_close(empty);
    assert_int_equal(peer_finish(empty, text), UNIMPLEMENTED);
}

static peer_call *begin_load(admin *a, uint32_t timeout_ms) {
    Homerank__V1__LoadModelRequest request = HOMERANK__V1__LOAD_MODEL_REQUEST__INIT;
    request.model = (char *)"home";
    request.version = 9;
    peer_call *call = peer_open(a->client, PATH("LoadModel"), timeout_ms);
    peer_send_message(call, &request.base);
    peer_half_close(call);
    return call;
}

/* The load goes on when its caller's time is over, and holds up nobody else meanwhile. */
static void a_load_is_waited_for_no_longer_than_the_deadline(void **state) {
    admin *a = *state;
    add_version(a->f, "home", 9);
    peer_call *call = begin_load(a, 300);
    while (sem_wait(&gate_reached) != 0) continue;
    Homerank__V1__GetStatusResponse *one = status_of(a, "home", 9, OK);
    assert_int_equal(one->versions[0]->state, HOMERANK__V1__VERSION_STATE__VERSION_LOADING);
    homerank__v1__get_status_response__free_unpacked(one, NULL);
    assert_int_equal(peer_finish(call, NULL), DEADLINE_EXCEEDED);
    sem_post(&gate_open);
    wait_for_state(a->f, "home", 9, HR_VERSION_SERVING);
}

static void *shut_down(void *server) {
    hr_server_shutdown(server);
    return NULL;
}

/* As `serve` ends: a load under way keeps nobody from it. */
static void a_shutdown_answers_who_waits_for_a_load(void **state) {
    admin *a = *state;
    char text[512];
    pthread_t thread;
    add_version(a->f, "home", 9);
    peer_call *call = begin_load(a, 0);
    while (sem_wait(&gate_reached) != 0) continue;
    hr_repository_drain(a->f->repository);
    load(a, "home", 1, UNAVAILABLE, "the server is shutting down");
    homerank__v1__get_status_response__free_unpacked(status_of(a, "home", 9, OK), NULL);
    assert_int_equal(hr_thread_start(&thread, "shutdown", shut_down, a->server, NULL), HR_OK);
    assert_int_equal(peer_finish(call, text), UNAVAILABLE);
    assert_string_equal(text, "the server is shutting down");
    pthread_join(thread, NULL);
    a->server = NULL;
    expect_acquired(a->f, "home", "home@2");
}

static void only_the_admins_services_are_here(void **state) {
    admin *a = *state;
    Grpc__Health__V1__HealthCheckRequest check = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    void *answer = NULL;
    check.service = (char *)"homerank.v1.Admin";
    assert_int_equal(peer_unary(a->client, "/grpc.health.v1.Health/Check", &check.base,
                                &grpc__health__v1__health_check_response__descriptor, &answer, NULL),
                     OK);
    protobuf_c_message_free_unpacked(answer, NULL);
    check.service = (char *)"homerank.v1.Ranker";
    assert_int_equal(peer_unary(a->client, "/grpc.health.v1.Health/Check", &check.base,
                                &grpc__health__v1__health_check_response__descriptor, &answer, NULL),
                     NOT_FOUND);
    char text[512];
    peer_call *rank = peer_open(a->client, "/homerank.v1.Ranker/Rank", 0);
    peer_half_close(rank);
    assert_int_equal(peer_finish(rank, text), UNIMPLEMENTED);

    static const char *const expected[] = {"homerank.v1.Admin", "grpc.health.v1.Health",
                                           "grpc.reflection.v1alpha.ServerReflection"};
    Grpc__Reflection__V1alpha__ServerReflectionRequest request =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__INIT;
    request.message_request_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
    request.list_services = (char *)"*";
    peer_call *call =
        peer_open(a->client, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", 0);
    peer_send_message(call, &request.base);
    Grpc__Reflection__V1alpha__ServerReflectionResponse *services =
        peer_receive(call, &grpc__reflection__v1alpha__server_reflection_response__descriptor);
    assert_int_equal(services->list_services_response->n_service, 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(services->list_services_response->service[i]->name, expected[i]);
    protobuf_c_message_free_unpacked(&services->base, NULL);
    peer_half_close(call);
    assert_int_equal(peer_finish(call, NULL), OK);
}

#define ADMIN_TEST(test) cmocka_unit_test_setup_teardown(test, start_admin, stop_admin)

int main(void) {
    const struct CMUnitTest tests[] = {
        ADMIN_TEST(models_are_listed_with_versions_and_labels),
        ADMIN_TEST(a_load_answers_with_the_state_of_its_version),
        ADMIN_TEST(a_refused_version_is_in_the_status_with_its_reason),
        ADMIN_TEST(labels_that_cannot_be_read_are_in_the_status),
        ADMIN_TEST(refusals_are_statuses),
        ADMIN_TEST(hostile_bytes_are_refused),
        ADMIN_TEST(a_load_is_waited_for_no_longer_than_the_deadline),
        ADMIN_TEST(a_shutdown_answers_who_waits_for_a_load),
        ADMIN_TEST(only_the_admins_services_are_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
