/* Any bytes as JSON lines, each a request or a record: refused with a reason, or read to a message that can
 * go over the wire; a record that was read prints, and reads again as the same. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "proto/json.h"
#include "proto/unpack.h"
#include "tests/fuzz/fuzz.h"

enum { ARENA_CAP = 4 << 20 };

static void require(int holds) {
    if (!holds) abort();
}

static void require_reason(hr_status status, const hr_error *err) {
    require(err->code == status && err->message[0] != '\0');
    require(hr_utf8_valid(err->message, strlen(err->message)) && strchr(err->message, '\n') == NULL);
}

static void require_packable(const ProtobufCMessage *message) {
    size_t nbytes = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(nbytes + 1);
    if (bytes == NULL) return;
    require(protobuf_c_message_pack(message, bytes) == nbytes);
    require(hr_proto_check(message->descriptor, bytes, nbytes, NULL) == HR_OK);
    free(bytes);
}

static void try_request(const json_t *value, hr_arena *arena) {
    Homerank__V1__RankRequest *request;
    hr_error err = {.code = HR_OK, .message = ""};
    hr_status status = hr_json_to_request(value, arena, &request, &err);
    if (status == HR_OK)
        require_packable(&request->base);
    else
        require_reason(status, &err);
}

/* Printing is not the exact inverse of reading (the text "7" prints as 7), but it settles at once. */
static void try_record(const json_t *value, hr_arena *arena) {
    Homerank__V1__FeatureMap *map, *again;
    hr_error err = {.code = HR_OK, .message = ""};
    hr_status status = hr_json_to_features(value, arena, &map, &err);
    if (status != HR_OK) {
        require_reason(status, &err);
        return;
    }
    require_packable(&map->base);
    json_t *printed = hr_json_from_features(map);
    require(printed != NULL);
    if (hr_json_to_features(printed, arena, &again, &err) == HR_OK) {
        json_t *printed_again = hr_json_from_features(again);
        require(json_equal(printed, printed_again));
        json_decref(printed_again);
    }
    json_decref(printed);
}

static void try_line(const char *line, size_t nbytes, hr_arena *arena) {
    hr_error err = {.code = HR_OK, .message = ""};
    json_t *value;
    hr_status status = hr_json_parse(line, nbytes, &value, &err);
    if (status != HR_OK) {
        require_reason(status, &err);
        return;
    }
    try_request(value, arena);
    try_record(value, arena);
    if (json_is_object(json_object_get(value, "features")))
        try_record(json_object_get(value, "features"), arena);
    json_decref(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    hr_arena *arena = hr_arena_create(ARENA_CAP);
    if (arena == NULL) return 0;
    const char *at = (const char *)data, *end = at + nbytes;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *line_end = newline == NULL ? end : newline;
        try_line(at, (size_t)(line_end - at), arena);
        hr_arena_reset(arena);
        at = newline == NULL ? end : newline + 1;
    }
    hr_arena_destroy(arena);
    return 0;
}
