/* Metrics: the text that Prometheus reads, and recording from many threads. */
#include "base/metrics.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/metrics_group.h"
#include "base/metrics_internal.h"
#include "base/metrics_process.h"
#include "base/thread.h"

enum { ORDERS, REFUNDS, WAIT, SIZE, N_FAMILIES };

static const char *const KINDS[] = {"new", NULL, "old"};
static const uint64_t WAIT_NS[] = {50000, 2500000, 1000000000};
static const uint64_t SIZES[] = {1, 2, 4};

static const hr_metric_family families[N_FAMILIES] = {
    [ORDERS] = {.name = "shop_orders_total", .help = "Orders.", .kind = HR_METRIC_COUNTER},
    [REFUNDS] = {.name = "shop_refunds_total",
                 .help = "Refunds.",
                 .kind = HR_METRIC_COUNTER,
                 .label = "kind",
                 .values = KINDS,
                 .n_values = 3},
    [WAIT] = {.name = "shop_wait_seconds",
              .help = "Waiting.",
              .kind = HR_METRIC_HISTOGRAM,
              .bounds = WAIT_NS,
              .n_bounds = 3,
              .divisor = 1000000000},
    [SIZE] = {.name = "shop_size",
              .help = "Items of an order.",
              .kind = HR_METRIC_HISTOGRAM,
              .bounds = SIZES,
              .n_bounds = 3},
};

/* What a collector writes, as a text to free(). */
static char *collected(void (*collect)(hr_metrics_text *text, void *arg), void *arg) {
    char *text = NULL;
    size_t nbytes;
    hr_metrics *metrics = hr_metrics_create();
    assert_int_equal(hr_metrics_add(metrics, collect, arg, NULL), HR_OK);
    assert_int_equal(hr_metrics_print(metrics, &text, &nbytes, NULL), HR_OK);
    assert_int_equal(nbytes, strlen(text));
    hr_metrics_destroy(metrics);
    return text;
}

static void assert_text(char *found, const char *expected) {
    assert_string_equal(found, expected);
    free(found);
}

static void write_values(hr_metrics_text *text, void *arg) {
    (void)arg;
    static const double values[] = {
        0, 1, -2.5, 0.1, 1.0 / 3, 4294967296.0, 1e300, 9007199254740991, 1e-05, NAN, INFINITY, -INFINITY};
    hr_metrics_text_family(text, HR_METRIC_GAUGE, "a_value", "Values.");
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        hr_metrics_text_sample(text, values[i], NULL, 0);
}

static void a_value_is_the_shortest_text_that_reads_back_the_same(void **state) {
    (void)state;
    assert_text(collected(write_values, NULL), "# HELP a_value Values.\n# TYPE a_value gauge\n"
                                               "a_value 0\na_value 1\na_value -2.5\na_value 0.1\n"
                                               "a_value 0.3333333333333333\na_value 4294967296\n"
                                               "a_value 1e+300\na_value 9007199254740991\na_value 1e-05\n"
                                               "a_value NaN\na_value +Inf\na_value -Inf\n");
}

static void write_hostile(hr_metrics_text *text, void *arg) {
    (void)arg;
    hr_metrics_text_family(text, HR_METRIC_COUNTER, "a_total", "A \\ and a\nnewline, a \"quote\".");
    const hr_label labels[] = {{"plain", "x{y=\"z\"}"}, {"other", "a\\b\nc\xc3\xa9"}, {"empty", ""}};
    hr_metrics_text_sample(text, 3, labels, 3);
}

static void help_and_labels_are_escaped(void **state) {
    (void)state;
    assert_text(collected(write_hostile, NULL),
                "# HELP a_total A \\\\ and a\\nnewline, a \"quote\".\n# TYPE a_total counter\n"
                "a_total{plain=\"x{y=\\\"z\\\"}\",other=\"a\\\\b\\nc\xc3\xa9\",empty=\"\"} 3\n");
}

typedef struct pair {
    hr_metric_set *sets[2];
    size_t n_families;
} pair;

static void print_pair(hr_metrics_text *text, void *arg) {
    const pair *p = arg;
    hr_metric_sets_print(text, families, p->n_families, p->sets, 2);
}

static void a_family_has_the_samples_of_all_sets_and_own_labels_behind_theirs(void **state) {
    (void)state;
    const hr_label north = {"shop", "north"}, south = {"shop", "south"};
    pair p = {
        {hr_metric_set_create(families, N_FAMILIES, &north, 1), hr_metric_set_create(families, 1, &south, 1)},
        REFUNDS + 1};
    hr_metric_count(p.sets[0], ORDERS, 0, 2);
    hr_metric_count(p.sets[0], ORDERS, 0, 1);
    hr_metric_count(p.sets[0], REFUNDS, 2, 1);
    hr_metric_count(p.sets[1], ORDERS, 0, 7);
    assert_int_equal(hr_metric_counted(p.sets[0], ORDERS, 0), 3);
    assert_text(collected(print_pair, &p), "# HELP shop_orders_total Orders.\n"
                                           "# TYPE shop_orders_total counter\n"
                                           "shop_orders_total{shop=\"north\"} 3\n"
                                           "shop_orders_total{shop=\"south\"} 7\n"
                                           "# HELP shop_refunds_total Refunds.\n"
                                           "# TYPE shop_refunds_total counter\n"
                                           "shop_refunds_total{shop=\"north\",kind=\"new\"} 0\n"
                                           "shop_refunds_total{shop=\"north\",kind=\"old\"} 1\n");
    hr_metric_set_destroy(p.sets[0]);
    hr_metric_set_destroy(p.sets[1]);
    hr_metric_set_destroy(NULL);
}

static void print_set(hr_metrics_text *text, void *arg) {
    hr_metric_sets_print(text, families + WAIT, 0, NULL, 0);
    hr_metric_sets_print(text, families, N_FAMILIES, arg, 1);
}

static void buckets_are_cumulative_and_their_bounds_inclusive(void **state) {
    (void)state;
    hr_metric_set *set = hr_metric_set_create(families, N_FAMILIES, NULL, 0);
    static const uint64_t waits[] = {0, 50000, 50001, 2500000, 999999999, 1000000000, 1000000001};
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) hr_metric_observe(set, WAIT, waits[i]);
    hr_metric_observe(set, SIZE, 3);
    hr_metric_observe(set, SIZE, 500);
    char *text = collected(print_set, &set);
    assert_string_equal(strstr(text, "# HELP shop_wait_seconds"),
                        "# HELP shop_wait_seconds Waiting.\n# TYPE shop_wait_seconds histogram\n"
                        "shop_wait_seconds_bucket{le=\"5e-05\"} 2\n"
                        "shop_wait_seconds_bucket{le=\"0.0025\"} 4\n"
                        "shop_wait_seconds_bucket{le=\"1\"} 6\n"
                        "shop_wait_seconds_bucket{le=\"+Inf\"} 7\n"
                        "shop_wait_seconds_sum 3.002600001\n"
                        "shop_wait_seconds_count 7\n"
                        "# HELP shop_size Items of an order.\n# TYPE shop_size histogram\n"
                        "shop_size_bucket{le=\"1\"} 0\n"
                        "shop_size_bucket{le=\"2\"} 0\n"
                        "shop_size_bucket{le=\"4\"} 1\n"
                        "shop_size_bucket{le=\"+Inf\"} 2\n"
                        "shop_size_sum 503\n"
                        "shop_size_count 2\n");
    free(text);
    hr_metric_set_destroy(set);
}

static void write_gauge(hr_metrics_text *text, void *arg) {
    hr_metrics_text_gauge(text, arg, "It.", 1);
}

static void collectors_write_in_the_order_of_adding(void **state) {
    (void)state;
    hr_metrics *metrics = hr_metrics_create();
    char first[] = "first", second[] = "second", *text;
    size_t nbytes;
    assert_int_equal(hr_metrics_add(metrics, write_gauge, first, NULL), HR_OK);
    assert_int_equal(hr_metrics_add(metrics, write_gauge, second, NULL), HR_OK);
    assert_int_equal(hr_metrics_print(metrics, &text, &nbytes, NULL), HR_OK);
    assert_text(text, "# HELP first It.\n# TYPE first gauge\nfirst 1\n"
                      "# HELP second It.\n# TYPE second gauge\nsecond 1\n");
    hr_metrics_destroy(metrics);
    assert_int_equal(hr_metrics_add(NULL, write_gauge, first, NULL), HR_OK); /* nobody watches */
    hr_metrics_destroy(NULL);
}

/* ---- Threads ---- */

enum { N_THREADS = 80, N_EACH = 20000 }; /* more threads than slots */

typedef struct traffic {
    hr_metric_set *set;
    hr_metric_group *group;
    pthread_barrier_t all_are_here;
    atomic_bool stop;
    atomic_uint next_key;
} traffic;

static void *record(void *arg) {
    traffic *t = arg;
    hr_metric_count(t->set, ORDERS, 0, 1); /* takes a slot while the others hold theirs */
    pthread_barrier_wait(&t->all_are_here);
    for (uint64_t i = 1; i < N_EACH; i++) hr_metric_count(t->set, ORDERS, 0, 1);
    for (uint64_t i = 0; i < N_EACH; i++) hr_metric_observe(t->set, SIZE, i % 5);
    pthread_barrier_wait(&t->all_are_here);
    return NULL;
}

static void what_many_threads_record_adds_up_while_it_is_read(void **state) {
    (void)state;
    traffic t = {.set = hr_metric_set_create(families, N_FAMILIES, NULL, 0)};
    pthread_t threads[N_THREADS];
    pthread_barrier_init(&t.all_are_here, NULL, N_THREADS + 1);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(hr_thread_start(&threads[i], "recorder", record, &t, NULL), HR_OK);
    pthread_barrier_wait(&t.all_are_here);
    uint64_t before = 0, now = 0;
    for (int i = 0; i < 20; i++, before = now) {
        free(collected(print_set, &t.set));
        now = hr_metric_counted(t.set, ORDERS, 0);
        assert_true(now >= before);
    }
    pthread_barrier_wait(&t.all_are_here);
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(hr_metric_counted(t.set, ORDERS, 0), (uint64_t)N_THREADS * N_EACH);
    char *text = collected(print_set, &t.set);
    assert_non_null(strstr(text, "shop_size_bucket{le=\"1\"} 640000\n"));
    assert_non_null(strstr(text, "shop_size_bucket{le=\"4\"} 1600000\n"));
    assert_non_null(strstr(text, "shop_size_sum 3200000\nshop_size_count 1600000\n"));
    free(text);
    hr_metric_set_destroy(t.set);
    pthread_barrier_destroy(&t.all_are_here);
}

static void *tell_slot(void *arg) {
    traffic *t = arg;
    hr_metric_count(t->set, ORDERS, 0, 1);
    return (void *)(uintptr_t)hr_metric__slot();
}

static void a_slot_is_free_again_when_its_thread_has_ended(void **state) {
    (void)state;
    traffic t = {.set = hr_metric_set_create(families, N_FAMILIES, NULL, 0)};
    for (int i = 0; i < 3 * HR_METRIC_SLOTS; i++) {
        pthread_t thread;
        void *slot;
        assert_int_equal(hr_thread_start(&thread, "short", tell_slot, &t, NULL), HR_OK);
        pthread_join(thread, &slot);
        assert_true((uintptr_t)slot < HR_METRIC_SHARED_SLOT);
    }
    assert_int_equal(hr_metric_counted(t.set, ORDERS, 0), 3 * HR_METRIC_SLOTS);
    hr_metric_set_destroy(t.set);
}

/* ---- Sets that come and go ---- */

static hr_metric_set *make_set(const char *key) {
    const hr_label label = {"key", key != NULL ? key : "(others)"};
    return hr_metric_set_create(families, N_FAMILIES, &label, 1);
}

static void count_in(hr_metric_group *group, const char *key) {
    hr_metric_count(hr_metric_group_enter(group, key), ORDERS, 0, 1);
    hr_metric_group_leave(group);
}

static uint64_t counted_in(hr_metric_group *group, const char *key) {
    uint64_t n = hr_metric_counted(hr_metric_group_enter(group, key), ORDERS, 0);
    hr_metric_group_leave(group);
    return n;
}

static void a_set_lives_until_it_was_idle_for_long_enough(void **state) {
    (void)state;
    hr_metric_group *group = hr_metric_group_create(make_set);
    hr_metric_set *sets[HR_METRIC_GROUP_MAX + 1];
    assert_int_equal(hr_metric_group_list(group, sets), 0);
    count_in(group, "a");
    hr_metric_group_keep(group, "b");
    hr_metric_group_sweep(group, 1000, 100);
    count_in(group, "a");
    hr_metric_group_sweep(group, 1099, 100); /* b is idle since 1000, a since 1099 */
    assert_int_equal(hr_metric_group_list(group, sets), 2);
    hr_metric_group_sweep(group, 1100, 100);
    assert_int_equal(hr_metric_group_list(group, sets), 1);
    hr_metric_group_keep(group, "a");
    hr_metric_group_sweep(group, 1300, 100);
    assert_int_equal(hr_metric_group_list(group, sets), 1);
    assert_int_equal(hr_metric_counted(sets[0], ORDERS, 0), 2);
    hr_metric_group_sweep(group, 1400, 100);
    assert_int_equal(hr_metric_group_list(group, sets), 0);
    assert_int_equal(counted_in(group, "a"), 0);
    hr_metric_group_destroy(group);
    hr_metric_group_destroy(NULL);
}

static void keys_past_the_limit_share_one_set(void **state) {
    (void)state;
    hr_metric_group *group = hr_metric_group_create(make_set);
    hr_metric_set *sets[HR_METRIC_GROUP_MAX + 1];
    for (int i = 0; i < HR_METRIC_GROUP_MAX + 3; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%d", i);
        count_in(group, key);
    }
    assert_int_equal(hr_metric_group_list(group, sets), HR_METRIC_GROUP_MAX + 1);
    assert_int_equal(hr_metric_counted(sets[HR_METRIC_GROUP_MAX], ORDERS, 0), 3);
    assert_int_equal(counted_in(group, "key-0"), 1);
    hr_metric_group_sweep(group, 1, 100); /* all were touched */
    hr_metric_group_sweep(group, 101, 100);
    count_in(group, "late");
    assert_int_equal(counted_in(group, "late"), 1);
    hr_metric_group_destroy(group);
}

/* Half of the keys are every thread's own, so that new ones come all the time. */
static void *come_and_go(void *arg) {
    traffic *t = arg;
    pthread_barrier_wait(&t->all_are_here);
    while (!atomic_load(&t->stop)) {
        char key[32];
        snprintf(key, sizeof key, "key-%u", atomic_fetch_add(&t->next_key, 1) / 50);
        hr_metric_set *set = hr_metric_group_enter(t->group, key);
        for (int i = 0; i < 3; i++) sched_yield(); /* the sweeper's chance */
        hr_metric_count(set, ORDERS, 0, 1);
        hr_metric_group_leave(t->group);
        count_in(t->group, "always");
        hr_metric_count(t->set, ORDERS, 0, 1);
    }
    return NULL;
}

static void print_group(hr_metrics_text *text, void *arg) {
    hr_metric_set *sets[HR_METRIC_GROUP_MAX + 1];
    size_t n = hr_metric_group_list(arg, sets);
    hr_metric_sets_print(text, families, N_FAMILIES, sets, n);
}

static void keys_come_and_go_while_threads_record(void **state) {
    (void)state;
    traffic t = {.set = hr_metric_set_create(families, N_FAMILIES, NULL, 0),
                 .group = hr_metric_group_create(make_set)};
    pthread_t threads[N_THREADS];
    pthread_barrier_init(&t.all_are_here, NULL, N_THREADS + 1);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(hr_thread_start(&threads[i], "recorder", come_and_go, &t, NULL), HR_OK);
    pthread_barrier_wait(&t.all_are_here);
    for (uint64_t now = 1; atomic_load(&t.next_key) < 20000; now++) {
        hr_metric_group_keep(t.group, "always");
        hr_metric_group_sweep(t.group, now, 1);
        free(collected(print_group, t.group));
    }
    atomic_store(&t.stop, true);
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(counted_in(t.group, "always"), hr_metric_counted(t.set, ORDERS, 0));
    hr_metric_group_destroy(t.group);
    hr_metric_set_destroy(t.set);
    pthread_barrier_destroy(&t.all_are_here);
}

/* ---- The process ---- */

static double process_value(const char *name) {
    char *text = collected(hr_metrics_process_collect, NULL), line[64];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(text, line);
    if (at == NULL) fail_msg("%s is not there", name);
    double value = at == NULL ? (double)NAN : strtod(at + strlen(line), NULL);
    free(text);
    return value;
}

static void the_process_is_told_as_it_is(void **state) {
    (void)state;
    double n_before = process_value("process_open_fds");
    int fd = open("/dev/null", O_RDONLY);
    assert_true(process_value("process_open_fds") == n_before + 1);
    close(fd);
    assert_true(process_value("process_open_fds") == n_before);
    assert_true(process_value("process_max_fds") == (double)sysconf(_SC_OPEN_MAX));
    double resident = process_value("process_resident_memory_bytes");
    enum { NBYTES = 32 << 20 };
    void *memory =
        mmap(NULL, NBYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    assert_true(memory != MAP_FAILED);
    assert_true(process_value("process_resident_memory_bytes") > resident + NBYTES / 2.0);
    munmap(memory, NBYTES);
    assert_true(process_value("process_virtual_memory_bytes") > resident);
    double age = (double)time(NULL) - process_value("process_start_time_seconds");
    assert_true(age > -5 && age < 3600);
    double used = process_value("process_cpu_seconds_total");
    while (process_value("process_cpu_seconds_total") <= used) continue;
}

static size_t resident_nbytes(void) {
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %zu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* As a server's that has seen many versions: what no thread records into, and what is read, is not there. */
static void sets_take_memory_for_the_threads_that_record(void **state) {
    enum { N_SETS = 256, N_CELLS = 256, MOST_NBYTES = 8 << 20 }; /* all cells would be 33 MB */
    static const char *values[N_CELLS];
    for (size_t v = 0; v < N_CELLS; v++) values[v] = "value";
    const hr_metric_family family = {.name = "a_total",
                                     .help = "A.",
                                     .kind = HR_METRIC_COUNTER,
                                     .label = "a",
                                     .values = values,
                                     .n_values = N_CELLS};
    hr_metric_set *sets[N_SETS];
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* its shadow of what is written and read is resident too */
#endif
    size_t before = resident_nbytes();
    for (size_t i = 0; i < N_SETS; i++) {
        sets[i] = hr_metric_set_create(&family, 1, NULL, 0);
        assert_non_null(sets[i]);
        for (uint32_t v = 0; v < N_CELLS; v++) hr_metric_count(sets[i], 0, v, v);
        assert_int_equal(hr_metric_counted(sets[i], 0, N_CELLS - 1), N_CELLS - 1);
    }
    assert_in_range(resident_nbytes() - before, N_SETS, MOST_NBYTES);
    for (size_t i = 0; i < N_SETS; i++) hr_metric_set_destroy(sets[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_is_the_shortest_text_that_reads_back_the_same),
        cmocka_unit_test(help_and_labels_are_escaped),
        cmocka_unit_test(a_family_has_the_samples_of_all_sets_and_own_labels_behind_theirs),
        cmocka_unit_test(buckets_are_cumulative_and_their_bounds_inclusive),
        cmocka_unit_test(collectors_write_in_the_order_of_adding),
        cmocka_unit_test(what_many_threads_record_adds_up_while_it_is_read),
        cmocka_unit_test(a_slot_is_free_again_when_its_thread_has_ended),
        cmocka_unit_test(a_set_lives_until_it_was_idle_for_long_enough),
        cmocka_unit_test(keys_past_the_limit_share_one_set),
        cmocka_unit_test(keys_come_and_go_while_threads_record),
        cmocka_unit_test(the_process_is_told_as_it_is),
        cmocka_unit_test(sets_take_memory_for_the_threads_that_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
