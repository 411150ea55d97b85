/* The wire check and the unpacking of protobuf messages: see unpack.h.
 *
 * The check walks the wire once, by the descriptor, and copies nothing. protobuf-c (1.4.1) then unpacks what
 * it may be trusted with: it tolerates allocations that fail at any point, and its free is never needed, as
 * all memory is the arena's. A singular message field given twice is refused: protobuf-c would merge the two,
 * wrongly in part, and at quadratic cost.
 */
#include "proto/unpack.h"

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum { VARINT_NBYTES = 10, TAG_NBYTES = 5, LENGTH_NBYTES = 5, PATH_NBYTES = 160 };

/* One field as it lies on the wire. */
typedef struct wire_field {
    uint32_t number;
    unsigned wire_type;
    const uint8_t *data; /* what follows the tag (and the length) */
    size_t nbytes;
} wire_field;

/* A message being walked, and how it came to be: the way from the root names it in errors. */
typedef struct walk walk;
struct walk {
    const ProtobufCMessageDescriptor *descriptor;
    const uint8_t *start;
    const uint8_t *end;
    const uint8_t *at;                     /* the first field not read yet */
    const walk *parent;                    /* NULL for the root */
    const ProtobufCFieldDescriptor *field; /* of the parent, that this is; NULL for the root */
    unsigned depth;
    uint64_t seen; /* bit i: the singular message field i was there */
};

/* A varint of at most max_nbytes; false where it is longer or the bytes end inside it. */
static bool read_varint(const uint8_t **at, const uint8_t *end, size_t max_nbytes, uint64_t *value) {
    *value = 0;
    for (size_t i = 0; i < max_nbytes && *at < end; i++) {
        uint8_t byte = *(*at)++;
        /* The tenth byte has room for one bit; protobuf drops the others. */
        *value |= (uint64_t)(byte & 0x7F) << (7 * i);
        if ((byte & 0x80) == 0) return true;
    }
    return false;
}

/* The payload's bounds for a known wire type; what is wrong with them, or NULL. */
static const char *read_payload(const uint8_t **at, const uint8_t *end, wire_field *found) {
    uint64_t value;
    found->data = *at;
    switch (found->wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        if (!read_varint(at, end, VARINT_NBYTES, &value))
            return "a varint is cut off or longer than 10 bytes";
        found->nbytes = (size_t)(*at - found->data);
        return NULL;
    case PROTOBUF_C_WIRE_TYPE_64BIT: found->nbytes = 8; break;
    case PROTOBUF_C_WIRE_TYPE_32BIT: found->nbytes = 4; break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!read_varint(at, end, LENGTH_NBYTES, &value)) return "a length is cut off or longer than 5 bytes";
        found->data = *at;
        if (value > (uint64_t)(end - *at)) return "a length runs past the end of its message";
        found->nbytes = (size_t)value;
        break;
    default: return "wire types are 0, 1, 2 and 5 (groups are not supported)";
    }
    if (found->nbytes > (size_t)(end - *at)) return "the message ends inside a field";
    *at += found->nbytes;
    return NULL;
}

/* The next field; what is wrong with it, or NULL. */
static const char *read_field(const uint8_t **at, const uint8_t *end, wire_field *found) {
    uint64_t tag;
    if (!read_varint(at, end, TAG_NBYTES, &tag)) return "a tag is cut off or longer than 5 bytes";
    if (tag > UINT32_MAX) return "a field number is above 2^29 - 1";
    found->number = (uint32_t)tag >> 3;
    found->wire_type = (unsigned)tag & 7;
    if (found->number == 0) return "a field has the number 0";
    return read_payload(at, end, found);
}

/* How many fields of that number stand in a message before `until`; all of them were read once without fault.
 */
static size_t count_before(const walk *message, uint32_t number, const uint8_t *until) {
    size_t count = 0;
    const uint8_t *at = message->start;
    wire_field passed;
    while (at < until && read_field(&at, message->end, &passed) == NULL)
        if (passed.number == number && passed.data < until) count++;
    return count;
}

static bool is_map_entry(const ProtobufCMessageDescriptor *descriptor) {
    return descriptor->n_fields == 2 && strcmp(descriptor->fields[0].name, "key") == 0 &&
           strcmp(descriptor->fields[1].name, "value") == 0;
}

typedef struct path {
    char text[PATH_NBYTES];
    size_t length;
} path;

static void path_append(path *to, const char *text) {
    int n = snprintf(to->text + to->length, sizeof to->text - to->length, "%s", text);
    to->length += (size_t)n;
    if (to->length >= sizeof to->text) to->length = sizeof to->text - 1;
}

/* ".name", or ".name[i]" for an element of a list; entries of a map have no order worth naming. */
static void path_append_field(path *to, const walk *message, const ProtobufCFieldDescriptor *field,
                              const uint8_t *until) {
    if (to->length > 0) path_append(to, ".");
    path_append(to, field->name);
    if (field->label != PROTOBUF_C_LABEL_REPEATED) return;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE && is_map_entry(field->descriptor)) return;
    char index[32];
    snprintf(index, sizeof index, "[%zu]", count_before(message, field->id, until));
    path_append(to, index);
}

static void path_of_message(path *to, const walk *message) {
    if (message->parent == NULL) return;
    path_of_message(to, message->parent);
    path_append_field(to, message->parent, message->field, message->start);
}

static hr_status refuse_message(const walk *message, const char *problem, hr_error *err) {
    const walk *root = message;
    while (root->parent != NULL) root = root->parent;
    path where = {"", 0};
    path_of_message(&where, message);
    if (where.length == 0) path_append(&where, root->descriptor->short_name);
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: at byte %zu: %s", where.text,
                        (size_t)(message->at - root->start), problem);
}

static hr_status refuse_field(const walk *message, const ProtobufCFieldDescriptor *field,
                              const wire_field *found, const char *problem, hr_error *err) {
    path where = {"", 0};
    path_of_message(&where, message);
    path_append_field(&where, message, field, found->data);
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: %s", where.text, problem);
}

static unsigned wire_type_of(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM: return PROTOBUF_C_WIRE_TYPE_VARINT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE: return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT: return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE: break;
    }
    return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
}

/* The values of a packed list; what is wrong with them, or NULL. */
static const char *check_packed(unsigned element_wire_type, const wire_field *found) {
    if (element_wire_type != PROTOBUF_C_WIRE_TYPE_VARINT) {
        size_t size = element_wire_type == PROTOBUF_C_WIRE_TYPE_64BIT ? 8 : 4;
        return found->nbytes % size == 0 ? NULL : "a packed list ends inside a value";
    }
    const uint8_t *at = found->data, *end = found->data + found->nbytes;
    uint64_t value;
    while (at < end)
        if (!read_varint(&at, end, VARINT_NBYTES, &value))
            return "a packed varint is cut off or longer than 10 bytes";
    return NULL;
}

static const char *check_string(const wire_field *found) {
    if (!hr_utf8_valid(found->data, found->nbytes)) return "not valid UTF-8";
    if (found->nbytes > 0 && memchr(found->data, '\0', found->nbytes) != NULL)
        return "contains a NUL character";
    return NULL;
}

static hr_status check_message(walk *message, hr_error *err);

/* A field that holds a message: noted as seen where it is singular, and walked. */
static hr_status check_submessage(walk *message, const ProtobufCFieldDescriptor *field,
                                  const wire_field *found, hr_error *err) {
    if (message->depth == HR_PROTO_MAX_DEPTH) {
        char problem[64];
        snprintf(problem, sizeof problem, "nested deeper than %d messages", HR_PROTO_MAX_DEPTH);
        return refuse_field(message, field, found, problem, err);
    }
    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        size_t index = (size_t)(field - message->descriptor->fields);
        assert(index < 64);
        uint64_t bit = UINT64_C(1) << index;
        if ((message->seen & bit) != 0)
            return refuse_field(message, field, found, "given more than once", err);
        message->seen |= bit;
    }
    walk child = {.descriptor = field->descriptor,
                  .start = found->data,
                  .end = found->data + found->nbytes,
                  .at = found->data,
                  .parent = message,
                  .field = field,
                  .depth = message->depth + 1};
    return check_message(&child, err);
}

static hr_status check_field(walk *message, const ProtobufCFieldDescriptor *field, const wire_field *found,
                             hr_error *err) {
    unsigned expected = wire_type_of(field->type);
    const char *problem = NULL;
    if (found->wire_type != expected) {
        bool packed = field->label == PROTOBUF_C_LABEL_REPEATED &&
                      found->wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
        if (!packed) {
            char text[64];
            snprintf(text, sizeof text, "expected wire type %u, found %u", expected, found->wire_type);
            return refuse_field(message, field, found, text, err);
        }
        problem = check_packed(expected, found);
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        return check_submessage(message, field, found, err);
    } else if (field->type == PROTOBUF_C_TYPE_STRING) {
        problem = check_string(found);
    }
    return problem == NULL ? HR_OK : refuse_field(message, field, found, problem, err);
}

static hr_status check_message(walk *message, hr_error *err) {
    while (message->at < message->end) {
        wire_field found;
        const uint8_t *at = message->at;
        const char *problem = read_field(&at, message->end, &found);
        if (problem != NULL) return refuse_message(message, problem, err);
        message->at = at;
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(message->descriptor, found.number);
        if (field == NULL) continue;
        hr_status status = check_field(message, field, &found, err);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

hr_status hr_proto_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t nbytes,
                         hr_error *err) {
    if (nbytes > INT_MAX)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected at most 2147483647 bytes, found %zu",
                            descriptor->short_name, nbytes);
    static const uint8_t nothing[1];
    if (nbytes == 0) data = nothing;
    walk root = {.descriptor = descriptor, .start = data, .end = data + nbytes, .at = data, .depth = 1};
    return check_message(&root, err);
}

typedef struct unpack_memory {
    hr_arena *arena;
    bool exhausted;
} unpack_memory;

static void *unpack_alloc(void *memory_of, size_t nbytes) {
    unpack_memory *memory = memory_of;
    void *p = hr_arena_alloc(memory->arena, nbytes);
    if (p == NULL) memory->exhausted = true;
    return p;
}

/* The arena frees all at once. */
static void unpack_free(void *memory_of, void *p) {
    (void)memory_of;
    (void)p;
}

hr_status hr_proto_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t nbytes,
                          hr_arena *arena, ProtobufCMessage **message, hr_error *err) {
    hr_status status = hr_proto_check(descriptor, data, nbytes, err);
    if (status != HR_OK) return status;
    unpack_memory memory = {.arena = arena};
    ProtobufCAllocator allocator = {.alloc = unpack_alloc, .free = unpack_free, .allocator_data = &memory};
    *message = protobuf_c_message_unpack(descriptor, &allocator, nbytes, data);
    if (*message != NULL) return HR_OK;
    if (memory.exhausted)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED,
                            "%s of %zu bytes: needs more memory than a call may have", descriptor->short_name,
                            nbytes);
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: not a valid message", descriptor->short_name);
}
