/* The experiments file of a server that is changed while it serves: renamed into place, written over, turned
 * as a link, broken, taken away; by events alone, with no waiting but for them. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "service/experiments/experiments_watch.h"

enum { PATIENCE_S = 5 }; /* less than the ten seconds after which a file is looked at without an event */

typedef struct folder {
    char dir[32], path[64], other[64];
    hr_experiments_watch *watch;
} folder;

static void ignore(void *arg, const char *what) {
    (void)arg;
    (void)what;
}

static const hr_experiments_options options = {.feature = "ranking", .warn = ignore};

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* A file whose model is `model`. */
static void write_model(const char *path, const char *model) {
    char text[256];
    snprintf(text, sizeof text, "{\"features\": {\"ranking.model\": {\"defaultValue\": \"%s\"}}}", model);
    write_file(path, text);
}

static int open_folder(void **state) {
    folder *f = calloc(1, sizeof *f);
    hr_error err;
    strcpy(f->dir, "/tmp/experiments.XXXXXX");
    if (mkdtemp(f->dir) == NULL) return 1;
    snprintf(f->path, sizeof f->path, "%s/live.json", f->dir);
    snprintf(f->other, sizeof f->other, "%s/next.json", f->dir);
    write_model(f->path, "first");
    *state = f;
    return hr_experiments_watch_open(f->path, &options, &f->watch, &err);
}

static int close_folder(void **state) {
    folder *f = *state;
    hr_experiments_watch_close(f->watch);
    unlink(f->path);
    unlink(f->other);
    rmdir(f->dir);
    free(f);
    return 0;
}

/* The model that is decided; "" for none. */
static void ask_model(hr_experiments_watch *watch, char model[16]) {
    hr_arena *arena = hr_arena_create(1 << 16);
    hr_experiments *experiments = hr_experiments_watch_acquire(watch);
    hr_experiments_subject subject = {.user_id = "u"};
    hr_decision decision = {0};
    hr_error err;
    hr_experiments_decide(experiments, &subject, arena, &decision, &err);
    snprintf(model, 16, "%s", decision.model == NULL ? "" : decision.model);
    hr_experiments_unref(experiments);
    hr_arena_destroy(arena);
}

static bool serves(hr_experiments_watch *watch, const char *expected) {
    char model[16];
    ask_model(watch, model);
    return strcmp(model, expected) == 0;
}

static hr_experiments_watch_counts counts_of(hr_experiments_watch *watch) {
    hr_experiments_watch_counts counts;
    hr_experiments_watch_count(watch, &counts);
    return counts;
}

/* Asks again and again until it is so; fails where it never is. */
static void await_model(hr_experiments_watch *watch, const char *model) {
    const uint64_t until_ns = hr_clock_ns() + PATIENCE_S * 1000000000ull;
    while (!serves(watch, model))
        if (hr_clock_ns() > until_ns) fail_msg("%s is not served", model);
}

static void await_failures(hr_experiments_watch *watch, uint64_t n) {
    const uint64_t until_ns = hr_clock_ns() + PATIENCE_S * 1000000000ull;
    while (counts_of(watch).failures < n)
        if (hr_clock_ns() > until_ns) fail_msg("no failure was counted");
}

static void a_changed_file_is_served(void **state) {
    folder *f = *state;
    assert_true(serves(f->watch, "first"));
    write_model(f->other, "second");
    assert_int_equal(rename(f->other, f->path), 0);
    await_model(f->watch, "second");
    write_model(f->path, "third"); /* over it */
    await_model(f->watch, "third");
    write_model(f->other, "fourth");
    unlink(f->path);
    assert_int_equal(link(f->other, f->path), 0);
    hr_experiments_watch_reload(f->watch); /* as SIGHUP does */
    await_model(f->watch, "fourth");
}

/* As a mounted ConfigMap is: live.json -> data/live.json, and data is turned by a rename. */
static void a_turned_link_is_followed(void **state) {
    folder *f = *state;
    char one[64], two[64], data[64], turned[64], file[80];
    snprintf(one, sizeof one, "%s/one", f->dir);
    snprintf(two, sizeof two, "%s/two", f->dir);
    snprintf(data, sizeof data, "%s/data", f->dir);
    snprintf(turned, sizeof turned, "%s/turned", f->dir);
    assert_int_equal(mkdir(one, 0700) + mkdir(two, 0700), 0);
    snprintf(file, sizeof file, "%s/live.json", one);
    write_model(file, "one");
    snprintf(file, sizeof file, "%s/live.json", two);
    write_model(file, "two");
    assert_int_equal(symlink("one", data) + symlink("data/live.json", f->other), 0);
    assert_int_equal(rename(f->other, f->path), 0);
    await_model(f->watch, "one");
    assert_int_equal(symlink("two", turned) + rename(turned, data), 0);
    await_model(f->watch, "two");
    unlink(file);
    snprintf(file, sizeof file, "%s/live.json", one);
    unlink(file);
    unlink(data);
    rmdir(one);
    rmdir(two);
}

static void a_bad_file_leaves_the_one_before(void **state) {
    folder *f = *state;
    hr_experiments_watch_counts before = counts_of(f->watch);
    write_file(f->other, "{\"features\": {\"ranking\": {\"defaultValue\": {\"modle\": \"x\"}}}}");
    assert_int_equal(rename(f->other, f->path), 0);
    await_failures(f->watch, 1);
    assert_true(serves(f->watch, "first"));
    unlink(f->path);
    await_failures(f->watch, 2);
    assert_true(serves(f->watch, "first"));
    assert_string_equal(counts_of(f->watch).version, before.version);
    write_model(f->other, "second");
    assert_int_equal(rename(f->other, f->path), 0);
    await_model(f->watch, "second");
    assert_string_not_equal(counts_of(f->watch).version, before.version);
    assert_int_equal(counts_of(f->watch).loads, 2);
}

static void the_same_bytes_are_the_same_experiments(void **state) {
    folder *f = *state;
    hr_experiments *before = hr_experiments_watch_acquire(f->watch);
    write_model(f->path, "first");
    write_file(f->other, "{}");
    assert_int_equal(rename(f->other, f->path), 0);
    await_failures(f->watch, 1); /* behind the first change */
    hr_experiments *after = hr_experiments_watch_acquire(f->watch);
    assert_ptr_equal(before, after);
    hr_experiments_unref(before);
    hr_experiments_unref(after);
}

/* ---- Readers beside it ---- */

typedef struct reader {
    hr_experiments_watch *watch;
    atomic_bool stop;
    unsigned n_asked, n_wrong;
    pthread_t thread;
} reader;

static void *reader_run(void *arg) {
    reader *r = arg;
    char model[16];
    for (; !atomic_load(&r->stop); r->n_asked++) {
        ask_model(r->watch, model);
        r->n_wrong += strcmp(model, "even") != 0 && strcmp(model, "odd") != 0 && strcmp(model, "first") != 0;
    }
    return NULL;
}

static void readers_and_swaps_do_not_meet(void **state) {
    enum { N_READERS = 3, N_SWAPS = 40 };
    folder *f = *state;
    reader readers[N_READERS] = {0};
    for (int i = 0; i < N_READERS; i++) {
        readers[i].watch = f->watch;
        atomic_init(&readers[i].stop, false);
        assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_run, &readers[i]), 0);
    }
    for (int i = 0; i < N_SWAPS; i++) {
        write_model(f->other, i % 2 ? "odd" : "even");
        assert_int_equal(rename(f->other, f->path), 0);
        await_model(f->watch, i % 2 ? "odd" : "even");
        assert_int_equal(counts_of(f->watch).loads, i + 2); /* whoever sees a file sees it counted */
    }
    for (int i = 0; i < N_READERS; i++) {
        atomic_store(&readers[i].stop, true);
        pthread_join(readers[i].thread, NULL);
        assert_true(readers[i].n_asked > 0);
        assert_int_equal(readers[i].n_wrong, 0);
    }
}

/* ---- Without a watch ---- */

static void a_bad_file_is_an_error_at_the_start(void **state) {
    (void)state;
    hr_experiments_watch *watch;
    hr_error err;
    assert_int_equal(hr_experiments_watch_open("/nowhere/e.json", &options, &watch, &err), HR_NOT_FOUND);
    assert_string_equal(err.message, "experiments /nowhere/e.json: No such file or directory");
    assert_null(watch);
    hr_experiments_watch_close(NULL);
}

static void the_version_is_a_metric(void **state) {
    folder *f = *state;
    char *text = NULL, expected[64];
    size_t nbytes;
    FILE *out = open_memstream(&text, &nbytes);
    hr_metrics_text metrics = {.out = out};
    hr_experiments_watch_collect(&metrics, f->watch);
    fclose(out);
    snprintf(expected, sizeof expected, "homerank_experiments_info{version=\"%s\"} 1",
             counts_of(f->watch).version);
    assert_non_null(strstr(text, expected));
    assert_non_null(strstr(text, "\nhomerank_experiments_loads_total 1\n"));
    assert_non_null(strstr(text, "\nhomerank_experiments_refused_total 0\n"));
    free(text);
}

int main(void) {
#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, open_folder, close_folder)
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(a_changed_file_is_served),
        FOLDER_TEST(a_turned_link_is_followed),
        FOLDER_TEST(a_bad_file_leaves_the_one_before),
        FOLDER_TEST(the_same_bytes_are_the_same_experiments),
        FOLDER_TEST(readers_and_swaps_do_not_meet),
        FOLDER_TEST(the_version_is_a_metric),
        cmocka_unit_test(a_bad_file_is_an_error_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
