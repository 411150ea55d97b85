/* The body of `multiply` (rows.h), for instruction sets with 32 vector registers; included behind
 * rows_impl.h.
 *
 * A tile of TILE_ROWS rows by one panel keeps its sums in registers: 24 of them, so that the additions of one
 * hide behind the others', and two loads of W serve 24 multiplications. Panels are taken in turn, all rows
 * with each: the block's rows stay in L2, and while a panel is multiplied the next one is fetched there.
 * Without that the weights, which pass once a block and come from a slow last-level cache or from memory,
 * cost a fifth of the time (measured on a server CPU of 2023: 131 GFLOP/s, 168 with it, of 170 possible).
 */
_Static_assert(2 * LANES == (int)HR_PANEL_WIDTH && LANES == (int)HR_PAD,
               "a panel is two vectors, padding is one");

enum { TILE_ROWS = 12, STEP = HR_PAD /* of k between fetches */, LINE_FLOATS = 16 };

/* What a tile fetches: `lines` cache lines from `at` on in every step. Of the next product's first panel it
 * is as much as this one's last is long. */
typedef struct fetching {
    const float *at;
    uint32_t lines;
} fetching;

/* n_rows and n_vectors (of the panel's width) are constants where this is inlined. */
ROWS_INL void multiply_tile(const hr_multiply_args *a, uint32_t row, uint32_t column, fetching fetch,
                            const uint32_t n_rows, const uint32_t n_vectors) {
    const size_t k = a->k, n = a->n;
    const float *x = a->x + row * k, *w = a->panels + column * k;
    float *y = a->y + row * n + column;
    vf sum[TILE_ROWS][2];
#pragma GCC unroll 12
    for (uint32_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 2
        for (uint32_t v = 0; v < n_vectors; v++) sum[r][v] = load(a->bias + column + v * LANES);
    }
    for (size_t i = 0; i < k; i += STEP) {
        for (uint32_t line = 0; line < fetch.lines; line++, fetch.at += LINE_FLOATS)
            __builtin_prefetch(fetch.at, 0, 2);
        for (size_t j = i; j < i + STEP; j++, w += n_vectors * LANES) {
#pragma GCC unroll 12
            for (uint32_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 2
                for (uint32_t v = 0; v < n_vectors; v++)
                    sum[r][v] = MULTIPLY_ADD_V(x[r * k + j], load(w + v * LANES), sum[r][v]);
            }
        }
    }
#pragma GCC unroll 12
    for (uint32_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 2
        for (uint32_t v = 0; v < n_vectors; v++)
            *(vf *)(y + r * n + v * LANES) = finished(a->activation, sum[r][v]);
    }
}

#define TILE_CASE(rows)                                                                                      \
    case rows: multiply_tile(a, row, column, fetch, rows, n_vectors); break;

ROWS_INL void multiply_rows(const hr_multiply_args *a, uint32_t row, uint32_t column, fetching fetch,
                            const uint32_t n_vectors) {
    switch (a->n_rows - row < TILE_ROWS ? a->n_rows - row : TILE_ROWS) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
        TILE_CASE(4)
        TILE_CASE(5)
        TILE_CASE(6)
        TILE_CASE(7)
        TILE_CASE(8)
        TILE_CASE(9)
        TILE_CASE(10)
        TILE_CASE(11)
        TILE_CASE(12)
    }
}

/* All rows by one panel; what its tiles fetch adds up to a panel's size. */
ROWS_INL void multiply_panel(const hr_multiply_args *a, uint32_t column, const uint32_t n_vectors) {
    const uint32_t width = n_vectors * LANES, n_tiles = (a->n_rows + TILE_ROWS - 1) / TILE_ROWS;
    const bool last = column + width == a->n;
    fetching fetch = {last ? a->next : a->panels + (size_t)(column + width) * a->k,
                      (width + n_tiles - 1) / n_tiles};
    for (uint32_t row = 0; row < a->n_rows; row += TILE_ROWS) {
        multiply_rows(a, row, column, fetch, n_vectors);
        fetch.at += (size_t)a->k / STEP * fetch.lines * LINE_FLOATS;
    }
}

ROWS_FN void rows_multiply(const hr_multiply_args *args) {
    uint32_t column = 0;
    if (args->n_rows == 0) return;
    for (; column + 2 * LANES <= args->n; column += 2 * LANES) multiply_panel(args, column, 2);
    if (column < args->n) multiply_panel(args, column, 1);
}
