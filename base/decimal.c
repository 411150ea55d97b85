/* Decimal texts: see decimal.h.
 *
 * Numbers of 2^63 and more come from outside, millions in one message, so they have a conversion of their
 * own: an integer in limbs of nine digits, shifted left by as many bits as a step has room for. It takes a
 * fraction of printf's time, which grows to microseconds.
 */
#include "base/decimal.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum {
    LIMB = 1000000000,
    LIMB_DIGITS = 9,
    N_LIMBS = 35,  /* 309 digits */
    STEP_BITS = 34 /* LIMB << 34 and a carry fit in 64 bits */
};

/* The digits of value, without leading zeros, in front of end; where they begin. */
static char *put_digits(uint64_t value, char *end) {
    do {
        *--end = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return end;
}

/* limbs[0..n) times 2^bits, the least first; the new n. */
static size_t shift_left(uint32_t *limbs, size_t n, int bits) {
    uint64_t carry = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t value = ((uint64_t)limbs[i] << bits) + carry;
        limbs[i] = (uint32_t)(value % LIMB);
        carry = value / LIMB;
    }
    for (; carry > 0; carry /= LIMB) limbs[n++] = (uint32_t)(carry % LIMB);
    return n;
}

/* mantissa * 2^exponent, in front of end. */
static char *put_large(uint64_t mantissa, int exponent, char *end) {
    uint32_t limbs[N_LIMBS];
    size_t n = 0;
    for (; mantissa > 0; mantissa /= LIMB) limbs[n++] = (uint32_t)(mantissa % LIMB);
    for (; exponent > 0; exponent -= STEP_BITS)
        n = shift_left(limbs, n, exponent < STEP_BITS ? exponent : STEP_BITS);
    for (size_t i = 0; i + 1 < n; i++) {
        char *at = put_digits(limbs[i], end);
        end -= LIMB_DIGITS;
        memset(end, '0', (size_t)(at - end));
    }
    return put_digits(limbs[n - 1], end);
}

size_t hr_decimal_text(double number, char text[HR_DECIMAL_SIZE]) {
    char digits[HR_DECIMAL_SIZE], *end = digits + sizeof digits, *at;
    if (!isfinite(number)) return 0;
    double magnitude = fabs(number);
    if (magnitude < 0x1p63) {
        uint64_t integer = (uint64_t)magnitude;
        if ((double)integer != magnitude) return 0;
        at = put_digits(integer, end);
    } else { /* integral, and normal: 53 bits and an exponent */
        uint64_t bits;
        memcpy(&bits, &magnitude, sizeof bits);
        at = put_large((bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52, (int)(bits >> 52) - 1075, end);
    }
    if (number < 0) *--at = '-';
    size_t nbytes = (size_t)(end - at);
    memcpy(text, at, nbytes);
    text[nbytes] = '\0';
    return nbytes;
}
