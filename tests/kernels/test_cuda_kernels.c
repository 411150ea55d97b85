/* The CUDA kernels' own sources on the machine of tests/kernels/simt, below the runtime's real table: what
 * test_cuda_device.c runs on a GPU, at sizes a CPU can bear. Any access out of bounds, race or divergence is
 * an error of the launch, and so a failure here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/kernels/cuda_check.h"
#include "tests/kernels/simt/simt.h"

/* In f32 both devices have the same kernels. */
static hr_cuda_scope scope(void) {
    hr_precision first = hr_simt_state.major == 8 ? HR_PRECISION_F32 : HR_PRECISION_BF16;
    return (hr_cuda_scope){.first = first, .small = true, .of = 1};
}

/* With so few multiprocessors that launches of a few large tiles take large ones, others small ones. */
static int be_sm_80(void **state) {
    (void)state;
    hr_simt_state = (hr_simt){.major = 8, .n_sms = 8};
    return 0;
}

static int be_sm_90(void **state) {
    (void)state;
    hr_simt_state = (hr_simt){.major = 9, .n_sms = 6};
    return 0;
}

static int no_leak(void **state) {
    (void)state;
    assert_int_equal(hr_simt_state.n_live, 0);
    return 0;
}

/* Every kernel has run: the gather, products and gates of each precision and tile size, norms, mixes, towers.
 */
static void launches_write_what_they_must(void **state) {
    (void)state;
    assert_int_equal(hr_cuda_check_stages(&hr_simt_runtime, scope(), stdout), 0);
    assert_int_equal(hr_simt_state.n_kernels, hr_simt_state.major == 8 ? 12 : 9);
}

static void networks_agree_with_the_reference_whatever_the_batch(void **state) {
    (void)state;
    assert_int_equal(hr_cuda_check_networks(&hr_simt_runtime, scope(), stdout), 0);
}

/* With an argument: the tests of that name alone, as a pattern. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        {"sm_80_launches", launches_write_what_they_must, be_sm_80, no_leak, NULL},
        {"sm_80_networks", networks_agree_with_the_reference_whatever_the_batch, be_sm_80, no_leak, NULL},
        {"sm_90_launches", launches_write_what_they_must, be_sm_90, no_leak, NULL},
        {"sm_90_networks", networks_agree_with_the_reference_whatever_the_batch, be_sm_90, no_leak, NULL},
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
