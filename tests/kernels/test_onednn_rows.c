/* The row kernels of every instruction set that this CPU runs, against plain formulas in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "kernels/onednn/rows.h"
#include "tests/kernels/random_plan.h"

extern const hr_rows_i hr__rows_generic;

enum { N_ROWS = 3, WIDTH = 80 };
#define TOLERANCE 1e-6

static _Alignas(64) float x[4 * N_ROWS * WIDTH];
static _Alignas(64) float y[4 * N_ROWS * WIDTH];

/* The one for any CPU and the one that would serve here. */
static const hr_rows_i *tables(int i) {
    return i == 0 ? &hr__rows_generic : hr_rows_select();
}

static void fill(float *values, size_t n, double scale, uint64_t seed) {
    hr_random random = {seed};
    for (size_t i = 0; i < n; i++) values[i] = (float)(scale * hr_random_signed(&random));
}

static double sigmoid(double z) {
    return 1 / (1 + exp(-z));
}

static void assert_near(double found, double want) {
    if (!(fabs(found - want) <= TOLERANCE * fmax(1, fabs(want))))
        fail_msg("%.9g, expected %.9g", found, want);
}

/* Relative, far into the tails. */
static void swish_is_exact_to_a_few_ulp(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++) {
        for (double from = -80; from < 80; from += 5) {
            for (int i = 0; i < WIDTH; i++) x[i] = (float)(from + 5.0 * i / WIDTH);
            const hr_finish_args args = {
                .x = x, .activation = HR_GEMM_SWISH, .width = WIDTH, .n_rows = 1, .y = y};
            tables(t)->finish(HR_OPERAND_F32, &args);
            for (int i = 0; i < WIDTH; i++) {
                double want = x[i] * sigmoid(x[i]);
                if (!(fabs(y[i] - want) <= TOLERANCE * fabs(want)))
                    fail_msg("swish(%.9g) is %.9g", x[i], y[i]);
            }
        }
    }
}

static void activations_keep_extremes_and_nan(void **state) {
    (void)state;
    const float in[] = {-INFINITY, -1e30f, -0.0f, 0.0f, 1e30f, INFINITY, NAN};
    const float relu[] = {0, 0, 0, 0, 1e30f, INFINITY, NAN};
    for (int t = 0; t < 2; t++) {
        memset(x, 0, WIDTH * sizeof *x);
        memcpy(x, in, sizeof in);
        hr_finish_args args = {.x = x, .activation = HR_GEMM_RELU, .width = WIDTH, .n_rows = 1, .y = y};
        tables(t)->finish(HR_OPERAND_F32, &args);
        for (int i = 0; i < 6; i++) assert_true(y[i] == relu[i]);
        assert_true(isnan(y[6]));
        args.activation = HR_GEMM_SWISH;
        tables(t)->finish(HR_OPERAND_F32, &args);
        assert_true(fabsf(y[1]) < 1e-6f && y[2] == 0 && y[3] == 0);
        assert_true(y[4] == 1e30f && y[5] == INFINITY && isnan(y[6]));
    }
}

static void operands_are_rounded_to_even(void **state) {
    (void)state;
    const uint32_t in[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff,
                           0x7f7fffff, 0x7f800000, 0x7fc00001, 0xff800001};
    const uint32_t want[] = {0x3f800000, 0x3f820000, 0x3f810000, 0x3f800000,
                             0x7f800000, 0x7f800000, 0x7fc00000, 0xffc00000};
    for (int t = 0; t < 2; t++) {
        uint16_t half[HR_PAD];
        memset(x, 0, sizeof x);
        memcpy(x, in, sizeof in);
        _Alignas(64) uint16_t halves[HR_PAD];
        tables(t)->store(HR_OPERAND_BF16, x, WIDTH, halves, HR_PAD, HR_PAD, 1);
        memcpy(half, halves, sizeof half);
        for (int i = 0; i < 8; i++) assert_int_equal(half[i], want[i] >> 16);
        for (int i = 0; i < 8; i++) {
            float rounded = hr_bf16_round(x[i]);
            assert_memory_equal(&rounded, &want[i], sizeof rounded);
        }
    }
}

static void products_finish_with_their_slices_share(void **state) {
    (void)state;
    static _Alignas(64) float shared[2 * WIDTH];
    const uint32_t slice_of[N_ROWS] = {0, 1, 0};
    fill(x, N_ROWS * WIDTH, 4, 1);
    fill(shared, 2 * WIDTH, 4, 2);
    for (int t = 0; t < 2; t++) {
        const hr_finish_args args = {x, shared, slice_of, HR_GEMM_SWISH, WIDTH, N_ROWS, y};
        tables(t)->finish(HR_OPERAND_F32, &args);
        for (int i = 0; i < N_ROWS * WIDTH; i++) {
            double z = x[i] + shared[slice_of[i / WIDTH] * WIDTH + i % WIDTH];
            assert_near(y[i], z * sigmoid(z));
        }
    }
}

/* Segments of every length around the vectors', side by side; nothing beside them changes. */
static void gates_are_softmaxes_of_their_segments(void **state) {
    (void)state;
    hr_gate_segment segments[] = {{1, 1, false},   {3, 5, false}, {9, 16, false},
                                  {26, 33, false}, {60, 1, true}, {62, 17, true}};
    enum { N_SEGMENTS = sizeof segments / sizeof segments[0] };
    for (int t = 0; t < 2; t++) {
        fill(x, N_ROWS * WIDTH, 20, 3);
        memcpy(y, x, N_ROWS * WIDTH * sizeof *x);
        tables(t)->gates(y, WIDTH, segments, N_SEGMENTS, N_ROWS);
        for (int r = 0; r < N_ROWS; r++) {
            const float *z = x + r * WIDTH, *p = y + r * WIDTH;
            bool covered[WIDTH] = {false};
            for (int s = 0; s < N_SEGMENTS; s++) {
                uint32_t from = segments[s].offset, to = from + segments[s].count;
                double sum = 0;
                for (uint32_t i = from; i < to; i++) sum += exp(z[i]), covered[i] = true;
                for (uint32_t i = from; i < to; i++)
                    assert_near(p[i], segments[s].sigmoid ? sigmoid(z[i]) : exp(z[i]) / sum);
            }
            for (int i = 0; i < WIDTH; i++) assert_true(covered[i] || p[i] == z[i]);
        }
    }
}

static void feature_gates_weigh_their_branches(void **state) {
    (void)state;
    enum { L = 3, COLUMNS = 48 };
    enum { ROOM = N_ROWS + 2 }; /* for rows of a branch */
    static _Alignas(64) float up[L * ROOM * COLUMNS], p[N_ROWS * HR_PAD];
    fill(x, N_ROWS * WIDTH, 2, 4);
    fill(up, L * ROOM * COLUMNS, 6, 5);
    fill(p, N_ROWS * HR_PAD, 1, 6);
    for (int t = 0; t < 2; t++) {
        const hr_feature_gate_args args = {x,       WIDTH,  up, ROOM * COLUMNS, p, HR_PAD, L,
                                           COLUMNS, N_ROWS, y,  WIDTH};
        tables(t)->feature_gate(HR_OPERAND_F32, &args);
        for (int r = 0; r < N_ROWS; r++) {
            for (int c = 0; c < COLUMNS; c++) {
                double f = 0;
                for (int l = 0; l < L; l++)
                    f += p[r * HR_PAD + l] * 2 * sigmoid(up[(l * ROOM + r) * COLUMNS + c]);
                assert_near(y[r * WIDTH + c], x[r * WIDTH + c] * f);
            }
        }
    }
}

/* Widths that do and do not fill the padding: padding must not count. */
static void layer_norm_takes_real_columns_only(void **state) {
    (void)state;
    static _Alignas(64) float weight[WIDTH], bias[WIDTH];
    for (uint32_t width = 1; width <= WIDTH; width += 3) {
        uint32_t padded = hr_padded(width);
        memset(x, 0, sizeof x);
        memset(weight, 0, sizeof weight);
        memset(bias, 0, sizeof bias);
        fill(weight, width, 2, 7);
        fill(bias, width, 1, 8);
        for (uint32_t r = 0; r < N_ROWS; r++) fill(x + r * padded, width, 3, 9 + r);
        for (int t = 0; t < 2; t++) {
            const hr_norm_args args = {x, width, N_ROWS, weight, bias, 1e-2f, HR_ACTIVATION_RELU, y};
            tables(t)->norm(HR_OPERAND_F32, &args);
            for (uint32_t r = 0; r < N_ROWS; r++) {
                const float *h = x + r * padded;
                double mean = 0, variance = 0;
                for (uint32_t c = 0; c < width; c++) mean += h[c] / (double)width;
                for (uint32_t c = 0; c < width; c++) variance += (h[c] - mean) * (h[c] - mean) / width;
                for (uint32_t c = 0; c < padded; c++) {
                    double z = c < width ? (h[c] - mean) / sqrt(variance + 1e-2f) * weight[c] + bias[c] : 0;
                    assert_near(y[r * padded + c], fmax(0, z));
                }
            }
        }
    }
}

static void mixes_and_logits_are_weighted_sums(void **state) {
    (void)state;
    static _Alignas(64) float gates[N_ROWS * HR_PAD];
    fill(x, 2 * N_ROWS * WIDTH, 2, 20);
    fill(gates, N_ROWS * HR_PAD, 1, 21);
    const hr_mix_term terms[] = {{x, 2}, {x + N_ROWS * WIDTH, -1}, {x, 5}};
    for (int t = 0; t < 2; t++) {
        float logits[2 * N_ROWS] = {0};
        tables(t)->mix(terms, 3, gates, HR_PAD, y, WIDTH, N_ROWS);
        for (int i = 0; i < N_ROWS * WIDTH; i++) {
            const float *g = gates + i / WIDTH * HR_PAD;
            assert_near(y[i], (double)(g[2] + g[5]) * x[i] + x[N_ROWS * WIDTH + i]);
        }
        tables(t)->logit(x, x + N_ROWS * WIDTH, 0.5f, logits + 1, 2, WIDTH, N_ROWS);
        for (int r = 0; r < N_ROWS; r++) {
            double sum = 0.5;
            for (int c = 0; c < WIDTH; c++) sum += (double)x[r * WIDTH + c] * x[N_ROWS * WIDTH + c];
            assert_near(logits[2 * r + 1] / 100, sum / 100);
            assert_true(logits[2 * r] == 0);
        }
    }
}

/* ---- multiply ---- */

enum { MULTIPLY_ROWS = 30, MULTIPLY_K = 48, MULTIPLY_N = 80, GUARD = 16 };

typedef struct multiplication {
    _Alignas(64) float x[MULTIPLY_ROWS * MULTIPLY_K];
    _Alignas(64) float weight[MULTIPLY_N * MULTIPLY_K];
    _Alignas(64) float panels[MULTIPLY_N * MULTIPLY_K];
    _Alignas(64) float bias[MULTIPLY_N];
    _Alignas(64) float y[MULTIPLY_ROWS * MULTIPLY_N + GUARD];
} multiplication;

/* The product of rows [first, first + n_rows); what lies behind y stays as it was. */
static void multiply(const hr_rows_i *rows, multiplication *m, uint32_t first, uint32_t n_rows, uint32_t n,
                     hr_gemm_activation activation) {
    const hr_multiply_args args = {.x = m->x + (size_t)first * MULTIPLY_K,
                                   .panels = m->panels,
                                   .next = m->panels,
                                   .bias = m->bias,
                                   .activation = activation,
                                   .k = MULTIPLY_K,
                                   .n = n,
                                   .n_rows = n_rows,
                                   .y = m->y};
    for (size_t i = 0; i < sizeof m->y / sizeof m->y[0]; i++) m->y[i] = 77;
    hr_panels_pack(m->weight, n, MULTIPLY_K, m->panels);
    rows->multiply(&args);
    for (size_t i = (size_t)n_rows * n; i < sizeof m->y / sizeof m->y[0]; i++) assert_true(m->y[i] == 77);
}

static double product_at(const multiplication *m, uint32_t r, uint32_t c, hr_gemm_activation activation) {
    double sum = m->bias[c];
    for (int i = 0; i < MULTIPLY_K; i++)
        sum += (double)m->x[r * MULTIPLY_K + i] * m->weight[c * MULTIPLY_K + i];
    if (activation == HR_GEMM_LINEAR) return sum;
    return activation == HR_GEMM_RELU ? fmax(sum, 0) : sum * sigmoid(sum);
}

/* Every number of rows, so every tile; panels of one and of two vectors. A row's bits are those it has alone.
 */
static void products_do_not_depend_on_the_other_rows(void **state) {
    (void)state;
    static multiplication m;
    static float alone[MULTIPLY_ROWS * MULTIPLY_N];
    const hr_rows_i *rows = hr_rows_select();
    if (rows->multiply == NULL) skip();
    fill(m.x, MULTIPLY_ROWS * MULTIPLY_K, 1, 21);
    fill(m.weight, MULTIPLY_N * MULTIPLY_K, 1, 22);
    fill(m.bias, MULTIPLY_N, 1, 23);
    for (uint32_t n = HR_PAD; n <= MULTIPLY_N; n += HR_PAD) {
        for (hr_gemm_activation activation = HR_GEMM_LINEAR; activation <= HR_GEMM_SWISH; activation++) {
            for (uint32_t r = 0; r < MULTIPLY_ROWS; r++) {
                multiply(rows, &m, r, 1, n, activation);
                memcpy(alone + r * n, m.y, n * sizeof(float));
                for (uint32_t c = 0; c < n; c++)
                    assert_near(m.y[c] / 10, product_at(&m, r, c, activation) / 10);
            }
            for (uint32_t n_rows = 0; n_rows <= MULTIPLY_ROWS; n_rows++) {
                uint32_t first = MULTIPLY_ROWS - n_rows;
                multiply(rows, &m, first, n_rows, n, activation);
                assert_memory_equal(m.y, alone + first * n, n_rows * n * sizeof(float));
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_do_not_depend_on_the_other_rows),
        cmocka_unit_test(swish_is_exact_to_a_few_ulp),
        cmocka_unit_test(activations_keep_extremes_and_nan),
        cmocka_unit_test(operands_are_rounded_to_even),
        cmocka_unit_test(products_finish_with_their_slices_share),
        cmocka_unit_test(gates_are_softmaxes_of_their_segments),
        cmocka_unit_test(feature_gates_weigh_their_branches),
        cmocka_unit_test(layer_norm_takes_real_columns_only),
        cmocka_unit_test(mixes_and_logits_are_weighted_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
