/* The CUDA kernels on a device; skipped where there is none. The checks themselves are cuda_check.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cuda/cuda_engine.h"
#include "tests/kernels/cuda_check.h"

static void skip_without_device(void) {
    hr_error err;
    if (hr_cuda_available(&hr_cuda_runtime_device, &err) == HR_OK) return;
    print_message("skipped: no CUDA device (%s)\n", err.message);
    skip();
}

static void launches_write_what_they_must(void **state) {
    (void)state;
    skip_without_device();
    assert_int_equal(hr_cuda_check_stages(&hr_cuda_runtime_device, (hr_cuda_scope){.of = 1}, stdout), 0);
}

static void networks_agree_with_the_reference_whatever_the_batch(void **state) {
    (void)state;
    skip_without_device();
    assert_int_equal(hr_cuda_check_networks(&hr_cuda_runtime_device, (hr_cuda_scope){.of = 1}, stdout), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launches_write_what_they_must),
        cmocka_unit_test(networks_agree_with_the_reference_whatever_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
