/* Unpacking hostile protobuf: protobuf-c checks neither UTF-8 nor NUL, cuts strings at a NUL silently and
 * recurses without limit, so the wire is walked by the message's descriptor first.
 * Thread-safe; the arena belongs to the caller. */
#ifndef HOMERANK_PROTO_UNPACK_H
#define HOMERANK_PROTO_UNPACK_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"

enum { HR_PROTO_MAX_DEPTH = 16 };

/* Checks data against the descriptor: lengths inside their message, known fields of their wire type, nesting
 * at most HR_PROTO_MAX_DEPTH, strings valid UTF-8 without NUL, singular messages given once. Unknown fields
 * are skipped. Errors: INVALID_ARGUMENT naming the field's path ("context.key: not valid UTF-8"). */
hr_status hr_proto_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t nbytes,
                         hr_error *err);

/* Checks, then unpacks into the arena; *message is valid while the arena is and needs no free. A map's entry
 * whose value is not on the wire has a NULL value.
 * Errors: as above; RESOURCE_EXHAUSTED when the arena's cap is reached. */
hr_status hr_proto_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t nbytes,
                          hr_arena *arena, ProtobufCMessage **message, hr_error *err);

#endif
