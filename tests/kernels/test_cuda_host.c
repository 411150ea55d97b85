/* The GPU engine's host side on a machine without a GPU (cuda_fake.h): what it packs and launches computes
 * the reference's logits, whatever the batch; every call that fails is a status or the CPU's turn, and leaks
 * nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend_internal.h"
#include "kernels/cuda/cuda_bind.h"
#include "kernels/cuda/cuda_engine.h"
#include "kernels/failover.h"
#include "kernels/reference/reference.h"
#include "tests/kernels/cuda_check.h"
#include "tests/kernels/cuda_fake.h"
#include "tests/kernels/random_plan.h"

static hr_status fake_engine_create(const hr_plan *plan, hr_precision precision, const char *devices,
                                    void **context, hr_error *err) {
    return hr_cuda_engine_create(&hr_cuda_fake_runtime, plan, precision, devices, (hr_cuda_engine **)context,
                                 err);
}

static void fake_engine_destroy(void *context) {
    hr_cuda_engine_destroy(context);
}

static hr_status fake_worker_create(void *context, void **worker, hr_error *err) {
    return hr_cuda_worker_create(context, (hr_cuda_worker **)worker, err);
}

static void fake_worker_destroy(void *worker) {
    hr_cuda_worker_destroy(worker);
}

static hr_status fake_forward(void *worker, const hr_slice *slices, size_t n_slices, hr_error *err) {
    return hr_cuda_forward(worker, slices, n_slices, err);
}

static const hr_backend_i fake_backend = {
    .name = "cuda",
    .may_fail = true,
    .engine_create = fake_engine_create,
    .engine_destroy = fake_engine_destroy,
    .worker_create = fake_worker_create,
    .worker_destroy = fake_worker_destroy,
    .forward = fake_forward,
};

static int reset(void **state) {
    (void)state;
    hr_cuda_fake_reset();
    return 0;
}

/* ---- Numbers ---- */

static void check_logits(const char *what, uint64_t seed, const hr_random_batch *batch,
                         const hr_random_batch *want, double bound, size_t allowed) {
    size_t outside = 0;
    assert_true(hr_random_batch_guards_intact(batch));
    for (size_t i = 0; i < batch->n_logits; i++) {
        double z = want->logits[i], found = batch->logits[i];
        if (isfinite(z) && fabs(found - z) <= bound * fmax(1.0, fabs(z))) continue;
        if (++outside > allowed || !isfinite(found) || !isfinite(z))
            fail_msg("%s, seed %d: logit %zu is %.9g, expected %.9g", what, (int)seed, i, found, z);
    }
}

static void run_reference(const hr_plan *plan, const hr_random_batch *batch) {
    hr_engine *engine;
    hr_worker *worker;
    hr_error err;
    assert_int_equal(hr_engine_create("reference", HR_PRECISION_F32, plan, &engine, &err), HR_OK);
    assert_int_equal(hr_worker_create(engine, &worker, &err), HR_OK);
    assert_int_equal(hr_forward(worker, batch->slices, batch->n_slices, &err), HR_OK);
    hr_worker_destroy(worker);
    hr_engine_destroy(engine);
}

static void run_fake(const hr_plan *plan, hr_precision precision, const hr_random_batch *batch) {
    hr_cuda_engine *engine;
    hr_cuda_worker *worker;
    hr_error err;
    if (hr_cuda_engine_create(&hr_cuda_fake_runtime, plan, precision, NULL, &engine, &err) != HR_OK)
        fail_msg("%s", err.message);
    if (hr_cuda_worker_create(engine, &worker, &err) != HR_OK) fail_msg("%s", err.message);
    if (hr_cuda_forward(worker, batch->slices, batch->n_slices, &err) != HR_OK) fail_msg("%s", err.message);
    hr_cuda_worker_destroy(worker);
    hr_cuda_engine_destroy(engine);
    assert_int_equal(hr_cuda_fake_state.n_live, 0);
}

/* Layer norm over a few nearly equal values magnifies bf16's rounding: see test_onednn.c. */
static void check_network(hr_random_kind kind, uint64_t seed, hr_precision precision) {
    const uint32_t n_rows[] = {11, 0, 20};
    hr_random_plan *made = hr_random_plan_create(kind, seed);
    hr_random_batch *batch = hr_random_batch_create(&made->plan, n_rows, 3, 5);
    hr_random_batch *want = hr_random_batch_create(&made->plan, n_rows, 3, 5);
    bool bf16 = precision == HR_PRECISION_BF16;
    run_reference(&made->plan, want);
    run_fake(&made->plan, precision, batch);
    check_logits(hr_random_kind_name(kind), seed, batch, want, bf16 ? 5e-2 : 1e-5,
                 bf16 && made->plan.norm == HR_NORM_LAYER ? 2 : 0);
    hr_random_batch_destroy(batch);
    hr_random_batch_destroy(want);
    hr_random_plan_destroy(made);
}

static void launches_compute_the_references_logits(void **state) {
    (void)state;
    for (hr_random_kind kind = 0; kind < HR_RANDOM_KIND_COUNT; kind++) {
        for (uint64_t seed = 0; seed < 4; seed++) {
            for (hr_precision p = HR_PRECISION_F32; p <= HR_PRECISION_BF16; p++) check_network(kind, seed, p);
        }
    }
}

/* What judges kernels on a device judges the emulator too, and must find nothing. */
static void the_device_checks_pass_on_the_emulator(void **state) {
    (void)state;
    hr_random_plan *made = hr_random_plan_create(HR_RANDOM_SHARED_BOTTOM, 0);
    assert_int_equal(hr_cuda_check_plan_stages(&hr_cuda_fake_runtime, &made->plan, "shared bottom", stdout),
                     0);
    assert_int_equal(hr_cuda_fake_state.n_live, 0);
    hr_random_plan_destroy(made);
}

/* All features become one entity's: v has one part only. */
static void v_may_lack_either_part(void **state) {
    (void)state;
    const uint32_t n_rows[] = {3, 2};
    for (hr_entity entity = 0; entity < HR_ENTITY_COUNT; entity++) {
        hr_random_plan *made = hr_random_plan_create(HR_RANDOM_HOME_2, 0);
        hr_feature *features = (hr_feature *)made->schema.features; /* the random plan's own memory */
        hr_row_layout row = {0, 0};
        for (uint32_t i = 0; i < made->schema.n_features; i++) {
            hr_feature *f = &features[i];
            bool dense = f->kind == HR_FEATURE_NUMBER || f->kind == HR_FEATURE_NUMBERS;
            f->entity = entity;
            f->slot = dense ? row.n_dense : row.n_index;
            if (dense) row.n_dense += f->width;
            if (!dense) row.n_index += f->kind == HR_FEATURE_IDS ? 1 + f->max_length : 1;
        }
        memset(made->schema.rows, 0, sizeof made->schema.rows);
        made->schema.rows[entity] = row;
        hr_random_batch *batch = hr_random_batch_create(&made->plan, n_rows, 2, 1);
        hr_random_batch *want = hr_random_batch_create(&made->plan, n_rows, 2, 1);
        run_reference(&made->plan, want);
        run_fake(&made->plan, HR_PRECISION_F32, batch);
        check_logits("one entity", entity, batch, want, 1e-5, 0);
        hr_random_batch_destroy(batch);
        hr_random_batch_destroy(want);
        hr_random_plan_destroy(made);
    }
}

/* ---- The plan ---- */

static hr_cuda_plan *plan_of(const hr_random_plan *made, hr_precision precision) {
    hr_cuda_plan *plan;
    hr_error err;
    if (hr_cuda_plan_create(&made->plan, precision, &plan, &err) != HR_OK) fail_msg("%s", err.message);
    return plan;
}

/* HoME in two layers: v, its products, the feature gates, then a launch a hidden layer, the mixes, and again;
 * the towers. Where all towers have hidden layers they compute their mixes: `base`, with two hidden layers
 * each, is nine. */
static void a_layer_is_a_handful_of_launches(void **state) {
    (void)state;
    uint32_t n_mixing = 0, n_seeds = 8;
    for (uint64_t seed = 0; seed < n_seeds; seed++) {
        hr_random_plan *made = hr_random_plan_create(HR_RANDOM_HOME_2, seed);
        hr_cuda_plan *plan = plan_of(made, HR_PRECISION_BF16);
        uint32_t depth =
            made->plan.layers[0].units[0].n_expert_layers + made->plan.layers[1].units[0].n_expert_layers;
        uint32_t flat = 0;
        for (uint32_t t = 0; t < made->plan.n_tasks; t++) flat |= made->plan.tasks[t].n_tower == 1;
        if (made->plan.norm != HR_NORM_LAYER) assert_int_equal(plan->n_stages, 5 + flat + depth);
        n_mixing += !flat;
        hr_cuda_plan_destroy(plan);
        hr_random_plan_destroy(made);
    }
    assert_in_range(n_mixing, 1, n_seeds - 1); /* both were there */
}

/* No two buffers that live at the same time share a byte, and none is read before it is written. */
static void buffers_that_live_together_lie_apart(void **state) {
    (void)state;
    for (hr_random_kind kind = 0; kind < HR_RANDOM_KIND_COUNT; kind++) {
        hr_random_plan *made = hr_random_plan_create(kind, 0);
        hr_cuda_plan *plan = plan_of(made, HR_PRECISION_BF16);
        uint32_t rows = plan->buckets[plan->n_buckets - 1];
        for (uint32_t i = 0; i < plan->n_buffers; i++) {
            const hr_cuda_buffer *a = &plan->buffers[i];
            assert_true(a->first <= a->last && a->offset % 256 == 0);
            assert_true(a->offset + hr_cuda_buffer_nbytes(a, rows) <= plan->buffers_nbytes);
            for (uint32_t j = 0; j < i; j++) {
                const hr_cuda_buffer *b = &plan->buffers[j];
                bool apart = a->offset + hr_cuda_buffer_nbytes(a, rows) <= b->offset ||
                             b->offset + hr_cuda_buffer_nbytes(b, rows) <= a->offset;
                assert_true(apart || a->last < b->first || b->last < a->first);
            }
        }
        hr_cuda_plan_destroy(plan);
        hr_random_plan_destroy(made);
    }
}

static void a_batch_runs_in_the_smallest_bucket_that_holds_it(void **state) {
    (void)state;
    hr_random_plan *made = hr_random_plan_create(HR_RANDOM_HOME_2, 0);
    hr_cuda_plan *plan = plan_of(made, HR_PRECISION_BF16);
    static const struct {
        uint64_t n_rows;
        uint32_t bucket;
    } cases[] = {{1, 128}, {128, 128}, {129, 256}, {500, 512}, {512, 512}, {8192, 8192}, {100000, 8192}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(plan->buckets[hr_cuda_plan_bucket(plan, cases[i].n_rows)], cases[i].bucket);
    const hr_cuda_stage stage = {.kind = HR_CUDA_PRODUCTS, .n_tiles = {48, 24, 12}};
    const hr_cuda_device_kind ampere = {.n_sms = 132}, hopper = {.n_sms = 132, .hopper = true};
    assert_int_equal(hr_cuda_stage_tile(&stage, 128, hopper), HR_CUDA_TILE_64);
    assert_int_equal(hr_cuda_stage_tile(&stage, 512, hopper), HR_CUDA_TILE_128);
    assert_int_equal(hr_cuda_stage_tile(&stage, 8192, hopper), HR_CUDA_TILE_256);
    assert_int_equal(hr_cuda_stage_tile(&stage, 8192, ampere), HR_CUDA_TILE_128);
    hr_cuda_plan_destroy(plan);
    hr_random_plan_destroy(made);
}

/* ---- Staging ---- */

static void staging_holds_each_slice_once_however_rows_are_cut(void **state) {
    (void)state;
    const uint32_t n_rows[] = {0, 5, 0, 0, 140, 1};
    hr_random_plan *made = hr_random_plan_create(HR_RANDOM_MMOE, 0);
    hr_random_batch *batch = hr_random_batch_create(&made->plan, n_rows, 6, 2);
    size_t item = hr_row_words(&made->schema, HR_ENTITY_ITEM),
           user = hr_row_words(&made->schema, HR_ENTITY_USER);
    float *numbers = calloc(batch->n_logits, sizeof *numbers); /* for logits */
    assert_non_null(numbers);
    for (size_t i = 0; i < batch->n_logits; i++) numbers[i] = (float)i;
    for (uint32_t cut = 1; cut <= 146; cut = 2 * cut + 1) {
        hr_cuda_cursor cursor = {.slices = batch->slices};
        for (uint32_t at = 0, n; at < 146; at += n) {
            n = 146 - at < cut ? 146 - at : cut;
            size_t room = hr_cuda_staging_nbytes(&made->plan, n);
            uint32_t *to = malloc(room); /* so that a sanitizer sees a word too many */
            assert_non_null(to);
            const hr_cuda_cursor begin = cursor;
            assert_true(hr_cuda_stage_rows(&made->plan, &cursor, n, to) <= room);
            const hr_cuda_header *header = (const hr_cuda_header *)to;
            assert_int_equal(header->n_rows, n);
            for (uint32_t r = 0; r < n; r++) {
                uint32_t row = at + r, slice = row < 5 ? 1 : row < 145 ? 4 : 5;
                uint32_t first = slice == 1 ? 0 : slice == 4 ? 5 : 145, s = to[HR_CUDA_HEADER_WORDS + r];
                assert_true(s < header->n_slices);
                const uint32_t *items = batch->slices[slice].items;
                assert_memory_equal(to + header->items + r * item, items + (row - first) * item, item * 4);
                assert_memory_equal(to + header->users + s * user, batch->slices[slice].user, user * 4);
            }
            free(to);
            hr_cuda_hand_out(&made->plan, begin, n, numbers + at * made->plan.n_tasks);
        }
        for (size_t i = 0; i < batch->n_logits; i++) {
            assert_true(batch->logits[i] == numbers[i]);
            batch->logits[i] = NAN;
        }
        assert_true(hr_random_batch_guards_intact(batch));
    }
    free(numbers);
    hr_random_batch_destroy(batch);
    hr_random_plan_destroy(made);
}

static void a_batch_past_the_largest_bucket_is_cut(void **state) {
    (void)state;
    hr_random_plan *made = hr_random_plan_create(HR_RANDOM_SHARED_BOTTOM, 0);
    const uint32_t n_rows[] = {8190, 5};
    hr_random_batch *batch = hr_random_batch_create(&made->plan, n_rows, 2, 1);
    run_fake(&made->plan, HR_PRECISION_F32, batch);
    assert_int_equal(hr_cuda_fake_state.n_graphs_run, 2);
    for (size_t i = 0; i < batch->n_logits; i++) assert_true(isfinite(batch->logits[i]));
    assert_true(hr_random_batch_guards_intact(batch));
    hr_random_batch_destroy(batch);
    hr_random_plan_destroy(made);
}

/* ---- Errors ---- */

static void expect_refused(const hr_plan *plan, const char *devices, hr_status status, const char *message) {
    hr_cuda_engine *engine;
    hr_error err;
    assert_int_equal(
        hr_cuda_engine_create(&hr_cuda_fake_runtime, plan, HR_PRECISION_F32, devices, &engine, &err), status);
    assert_null(engine);
    assert_int_equal(hr_cuda_fake_state.n_live, 0);
    if (strstr(err.message, message) == NULL) fail_msg("%s", err.message);
}

static void what_cannot_be_loaded_is_refused(void **state) {
    (void)state;
    hr_random_plan *made = hr_random_plan_create(HR_RANDOM_HOME_1, 0);
    hr_cuda_fake_state.free_nbytes = 1000;
    expect_refused(&made->plan, NULL, HR_OUT_OF_MEMORY, "of device memory, 1000 of 1000 are free");
    hr_cuda_fake_reset();
    hr_cuda_fake_state.major = 7;
    expect_refused(&made->plan, NULL, HR_UNAVAILABLE,
                   "expected a device of compute capability 8.0, found fake 0, 7.0");
    hr_cuda_fake_state.n_devices = 0;
    expect_refused(&made->plan, NULL, HR_UNAVAILABLE, "no CUDA device");
    hr_cuda_fake_reset();
    expect_refused(&made->plan, "1", HR_UNAVAILABLE, "devices: expected less than 1, found 1");
    hr_cuda_fake_state.n_devices = 2, hr_cuda_fake_state.minor_of_last = 6;
    expect_refused(&made->plan, "0,1", HR_UNAVAILABLE,
                   "expected one compute capability, as bits differ, found fake 0, 9.0, and fake 1, 9.6");
    hr_cuda_fake_reset();
    static const char *const wrong[] = {"", "0,", ",0", "a", "0,0", "-1", "0 1", "99999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect_refused(&made->plan, wrong[i], HR_INVALID_ARGUMENT, "devices: expected different numbers");
    hr_random_plan_destroy(made);
}

static void workers_are_dealt_to_the_devices(void **state) {
    (void)state;
    const uint32_t n_rows[] = {2};
    hr_random_plan *made = hr_random_plan_create(HR_RANDOM_SHARED_BOTTOM, 0);
    hr_random_batch *batch = hr_random_batch_create(&made->plan, n_rows, 1, 1);
    hr_cuda_engine *engine;
    hr_cuda_worker *workers[3];
    hr_error err;
    hr_cuda_fake_state.n_devices = 4;
    assert_int_equal(
        hr_cuda_engine_create(&hr_cuda_fake_runtime, &made->plan, HR_PRECISION_F32, "3,1", &engine, &err),
        HR_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(hr_cuda_worker_create(engine, &workers[i], &err), HR_OK);
    const uint32_t used[] = {1 << 3, 1 << 1, 1 << 3};
    for (int i = 0; i < 3; i++) {
        hr_cuda_fake_state.used = 0;
        assert_int_equal(hr_cuda_forward(workers[i], batch->slices, 1, &err), HR_OK);
        assert_int_equal(hr_cuda_fake_state.used, used[i]);
    }
    for (int i = 0; i < 3; i++) hr_cuda_worker_destroy(workers[i]);
    hr_cuda_engine_destroy(engine);
    assert_int_equal(hr_cuda_fake_state.n_live, 0);
    hr_random_batch_destroy(batch);
    hr_random_plan_destroy(made);
}

/* One engine's life with call number fail_at failing. Returns whether there was such a call. */
static bool live_with_failure(const hr_random_plan *made, uint64_t fail_at, bool for_good,
                              const hr_random_batch *want) {
    const uint32_t n_rows[] = {3, 4};
    hr_random_batch *batch = hr_random_batch_create(&made->plan, n_rows, 2, 9);
    hr_engine *engine = NULL;
    hr_worker *worker = NULL;
    hr_error err = {0};
    hr_cuda_fake_reset();
    hr_cuda_fake_state.fail_at = fail_at;
    hr_cuda_fake_state.fail_for_good = for_good;
    hr_status status = hr__engine_create_with(&fake_backend, &hr_backend_reference, NULL, HR_PRECISION_F32,
                                              &made->plan, &engine, &err);
    if (status == HR_OK) status = hr_worker_create(engine, &worker, &err);
    if (status == HR_OK) {
        uint64_t before = hr_cuda_fake_state.n_calls;
        for (int i = 0; i < 2; i++) {
            assert_int_equal(hr_forward(worker, batch->slices, batch->n_slices, &err), HR_OK);
            check_logits("with a failure", fail_at, batch, want, 1e-5, 0);
        }
        bool failed = fail_at > before && fail_at <= hr_cuda_fake_state.n_calls;
        assert_int_equal(hr_engine_is_degraded(engine), failed);
    } else {
        assert_true(status == HR_DEVICE || status == HR_OUT_OF_MEMORY || status == HR_UNAVAILABLE);
        assert_true(strstr(err.message, "cuda: ") != NULL);
    }
    hr_worker_destroy(worker);
    hr_engine_destroy(engine);
    assert_int_equal(hr_cuda_fake_state.n_live, 0);
    hr_random_batch_destroy(batch);
    return fail_at <= hr_cuda_fake_state.n_calls;
}

static void every_failing_call_leaves_right_answers_and_no_leak(void **state) {
    (void)state;
    const uint32_t n_rows[] = {3, 4};
    hr_random_plan *made = hr_random_plan_create(HR_RANDOM_SHARED_BOTTOM, 1);
    hr_random_batch *want = hr_random_batch_create(&made->plan, n_rows, 2, 9);
    run_reference(&made->plan, want);
    for (int for_good = 0; for_good < 2; for_good++) {
        uint64_t call = 1;
        while (live_with_failure(made, call, for_good, want)) call++;
        assert_true(call > 60);
    }
    hr_random_batch_destroy(want);
    hr_random_plan_destroy(made);
}

static void a_broken_device_is_tried_again_after_pauses_that_double(void **state) {
    (void)state;
    const uint64_t second = 1000000000;
    hr_failover f;
    hr_error err = {0};
    hr_failover_init(&f);
    assert_true(hr_failover_may_try(&f, 0));
    assert_false(hr_failover_is_broken(&f));
    uint64_t now = 100 * second, pause = second;
    hr_failover_failed(&f, now, "cuda", &err);
    for (int i = 0; i < 8; i++) {
        assert_true(hr_failover_is_broken(&f));
        assert_false(hr_failover_may_try(&f, now + pause - 1));
        assert_true(hr_failover_may_try(&f, now + pause));
        assert_false(hr_failover_may_try(&f, now + pause)); /* one thread a pause */
        now += pause;
        hr_failover_failed(&f, now, "cuda", &err);
        pause = 2 * pause < 60 * second ? 2 * pause : 60 * second;
    }
    assert_true(hr_failover_may_try(&f, now + pause));
    hr_failover_succeeded(&f, "cuda");
    assert_false(hr_failover_is_broken(&f));
    assert_true(hr_failover_may_try(&f, now));
    hr_failover_failed(&f, now, "cuda", &err);
    assert_true(hr_failover_may_try(&f, now + second)); /* the pauses start again */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(launches_compute_the_references_logits, reset),
        cmocka_unit_test_setup(the_device_checks_pass_on_the_emulator, reset),
        cmocka_unit_test_setup(v_may_lack_either_part, reset),
        cmocka_unit_test_setup(a_layer_is_a_handful_of_launches, reset),
        cmocka_unit_test_setup(buffers_that_live_together_lie_apart, reset),
        cmocka_unit_test_setup(a_batch_runs_in_the_smallest_bucket_that_holds_it, reset),
        cmocka_unit_test_setup(staging_holds_each_slice_once_however_rows_are_cut, reset),
        cmocka_unit_test_setup(a_batch_past_the_largest_bucket_is_cut, reset),
        cmocka_unit_test_setup(what_cannot_be_loaded_is_refused, reset),
        cmocka_unit_test_setup(workers_are_dealt_to_the_devices, reset),
        cmocka_unit_test_setup(every_failing_call_leaves_right_answers_and_no_leak, reset),
        cmocka_unit_test(a_broken_device_is_tried_again_after_pauses_that_double),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
