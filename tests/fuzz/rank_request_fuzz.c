/* Any bytes as a RankRequest: refused with a reason, or unpacked to strings that are UTF-8 and to a message
 * that packs again. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "proto/homerank.pb-c.h"
#include "proto/unpack.h"
#include "tests/fuzz/fuzz.h"

enum { ARENA_CAP = 4 << 20 };

static void require(int holds) {
    if (!holds) abort();
}

static void require_text(const char *text) {
    require(text != NULL && hr_utf8_valid(text, strlen(text)));
}

static void require_value(const Homerank__V1__FeatureValue *value) {
    if (value == NULL) return;
    if (value->kind_case == HOMERANK__V1__FEATURE_VALUE__KIND_ID) require_text(value->id);
    if (value->kind_case != HOMERANK__V1__FEATURE_VALUE__KIND_IDS) return;
    for (size_t i = 0; i < value->ids->n_values; i++) require_text(value->ids->values[i]);
}

static void require_request(const Homerank__V1__RankRequest *request) {
    require_text(request->user_id);
    require_text(request->attributes);
    for (size_t i = 0; i < request->n_item_ids; i++) require_text(request->item_ids[i]);
    for (size_t i = 0; i < request->n_context; i++) {
        require_text(request->context[i]->key);
        require_value(request->context[i]->value);
    }
    for (size_t i = 0; i < request->n_item_features; i++)
        for (size_t f = 0; f < request->item_features[i]->n_features; f++)
            require_value(request->item_features[i]->features[f]->value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    const ProtobufCMessageDescriptor *descriptor = &homerank__v1__rank_request__descriptor;
    hr_error err = {.code = HR_OK, .message = ""};
    hr_arena *arena = hr_arena_create(ARENA_CAP);
    ProtobufCMessage *message;
    hr_status status =
        arena == NULL ? HR_OUT_OF_MEMORY : hr_proto_unpack(descriptor, data, nbytes, arena, &message, &err);
    if (status == HR_OK) {
        require_request((const Homerank__V1__RankRequest *)message);
        size_t packed = protobuf_c_message_get_packed_size(message);
        uint8_t *bytes = malloc(packed + 1);
        if (bytes != NULL) require(protobuf_c_message_pack(message, bytes) == packed);
        free(bytes);
    } else if (arena != NULL) {
        require(err.code == status && err.message[0] != '\0');
        require_text(err.message);
        /* What passes the check fails in protobuf-c for want of memory only. */
        if (status == HR_INVALID_ARGUMENT) require(hr_proto_check(descriptor, data, nbytes, NULL) == status);
    }
    hr_arena_destroy(arena);
    return 0;
}
