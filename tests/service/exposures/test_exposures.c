/* The exposure log on real files and a real Redis. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>
#include <jansson.h>

#include "base/thread.h"
#include "service/exposures/exposures.h"
#include "tests/features/redis_server.h"

enum { GRACE_MS = 5000 };

typedef struct fixture {
    char folder[64], path[128];
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    strcpy(f->folder, "/tmp/exposures-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof f->path, "%s/log.jsonl", f->folder);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", f->folder);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

static hr_exposures_options options_of(const fixture *f) {
    return (hr_exposures_options){.path = f->path,
                                  .stream = "",
                                  .stream_maxlen = 1000000,
                                  .max_file_nbytes = 1 << 20,
                                  .max_waiting_nbytes = 1 << 20,
                                  .grace_ms = GRACE_MS};
}

static hr_exposures *opened(const hr_exposures_options *options) {
    hr_exposures *exposures;
    hr_error err;
    if (hr_exposures_open(options, &exposures, &err) != HR_OK) fail_msg("%s", err.message);
    return exposures;
}

/* The lines of an answer to `user` with n assignments. */
static hr_exposure_lines *lines_of(const char *request_id, const char *user, uint32_t n) {
    Homerank__V1__Assignment made[4], *assignments[4];
    for (uint32_t i = 0; i < n; i++) {
        homerank__v1__assignment__init(&made[i]);
        made[i].experiment = i == 0 ? "model" : "fu\"sion";
        made[i].variation = (int32_t)i;
        made[i].variation_key = i == 0 ? "control" : "b\x01";
        made[i].bucket = 0.1;
        made[i].in_experiment = i == 0;
        assignments[i] = &made[i];
    }
    Homerank__V1__RankRequest request;
    Homerank__V1__RankResponse response;
    homerank__v1__rank_request__init(&request);
    homerank__v1__rank_response__init(&response);
    request.request_id = (char *)request_id;
    request.user_id = (char *)user;
    response.model = "home@3";
    response.n_experiments = n;
    response.experiments = assignments;
    hr_exposure_lines *lines = hr_exposure_lines_make(&request, &response, "00ff", 1795428000000042);
    assert_non_null(lines);
    assert_int_equal(lines->n_lines, n);
    return lines;
}

static char *read_all(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) return NULL;
    static char text[4 << 20];
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    fclose(file);
    return text;
}

static void a_line_says_all_of_its_assignment(void **state) {
    (void)state;
    hr_exposure_lines *lines = lines_of("r\n1", "u\xc3\xa9\\", 2);
    char *end = memchr(lines->bytes, '\n', lines->nbytes);
    assert_string_equal(
        (*end = '\0', lines->bytes),
        "{\"time\":\"2026-11-23T10:00:00.000042Z\",\"request_id\":\"r\\u000a1\",\"user_id\":"
        "\"u\xc3\xa9\\u005c\","
        "\"experiment\":\"model\",\"variation\":0,\"variation_key\":\"control\",\"bucket\":0.1,"
        "\"in_experiment\":true,\"model\":\"home@3\",\"file\":\"00ff\"}");
    json_t *second = json_loadb(end + 1, lines->nbytes - (size_t)(end + 1 - lines->bytes), 0, NULL);
    assert_non_null(second);
    assert_string_equal(json_string_value(json_object_get(second, "experiment")), "fu\"sion");
    assert_string_equal(json_string_value(json_object_get(second, "variation_key")), "b\x01");
    assert_true(json_is_false(json_object_get(second, "in_experiment")));
    json_decref(second);
    free(lines);
}

static void what_is_logged_is_in_the_file_when_the_log_is_closed(void **state) {
    fixture *f = *state;
    hr_exposures_options options = options_of(f);
    hr_exposures *exposures = opened(&options);
    hr_exposure_lines *lines = lines_of("r", "u", 2);
    char *expected = strndup(lines->bytes, lines->nbytes);
    hr_exposures_log(exposures, lines);
    hr_exposures_close(exposures);
    assert_string_equal(read_all(f->path), expected);
    free(expected);
}

/* All lines of the folder's files; each file is within the limit. */
static uint64_t count_in_folder(const fixture *f, uint64_t max_file_nbytes, uint32_t *n_files) {
    uint64_t n_lines = 0;
    DIR *folder = opendir(f->folder);
    struct dirent *entry;
    *n_files = 0;
    while ((entry = readdir(folder)) != NULL) {
        char path[512];
        struct stat st;
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", f->folder, entry->d_name);
        assert_int_equal(stat(path, &st), 0);
        assert_in_range(st.st_size, 0, max_file_nbytes);
        for (char *at = read_all(path); (at = strchr(at, '\n')) != NULL; at++) n_lines++;
        ++*n_files;
    }
    closedir(folder);
    return n_lines;
}

static void a_full_file_is_rotated_at_a_line_end(void **state) {
    fixture *f = *state;
    enum { N = 200, MAX_NBYTES = 2000 };
    hr_exposures_options options = options_of(f);
    options.max_file_nbytes = MAX_NBYTES;
    uint32_t n_files;
    for (int run = 1; run <= 2; run++) { /* the second goes on with the file of the first */
        hr_exposures *exposures = opened(&options);
        for (int i = 0; i < N / 2; i++) hr_exposures_log(exposures, lines_of("r", "user", 2));
        hr_exposures_close(exposures);
        assert_int_equal(count_in_folder(f, MAX_NBYTES, &n_files), run * N);
    }
    assert_in_range(n_files, 20, 2 * N);
}

static void a_torn_last_line_is_ended_before_the_next(void **state) {
    fixture *f = *state;
    FILE *file = fopen(f->path, "w");
    fputs("{\"torn", file);
    fclose(file);
    hr_exposures_options options = options_of(f);
    hr_exposures *exposures = opened(&options);
    hr_exposures_log(exposures, lines_of("r", "u", 1));
    hr_exposures_close(exposures);
    assert_memory_equal(read_all(f->path), "{\"torn\n{\"time\"", 14);
}

static void what_a_full_disk_refuses_is_dropped_and_counted(void **state) {
    fixture *f = *state;
    enum { N = 1000 };
    hr_exposures_options options = options_of(f);
    options.path = "/dev/full";
    options.max_waiting_nbytes = 8192;
    options.grace_ms = 0;
    hr_exposures *exposures = opened(&options);
    for (int i = 0; i < N; i++) hr_exposures_log(exposures, lines_of("r", "u", 1));
    hr_exposures_counts counts[HR_EXPOSURES_MAX_SINKS];
    assert_int_equal(hr_exposures_count(exposures, counts), 1);
    assert_string_equal(counts[0].name, "file");
    assert_int_equal(counts[0].counts.written, 0);
    assert_in_range(counts[0].counts.dropped, N - 8192 / 150, N - 1);
    assert_int_equal(counts[0].counts.dropped + counts[0].counts.waiting, N);
    hr_exposures_close(exposures);
}

static void a_line_that_did_not_fit_is_taken_back(void **state) {
    fixture *f = *state;
    hr_exposures_options options = options_of(f);
    char mounted[256];
    /* A file system of 64 KiB that fills up: only root may make one. */
    snprintf(mounted, sizeof mounted, "mount -t tmpfs -o size=64k none '%s' 2>/dev/null", f->folder);
    if (geteuid() != 0 || system(mounted) != 0) skip();
    options.grace_ms = 0;
    hr_exposures *exposures = opened(&options);
    for (int i = 0; i < 1000; i++) hr_exposures_log(exposures, lines_of("r", "u", 1));
    hr_exposures_close(exposures);
    char *text = read_all(f->path);
    size_t n = strlen(text);
    assert_in_range(n, 60000, 65536);
    assert_int_equal(text[n - 1], '\n');
    snprintf(mounted, sizeof mounted, "umount '%s'", f->folder);
    assert_int_equal(system(mounted), 0);
}

static void a_pipe_that_is_not_read_holds_nobody_and_gets_whole_lines(void **state) {
    fixture *f = *state;
    enum { N = 2000 }; /* more than a pipe takes */
    static char text[1 << 20];
    assert_int_equal(mkfifo(f->path, 0600), 0);
    int reader = open(f->path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    hr_exposures_options options = options_of(f);
    options.grace_ms = 0;
    hr_exposures *exposures = opened(&options);
    for (int i = 0; i < N; i++) hr_exposures_log(exposures, lines_of("r", "u", 1));
    hr_exposures_close(exposures);
    ssize_t n = read(reader, text, sizeof text);
    close(reader);
    assert_in_range(n, 32768, sizeof text);
    hr_exposure_lines *line = lines_of("r", "u", 1);
    assert_int_equal((size_t)n % line->nbytes, 0);
    assert_memory_equal(text + (size_t)n - line->nbytes, line->bytes, line->nbytes);
    free(line);
}

typedef struct putter {
    hr_exposures *exposures;
    int n;
} putter;

static void *put_many(void *arg) {
    putter *p = arg;
    for (int i = 0; i < p->n; i++) hr_exposures_log(p->exposures, lines_of("r", "u", 2));
    return NULL;
}

static void many_threads_log_side_by_side(void **state) {
    fixture *f = *state;
    enum { N_THREADS = 4, N = 500 };
    hr_exposures_options options = options_of(f);
    pthread_t threads[N_THREADS];
    options.max_waiting_nbytes = 16 << 20;
    options.max_file_nbytes = 16 << 20;
    putter p = {opened(&options), N};
    hr_error err;
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(hr_thread_start(&threads[i], "putter", put_many, &p, &err), HR_OK);
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    hr_exposures_counts counts[HR_EXPOSURES_MAX_SINKS];
    hr_exposures_count(p.exposures, counts);
    assert_int_equal(counts[0].counts.written + counts[0].counts.waiting + counts[0].counts.dropped,
                     N_THREADS * N * 2);
    assert_int_equal(counts[0].counts.dropped, 0);
    hr_exposures_close(p.exposures);
    uint32_t n_files;
    assert_int_equal(count_in_folder(f, 16 << 20, &n_files), N_THREADS * N * 2);
}

static void bad_places_are_refused_at_the_start(void **state) {
    fixture *f = *state;
    hr_exposures *exposures;
    hr_error err;
    hr_exposures_options options = options_of(f);
    options.path = "/nowhere/log.jsonl";
    assert_int_equal(hr_exposures_open(&options, &exposures, &err), HR_IO);
    assert_string_equal(err.message,
                        "exposures: cannot open \"/nowhere/log.jsonl\": No such file or directory");
    options.path = "";
    options.stream = "lmdb:/tmp/x";
    assert_int_equal(hr_exposures_open(&options, &exposures, &err), HR_INVALID_ARGUMENT);
    if (strstr(err.message, "expected redis://") == NULL) fail_msg("%s", err.message);
}

static void a_stream_gets_each_line_and_waits_out_a_server_that_is_down(void **state) {
    fixture *f = *state;
    (void)f;
    redis_server server;
    redis_server_start(&server, "");
    char uri[128];
    snprintf(uri, sizeof uri, "redis://127.0.0.1:%u/0?prefix=t", server.port);
    hr_exposures_options options = options_of(f);
    options.path = "";
    options.stream = uri;
    hr_exposures *exposures = opened(&options);
    for (int i = 0; i < 300; i++) hr_exposures_log(exposures, lines_of("r", "u", 2));
    hr_exposures_close(exposures);
    redisContext *c = redisConnect("127.0.0.1", server.port);
    redisReply *reply = redisCommand(c, "XLEN t:exposures");
    assert_int_equal(reply->integer, 600);
    freeReplyObject(reply);
    reply = redisCommand(c, "XREVRANGE t:exposures + - COUNT 1");
    const redisReply *fields = reply->element[0]->element[1];
    assert_string_equal(fields->element[0]->str, "exposure");
    json_t *line = json_loads(fields->element[1]->str, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(line, "request_id")), "r");
    json_decref(line);
    freeReplyObject(reply);
    redisFree(c);
    redis_server_kill(&server);

    options.grace_ms = 0; /* nobody is there: they wait, and are lost at the end */
    exposures = opened(&options);
    hr_exposures_log(exposures, lines_of("r", "u", 2));
    hr_exposures_close(exposures);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_says_all_of_its_assignment),
        cmocka_unit_test_setup_teardown(what_is_logged_is_in_the_file_when_the_log_is_closed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_full_file_is_rotated_at_a_line_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_torn_last_line_is_ended_before_the_next, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_a_full_disk_refuses_is_dropped_and_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_line_that_did_not_fit_is_taken_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_pipe_that_is_not_read_holds_nobody_and_gets_whole_lines, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(many_threads_log_side_by_side, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_places_are_refused_at_the_start, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stream_gets_each_line_and_waits_out_a_server_that_is_down, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
