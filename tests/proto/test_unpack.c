/* The wire check and the unpacking, on messages that are right and on hostile ones. */
#include "proto/unpack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/homerank.pb-c.h"
#include "tests/proto/nested.pb-c.h"
#include "tests/proto/wire.h"

typedef Homerank__Test__Nested nested;

#define NESTED  (&homerank__test__nested__descriptor)
#define REQUEST (&homerank__v1__rank_request__descriptor)
#define BYTES(...)                                                                                           \
    (const uint8_t[]){__VA_ARGS__}, sizeof(const uint8_t[]) {                                                \
        __VA_ARGS__                                                                                          \
    }

/* Copies data to memory of exactly its size, so that a sanitizer sees a read past the end. */
static hr_status unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t nbytes,
                        hr_arena *arena, ProtobufCMessage **message, hr_error *err) {
    uint8_t *exact = malloc(nbytes == 0 ? 1 : nbytes);
    if (nbytes > 0) memcpy(exact, data, nbytes);
    hr_status status = hr_proto_unpack(descriptor, exact, nbytes, arena, message, err);
    free(exact);
    return status;
}

static void assert_refused(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t nbytes,
                           const char *message) {
    hr_error err = {.message = ""};
    hr_arena *arena = hr_arena_create(1 << 20);
    ProtobufCMessage *unpacked;
    hr_status status = unpack(descriptor, data, nbytes, arena, &unpacked, &err);
    hr_arena_destroy(arena);
    assert_string_equal(err.message, message);
    assert_int_equal(status, HR_INVALID_ARGUMENT);
    assert_int_equal(err.code, HR_INVALID_ARGUMENT);
}

static nested *accept(hr_arena *arena, const uint8_t *data, size_t nbytes) {
    hr_error err = {.message = ""};
    ProtobufCMessage *message = NULL;
    unpack(NESTED, data, nbytes, arena, &message, &err);
    assert_string_equal(err.message, "");
    assert_non_null(message);
    return (nested *)message;
}

/* A message with every kind of field; its wire bytes in w. */
static void make_full(wire *w) {
    nested child, message;
    homerank__test__nested__init(&child);
    homerank__test__nested__init(&message);
    child.text = "caf\xC3\xA9";
    Homerank__Test__Nested__NamedEntry entry;
    homerank__test__nested__named_entry__init(&entry);
    entry.key = "k";
    entry.value = &child;
    nested *children[] = {&child, &child, &child};
    Homerank__Test__Nested__NamedEntry *entries[] = {&entry};
    char *texts[] = {"", "a", "\xF0\x9F\x98\x80"};
    int32_t ints[] = {0, -1, INT32_MAX, INT32_MIN, 300};
    double doubles[] = {0.5, -1e300};
    float floats[] = {1.5f};
    protobuf_c_boolean bools[] = {1, 0, 1};
    int64_t longs[] = {INT64_MIN, -1, 7};
    message.child = &child;
    message.n_children = 3, message.children = children;
    message.n_named = 1, message.named = entries;
    message.text = "text";
    message.raw = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)"\xFF\x00\x80"};
    message.n_texts = 3, message.texts = texts;
    message.a = -5, message.b = INT32_MIN, message.c = UINT32_MAX;
    message.d = -5, message.e = INT64_MIN, message.f = UINT64_MAX;
    message.g = 1, message.h = 7, message.i = -7, message.j = 2.5f;
    message.k = UINT64_MAX, message.l = -9, message.m = 0.1;
    message.n_packed_varints = 5, message.packed_varints = ints;
    message.n_packed_doubles = 2, message.packed_doubles = doubles;
    message.n_packed_floats = 1, message.packed_floats = floats;
    message.n_packed_bools = 3, message.packed_bools = bools;
    message.n_plain_varints = 3, message.plain_varints = longs;
    message.choice_case = HOMERANK__TEST__NESTED__CHOICE_CHOSEN_CHILD;
    message.chosen_child = &child;
    w->nbytes = homerank__test__nested__pack(&message, w->bytes);
}

static void what_was_packed_is_unpacked(void **state) {
    (void)state;
    uint8_t bytes[1024], again[1024];
    wire w = {bytes, 0};
    make_full(&w);
    hr_arena *arena = hr_arena_create(1 << 20);
    nested *message = accept(arena, bytes, w.nbytes);
    assert_int_equal(homerank__test__nested__pack(message, again), w.nbytes);
    assert_memory_equal(again, bytes, w.nbytes);
    hr_arena_destroy(arena);
}

static void an_empty_message_is_a_message(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 20);
    ProtobufCMessage *message;
    assert_int_equal(hr_proto_unpack(NESTED, NULL, 0, arena, &message, NULL), HR_OK);
    assert_string_equal(((nested *)message)->text, "");
    hr_arena_destroy(arena);
}

static void lists_are_read_packed_and_unpacked_alike(void **state) {
    (void)state;
    uint8_t bytes[64];
    wire w = {bytes, 0};
    wire_tag(&w, 20, 0), wire_varint(&w, 5); /* one by one where packed is the rule */
    wire_bytes(&w, 20, "\x06\x80\x01", 3);   /* 6, 128 */
    wire_tag(&w, 24, 0), wire_varint(&w, 3); /* zigzag -2 */
    wire_bytes(&w, 24, "\x01", 1);           /* packed where it is not: zigzag -1 */
    wire_tag(&w, 22, 5), memcpy(bytes + w.nbytes, "\0\0\xC0\x3F", 4), w.nbytes += 4;
    wire_bytes(&w, 21, "", 0);
    hr_arena *arena = hr_arena_create(1 << 20);
    nested *message = accept(arena, bytes, w.nbytes);
    assert_int_equal(message->n_packed_varints, 3);
    assert_int_equal(message->packed_varints[0], 5);
    assert_int_equal(message->packed_varints[1], 6);
    assert_int_equal(message->packed_varints[2], 128);
    assert_int_equal(message->n_plain_varints, 2);
    assert_int_equal(message->plain_varints[0], -2);
    assert_int_equal(message->plain_varints[1], -1);
    assert_int_equal(message->n_packed_floats, 1);
    assert_true(message->packed_floats[0] == 1.5f);
    assert_int_equal(message->n_packed_doubles, 0);
    hr_arena_destroy(arena);
}

static void broken_wire_is_refused_by_field_and_place(void **state) {
    (void)state;
#define VARINT "a varint is cut off or longer than 10 bytes"
    assert_refused(NESTED, BYTES(0x00, 0x01), "Nested: at byte 0: a field has the number 0");
    assert_refused(NESTED, BYTES(0x82, 0x00, 0x00), "Nested: at byte 0: a field has the number 0");
    assert_refused(NESTED, BYTES(0x38, 0x01, 0x38), "Nested: at byte 2: " VARINT);
    assert_refused(NESTED, BYTES(0x80), "Nested: at byte 0: a tag is cut off or longer than 5 bytes");
    assert_refused(NESTED, BYTES(0xB8, 0x80, 0x80, 0x80, 0x80, 0x00, 1),
                   "Nested: at byte 0: a tag is cut off or longer than 5 bytes");
    assert_refused(NESTED, BYTES(0xB8, 0x80, 0x80, 0x80, 0x10, 1),
                   "Nested: at byte 0: a field number is above 2^29 - 1");
    assert_refused(NESTED, BYTES(0x38, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x80, 0x01),
                   "Nested: at byte 0: " VARINT);
    assert_refused(NESTED, BYTES(0x22, 0x03, 'a', 'b'),
                   "Nested: at byte 0: a length runs past the end of its message");
    assert_refused(NESTED, BYTES(0x22, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 'a'),
                   "Nested: at byte 0: a length runs past the end of its message");
    assert_refused(NESTED, BYTES(0x22, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00, 'a'),
                   "Nested: at byte 0: a length is cut off or longer than 5 bytes");
    assert_refused(NESTED, BYTES(0x99, 0x01, 1, 2, 3, 4, 5, 6, 7),
                   "Nested: at byte 0: the message ends inside a field");
    assert_refused(NESTED, BYTES(0x75, 1, 2, 3), "Nested: at byte 0: the message ends inside a field");
    for (unsigned wire_type = 3; wire_type < 8; wire_type++) { /* of an unknown field */
        if (wire_type == 5) continue;
        uint8_t tag[] = {0xF8, 0x3F, 0, 0, 0, 0, 0, 0, 0, 0};
        tag[0] |= (uint8_t)wire_type;
        assert_refused(NESTED, tag, sizeof tag,
                       "Nested: at byte 0: wire types are 0, 1, 2 and 5 (groups are not supported)");
    }
    /* A length inside the whole, but not inside its message. */
    assert_refused(NESTED, BYTES(0x0A, 0x02, 0x22, 0x01, 'a'),
                   "child: at byte 2: a length runs past the end of its message");
#undef VARINT
}

static void a_field_of_another_wire_type_is_refused(void **state) {
    (void)state;
    assert_refused(NESTED, BYTES(0x20, 0x01), "text: expected wire type 2, found 0");
    assert_refused(NESTED, BYTES(0x3A, 0x01, 0x01), "a: expected wire type 0, found 2");
    assert_refused(NESTED, BYTES(0x69, 1, 2, 3, 4, 5, 6, 7, 8), "g: expected wire type 0, found 1");
    assert_refused(NESTED, BYTES(0x0D, 1, 2, 3, 4), "child: expected wire type 2, found 5");
    assert_refused(NESTED, BYTES(0x12, 0x00, 0x10, 0x00), "children[1]: expected wire type 2, found 0");
    assert_refused(NESTED, BYTES(0xA1, 0x01, 1, 2, 3, 4, 5, 6, 7, 8),
                   "packed_varints[0]: expected wire type 0, found 1");
}

static void packed_lists_must_be_whole(void **state) {
    (void)state;
    assert_refused(NESTED, BYTES(0xA2, 0x01, 0x02, 0x01, 0x80),
                   "packed_varints[0]: a packed varint is cut off or longer than 10 bytes");
    assert_refused(NESTED, BYTES(0xAA, 0x01, 0x07, 1, 2, 3, 4, 5, 6, 7),
                   "packed_doubles[0]: a packed list ends inside a value");
    assert_refused(NESTED, BYTES(0xB2, 0x01, 0x02, 1, 2),
                   "packed_floats[0]: a packed list ends inside a value");
}

static void strings_are_utf8_without_nul_and_bytes_are_anything(void **state) {
    (void)state;
    assert_refused(NESTED, BYTES(0x22, 0x01, 0xFF), "text: not valid UTF-8");
    assert_refused(NESTED, BYTES(0x22, 0x03, 0xED, 0xA0, 0x80), "text: not valid UTF-8");
    assert_refused(NESTED, BYTES(0x22, 0x02, 0xC0, 0x80), "text: not valid UTF-8");
    assert_refused(NESTED, BYTES(0x22, 0x03, 'a', 0x00, 'b'), "text: contains a NUL character");
    assert_refused(NESTED, BYTES(0x32, 0x01, 'a', 0x32, 0x01, 0x00), "texts[1]: contains a NUL character");
    hr_arena *arena = hr_arena_create(1 << 20);
    assert_int_equal(accept(arena, BYTES(0x2A, 0x02, 0x00, 0xFF))->raw.len, 2);
    hr_arena_destroy(arena);
}

static void errors_name_the_way_to_the_field(void **state) {
    (void)state;
    uint8_t bytes[256];
    wire w = {bytes, 0};
    wire_bytes(&w, 1, "\xFF", 1); /* FeatureMap.FeaturesEntry.key */
    wire_wrap(&w, 1);
    wire_wrap(&w, 6);
    wire list = {(uint8_t[256]){0}, 0};
    for (int i = 0; i < 3; i++) wire_bytes(&list, 6, "", 0);
    memcpy(list.bytes + list.nbytes, w.bytes, w.nbytes);
    assert_refused(REQUEST, list.bytes, list.nbytes + w.nbytes,
                   "item_features[3].features.key: not valid UTF-8");

    w.nbytes = 0;
    wire_bytes(&w, 1, "ok", 2); /* IdList.values */
    wire_bytes(&w, 1, "a\0", 2);
    wire_wrap(&w, 3);
    wire_wrap(&w, 2);
    wire_wrap(&w, 4);
    assert_refused(REQUEST, w.bytes, w.nbytes, "context.value.ids.values[1]: contains a NUL character");

    w.nbytes = 0;
    wire_bytes(&w, 1, "\xFF", 1);
    wire_wrap(&w, 4);
    assert_refused(REQUEST, w.bytes, w.nbytes, "context.key: not valid UTF-8");
}

/* `depth` messages, one inside the other through field `number`. */
static size_t nest(wire *w, uint32_t number, size_t depth) {
    w->nbytes = 0;
    for (size_t i = 1; i < depth; i++) wire_wrap(w, number);
    return w->nbytes;
}

static void nesting_is_bounded_through_every_kind_of_field(void **state) {
    (void)state;
    enum { DEEP = 10000 };
    uint8_t *bytes = malloc(DEEP * 6);
    wire w = {bytes, 0};
    static const uint32_t fields[] = {1, 2, 27}; /* singular, repeated, oneof */
    hr_arena *arena = hr_arena_create(1 << 20);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        accept(arena, bytes, nest(&w, fields[i], HR_PROTO_MAX_DEPTH));
        hr_error err;
        ProtobufCMessage *message;
        assert_int_equal(
            unpack(NESTED, bytes, nest(&w, fields[i], HR_PROTO_MAX_DEPTH + 1), arena, &message, &err),
            HR_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "nested deeper than 16 messages"));
        assert_int_equal(unpack(NESTED, bytes, nest(&w, fields[i], DEEP), arena, &message, &err),
                         HR_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "nested deeper than 16 messages"));
    }
    hr_arena_destroy(arena);
    free(bytes);
}

static void unknown_fields_are_skipped(void **state) {
    (void)state;
    uint8_t bytes[128];
    wire w = {bytes, 0};
    wire_bytes(&w, 4, "before", 6);
    wire_bytes(&w, 1000, "\xFF\x00 any bytes", 12);
    wire_tag(&w, 1001, 0), wire_varint(&w, UINT64_MAX);
    wire_tag(&w, 1002, 1), w.nbytes += 8;
    wire_tag(&w, (1u << 29) - 1, 5), w.nbytes += 4;
    wire_tag(&w, 7, 0), wire_varint(&w, 9);
    hr_arena *arena = hr_arena_create(1 << 20);
    nested *message = accept(arena, bytes, w.nbytes);
    assert_string_equal(message->text, "before");
    assert_int_equal(message->a, 9);
    hr_arena_destroy(arena);
}

static void map_entries_may_lack_key_or_value(void **state) {
    (void)state;
    hr_arena *arena = hr_arena_create(1 << 20);
    nested *message = accept(arena, BYTES(0x1A, 0x00, 0x1A, 0x03, 0x0A, 0x01, 'k', 0x1A, 0x02, 0x12, 0x00));
    assert_int_equal(message->n_named, 3);
    assert_string_equal(message->named[0]->key, "");
    assert_null(message->named[0]->value);
    assert_string_equal(message->named[1]->key, "k");
    assert_null(message->named[1]->value);
    assert_non_null(message->named[2]->value);
    hr_arena_destroy(arena);
}

static void of_a_oneof_the_last_wins(void **state) {
    (void)state;
    uint8_t bytes[64];
    wire w = {bytes, 0};
    wire_bytes(&w, 25, "text", 4);
    wire_bytes(&w, 27, "", 0);
    wire_tag(&w, 26, 1), memcpy(bytes + w.nbytes, "\0\0\0\0\0\0\xF0\x3F", 8), w.nbytes += 8;
    hr_arena *arena = hr_arena_create(1 << 20);
    nested *message = accept(arena, bytes, w.nbytes);
    assert_int_equal(message->choice_case, HOMERANK__TEST__NESTED__CHOICE_CHOSEN_NUMBER);
    assert_true(message->chosen_number == 1.0);
    wire_bytes(&w, 25, "last", 4);
    assert_string_equal(accept(arena, bytes, w.nbytes)->chosen_text, "last");
    hr_arena_destroy(arena);
}

static void a_singular_message_is_given_once(void **state) {
    (void)state;
    assert_refused(NESTED, BYTES(0x0A, 0x00, 0x0A, 0x00), "child: given more than once");
    assert_refused(NESTED, BYTES(0xDA, 0x01, 0x00, 0x38, 0x01, 0xDA, 0x01, 0x00),
                   "chosen_child: given more than once");
    assert_refused(NESTED, BYTES(0x1A, 0x04, 0x12, 0x00, 0x12, 0x00), "named.value: given more than once");
}

static void every_truncation_is_read_or_refused(void **state) {
    (void)state;
    uint8_t bytes[1024];
    wire w = {bytes, 0};
    make_full(&w);
    hr_arena *arena = hr_arena_create(1 << 20);
    size_t n_accepted = 0;
    for (size_t nbytes = 0; nbytes < w.nbytes; nbytes++) {
        hr_error err;
        ProtobufCMessage *message;
        hr_status status = unpack(NESTED, bytes, nbytes, arena, &message, &err);
        assert_true(status == HR_OK || status == HR_INVALID_ARGUMENT);
        n_accepted += status == HR_OK;
        hr_arena_reset(arena);
    }
    assert_in_range(n_accepted, 20, w.nbytes / 4); /* the cuts between the fields */
    hr_arena_destroy(arena);
}

static void every_smaller_arena_is_refused_without_harm(void **state) {
    (void)state;
    enum { N = 200 }; /* past the 16 fields that protobuf-c scans without allocating */
    uint8_t *bytes = malloc(N * 1100);
    wire w = {bytes, 0};
    for (int i = 0; i < N; i++) wire_bytes(&w, 6, "some text", 9), wire_bytes(&w, 999, "unknown", 7);
    wire full = {bytes + w.nbytes, 0};
    make_full(&full);
    size_t nbytes = w.nbytes + full.nbytes, n_refused = 0;
    for (size_t cap = 0;; cap += 16) {
        hr_error err;
        ProtobufCMessage *message;
        hr_arena *arena = hr_arena_create(cap);
        hr_status status = unpack(NESTED, bytes, nbytes, arena, &message, &err);
        hr_arena_destroy(arena);
        if (status == HR_OK) break;
        assert_int_equal(status, HR_RESOURCE_EXHAUSTED);
        n_refused++;
    }
    assert_true(n_refused > 100);
    free(bytes);
}

/* Two bytes on the wire are a whole message in memory: the arena bounds it. */
static void many_tiny_messages_are_bounded_by_the_arena(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    uint8_t *bytes = malloc(2 * N);
    for (size_t i = 0; i < N; i++) memcpy(bytes + 2 * i, "\x32\x00", 2);
    hr_arena *arena = hr_arena_create(8 << 20);
    ProtobufCMessage *message;
    hr_error err;
    assert_int_equal(unpack(REQUEST, bytes, 2 * N, arena, &message, &err), HR_RESOURCE_EXHAUSTED);
    assert_string_equal(err.message, "RankRequest of 2097152 bytes: needs more memory than a call may have");
    assert_true(hr_arena_used(arena) <= 8 << 20);
    hr_arena_destroy(arena);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_packed_is_unpacked),
        cmocka_unit_test(an_empty_message_is_a_message),
        cmocka_unit_test(lists_are_read_packed_and_unpacked_alike),
        cmocka_unit_test(broken_wire_is_refused_by_field_and_place),
        cmocka_unit_test(a_field_of_another_wire_type_is_refused),
        cmocka_unit_test(packed_lists_must_be_whole),
        cmocka_unit_test(strings_are_utf8_without_nul_and_bytes_are_anything),
        cmocka_unit_test(errors_name_the_way_to_the_field),
        cmocka_unit_test(nesting_is_bounded_through_every_kind_of_field),
        cmocka_unit_test(unknown_fields_are_skipped),
        cmocka_unit_test(map_entries_may_lack_key_or_value),
        cmocka_unit_test(of_a_oneof_the_last_wins),
        cmocka_unit_test(a_singular_message_is_given_once),
        cmocka_unit_test(every_truncation_is_read_or_refused),
        cmocka_unit_test(every_smaller_arena_is_refused_without_harm),
        cmocka_unit_test(many_tiny_messages_are_bounded_by_the_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
