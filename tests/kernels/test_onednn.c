/* The oneDNN backend against the reference backend, on random networks of every kind: same logits, at every
 * precision, for row counts around the block sizes; the same bits wherever a row stands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"
#include "kernels/backend.h"
#include "tests/kernels/random_plan.h"

enum { N_SEEDS = 4, MOST_ROWS = 200 };

static const uint32_t ROW_COUNTS[] = {1,  2,   11,  12,  13,  15,  16,  17,       64,
                                      65, 128, 130, 131, 132, 133, 145, MOST_ROWS};
enum { N_ROW_COUNTS = sizeof ROW_COUNTS / sizeof ROW_COUNTS[0] };

/* MODEL.md 5; f32 is held to what is typical rather than to the bound of 1e-4. */
static double tolerance(hr_precision precision) {
    return precision == HR_PRECISION_F32 ? 2e-5 : 5e-2;
}

/* Layer norm over a few nearly equal values magnifies the rounding of its operands without bound: a random
 * network has such rows now and then. With it, bf16 may miss the bound for this share of the logits. */
#define OUTLIERS 5e-3

typedef struct fixture {
    hr_random_plan *random_plan;
    hr_engine *engine, *reference;
    hr_worker *worker, *reference_worker;
    const char *name;
    uint64_t seed;
} fixture;

static void fixture_open_plan(fixture *f, hr_random_plan *random_plan, hr_precision precision) {
    hr_error err;
    memset(f, 0, sizeof *f);
    f->random_plan = random_plan;
    f->name = "random network";
    const hr_plan *plan = &random_plan->plan;
    if (hr_engine_create("onednn", precision, plan, &f->engine, &err) != HR_OK) fail_msg("%s", err.message);
    if (hr_worker_create(f->engine, &f->worker, &err) != HR_OK) fail_msg("%s", err.message);
    assert_int_equal(hr_engine_create("reference", HR_PRECISION_F32, plan, &f->reference, &err), HR_OK);
    assert_int_equal(hr_worker_create(f->reference, &f->reference_worker, &err), HR_OK);
}

static void fixture_open(fixture *f, hr_random_kind kind, uint64_t seed, hr_precision precision) {
    fixture_open_plan(f, hr_random_plan_create(kind, seed), precision);
    f->name = hr_random_kind_name(kind);
    f->seed = seed;
}

static void fixture_close(fixture *f) {
    hr_worker_destroy(f->worker);
    hr_worker_destroy(f->reference_worker);
    hr_engine_destroy(f->engine);
    hr_engine_destroy(f->reference);
    hr_random_plan_destroy(f->random_plan);
}

static void run(hr_worker *worker, const hr_slice *slices, size_t n_slices) {
    hr_error err;
    if (hr_forward(worker, slices, n_slices, &err) != HR_OK) fail_msg("%s", err.message);
}

/* A batch of n rows by three users, one of whom has no candidates. */
static hr_random_batch *batch_of(const fixture *f, uint32_t n) {
    const uint32_t n_rows[] = {n / 3, 0, n - n / 3};
    return hr_random_batch_create(&f->random_plan->plan, n_rows, 3, n);
}

/* The batch's logits, found by the backend under test, agree with the reference's: its `want`. */
static void check_logits(const fixture *f, const hr_random_batch *batch, const hr_random_batch *want,
                         hr_precision precision) {
    size_t n_outside = 0, allowed = 0;
    double bound = tolerance(precision);
    assert_true(hr_random_batch_guards_intact(batch));
    if (precision == HR_PRECISION_BF16 && f->random_plan->plan.norm == HR_NORM_LAYER) {
        allowed = (size_t)(OUTLIERS * (double)batch->n_logits) + 1;
    }
    for (size_t i = 0; i < batch->n_logits; i++) {
        double z = want->logits[i], found = batch->logits[i];
        if (fabs(found - z) <= bound * fmax(1.0, fabs(z))) continue;
        if (++n_outside <= allowed && isfinite(found)) continue;
        fail_msg("%s, seed %d, %zu rows: logit %zu is %.9g, expected %.9g", f->name, (int)f->seed,
                 batch->n_rows, i, found, z);
    }
}

static void check_agreement(const fixture *f, uint32_t n, hr_precision precision) {
    hr_random_batch *batch = batch_of(f, n), *want = batch_of(f, n);
    run(f->worker, batch->slices, batch->n_slices);
    run(f->reference_worker, want->slices, want->n_slices);
    check_logits(f, batch, want, precision);
    hr_random_batch_destroy(batch);
    hr_random_batch_destroy(want);
}

/* A row of a batch as a slice of its own. */
static hr_slice single(const fixture *f, const hr_random_batch *batch, size_t row, float *logits) {
    const hr_slice *slice = batch->slices;
    for (; row >= slice->n_rows; slice++) row -= slice->n_rows;
    size_t item_nbytes = hr_row_words(f->random_plan->plan.schema, HR_ENTITY_ITEM) * sizeof(uint32_t);
    hr_slice one = *slice;
    one.items = (const char *)slice->items + row * item_nbytes;
    one.n_rows = 1;
    one.logits = logits;
    return one;
}

/* Scores the rows first, first + step, ... (modulo the batch, `count` of them), each as its own slice, in one
 * batch: other neighbours, other places, other block sizes. */
static void check_bits(const fixture *f, const hr_random_batch *batch, size_t first, size_t step,
                       size_t count) {
    size_t n_tasks = f->random_plan->plan.n_tasks;
    hr_slice slices[MOST_ROWS];
    float *logits = calloc(count * n_tasks, sizeof *logits);
    assert_non_null(logits);
    for (size_t i = 0; i < count; i++) {
        slices[i] = single(f, batch, (first + i * step) % batch->n_rows, logits + i * n_tasks);
    }
    run(f->worker, slices, count);
    for (size_t i = 0; i < count; i++) {
        size_t row = (first + i * step) % batch->n_rows;
        if (memcmp(logits + i * n_tasks, batch->logits + row * n_tasks, n_tasks * sizeof *logits) != 0) {
            fail_msg("%s, seed %d: row %zu has other bits at place %zu of %zu", f->name, (int)f->seed, row, i,
                     count);
        }
    }
    free(logits);
}

/* The same rows with the same mates, in slices that are cut elsewhere and some of them empty: what belongs to
 * a slice is computed for more of them or fewer. */
static void check_cuts(const fixture *f, const hr_random_batch *batch, uint32_t piece) {
    const hr_plan *plan = &f->random_plan->plan;
    size_t item_nbytes = hr_row_words(plan->schema, HR_ENTITY_ITEM) * sizeof(uint32_t), n = 0;
    hr_slice slices[2 * MOST_ROWS];
    float *logits = calloc(batch->n_logits, sizeof *logits), *to = logits;
    assert_non_null(logits);
    for (size_t s = 0; s < batch->n_slices; s++) {
        const hr_slice *whole = &batch->slices[s];
        for (uint32_t at = 0; at < whole->n_rows; at += piece) {
            slices[n] = *whole;
            slices[n].items = (const char *)whole->items + at * item_nbytes;
            slices[n].n_rows = whole->n_rows - at < piece ? whole->n_rows - at : piece;
            slices[n].logits = to;
            to += (size_t)slices[n].n_rows * plan->n_tasks;
            slices[n + 1] = *whole;
            slices[n + 1].n_rows = 0;
            n += 2;
        }
    }
    run(f->worker, slices, n);
    if (memcmp(logits, batch->logits, batch->n_logits * sizeof *logits) != 0) {
        fail_msg("%s, seed %d: other bits in slices of %u rows", f->name, (int)f->seed, piece);
    }
    free(logits);
}

/* One network: the reference judges one large batch; every other batch is held to that one's bits. */
static void check_network(const fixture *f, const hr_random_batch *want, hr_precision precision) {
    hr_random_batch *batch = batch_of(f, MOST_ROWS);
    run(f->worker, batch->slices, batch->n_slices);
    check_logits(f, batch, want, precision);
    for (size_t row = 0; row < MOST_ROWS; row += 13) check_bits(f, batch, row, 1, 1);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        check_bits(f, batch, 7, 1, ROW_COUNTS[i]);
        check_bits(f, batch, 3, 77, ROW_COUNTS[i]);
    }
    for (uint32_t piece = 1; piece <= MOST_ROWS; piece = 3 * piece + 1) check_cuts(f, batch, piece);
    hr_random_batch_destroy(batch);
}

/* The reference is by far the slowest: it runs once for both precisions. */
static void logits_are_the_references_whatever_the_batch(void **state) {
    (void)state;
    for (hr_random_kind kind = 0; kind < HR_RANDOM_KIND_COUNT; kind++) {
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            hr_random_batch *want = NULL;
            for (hr_precision precision = HR_PRECISION_F32; precision <= HR_PRECISION_BF16; precision++) {
                fixture f;
                fixture_open(&f, kind, seed, precision);
                if (want == NULL) {
                    want = batch_of(&f, MOST_ROWS);
                    run(f.reference_worker, want->slices, want->n_slices);
                }
                check_network(&f, want, precision);
                fixture_close(&f);
            }
            hr_random_batch_destroy(want);
        }
    }
}

/* The user's part of a product is computed once a slice and added to the items'. Computed for every row, as
 * the plan may ask, the logits are within the bounds too, and not the same bits: they come in two ways. */
static void sharing_a_slices_part_changes_no_more_than_rounding(void **state) {
    (void)state;
    for (hr_precision precision = HR_PRECISION_F32; precision <= HR_PRECISION_BF16; precision++) {
        bool same_bits = true;
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            fixture shared, unshared;
            hr_random_plan *random_plan = hr_random_plan_create(HR_RANDOM_HOME_2, seed);
            random_plan->plan.unshared = true;
            fixture_open_plan(&unshared, random_plan, precision);
            fixture_open(&shared, HR_RANDOM_HOME_2, seed, precision);
            check_agreement(&unshared, 100, precision);
            hr_random_batch *a = batch_of(&shared, 100), *b = batch_of(&unshared, 100);
            run(shared.worker, a->slices, a->n_slices);
            run(unshared.worker, b->slices, b->n_slices);
            same_bits = same_bits && memcmp(a->logits, b->logits, a->n_logits * sizeof *a->logits) == 0;
            hr_random_batch_destroy(a);
            hr_random_batch_destroy(b);
            fixture_close(&shared);
            fixture_close(&unshared);
        }
        assert_false(same_bits);
    }
}

static void an_empty_batch_is_fine(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, HR_RANDOM_HOME_2, 0, HR_PRECISION_F32);
    run(f.worker, NULL, 0);
    const uint32_t none[] = {0, 0};
    hr_random_batch *batch = hr_random_batch_create(&f.random_plan->plan, none, 2, 1);
    run(f.worker, batch->slices, 2);
    assert_true(hr_random_batch_guards_intact(batch));
    hr_random_batch_destroy(batch);
    fixture_close(&f);
}

/* All features become one entity's: v has one part only, or its rows none of their own. */
static void move_features(hr_schema *schema, hr_entity entity) {
    hr_feature *features = (hr_feature *)schema->features; /* the random plan's own memory */
    hr_row_layout row = {0, 0};
    for (uint32_t i = 0; i < schema->n_features; i++) {
        hr_feature *f = &features[i];
        bool dense = f->kind == HR_FEATURE_NUMBER || f->kind == HR_FEATURE_NUMBERS;
        f->entity = entity;
        f->slot = dense ? row.n_dense : row.n_index;
        if (dense) {
            row.n_dense += f->width;
        } else {
            row.n_index += f->kind == HR_FEATURE_IDS ? 1 + f->max_length : 1;
        }
    }
    memset(schema->rows, 0, sizeof schema->rows);
    schema->rows[entity] = row;
}

static void any_entity_may_have_all_the_features(void **state) {
    (void)state;
    for (hr_entity entity = 0; entity < HR_ENTITY_COUNT; entity++) {
        for (hr_precision precision = HR_PRECISION_F32; precision <= HR_PRECISION_BF16; precision++) {
            hr_random_plan *random_plan = hr_random_plan_create(HR_RANDOM_HOME_2, 0);
            move_features(&random_plan->schema, entity);
            fixture f;
            fixture_open_plan(&f, random_plan, precision);
            check_agreement(&f, 33, precision);
            fixture_close(&f);
        }
    }
}

/* Makes of the plan's only unit one of E experts that read v `repeats` times, with n_hidden layers of one
 * value and a last one of `width`. All weights are zeros. */
static void make_experts(hr_random_plan *random_plan, uint32_t repeats, uint32_t n_experts, uint32_t n_hidden,
                         uint32_t width) {
    hr_plan *plan = &random_plan->plan;
    hr_arena *arena = random_plan->arena;
    hr_unit *unit = (hr_unit *)plan->layers[0].units; /* the random plan's own memory */
    uint32_t in = repeats * unit->input.width, widest = in > width ? in : width;
    hr_source *sources = hr_arena_calloc(arena, repeats, sizeof *sources);
    hr_expert_layer *layers = hr_arena_calloc(arena, (size_t)n_hidden + 1, sizeof *layers);
    const float *zeros = hr_arena_calloc(arena, (size_t)n_experts * widest, sizeof *zeros);
    assert_true(sources != NULL && layers != NULL && zeros != NULL);
    for (uint32_t i = 0; i < repeats; i++) sources[i] = unit->input.sources[0];
    for (uint32_t i = 0; i <= n_hidden; i++) {
        layers[i] = (hr_expert_layer){.in = i == 0 ? in : 1, .out = i == n_hidden ? width : 1};
        layers[i].weight = layers[i].bias = layers[i].norm_weight = layers[i].norm_bias = zeros;
    }
    unit->input = (hr_input){sources, repeats, in};
    unit->feature_gate.loras = 0;
    unit->n_experts = unit->n_mixed = n_experts;
    unit->n_expert_layers = n_hidden + 1;
    unit->expert_layers = layers;
    unit->gate_weight = unit->gate_bias = zeros;
    unit->self_gate = false;
    unit->width = width;
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        hr_task *task = (hr_task *)&plan->tasks[t];
        hr_linear *last = (hr_linear *)&task->tower[task->n_tower - 1];
        *last = (hr_linear){.in = width, .out = 1, .weight = zeros, .bias = zeros};
        task->tower = last;
        task->n_tower = 1;
        task->input.width = width;
    }
}

static void a_very_wide_network_runs_in_smaller_blocks(void **state) {
    (void)state;
    char text[160];
    hr_random_plan *random_plan = hr_random_plan_create(HR_RANDOM_SHARED_BOTTOM, 0);
    make_experts(random_plan, 1, 12, 1, 65536); /* 128 rows would be 400 MB */
    fixture f;
    fixture_open_plan(&f, random_plan, HR_PRECISION_F32);
    hr_engine_describe(f.engine, text, sizeof text);
    unsigned largest = (unsigned)strtoul(strrchr(text, ' '), NULL, 10); /* what it says last */
    if (largest < 2 || largest >= 128) fail_msg("%s", text);
    check_agreement(&f, 2 * largest + 1, HR_PRECISION_F32);
    fixture_close(&f);
}

/* Of 16 million weights padding would make 270 million. */
static void layers_too_narrow_to_pad_are_refused(void **state) {
    (void)state;
    hr_error err;
    hr_engine *engine;
    hr_random_plan *random_plan = hr_random_plan_create(HR_RANDOM_SHARED_BOTTOM, 0);
    uint32_t repeats = 16384 / random_plan->plan.schema->width;
    make_experts(random_plan, repeats, 1024, 0, 1);
    for (hr_precision precision = HR_PRECISION_F32; precision <= HR_PRECISION_BF16; precision++) {
        assert_int_equal(hr_engine_create("onednn", precision, &random_plan->plan, &engine, &err),
                         HR_INVALID_ARGUMENT);
        if (strstr(err.message, "expected layers wide enough to be padded to 16, found") == NULL)
            fail_msg("%s", err.message);
    }
    hr_random_plan_destroy(random_plan);
}

static void a_network_of_very_many_products_is_prepared_in_seconds(void **state) {
    (void)state;
    hr_random_plan *random_plan = hr_random_plan_create(HR_RANDOM_SHARED_BOTTOM, 0);
    make_experts(random_plan, 1, 1024, 7, 1);
    clock_t start = clock(); /* of this process: what else the machine does counts for nothing */
    fixture f;
    fixture_open_plan(&f, random_plan, HR_PRECISION_F32);
    check_agreement(&f, 3, HR_PRECISION_F32);
    assert_in_range((clock() - start) / CLOCKS_PER_SEC, 0, 20);
    fixture_close(&f);
}

typedef struct side {
    hr_worker *worker;
    hr_random_batch *batch;
} side;

static void *run_side(void *arg) {
    side *s = arg;
    for (int i = 0; i < 20; i++) run(s->worker, s->batch->slices, s->batch->n_slices);
    return NULL;
}

static void workers_of_one_engine_run_side_by_side(void **state) {
    (void)state;
    enum { N_SIDES = 3 };
    fixture f;
    hr_error err;
    side sides[N_SIDES];
    pthread_t threads[N_SIDES];
    fixture_open(&f, HR_RANDOM_HOME_2, 1, HR_PRECISION_F32);
    hr_random_batch *want = batch_of(&f, 65);
    run(f.worker, want->slices, want->n_slices);
    for (int i = 0; i < N_SIDES; i++) {
        sides[i].batch = batch_of(&f, 65);
        assert_int_equal(hr_worker_create(f.engine, &sides[i].worker, &err), HR_OK);
        assert_int_equal(hr_thread_start(&threads[i], "side", run_side, &sides[i], &err), HR_OK);
    }
    for (int i = 0; i < N_SIDES; i++) {
        pthread_join(threads[i], NULL);
        assert_memory_equal(sides[i].batch->logits, want->logits, want->n_logits * sizeof(float));
        hr_worker_destroy(sides[i].worker);
        hr_random_batch_destroy(sides[i].batch);
    }
    hr_random_batch_destroy(want);
    fixture_close(&f);
}

static void an_engine_says_how_it_runs(void **state) {
    (void)state;
    fixture f;
    char text[160];
    fixture_open(&f, HR_RANDOM_HOME_2, 0, HR_PRECISION_F32);
    hr_engine_describe(f.engine, text, sizeof text);
    assert_non_null(strstr(text, "onednn"));
    assert_non_null(strstr(text, "f32"));
    assert_non_null(strstr(text, "blocks of "));
    hr_engine_describe(f.engine, text, 12); /* cut, not overrun */
    assert_true(strlen(text) < 12);
    fixture_close(&f);
}

/* test_onednn_avx2 keeps oneDNN to AVX2, whatever this CPU has. */
static void a_cpu_without_bf16_products_multiplies_in_f32(void **state) {
    (void)state;
    const char *isa = getenv("ONEDNN_MAX_CPU_ISA");
    if (isa == NULL || strcmp(isa, "AVX2") != 0) skip();
    fixture f;
    char text[160];
    fixture_open(&f, HR_RANDOM_HOME_2, 0, HR_PRECISION_BF16);
    hr_engine_describe(f.engine, text, sizeof text);
    if (strstr(text, "bf16 (in f32: no faster bf16 products on this CPU), avx2, blocks of 1,") == NULL)
        fail_msg("%s", text);
    check_agreement(&f, 65, HR_PRECISION_F32);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cpu_without_bf16_products_multiplies_in_f32),
        cmocka_unit_test(logits_are_the_references_whatever_the_batch),
        cmocka_unit_test(sharing_a_slices_part_changes_no_more_than_rounding),
        cmocka_unit_test(an_empty_batch_is_fine),
        cmocka_unit_test(any_entity_may_have_all_the_features),
        cmocka_unit_test(a_network_of_very_many_products_is_prepared_in_seconds),
        cmocka_unit_test(a_very_wide_network_runs_in_smaller_blocks),
        cmocka_unit_test(layers_too_narrow_to_pad_are_refused),
        cmocka_unit_test(workers_of_one_engine_run_side_by_side),
        cmocka_unit_test(an_engine_says_how_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
