/* The safetensors format: an 8-byte little-endian header length, a JSON header, the data (MODEL.md 1).
 *
 * Opening checks the whole header, every offset of it against the file's size, before anything is read by it:
 * tensors lie in the data section, end to end, without overlap or hole, each as long as its shape and dtype
 * say. Values are read with pread(2) into the caller's memory and never mapped: a file that somebody cuts
 * short while it is being read is an error here, where a mapping would be a SIGBUS.
 *
 * An open file may be read by many threads; opening and closing are one thread's.
 */
#ifndef HOMERANK_MODEL_SAFETENSORS_H
#define HOMERANK_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum hr_dtype { HR_DTYPE_F32, HR_DTYPE_F16, HR_DTYPE_BF16 } hr_dtype;

enum { HR_TENSOR_MAX_DIMS = 8 };
enum { HR_SHAPE_TEXT_SIZE = 64 };

typedef struct hr_tensor {
    const char *name; /* as in the file: any text; through hr_quote before it is shown */
    hr_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[HR_TENSOR_MAX_DIMS];
    uint64_t n_values; /* the product of shape */
    uint64_t begin;    /* bytes from the start of the file */
    uint64_t nbytes;
} hr_tensor;

typedef struct hr_safetensors hr_safetensors;

/* Errors: IO; INVALID_ARGUMENT naming the tensor, expected, found; OUT_OF_MEMORY. They do not name the path.
 */
hr_status hr_safetensors_open(const char *path, hr_safetensors **file, hr_error *err);
void hr_safetensors_close(hr_safetensors *file); /* NULL is allowed */

/* Tensors in the order of their data. Borrowed from the file. */
size_t hr_safetensors_count(const hr_safetensors *file);
const hr_tensor *hr_safetensors_at(const hr_safetensors *file, size_t index);

/* By name; NULL where there is none. *index may be NULL. */
const hr_tensor *hr_safetensors_find(const hr_safetensors *file, const char *name, size_t *index);

/* All values of a tensor of the file, as f32, into values[n_values].
 * Errors: IO; INVALID_ARGUMENT naming the tensor and index of a value that is NaN or infinite. */
hr_status hr_safetensors_read(const hr_safetensors *file, const hr_tensor *tensor, float *values,
                              hr_error *err);

/* "F32", "F16" or "BF16". */
const char *hr_dtype_name(hr_dtype dtype);

/* "[2, 128, 376]", cut with "..." where it does not fit. */
typedef struct hr_shape_text {
    char text[HR_SHAPE_TEXT_SIZE];
} hr_shape_text;
hr_shape_text hr_shape_show(const uint64_t *shape, uint32_t n_dims);

/* IEEE binary16 and bfloat16 to f32, exactly. */
float hr_f16_to_f32(uint16_t bits);
float hr_bf16_to_f32(uint16_t bits);

#endif
