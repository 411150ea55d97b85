/* The device checks for machines without cmocka: tools/gpu_check.sh builds and runs it.
 *
 *     cuda_check share I N               every kernel and whole networks: those that the I'th of N processes
 * takes, I from 0 cuda_check plans PLAN_FILE...      the launches of the models given cuda_check small what
 * compute-sanitizer gets through in minutes cuda_check device                  whether there is one
 *
 * Exit code: 0 passed, 1 something failed, 2 wrong usage, 3 no CUDA device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/plain_plan.h"
#include "kernels/cuda/cuda_engine.h"
#include "tests/kernels/cuda_check.h"

static int check_file(const char *path) {
    hr_plain_plan *plan;
    hr_error err;
    if (hr_plain_plan_read(path, &plan, &err) != HR_OK) {
        printf("FAILED %s\n", err.message);
        return 1;
    }
    int n_failed = hr_cuda_check_plan_stages(&hr_cuda_runtime_device, &plan->plan, path, stdout);
    hr_plain_plan_destroy(plan);
    return n_failed;
}

int main(int argc, char **argv) {
    hr_error err;
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was found before a time limit */
    bool plans = argc >= 3 && strcmp(argv[1], "plans") == 0;
    bool share = argc == 4 && strcmp(argv[1], "share") == 0;
    bool small = argc == 2 && strcmp(argv[1], "small") == 0,
         device = argc == 2 && strcmp(argv[1], "device") == 0;
    hr_cuda_scope scope = {.small = small, .of = 1};
    if (share)
        scope.index = (uint32_t)strtoul(argv[2], NULL, 10), scope.of = (uint32_t)strtoul(argv[3], NULL, 10);
    if ((!plans && !share && !small && !device) || scope.of == 0) {
        fprintf(stderr, "usage: cuda_check share I N | plans PLAN_FILE... | small | device\n");
        return 2;
    }
    if (hr_cuda_available(&hr_cuda_runtime_device, &err) != HR_OK) {
        printf("skipped: no CUDA device (%s)\n", err.message);
        return 3;
    }
    if (device) return 0;
    int n_failed = 0;
    if (!plans) n_failed += hr_cuda_check_stages(&hr_cuda_runtime_device, scope, stdout);
    if (!plans) n_failed += hr_cuda_check_networks(&hr_cuda_runtime_device, scope, stdout);
    for (int i = 2; plans && i < argc; i++) n_failed += check_file(argv[i]);
    printf("%s\n", n_failed ? "FAILED" : "passed");
    return n_failed ? 1 : 0;
}
