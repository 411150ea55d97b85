/* Text files: what is written is read back, whatever the form; damage and bad lines are said, not swallowed.
 */
#include <errno.h>
#include <fcntl.h>
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

#include "base/text_file.h"

static const char *const suffixes[] = {".txt", ".gz", ".zst"};
enum { N_SUFFIXES = 3 };

static const char *temp_path(const char *name) {
    static char path[512];
    const char *dir = getenv("TEST_TMPDIR");
    snprintf(path, sizeof path, "%s/%s", dir != NULL ? dir : "/tmp", name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t nbytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, nbytes, f), nbytes);
    assert_int_equal(fclose(f), 0);
}

static hr_line_reader *open_reader(const char *path, size_t max_nbytes) {
    hr_line_reader *reader;
    hr_error err = {0};
    assert_int_equal(hr_line_reader_open(path, max_nbytes, NULL, &reader, &err), HR_OK);
    return reader;
}

static void expect_line(hr_line_reader *reader, const char *expected) {
    const char *line;
    size_t nbytes;
    hr_error err = {0};
    assert_int_equal(hr_line_reader_next(reader, &line, &nbytes, &err), HR_OK);
    if (expected == NULL) {
        assert_null(line);
        return;
    }
    assert_non_null(line);
    assert_string_equal(line, expected);
    assert_int_equal(nbytes, strlen(expected));
}

/* Lines of 0 to some 100,000 bytes, so that some span the buffers' ends. */
static size_t line_length(size_t i) {
    return i % 97 == 0 ? (i * 7919) % 300000 : (i * 31) % 120;
}

static void lines_written_are_the_lines_read(void **state) {
    (void)state;
    static char buffer[300001];
    for (size_t s = 0; s < N_SUFFIXES; s++) {
        char name[32];
        snprintf(name, sizeof name, "roundtrip%s", suffixes[s]);
        const char *path = temp_path(name);
        hr_line_writer *writer;
        hr_error err = {0};
        assert_int_equal(hr_line_writer_open(path, &writer, &err), HR_OK);
        for (size_t i = 0; i < 2000; i++) {
            size_t n = line_length(i);
            for (size_t k = 0; k < n; k++) buffer[k] = (char)('a' + (i + k * k) % 26);
            assert_int_equal(hr_line_writer_put(writer, buffer, n, &err), HR_OK);
        }
        assert_int_equal(hr_line_writer_close(writer, &err), HR_OK);

        hr_line_reader *reader = open_reader(path, HR_LINE_MAX_NBYTES);
        for (size_t i = 0; i < 2000; i++) {
            const char *line;
            size_t nbytes, n = line_length(i);
            assert_int_equal(hr_line_reader_next(reader, &line, &nbytes, &err), HR_OK);
            assert_int_equal(nbytes, n);
            for (size_t k = 0; k < n; k++) buffer[k] = (char)('a' + (i + k * k) % 26);
            assert_memory_equal(line, buffer, n);
            assert_int_equal(hr_line_reader_number(reader), i + 1);
        }
        expect_line(reader, NULL);
        expect_line(reader, NULL);
        uint64_t nbytes_read, nbytes_total;
        hr_line_reader_progress(reader, &nbytes_read, &nbytes_total);
        assert_true(nbytes_total > 0);
        assert_int_equal(nbytes_read, nbytes_total);
        hr_line_reader_close(reader);
    }
}

static void line_ends_and_the_last_line_are_read_in_all_forms(void **state) {
    (void)state;
    const char *path = temp_path("ends.txt");
    static const char text[] = "unix\nwindows\r\n\n\r\nno end";
    write_file(path, text, sizeof text - 1);
    hr_line_reader *reader = open_reader(path, 100);
    expect_line(reader, "unix");
    expect_line(reader, "windows");
    expect_line(reader, "");
    expect_line(reader, "");
    expect_line(reader, "no end");
    expect_line(reader, NULL);
    assert_int_equal(hr_line_reader_number(reader), 5);
    hr_line_reader_close(reader);
}

static void a_line_too_long_is_skipped_and_said(void **state) {
    (void)state;
    const char *path = temp_path("long.txt");
    static char text[600010];
    memset(text, 'x', sizeof text);
    snprintf(text, 7, "first\n");
    text[6] = 'x';
    snprintf(text + sizeof text - 7, 7, "\nlast\n");
    write_file(path, text, sizeof text - 1);
    hr_line_reader *reader = open_reader(path, 1000);
    expect_line(reader, "first");
    const char *line;
    size_t nbytes;
    hr_error err = {0};
    assert_int_equal(hr_line_reader_next(reader, &line, &nbytes, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "1000 bytes"));
    assert_int_equal(hr_line_reader_number(reader), 2);
    expect_line(reader, "last");
    expect_line(reader, NULL);
    hr_line_reader_close(reader);
}

static void write_lines(const char *path, size_t n_lines) {
    hr_line_writer *writer;
    hr_error err = {0};
    assert_int_equal(hr_line_writer_open(path, &writer, &err), HR_OK);
    for (size_t i = 0; i < n_lines; i++) {
        char text[64];
        int n = snprintf(text, sizeof text, "line %zu %zu", i, i * 2654435761u % 1000003u);
        assert_int_equal(hr_line_writer_put(writer, text, (size_t)n, &err), HR_OK);
    }
    assert_int_equal(hr_line_writer_close(writer, &err), HR_OK);
}

static hr_status read_to_the_end(const char *path, size_t *n_lines, hr_error *err) {
    hr_line_reader *reader = open_reader(path, 1000);
    const char *line = "";
    size_t nbytes;
    hr_status status = HR_OK;
    *n_lines = 0;
    while (status == HR_OK && line != NULL) {
        status = hr_line_reader_next(reader, &line, &nbytes, err);
        if (line != NULL) (*n_lines)++;
    }
    hr_line_reader_close(reader);
    return status;
}

static void truncated_and_damaged_files_are_errors(void **state) {
    (void)state;
    static char bytes[1 << 20];
    for (size_t s = 1; s < N_SUFFIXES; s++) {
        char name[32];
        size_t n_lines;
        hr_error err = {0};
        snprintf(name, sizeof name, "damaged%s", suffixes[s]);
        const char *path = temp_path(name);
        write_lines(path, 20000);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        size_t size = fread(bytes, 1, sizeof bytes, f);
        fclose(f);
        const size_t cuts[] = {0, 1, 5, size / 2, size - 1};
        for (size_t i = 0; i < 5; i++) {
            write_file(path, bytes, cuts[i]);
            assert_int_equal(read_to_the_end(path, &n_lines, &err), HR_IO);
            assert_non_null(strstr(err.message, "truncated"));
            assert_non_null(strstr(err.message, path));
        }
        write_file(path, "plain text, not compressed at all", 33);
        assert_int_equal(read_to_the_end(path, &n_lines, &err), HR_IO);
        assert_non_null(strstr(err.message, "not valid"));
    }
}

static void concatenated_members_are_one_text(void **state) {
    (void)state;
    static char bytes[1 << 20];
    for (size_t s = 1; s < N_SUFFIXES; s++) {
        char name[32];
        size_t n_lines;
        hr_error err = {0};
        snprintf(name, sizeof name, "members%s", suffixes[s]);
        const char *path = temp_path(name);
        write_lines(path, 1000);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        size_t size = fread(bytes, 1, sizeof bytes / 2, f);
        fclose(f);
        memcpy(bytes + size, bytes, size);
        write_file(path, bytes, 2 * size);
        assert_int_equal(read_to_the_end(path, &n_lines, &err), HR_OK);
        assert_int_equal(n_lines, 2000);
    }
}

static void what_cannot_be_opened_is_named(void **state) {
    (void)state;
    hr_line_reader *reader;
    hr_line_writer *writer;
    hr_error err = {0};
    assert_int_equal(hr_line_reader_open("/nonexistent/in.txt", 10, NULL, &reader, &err), HR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/in.txt"));
    assert_int_equal(hr_line_reader_open("/tmp", 10, NULL, &reader, &err), HR_IO);
    assert_non_null(strstr(err.message, "directory"));
    assert_int_equal(hr_line_writer_open("/nonexistent/out.txt", &writer, &err), HR_IO);
    assert_non_null(strstr(err.message, "/nonexistent/out.txt"));
}

static void a_full_disk_is_reported_once_for_all(void **state) {
    (void)state;
    hr_line_writer *writer;
    hr_error err = {0};
    assert_int_equal(hr_line_writer_open("/dev/full", &writer, &err), HR_OK);
    static char line[1 << 20]; /* more than is gathered before it is written */
    memset(line, 'x', sizeof line);
    assert_int_equal(hr_line_writer_put(writer, line, sizeof line, &err), HR_IO);
    assert_non_null(strstr(err.message, "/dev/full"));
    assert_int_equal(hr_line_writer_put(writer, "text", 4, &err), HR_IO);
    err.message[0] = '\0';
    assert_int_equal(hr_line_writer_close(writer, &err), HR_IO);
    assert_non_null(strstr(err.message, strerror(ENOSPC)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_written_are_the_lines_read),
        cmocka_unit_test(line_ends_and_the_last_line_are_read_in_all_forms),
        cmocka_unit_test(a_line_too_long_is_skipped_and_said),
        cmocka_unit_test(truncated_and_damaged_files_are_errors),
        cmocka_unit_test(concatenated_members_are_one_text),
        cmocka_unit_test(what_cannot_be_opened_is_named),
        cmocka_unit_test(a_full_disk_is_reported_once_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
