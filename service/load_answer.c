/* A RankResponse's outermost fields by their wire form: see load_answer.h. The bytes are from outside. */
#include "service/load_answer.h"

#include "proto/homerank.pb-c.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5, ITEM_IDS = 3, TIMING = 9 };

typedef struct bytes {
    const uint8_t *at, *end;
} bytes;

typedef struct field {
    uint32_t number, wire_type;
    uint64_t value; /* VARINT */
    bytes content;  /* BYTES */
} field;

static bool read_varint(bytes *in, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool take(bytes *in, uint64_t nbytes, bytes *content) {
    if (nbytes > (uint64_t)(in->end - in->at)) return false;
    *content = (bytes){in->at, in->at + nbytes};
    in->at += nbytes;
    return true;
}

/* The next field; false at the end, or where the bytes make none. */
static bool read_field(bytes *in, field *f) {
    uint64_t key, nbytes;
    if (!read_varint(in, &key)) return false;
    f->number = (uint32_t)(key >> 3);
    f->wire_type = (uint32_t)(key & 7);
    switch (f->wire_type) {
    case VARINT: return read_varint(in, &f->value);
    case FIXED64: return take(in, 8, &f->content);
    case BYTES: return read_varint(in, &nbytes) && take(in, nbytes, &f->content);
    case FIXED32: return take(in, 4, &f->content);
    default: return false;
    }
}

/* Timing's fields 1 to 4 are the stages in order. */
static void read_timing(bytes in, hr_load_outcome *outcome) {
    field f;
    while (read_field(&in, &f))
        if (f.wire_type == VARINT && f.number >= 1 && f.number <= HR_LOAD_STAGES)
            outcome->stage_us[f.number - 1] = f.value;
    outcome->has_timing = true;
}

void hr_load_answer_read(const uint8_t *data, size_t nbytes, hr_load_outcome *outcome) {
    bytes in = {data, data + nbytes};
    field f;
    while (read_field(&in, &f)) {
        if (f.wire_type != BYTES) continue;
        if (f.number == ITEM_IDS) outcome->n_items++;
        if (f.number == TIMING) read_timing(f.content, outcome);
    }
}
