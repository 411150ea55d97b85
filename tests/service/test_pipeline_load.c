/* The pipeline under load, with a model that takes its time: who goes first, what is shared between workers,
 * what is refused or dropped, and that all counters add up.
 *
 * A worker is held by a call whose `done` waits at a gate: what is submitted meanwhile is in the queue. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/thread.h"
#include "service/pipeline.h"
#include "service/servable.h"

enum { N_WORKERS = 2, MAX_ITEMS = 1000, PATIENCE_S = 60 };

static const hr_pipeline_options DEFAULTS = {
    .n_workers = N_WORKERS,
    .max_items = MAX_ITEMS,
    .max_id_nbytes = 64,
    .max_queued_calls = 1000,
    .max_queued_items = 1000000,
    .max_queue_ns = UINT64_MAX,
};

/* What the group shares: a model of HoME's kind on the backend that takes longest. */
typedef struct group {
    hr_store *store;
    hr_repository *repository;
} group;

static int group_setup(void **state) {
    group *g = calloc(1, sizeof *g);
    const hr_repository_options options = {.model = {.backend = "reference", .n_workers = N_WORKERS},
                                           .prepare = hr_servable_prepare};
    hr_error err;
    assert_int_equal(hr_store_open("none:", &hr_store_defaults, &g->store, &err), HR_OK);
    if (hr_repository_open("tests/service/models", &options, &g->repository, &err) != HR_OK)
        fail_msg("%s", err.message);
    *state = g;
    return 0;
}

static int group_teardown(void **state) {
    group *g = *state;
    hr_repository_close(g->repository);
    hr_store_close(g->store);
    free(g);
    return 0;
}

static hr_pipeline *open_pipeline(const group *g, const hr_pipeline_options *options) {
    hr_pipeline *pipeline = NULL;
    hr_error err;
    if (hr_pipeline_create(options, g->repository, g->store, &pipeline, &err) != HR_OK)
        fail_msg("%s", err.message);
    return pipeline;
}

/* ---- Calls ---- */

typedef struct test_call {
    hr_rank_call call; /* first */
    hr_arena *arena;
    sem_t finished;
    atomic_uint n_done;
    uint32_t place; /* the how-many-th to be done, from 0 */
    sem_t *gate;    /* waited for in done; NULL: none */
} test_call;

static atomic_uint n_places;

static void wait_for(sem_t *semaphore) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    while (sem_timedwait(semaphore, &until) != 0)
        if (hr_clock_wall_us() / 1000000 > (uint64_t)until.tv_sec) fail_msg("it does not come");
}

static void on_done(hr_rank_call *call) {
    test_call *c = (test_call *)call;
    atomic_fetch_add(&c->n_done, 1);
    c->place = atomic_fetch_add(&n_places, 1);
    sem_t *gate = c->gate;
    sem_post(&c->finished);
    if (gate != NULL) wait_for(gate);
}

static Homerank__V1__RankRequest *make_request(hr_arena *arena, uint32_t n_items) {
    Homerank__V1__RankRequest *request = hr_arena_calloc(arena, 1, sizeof *request);
    homerank__v1__rank_request__init(request);
    request->user_id = hr_arena_strndup(arena, "7", 1);
    request->item_ids = hr_arena_calloc(arena, n_items, sizeof *request->item_ids);
    request->n_item_ids = n_items;
    for (uint32_t i = 0; i < n_items; i++) {
        char id[16];
        int nbytes = snprintf(id, sizeof id, "%u", i);
        request->item_ids[i] = hr_arena_strndup(arena, id, (size_t)nbytes);
    }
    return request;
}

static test_call *make_call(uint32_t n_items, hr_call_class class, uint64_t deadline_ns) {
    test_call *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->arena = hr_arena_create(64 << 20);
    sem_init(&c->finished, 0, 0);
    c->call = (hr_rank_call){.request = make_request(c->arena, n_items),
                             .arena = c->arena,
                             .received_ns = hr_clock_ns(),
                             .deadline_ns = deadline_ns,
                             .priority = class,
                             .done = on_done};
    return c;
}

static test_call *submit(hr_pipeline *pipeline, uint32_t n_items, hr_call_class class, uint64_t deadline_ns) {
    test_call *c = make_call(n_items, class, deadline_ns);
    hr_pipeline_submit(pipeline, &c->call);
    return c;
}

static void free_call(test_call *c) {
    hr_arena_destroy(c->arena);
    sem_destroy(&c->finished);
    free(c);
}

static void expect_done(test_call *c, hr_status code) {
    wait_for(&c->finished);
    if (c->call.error.code != code) fail_msg("expected %d, found %s", code, c->call.error.message);
}

static void end(test_call *c, hr_status code) {
    expect_done(c, code);
    free_call(c);
}

/* A call that holds the worker which answers it until the gate is opened. */
static test_call *hold_worker(hr_pipeline *pipeline, sem_t *gate) {
    test_call *c = make_call(1, HR_CLASS_NORMAL, UINT64_MAX);
    sem_init(gate, 0, 0);
    c->gate = gate;
    hr_pipeline_submit(pipeline, &c->call);
    expect_done(c, HR_OK);
    return c;
}

static void let_worker_go(test_call *held, sem_t *gate) {
    sem_post(gate);
    free_call(held);
}

static hr_pipeline_options one_worker(void) {
    hr_pipeline_options options = DEFAULTS;
    options.n_workers = 1;
    return options;
}

/* ---- Order ---- */

static void calls_go_by_class_and_then_by_deadline(void **state) {
    enum { N = 6 };
    hr_pipeline_options options = one_worker();
    options.max_batch_rows = 10; /* one call each */
    hr_pipeline *pipeline = open_pipeline(*state, &options);
    sem_t gate;
    test_call *held = hold_worker(pipeline, &gate), *calls[N];
    const uint64_t now_ns = hr_clock_ns(), s = UINT64_C(1000000000);
    calls[0] = submit(pipeline, 10, HR_CLASS_SHADOW, UINT64_MAX);
    calls[1] = submit(pipeline, 10, HR_CLASS_BATCH, now_ns + 3000 * s);
    calls[2] = submit(pipeline, 10, HR_CLASS_BATCH, now_ns + 2000 * s);
    calls[3] = submit(pipeline, 10, HR_CLASS_NORMAL, now_ns + 5000 * s);
    calls[4] = submit(pipeline, 10, HR_CLASS_NORMAL, UINT64_MAX);
    calls[5] = submit(pipeline, 10, HR_CLASS_NORMAL, now_ns + 4000 * s);
    hr_pipeline_counts counts;
    hr_pipeline_count(pipeline, &counts);
    assert_int_equal(counts.queued_calls, N);
    assert_int_equal(counts.queued_rows, N * 10);
    assert_int_equal(counts.in_flight, N);
    let_worker_go(held, &gate);
    for (int i = 0; i < N; i++) expect_done(calls[i], HR_OK);
    const int order[N] = {4, 5, 3, 2, 1, 0};
    for (int i = 1; i < N; i++) assert_true(calls[order[i - 1]]->place < calls[order[i]]->place);
    for (int i = 0; i < N; i++) free_call(calls[i]);
    hr_pipeline_destroy(pipeline);
    sem_destroy(&gate);
}

/* ---- Sharing ---- */

/* Counts batches; each worker's first waits in its report until as many workers have had one. */
typedef struct watcher {
    pthread_mutex_t lock;
    pthread_cond_t change;
    pthread_t threads[N_WORKERS];
    uint32_t n_threads, wanted_threads;
    uint64_t n_batches, n_rows, n_call_parts;
    uint64_t outcomes[HR_REFUSAL_COUNT], answered, cancelled, failed, n_calls;
} watcher;

static void on_batch(void *arg, const hr_batch_report *report) {
    watcher *w = arg;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&w->lock);
    w->n_batches++;
    w->n_rows += report->n_rows;
    w->n_call_parts += report->n_calls;
    bool known = false;
    for (uint32_t i = 0; i < w->n_threads; i++) known |= pthread_equal(w->threads[i], pthread_self()) != 0;
    if (!known && w->n_threads < N_WORKERS) w->threads[w->n_threads++] = pthread_self();
    pthread_cond_broadcast(&w->change);
    int timed_out = 0;
    while (w->n_threads < w->wanted_threads && timed_out == 0)
        timed_out = pthread_cond_timedwait(&w->change, &w->lock, &until);
    pthread_mutex_unlock(&w->lock);
}

static void on_call(void *arg, const hr_call_report *report) {
    watcher *w = arg;
    pthread_mutex_lock(&w->lock);
    w->n_calls++;
    w->outcomes[report->refusal]++;
    if (report->refusal == HR_REFUSAL_NONE) {
        w->answered += report->code == HR_OK;
        w->cancelled += report->code == HR_CANCELLED;
        w->failed += report->code != HR_OK && report->code != HR_CANCELLED;
    }
    pthread_mutex_unlock(&w->lock);
}

#define WATCHER                                                                                              \
    { .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER }

static void a_large_call_is_computed_by_all_workers(void **state) {
    watcher w = WATCHER;
    const hr_pipeline_observer observer = {&w, on_call, on_batch};
    w.wanted_threads = N_WORKERS;
    hr_pipeline_options options = DEFAULTS;
    options.observer = &observer;
    hr_pipeline *pipeline = open_pipeline(*state, &options);
    test_call *c = submit(pipeline, MAX_ITEMS, HR_CLASS_NORMAL, UINT64_MAX);
    expect_done(c, HR_OK);
    const Homerank__V1__Timing *timing = c->call.response->timing;
    assert_true(timing->model_us > timing->total_us / 4); /* there was not much else to do */
    assert_true(timing->queue_us + timing->features_us + timing->model_us <= timing->total_us + 3);
    free_call(c);
    hr_pipeline_destroy(pipeline);
    assert_int_equal(w.n_threads, N_WORKERS);
    assert_int_equal(w.n_rows, MAX_ITEMS);
    assert_true(w.n_batches >= (MAX_ITEMS + HR_DEFAULT_BATCH_ROWS - 1) / HR_DEFAULT_BATCH_ROWS);
    assert_int_equal(w.n_call_parts, w.n_batches);
    assert_int_equal(w.answered, 1);
}

static void calls_that_wait_share_a_batch(void **state) {
    enum { N = 20, ITEMS = 5 };
    watcher w = WATCHER;
    const hr_pipeline_observer observer = {&w, on_call, on_batch};
    hr_pipeline_options options = one_worker();
    options.observer = &observer;
    hr_pipeline *pipeline = open_pipeline(*state, &options);
    sem_t gate;
    test_call *held = hold_worker(pipeline, &gate), *calls[N];
    for (int i = 0; i < N; i++) calls[i] = submit(pipeline, ITEMS, HR_CLASS_NORMAL, UINT64_MAX);
    let_worker_go(held, &gate);
    for (int i = 0; i < N; i++) end(calls[i], HR_OK);
    hr_pipeline_destroy(pipeline);
    assert_int_equal(w.n_batches, 2); /* that of the held call, and one for all the others */
    assert_int_equal(w.n_rows, 1 + N * ITEMS);
    assert_int_equal(w.n_call_parts, 1 + N);
    sem_destroy(&gate);
}

static void expect_same_answer(const Homerank__V1__RankResponse *a, const Homerank__V1__RankResponse *b) {
    assert_int_equal(a->n_item_ids, b->n_item_ids);
    for (size_t i = 0; i < a->n_item_ids; i++) assert_string_equal(a->item_ids[i], b->item_ids[i]);
    assert_memory_equal(a->scores, b->scores, a->n_scores * sizeof *a->scores);
    assert_memory_equal(a->task_scores, b->task_scores, a->n_task_scores * sizeof *a->task_scores);
}

/* In one piece by one worker, in pieces of 7 and of 128 by two, and packed with others. */
static void scores_do_not_depend_on_how_a_call_is_cut(void **state) {
    hr_pipeline_options options = one_worker();
    options.max_batch_rows = MAX_ITEMS;
    hr_pipeline *whole = open_pipeline(*state, &options);
    test_call *expected = submit(whole, 300, HR_CLASS_NORMAL, UINT64_MAX);
    expect_done(expected, HR_OK);
    const uint32_t sizes[] = {7, 32, 128};
    for (int i = 0; i < 3; i++) {
        options = DEFAULTS;
        options.max_batch_rows = sizes[i];
        hr_pipeline *cut = open_pipeline(*state, &options);
        test_call *before = submit(cut, 13, HR_CLASS_NORMAL, UINT64_MAX);
        test_call *found = submit(cut, 300, HR_CLASS_NORMAL, UINT64_MAX);
        test_call *after = submit(cut, 50, HR_CLASS_NORMAL, UINT64_MAX);
        expect_done(found, HR_OK);
        expect_same_answer(found->call.response, expected->call.response);
        end(before, HR_OK);
        end(after, HR_OK);
        free_call(found);
        hr_pipeline_destroy(cut);
    }
    free_call(expected);
    hr_pipeline_destroy(whole);
}

/* Row 250 has a feature of the wrong kind; the rows before it are with other workers, or computed. */
static void a_bad_item_fails_its_call_and_no_other(void **state) {
    enum { N_BAD = 2 };
    static const uint32_t bad_rows[N_BAD] = {250, 40};
    hr_pipeline_options options = DEFAULTS;
    options.max_batch_rows = 32;
    hr_pipeline *pipeline = open_pipeline(*state, &options);
    test_call *bad = make_call(300, HR_CLASS_NORMAL, UINT64_MAX);
    Homerank__V1__RankRequest *request = (Homerank__V1__RankRequest *)bad->call.request;
    request->n_item_features = 300;
    request->item_features = hr_arena_calloc(bad->arena, 300, sizeof *request->item_features);
    Homerank__V1__FeatureMap none = HOMERANK__V1__FEATURE_MAP__INIT, wrong = none;
    Homerank__V1__FeatureValue text = HOMERANK__V1__FEATURE_VALUE__INIT;
    text.kind_case = HOMERANK__V1__FEATURE_VALUE__KIND_ID;
    text.id = (char *)"no number";
    Homerank__V1__FeatureMap__FeaturesEntry entry = HOMERANK__V1__FEATURE_MAP__FEATURES_ENTRY__INIT;
    Homerank__V1__FeatureMap__FeaturesEntry *entries[] = {&entry};
    entry.key = (char *)"f4"; /* numbers */
    entry.value = &text;
    wrong.n_features = 1;
    wrong.features = entries;
    for (int i = 0; i < 300; i++) request->item_features[i] = &none;
    for (int i = 0; i < N_BAD; i++) request->item_features[bad_rows[i]] = &wrong;
    test_call *good = make_call(300, HR_CLASS_NORMAL, UINT64_MAX);
    hr_pipeline_submit(pipeline, &bad->call);
    hr_pipeline_submit(pipeline, &good->call);
    expect_done(bad, HR_INVALID_ARGUMENT);
    assert_non_null(strstr(bad->call.error.message, "item_features[40]"));
    end(good, HR_OK);
    free_call(bad);
    hr_pipeline_counts counts;
    hr_pipeline_count(pipeline, &counts);
    assert_int_equal(counts.failed, 1);
    hr_pipeline_destroy(pipeline);
}

/* ---- Who is not served ---- */

static void a_cancelled_call_frees_its_place_at_once(void **state) {
    hr_pipeline_options options = one_worker();
    options.max_queued_calls = 2;
    hr_pipeline *pipeline = open_pipeline(*state, &options);
    sem_t gate;
    test_call *held = hold_worker(pipeline, &gate);
    test_call *first = submit(pipeline, 5, HR_CLASS_NORMAL, UINT64_MAX);
    test_call *second = submit(pipeline, 5, HR_CLASS_NORMAL, UINT64_MAX);
    end(submit(pipeline, 5, HR_CLASS_NORMAL, UINT64_MAX), HR_RESOURCE_EXHAUSTED);
    hr_pipeline_cancel(pipeline, &first->call);
    assert_int_equal(atomic_load(&first->n_done), 0); /* not on this thread */
    test_call *third = submit(pipeline, 5, HR_CLASS_NORMAL, UINT64_MAX);
    let_worker_go(held, &gate);
    expect_done(first, HR_CANCELLED);
    end(second, HR_OK);
    end(third, HR_OK);
    hr_pipeline_cancel(pipeline, &first->call); /* too late, and harmless */
    hr_pipeline_destroy(pipeline);
    assert_int_equal(atomic_load(&first->n_done), 1);
    free_call(first);
    sem_destroy(&gate);
}

static void a_cancel_that_comes_before_the_call_is_not_lost(void **state) {
    hr_pipeline *pipeline = open_pipeline(*state, &DEFAULTS);
    test_call *c = make_call(5, HR_CLASS_NORMAL, UINT64_MAX);
    hr_pipeline_cancel(pipeline, &c->call);
    hr_pipeline_submit(pipeline, &c->call);
    end(c, HR_CANCELLED);
    hr_pipeline_counts counts;
    hr_pipeline_count(pipeline, &counts);
    assert_int_equal(counts.cancelled, 1);
    hr_pipeline_destroy(pipeline);
}

static void a_call_that_would_not_make_its_deadline_is_refused_at_once(void **state) {
    hr_pipeline *pipeline = open_pipeline(*state, &DEFAULTS);
    uint64_t least_us = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        test_call *c = submit(pipeline, MAX_ITEMS, HR_CLASS_NORMAL, UINT64_MAX);
        expect_done(c, HR_OK);
        const uint64_t total_us = c->call.response->timing->total_us;
        if (total_us < least_us) least_us = total_us;
        free_call(c);
    }
    uint64_t deadline_ns = hr_clock_ns() + least_us * 1000 / 8;
    test_call *hopeless = submit(pipeline, MAX_ITEMS, HR_CLASS_NORMAL, deadline_ns);
    assert_int_equal(atomic_load(&hopeless->n_done), 1); /* on this thread */
    assert_non_null(strstr(hopeless->call.error.message, "would take at least"));
    end(hopeless, HR_DEADLINE_EXCEEDED);
    hr_pipeline_counts counts;
    hr_pipeline_count(pipeline, &counts);
    assert_int_equal(counts.refused, 1);
    hr_pipeline_destroy(pipeline);
}

static void what_expires_in_the_queue_is_not_computed(void **state) {
    watcher w = WATCHER;
    const hr_pipeline_observer observer = {&w, on_call, on_batch};
    hr_pipeline_options options = one_worker();
    options.observer = &observer;
    hr_pipeline *pipeline = open_pipeline(*state, &options);
    sem_t gate;
    test_call *held = hold_worker(pipeline, &gate);
    uint64_t until_ns = hr_clock_ns() + 2000000000; /* long enough to be admitted on a busy machine */
    test_call *late = submit(pipeline, 100, HR_CLASS_NORMAL, until_ns);
    while (hr_clock_ns() < until_ns) sched_yield();
    let_worker_go(held, &gate);
    end(late, HR_DEADLINE_EXCEEDED);
    hr_pipeline_destroy(pipeline);
    assert_int_equal(w.n_rows, 1);
    assert_int_equal(w.failed, 1);
    sem_destroy(&gate);
}

static void a_call_that_would_wait_too_long_is_refused(void **state) {
    hr_pipeline_options options = one_worker();
    options.max_queue_ns = 1;
    hr_pipeline *pipeline = open_pipeline(*state, &options);
    sem_t gate;
    test_call *held = hold_worker(pipeline, &gate); /* one batch was measured */
    test_call *first = submit(pipeline, 100, HR_CLASS_NORMAL, UINT64_MAX);
    test_call *second = submit(pipeline, 100, HR_CLASS_NORMAL, UINT64_MAX);
    assert_non_null(strstr(second->call.error.message, "would wait"));
    end(second, HR_RESOURCE_EXHAUSTED);
    let_worker_go(held, &gate);
    end(first, HR_OK);
    hr_pipeline_destroy(pipeline);
    sem_destroy(&gate);
}

/* ---- Everything at once ---- */

enum { SUBMITTERS = 3, CALLS_EACH = 150 };

typedef struct storm {
    hr_pipeline *pipeline;
    atomic_uint next_submitter;
    test_call *calls[SUBMITTERS][CALLS_EACH];
} storm;

static test_call *stormy_call(uint32_t i) {
    uint64_t now_ns = hr_clock_ns();
    uint32_t n_items = i % 11 == 0 ? 0 : i % 7 == 0 ? 400 : 1 + i % 40; /* some are bad */
    test_call *c = make_call(n_items, (hr_call_class)(i % HR_CLASS_COUNT), UINT64_MAX);
    if (i % 5 == 0) c->call.deadline_ns = now_ns + i * 20000;
    return c;
}

static void *submit_storm(void *arg) {
    storm *s = arg;
    uint32_t submitter = atomic_fetch_add(&s->next_submitter, 1);
    for (uint32_t i = 0; i < CALLS_EACH; i++) {
        test_call *c = stormy_call(submitter * CALLS_EACH + i);
        s->calls[submitter][i] = c;
        hr_pipeline_submit(s->pipeline, &c->call);
        if (i % 3 == 0) hr_pipeline_cancel(s->pipeline, &s->calls[submitter][i < 4 ? i : i - 4]->call);
    }
    return NULL;
}

static void the_counters_add_up(void **state) {
    watcher w = WATCHER;
    const hr_pipeline_observer observer = {&w, on_call, on_batch};
    hr_pipeline_options options = DEFAULTS;
    options.observer = &observer;
    options.max_queued_calls = 40;
    options.max_queue_ns = 0;
    storm s = {.pipeline = open_pipeline(*state, &options)};
    pthread_t threads[SUBMITTERS];
    for (int i = 0; i < SUBMITTERS; i++)
        assert_int_equal(hr_thread_start(&threads[i], "submitter", submit_storm, &s, NULL), HR_OK);
    for (int i = 0; i < SUBMITTERS; i++) pthread_join(threads[i], NULL);
    uint64_t n_ok = 0, n_cancelled = 0, n_rows = 0;
    for (int i = 0; i < SUBMITTERS; i++) {
        for (int j = 0; j < CALLS_EACH; j++) {
            test_call *c = s.calls[i][j];
            wait_for(&c->finished);
            n_ok += c->call.error.code == HR_OK;
            n_cancelled += c->call.error.code == HR_CANCELLED;
            if (c->call.error.code == HR_OK) n_rows += c->call.request->n_item_ids;
        }
    }
    hr_pipeline_counts counts;
    hr_pipeline_count(s.pipeline, &counts);
    hr_pipeline_destroy(s.pipeline);
    assert_int_equal(counts.submitted, SUBMITTERS * CALLS_EACH);
    assert_int_equal(counts.in_flight, 0);
    assert_int_equal(counts.queued_calls, 0);
    assert_int_equal(counts.queued_rows, 0);
    assert_int_equal(counts.answered + counts.refused + counts.cancelled + counts.failed, counts.submitted);
    assert_int_equal(counts.answered, n_ok);
    assert_int_equal(counts.cancelled, n_cancelled);
    assert_int_equal(w.n_calls, counts.submitted);
    assert_int_equal(w.answered, counts.answered);
    assert_int_equal(w.cancelled, counts.cancelled);
    assert_int_equal(w.failed, counts.failed);
    assert_int_equal(w.n_calls - w.outcomes[HR_REFUSAL_NONE], counts.refused);
    assert_int_equal(w.outcomes[HR_REFUSAL_INVALID], (SUBMITTERS * CALLS_EACH + 10) / 11);
    assert_true(w.n_rows >= n_rows && n_ok > 0);
    for (int i = 0; i < SUBMITTERS; i++) {
        for (int j = 0; j < CALLS_EACH; j++) {
            assert_int_equal(atomic_load(&s.calls[i][j]->n_done), 1);
            free_call(s.calls[i][j]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_go_by_class_and_then_by_deadline),
        cmocka_unit_test(a_large_call_is_computed_by_all_workers),
        cmocka_unit_test(calls_that_wait_share_a_batch),
        cmocka_unit_test(scores_do_not_depend_on_how_a_call_is_cut),
        cmocka_unit_test(a_bad_item_fails_its_call_and_no_other),
        cmocka_unit_test(a_cancelled_call_frees_its_place_at_once),
        cmocka_unit_test(a_cancel_that_comes_before_the_call_is_not_lost),
        cmocka_unit_test(a_call_that_would_not_make_its_deadline_is_refused_at_once),
        cmocka_unit_test(what_expires_in_the_queue_is_not_computed),
        cmocka_unit_test(a_call_that_would_wait_too_long_is_refused),
        cmocka_unit_test(the_counters_add_up),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
