/* What the machine must see of devices of compute capability 9.0: kernels that are wrong in one way each, and
 * some that are right. */
#include "tests/kernels/simt/run_kernel.h"

#include <cmath>

#include "kernels/cuda/hopper.cuh"
#include "tests/kernels/simt/simt.h"

namespace {

/* A tile of bf16, which x begins with, and after it in shared memory two barriers. */
constexpr uint32_t kRows = 64, kTileBytes = kRows * 128, kFull = kTileBytes, kEmpty = kFull + 8;
constexpr Run kGroup = {128, kEmpty + 8, kRows *kRows}, kTwoLaunches = {128, 16, kRows *kRows, 1, 2};

uint32_t at(uint32_t offset) {
    return address_of(dynamic_shared() + offset);
}

float *shared_float() {
    return reinterpret_cast<float *>(dynamic_shared()) + threadIdx.x;
}

void make_barriers(uint32_t n_full, uint32_t n_empty) {
    if (threadIdx.x == 0) {
        barrier_init(at(kFull), n_full);
        barrier_init(at(kEmpty), n_empty);
        barrier_init_fence();
    }
    __syncthreads();
}

void load_tile(const float *x) {
    if (threadIdx.x > 0) return;
    barrier_expect(at(kFull), kTileBytes);
    bulk_load(at(0), x, kTileBytes, at(kFull));
}

void load_and_wait(const float *x) {
    make_barriers(1, 4);
    load_tile(x);
    barrier_wait(at(kFull), 0);
}

void multiply(float (&sums)[8][4]) {
    for (uint32_t step = 0; step < 4; step++) {
        const uint64_t tile = tile_descriptor(at(0)) + step * 2;
        multiply_group(sums, tile, tile, step > 0);
    }
    products_commit();
}

/* ---- Right ---- */

/* x becomes (64, 64) sums: the tile times itself. */
void multiply_tile(float *x) {
    float sums[8][4];
    load_and_wait(x);
    products_begin();
    multiply(sums);
    products_wait<0>();
    for (uint32_t j = 0; j < 8; j++) {
        for (uint32_t e = 0; e < 4; e++) {
            const uint32_t row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + e / 2 * 8;
            x[row * kRows + j * 8 + threadIdx.x % 4 * 2 + e % 2] = sums[j][e];
        }
    }
}

/* The tile comes twice, the second time when every warp has read it. */
void load_twice(float *x) {
    load_and_wait(x);
    const float first = *shared_float();
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(at(kEmpty));
    if (threadIdx.x == 0) barrier_wait(at(kEmpty), 0);
    load_tile(x);
    barrier_wait(at(kFull), 1);
    x[2048 + threadIdx.x] = first + *shared_float();
}

void store_twice(float *x) {
    for (uint32_t i = 0; i < 2; i++) {
        if (threadIdx.x == 0) bulk_stores_read();
        group_sync(1);
        *shared_float() = static_cast<float>(i);
        shared_fence();
        group_sync(1);
        if (threadIdx.x == 0) bulk_store(x + 128 * i, at(0), 512);
        bulk_stores_commit();
    }
    bulk_stores_wait();
}

void follow(float *x) {
    let_next_start();
    wait_for_previous();
    x[threadIdx.x] += 1.0F;
}

/* ---- Wrong: barriers ---- */

void too_few_arrive(float *) {
    make_barriers(1, 2);
    if (threadIdx.x == 0) barrier_arrive(at(kEmpty));
    barrier_wait(at(kEmpty), 0);
}

void too_many_arrive(float *x) {
    make_barriers(1, 1);
    load_tile(x);
    if (threadIdx.x == 0) barrier_arrive(at(kFull));
}

void nothing_expected(float *x) {
    make_barriers(1, 1);
    if (threadIdx.x == 0) bulk_load(at(0), x, kTileBytes, at(kFull));
    if (threadIdx.x == 0) barrier_arrive(at(kFull));
    __syncthreads();
    barrier_wait(at(kFull), 0);
    x[threadIdx.x] = *shared_float();
}

void too_much_expected(float *x) {
    make_barriers(1, 1);
    if (threadIdx.x == 0) {
        barrier_expect(at(kFull), kTileBytes + 16);
        bulk_load(at(0), x, kTileBytes, at(kFull));
    }
    barrier_wait(at(kFull), 0);
}

void barriers_that_not_all_know_of(float *) {
    if (threadIdx.x == 0) barrier_init(at(kFull), 4);
    if (threadIdx.x % 32 == 0) barrier_arrive(at(kFull));
}

void barrier_for_some_of_a_group(float *) {
    if (threadIdx.x < 96) group_sync(1);
}

/* ---- Wrong: copies ---- */

void loaded_and_not_waited_for(float *x) {
    make_barriers(1, 1);
    load_tile(x);
    __syncthreads();
    x[threadIdx.x] = *shared_float();
}

void left_under_way(float *x) {
    make_barriers(1, 1);
    load_tile(x);
}

void misaligned_load(float *x) {
    make_barriers(1, 1);
    if (threadIdx.x == 0) bulk_load(at(0), x + 1, 16, at(kFull));
}

/* The other threads are not asked whether they have read the tile. */
void loaded_over_what_others_read(float *x) {
    load_and_wait(x);
    x[threadIdx.x + 2048] = *shared_float();
    if (threadIdx.x == 0) bulk_load(at(0), x, 16, at(kFull));
}

/* kRead: the copy has been waited for, but by one thread alone. */
template <bool kRead> void stored_and_overwritten(float *x) {
    *shared_float() = 1.0F;
    group_sync(1);
    if (threadIdx.x == 0) bulk_store(x, at(0), 512);
    bulk_stores_commit();
    if (kRead) bulk_stores_read();
    if (!kRead) group_sync(1);
    *shared_float() = 2.0F;
    bulk_stores_wait();
}

void stored_before_it_was_written(float *x) {
    *shared_float() = 1.0F;
    if (threadIdx.x > 0) return;
    bulk_store(x, at(0), 512);
    bulk_stores_commit();
    bulk_stores_wait();
}

void stored_and_not_waited_for(float *x) {
    *shared_float() = 1.0F;
    group_sync(1);
    if (threadIdx.x == 0) bulk_store(x, at(0), 512);
    bulk_stores_commit();
}

/* ---- Wrong: products ---- */

void multiplied_before_it_was_there(float *x) {
    float sums[8][4];
    make_barriers(1, 1);
    load_tile(x);
    __syncthreads();
    barrier_wait(at(kFull), 1); /* the parity of the phase before */
    products_begin();
    multiply(sums);
    products_wait<0>();
}

void released_before_it_was_multiplied(float *x) {
    float sums[8][4];
    load_and_wait(x);
    products_begin();
    multiply(sums);
    if (threadIdx.x % 32 == 0) barrier_arrive(at(kEmpty));
    if (threadIdx.x == 0) barrier_wait(at(kEmpty), 0);
    load_tile(x);
    products_wait<0>();
    barrier_wait(at(kFull), 1);
}

void never_released(float *x) {
    float sums[8][4];
    load_and_wait(x);
    products_begin();
    multiply(sums);
    products_wait<0>();
    load_tile(x);
    barrier_wait(at(kFull), 1);
}

/* x[0] becomes a NaN. */
void sums_before_the_wait(float *x) {
    float sums[8][4];
    load_and_wait(x);
    products_begin();
    multiply(sums);
    if (threadIdx.x == 0) x[0] = sums[0][0];
    products_wait<0>();
}

void sums_touched_between(float *x) {
    float sums[8][4];
    load_and_wait(x);
    products_begin();
    multiply(sums);
    products_wait<0>();
    sums[0][0] = 0.0F;
    multiply(sums);
    products_wait<0>();
}

void never_committed(float *x) {
    float sums[8][4];
    load_and_wait(x);
    products_begin();
    multiply_group(sums, tile_descriptor(at(0)), tile_descriptor(at(0)), false);
    products_wait<0>();
}

void other_tiles(float *x) {
    float sums[8][4];
    load_and_wait(x);
    products_begin();
    const uint64_t tile = tile_descriptor(at(0)) + (threadIdx.x == 7 ? 2 : 0);
    multiply_group(sums, tile, tile, false);
}

void no_descriptor(float *x) {
    float sums[8][4];
    load_and_wait(x);
    products_begin();
    const uint64_t tile = tile_descriptor(at(0)) ^ uint64_t { 1 } << 62;
    multiply_group(sums, tile, tile, false);
}

/* ---- Wrong: launches that may begin early ---- */

void follow_at_once(float *x) {
    x[threadIdx.x] = 1.0F;
}

void follow_late(float *x) {
    const float early = x[threadIdx.x];
    wait_for_previous();
    x[threadIdx.x] = early;
}

/* ---- Tests ---- */

float bf16_value(uint32_t row, uint32_t k) {
    return static_cast<float>((row * 5 + k * 3) % 11) - 5.0F;
}

std::vector<float> tile_of_values() {
    std::vector<float> x(kRows * kRows);
    for (uint32_t row = 0; row < kRows; row++) {
        for (uint32_t k = 0; k < 64; k++) {
            const float value = bf16_value(row, k);
            const size_t place = row * 128 + ((k / 8) ^ (row % 8)) * 16 + k % 8 * 2;
            memcpy(reinterpret_cast<uint8_t *>(x.data()) + place,
                   reinterpret_cast<const uint8_t *>(&value) + 2, 2);
        }
    }
    return x;
}

void tiles_are_multiplied(void **) {
    for (int i = 0; i < 3; i++) {
        std::vector<float> x = tile_of_values();
        assert_null(run_kernel(multiply_tile, kGroup, &x));
        for (uint32_t row = 0; row < kRows; row++) {
            for (uint32_t column = 0; column < kRows; column++) {
                float sum = 0.0F;
                for (uint32_t k = 0; k < 64; k++) sum += bf16_value(row, k) * bf16_value(column, k);
                assert_true(x[row * kRows + column] == sum);
            }
        }
    }
}

void right_kernels_run(void **) {
    for (int i = 0; i < 3; i++) {
        std::vector<float> x(kRows * kRows, 3.0F);
        assert_null(run_kernel(load_twice, kGroup, &x));
        assert_true(x[2048] == 6.0F && x[2048 + 127] == 6.0F);
        assert_null(run_kernel(store_twice, kGroup, &x));
        assert_true(x[0] == 0.0F && x[127] == 0.0F && x[128] == 1.0F && x[255] == 1.0F);
        assert_null(run_kernel(follow, kTwoLaunches, &x));
        assert_true(x[0] == 2.0F && x[127] == 2.0F);
    }
}

void barriers_that_go_wrong_are_seen(void **) {
    expect_seen(too_few_arrive, "128 at a barrier in shared memory", kGroup);
    expect_seen(too_many_arrive, "one more comes", kGroup);
    expect_seen(nothing_expected, "has not been waited for", kGroup);
    expect_seen(too_much_expected, "128 at a barrier in shared memory", kGroup);
    expect_seen(barriers_that_not_all_know_of, "read of shared memory", kGroup);
    expect_seen(barrier_for_some_of_a_group, "96 for their group", kGroup);
}

void copies_that_go_wrong_are_seen(void **) {
    expect_seen(loaded_and_not_waited_for, "has not been waited for", kGroup);
    expect_seen(left_under_way, "a copy to its shared memory was under way", kGroup);
    expect_seen(misaligned_load, "misaligned", kGroup);
    expect_seen(loaded_over_what_others_read, "of shared memory", kGroup);
    expect_seen(stored_and_overwritten<false>, "which a product or copy of warp 0 reads", kGroup);
    expect_seen(stored_and_overwritten<true>, "of shared memory", kGroup);
    expect_seen(stored_before_it_was_written, "read of shared memory", kGroup);
    expect_seen(stored_and_not_waited_for, "a copy from its shared memory was under way", kGroup);
}

void products_that_go_wrong_are_seen(void **) {
    expect_seen(multiplied_before_it_was_there, "has not been waited for", kGroup);
    expect_seen(released_before_it_was_multiplied, "which a product or copy of warp", kGroup);
    expect_seen(never_released, "races with the end of a product", kGroup);
    expect_seen(sums_touched_between, "since products_begin", kGroup);
    expect_seen(never_committed, "its products were under way", kGroup);
    expect_seen(other_tiles, "multiply different tiles", kGroup);
    expect_seen(no_descriptor, "a descriptor", kGroup);
    std::vector<float> x = tile_of_values();
    assert_null(run_kernel(sums_before_the_wait, kGroup, &x));
    assert_true(std::isnan(x[0]));
}

void launches_that_do_not_wait_are_seen(void **) {
    expect_seen(follow_at_once, "that a launch before touched", kTwoLaunches);
    expect_seen(follow_late, "that a launch before touched", kTwoLaunches);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(tiles_are_multiplied),
        cmocka_unit_test(right_kernels_run),
        cmocka_unit_test(barriers_that_go_wrong_are_seen),
        cmocka_unit_test(copies_that_go_wrong_are_seen),
        cmocka_unit_test(products_that_go_wrong_are_seen),
        cmocka_unit_test(launches_that_do_not_wait_are_seen),
    };
    hr_simt_state.major = 9;
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
