/* JavaScript's patterns in PCRE's terms (ECMAScript 22.2.1 and Annex B.1.2, without flags but `i`): see
 * js_regex.h.
 *
 * Every construct is recognised and written anew: a character as itself or by its number, a class with its
 * ranges resolved, `.` and \s spelled out. What is not recognised is an error, so nothing that only PCRE
 * knows passes through.
 */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "service/experiments/js_regex.h"

/* White space and line ends of ECMAScript, inside a class; and all other characters. */
#define SPACE                                                                                                \
    "\\x{9}-\\x{d}\\x{20}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"   \
    "\\x{feff}"
#define NO_SPACE                                                                                             \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"      \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{fefe}\\x{ff00}-\\x{10ffff}"
#define NOTHING "(?!)"

enum {
    MAX_GROUPS = 1000,
    MAX_EXPANSION = 100 /* bytes that one byte of a pattern becomes at most: two make NO_SPACE */
};

typedef struct group_name {
    hr_js_text name;
    unsigned number;
} group_name;

typedef struct translator {
    const char *at, *end;
    char *out, *out_end;
    unsigned n_groups; /* capturing, in all of the pattern */
    group_name *names; /* (n_names) */
    unsigned n_names;
    bool repeatable; /* a quantifier may follow */
    bool *repeats;   /* (depth) per open bracket: its group may have a quantifier */
    size_t depth;
    hr_arena *arena;
    hr_error *err;
} translator;

static hr_status refuse(translator *t, const char *why) {
    return hr_error_set(t->err, HR_INVALID_ARGUMENT, "not a regular expression: %s", why);
}

static hr_status put(translator *t, const char *text) {
    size_t n = strlen(text);
    if ((size_t)(t->out_end - t->out) < n)
        return hr_error_set(t->err, HR_RESOURCE_EXHAUSTED, "regular expression: too long when spelled out");
    memcpy(t->out, text, n);
    t->out += n;
    return HR_OK;
}

static hr_status put_hex(translator *t, uint32_t code) {
    char text[32];
    snprintf(text, sizeof text, "\\x{%x}", (unsigned)code);
    return put(t, text);
}

static hr_status put_reference(translator *t, unsigned group) {
    char text[32];
    snprintf(text, sizeof text, "\\g{%u}", group);
    return put(t, text);
}

static hr_status put_character(translator *t, uint32_t code) {
    bool plain = code < 0x80 && ((code >= '0' && code <= '9') || (code >= 'A' && code <= 'Z') ||
                                 (code >= 'a' && code <= 'z') || code == '_');
    if (plain) return put(t, (char[]){(char)code, '\0'});
    return put_hex(t, code);
}

/* ---- Groups, counted first: what \1 and \k mean depends on those to come ---- */

static bool is_name_char(char c, bool first) {
    return c == '$' || c == '_' || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (!first && c >= '0' && c <= '9');
}

/* The name at `at`, up to its `>`; empty where there is none. */
static hr_js_text name_at(const char *at, const char *end) {
    size_t n = 0;
    while (at + n < end && is_name_char(at[n], n == 0)) n++;
    return hr_js_text_of(at, at + n < end && at[n] == '>' ? n : 0);
}

static const group_name *find_name(const translator *t, hr_js_text name) {
    for (unsigned i = 0; i < t->n_names; i++)
        if (t->names[i].name.nbytes == name.nbytes &&
            memcmp(t->names[i].name.bytes, name.bytes, name.nbytes) == 0)
            return &t->names[i];
    return NULL;
}

/* A bracket that opens a group, at `at`. */
static hr_status count_group(translator *t, const char *at) {
    bool special = at + 1 < t->end && at[1] == '?';
    bool named = special && at + 3 < t->end && at[2] == '<' && at[3] != '=' && at[3] != '!';
    if (special && !named) return HR_OK;
    if (++t->n_groups > MAX_GROUPS) return refuse(t, "too many groups");
    if (!named) return HR_OK;
    hr_js_text name = name_at(at + 3, t->end);
    if (name.nbytes == 0 || find_name(t, name) != NULL) return refuse(t, "a group's name");
    t->names[t->n_names++] = (group_name){.name = name, .number = t->n_groups};
    return HR_OK;
}

static hr_status count_groups(translator *t) {
    bool in_class = false;
    for (const char *at = t->at; at < t->end; at++) {
        hr_status status = HR_OK;
        if (*at == '\\')
            at++;
        else if (*at == '[')
            in_class = true;
        else if (*at == ']')
            in_class = false;
        else if (*at == '(' && !in_class)
            status = count_group(t, at);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

/* ---- Escapes ---- */

/* n hexadecimal digits at `at`: their value; -1 where they are none. */
static int32_t hex_at(const translator *t, const char *at, int n) {
    int32_t value = 0;
    if (t->end - at < n) return -1;
    for (int i = 0; i < n; i++) {
        char c = at[i], low = (char)(c | 0x20);
        if (!((c >= '0' && c <= '9') || (low >= 'a' && low <= 'f'))) return -1;
        value = value << 4 | (c <= '9' ? c - '0' : low - 'a' + 10);
    }
    return value;
}

/* Up to three octal digits, at most 377; 8 and 9 are themselves. */
static uint32_t read_octal(translator *t) {
    if (*t->at >= '8') return (uint32_t)*t->at++;
    uint32_t value = 0;
    for (int i = 0; i < 3 && t->at < t->end && *t->at >= '0' && *t->at <= '7'; i++) {
        if (value * 8 + (uint32_t)(*t->at - '0') > 0377) break;
        value = value * 8 + (uint32_t)(*t->at++ - '0');
    }
    return value;
}

static uint32_t read_character(translator *t) {
    size_t length = hr_utf8_char(t->at, (size_t)(t->end - t->at));
    uint32_t code = (unsigned char)*t->at;
    if (length > 1) {
        code &= 0x7Fu >> length;
        for (size_t i = 1; i < length; i++) code = code << 6 | ((unsigned char)t->at[i] & 0x3F);
    }
    t->at += length == 0 ? 1 : length;
    return code;
}

/* \uXXXX with t->at behind the u, and a second one where they are a pair. Half a pair matches no text: it is
 * given as it is, for the caller to see. */
static uint32_t read_unicode(translator *t) {
    int32_t code = hex_at(t, t->at, 4);
    if (code < 0) return 'u';
    t->at += 4;
    if (code < 0xD800 || code > 0xDBFF || t->end - t->at < 6 || t->at[0] != '\\' || t->at[1] != 'u')
        return (uint32_t)code;
    int32_t low = hex_at(t, t->at + 2, 4);
    if (low < 0xDC00 || low > 0xDFFF) return (uint32_t)code;
    t->at += 6;
    return 0x10000u + ((uint32_t)(code - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The character of an escape, with t->at behind its backslash, that is no class, assertion or reference. */
static uint32_t read_escaped(translator *t, bool in_class) {
    static const char letters[] = "fnrtv", bytes[] = "\f\n\r\t\v";
    char c = *t->at;
    const char *letter = strchr(letters, c);
    if (c >= '0' && c <= '9') return read_octal(t);
    if (c == 'c') {
        char next = t->at + 1 < t->end ? t->at[1] : ' ';
        bool control = is_letter(next) || (in_class && ((next >= '0' && next <= '9') || next == '_'));
        if (!control) return '\\'; /* and the c is a character of its own */
        t->at += 2;
        return (uint32_t)next & 31;
    }
    if (c == 'x' && hex_at(t, t->at + 1, 2) >= 0) {
        uint32_t code = (uint32_t)hex_at(t, t->at + 1, 2);
        t->at += 3;
        return code;
    }
    if (c == 'u') {
        t->at++;
        return read_unicode(t);
    }
    if (letter != NULL && c != '\0') {
        t->at++;
        return (uint32_t)bytes[letter - letters];
    }
    return read_character(t);
}

static bool is_half_pair(uint32_t code) {
    return code >= 0xD800 && code <= 0xDFFF;
}

/* A reference to a group that exists: its number; 0 where the escape is none. */
static unsigned read_reference(translator *t) {
    unsigned number = 0;
    const char *at = t->at;
    if (*at < '1' || *at > '9') return 0;
    for (; at < t->end && *at >= '0' && *at <= '9' && number <= MAX_GROUPS; at++)
        number = number * 10 + (unsigned)(*at - '0');
    if (number > t->n_groups) return 0;
    t->at = at;
    return number;
}

/* \k<name>, with t->at at the k, where the pattern has names at all. */
static hr_status named_reference(translator *t) {
    bool bracket = t->at + 1 < t->end && t->at[1] == '<';
    hr_js_text name = bracket ? name_at(t->at + 2, t->end) : hr_js_text_of("", 0);
    const group_name *group = find_name(t, name);
    if (name.nbytes == 0 || group == NULL) return refuse(t, "a reference to a group that is not there");
    t->at += 2 + name.nbytes + 1;
    return put_reference(t, group->number);
}

static hr_status escape(translator *t) {
    if (++t->at == t->end) return refuse(t, "a \\ at its end");
    char c = *t->at;
    t->repeatable = true;
    if (strchr("bB", c) != NULL) {
        t->repeatable = false;
        t->at++;
        return put(t, c == 'b' ? "\\b" : "\\B");
    }
    if (strchr("dDwW", c) != NULL) {
        t->at++;
        return put(t, (char[]){'\\', c, '\0'});
    }
    if (c == 's' || c == 'S') {
        t->at++;
        return put(t, c == 's' ? "[" SPACE "]" : "[^" SPACE "]");
    }
    if (c == 'k' && t->n_names > 0) return named_reference(t);
    unsigned reference = read_reference(t);
    if (reference > 0) return put_reference(t, reference);
    uint32_t code = read_escaped(t, false);
    return is_half_pair(code) ? put(t, NOTHING) : put_character(t, code);
}

/* ---- Classes ---- */

/* What stands in a class: a character, or a set of them (then `set` is how PCRE writes it). */
typedef struct class_atom {
    uint32_t code;
    const char *set;
} class_atom;

static class_atom read_class_atom(translator *t) {
    static const struct {
        char letter;
        const char *set;
    } sets[] = {{'d', "\\d"}, {'D', "\\D"}, {'w', "\\w"}, {'W', "\\W"}, {'s', SPACE}, {'S', NO_SPACE}};
    class_atom atom = {0};
    if (*t->at != '\\' || t->at + 1 == t->end) {
        atom.code = read_character(t);
        return atom;
    }
    t->at++;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (*t->at != sets[i].letter) continue;
        t->at++;
        atom.set = sets[i].set;
        return atom;
    }
    if (*t->at == 'b') {
        t->at++;
        atom.code = '\b';
        return atom;
    }
    atom.code = read_escaped(t, true);
    return atom;
}

static hr_status put_class_atom(translator *t, class_atom atom) {
    if (atom.set != NULL) return put(t, atom.set);
    return is_half_pair(atom.code) ? HR_OK : put_character(t, atom.code);
}

static hr_status put_class_range(translator *t, uint32_t from, uint32_t to) {
    if (from > to) return refuse(t, "a range that is out of order");
    if (is_half_pair(from)) from = 0xE000;
    if (is_half_pair(to)) to = 0xD7FF;
    if (from > to) return HR_OK;
    hr_status status = put_character(t, from);
    if (status == HR_OK) status = put(t, "-");
    return status == HR_OK ? put_character(t, to) : status;
}

/* One atom of a class, or a range of two. */
static hr_status class_member(translator *t) {
    class_atom from = read_class_atom(t);
    bool range = t->end - t->at >= 2 && t->at[0] == '-' && t->at[1] != ']';
    if (!range) return put_class_atom(t, from);
    t->at++;
    class_atom to = read_class_atom(t);
    if (from.set == NULL && to.set == NULL) return put_class_range(t, from.code, to.code);
    hr_status status = put_class_atom(t, from);
    if (status == HR_OK) status = put_character(t, '-');
    return status == HR_OK ? put_class_atom(t, to) : status;
}

static hr_status class(translator *t) {
    t->at++;
    bool negated = t->at < t->end && *t->at == '^';
    t->at += negated;
    t->repeatable = true;
    char *begin = t->out;
    hr_status status = put(t, negated ? "[^" : "[");
    char *content = t->out;
    while (status == HR_OK && t->at < t->end && *t->at != ']') status = class_member(t);
    if (status != HR_OK) return status;
    if (t->at == t->end) return refuse(t, "a class without its ]");
    t->at++;
    if (t->out > content) return put(t, "]");
    t->out = begin; /* PCRE has no empty classes */
    return put(t, negated ? "[\\x{0}-\\x{10ffff}]" : NOTHING);
}

/* ---- Brackets and quantifiers ---- */

static hr_status open_group(translator *t) {
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!"};
    size_t left = (size_t)(t->end - t->at), kind = 0;
    const size_t n_kinds = sizeof kinds / sizeof kinds[0];
    for (; kind < n_kinds; kind++) {
        size_t n = strlen(kinds[kind]);
        if (n <= left && memcmp(t->at, kinds[kind], n) == 0) break;
    }
    t->repeatable = false;
    t->repeats[t->depth++] = kind == n_kinds || kind < 3; /* all but the looks behind */
    if (kind < n_kinds) {
        t->at += strlen(kinds[kind]);
        return put(t, kinds[kind]);
    }
    t->at++;
    if (t->at < t->end && *t->at == '?') {
        hr_js_text name =
            t->at + 2 < t->end && t->at[1] == '<' ? name_at(t->at + 2, t->end) : hr_js_text_of("", 0);
        if (name.nbytes == 0) return refuse(t, "a group of no known kind");
        t->at += 2 + name.nbytes + 1;
    }
    return put(t, "(");
}

static hr_status close_group(translator *t) {
    if (t->depth == 0) return refuse(t, "a ) without its (");
    t->repeatable = t->repeats[--t->depth];
    t->at++;
    return put(t, ")");
}

/* {n}, {n,} or {n,m} at t->at: its end; NULL where the brace is a character like any other. */
static const char *counted_end(const translator *t) {
    const char *at = t->at + 1, *digits = at;
    while (at < t->end && *at >= '0' && *at <= '9') at++;
    if (at == digits) return NULL;
    if (at < t->end && *at == ',') {
        at++;
        while (at < t->end && *at >= '0' && *at <= '9') at++;
    }
    return at < t->end && *at == '}' ? at + 1 : NULL;
}

static hr_status quantifier(translator *t, const char *end) {
    if (!t->repeatable) return refuse(t, "nothing to repeat");
    t->repeatable = false;
    while (t->at < end) {
        hr_status status = put(t, (char[]){*t->at++, '\0'});
        if (status != HR_OK) return status;
    }
    if (t->at == t->end || *t->at != '?') return HR_OK;
    t->at++;
    return put(t, "?");
}

/* ---- All of it ---- */

static hr_status step(translator *t) {
    const char *counted;
    char c = *t->at;
    switch (c) {
    case '\\': return escape(t);
    case '[': return class(t);
    case '(': return open_group(t);
    case ')': return close_group(t);
    case '*':
    case '+':
    case '?': return quantifier(t, t->at + 1);
    case '{':
        counted = counted_end(t);
        if (counted != NULL) return quantifier(t, counted);
        break;
    case '|':
    case '^':
    case '$':
        t->at++;
        t->repeatable = false;
        return put(t, c == '|' ? "|" : c == '^' ? "\\A" : "\\z");
    case '.':
        t->at++;
        t->repeatable = true;
        return put(t, "[^\\x{a}\\x{d}\\x{2028}\\x{2029}]");
    default: break;
    }
    t->repeatable = true;
    return put_character(t, read_character(t));
}

static hr_status prepare(translator *t, size_t nbytes, char **begin) {
    size_t room = (nbytes + 1) * MAX_EXPANSION;
    *begin = hr_arena_alloc(t->arena, room);
    t->names = hr_arena_calloc(t->arena, nbytes / 4 + 1, sizeof *t->names);
    t->repeats = hr_arena_calloc(t->arena, nbytes + 1, sizeof *t->repeats);
    if (*begin == NULL || t->names == NULL || t->repeats == NULL)
        return hr_error_set(t->err, HR_RESOURCE_EXHAUSTED, "regular expression: too long");
    t->out = *begin;
    t->out_end = *begin + room - 1;
    return count_groups(t);
}

hr_status hr_js_regex_translate(hr_js_text pattern, hr_arena *arena, hr_js_text *translated, hr_error *err) {
    translator t = {.at = pattern.bytes, .end = pattern.bytes + pattern.nbytes, .arena = arena, .err = err};
    char *begin = NULL;
    hr_status status = prepare(&t, pattern.nbytes, &begin);
    while (status == HR_OK && t.at < t.end) status = step(&t);
    if (status == HR_OK && t.depth > 0) status = refuse(&t, "a ( without its )");
    if (status != HR_OK) return status;
    *t.out = '\0';
    *translated = hr_js_text_of(begin, (size_t)(t.out - begin));
    return HR_OK;
}
