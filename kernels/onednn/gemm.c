/* The network's matrix products, our own or oneDNN's primitives; see gemm.h. */
#include "kernels/onednn/gemm.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Candidate block sizes (onednn.c says why these). bf16's start at 8: with fewer rows oneDNN takes another
 * kernel. */
static const uint32_t SIZES_F32[] = {1, 4, 8, 16, 32, 64, 128};
static const uint32_t SIZES_BF16[] = {8, 16, 32, 64, 128};

typedef struct gemm_try {
    bool bf16;        /* with native bf16 products among them */
    bool convolution; /* prefer it */
    const uint32_t *sizes;
    uint32_t n_sizes;
} gemm_try;

hr_status hr__dnnl_error(hr_error *err, dnnl_status_t status, const char *what) {
    if (status == dnnl_out_of_memory)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "oneDNN: %s: out of memory", what);
    return hr_error_set(err, HR_DEVICE, "oneDNN: %s failed with status %d", what, (int)status);
}

const char *hr_gemm_isa(void) {
    switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41: return "sse4.1";
    case dnnl_cpu_isa_avx: return "avx";
    case dnnl_cpu_isa_avx2: return "avx2";
    case dnnl_cpu_isa_avx2_vnni: return "avx2 with vnni";
    case dnnl_cpu_isa_avx512_core: return "avx512";
    case dnnl_cpu_isa_avx512_core_vnni: return "avx512 with vnni";
    case dnnl_cpu_isa_avx512_core_bf16: return "avx512 with bf16";
    case dnnl_cpu_isa_avx512_core_amx: return "amx";
    default: return "generic";
    }
}

/* ---- Descriptors ---- */

static dnnl_status_t attr_create(const hr_gemm *gemm, dnnl_primitive_attr_t *attr) {
    const hr_gemm_spec *spec = &gemm->spec;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && gemm->activates) {
        dnnl_alg_kind_t kind = spec->activation == HR_GEMM_RELU ? dnnl_eltwise_relu : dnnl_eltwise_swish;
        float alpha = spec->activation == HR_GEMM_RELU ? 0.0f : 1.0f;
        status = dnnl_post_ops_create(&ops);
        if (status == dnnl_success) status = dnnl_post_ops_append_eltwise(ops, 1.0f, kind, alpha, 0.0f);
        if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(*attr, ops);
        if (ops) dnnl_post_ops_destroy(ops);
    }
    return status;
}

static dnnl_data_type_t type_of(hr_operand operand) {
    return operand == HR_OPERAND_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* wei: the packed layout if one is set already (every block size reads the same weights), else any. */
static dnnl_status_t matmul_desc(const hr_gemm_set *set, const hr_gemm *gemm, uint32_t m,
                                 dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *pd) {
    const hr_gemm_spec *s = &gemm->spec;
    dnnl_data_type_t in = type_of(s->x), out = type_of(s->y);
    dnnl_memory_desc_t x, w = gemm->weights, b, y;
    dnnl_matmul_desc_t desc;
    dnnl_memory_desc_init_by_tag(&x, 2, (dnnl_dims_t){m, s->k}, in, dnnl_ab);
    if (w.ndims == 0) dnnl_memory_desc_init_by_tag(&w, 2, (dnnl_dims_t){s->k, s->n}, in, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&b, 2, (dnnl_dims_t){1, s->n}, dnnl_f32, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&y, 2, (dnnl_dims_t){m, s->n}, out, dnnl_ab);
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, &x, &w, &b, &y);
    if (status != dnnl_success) return status;
    return dnnl_primitive_desc_create(pd, &desc, attr, set->engine, NULL);
}

static dnnl_status_t convolution_desc(const hr_gemm_set *set, const hr_gemm *gemm, uint32_t m,
                                      dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *pd) {
    const hr_gemm_spec *s = &gemm->spec;
    dnnl_data_type_t in = type_of(s->x), out = type_of(s->y);
    dnnl_memory_desc_t x, w = gemm->weights, b, y;
    dnnl_convolution_desc_t desc;
    dnnl_memory_desc_init_by_tag(&x, 4, (dnnl_dims_t){1, s->k, 1, m}, in, dnnl_nhwc);
    if (w.ndims == 0) {
        dnnl_memory_desc_init_by_tag(&w, 4, (dnnl_dims_t){s->n, s->k, 1, 1}, in, dnnl_format_tag_any);
    }
    dnnl_memory_desc_init_by_tag(&b, 1, (dnnl_dims_t){s->n}, dnnl_f32, dnnl_a);
    dnnl_memory_desc_init_by_tag(&y, 4, (dnnl_dims_t){1, s->n, 1, m}, out, dnnl_nhwc);
    const dnnl_dims_t one = {1, 1}, zero = {0, 0};
    dnnl_status_t status = dnnl_convolution_forward_desc_init(
        &desc, dnnl_forward_inference, dnnl_convolution_direct, &x, &w, &b, &y, one, zero, zero);
    if (status != dnnl_success) return status;
    return dnnl_primitive_desc_create(pd, &desc, attr, set->engine, NULL);
}

static bool implemented_by(const_dnnl_primitive_desc_t pd, const char *part) {
    const char *name = NULL;
    return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           strstr(name, part);
}

/* ---- Primitives ---- */

static dnnl_status_t primitive_create(hr_gemm_set *set, hr_gemm *gemm, uint32_t size) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = attr_create(gemm, &attr);
    if (status != dnnl_success) goto done;
    status = (gemm->convolution ? convolution_desc : matmul_desc)(set, gemm, set->sizes[size], attr, &pd);
    if (status != dnnl_success) goto done;
    if (gemm->spec.x == HR_OPERAND_BF16 && !implemented_by(pd, "brg")) {
        status =
            dnnl_unimplemented; /* there is a bf16 product without bf16 instructions too: slower than f32's */
        goto done;
    }
    gemm->weights = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    gemm->at[size].x = *dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    gemm->at[size].y = *dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    gemm->at[size].scratchpad = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    size_t scratchpad = dnnl_memory_desc_get_size(&gemm->at[size].scratchpad);
    if (scratchpad > set->scratchpad_nbytes) set->scratchpad_nbytes = scratchpad;
    status = dnnl_primitive_create(&gemm->at[size].primitive, pd);
done:
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return status;
}

/* Whether a convolution is the better primitive: where the matmul is not oneDNN's blocked one. */
static bool wants_convolution(const hr_gemm_set *set, const hr_gemm *gemm) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    bool blocked_matmul = false, blocked_convolution = false;
    uint32_t m = set->sizes[set->n_sizes - 1];
    if (attr_create(gemm, &attr) != dnnl_success) goto done;
    if (matmul_desc(set, gemm, m, attr, &pd) == dnnl_success) {
        blocked_matmul = implemented_by(pd, "brg");
        dnnl_primitive_desc_destroy(pd);
    }
    if (!blocked_matmul && convolution_desc(set, gemm, m, attr, &pd) == dnnl_success) {
        blocked_convolution = implemented_by(pd, "jit_1x1") || implemented_by(pd, "brg");
        dnnl_primitive_desc_destroy(pd);
    }
done:
    if (attr) dnnl_primitive_attr_destroy(attr);
    return blocked_convolution;
}

/* All products at one size. */
static dnnl_status_t size_create(hr_gemm_set *set, uint32_t size) {
    dnnl_status_t status = dnnl_success;
    for (uint32_t i = 0; status == dnnl_success && i < set->n_gemms; i++) {
        status = primitive_create(set, &set->gemms[i], size);
    }
    return status;
}

/* The largest size first: it chooses how the weights are packed, for all. A smaller one that cannot read them
 * so is left out. */
static dnnl_status_t primitives_create(hr_gemm_set *set, bool convolution) {
    for (uint32_t i = 0; i < set->n_gemms; i++) {
        hr_gemm *gemm = &set->gemms[i];
        gemm->convolution = convolution && wants_convolution(set, gemm);
        gemm->activates = gemm->spec.activation != HR_GEMM_LINEAR &&
                          !(gemm->convolution && gemm->spec.activation == HR_GEMM_SWISH);
    }
    dnnl_status_t status = size_create(set, set->n_sizes - 1);
    for (uint32_t size = set->n_sizes - 1; status == dnnl_success && size-- > 0;) {
        status = size_create(set, size);
        if (status != dnnl_unimplemented) continue;
        hr__gemm_set_drop_size(set, size);
        status = dnnl_success;
    }
    return status;
}

void hr__gemm_set_drop_size(hr_gemm_set *set, uint32_t size) {
    for (uint32_t i = 0; i < set->n_gemms; i++) {
        hr_gemm *gemm = &set->gemms[i];
        if (gemm->at[size].primitive) dnnl_primitive_destroy(gemm->at[size].primitive);
        for (uint32_t s = size; s + 1 < set->n_sizes; s++) gemm->at[s] = gemm->at[s + 1];
        memset(&gemm->at[set->n_sizes - 1], 0, sizeof gemm->at[0]);
    }
    for (uint32_t s = size; s + 1 < set->n_sizes; s++) set->sizes[s] = set->sizes[s + 1];
    set->n_sizes--;
}

void hr_gemm_set_destroy(hr_gemm_set *set) {
    if (!set) return;
    for (uint32_t i = 0; set->gemms && i < set->n_gemms; i++) {
        for (uint32_t size = 0; size < HR_GEMM_MAX_SIZES; size++) {
            if (set->gemms[i].at[size].primitive) dnnl_primitive_destroy(set->gemms[i].at[size].primitive);
        }
    }
    free(set->gemms);
    if (set->engine) dnnl_engine_destroy(set->engine);
    free(set);
}

static hr_status set_alloc(const hr_gemm_spec *specs, uint32_t n, hr_gemm_set **result, hr_error *err) {
    hr_gemm_set *set = calloc(1, sizeof *set);
    if (!set || !(set->gemms = calloc(n ? n : 1, sizeof *set->gemms))) {
        free(set);
        return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %u matrix products", n);
    }
    set->n_gemms = n;
    for (uint32_t i = 0; i < n; i++) set->gemms[i].spec = specs[i];
    *result = set;
    return HR_OK;
}

/* Products of our own. Nothing is to be checked: an element's sum has the same order in every tile. */
static hr_status own_create(const hr_gemm_spec *specs, uint32_t n, uint32_t max_rows, hr_gemm_set **set,
                            hr_error *err) {
    hr_status status = set_alloc(specs, n, set, err);
    if (status != HR_OK) return status;
    (*set)->own = hr_rows_select();
    (*set)->n_sizes = 1;
    (*set)->sizes[0] = max_rows < 1 ? 1 : max_rows < HR_GEMM_MAX_ROWS ? max_rows : HR_GEMM_MAX_ROWS;
    for (uint32_t i = 0; i < n; i++) (*set)->gemms[i].activates = specs[i].activation != HR_GEMM_LINEAR;
    return HR_OK;
}

/* One attempt; *set stays NULL, with HR_OK, where this CPU cannot do it or does it wrong. */
static hr_status set_try(const hr_gemm_spec *specs, uint32_t n, const gemm_try *how, uint32_t max_rows,
                         hr_gemm_set **result, hr_error *err) {
    bool good = true;
    hr_gemm_set *set = NULL;
    hr_status status = set_alloc(specs, n, &set, err);
    if (status != HR_OK) return status;
    set->n_sizes = how->n_sizes;
    memcpy(set->sizes, how->sizes, how->n_sizes * sizeof how->sizes[0]);
    while (set->n_sizes > 1 && set->sizes[set->n_sizes - 1] > max_rows) set->n_sizes--;

    dnnl_status_t dnnl = dnnl_engine_create(&set->engine, dnnl_cpu, 0);
    if (dnnl == dnnl_success) dnnl = primitives_create(set, how->convolution);
    if (dnnl == dnnl_unimplemented && how->bf16) {
        good = false;
        goto done;
    }
    if (dnnl != dnnl_success) {
        status = hr__dnnl_error(err, dnnl, "creating the matrix products");
        goto done;
    }
    status = hr__gemm_set_check_rows(set, &good, err);
    if (status == HR_OK && good && how->bf16) status = hr__gemm_set_check_bf16(set, &good, err);
done:
    if (status == HR_OK && good) {
        *result = set;
    } else {
        hr_gemm_set_destroy(set);
    }
    return status;
}

/* oneDNN's names of instruction sets are sets of bits; ONEDNN_MAX_CPU_ISA narrows them. */
static bool has_isa(int wanted) {
    return ((int)dnnl_get_effective_cpu_isa() & wanted) == wanted;
}

/* Intel's CPUs from Sapphire Rapids on multiply bf16 in AMX. Where that is hidden (in many virtual machines),
 * their AVX-512 instruction for it takes twice the time of f32's for the same product. */
static bool bf16_is_slow(void) {
    bool has_fp16 = false;
#if defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;
    has_fp16 = __builtin_cpu_is("intel") && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
               (edx >> 23 & 1); /* AVX512-FP16 */
#endif
    return has_fp16 && !has_isa(dnnl_cpu_isa_avx512_core_amx);
}

hr_status hr_gemm_set_create(const hr_gemm_spec *specs, uint32_t n, uint32_t max_rows, hr_gemm_set **set,
                             hr_error *err) {
    enum {
        N_F32 = sizeof SIZES_F32 / sizeof SIZES_F32[0],
        N_BF16 = sizeof SIZES_BF16 / sizeof SIZES_BF16[0]
    };
    /* In order of preference; the last, blocks of one row, cannot depend on a place or a size. */
    const gemm_try tries[] = {
        {true, false, SIZES_BF16, N_BF16}, {true, false, SIZES_BF16, 1}, {false, true, SIZES_F32, N_F32},
        {false, false, SIZES_F32, N_F32},  {false, true, SIZES_F32, 1},
    };
    bool bf16 = false;
    for (uint32_t i = 0; i < n; i++) bf16 |= specs[i].x == HR_OPERAND_BF16 || specs[i].y == HR_OPERAND_BF16;
    omp_set_num_threads(1);
    *set = NULL;
    if (bf16 && (!has_isa(dnnl_cpu_isa_avx512_core_bf16) || bf16_is_slow())) return HR_OK;
    if (!bf16 && hr_rows_select()->multiply && has_isa(dnnl_cpu_isa_avx512_core))
        return own_create(specs, n, max_rows, set, err);
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        if (tries[i].bf16 != bf16) continue;
        hr_status status = set_try(specs, n, &tries[i], max_rows, set, err);
        if (status != HR_OK) return status;
        if (*set) return HR_OK;
        hr_log(HR_LOG_WARN, "onednn: primitives refused", HR_LOG_STR("operands", bf16 ? "bf16" : "f32"),
               HR_LOG_INT("sizes", tries[i].n_sizes));
    }
    if (bf16) return HR_OK;
    return hr_error_set(err, HR_DEVICE, "oneDNN: no primitive gives a row the same bits in every place");
}

/* ---- Weights and calls ---- */

/* As plain (n, k): for a matmul that is (k, n) transposed. */
static dnnl_memory_desc_t plain_weights(const hr_gemm *gemm) {
    dnnl_memory_desc_t md;
    const hr_gemm_spec *s = &gemm->spec;
    if (gemm->convolution) {
        dnnl_memory_desc_init_by_tag(&md, 4, (dnnl_dims_t){s->n, s->k, 1, 1}, dnnl_f32, dnnl_oihw);
    } else {
        dnnl_memory_desc_init_by_tag(&md, 2, (dnnl_dims_t){s->k, s->n}, dnnl_f32, dnnl_ba);
    }
    return md;
}

static dnnl_status_t weights_reorder(const hr_gemm_set *set, const hr_gemm *gemm, const float *weight,
                                     dnnl_memory_t packed) {
    dnnl_memory_desc_t plain = plain_weights(gemm);
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_status_t status = dnnl_memory_create(&from, &plain, set->engine, (void *)weight); /* read only */
    if (status == dnnl_success) {
        status =
            dnnl_reorder_primitive_desc_create(&pd, &plain, set->engine, &gemm->weights, set->engine, NULL);
    }
    if (status == dnnl_success) status = dnnl_primitive_create(&reorder, pd);
    if (status == dnnl_success) status = dnnl_stream_create(&stream, set->engine, dnnl_stream_default_flags);
    if (status == dnnl_success) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, packed}};
        status = dnnl_primitive_execute(reorder, stream, 2, args);
    }
    if (stream) dnnl_stream_destroy(stream);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (from) dnnl_memory_destroy(from);
    return status;
}

size_t hr_gemm_panels_count(const hr_gemm_set *set, uint32_t gemm) {
    return set->own ? (size_t)set->gemms[gemm].spec.n * set->gemms[gemm].spec.k : 0;
}

hr_status hr_gemm_pack(const hr_gemm_set *set, uint32_t gemm_index, const float *weight, const float *bias,
                       float *panels, hr_gemm_weights *packed, hr_error *err) {
    const hr_gemm *gemm = &set->gemms[gemm_index];
    const hr_gemm_spec *s = &gemm->spec;
    memset(packed, 0, sizeof *packed);
    packed->bias_data = aligned_alloc(64, s->n * sizeof(float));
    if (!packed->bias_data) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %u biases", s->n);
    memcpy(packed->bias_data, bias, s->n * sizeof(float));
    if (set->own) {
        hr_panels_pack(weight, s->n, s->k, panels);
        packed->panels = panels;
        return HR_OK;
    }

    dnnl_memory_desc_t md;
    if (gemm->convolution) {
        dnnl_memory_desc_init_by_tag(&md, 1, (dnnl_dims_t){s->n}, dnnl_f32, dnnl_a);
    } else {
        dnnl_memory_desc_init_by_tag(&md, 2, (dnnl_dims_t){1, s->n}, dnnl_f32, dnnl_ab);
    }
    dnnl_status_t status = dnnl_memory_create(&packed->bias, &md, set->engine, packed->bias_data);
    if (status == dnnl_success) {
        status = dnnl_memory_create(&packed->weight, &gemm->weights, set->engine, DNNL_MEMORY_ALLOCATE);
    }
    if (status == dnnl_success) status = weights_reorder(set, gemm, weight, packed->weight);
    if (status == dnnl_success) return HR_OK;
    hr_gemm_weights_destroy(packed);
    return hr__dnnl_error(err, status, "packing weights");
}

void hr_gemm_weights_destroy(hr_gemm_weights *packed) {
    if (packed->weight) dnnl_memory_destroy(packed->weight);
    if (packed->bias) dnnl_memory_destroy(packed->bias);
    free(packed->bias_data);
    memset(packed, 0, sizeof *packed);
}

hr_status hr_gemm_bind(const hr_gemm_set *set, uint32_t gemm_index, uint32_t size,
                       const hr_gemm_weights *packed, void *x, void *y, void *scratchpad, hr_gemm_call *call,
                       hr_error *err) {
    const hr_gemm *gemm = &set->gemms[gemm_index];
    memset(call, 0, sizeof *call);
    if (set->own) {
        call->own = set->own;
        call->multiply = (hr_multiply_args){.x = x,
                                            .panels = packed->panels,
                                            .next = packed->panels,
                                            .bias = packed->bias_data,
                                            .activation = gemm->spec.activation,
                                            .k = gemm->spec.k,
                                            .n = gemm->spec.n,
                                            .y = y};
        return HR_OK;
    }
    call->primitive = gemm->at[size].primitive;
    call->args[0] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, packed->weight};
    call->args[1] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, packed->bias};
    call->args[2] = (dnnl_exec_arg_t){DNNL_ARG_SRC, NULL};
    call->args[3] = (dnnl_exec_arg_t){DNNL_ARG_DST, NULL};
    call->args[4] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, NULL};
    dnnl_status_t status = dnnl_memory_create(&call->args[2].memory, &gemm->at[size].x, set->engine, x);
    if (status == dnnl_success) {
        status = dnnl_memory_create(&call->args[3].memory, &gemm->at[size].y, set->engine, y);
    }
    if (status == dnnl_success) {
        status =
            dnnl_memory_create(&call->args[4].memory, &gemm->at[size].scratchpad, set->engine, scratchpad);
    }
    if (status == dnnl_success) return HR_OK;
    hr_gemm_call_destroy(call);
    return hr__dnnl_error(err, status, "binding a matrix product to its memory");
}

void hr_gemm_follow(hr_gemm_call *call, const hr_gemm_call *next) {
    call->multiply.next = next->multiply.panels;
}

void hr_gemm_call_destroy(hr_gemm_call *call) {
    for (int i = 2; i < 5; i++) {
        if (call->args[i].memory) dnnl_memory_destroy(call->args[i].memory);
        call->args[i].memory = NULL;
    }
}

hr_status hr_gemm_run(const hr_gemm_call *call, uint32_t n_rows, dnnl_stream_t stream, hr_error *err) {
    if (call->own) {
        hr_multiply_args args = call->multiply;
        args.n_rows = n_rows;
        call->own->multiply(&args);
        return HR_OK;
    }
    dnnl_status_t status = dnnl_primitive_execute(call->primitive, stream, 5, call->args);
    return status == dnnl_success ? HR_OK : hr__dnnl_error(err, status, "a matrix product");
}
