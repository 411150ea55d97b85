/* The usual line of records: see load_pack.h. Grammar: RFC 8259; wire format: homerank.v1.FeatureMap, as
 * protobuf-c writes it. */
#include "features/load_pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/utf8.h"
#include "features/encoder_text.h"

enum {
    MAX_LINE_NBYTES = 1 << 20,
    GROWTH = 16, /* bytes of a record, and of a value, to one of its line, at most */
    MAX_FEATURES = 128,
    MAX_INTEGER_DIGITS = 18, /* all of them fit 64 bits */
    TAG_ENTRY = 0x0a,
    TAG_KEY = 0x0a,
    TAG_VALUE = 0x12,
    TAG_NUMBER = 0x09,
    TAG_ID = 0x12,
    TAG_IDS = 0x1a,
    TAG_NUMBERS = 0x22,
    TAG_ELEMENTS = 0x0a
};

typedef struct span {
    const char *at;
    size_t n;
} span;

typedef enum token_kind { TOKEN_TEXT, TOKEN_INTEGER, TOKEN_REAL, TOKEN_NULL } token_kind;

/* A value that is no list. */
typedef struct token {
    token_kind kind;
    span text; /* TEXT: between its quotes; INTEGER: its digits */
    double number;
} token;

typedef struct scan {
    const char *at, *end;
    hr_load_packer *packer;
    uint64_t keys[MAX_FEATURES]; /* their hashes */
    size_t n_keys;
} scan;

static void skip_blanks(scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r')) s->at++;
}

/* The character, blanks before and behind it. */
static bool take(scan *s, char c) {
    skip_blanks(s);
    if (s->at == s->end || *s->at != c) return false;
    s->at++;
    skip_blanks(s);
    return true;
}

/* A string without escapes. */
static bool take_text(scan *s, span *text) {
    if (s->at == s->end || *s->at != '"') return false;
    const char *at = s->at + 1;
    unsigned char high = 0;
    for (; at < s->end && *at != '"'; at++) {
        const unsigned char c = (unsigned char)*at;
        if (c < 0x20 || c == '\\') return false;
        high |= c;
    }
    if (at == s->end) return false;
    *text = (span){s->at + 1, (size_t)(at - s->at - 1)};
    s->at = at + 1;
    return high < 0x80 || hr_utf8_valid(text->at, text->n);
}

static bool is_digit(const scan *s) {
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

static size_t skip_digits(scan *s) {
    const char *begin = s->at;
    while (is_digit(s)) s->at++;
    return (size_t)(s->at - begin);
}

/* What follows an integer's digits and makes it a real number; false where that is none. */
static bool skip_fraction(scan *s, bool *real) {
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        *real = true;
        if (skip_digits(s) == 0) return false;
    }
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        *real = true;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-')) s->at++;
        if (skip_digits(s) == 0) return false;
    }
    return true;
}

static bool take_number(scan *s, token *found) {
    const char *begin = s->at;
    bool real = false;
    if (*s->at == '-') s->at++;
    const char *digits = s->at;
    const size_t n_digits = skip_digits(s);
    if (n_digits == 0 || (n_digits > 1 && *digits == '0') || !skip_fraction(s, &real)) return false;
    found->text = (span){begin, (size_t)(s->at - begin)};
    found->kind = real ? TOKEN_REAL : TOKEN_INTEGER;
    if (!real) return n_digits <= MAX_INTEGER_DIGITS && (*digits != '0' || digits == begin);
    return hr__text_number(begin, found->text.n, &found->number) && isfinite(found->number);
}

static bool take_token(scan *s, token *found) {
    if (s->at == s->end) return false;
    if (*s->at == '"') {
        found->kind = TOKEN_TEXT;
        return take_text(s, &found->text);
    }
    if (*s->at != 'n') return take_number(s, found);
    if (s->end - s->at < 4 || memcmp(s->at, "null", 4) != 0) return false;
    s->at += 4;
    *found = (token){.kind = TOKEN_NULL, .text = {"", 0}};
    return true;
}

/* --- the wire ------------------------------------------------------------------------------------------- */

static uint8_t *put_varint(uint8_t *at, size_t n) {
    for (; n >= 0x80; n >>= 7) *at++ = (uint8_t)(n | 0x80);
    *at++ = (uint8_t)n;
    return at;
}

static uint8_t *put_bytes(uint8_t *at, uint8_t tag, const void *bytes, size_t n) {
    *at++ = tag;
    at = put_varint(at, n);
    if (n > 0) memcpy(at, bytes, n);
    return at + n;
}

static uint8_t *put_double(uint8_t *at, double number) {
    memcpy(at, &number, sizeof number); /* the wire's order is that of every machine this builds for */
    return at + sizeof number;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "put_double writes little-endian");

static uint8_t *put_token(uint8_t *at, const token *of) {
    switch (of->kind) {
    case TOKEN_NULL: return at;
    case TOKEN_REAL: *at++ = TAG_NUMBER; return put_double(at, of->number);
    case TOKEN_TEXT:
    case TOKEN_INTEGER: break;
    }
    return put_bytes(at, TAG_ID, of->text.at, of->text.n);
}

static double number_of(const token *of) {
    if (of->kind == TOKEN_NULL) return NAN;
    return of->kind == TOKEN_REAL ? of->number : (double)strtoll(of->text.at, NULL, 10);
}

/* --- lists and features --------------------------------------------------------------------------------- */

typedef enum list_kind { LIST_DECLINED, LIST_IDS, LIST_NUMBERS } list_kind;

/* Writes a list's elements to *at as texts, or as numbers. A list of texts in which a real number turns up
 * before any text is one of numbers, and is to be read again as such. */
static list_kind take_elements(scan *s, list_kind as, uint8_t **at) {
    bool has_text = false;
    if (!take(s, '[')) return LIST_DECLINED;
    if (take(s, ']')) return LIST_IDS;
    for (;;) {
        token element;
        if (!take_token(s, &element)) return LIST_DECLINED;
        has_text |= element.kind == TOKEN_TEXT;
        if (as == LIST_IDS && element.kind == TOKEN_REAL) return has_text ? LIST_DECLINED : LIST_NUMBERS;
        if (as == LIST_NUMBERS && has_text) return LIST_DECLINED;
        *at = as == LIST_IDS ? put_bytes(*at, TAG_ELEMENTS, element.text.at, element.text.n)
                             : put_double(*at, number_of(&element));
        if (take(s, ']')) return as;
        if (!take(s, ',')) return LIST_DECLINED;
    }
}

/* Its elements go to the scratch first: their length stands before them. */
static bool take_list(scan *s, uint8_t **at) {
    uint8_t *const elements = s->packer->value, *end = elements;
    const char *begin = s->at;
    list_kind kind = take_elements(s, LIST_IDS, &end);
    if (kind == LIST_NUMBERS) {
        s->at = begin;
        end = elements;
        kind = take_elements(s, LIST_NUMBERS, &end);
    }
    if (kind == LIST_DECLINED) return false;
    const size_t n = (size_t)(end - elements);
    if (kind == LIST_IDS) {
        *at = put_bytes(*at, TAG_IDS, elements, n);
        return true;
    }
    uint8_t length[10];
    const size_t n_length = (size_t)(put_varint(length, n) - length);
    *(*at)++ = TAG_NUMBERS;
    *at = put_varint(*at, 1 + n_length + n);
    *at = put_bytes(*at, TAG_ELEMENTS, elements, n);
    return true;
}

/* An empty name and one that was there before are left to others. */
static bool take_key(scan *s, span *key) {
    if (!take_text(s, key) || key->n == 0 || s->n_keys == MAX_FEATURES) return false;
    const uint64_t hash = XXH3_64bits(key->at, key->n);
    for (size_t i = 0; i < s->n_keys; i++)
        if (s->keys[i] == hash) return false;
    s->keys[s->n_keys++] = hash;
    return take(s, ':');
}

/* A feature's entry at `at`. Its value is written where it would begin behind the longest heads, and moved.
 */
static uint8_t *take_feature(scan *s, uint8_t *at) {
    enum { HEADS_NBYTES = 24 };
    span key;
    if (!take_key(s, &key)) return NULL;
    uint8_t *const value = at + HEADS_NBYTES + key.n, *end = value;
    token single;
    if (s->at < s->end && *s->at == '[') {
        if (!take_list(s, &end)) return NULL;
    } else {
        if (!take_token(s, &single)) return NULL;
        end = put_token(end, &single);
    }
    const size_t n_value = (size_t)(end - value);
    uint8_t length[2][10];
    const size_t n_key = 1 + (size_t)(put_varint(length[0], key.n) - length[0]) + key.n;
    const size_t n_head = 1 + (size_t)(put_varint(length[1], n_value) - length[1]);
    *at++ = TAG_ENTRY;
    at = put_varint(at, n_key + n_head + n_value);
    at = put_bytes(at, TAG_KEY, key.at, key.n);
    *at++ = TAG_VALUE;
    at = put_varint(at, n_value);
    memmove(at, value, n_value);
    return at + n_value;
}

static bool take_features(scan *s) {
    uint8_t *at = s->packer->packed;
    s->packer->nbytes = 0;
    if (!take(s, '{')) return false;
    if (take(s, '}')) return true;
    do {
        at = take_feature(s, at);
        if (at == NULL) return false;
    } while (take(s, ','));
    s->packer->nbytes = (size_t)(at - s->packer->packed);
    return take(s, '}');
}

/* --- the line ------------------------------------------------------------------------------------------- */

static bool is(span text, const char *word) {
    return text.n == strlen(word) && memcmp(text.at, word, text.n) == 0;
}

static bool take_entity(scan *s) {
    span name;
    if (!take_text(s, &name)) return false;
    s->packer->entity = is(name, "user") ? HR_ENTITY_USER : HR_ENTITY_ITEM;
    return s->packer->entity == HR_ENTITY_USER || is(name, "item");
}

static bool take_id(scan *s, span *id) {
    token found;
    if (!take_token(s, &found) || found.kind == TOKEN_REAL || found.text.n == 0) return false;
    *id = found.text;
    return true;
}

/* Each of the three members once. */
static bool take_line(scan *s, span *id) {
    enum { ENTITY = 1, ID = 2, FEATURES = 4, ALL = 7 };
    unsigned seen = 0;
    if (!take(s, '{')) return false;
    do {
        span name;
        if (!take_text(s, &name) || !take(s, ':')) return false;
        const unsigned member = is(name, "entity")     ? ENTITY
                                : is(name, "id")       ? ID
                                : is(name, "features") ? FEATURES
                                                       : 0;
        if (member == 0 || (seen & member)) return false;
        seen |= member;
        if (!(member == ENTITY ? take_entity(s) : member == ID ? take_id(s, id) : take_features(s)))
            return false;
    } while (take(s, ','));
    return take(s, '}') && seen == ALL && s->at == s->end;
}

static bool reserve(hr_load_packer *packer, size_t nbytes) {
    if (nbytes <= packer->capacity) return true;
    hr_load_packer_clear(packer);
    packer->packed = malloc(nbytes);
    packer->value = malloc(nbytes);
    if (packer->packed == NULL || packer->value == NULL) {
        hr_load_packer_clear(packer);
        return false;
    }
    packer->capacity = nbytes;
    return true;
}

void hr_load_packer_clear(hr_load_packer *packer) {
    free(packer->packed);
    free(packer->value);
    *packer = (hr_load_packer){.packed = NULL};
}

bool hr_load_pack(hr_load_packer *packer, char *text, size_t nbytes) {
    scan s = {.at = text, .end = text + nbytes, .packer = packer};
    span id = {text, 0};
    if (nbytes > MAX_LINE_NBYTES || !reserve(packer, GROWTH * nbytes + 64) || !take_line(&s, &id))
        return false;
    packer->id = id.at;
    text[id.at + id.n - text] = '\0';
    return true;
}
