/* Reading one JSON text (RFC 8259) into values, without recursion and without memory but the arena's: see
 * js_value.h. The text comes from outside. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "service/experiments/js_value.h"

/* An array or object that is being read. */
typedef struct open_value {
    hr_js_value *value;
    hr_js_value *last; /* of its elements; NULL at first */
} open_value;

typedef struct reader {
    const char *text; /* NUL-terminated */
    const char *at, *end;
    hr_arena *arena;
    open_value open[HR_JS_MAX_DEPTH];
    int depth; /* of open */
    hr_error *err;
} reader;

static hr_status refuse(const reader *r, const char *expected) {
    hr_quoted found = {.text = "the end"};
    if (r->at < r->end) {
        size_t length = hr_utf8_char(r->at, (size_t)(r->end - r->at));
        found = hr_quote(r->at, length == 0 ? 1 : length);
    }
    return hr_error_set(r->err, HR_INVALID_ARGUMENT, "not valid JSON: at byte %zu: expected %s, found %s",
                        (size_t)(r->at - r->text), expected, found.text);
}

static hr_status no_room(const reader *r) {
    return hr_error_set(r->err, HR_RESOURCE_EXHAUSTED,
                        "the JSON text needs more memory than a call may have");
}

static void skip_space(reader *r) {
    while (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r') r->at++;
}

/* ---- Strings ---- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four digits of a \u; -1 where they are none. */
static int32_t hex4(const char *at, const char *end) {
    int32_t code = 0;
    if (end - at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0) return -1;
        code = code << 4 | digit;
    }
    return code;
}

/* A \uXXXX, or a pair of them, with r->at at the u: the character; -1 where there is none. */
static int32_t read_unicode(reader *r) {
    int32_t code = hex4(r->at + 1, r->end);
    if (code < 0) return -1;
    r->at += 5;
    if (code < 0xD800 || code > 0xDFFF) return code;
    if (code > 0xDBFF || r->end - r->at < 6 || r->at[0] != '\\' || r->at[1] != 'u') return -1;
    int32_t low = hex4(r->at + 2, r->end);
    if (low < 0xDC00 || low > 0xDFFF) return -1;
    r->at += 6;
    return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
}

static char *put_utf8(int32_t code, char *out) {
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* One escape, with r->at behind the backslash; NULL where it is none. */
static char *read_escape(reader *r, char *out) {
    static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    if (r->at < r->end && *r->at == 'u') {
        int32_t code = read_unicode(r);
        return code > 0 ? put_utf8(code, out) : NULL; /* NUL has no place in our texts */
    }
    const char *letter = r->at < r->end ? strchr(letters, *r->at) : NULL;
    if (letter == NULL) return NULL;
    r->at++;
    *out++ = bytes[letter - letters];
    return out;
}

/* The end of the string whose first byte is at r->at: its quote, or what must not stand in one. */
static const char *string_end(const reader *r, bool *escapes) {
    const char *at = r->at;
    *escapes = false;
    for (; at < r->end && *at != '"' && (unsigned char)*at >= 0x20; at++) {
        if (*at != '\\') continue;
        *escapes = true;
        if (at + 1 < r->end) at++;
    }
    return at;
}

static hr_status unescape(reader *r, const char *end, hr_js_text *text) {
    char *bytes = hr_arena_alloc(r->arena, (size_t)(end - r->at) + 1); /* no escape grows */
    if (bytes == NULL) return no_room(r);
    char *out = bytes;
    while (r->at < end) {
        if (*r->at != '\\') {
            *out++ = *r->at++;
            continue;
        }
        const char *escape = r->at++;
        out = read_escape(r, out);
        if (out == NULL) {
            r->at = escape;
            return refuse(r, "an escape of JSON that is not NUL");
        }
    }
    *out = '\0';
    *text = hr_js_text_of(bytes, (size_t)(out - bytes));
    return HR_OK;
}

/* A string, with r->at behind its first quote. */
static hr_status read_string(reader *r, hr_js_text *text) {
    bool escapes;
    const char *end = string_end(r, &escapes);
    size_t n_valid = hr_utf8_prefix(r->at, (size_t)(end - r->at));
    if (r->at + n_valid < end || end == r->end || *end != '"') {
        r->at += n_valid;
        return refuse(r, "a string's characters and its closing quote");
    }
    hr_status status = HR_OK;
    if (escapes)
        status = unescape(r, end, text);
    else
        *text = hr_js_text_of(r->at, (size_t)(end - r->at));
    if (status == HR_OK) r->at = end + 1;
    return status;
}

/* ---- Numbers and words ---- */

static const char *skip_digits(const char *at) {
    while (*at >= '0' && *at <= '9') at++;
    return at;
}

/* Behind the number at `at`; NULL where it is none. */
static const char *number_end(const char *at) {
    if (*at == '-') at++;
    const char *whole = at;
    at = skip_digits(at);
    if (at == whole || (*whole == '0' && at > whole + 1)) return NULL;
    if (*at == '.') {
        const char *part = ++at;
        at = skip_digits(at);
        if (at == part) return NULL;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        if (*at == '+' || *at == '-') at++;
        const char *power = at;
        at = skip_digits(at);
        if (at == power) return NULL;
    }
    return at;
}

static hr_status read_number(reader *r, hr_js_value *value) {
    enum { EXACT_DIGITS = 15 };
    const char *end = number_end(r->at), *at = r->at;
    if (end == NULL) return refuse(r, "a number");
    bool negative = *at == '-';
    at += negative;
    value->kind = HR_JS_NUMBER;
    if (end - at <= EXACT_DIGITS && skip_digits(at) == end) {
        for (value->number = 0; at < end; at++) value->number = value->number * 10 + (*at - '0');
        if (negative) value->number = -value->number;
    } else {
        value->number = strtod(r->at, NULL);
        if (!isfinite(value->number)) return refuse(r, "a number that fits in a double");
    }
    r->at = end;
    return HR_OK;
}

static hr_status read_word(reader *r, hr_js_value *value) {
    static const struct {
        const char *word;
        hr_js_kind kind;
    } words[] = {{"null", HR_JS_NULL}, {"false", HR_JS_FALSE}, {"true", HR_JS_TRUE}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i].word);
        if (strncmp(r->at, words[i].word, n) != 0) continue;
        value->kind = words[i].kind;
        r->at += n;
        return HR_OK;
    }
    return refuse(r, "a value");
}

/* ---- Structure ---- */

/* A value other than an array or object. */
static hr_status read_scalar(reader *r, hr_js_value *value) {
    if (*r->at == '"') {
        r->at++;
        value->kind = HR_JS_STRING;
        return read_string(r, &value->text);
    }
    return *r->at == '-' || (*r->at >= '0' && *r->at <= '9') ? read_number(r, value) : read_word(r, value);
}

/* The next value's place in the open array or object; of a member, its name too. */
static hr_status next_place(reader *r, hr_js_value **place) {
    hr_js_value *made = hr_arena_calloc(r->arena, 1, sizeof *made);
    if (made == NULL) return no_room(r);
    *place = made;
    if (r->depth == 0) return HR_OK;
    open_value *open = &r->open[r->depth - 1];
    if (open->last == NULL)
        open->value->first = made;
    else
        open->last->next = made;
    open->last = made;
    open->value->n++;
    if (open->value->kind != HR_JS_OBJECT) return HR_OK;
    skip_space(r);
    if (*r->at != '"') return refuse(r, "a member's name");
    r->at++;
    hr_status status = read_string(r, &made->key);
    if (status != HR_OK) return status;
    skip_space(r);
    if (*r->at != ':') return refuse(r, "a colon");
    r->at++;
    return HR_OK;
}

/* Begins an array or object; *empty where it ends at once. */
static hr_status open_container(reader *r, hr_js_value *value, bool *empty) {
    if (r->depth == HR_JS_MAX_DEPTH)
        return hr_error_set(r->err, HR_INVALID_ARGUMENT,
                            "at byte %zu: expected at most %d levels of nesting, found more",
                            (size_t)(r->at - r->text), HR_JS_MAX_DEPTH);
    bool is_array = *r->at++ == '[';
    value->kind = is_array ? HR_JS_ARRAY : HR_JS_OBJECT;
    value->first = NULL;
    skip_space(r);
    *empty = *r->at == (is_array ? ']' : '}');
    if (*empty)
        r->at++;
    else
        r->open[r->depth++] = (open_value){.value = value};
    return HR_OK;
}

/* Behind a value: closes what ends here. *more: a comma came, and another value must. */
static hr_status close_containers(reader *r, bool *more) {
    *more = false;
    while (r->depth > 0) {
        bool is_array = r->open[r->depth - 1].value->kind == HR_JS_ARRAY;
        skip_space(r);
        if (*r->at == ',') {
            r->at++;
            *more = true;
            return HR_OK;
        }
        if (*r->at != (is_array ? ']' : '}')) return refuse(r, is_array ? "a comma or ]" : "a comma or }");
        r->at++;
        r->depth--;
    }
    return HR_OK;
}

static hr_status read_value(reader *r, const hr_js_value **root) {
    *root = NULL;
    for (bool more = true; more;) {
        hr_js_value *value = NULL;
        bool complete = true;
        hr_status status = next_place(r, &value);
        if (status != HR_OK) return status;
        if (*root == NULL) *root = value;
        skip_space(r);
        if (*r->at == '[' || *r->at == '{')
            status = open_container(r, value, &complete);
        else
            status = read_scalar(r, value);
        if (status == HR_OK && complete) status = close_containers(r, &more);
        if (status != HR_OK) return status;
    }
    skip_space(r);
    return r->at == r->end ? HR_OK : refuse(r, "the end");
}

hr_status hr_js_parse(const char *text, size_t nbytes, hr_arena *arena, const hr_js_value **value,
                      hr_error *err) {
    reader r = {.text = text, .at = text, .end = text + nbytes, .arena = arena, .err = err};
    hr_status status = read_value(&r, value);
    if (status != HR_OK) *value = NULL;
    return status;
}
