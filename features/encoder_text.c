/* Numbers from texts: see encoder_text.h.
 *
 * Short decimals take the exact fast path of Clinger ("How to read floating point numbers accurately", 1990):
 * a significand below 2^53 times or over a power of ten up to 10^22 is one correctly rounded operation.
 * The rest goes to strtod, rewritten as digits and an exponent without a decimal point, because the point is
 * what depends on the locale.
 */
#include "features/encoder_text.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* A text's parts: value = ± whole.fraction * 10^exponent. */
typedef struct decimal {
    bool negative;
    const char *whole, *fraction; /* borrowed digits */
    size_t n_whole, n_fraction;
    int64_t exponent; /* held within ±EXPONENT_LIMIT, beyond what any number of digits in memory can offset */
} decimal;

#define EXPONENT_LIMIT INT64_C(1000000000000000)

static size_t count_digits(const char *text, const char *end) {
    const char *at = text;
    while (at < end && *at >= '0' && *at <= '9') at++;
    return (size_t)(at - text);
}

/* [eE][-+]?[0-9]+ from *at, which moves behind it. */
static bool scan_exponent(const char **at, const char *end, int64_t *exponent) {
    const char *digit = *at + 1;
    bool negative = digit < end && *digit == '-';
    if (digit < end && (*digit == '-' || *digit == '+')) digit++;
    size_t n = count_digits(digit, end);
    if (n == 0) return false;
    *at = digit + n;
    for (; digit < *at && *exponent < EXPONENT_LIMIT; digit++) *exponent = *exponent * 10 + (*digit - '0');
    if (*exponent > EXPONENT_LIMIT) *exponent = EXPONENT_LIMIT;
    if (negative) *exponent = -*exponent;
    return true;
}

static bool scan(const char *text, size_t nbytes, decimal *out) {
    const char *at = text, *end = text + nbytes;
    *out = (decimal){.negative = nbytes > 0 && *at == '-'};
    if (out->negative) at++;
    out->whole = at;
    out->n_whole = count_digits(at, end);
    if (out->n_whole == 0) return false;
    at += out->n_whole;
    if (at < end && *at == '.') {
        out->fraction = ++at;
        out->n_fraction = count_digits(at, end);
        if (out->n_fraction == 0) return false;
        at += out->n_fraction;
    }
    if (at < end && (*at == 'e' || *at == 'E') && !scan_exponent(&at, end, &out->exponent)) return false;
    return at == end;
}

static char digit_at(const decimal *in, size_t i) {
    if (i < in->n_whole) return in->whole[i];
    return in->fraction[i - in->n_whole];
}

/* The fast path; false where it does not apply. */
static bool convert_exactly(const decimal *in, double *number) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    enum { MAX_DIGITS = 19, MAX_POWER = 22 };
    size_t n = in->n_whole + in->n_fraction;
    int64_t exponent = in->exponent - (int64_t)in->n_fraction;
    if (n > MAX_DIGITS || exponent < -MAX_POWER || exponent > MAX_POWER) return false;
    uint64_t significand = 0;
    for (size_t i = 0; i < n; i++) significand = significand * 10 + (uint64_t)(digit_at(in, i) - '0');
    if (significand > UINT64_C(1) << 53) return false;
    double value = (double)significand;
    value = exponent < 0 ? value / powers[-exponent] : value * powers[exponent];
    *number = in->negative ? -value : value;
    return true;
}

/* Any length and exponent. 767 significant digits decide every rounding; of those behind them only counts
 * whether one is not zero. */
static double convert_any(const decimal *in) {
    enum { MAX_DIGITS = 780, MAX_EXPONENT = 99999 };
    char text[MAX_DIGITS + 16];
    size_t n_all = in->n_whole + in->n_fraction, first = 0, n = 0;
    while (first < n_all && digit_at(in, first) == '0') first++;
    size_t last = n_all - first > MAX_DIGITS ? first + MAX_DIGITS : n_all;
    int64_t exponent = in->exponent - (int64_t)in->n_fraction + (int64_t)(n_all - last);
    if (in->negative) text[n++] = '-';
    if (first == n_all) text[n++] = '0';
    for (size_t i = first; i < last; i++) text[n++] = digit_at(in, i);
    bool sticky = false;
    for (size_t i = last; i < n_all && !sticky; i++) sticky = digit_at(in, i) != '0';
    if (sticky) {
        text[n++] = '1';
        exponent--;
    }
    if (exponent > MAX_EXPONENT) exponent = MAX_EXPONENT;
    if (exponent < -MAX_EXPONENT) exponent = -MAX_EXPONENT;
    snprintf(text + n, sizeof text - n, "e%d", (int)exponent);
    return strtod(text, NULL);
}

bool hr__text_number(const char *text, size_t nbytes, double *number) {
    decimal parts;
    if (!scan(text, nbytes, &parts)) return false;
    if (!convert_exactly(&parts, number)) *number = convert_any(&parts);
    return true;
}
