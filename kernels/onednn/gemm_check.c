/* Load-time checks of the matrix products on the network's own shapes.
 *
 * Batch invariance (MODEL.md 5) asks that a row's bits depend neither on the block size nor on the row's
 * place in the block. oneDNN promises neither, so both are tried here: the largest size runs on random rows
 * and again on the same rows moved by one place, which puts every neighbouring pair of places beside each
 * other; every smaller size then runs over the same rows, moved and not, and must give the same bits. A size
 * that does not agree is dropped.
 *
 * Native bf16 products must also be right: some rows are compared with products of the same rounded operands
 * in double.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/gemm.h"
#include "kernels/onednn/memory.h"

enum { BF16_ROWS = 4 };
#define BF16_TOLERANCE 1e-2 /* relative to 1 + |y|; a bf16 result alone is off by 2e-3 */

/* The memory of one check. M is the largest block size. */
typedef struct check {
    hr_gemm_set *set;
    const hr_gemm *gemm;
    uint32_t index; /* of gemm */
    hr_gemm_weights packed;
    float *weight;       /* (n, k), as packed */
    float *bias;         /* (n) */
    uint8_t *x;          /* (M, k) of the spec's kind */
    uint8_t *moved;      /* (M, k): one block of x, moved by one place */
    uint8_t *y, *y_want; /* (M, n) */
    void *scratchpad;
    size_t x_row, y_row; /* bytes */
    dnnl_stream_t stream;
} check;

static void check_clear(check *c) {
    if (c->stream) dnnl_stream_destroy(c->stream);
    hr_gemm_weights_destroy(&c->packed);
    free(c->weight);
    free(c->bias);
    free(c->x);
    free(c->moved);
    free(c->y);
    free(c->y_want);
    free(c->scratchpad);
    memset(c, 0, sizeof *c);
}

/* Uniform in [-1, 1): the sums of products are rounded, so another order of summation shows. */
static float draw(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

static void fill(float *x, size_t n, float scale, bool rounded, uint64_t *state) {
    for (size_t i = 0; i < n; i++) {
        float value = scale * draw(state);
        x[i] = rounded ? hr_bf16_round(value) : value;
    }
}

/* Random weights and rows for one product, from a fixed seed. */
static hr_status check_init(check *c, hr_gemm_set *set, uint32_t index, hr_error *err) {
    memset(c, 0, sizeof *c);
    const hr_gemm *gemm = &set->gemms[index];
    const hr_gemm_spec *spec = &gemm->spec;
    size_t m = set->sizes[set->n_sizes - 1], k = spec->k, n = spec->n;
    uint64_t state = 1;
    c->set = set, c->gemm = gemm, c->index = index;
    c->x_row = k * hr_operand_nbytes(spec->x);
    c->y_row = n * hr_operand_nbytes(spec->y);
    c->weight = hr__lines_alloc(n * k * sizeof(float));
    c->bias = hr__lines_alloc(n * sizeof(float));
    c->x = hr__lines_alloc(m * c->x_row);
    c->moved = hr__lines_alloc(m * c->x_row);
    c->y = hr__lines_alloc(m * c->y_row);
    c->y_want = hr__lines_alloc(m * c->y_row);
    c->scratchpad = hr__lines_alloc(set->scratchpad_nbytes);
    float *rows = hr__lines_alloc(m * k * sizeof(float));
    hr_status status = HR_OK;
    if (!c->weight || !c->bias || !c->x || !c->moved || !c->y || !c->y_want || !c->scratchpad || !rows) {
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory checking a product of %zu by %zu", k, n);
        goto done;
    }
    fill(c->weight, n * k, 1.0f, spec->x == HR_OPERAND_BF16, &state);
    fill(c->bias, n, 1.0f, false, &state);
    fill(rows, m * k, 1.0f, false, &state);
    hr_rows_select()->store(spec->x, rows, k, c->x, k, (uint32_t)k, (uint32_t)m);
    dnnl_status_t dnnl = dnnl_stream_create(&c->stream, set->engine, dnnl_stream_default_flags);
    if (dnnl != dnnl_success) {
        status = hr__dnnl_error(err, dnnl, "creating a stream");
        goto done;
    }
    status = hr_gemm_pack(set, index, c->weight, c->bias, NULL, &c->packed, err);
done:
    free(rows);
    if (status != HR_OK) check_clear(c);
    return status;
}

static hr_status run(check *c, uint32_t size, uint8_t *x, uint8_t *y, hr_error *err) {
    hr_gemm_call call;
    hr_status status = hr_gemm_bind(c->set, c->index, size, &c->packed, x, y, c->scratchpad, &call, err);
    if (status != HR_OK) return status;
    status = hr_gemm_run(&call, c->set->sizes[size], c->stream, err);
    hr_gemm_call_destroy(&call);
    return status;
}

/* Runs rows [first, first + m) of x, each `by` places further (the last ones come round to the front), and
 * compares them with y_want. */
static hr_status compare_moved(check *c, uint32_t size, uint32_t first, uint32_t by, bool *same,
                               hr_error *err) {
    uint32_t m = c->set->sizes[size];
    for (uint32_t r = 0; r < m; r++) {
        memcpy(c->moved + (r + by) % m * c->x_row, c->x + (first + r) * c->x_row, c->x_row);
    }
    hr_status status = run(c, size, c->moved, c->y, err);
    for (uint32_t r = 0; status == HR_OK && r < m; r++) {
        if (memcmp(c->y + (r + by) % m * c->y_row, c->y_want + (first + r) * c->y_row, c->y_row))
            *same = false;
    }
    return status;
}

/* agrees[i]: whether size i gives the largest size's bits, for this product too. */
static hr_status check_product(hr_gemm_set *set, uint32_t index, bool *agrees, hr_error *err) {
    check c;
    uint32_t largest = set->n_sizes - 1;
    hr_status status = check_init(&c, set, index, err);
    if (status != HR_OK) return status;
    status = run(&c, largest, c.x, c.y_want, err);
    for (uint32_t size = 0; status == HR_OK && size < set->n_sizes; size++) {
        uint32_t m = set->sizes[size];
        for (uint32_t first = 0; status == HR_OK && first + m <= set->sizes[largest]; first += m) {
            status = compare_moved(&c, size, first, 0, &agrees[size], err);
            if (status == HR_OK) status = compare_moved(&c, size, first, 1, &agrees[size], err);
        }
    }
    check_clear(&c);
    return status;
}

hr_status hr__gemm_set_check_rows(hr_gemm_set *set, bool *invariant, hr_error *err) {
    *invariant = false;
    while (set->n_sizes > 0) {
        bool agrees[HR_GEMM_MAX_SIZES];
        memset(agrees, true, sizeof agrees);
        for (uint32_t i = 0; i < set->n_gemms; i++) {
            hr_status status = check_product(set, i, agrees, err);
            if (status != HR_OK) return status;
        }
        uint32_t largest = set->n_sizes - 1;
        if (agrees[largest]) {
            *invariant = true;
            for (uint32_t size = largest; size-- > 0;) {
                if (!agrees[size]) hr__gemm_set_drop_size(set, size);
            }
            break;
        }
        hr__gemm_set_drop_size(set, largest); /* it disagrees with itself: judge the others by the next */
    }
    return HR_OK;
}

static float bf16_at(const uint8_t *row, size_t i) {
    uint16_t half;
    memcpy(&half, row + 2 * i, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double expected(const check *c, uint32_t row, uint32_t column) {
    const hr_gemm_spec *spec = &c->gemm->spec;
    double sum = c->bias[column];
    for (uint32_t i = 0; i < spec->k; i++) {
        sum += (double)bf16_at(c->x + row * c->x_row, i) * c->weight[(size_t)column * spec->k + i];
    }
    if (spec->activation == HR_GEMM_RELU) return sum > 0 ? sum : 0;
    return spec->activation == HR_GEMM_SWISH ? sum / (1 + exp(-sum)) : sum;
}

static float result_at(const check *c, uint32_t row, uint32_t column) {
    const uint8_t *y = c->y + row * c->y_row;
    float value;
    if (c->gemm->spec.y == HR_OPERAND_BF16) return bf16_at(y, column);
    memcpy(&value, y + column * sizeof value, sizeof value);
    return value;
}

static bool product_right(const check *c, uint32_t n_rows) {
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t column = 0; column < c->gemm->spec.n; column++) {
            double want = expected(c, r, column);
            if (!(fabs(result_at(c, r, column) - want) <= BF16_TOLERANCE * (1 + fabs(want)))) return false;
        }
    }
    return true;
}

hr_status hr__gemm_set_check_bf16(hr_gemm_set *set, bool *right, hr_error *err) {
    *right = true;
    uint32_t largest = set->n_sizes - 1;
    uint32_t n_rows = set->sizes[largest] < BF16_ROWS ? set->sizes[largest] : BF16_ROWS;
    for (uint32_t i = 0; *right && i < set->n_gemms; i++) {
        check c;
        if (set->gemms[i].spec.x != HR_OPERAND_BF16) continue;
        hr_status status = check_init(&c, set, i, err);
        if (status != HR_OK) return status;
        status = run(&c, largest, c.x, c.y, err);
        if (status == HR_OK) *right = product_right(&c, n_rows);
        check_clear(&c);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}
