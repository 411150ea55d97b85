/* JSON values as JavaScript sees them: see js_value.h. Numbers are in js_number.c, the reader in js_parse.c.
 */
#include "service/experiments/js_value.h"

#include <assert.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "base/utf8.h"

/* ---- From jansson's values ---- */

static hr_status no_room(hr_error *err) {
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the value needs more memory than there is");
}

static hr_status copy_value(const json_t *json, hr_arena *arena, int depth, hr_js_value *out, hr_error *err);

static hr_status copy_text(const char *bytes, size_t nbytes, hr_arena *arena, hr_js_text *out,
                           hr_error *err) {
    const char *copy = hr_arena_strndup(arena, bytes, nbytes);
    if (copy == NULL) return no_room(err);
    *out = hr_js_text_of(copy, nbytes);
    return HR_OK;
}

static hr_status copy_array(const json_t *json, hr_arena *arena, int depth, hr_js_value *out, hr_error *err) {
    size_t n = json_array_size(json);
    hr_js_value *elements = hr_arena_calloc(arena, n, sizeof *elements);
    if (elements == NULL) return no_room(err);
    for (size_t i = 0; i < n; i++) {
        hr_status status = copy_value(json_array_get(json, i), arena, depth + 1, &elements[i], err);
        if (status != HR_OK) return status;
        elements[i].next = i + 1 < n ? &elements[i + 1] : NULL;
    }
    out->kind = HR_JS_ARRAY;
    out->n = (uint32_t)n;
    out->first = n > 0 ? elements : NULL;
    return HR_OK;
}

static hr_status copy_object(const json_t *json, hr_arena *arena, int depth, hr_js_value *out,
                             hr_error *err) {
    size_t n = json_object_size(json), i = 0;
    hr_js_value *members = hr_arena_calloc(arena, n, sizeof *members);
    if (members == NULL) return no_room(err);
    const char *key;
    json_t *member;
    /* The iteration macros want a non-const object; nothing is changed. */
    json_object_foreach((json_t *)json, key, member) {
        hr_status status = copy_text(key, strlen(key), arena, &members[i].key, err);
        if (status == HR_OK) status = copy_value(member, arena, depth + 1, &members[i], err);
        if (status != HR_OK) return status;
        members[i].next = i + 1 < n ? &members[i + 1] : NULL;
        i++;
    }
    out->kind = HR_JS_OBJECT;
    out->n = (uint32_t)n;
    out->first = n > 0 ? members : NULL;
    return HR_OK;
}

static hr_status copy_value(const json_t *json, hr_arena *arena, int depth, hr_js_value *out, hr_error *err) {
    if (depth > HR_JS_MAX_DEPTH)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected at most %d levels of nesting, found more",
                            HR_JS_MAX_DEPTH);
    switch (json_typeof(json)) {
    case JSON_ARRAY: return copy_array(json, arena, depth, out, err);
    case JSON_OBJECT: return copy_object(json, arena, depth, out, err);
    case JSON_STRING:
        out->kind = HR_JS_STRING;
        return copy_text(json_string_value(json), json_string_length(json), arena, &out->text, err);
    case JSON_INTEGER:
    case JSON_REAL:
        out->kind = HR_JS_NUMBER;
        out->number = json_number_value(json);
        return HR_OK;
    case JSON_TRUE: out->kind = HR_JS_TRUE; return HR_OK;
    case JSON_FALSE: out->kind = HR_JS_FALSE; return HR_OK;
    case JSON_NULL: out->kind = HR_JS_NULL; return HR_OK;
    }
    return HR_OK;
}

hr_status hr_js_from_json(const json_t *json, hr_arena *arena, const hr_js_value **value, hr_error *err) {
    hr_js_value *made = hr_arena_calloc(arena, 1, sizeof *made);
    *value = made;
    return made == NULL ? no_room(err) : copy_value(json, arena, 1, made, err);
}

/* ---- Looking into values ---- */

static bool text_equal(hr_js_text a, hr_js_text b) {
    return a.nbytes == b.nbytes && memcmp(a.bytes, b.bytes, a.nbytes) == 0;
}

/* "0", "1", ...: an array's index as JavaScript writes it. */
static bool read_index(hr_js_text name, uint32_t *index) {
    if (name.nbytes == 0 || name.nbytes > 9 || (name.nbytes > 1 && name.bytes[0] == '0')) return false;
    *index = 0;
    for (size_t i = 0; i < name.nbytes; i++) {
        if (name.bytes[i] < '0' || name.bytes[i] > '9') return false;
        *index = *index * 10 + (uint32_t)(name.bytes[i] - '0');
    }
    return true;
}

const hr_js_value *hr_js_get(const hr_js_value *value, hr_js_text name) {
    const hr_js_value *found = NULL;
    uint32_t index;
    if (hr_js_kind_of(value) == HR_JS_OBJECT) {
        for (const hr_js_value *at = value->first; at != NULL; at = at->next)
            if (text_equal(at->key, name)) found = at;
    } else if (hr_js_kind_of(value) == HR_JS_ARRAY && read_index(name, &index) && index < value->n) {
        found = value->first;
        while (index-- > 0) found = found->next;
    }
    return found;
}

/* ---- Conversions ---- */

bool hr_js_truthy(const hr_js_value *value) {
    switch (hr_js_kind_of(value)) {
    case HR_JS_NULL:
    case HR_JS_FALSE: return false;
    case HR_JS_NUMBER: return value->number != 0 && !isnan(value->number);
    case HR_JS_STRING: return value->text.nbytes > 0;
    default: return true;
    }
}

/* A text that is written twice: once to count its bytes, then into them. */
typedef struct text_sink {
    char *bytes; /* NULL while counting */
    size_t nbytes;
} text_sink;

static void sink_put(text_sink *sink, const char *bytes, size_t nbytes) {
    if (sink->bytes != NULL && nbytes > 0) memcpy(sink->bytes + sink->nbytes, bytes, nbytes);
    sink->nbytes += nbytes;
}

static hr_js_text sink_text(void (*put)(text_sink *sink, const hr_js_value *value), const hr_js_value *value,
                            hr_js_scratch *scratch) {
    text_sink sink = {0};
    put(&sink, value);
    size_t nbytes = sink.nbytes;
    char *bytes = hr_arena_alloc(scratch->arena, nbytes + 1);
    if (bytes == NULL) {
        scratch->failed = true;
        return hr_js_text_of("", 0);
    }
    sink = (text_sink){.bytes = bytes};
    put(&sink, value);
    bytes[nbytes] = '\0';
    return hr_js_text_of(bytes, nbytes);
}

static hr_js_text scalar_text(const hr_js_value *value, char number[HR_JS_NUMBER_SIZE]) {
    switch (hr_js_kind_of(value)) {
    case HR_JS_NULL: return hr_js_text_of("null", 4);
    case HR_JS_FALSE: return hr_js_text_of("false", 5);
    case HR_JS_TRUE: return hr_js_text_of("true", 4);
    case HR_JS_NUMBER: return hr_js_text_of(number, hr_js_number_text(value->number, number));
    case HR_JS_STRING: return value->text;
    case HR_JS_OBJECT: return hr_js_text_of("[object Object]", 15);
    case HR_JS_ARRAY: break;
    }
    return hr_js_text_of("", 0);
}

/* An array's elements, joined; what is null in it leaves nothing. */
static void put_joined(text_sink *sink, const hr_js_value *array) {
    char number[HR_JS_NUMBER_SIZE];
    for (const hr_js_value *at = array->first; at != NULL; at = at->next) {
        if (at != array->first) sink_put(sink, ",", 1);
        if (at->kind == HR_JS_ARRAY) {
            put_joined(sink, at);
        } else if (at->kind != HR_JS_NULL) {
            hr_js_text text = scalar_text(at, number);
            sink_put(sink, text.bytes, text.nbytes);
        }
    }
}

hr_js_text hr_js_to_text(const hr_js_value *value, char number[HR_JS_NUMBER_SIZE], hr_js_scratch *scratch) {
    if (hr_js_kind_of(value) != HR_JS_ARRAY) return scalar_text(value, number);
    return sink_text(put_joined, value, scratch);
}

static void put_quoted(text_sink *sink, hr_js_text text) {
    static const char hex[] = "0123456789abcdef";
    sink_put(sink, "\"", 1);
    for (size_t i = 0; i < text.nbytes; i++) {
        unsigned char c = (unsigned char)text.bytes[i];
        if (c < 0x20) {
            sink_put(sink, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        } else {
            if (c == '"' || c == '\\') sink_put(sink, "\\", 1);
            sink_put(sink, &text.bytes[i], 1);
        }
    }
    sink_put(sink, "\"", 1);
}

static void put_json(text_sink *sink, const hr_js_value *value) {
    char number[HR_JS_NUMBER_SIZE];
    hr_js_kind kind = hr_js_kind_of(value);
    if (kind == HR_JS_STRING) {
        put_quoted(sink, value->text);
    } else if (kind == HR_JS_ARRAY || kind == HR_JS_OBJECT) {
        sink_put(sink, kind == HR_JS_ARRAY ? "[" : "{", 1);
        for (const hr_js_value *at = value->first; at != NULL; at = at->next) {
            if (at != value->first) sink_put(sink, ",", 1);
            if (kind == HR_JS_OBJECT) {
                put_quoted(sink, at->key);
                sink_put(sink, ":", 1);
            }
            put_json(sink, at);
        }
        sink_put(sink, kind == HR_JS_ARRAY ? "]" : "}", 1);
    } else {
        hr_js_text text = scalar_text(value, number);
        sink_put(sink, text.bytes, text.nbytes);
    }
}

hr_js_text hr_js_print(const hr_js_value *value, hr_js_scratch *scratch) {
    return sink_text(put_json, value, scratch);
}

/* ---- Lower case ---- */

static locale_t lower_locale;
static pthread_once_t lower_once = PTHREAD_ONCE_INIT;

static void make_lower_locale(void) {
    lower_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

static uint32_t decode(const char *bytes, size_t length) {
    const unsigned char *p = (const unsigned char *)bytes;
    if (length == 1) return p[0];
    uint32_t code = p[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) code = code << 6 | (p[i] & 0x3F);
    return code;
}

static size_t encode(uint32_t code, char *out) {
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(length == 1 ? code : (0xF00u >> length & 0xFF) | code);
    return length;
}

hr_js_text hr_js_lower(hr_js_text text, hr_js_scratch *scratch) {
    /* No character grows by more than half: U+023A, say, from two bytes to three. */
    char *out = hr_arena_alloc(scratch->arena, text.nbytes + text.nbytes / 2 + 1);
    if (out == NULL) {
        scratch->failed = true;
        return hr_js_text_of("", 0);
    }
    pthread_once(&lower_once, make_lower_locale);
    size_t n = 0, length;
    for (size_t i = 0; i < text.nbytes; i += length) {
        length = hr_utf8_char(text.bytes + i, text.nbytes - i);
        assert(length > 0);
        uint32_t code = decode(text.bytes + i, length);
        if (code >= 'A' && code <= 'Z')
            code += 'a' - 'A';
        else if (code >= 0x80 && lower_locale != (locale_t)0)
            code = (uint32_t)towlower_l((wint_t)code, lower_locale);
        n += encode(code, out + n);
    }
    out[n] = '\0';
    return hr_js_text_of(out, n);
}

/* ---- Comparisons ---- */

bool hr_js_strict_equal(const hr_js_value *a, const hr_js_value *b) {
    hr_js_kind kind = hr_js_kind_of(a);
    if (kind != hr_js_kind_of(b)) return false;
    switch (kind) {
    case HR_JS_NUMBER: return a->number == b->number;
    case HR_JS_STRING: return text_equal(a->text, b->text);
    case HR_JS_ARRAY:
    case HR_JS_OBJECT: return false;
    default: return true;
    }
}

bool hr_js_deep_equal(const hr_js_value *a, const hr_js_value *b) {
    hr_js_kind kind = hr_js_kind_of(a);
    if (kind != hr_js_kind_of(b)) return false;
    if (kind != HR_JS_ARRAY && kind != HR_JS_OBJECT) return hr_js_strict_equal(a, b);
    if (a->n != b->n) return false;
    const hr_js_value *other = b->first;
    for (const hr_js_value *at = a->first; at != NULL; at = at->next) {
        if (kind == HR_JS_OBJECT) {
            other = hr_js_get(b, at->key);
            if (other == NULL) return false;
        }
        if (!hr_js_deep_equal(at, other)) return false;
        if (kind == HR_JS_ARRAY) other = other->next;
    }
    return true;
}

int hr_js_text_compare(hr_js_text a, hr_js_text b) {
    size_t n = a.nbytes < b.nbytes ? a.nbytes : b.nbytes, i = 0;
    while (i < n && a.bytes[i] == b.bytes[i]) i++;
    if (i == n) return (a.nbytes > b.nbytes) - (a.nbytes < b.nbytes);
    unsigned char x = (unsigned char)a.bytes[i], y = (unsigned char)b.bytes[i];
    /* Bytes order as characters do, but UTF-16 has those past U+FFFF, in surrogates, before U+E000. */
    if (x >= 0xEE && y >= 0xEE && (x >= 0xF0) != (y >= 0xF0)) return x >= 0xF0 ? -1 : 1;
    return x < y ? -1 : 1;
}

/* A value where an order is asked: a text, or a number. */
typedef struct js_primitive {
    bool is_text;
    hr_js_text text;
} js_primitive;

static js_primitive to_primitive(const hr_js_value *value, hr_js_scratch *scratch) {
    js_primitive primitive = {.is_text = hr_js_kind_of(value) >= HR_JS_STRING};
    if (primitive.is_text) primitive.text = hr_js_to_text(value, NULL, scratch);
    return primitive;
}

hr_js_order hr_js_compare(const hr_js_value *a, const hr_js_value *b, hr_js_scratch *scratch) {
    js_primitive p = to_primitive(a, scratch), q = to_primitive(b, scratch);
    if (p.is_text && q.is_text) {
        int order = hr_js_text_compare(p.text, q.text);
        return order < 0 ? HR_JS_LESS : order > 0 ? HR_JS_GREATER : HR_JS_EQUAL;
    }
    double x = p.is_text ? hr_js_text_number(p.text, scratch) : hr_js_to_number(a, scratch);
    double y = q.is_text ? hr_js_text_number(q.text, scratch) : hr_js_to_number(b, scratch);
    return hr_js_number_order(x, y);
}
