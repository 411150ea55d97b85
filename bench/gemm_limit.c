/* The limit: a network's matrix products alone, in oneDNN, on operands that stay in the cache.
 *
 *     gemm_limit f32|bf16 MILLISECONDS
 *
 * reads lines "K N", one product x (M, K) W^T (K, N) each, and answers each with "NANOSECONDS M PRIMITIVE":
 * the CPU time a row takes in the best of matmul and 1x1 convolution at the best of several M, weights packed
 * ahead. "unsupported" where this CPU has no such product. One thread, no bias, no activation.
 */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const int64_t ROWS[] = {16, 32, 64, 128, 256, 512};
enum { N_ROWS = sizeof ROWS / sizeof ROWS[0], MAX_SIDE = 1 << 20 };

typedef struct product {
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[4]; /* source, weights, result, scratchpad */
} product;

static uint64_t thread_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static dnnl_status_t describe(bool convolution, dnnl_data_type_t type, int64_t m, int64_t k, int64_t n,
                              dnnl_engine_t engine, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *pd) {
    dnnl_memory_desc_t x, w, y;
    if (!convolution) {
        dnnl_matmul_desc_t desc;
        dnnl_memory_desc_init_by_tag(&x, 2, (dnnl_dims_t){m, k}, type, dnnl_ab);
        dnnl_memory_desc_init_by_tag(&w, 2, (dnnl_dims_t){k, n}, type, dnnl_format_tag_any);
        dnnl_memory_desc_init_by_tag(&y, 2, (dnnl_dims_t){m, n}, type, dnnl_ab);
        dnnl_status_t status = dnnl_matmul_desc_init(&desc, &x, &w, NULL, &y);
        return status == dnnl_success ? dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL) : status;
    }
    const dnnl_dims_t one = {1, 1}, zero = {0, 0};
    dnnl_convolution_desc_t desc;
    dnnl_memory_desc_init_by_tag(&x, 4, (dnnl_dims_t){1, k, 1, m}, type, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&w, 4, (dnnl_dims_t){n, k, 1, 1}, type, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&y, 4, (dnnl_dims_t){1, n, 1, m}, type, dnnl_nhwc);
    dnnl_status_t status = dnnl_convolution_forward_desc_init(
        &desc, dnnl_forward_inference, dnnl_convolution_direct, &x, &w, NULL, &y, one, zero, zero);
    return status == dnnl_success ? dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL) : status;
}

static void product_destroy(product *p) {
    for (int i = 0; i < 4; i++) {
        if (p->memory[i]) dnnl_memory_destroy(p->memory[i]);
    }
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    memset(p, 0, sizeof *p);
}

/* Small numbers that are not zero, whatever the type: 0x3c3c is 0.0115 in bf16, 0x3c3c3c3c is 0.0115 in f32.
 */
static dnnl_status_t memory_create(dnnl_memory_t *memory, const dnnl_memory_desc_t *md,
                                   dnnl_engine_t engine) {
    void *data = NULL;
    dnnl_status_t status = dnnl_memory_create(memory, md, engine, DNNL_MEMORY_ALLOCATE);
    if (status == dnnl_success) status = dnnl_memory_get_data_handle(*memory, &data);
    if (status == dnnl_success && data) memset(data, 0x3c, dnnl_memory_desc_get_size(md));
    return status;
}

static dnnl_status_t product_create(product *p, bool convolution, dnnl_data_type_t type, int64_t m, int64_t k,
                                    int64_t n, dnnl_engine_t engine) {
    static const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md,
                                           dnnl_query_scratchpad_md};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    memset(p, 0, sizeof *p);
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success) status = describe(convolution, type, m, k, n, engine, attr, &pd);
    if (status == dnnl_success) status = dnnl_primitive_create(&p->primitive, pd);
    for (int i = 0; status == dnnl_success && i < 4; i++) {
        status = memory_create(&p->memory[i], dnnl_primitive_desc_query_md(pd, queries[i], 0), engine);
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (status != dnnl_success) product_destroy(p);
    return status;
}

/* The least nanoseconds of one run within the time given. */
static double product_ns(const product *p, dnnl_stream_t stream, uint64_t duration_ns) {
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->memory[0]},
                                    {DNNL_ARG_WEIGHTS, p->memory[1]},
                                    {DNNL_ARG_DST, p->memory[2]},
                                    {DNNL_ARG_SCRATCHPAD, p->memory[3]}};
    enum { RUNS = 8 };
    double best = 1e30;
    uint64_t start = thread_ns(), last = start;
    while (last - start < duration_ns) {
        for (int i = 0; i < RUNS; i++) {
            if (dnnl_primitive_execute(p->primitive, stream, 4, args) != dnnl_success) return 1e30;
        }
        uint64_t now = thread_ns();
        if ((double)(now - last) / RUNS < best) best = (double)(now - last) / RUNS;
        last = now;
    }
    return best;
}

static void answer(dnnl_data_type_t type, int64_t k, int64_t n, uint64_t duration_ns, dnnl_engine_t engine,
                   dnnl_stream_t stream) {
    double best = 1e30;
    int64_t best_m = 0;
    bool best_convolution = false;
    for (int i = 0; i < 2 * N_ROWS; i++) {
        product p;
        int64_t m = ROWS[i / 2];
        if (product_create(&p, i % 2, type, m, k, n, engine) != dnnl_success) continue;
        double ns = product_ns(&p, stream, duration_ns) / (double)m;
        if (ns < best) best = ns, best_m = m, best_convolution = i % 2;
        product_destroy(&p);
    }
    if (best < 1e30) {
        printf("%.3f %lld %s\n", best, (long long)best_m, best_convolution ? "convolution" : "matmul");
    } else {
        printf("unsupported\n");
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    long long k, n;
    dnnl_engine_t engine = NULL;
    dnnl_stream_t stream = NULL;
    if (argc != 3) {
        fprintf(stderr, "usage: gemm_limit f32|bf16 MILLISECONDS\n");
        return 2;
    }
    omp_set_num_threads(1);
    dnnl_data_type_t type = strcmp(argv[1], "bf16") == 0 ? dnnl_bf16 : dnnl_f32;
    dnnl_status_t status = dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (status == dnnl_success) status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    while (status == dnnl_success && scanf("%lld %lld", &k, &n) == 2) {
        if (k < 1 || n < 1 || k > MAX_SIDE || n > MAX_SIDE) break;
        answer(type, k, n, strtoull(argv[2], NULL, 10) * UINT64_C(1000000), engine, stream);
    }
    if (stream) dnnl_stream_destroy(stream);
    if (engine) dnnl_engine_destroy(engine);
    return status == dnnl_success ? 0 : 1;
}
