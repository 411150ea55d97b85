/* JavaScript's numbers as text, and texts as numbers (ECMAScript, Number::toString and StringToNumber): see
 * js_value.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/experiments/js_value.h"

/* ---- To text ---- */

/* The shortest decimal digits that read back as the number, which is positive: their count, and the power of
 * ten k of 0.DIGITS * 10^k. */
static int shortest_digits(double number, char digits[20], int *k) {
    /* Fifteen digits survive in every normal double, so no shorter form than theirs needs a try. */
    char text[40];
    int precision = number < 2.2250738585072014e-308 ? 1 : 15;
    for (;; precision++) {
        snprintf(text, sizeof text, "%.*e", precision - 1, number);
        if (precision == 17 || strtod(text, NULL) == number) break;
    }
    int n = 0;
    for (const char *at = text; *at != 'e'; at++)
        if (*at != '.') digits[n++] = *at;
    while (n > 1 && digits[n - 1] == '0') n--;
    *k = (int)strtol(strchr(text, 'e') + 1, NULL, 10) + 1;
    return n;
}

/* digits[0..n) * 10^(k - n), laid out as ECMAScript does: the length. */
static int lay_out(const char *digits, int n, int k, char *out) {
    if (n <= k && k <= 21) return sprintf(out, "%.*s%.*s", n, digits, k - n, "000000000000000000000");
    if (0 < k && k <= 21) return sprintf(out, "%.*s.%.*s", k, digits, n - k, digits + k);
    if (-6 < k && k <= 0) return sprintf(out, "0.%.*s%.*s", -k, "000000", n, digits);
    return sprintf(out, "%c%s%.*se%+d", digits[0], n > 1 ? "." : "", n - 1, digits + 1, k - 1);
}

size_t hr_js_number_text(double number, char text[HR_JS_NUMBER_SIZE]) {
    if (isnan(number)) return (size_t)sprintf(text, "NaN");
    if (number == 0) return (size_t)sprintf(text, "0");
    if (isinf(number)) return (size_t)sprintf(text, number < 0 ? "-Infinity" : "Infinity");
    char digits[20] = "", *out = text;
    double magnitude = fabs(number);
    if (number < 0) *out++ = '-';
    if (magnitude < 1e15 && magnitude == floor(magnitude)) { /* most ids */
        unsigned long long integer = (unsigned long long)magnitude;
        size_t n = 0;
        for (; integer > 0; integer /= 10) digits[n++] = (char)('0' + integer % 10);
        while (n > 0) *out++ = digits[--n];
        *out = '\0';
        return (size_t)(out - text);
    }
    int k, n = shortest_digits(magnitude, digits, &k);
    return (size_t)(out - text) + (size_t)lay_out(digits, n, k, out);
}

/* ---- From text ---- */

/* White space and line ends of ECMAScript: their bytes at the front of the text, 0 where there is none. */
static size_t space_at(const char *at, size_t nbytes) {
    static const char *const wide[] = {"\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
                                       "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85",
                                       "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89",
                                       "\xE2\x80\x8A", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF",
                                       "\xE2\x81\x9F", "\xE3\x80\x80", "\xEF\xBB\xBF"};
    if (nbytes > 0 && (*at == ' ' || (*at >= '\t' && *at <= '\r'))) return 1;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        size_t length = strlen(wide[i]);
        if (length <= nbytes && memcmp(at, wide[i], length) == 0) return length;
    }
    return 0;
}

/* The bytes of the space that ends the text, 0 where none does. */
static size_t space_before(const char *end, size_t nbytes) {
    for (size_t n = 1; n <= 3 && n <= nbytes; n++)
        if (space_at(end - n, n) == n) return n;
    return 0;
}

static hr_js_text trim(hr_js_text text) {
    const char *at = text.bytes, *end = at + text.nbytes;
    for (size_t n; (n = space_at(at, (size_t)(end - at))) > 0;) at += n;
    for (size_t n; (n = space_before(end, (size_t)(end - at))) > 0;) end -= n;
    return hr_js_text_of(at, (size_t)(end - at));
}

/* 0x1F, 0o17, 0b11. */
static double radix_number(hr_js_text text, unsigned radix) {
    double number = 0;
    if (text.nbytes == 2) return NAN;
    for (size_t i = 2; i < text.nbytes; i++) {
        char c = text.bytes[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 99;
        if (digit >= radix) return NAN;
        number = number * radix + digit;
    }
    return number;
}

static size_t count_digits(const char *at, const char *end) {
    size_t n = 0;
    while (at + n < end && at[n] >= '0' && at[n] <= '9') n++;
    return n;
}

/* Whether text is [+-](D+ [. D*] | . D+)[(e|E)[+-]D+], which strtod then reads alike. */
static bool is_decimal(hr_js_text text) {
    const char *at = text.bytes, *end = at + text.nbytes;
    if (at < end && (*at == '+' || *at == '-')) at++;
    size_t n_whole = count_digits(at, end), n_part = 0;
    at += n_whole;
    if (at < end && *at == '.') {
        n_part = count_digits(++at, end);
        at += n_part;
    }
    if (n_whole + n_part == 0) return false;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        size_t n = count_digits(at, end);
        if (n == 0) return false;
        at += n;
    }
    return at == end;
}

static double decimal_number(hr_js_text text, hr_js_scratch *scratch) {
    char buffer[64];
    char *copy = buffer;
    if (text.nbytes >= sizeof buffer) {
        copy = hr_arena_alloc(scratch->arena, text.nbytes + 1);
        if (copy == NULL) {
            scratch->failed = true;
            return NAN;
        }
    }
    memcpy(copy, text.bytes, text.nbytes);
    copy[text.nbytes] = '\0';
    return strtod(copy, NULL);
}

double hr_js_text_number(hr_js_text text, hr_js_scratch *scratch) {
    text = trim(text);
    if (text.nbytes == 0) return 0;
    if (text.bytes[0] == '0' && text.nbytes > 1) {
        char letter = (char)(text.bytes[1] | 0x20);
        if (letter == 'x') return radix_number(text, 16);
        if (letter == 'o') return radix_number(text, 8);
        if (letter == 'b') return radix_number(text, 2);
    }
    if (is_decimal(text)) return decimal_number(text, scratch);
    bool negative = text.bytes[0] == '-', sign = negative || text.bytes[0] == '+';
    text = hr_js_text_of(text.bytes + sign, text.nbytes - sign);
    if (hr_js_text_is(text, "Infinity")) return negative ? -INFINITY : INFINITY;
    return NAN;
}

double hr_js_to_number(const hr_js_value *value, hr_js_scratch *scratch) {
    switch (hr_js_kind_of(value)) {
    case HR_JS_NULL:
    case HR_JS_FALSE: return 0;
    case HR_JS_TRUE: return 1;
    case HR_JS_NUMBER: return value->number;
    default: return hr_js_text_number(hr_js_to_text(value, NULL, scratch), scratch);
    }
}
