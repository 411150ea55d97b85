/* Feast's names: see feast_key.h.
 *
 *   key      head  value type u32  value length u32  value  project
 *   head 2   2 (a string) u32  join key
 *   head 3   1 (join keys) u32  2 u32  length u32  join key
 *
 * All numbers are little-endian. The value of a string is its bytes, of an integer its 4 or 8 bytes.
 */
#include "features/feast_key.h"

#include <inttypes.h>
#include <murmurhash.h>
#include <stdio.h>
#include <string.h>

/* feast.types.ValueType */
enum { TYPE_STRING = 2, TYPE_INT32 = 3, TYPE_INT64 = 4, TYPE_NBYTES = 4, LENGTH_NBYTES = 4 };

static char *put_u32(char *at, uint32_t value) {
    for (int i = 0; i < 4; i++) *at++ = (char)(value >> (8 * i) & 0xFF);
    return at;
}

static char *put_text(char *at, const char *text) {
    size_t n = strlen(text);
    memcpy(at, text, n);
    return at + n;
}

size_t hr_feast_key_head(const hr_feast_options *options, hr_entity entity, char *head) {
    const char *join_key = options->entities[entity].join_key;
    char *at = head;
    if (options->version > 2) at = put_u32(at, 1);
    at = put_u32(at, TYPE_STRING);
    if (options->version > 2) at = put_u32(at, (uint32_t)strlen(join_key));
    at = put_text(at, join_key);
    return (size_t)(at - head);
}

static size_t integer_nbytes(hr_feast_id_type type) {
    return type == HR_FEAST_INT64 ? 8 : 4;
}

static uint32_t value_type(hr_feast_id_type type) {
    static const uint32_t types[] = {
        [HR_FEAST_STRING] = TYPE_STRING, [HR_FEAST_INT64] = TYPE_INT64, [HR_FEAST_INT32] = TYPE_INT32};
    return types[type];
}

/* An integer's shortest decimal form: no '+', no leading zero, no "-0". As two's complement. */
static bool read_integer(const char *text, hr_feast_id_type type, uint64_t *bits) {
    const bool negative = text[0] == '-';
    const char *digit = text + negative;
    const uint64_t most = type == HR_FEAST_INT64 ? INT64_MAX : INT32_MAX;
    uint64_t magnitude = 0;
    if (*digit == '\0' || (*digit == '0' && (negative || digit[1] != '\0'))) return false;
    for (int n = 0; *digit != '\0'; digit++, n++) {
        if (*digit < '0' || *digit > '9' || n == 19) return false; /* 19 digits fit */
        magnitude = magnitude * 10 + (uint64_t)(*digit - '0');
    }
    if (magnitude > most + negative) return false;
    *bits = negative ? ~magnitude + 1 : magnitude;
    return true;
}

size_t hr_feast_key_write(const hr_feast_options *options, hr_entity entity, const char *id, char *key) {
    const hr_feast_id_type type = options->entities[entity].id_type;
    char *at = key + hr_feast_key_head(options, entity, key);
    at = put_u32(at, value_type(type));
    if (type == HR_FEAST_STRING) {
        at = put_u32(at, (uint32_t)strlen(id));
        at = put_text(at, id);
    } else {
        uint64_t bits;
        if (!read_integer(id, type, &bits)) return 0;
        at = put_u32(at, (uint32_t)integer_nbytes(type));
        at = put_u32(at, (uint32_t)bits);
        if (type == HR_FEAST_INT64) at = put_u32(at, (uint32_t)(bits >> 32));
    }
    return (size_t)(put_text(at, options->project) - key);
}

static uint32_t get_u32(const char *at) {
    const uint8_t *byte = (const uint8_t *)at;
    return (uint32_t)byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 | (uint32_t)byte[3] << 24;
}

const char *hr_feast_key_id(const hr_feast_options *options, hr_entity entity, const char *key, size_t nbytes,
                            char decimal[24], size_t *id_nbytes) {
    char head[HR_FEAST_HEAD_SIZE];
    const hr_feast_id_type type = options->entities[entity].id_type;
    const size_t n_head = hr_feast_key_head(options, entity, head), n_tail = strlen(options->project);
    const size_t n_value = n_head + TYPE_NBYTES + LENGTH_NBYTES;
    if (nbytes < n_value + n_tail || memcmp(key, head, n_head) != 0) return NULL;
    if (memcmp(key + nbytes - n_tail, options->project, n_tail) != 0) return NULL;
    *id_nbytes = nbytes - n_value - n_tail;
    if (get_u32(key + n_head) != value_type(type) || get_u32(key + n_head + TYPE_NBYTES) != *id_nbytes)
        return NULL;
    const char *value = key + n_value;
    if (type == HR_FEAST_STRING) return value;
    if (*id_nbytes != integer_nbytes(type)) return NULL;
    int64_t number = (int32_t)get_u32(value);
    if (type == HR_FEAST_INT64) number = (int64_t)((uint64_t)get_u32(value + 4) << 32 | get_u32(value));
    *id_nbytes = (size_t)snprintf(decimal, 24, "%" PRId64, number);
    return decimal;
}

const char *hr_feast_view(const hr_feast_options *options, hr_entity entity, const char *field,
                          size_t *nbytes) {
    const char *colon = strchr(field, ':');
    const char *view = colon != NULL ? field : options->entities[entity].view;
    *nbytes = colon != NULL ? (size_t)(colon - field) : strlen(view);
    return view;
}

bool hr_feast_field(const hr_feast_options *options, hr_entity entity, const char *field, hr_arena *arena,
                    uint8_t name[HR_FEAST_FIELD_NBYTES]) {
    char *text = hr_arena_alloc(arena, HR_FEAST_NAME_SIZE + 1 + strlen(field)), *at = text;
    if (text == NULL) return false;
    if (strchr(field, ':') == NULL) {
        at = put_text(at, options->entities[entity].view);
        *at++ = ':';
    }
    at = put_text(at, field);
    uint32_t hash;
    lmmh_x86_32(text, (unsigned)(at - text), 0, &hash);
    put_u32((char *)name, hash);
    return true;
}
