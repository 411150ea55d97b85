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

/* So few multiprocessors that launches of five and more large tiles take large ones, others small ones. */
enum { N_SMS = 8 };

static int no_leak(void **state) {
    (void)state;
    assert_int_equal(hr_simt_state.n_live, 0);
    return 0;
}

static void launches_write_what_they_must(void **state) {
    (void)state;
    hr_simt_state.n_sms = N_SMS;
    assert_int_equal(hr_cuda_check_stages(&hr_simt_runtime, true, HR_CUDA_ALL, stdout), 0);
}

static void networks_agree_with_the_reference_whatever_the_batch(void **state) {
    (void)state;
    hr_simt_state.n_sms = N_SMS;
    assert_int_equal(hr_cuda_check_networks(&hr_simt_runtime, true, HR_CUDA_ALL, stdout), 0);
}

/* With an argument: the tests of that name alone, as a pattern. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(launches_write_what_they_must, no_leak),
        cmocka_unit_test_teardown(networks_agree_with_the_reference_whatever_the_batch, no_leak),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
