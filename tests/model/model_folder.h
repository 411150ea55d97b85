/* Small model folders for tests: a config text and a safetensors writer of the test's own, so that what the
 * reader gets was not made by the code under test. A failure to write ends the test program (assert). */
#ifndef HOMERANK_TESTS_MODEL_MODEL_FOLDER_H
#define HOMERANK_TESTS_MODEL_MODEL_FOLDER_H

#include <stddef.h>
#include <stdint.h>

/* ---- Tensors ---- */

typedef struct test_tensor {
    char *name;
    const char *dtype; /* as written into the header; F32, F16 and BF16 decide the bytes too */
    uint32_t n_dims;
    uint64_t shape[4];
    float *values; /* (product of shape) */
} test_tensor;

typedef struct test_tensors {
    test_tensor *list;
    size_t n;
} test_tensors;

/* Appends a tensor with values that its name determines: in [-0.5, 0.5), a running_var in [0.5, 1.5). */
test_tensor *test_tensors_add(test_tensors *tensors, const char *name, const char *dtype, uint32_t n_dims,
                              const uint64_t *shape);
test_tensor *test_tensors_find(test_tensors *tensors, const char *name);
void test_tensors_remove(test_tensors *tensors, const char *name);
void test_tensors_clear(test_tensors *tensors);
size_t test_tensor_size(const test_tensor *tensor);

/* binary16 and bfloat16 of a value that both hold exactly. */
uint16_t test_f16_of(float value);
uint16_t test_bf16_of(float value);

/* ---- Folders ---- */

/* A fresh folder below $TEST_TMPDIR or /tmp, with its path in dir[size]. */
void test_folder_make(char *dir, size_t size);
/* Removes the folder and all in it. */
void test_folder_remove(const char *dir);
void test_folder_sub(const char *dir, const char *name); /* mkdir dir/name */

void test_write_bytes(const char *dir, const char *name, const void *bytes, size_t nbytes);
void test_write_tensors(const char *dir, const test_tensors *tensors); /* dir/model.safetensors */
void test_write_config(const char *dir, const char *text);             /* dir/config.json */

/* ---- The tiny model: one of everything, D = 3 ---- */

/* Two layers of units, a feature gate, self gates, a lending unit, a mix of one expert; tasks `click`
 * (sigmoid, tower [2]) and `time` (identity, no tower). norm is "batch", "layer" or "none". */
extern const char test_tiny_config[];
void test_tiny_tensors(test_tensors *tensors, const char *norm);

/* text with its first `old` replaced; owned by the caller. `old` must occur. */
char *test_replace(const char *text, const char *old, const char *new_text);

#endif
