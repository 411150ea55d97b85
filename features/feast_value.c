/* Feast's values: see feast_value.h. */
#include "features/feast_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "proto/feast.pb-c.h"
#include "proto/unpack.h"

typedef Homerank__Feast__V1__Value feast_value;
typedef Homerank__V1__FeatureValue feature_value;

enum { INTEGER_SIZE = 21 }; /* "-9223372036854775808" and a NUL */

/* What is being decoded. */
typedef struct decoding {
    hr_arena *arena;
    feature_value *value;
    hr_error *err;
} decoding;

static hr_status out_of_room(const decoding *in) {
    return hr_error_set(in->err, HR_RESOURCE_EXHAUSTED, "value: needs more memory than a call may have");
}

static hr_status take_text(const decoding *in, char *text) {
    in->value->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_ID;
    in->value->id = text;
    return HR_OK;
}

static hr_status take_integer(const decoding *in, int64_t integer) {
    char *text = hr_arena_alloc(in->arena, INTEGER_SIZE);
    if (text == NULL) return out_of_room(in);
    snprintf(text, INTEGER_SIZE, "%" PRId64, integer);
    return take_text(in, text);
}

static hr_status take_number(const decoding *in, double number) {
    in->value->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER;
    in->value->number = number;
    return HR_OK;
}

/* Bytes as a text of the arena. */
static hr_status text_of_bytes(const decoding *in, const ProtobufCBinaryData *bytes, char **text) {
    if (bytes->len > 0 &&
        (!hr_utf8_valid(bytes->data, bytes->len) || memchr(bytes->data, '\0', bytes->len) != NULL))
        return hr_error_set(in->err, HR_INVALID_ARGUMENT, "value: expected UTF-8 without NUL, found %s",
                            hr_quote((const char *)bytes->data, bytes->len).text);
    *text = hr_arena_strndup(in->arena, (const char *)bytes->data, bytes->len);
    return *text != NULL ? HR_OK : out_of_room(in);
}

static hr_status take_bytes(const decoding *in, const ProtobufCBinaryData *bytes) {
    char *text;
    hr_status status = text_of_bytes(in, bytes, &text);
    return status == HR_OK ? take_text(in, text) : status;
}

static hr_status take_texts(const decoding *in, char **texts, size_t n) {
    Homerank__V1__IdList *ids = hr_arena_alloc(in->arena, sizeof *ids);
    if (ids == NULL) return out_of_room(in);
    homerank__v1__id_list__init(ids);
    ids->values = texts;
    ids->n_values = n;
    in->value->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_IDS;
    in->value->ids = ids;
    return HR_OK;
}

static hr_status take_numbers(const decoding *in, double *values, size_t n) {
    Homerank__V1__NumberList *numbers = hr_arena_alloc(in->arena, sizeof *numbers);
    if (numbers == NULL) return out_of_room(in);
    homerank__v1__number_list__init(numbers);
    numbers->values = values;
    numbers->n_values = n;
    in->value->kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS;
    in->value->numbers = numbers;
    return HR_OK;
}

static hr_status take_bytes_list(const decoding *in, const Homerank__Feast__V1__BytesList *list) {
    char **texts = hr_arena_calloc(in->arena, list->n_val, sizeof *texts);
    if (texts == NULL) return out_of_room(in);
    for (size_t i = 0; i < list->n_val; i++) {
        hr_status status = text_of_bytes(in, &list->val[i], &texts[i]);
        if (status != HR_OK) return status;
    }
    return take_texts(in, texts, list->n_val);
}

static hr_status take_floats(const decoding *in, const Homerank__Feast__V1__FloatList *list) {
    double *numbers = hr_arena_calloc(in->arena, list->n_val, sizeof *numbers);
    if (numbers == NULL) return out_of_room(in);
    for (size_t i = 0; i < list->n_val; i++) numbers[i] = list->val[i];
    return take_numbers(in, numbers, list->n_val);
}

/* Feast writes a missing time as the smallest integer; in a list an empty text is the null (DESIGN 5). */
static const int64_t no_time = INT64_MIN;

static hr_status take_time(const decoding *in, int64_t seconds) {
    return seconds == no_time ? HR_OK : take_integer(in, seconds);
}

static hr_status take_integers(const decoding *in, const int64_t *values, size_t n, bool times) {
    char **texts = hr_arena_calloc(in->arena, n, sizeof *texts);
    char *room = hr_arena_calloc(in->arena, n, INTEGER_SIZE);
    if (texts == NULL || room == NULL) return out_of_room(in);
    for (size_t i = 0; i < n; i++) {
        texts[i] = room + i * INTEGER_SIZE;
        if (!times || values[i] != no_time) snprintf(texts[i], INTEGER_SIZE, "%" PRId64, values[i]);
    }
    return take_texts(in, texts, n);
}

static hr_status take_int64s(const decoding *in, const Homerank__Feast__V1__Int64List *list) {
    return take_integers(in, list->val, list->n_val, false);
}

static hr_status take_times(const decoding *in, const Homerank__Feast__V1__Int64List *list) {
    return take_integers(in, list->val, list->n_val, true);
}

static hr_status take_int32s(const decoding *in, const Homerank__Feast__V1__Int32List *list) {
    int64_t *values = hr_arena_calloc(in->arena, list->n_val, sizeof *values);
    if (values == NULL) return out_of_room(in);
    for (size_t i = 0; i < list->n_val; i++) values[i] = list->val[i];
    return take_integers(in, values, list->n_val, false);
}

static hr_status take_bools(const decoding *in, const Homerank__Feast__V1__BoolList *list) {
    static char yes[] = "1", no[] = "0";
    char **texts = hr_arena_calloc(in->arena, list->n_val, sizeof *texts);
    if (texts == NULL) return out_of_room(in);
    for (size_t i = 0; i < list->n_val; i++) texts[i] = list->val[i] ? yes : no;
    return take_texts(in, texts, list->n_val);
}

static hr_status refuse(const decoding *in, const feast_value *from) {
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(&homerank__feast__v1__value__descriptor, from->val_case);
    return hr_error_set(in->err, HR_INVALID_ARGUMENT, "value: expected a feature's value, found a %s",
                        field->name);
}

static hr_status take_list(const decoding *in, const feast_value *from) {
#define KIND(name) HOMERANK__FEAST__V1__VALUE__VAL_##name
    switch (from->val_case) {
    case KIND(BYTES_LIST_VAL): return take_bytes_list(in, from->bytes_list_val);
    case KIND(BYTES_SET_VAL): return take_bytes_list(in, from->bytes_set_val);
    case KIND(STRING_LIST_VAL):
        return take_texts(in, from->string_list_val->val, from->string_list_val->n_val);
    case KIND(STRING_SET_VAL): return take_texts(in, from->string_set_val->val, from->string_set_val->n_val);
    case KIND(UUID_LIST_VAL): return take_texts(in, from->uuid_list_val->val, from->uuid_list_val->n_val);
    case KIND(TIME_UUID_LIST_VAL):
        return take_texts(in, from->time_uuid_list_val->val, from->time_uuid_list_val->n_val);
    case KIND(UUID_SET_VAL): return take_texts(in, from->uuid_set_val->val, from->uuid_set_val->n_val);
    case KIND(TIME_UUID_SET_VAL):
        return take_texts(in, from->time_uuid_set_val->val, from->time_uuid_set_val->n_val);
    case KIND(DECIMAL_LIST_VAL):
        return take_texts(in, from->decimal_list_val->val, from->decimal_list_val->n_val);
    case KIND(DECIMAL_SET_VAL):
        return take_texts(in, from->decimal_set_val->val, from->decimal_set_val->n_val);
    case KIND(INT32_LIST_VAL): return take_int32s(in, from->int32_list_val);
    case KIND(INT32_SET_VAL): return take_int32s(in, from->int32_set_val);
    case KIND(INT64_LIST_VAL): return take_int64s(in, from->int64_list_val);
    case KIND(INT64_SET_VAL): return take_int64s(in, from->int64_set_val);
    case KIND(UNIX_TIMESTAMP_LIST_VAL): return take_times(in, from->unix_timestamp_list_val);
    case KIND(UNIX_TIMESTAMP_SET_VAL): return take_times(in, from->unix_timestamp_set_val);
    case KIND(DOUBLE_LIST_VAL):
        return take_numbers(in, from->double_list_val->val, from->double_list_val->n_val);
    case KIND(DOUBLE_SET_VAL):
        return take_numbers(in, from->double_set_val->val, from->double_set_val->n_val);
    case KIND(FLOAT_LIST_VAL): return take_floats(in, from->float_list_val);
    case KIND(FLOAT_SET_VAL): return take_floats(in, from->float_set_val);
    case KIND(BOOL_LIST_VAL): return take_bools(in, from->bool_list_val);
    case KIND(BOOL_SET_VAL): return take_bools(in, from->bool_set_val);
    default: return refuse(in, from);
    }
}

static hr_status take_value(const decoding *in, const feast_value *from) {
    switch (from->val_case) {
    case KIND(_NOT_SET):
    case KIND(NULL_VAL): return HR_OK;
    case KIND(BYTES_VAL): return take_bytes(in, &from->bytes_val);
    case KIND(STRING_VAL): return take_text(in, from->string_val);
    case KIND(UUID_VAL): return take_text(in, from->uuid_val);
    case KIND(TIME_UUID_VAL): return take_text(in, from->time_uuid_val);
    case KIND(DECIMAL_VAL): return take_text(in, from->decimal_val);
    case KIND(INT32_VAL): return take_integer(in, from->int32_val);
    case KIND(INT64_VAL): return take_integer(in, from->int64_val);
    case KIND(UNIX_TIMESTAMP_VAL): return take_time(in, from->unix_timestamp_val);
    case KIND(BOOL_VAL): return take_integer(in, from->bool_val ? 1 : 0);
    case KIND(DOUBLE_VAL): return take_number(in, from->double_val);
    case KIND(FLOAT_VAL): return take_number(in, from->float_val);
    default: return take_list(in, from);
    }
#undef KIND
}

hr_status hr_feast_value_decode(const uint8_t *data, size_t nbytes, hr_arena *arena,
                                const feature_value **value, hr_error *err) {
    *value = NULL;
    ProtobufCMessage *message;
    hr_status status =
        hr_proto_unpack(&homerank__feast__v1__value__descriptor, data, nbytes, arena, &message, err);
    if (status != HR_OK) return status;
    const decoding in = {arena, hr_arena_alloc(arena, sizeof(feature_value)), err};
    if (in.value == NULL) return out_of_room(&in);
    homerank__v1__feature_value__init(in.value);
    status = take_value(&in, (const feast_value *)message);
    if (status == HR_OK) *value = in.value;
    return status;
}

bool hr_feast_time_read(const uint8_t *data, size_t nbytes, int64_t *seconds) {
    if (hr_proto_check(&homerank__feast__v1__timestamp__descriptor, data, nbytes, NULL) != HR_OK)
        return false;
    Homerank__Feast__V1__Timestamp *time = homerank__feast__v1__timestamp__unpack(NULL, nbytes, data);
    if (time == NULL) return false;
    *seconds = time->seconds;
    homerank__feast__v1__timestamp__free_unpacked(time, NULL);
    return true;
}
