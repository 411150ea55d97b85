/* The safetensors reader: what it reads, and every way in which a file can lie about itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/safetensors.h"
#include "tests/model/model_folder.h"

static char dir[256], path[300];

static int make_folder(void **state) {
    (void)state;
    test_folder_make(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    test_folder_remove(dir);
    return 0;
}

/* A file of this header, with its true length or a given one, and n bytes of zeros. */
static void write_raw(const char *header, uint64_t length, size_t n_data) {
    size_t header_nbytes = strlen(header), nbytes = 8 + header_nbytes + n_data;
    unsigned char *bytes = calloc(nbytes, 1);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, header_nbytes);
    test_write_bytes(dir, "model.safetensors", bytes, nbytes);
    free(bytes);
}

static void expect_refused(const char *header, size_t n_data, const char *message) {
    hr_safetensors *file;
    hr_error err = {0};
    write_raw(header, strlen(header), n_data);
    hr_status status = hr_safetensors_open(path, &file, &err);
    if (status != HR_INVALID_ARGUMENT || strstr(err.message, message) == NULL) {
        fail_msg("%s: expected \"%s\", found %d \"%s\"", header, message, status, err.message);
    }
    assert_null(file);
}

static hr_safetensors *open_ok(void) {
    hr_safetensors *file;
    hr_error err = {0};
    if (hr_safetensors_open(path, &file, &err) != HR_OK) fail_msg("%s", err.message);
    return file;
}

static void tensors_are_read_as_written(void **state) {
    (void)state;
    test_tensors tensors = {0};
    test_tensors_add(&tensors, "b.weight", "F32", 2, (uint64_t[]){3, 5});
    test_tensors_add(&tensors, "a.weight", "F16", 3, (uint64_t[]){2, 3, 4});
    test_tensors_add(&tensors, "c", "BF16", 1,
                     (uint64_t[]){40000}); /* more than one chunk of 16-bit values */
    test_write_tensors(dir, &tensors);
    hr_safetensors *file = open_ok();
    assert_int_equal(hr_safetensors_count(file), 3);
    for (size_t i = 0; i < tensors.n; i++) {
        const test_tensor *expected = &tensors.list[i];
        size_t index, n = test_tensor_size(expected);
        const hr_tensor *tensor = hr_safetensors_find(file, expected->name, &index);
        assert_non_null(tensor);
        assert_ptr_equal(tensor, hr_safetensors_at(file, index));
        assert_string_equal(hr_dtype_name(tensor->dtype), expected->dtype);
        assert_int_equal(tensor->n_dims, expected->n_dims);
        assert_int_equal(tensor->n_values, n);
        float *values = malloc(n * sizeof *values);
        hr_error err;
        assert_int_equal(hr_safetensors_read(file, tensor, values, &err), HR_OK);
        assert_memory_equal(values, expected->values, n * sizeof *values);
        free(values);
    }
    assert_null(hr_safetensors_find(file, "__metadata__", NULL));
    assert_null(hr_safetensors_find(file, "d", NULL));
    hr_safetensors_close(file);
    test_tensors_clear(&tensors);
}

/* The value of a binary16, from its definition. */
static double f16_by_definition(uint16_t bits) {
    int exponent = (bits >> 10) & 0x1F, fraction = bits & 0x3FF;
    double value = exponent == 0    ? ldexp(fraction, -24)
                   : exponent == 31 ? (fraction == 0 ? (double)INFINITY : (double)NAN)
                                    : ldexp(1024 + fraction, exponent - 25);
    return (bits & 0x8000) != 0 ? -value : value;
}

static void every_f16_converts_exactly(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits <= 0xFFFF; bits++) {
        double expected = f16_by_definition((uint16_t)bits);
        double found = hr_f16_to_f32((uint16_t)bits);
        if (isnan(expected) ? !isnan(found) : found != expected || signbit(found) != signbit(expected)) {
            fail_msg("0x%04x: expected %g, found %g", (unsigned)bits, expected, found);
        }
    }
}

static void bf16_is_the_upper_half_of_f32(void **state) {
    (void)state;
    assert_true(hr_bf16_to_f32(0x3F80) == 1.0F);
    assert_true(hr_bf16_to_f32(0xC049) == -3.140625F);
    assert_true(hr_bf16_to_f32(0x0001) == 0x1p-133F); /* subnormal */
    assert_true(signbit(hr_bf16_to_f32(0x8000)) && hr_bf16_to_f32(0x8000) == 0.0F);
    assert_true(isinf(hr_bf16_to_f32(0x7F80)));
    assert_true(isnan(hr_bf16_to_f32(0x7FC0)));
}

static void lengths_that_the_file_does_not_have_are_refused(void **state) {
    (void)state;
    static const uint64_t lengths[] = {3, 2147483648U, 100000001, UINT64_MAX, UINT64_MAX - 7, 1U << 31};
    hr_safetensors *file;
    hr_error err;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        write_raw("{}", lengths[i], 0);
        assert_int_equal(hr_safetensors_open(path, &file, &err), HR_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "header length: expected at most 2 bytes, found"));
    }
    test_write_bytes(dir, "model.safetensors", "\2\0\0\0\0\0\0", 7);
    assert_int_equal(hr_safetensors_open(path, &file, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "found a file of 7 bytes"));
    test_write_bytes(dir, "model.safetensors", "", 0);
    assert_int_equal(hr_safetensors_open(path, &file, &err), HR_INVALID_ARGUMENT);
}

/* A header length of 2 GB in a file that is 3 GB long (and sparse): past the format's own limit. */
static void a_header_of_two_gigabytes_is_refused(void **state) {
    (void)state;
    hr_safetensors *file;
    hr_error err;
    write_raw("{}", 2147483648U, 0);
    assert_int_equal(truncate(path, (off_t)3 << 30), 0);
    assert_int_equal(hr_safetensors_open(path, &file, &err), HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "expected at most 100000000 bytes, found 2147483648"));
}

static void headers_that_are_no_header_are_refused(void **state) {
    (void)state;
    expect_refused("", 0, "expected JSON");
    expect_refused("{\"a\": ", 0, "expected JSON");
    expect_refused("[]", 0, "expected an object");
    expect_refused("{} {}", 0, "expected JSON");
    expect_refused("{\"a\\u0000b\": {}}", 0, "expected JSON");
    expect_refused("{\"\xff\": {}}", 0, "expected JSON");
    expect_refused("{\"a\": 1}", 0, "tensor \"a\": expected an object, found 1");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                   "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                   4, "expected JSON");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
                   "unknown key \"x\"");
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = '\0';
    expect_refused(deep, 0, "expected JSON");
    free(deep);
}

static void wrong_dtypes_and_shapes_are_refused(void **state) {
    (void)state;
    expect_refused("{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
                   "tensor \"a\": dtype: expected F32, F16 or BF16, found \"I64\"");
    expect_refused("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
                   "dtype: expected F32, F16 or BF16, found nothing");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
                   "shape: expected sizes >= 0, found -1");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4,
                   "shape: expected sizes");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
                   "shape: expected an array of at most 8 sizes");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
                   "expected fewer values than 2^64");
    /* 2^62 values of 4 bytes are 0 bytes modulo 2^64. */
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
                   "expected as many bytes as [4611686018427387904] F32 has, found 0");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,0]}}", 0,
                   "expected JSON");
    expect_refused("{\"a\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,24]}}", 24,
                   "expected as many bytes as [2, 3] F16 has, found 24");
}

static void wrong_offsets_are_refused(void **state) {
    (void)state;
#define TWO(a, b)                                                                                            \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" a "},"                                       \
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" b "}}"
    expect_refused(TWO("[0,8]", "[4,12]"), 12, "tensor \"b\": data_offsets: expected to begin at 8");
    expect_refused(TWO("[0,8]", "[0,8]"), 8, "(they overlap)");
    expect_refused(TWO("[0,8]", "[12,20]"), 20, "(a hole)");
    expect_refused(TWO("[4,12]", "[12,20]"), 20, "(a hole)");
    expect_refused(TWO("[0,8]", "[8,16]"), 20, "expected 16 bytes of data, as the tensors have, found 20");
    expect_refused(TWO("[0,8]", "[8,16]"), 12, "expected begin <= end <= 12, the data's size, found [8, 16]");
    expect_refused(TWO("[8,0]", "[8,16]"), 16, "expected begin <= end <= 16");
    expect_refused(TWO("[0,8]", "[9223372036854775799,9223372036854775807]"), 16,
                   "expected begin <= end <= 16");
    expect_refused(TWO("[-8,0]", "[0,8]"), 8, "data_offsets: expected [begin, end]");
    expect_refused(TWO("[0,8,9]", "[8,16]"), 16, "data_offsets: expected [begin, end]");
    expect_refused(TWO("[0,8.0]", "[8,16]"), 16, "data_offsets: expected [begin, end]");
    expect_refused(TWO("{}", "[8,16]"), 16, "data_offsets: expected [begin, end]");
#undef TWO
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4,
                   "data_offsets: expected [begin, end], found nothing");
}

static void empty_tensors_and_no_tensors_are_read(void **state) {
    (void)state;
    const char *header = "{\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]},"
                         "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}";
    write_raw(header, strlen(header), 4);
    hr_safetensors *file = open_ok();
    assert_int_equal(hr_safetensors_find(file, "e", NULL)->n_values, 0);
    assert_int_equal(hr_safetensors_find(file, "s", NULL)->n_values, 1);
    hr_safetensors_close(file);
    write_raw("{}", 2, 0);
    file = open_ok();
    assert_int_equal(hr_safetensors_count(file), 0);
    hr_safetensors_close(file);
}

static void values_that_are_not_finite_are_refused(void **state) {
    (void)state;
    static const char *const dtypes[] = {"F32", "F16", "BF16"};
    static const struct {
        float value;
        const char *message;
    } rows[] = {{NAN, "found nan at index 6"},
                {INFINITY, "found inf at index 6"},
                {-INFINITY, "found -inf at index 6"}};
    for (size_t d = 0; d < 3; d++) {
        for (size_t i = 0; i < 3; i++) {
            test_tensors tensors = {0};
            test_tensors_add(&tensors, "w", dtypes[d], 2, (uint64_t[]){2, 4})->values[6] = rows[i].value;
            test_write_tensors(dir, &tensors);
            hr_safetensors *file = open_ok();
            float values[8];
            hr_error err;
            assert_int_equal(hr_safetensors_read(file, hr_safetensors_at(file, 0), values, &err),
                             HR_INVALID_ARGUMENT);
            assert_non_null(strstr(err.message, "tensor \"w\": expected finite values"));
            assert_non_null(strstr(err.message, rows[i].message));
            hr_safetensors_close(file);
            test_tensors_clear(&tensors);
        }
    }
}

/* The file is cut short between the open, which checked it, and the read. */
static void a_file_that_shrinks_while_it_is_read_is_an_error(void **state) {
    (void)state;
    test_tensors tensors = {0};
    test_tensors_add(&tensors, "w", "F32", 1, (uint64_t[]){10000});
    test_write_tensors(dir, &tensors);
    hr_safetensors *file = open_ok();
    assert_int_equal(truncate(path, 4096), 0);
    float *values = malloc(10000 * sizeof *values);
    hr_error err;
    assert_int_equal(hr_safetensors_read(file, hr_safetensors_at(file, 0), values, &err),
                     HR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "tensor \"w\": truncated"));
    free(values);
    hr_safetensors_close(file);
    test_tensors_clear(&tensors);
}

static void what_is_no_file_is_an_io_error(void **state) {
    (void)state;
    hr_safetensors *file;
    hr_error err;
    assert_int_equal(hr_safetensors_open(dir, &file, &err), HR_IO);
    unlink(path);
    assert_int_equal(hr_safetensors_open(path, &file, &err), HR_IO);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes to it: opening must not wait */
    assert_int_equal(hr_safetensors_open(path, &file, &err), HR_IO);
    assert_non_null(strstr(err.message, "expected a regular file"));
    hr_safetensors_close(NULL);
}

static void long_shapes_are_shown_cut(void **state) {
    (void)state;
    uint64_t shape[8];
    for (size_t i = 0; i < 8; i++) shape[i] = INT64_MAX;
    assert_string_equal(hr_shape_show(shape, 0).text, "[]");
    assert_string_equal(hr_shape_show((uint64_t[]){2, 128, 376}, 3).text, "[2, 128, 376]");
    hr_shape_text shown = hr_shape_show(shape, 8);
    assert_true(strlen(shown.text) < sizeof shown.text);
    assert_non_null(strstr(shown.text, "...]"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_read_as_written),
        cmocka_unit_test(every_f16_converts_exactly),
        cmocka_unit_test(bf16_is_the_upper_half_of_f32),
        cmocka_unit_test(lengths_that_the_file_does_not_have_are_refused),
        cmocka_unit_test(a_header_of_two_gigabytes_is_refused),
        cmocka_unit_test(headers_that_are_no_header_are_refused),
        cmocka_unit_test(wrong_dtypes_and_shapes_are_refused),
        cmocka_unit_test(wrong_offsets_are_refused),
        cmocka_unit_test(empty_tensors_and_no_tensors_are_read),
        cmocka_unit_test(values_that_are_not_finite_are_refused),
        cmocka_unit_test(a_file_that_shrinks_while_it_is_read_is_an_error),
        cmocka_unit_test(what_is_no_file_is_an_io_error),
        cmocka_unit_test(long_shapes_are_shown_cut),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
