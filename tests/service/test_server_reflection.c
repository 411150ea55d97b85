/* grpc.reflection.v1alpha.ServerReflection, as grpcurl uses it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "proto/reflection.pb-c.h"
#include "tests/service/server_fixture.h"

#define PATH         "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
#define ASKS(name)   GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define NOT_SET_CASE GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET
#define SAYS(name)   GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

typedef Grpc__Reflection__V1alpha__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1alpha__ServerReflectionResponse reflection_response;

enum { OK, INVALID_ARGUMENT = 3, NOT_FOUND = 5 };

static reflection_response *ask(peer_call *call, reflection_request request) {
    peer_send_message(call, &request.base);
    reflection_response *answer =
        peer_receive(call, &grpc__reflection__v1alpha__server_reflection_response__descriptor);
    assert_non_null(answer);
    assert_int_equal(answer->original_request->message_request_case, request.message_request_case);
    return answer;
}

static reflection_request by_text(int asked, const char *text) {
    reflection_request request = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__INIT;
    request.message_request_case = asked;
    request.list_services = (char *)text; /* the texts share the union */
    return request;
}

static void finish_stream(peer_call *call) {
    peer_half_close(call);
    assert_int_equal(peer_finish(call, NULL), OK);
}

/* Asserts that the answer is one file of that name, and returns it parsed. */
static Google__Protobuf__FileDescriptorProto *file_of(reflection_response *answer, const char *name) {
    assert_int_equal(answer->message_response_case, SAYS(FILE_DESCRIPTOR_RESPONSE));
    assert_int_equal(answer->file_descriptor_response->n_file_descriptor_proto, 1);
    const ProtobufCBinaryData *bytes = &answer->file_descriptor_response->file_descriptor_proto[0];
    Google__Protobuf__FileDescriptorProto *file =
        google__protobuf__file_descriptor_proto__unpack(NULL, bytes->len, bytes->data);
    assert_non_null(file);
    assert_string_equal(file->name, name);
    protobuf_c_message_free_unpacked(&answer->base, NULL);
    return file;
}

static void expect_error(reflection_response *answer, int code, const char *part) {
    assert_int_equal(answer->message_response_case, SAYS(ERROR_RESPONSE));
    assert_int_equal(answer->error_response->error_code, code);
    assert_non_null(strstr(answer->error_response->error_message, part));
    protobuf_c_message_free_unpacked(&answer->base, NULL);
}

static void the_services_are_listed(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    static const char *const expected[] = {"grpc.health.v1.Health", "homerank.v1.Ranker",
                                           "grpc.reflection.v1alpha.ServerReflection"};
    peer_call *call = peer_open(f->client, PATH, 0);
    reflection_response *answer = ask(call, by_text(ASKS(LIST_SERVICES), "*"));
    assert_int_equal(answer->message_response_case, SAYS(LIST_SERVICES_RESPONSE));
    assert_int_equal(answer->list_services_response->n_service, 3);
    for (size_t e = 0; e < 3; e++) {
        bool found = false;
        for (size_t i = 0; i < 3; i++)
            found = found || strcmp(answer->list_services_response->service[i]->name, expected[e]) == 0;
        assert_true(found);
    }
    protobuf_c_message_free_unpacked(&answer->base, NULL);
    finish_stream(call);
}

static void a_symbols_file_describes_the_contract(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    static const char *const symbols[] = {"homerank.v1.Ranker", "homerank.v1.Ranker.RankStream",
                                          "homerank.v1.RankRequest", "homerank.v1.RankRequest.user_id",
                                          "homerank.v1.RankRequest.ContextEntry"};
    peer_call *call = peer_open(f->client, PATH, 0);
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        Google__Protobuf__FileDescriptorProto *file =
            file_of(ask(call, by_text(ASKS(FILE_CONTAINING_SYMBOL), symbols[i])), "proto/homerank.proto");
        assert_string_equal(file->package, "homerank.v1");
        assert_int_equal(file->n_service, 1);
        assert_int_equal(file->service[0]->n_method, 2);
        assert_true(file->service[0]->method[1]->client_streaming);
        google__protobuf__file_descriptor_proto__free_unpacked(file, NULL);
    }
    Google__Protobuf__FileDescriptorProto *health = file_of(
        ask(call, by_text(ASKS(FILE_CONTAINING_SYMBOL), "grpc.health.v1.HealthCheckResponse.ServingStatus")),
        "proto/health.proto");
    google__protobuf__file_descriptor_proto__free_unpacked(health, NULL);
    finish_stream(call);
}

static void a_file_is_found_by_its_name(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = peer_open(f->client, PATH, 0);
    Google__Protobuf__FileDescriptorProto *file = file_of(
        ask(call, by_text(ASKS(FILE_BY_FILENAME), "proto/reflection.proto")), "proto/reflection.proto");
    google__protobuf__file_descriptor_proto__free_unpacked(file, NULL);
    finish_stream(call);
}

static void what_is_not_there_is_an_error_response_and_the_stream_goes_on(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = peer_open(f->client, PATH, 0);
    expect_error(ask(call, by_text(ASKS(FILE_CONTAINING_SYMBOL), "homerank.v1.Rank")), NOT_FOUND,
                 "homerank.v1.Rank");
    expect_error(ask(call, by_text(ASKS(FILE_CONTAINING_SYMBOL), "")), NOT_FOUND, "no such symbol");
    expect_error(ask(call, by_text(ASKS(FILE_BY_FILENAME), "../etc/passwd")), NOT_FOUND, "no such file");
    expect_error(ask(call, by_text(ASKS(ALL_EXTENSION_NUMBERS_OF_TYPE), "homerank.v1.RankRequest")),
                 NOT_FOUND, "extensions");
    Grpc__Reflection__V1alpha__ExtensionRequest extension =
        GRPC__REFLECTION__V1ALPHA__EXTENSION_REQUEST__INIT;
    extension.containing_type = (char *)"homerank.v1.RankRequest";
    extension.extension_number = 7;
    reflection_request request = by_text(ASKS(FILE_CONTAINING_EXTENSION), NULL);
    request.file_containing_extension = &extension;
    expect_error(ask(call, request), NOT_FOUND, "extensions");
    expect_error(ask(call, by_text(NOT_SET_CASE, NULL)), INVALID_ARGUMENT, "message_request");
    finish_stream(call);
}

static void bytes_that_are_no_request_end_the_stream(void **state) {
    fixture *f = *state;
    fixture_serve(f, NULL);
    peer_call *call = peer_open(f->client, PATH, 0);
    peer_send(call, "\x22\x03\xff\xfe\xfd", 5); /* a symbol that is not UTF-8 */
    assert_int_equal(peer_finish(call, NULL), INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(the_services_are_listed),
        FIXTURE_TEST(a_symbols_file_describes_the_contract),
        FIXTURE_TEST(a_file_is_found_by_its_name),
        FIXTURE_TEST(what_is_not_there_is_an_error_response_and_the_stream_goes_on),
        FIXTURE_TEST(bytes_that_are_no_request_end_the_stream),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
