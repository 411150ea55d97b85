/* Writes protobuf wire bytes by hand, right or wrong, for tests. */
#ifndef HOMERANK_TESTS_PROTO_WIRE_H
#define HOMERANK_TESTS_PROTO_WIRE_H

#include <stdint.h>
#include <string.h>

typedef struct wire {
    uint8_t *bytes; /* borrowed; the caller gives it room enough */
    size_t nbytes;
} wire;

static inline void wire_varint(wire *w, uint64_t value) {
    for (; value >= 0x80; value >>= 7) w->bytes[w->nbytes++] = (uint8_t)(value | 0x80);
    w->bytes[w->nbytes++] = (uint8_t)value;
}

static inline void wire_tag(wire *w, uint32_t number, unsigned wire_type) {
    wire_varint(w, (uint64_t)number << 3 | wire_type);
}

static inline void wire_bytes(wire *w, uint32_t number, const void *data, size_t nbytes) {
    wire_tag(w, number, 2);
    wire_varint(w, nbytes);
    if (nbytes > 0) memcpy(w->bytes + w->nbytes, data, nbytes);
    w->nbytes += nbytes;
}

/* Makes all that is in w a field of that number: one message around it. */
static inline void wire_wrap(wire *w, uint32_t number) {
    uint8_t head_bytes[20];
    wire head = {head_bytes, 0};
    wire_tag(&head, number, 2);
    wire_varint(&head, w->nbytes);
    memmove(w->bytes + head.nbytes, w->bytes, w->nbytes);
    memcpy(w->bytes, head_bytes, head.nbytes);
    w->nbytes += head.nbytes;
}

#endif
