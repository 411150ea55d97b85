/* The body of the row kernels (rows.h), included once per instruction set by a file that defines
 *   HR_ROWS_TARGET  the function attribute that selects the instruction set, or nothing
 *   HR_ROWS_LANES   floats in one of its vectors
 *   HR_ROWS_TABLE   the name of the table to define
 *   HR_ROWS_ISA     its name for people
 *   MIN_V, MAX_V    (optional) its minimum and maximum of two vectors, as x86 has them
 *   MULTIPLY_ADD_V  (optional) a * b + c of a number and two vectors, rounded once; defined where
 * multiply_impl.h fits: 32 registers, a panel of two vectors Vectors are the compiler's own vector types, and
 * the order of operations is the same everywhere.
 */
#include <string.h>

#include "kernels/onednn/rows.h"

#define ROWS_FN  static HR_ROWS_TARGET
#define ROWS_INL static inline __attribute__((always_inline)) HR_ROWS_TARGET

typedef float vf __attribute__((vector_size(HR_ROWS_LANES * 4), may_alias));
typedef int32_t vi __attribute__((vector_size(HR_ROWS_LANES * 4), may_alias));
typedef uint32_t vu __attribute__((vector_size(HR_ROWS_LANES * 4), may_alias));
typedef uint16_t vh __attribute__((vector_size(HR_ROWS_LANES * 2), may_alias));

enum { LANES = HR_ROWS_LANES };

ROWS_INL vf load(const float *x) {
    return *(const vf *)x;
}

/* Of two; the second where either is NaN. */
#ifndef MIN_V
ROWS_INL vf choose(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}
#define MIN_V(a, b) choose((a) < (b), a, b)
#define MAX_V(a, b) choose((a) > (b), a, b)
#endif

/* e^x with a relative error below 3e-7; |x| past 87 is clamped, NaN stays NaN. e^x = 2^n e^r with n the
 * nearest integer to x / ln 2: adding the magic number leaves n in the low bits, from where it is added to
 * the exponent of e^r. n ln 2 is taken off in two parts, the first of few bits so that its product is exact.
 * e^r, r in
 * [-ln 2 / 2, ln 2 / 2], is a minimax polynomial. */
ROWS_INL vf exp_v(vf x) {
    const float magic = 0x1.8p23f, limit = 87.0f;
    x = MIN_V((vf){0} + limit, MAX_V((vf){0} - limit, x));
    vf shifted = x * 1.44269504088896341f + magic;
    vf n = shifted - magic;
    vf r = x - n * 0x1.63p-1f;
    r = r + n * 0x1.bd0106p-13f;
    vf p = r * 0x1.10625p-7f + 0x1.572a64p-5f;
    p = p * r + 0x1.5557bp-3f;
    p = p * r + 0x1.fffdfcp-2f;
    p = p * (r * r) + (r + 1.0f);
    return (vf)((vu)p + ((vu)shifted << 23));
}

ROWS_INL vf sigmoid_v(vf x) {
    return 1.0f / (1.0f + exp_v(-x));
}

ROWS_INL vf activate(hr_activation activation, vf x) {
    if (activation == HR_ACTIVATION_SWISH) return x * sigmoid_v(x);
    return MAX_V((vf){0}, x); /* relu */
}

ROWS_INL vu round_bits(vf x) {
    vu bits = (vu)x;
    vu rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    vu nan = (vu)(x != x);
    return ((nan & (bits | 0x400000u)) | (~nan & rounded)) & 0xffff0000u;
}

ROWS_INL void put(hr_operand operand, void *y, size_t at, vf value) {
    if (operand == HR_OPERAND_F32) {
        *(vf *)((float *)y + at) = value;
    } else {
        *(vh *)((uint16_t *)y + at) = __builtin_convertvector(round_bits(value) >> 16, vh);
    }
}

ROWS_INL float lanes_sum(vf x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

ROWS_INL void store_as(hr_operand operand, const float *x, size_t ld_x, void *y, size_t ld_y, uint32_t n_cols,
                       uint32_t n_rows) {
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t c = 0; c < n_cols; c += LANES) put(operand, y, r * ld_y + c, load(x + r * ld_x + c));
    }
}

ROWS_FN void rows_store(hr_operand operand, const float *x, size_t ld_x, void *y, size_t ld_y,
                        uint32_t n_cols, uint32_t n_rows) {
    if (operand == HR_OPERAND_F32)
        store_as(HR_OPERAND_F32, x, ld_x, y, ld_y, n_cols, n_rows);
    else
        store_as(HR_OPERAND_BF16, x, ld_x, y, ld_y, n_cols, n_rows);
}

ROWS_INL vf finished(hr_gemm_activation activation, vf x) {
    if (activation == HR_GEMM_LINEAR) return x;
    return activate(activation == HR_GEMM_RELU ? HR_ACTIVATION_RELU : HR_ACTIVATION_SWISH, x);
}

ROWS_INL void finish_as(hr_operand operand, hr_gemm_activation activation, const hr_finish_args *a) {
    for (size_t r = 0; r < a->n_rows; r++) {
        size_t at = r * a->width;
        if (a->shared) {
            const float *shared = a->shared + (size_t)a->slice_of[r] * a->width;
            for (size_t c = 0; c < a->width; c += LANES) {
                put(operand, a->y, at + c, finished(activation, load(a->x + at + c) + load(shared + c)));
            }
        } else {
            for (size_t c = 0; c < a->width; c += LANES) {
                put(operand, a->y, at + c, finished(activation, load(a->x + at + c)));
            }
        }
    }
}

ROWS_INL void finish_operand(hr_operand operand, const hr_finish_args *args) {
    switch (args->activation) {
    case HR_GEMM_LINEAR: finish_as(operand, HR_GEMM_LINEAR, args); break;
    case HR_GEMM_RELU: finish_as(operand, HR_GEMM_RELU, args); break;
    case HR_GEMM_SWISH: finish_as(operand, HR_GEMM_SWISH, args); break;
    }
}

ROWS_FN void rows_finish(hr_operand operand, const hr_finish_args *args) {
    if (operand == HR_OPERAND_F32)
        finish_operand(HR_OPERAND_F32, args);
    else
        finish_operand(HR_OPERAND_BF16, args);
}

/* `count` <= LANES of z in a vector, the other lanes `fill`. */
ROWS_INL vf load_part(const float *z, uint32_t count, float fill) {
    vf x;
    for (uint32_t i = 0; i < LANES; i++) x[i] = i < count ? z[i] : fill;
    return x;
}

ROWS_INL void segment_softmax(float *z, uint32_t count) {
    float max = z[0];
    for (uint32_t i = 1; i < count; i++) max = z[i] > max ? z[i] : max;
    vf sum = {0};
    for (uint32_t i = 0; i < count; i += LANES) {
        uint32_t part = count - i < LANES ? count - i : LANES;
        vf e = exp_v(load_part(z + i, part, max) - max);
        for (uint32_t k = 0; k < part; k++) z[i + k] = e[k];
        for (uint32_t k = part; k < LANES; k++) e[k] = 0;
        sum += e;
    }
    float scale = 1.0f / lanes_sum(sum);
    for (uint32_t i = 0; i < count; i++) z[i] *= scale;
}

ROWS_INL void segment_sigmoid(float *z, uint32_t count) {
    for (uint32_t i = 0; i < count; i += LANES) {
        uint32_t part = count - i < LANES ? count - i : LANES;
        vf s = sigmoid_v(load_part(z + i, part, 0));
        for (uint32_t k = 0; k < part; k++) z[i + k] = s[k];
    }
}

ROWS_FN void rows_gates(float *logits, size_t ld, const hr_gate_segment *segments, uint32_t n_segments,
                        uint32_t n_rows) {
    for (size_t r = 0; r < n_rows; r++) {
        for (uint32_t s = 0; s < n_segments; s++) {
            float *z = logits + r * ld + segments[s].offset;
            if (segments[s].sigmoid) {
                segment_sigmoid(z, segments[s].count);
            } else {
                segment_softmax(z, segments[s].count);
            }
        }
    }
}

ROWS_INL void feature_gate_as(hr_operand operand, const hr_feature_gate_args *a) {
    for (size_t r = 0; r < a->n_rows; r++) {
        const float *p = a->p + r * a->ld_p;
        for (size_t c = 0; c < a->n_cols; c += LANES) {
            const float *up = a->up + r * a->n_cols + c;
            vf f = p[0] * sigmoid_v(load(up));
            for (uint32_t l = 1; l < a->loras; l++) f += p[l] * sigmoid_v(load(up + l * a->branch));
            put(operand, a->y, r * a->ld_y + c, load(a->x + r * a->ld_x + c) * (2.0f * f));
        }
    }
}

ROWS_FN void rows_feature_gate(hr_operand operand, const hr_feature_gate_args *args) {
    if (operand == HR_OPERAND_F32)
        feature_gate_as(HR_OPERAND_F32, args);
    else
        feature_gate_as(HR_OPERAND_BF16, args);
}

/* The columns past `width` hold zeros: they add nothing to the sum, but must not enter the variance. */
ROWS_INL float norm_variance(const float *x, float mean, uint32_t width) {
    vf sum = {0};
    uint32_t whole = width / LANES * LANES;
    for (uint32_t c = 0; c < whole; c += LANES) {
        vf d = load(x + c) - mean;
        sum += d * d;
    }
    if (whole < width) {
        vf d = load_part(x + whole, width - whole, mean) - mean;
        sum += d * d;
    }
    return lanes_sum(sum) / (float)width;
}

ROWS_FN void rows_norm(hr_operand operand, const hr_norm_args *a) {
    uint32_t padded = hr_padded(a->width);
    for (size_t r = 0; r < a->n_rows; r++) {
        const float *x = a->x + r * padded;
        vf sum = {0};
        for (uint32_t c = 0; c < padded; c += LANES) sum += load(x + c);
        float mean = lanes_sum(sum) / (float)a->width;
        float scale = 1.0f / __builtin_sqrtf(norm_variance(x, mean, a->width) + a->eps);
        for (uint32_t c = 0; c < padded; c += LANES) {
            vf h = (load(x + c) - mean) * scale * load(a->weight + c) + load(a->bias + c);
            put(operand, a->y, r * padded + c, activate(a->activation, h));
        }
    }
}

/* n_vectors vectors of one row of y: their sums stay in registers while the terms pass. */
ROWS_INL void mix_part(const hr_mix_term *terms, uint32_t n_terms, const float *gates, size_t at, float *y,
                       int n_vectors) {
    vf sum[4] = {{0}};
    for (uint32_t j = 0; j < n_terms; j++) {
        float weight = terms[j].gate < 0 ? 1.0f : gates[terms[j].gate];
        const float *e = terms[j].expert + at;
        for (int i = 0; i < n_vectors; i++) sum[i] += weight * load(e + i * LANES);
    }
    for (int i = 0; i < n_vectors; i++) *(vf *)(y + at + i * LANES) = sum[i];
}

ROWS_FN void rows_mix(const hr_mix_term *terms, uint32_t n_terms, const float *gates, size_t ld_gates,
                      float *y, uint32_t width, uint32_t n_rows) {
    for (size_t r = 0; r < n_rows; r++) {
        const float *row_gates = gates ? gates + r * ld_gates : NULL;
        uint32_t c = 0;
        for (; c + 4 * LANES <= width; c += 4 * LANES)
            mix_part(terms, n_terms, row_gates, r * width + c, y, 4);
        for (; c < width; c += LANES) mix_part(terms, n_terms, row_gates, r * width + c, y, 1);
    }
}

ROWS_FN void rows_logit(const float *x, const float *weight, float bias, float *y, size_t ld_y,
                        uint32_t width, uint32_t n_rows) {
    for (size_t r = 0; r < n_rows; r++) {
        vf sum = {0};
        for (uint32_t c = 0; c < width; c += LANES) sum += load(x + r * width + c) * load(weight + c);
        y[r * ld_y] = lanes_sum(sum) + bias;
    }
}

#ifdef MULTIPLY_ADD_V
#include "kernels/onednn/multiply_impl.h"
#endif

extern const hr_rows_i HR_ROWS_TABLE;
const hr_rows_i HR_ROWS_TABLE = {
    .isa = HR_ROWS_ISA,
    .store = rows_store,
    .finish = rows_finish,
    .gates = rows_gates,
    .feature_gate = rows_feature_gate,
    .norm = rows_norm,
    .mix = rows_mix,
    .logit = rows_logit,
#ifdef MULTIPLY_ADD_V
    .multiply = rows_multiply,
#endif
};
