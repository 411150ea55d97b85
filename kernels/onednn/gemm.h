/* The matrix products of a network: y (M, n) = act(x (M, k) W^T + b).
 *
 * Where all operands are f32 and the row kernels have a product of their own (rows.h, `multiply`: AVX-512),
 * it is used: it takes any number of rows. Elsewhere oneDNN's primitives are.
 *
 * One hr_gemm per distinct shape holds one primitive per block size M. Sources, destinations and weights are
 * dense; x's rows and W's are padded to HR_PAD elements. A set is immutable once made and may be used by many
 * threads, each with its own scratchpad and stream; every such thread has called omp_set_num_threads(1).
 *
 * Which primitive: oneDNN's blocked matmul ("brgemm") where the CPU has it (AVX-512, AMX), else a 1x1
 * convolution whose pixels are the rows. On AVX2 oneDNN's matmul packs the weights again in every call and
 * reaches 45 to 95 % of what the convolution does, which packs them once, at load. A convolution leaves Swish
 * to the row kernels, which need a third of the time of its own.
 */
#ifndef HOMERANK_KERNELS_ONEDNN_GEMM_H
#define HOMERANK_KERNELS_ONEDNN_GEMM_H

#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>

#include "base/status.h"
#include "kernels/onednn/rows.h"

enum { HR_GEMM_MAX_SIZES = 8, HR_GEMM_MAX_ROWS = 132 }; /* block sizes, and rows of the largest */

typedef struct hr_gemm_spec {
    uint32_t k, n; /* padded */
    hr_gemm_activation activation;
    hr_operand x, y; /* kinds of the rows read (and so of the weights) and written */
} hr_gemm_spec;

typedef struct hr_gemm {
    hr_gemm_spec spec;
    bool convolution;
    bool activates;             /* the product itself applies the activation */
    dnnl_memory_desc_t weights; /* as packed */
    struct {
        dnnl_primitive_t primitive;
        dnnl_memory_desc_t x, y, scratchpad;
    } at[HR_GEMM_MAX_SIZES];
} hr_gemm;

typedef struct hr_gemm_set {
    dnnl_engine_t engine;
    uint32_t sizes[HR_GEMM_MAX_SIZES]; /* block sizes M, ascending */
    uint32_t n_sizes;
    const hr_rows_i *own; /* whose `multiply` all products are; then sizes has the most rows alone */
    hr_gemm *gemms;       /* (n_gemms), as the specs given */
    uint32_t n_gemms;
    size_t scratchpad_nbytes; /* the most that one call needs */
} hr_gemm_set;

/* One product's weights, packed: W and b. */
typedef struct hr_gemm_weights {
    dnnl_memory_t weight, bias;
    float *bias_data;
    float *panels; /* borrowed; of an own product, then weight and bias are NULL */
} hr_gemm_weights;

/* One call, ready to run: every memory object is bound. */
typedef struct hr_gemm_call {
    const hr_rows_i *own; /* NULL: the primitive is run */
    hr_multiply_args multiply;
    dnnl_primitive_t primitive; /* borrowed */
    dnnl_exec_arg_t args[5];
} hr_gemm_call;

/* Makes the primitives of the specs (n) and finds block sizes at which every one of them gives a row the same
 * bits at any size and place (see gemm_check.c). Sizes past max_rows are left out, but never the smallest. A
 * set of own products has neither: its one size is the most rows they are given.
 * *set is NULL, with HR_OK, where specs want BF16 and this CPU does not multiply it natively, right, and
 * faster than f32. Errors: OUT_OF_MEMORY, DEVICE. */
hr_status hr_gemm_set_create(const hr_gemm_spec *specs, uint32_t n, uint32_t max_rows, hr_gemm_set **set,
                             hr_error *err);
void hr_gemm_set_destroy(hr_gemm_set *set); /* NULL is allowed */

/* The floats that a product's weights take among the panels of all; 0 where oneDNN keeps them. */
size_t hr_gemm_panels_count(const hr_gemm_set *set, uint32_t gemm);

/* Packs weight (n, k) and bias (n), both padded with zeros; panels: the memory for the product's, borrowed.
 */
hr_status hr_gemm_pack(const hr_gemm_set *set, uint32_t gemm, const float *weight, const float *bias,
                       float *panels, hr_gemm_weights *packed, hr_error *err);
void hr_gemm_weights_destroy(hr_gemm_weights *packed);

/* Binds a call of block size sizes[size] to its memory, all borrowed. */
hr_status hr_gemm_bind(const hr_gemm_set *set, uint32_t gemm, uint32_t size, const hr_gemm_weights *packed,
                       void *x, void *y, void *scratchpad, hr_gemm_call *call, hr_error *err);
void hr_gemm_call_destroy(hr_gemm_call *call);

/* Tells a call which one comes next, so that it fetches that one's weights. */
void hr_gemm_follow(hr_gemm_call *call, const hr_gemm_call *next);

/* n_rows: the call's block size; of an own product any number up to it. */
hr_status hr_gemm_run(const hr_gemm_call *call, uint32_t n_rows, dnnl_stream_t stream, hr_error *err);

/* What oneDNN found this CPU to be, e.g. "avx2". */
const char *hr_gemm_isa(void);

/* A failed oneDNN call as an error: OUT_OF_MEMORY or DEVICE. */
hr_status hr__dnnl_error(hr_error *err, dnnl_status_t status, const char *what);

/* Forgets sizes[size] and its primitives. */
void hr__gemm_set_drop_size(hr_gemm_set *set, uint32_t size);

/* Whether row bits agree between all sizes and places; drops the sizes that do not. False where even one
 * size's own rows depend on their place. */
hr_status hr__gemm_set_check_rows(hr_gemm_set *set, bool *invariant, hr_error *err);

/* Whether the native bf16 products are right: against the products of rounded operands. */
hr_status hr__gemm_set_check_bf16(hr_gemm_set *set, bool *right, hr_error *err);

#endif
