/* What the machine must see: kernels that are wrong in one way each, and one that is right. */
#include "tests/kernels/simt/run_kernel.h"

namespace {

constexpr uint32_t kThreads = 64, kAll = 0xFFFFFFFF, kShared = 2048;
constexpr Run kBlock = {kThreads, kShared, kThreads}, kTwoBlocks = {kThreads, kShared, kThreads, 2};

/* ---- Right ---- */

void reverse(float *x) {
    __shared__ float tile[kThreads];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

/* x's 16 bytes at 4 t go to shared memory and back, each thread's after its own wait. */
void copy_there_and_back(float *x) {
    auto *ring = reinterpret_cast<float *>(dynamic_shared());
    const uint32_t at = threadIdx.x * 4;
    if (threadIdx.x >= kThreads / 4) return;
    copy_async(address_of(ring + at), x + at);
    copy_commit();
    copy_wait<0>();
    for (uint32_t i = 0; i < 4; i++) x[at + i] = ring[at + i] + 1.0F;
}

void add_lanes(float *x) {
    x[threadIdx.x] = __shfl_xor_sync(kAll, x[threadIdx.x], 1);
}

void take_lane_3(float *x) {
    x[threadIdx.x] = __shfl_sync(kAll, x[threadIdx.x], 3);
}

/* ---- Wrong ---- */

void no_barrier(float *x) {
    __shared__ float tile[kThreads];
    tile[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x % 32 < 31) return;
    x[0] = tile[threadIdx.x - 1];
}

void written_while_read(float *x) {
    __shared__ float tile[kThreads];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
    tile[threadIdx.x] = 0.0F;
}

void barrier_for_some(float *x) {
    if (threadIdx.x < 32) __syncthreads();
    x[threadIdx.x] = 0.0F;
}

void shuffle_for_some(float *x) {
    if (threadIdx.x % 32 != 5) x[threadIdx.x] = __shfl_xor_sync(kAll, 1.0F, 1);
}

void shuffles_of_other_lanes(float *x) {
    x[threadIdx.x] = __shfl_xor_sync(threadIdx.x % 32 < 16 ? 0xFFFF : kAll, 1.0F, 1);
}

void past_the_end(float *x) {
    x[threadIdx.x + 1] = 0.0F;
}

void past_shared(float *) {
    dynamic_shared()[kShared + threadIdx.x] = 0;
}

void on_the_host(float *x) {
    static float host;
    x[threadIdx.x] = *new (&host) float(1.0F);
}

void never_written(float *x) {
    x[threadIdx.x] = reinterpret_cast<float *>(dynamic_shared())[threadIdx.x];
}

void misaligned(float *x) {
    *reinterpret_cast<float4 *>(x + 1) = {};
}

void misaligned_copy(float *x) {
    copy_async(address_of(dynamic_shared()) + 4, x);
}

void not_waited(float *x) {
    copy_async(address_of(dynamic_shared() + threadIdx.x * 16), x);
    copy_commit();
    copy_commit();
    copy_wait<2>();
    x[threadIdx.x] = *reinterpret_cast<float *>(dynamic_shared() + threadIdx.x * 16);
}

void not_committed(float *x) {
    copy_async(address_of(dynamic_shared() + threadIdx.x * 16), x);
    copy_wait<0>();
    x[threadIdx.x] = *reinterpret_cast<float *>(dynamic_shared() + threadIdx.x * 16);
}

void copied_for_others_without_a_barrier(float *x) {
    copy_async(address_of(dynamic_shared() + threadIdx.x * 16), x);
    copy_commit();
    copy_wait<0>();
    uint32_t r[4];
    load_matrices(r, address_of(dynamic_shared() + (threadIdx.x ^ 1) * 16));
}

void blocks_write_the_same(float *x) {
    if (threadIdx.x == 0) x[0] = static_cast<float>(blockIdx.y);
}

/* ---- Tests ---- */

/* What becomes of 0, 1, ... */
std::vector<float> result_of(void (*kernel)(float *)) {
    std::vector<float> x(kThreads);
    for (uint32_t t = 0; t < kThreads; t++) x[t] = static_cast<float>(t);
    assert_null(run_kernel(kernel, kBlock, &x));
    return x;
}

void right_kernels_run(void **) {
    for (int i = 0; i < 3; i++) {
        const auto reversed = result_of(reverse), copied = result_of(copy_there_and_back),
                   added = result_of(add_lanes), taken = result_of(take_lane_3);
        for (uint32_t t = 0; t < kThreads; t++) {
            assert_true(reversed[t] == static_cast<float>(kThreads - 1 - t));
            assert_true(copied[t] == static_cast<float>(t + 1));
            assert_true(added[t] == static_cast<float>(t ^ 1));
            assert_true(taken[t] == static_cast<float>(t / 32 * 32 + 3));
        }
    }
}

void races_are_seen_in_any_order(void **) {
    expect_seen(no_barrier, "shared memory", kBlock);
    expect_seen(written_while_read, "races with", kBlock);
    expect_seen(blocks_write_the_same, "another block", kTwoBlocks);
}

void divergence_is_seen(void **) {
    expect_seen(barrier_for_some, "wait at a barrier", kBlock);
    expect_seen(shuffle_for_some, "for lanes of their warp", kBlock);
    expect_seen(shuffles_of_other_lanes, "warp", kBlock);
}

void accesses_that_are_not_allowed_are_seen(void **) {
    expect_seen(past_the_end, "no memory of the device", kBlock);
    expect_seen(past_shared, "no memory of the device", kBlock);
    expect_seen(on_the_host, "no memory of the device", kBlock);
    expect_seen(never_written, "nothing was written", kBlock);
    expect_seen(misaligned, "misaligned", kBlock);
    expect_seen(misaligned_copy, "misaligned", kBlock);
}

void copies_land_when_they_are_waited_for(void **) {
    expect_seen(not_waited, "has not been waited for", kBlock);
    expect_seen(not_committed, "has not been waited for", kBlock);
    expect_seen(copied_for_others_without_a_barrier, "shared memory", kBlock);
}

/* What the runtime does later than the host may think. */
void streams_run_when_they_are_waited_for(void **) {
    cudaStream_t stream;
    void *device, *pinned;
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), 0);
    assert_int_equal(cudaMalloc(&device, 1), 0);
    assert_int_equal(cudaHostAlloc(&pinned, 2, cudaHostAllocDefault), 0);
    auto *bytes = static_cast<uint8_t *>(pinned);
    bytes[0] = 1;
    assert_int_equal(cudaMemcpyAsync(device, bytes, 1, cudaMemcpyHostToDevice, stream), 0);
    bytes[0] = 2; /* too early */
    assert_int_equal(cudaMemcpyAsync(bytes + 1, device, 1, cudaMemcpyDeviceToHost, stream), 0);
    assert_int_equal(cudaStreamSynchronize(stream), 0);
    assert_int_equal(bytes[1], 2);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), 0);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
    cudaGraph_t graph;
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
    cudaFreeHost(pinned);
    cudaFree(device);
    cudaStreamDestroy(stream);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(right_kernels_run),
        cmocka_unit_test(races_are_seen_in_any_order),
        cmocka_unit_test(divergence_is_seen),
        cmocka_unit_test(accesses_that_are_not_allowed_are_seen),
        cmocka_unit_test(copies_land_when_they_are_waited_for),
        cmocka_unit_test(streams_run_when_they_are_waited_for),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
