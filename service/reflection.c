/* grpc.reflection.v1alpha.ServerReflection, so that grpcurl and its like can read the contract from the
 * server.
 *
 * One request at a time: read, answer, read on. What is not known is an ErrorResponse; the stream goes on. */
#include "service/reflection.h"

#include <stdio.h>
#include <string.h>

#include "proto/reflection.pb-c.h"
#include "service/server_state.h"

typedef Grpc__Reflection__V1alpha__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1alpha__ServerReflectionResponse reflection_response;

enum { GRPC_NOT_FOUND = 5, GRPC_INVALID_ARGUMENT = 3 };

typedef struct reflection_stream {
    hr_rpc rpc;               /* first */
    grpc_byte_buffer *answer; /* owned; to be sent next */
    hr_error error;           /* of a request that cannot be read: ends the stream */
    bool half_closed;
} reflection_stream;

static grpc_byte_buffer *pack(const reflection_request *request, reflection_response *response) {
    response->valid_host = request->host;
    response->original_request = (reflection_request *)request;
    return hr_rpc_pack(&response->base);
}

static grpc_byte_buffer *answer_error(const reflection_request *request, int code, const char *what,
                                      const char *name) {
    char text[HR_ERROR_MESSAGE_SIZE];
    snprintf(text, sizeof text, "%s: %s", what, hr_quote(name, strlen(name)).text);
    Grpc__Reflection__V1alpha__ErrorResponse error = GRPC__REFLECTION__V1ALPHA__ERROR_RESPONSE__INIT;
    error.error_code = code;
    error.error_message = text;
    reflection_response response = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__INIT;
    response.message_response_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    response.error_response = &error;
    return pack(request, &response);
}

static grpc_byte_buffer *answer_file(const reflection_request *request, const hr_reflection_file *file,
                                     const char *what, const char *name) {
    if (file == NULL) return answer_error(request, GRPC_NOT_FOUND, what, name);
    ProtobufCBinaryData bytes = {.len = file->nbytes, .data = (uint8_t *)file->bytes};
    Grpc__Reflection__V1alpha__FileDescriptorResponse files =
        GRPC__REFLECTION__V1ALPHA__FILE_DESCRIPTOR_RESPONSE__INIT;
    files.n_file_descriptor_proto = 1;
    files.file_descriptor_proto = &bytes;
    reflection_response response = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__INIT;
    response.message_response_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    response.file_descriptor_response = &files;
    return pack(request, &response);
}

/* Those of this listener; NULL when out of memory. */
static grpc_byte_buffer *answer_services(const reflection_request *request, const hr_server *server,
                                         hr_arena *arena) {
    size_t n = 0, n_here = 0;
    const char *const *names = hr_reflection_services(server->reflection, &n);
    Grpc__Reflection__V1alpha__ServiceResponse *services = hr_arena_calloc(arena, n, sizeof *services);
    Grpc__Reflection__V1alpha__ServiceResponse **list = hr_arena_calloc(arena, n, sizeof *list);
    if (services == NULL || list == NULL) return NULL;
    for (size_t i = 0; i < n; i++) {
        if (!hr_server_has_service(server, names[i])) continue;
        grpc__reflection__v1alpha__service_response__init(&services[n_here]);
        services[n_here].name = (char *)names[i];
        list[n_here] = &services[n_here];
        n_here++;
    }
    Grpc__Reflection__V1alpha__ListServiceResponse body =
        GRPC__REFLECTION__V1ALPHA__LIST_SERVICE_RESPONSE__INIT;
    body.n_service = n_here;
    body.service = list;
    reflection_response response = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__INIT;
    response.message_response_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    response.list_services_response = &body;
    return pack(request, &response);
}

static grpc_byte_buffer *answer_request(const hr_server *server, const reflection_request *request,
                                        hr_arena *arena) {
    const hr_reflection *reflection = server->reflection;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        return answer_services(request, server, arena);
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        return answer_file(request, hr_reflection_find_file(reflection, request->file_by_filename),
                           "no such file", request->file_by_filename);
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        return answer_file(request, hr_reflection_find_symbol(reflection, request->file_containing_symbol),
                           "no such symbol", request->file_containing_symbol);
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        return answer_error(request, GRPC_NOT_FOUND, "no message here has extensions; asked for one of",
                            request->file_containing_extension->containing_type);
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        return answer_error(request, GRPC_NOT_FOUND, "no message here has extensions; asked for those of",
                            request->all_extension_numbers_of_type);
    default:
        return answer_error(request, GRPC_INVALID_ARGUMENT, "expected one of message_request's fields; host",
                            request->host);
    }
}

static void on_request(hr_rpc *rpc, grpc_byte_buffer *message) {
    reflection_stream *stream = (reflection_stream *)rpc;
    if (message == NULL) {
        stream->half_closed = true;
        return;
    }
    hr_arena *arena = hr_poller_take_arena(rpc->poller);
    ProtobufCMessage *request = NULL;
    if (arena == NULL || hr_rpc_unpack(&grpc__reflection__v1alpha__server_reflection_request__descriptor,
                                       message, arena, &request, &stream->error) == HR_OK) {
        if (arena != NULL)
            stream->answer = answer_request(rpc->server, (const reflection_request *)request, arena);
        if (stream->answer == NULL)
            hr_error_set(&stream->error, HR_OUT_OF_MEMORY, "no memory for one more request");
    }
    if (arena != NULL) hr_poller_put_arena(rpc->poller, arena);
}

static void stream_advance(hr_rpc *rpc) {
    reflection_stream *stream = (reflection_stream *)rpc;
    if (rpc->cancelled || rpc->sending) return;
    if (stream->answer != NULL) {
        grpc_byte_buffer *answer = stream->answer;
        stream->answer = NULL;
        hr_rpc_send(rpc, answer, NULL);
    } else if (stream->error.code != HR_OK) {
        hr_rpc_end(rpc, NULL, stream->error.code, stream->error.message, NULL);
    } else if (stream->half_closed) {
        hr_rpc_end(rpc, NULL, HR_OK, "", NULL);
    } else if (hr_server_is_stopping(rpc->server)) {
        hr_rpc_end(rpc, NULL, HR_UNAVAILABLE, HR_RPC_SHUTTING_DOWN, NULL);
    } else if (!rpc->reading) {
        hr_rpc_read(rpc, on_request);
    }
}

static void stream_start(hr_rpc *rpc) {
    (void)rpc; /* all is zero already; the first advance reads */
}

static void stream_release(hr_rpc *rpc) {
    grpc_byte_buffer_destroy(((reflection_stream *)rpc)->answer);
}

const hr_rpc_method hr_reflection_method = {
    .path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    .n_slots = 4,
    .nbytes = sizeof(reflection_stream),
    .streaming = true,
    .start = stream_start,
    .advance = stream_advance,
    .release = stream_release,
};
