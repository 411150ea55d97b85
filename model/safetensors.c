/* The safetensors reader: see safetensors.h. The format: https://github.com/huggingface/safetensors. */
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schema/json_read.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are read as they lie in the file");

enum { LENGTH_NBYTES = 8, CHUNK_VALUES = 1 << 15 };
static const uint64_t max_header_nbytes = 100000000; /* the format's own limit */

struct hr_safetensors {
    int fd;
    json_t *header;            /* owned; backs the names */
    hr_tensor *tensors;        /* owned; in the order of the data */
    const hr_tensor **by_name; /* owned; sorted by name */
    size_t n_tensors;
};

/* ---- Numbers ---- */

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float hr_bf16_to_f32(uint16_t bits) {
    return float_of_bits((uint32_t)bits << 16);
}

float hr_f16_to_f32(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = (bits >> 10) & 0x1F;
    uint32_t fraction = bits & 0x3FF;
    if (exponent == 0) { /* zero and subnormals: fraction * 2^-24 */
        float value = (float)fraction * 0x1p-24F;
        return sign != 0 ? -value : value;
    }
    if (exponent == 0x1F) return float_of_bits(sign | 0x7F800000 | fraction << 13);
    return float_of_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13);
}

static const struct {
    const char *name;
    uint64_t nbytes;
} dtypes[] = {[HR_DTYPE_F32] = {"F32", 4}, [HR_DTYPE_F16] = {"F16", 2}, [HR_DTYPE_BF16] = {"BF16", 2}};

const char *hr_dtype_name(hr_dtype dtype) {
    return dtypes[dtype].name;
}

hr_shape_text hr_shape_show(const uint64_t *shape, uint32_t n_dims) {
    hr_shape_text shown = {.text = "["};
    const size_t room = sizeof shown.text - sizeof "...]"; /* for the sizes */
    size_t used = 1;
    for (uint32_t i = 0; i < n_dims; i++) {
        char size[24];
        int n = snprintf(size, sizeof size, "%s%llu", i == 0 ? "" : ", ", (unsigned long long)shape[i]);
        if (used + (size_t)n > room) {
            snprintf(shown.text + used, sizeof shown.text - used, "...]");
            return shown;
        }
        used += (size_t)snprintf(shown.text + used, sizeof shown.text - used, "%s", size);
    }
    shown.text[used] = ']';
    return shown;
}

/* ---- File ---- */

/* Exactly nbytes from offset on. */
static hr_status read_at(int fd, void *buffer, size_t nbytes, uint64_t offset, hr_error *err) {
    unsigned char *at = buffer;
    while (nbytes > 0) {
        ssize_t n = pread(fd, at, nbytes, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return hr_error_set(err, HR_IO, "reading at byte %llu: %s", (unsigned long long)offset,
                                strerror(errno));
        if (n == 0) {
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "truncated: expected %zu more bytes at byte %llu, found the end", nbytes,
                                (unsigned long long)offset);
        }
        at += n;
        offset += (uint64_t)n;
        nbytes -= (size_t)n;
    }
    return HR_OK;
}

static hr_status open_regular(const char *path, int *fd, uint64_t *nbytes, hr_error *err) {
    /* O_NONBLOCK: the open of a FIFO must not wait for its writer. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return hr_error_set(err, HR_IO, "cannot open: %s", strerror(errno));
    struct stat st;
    if (fstat(*fd, &st) != 0) return hr_error_set(err, HR_IO, "cannot stat: %s", strerror(errno));
    if (!S_ISREG(st.st_mode)) return hr_error_set(err, HR_IO, "expected a regular file");
    *nbytes = (uint64_t)st.st_size;
    return HR_OK;
}

/* Reads and parses the header; *data_begin is where the data section starts. */
static hr_status read_header(hr_safetensors *file, uint64_t file_nbytes, uint64_t *data_begin,
                             hr_error *err) {
    uint64_t nbytes = 0;
    if (file_nbytes < LENGTH_NBYTES) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "expected a header length of 8 bytes, found a file of %llu bytes",
                            (unsigned long long)file_nbytes);
    }
    hr_status status = read_at(file->fd, &nbytes, LENGTH_NBYTES, 0, err);
    if (status != HR_OK) return status;
    uint64_t most =
        file_nbytes - LENGTH_NBYTES < max_header_nbytes ? file_nbytes - LENGTH_NBYTES : max_header_nbytes;
    if (nbytes > most) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "header length: expected at most %llu bytes, found %llu",
                            (unsigned long long)most, (unsigned long long)nbytes);
    }
    char *text = malloc(nbytes + 1);
    if (text == NULL)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for a header of %llu bytes",
                            (unsigned long long)nbytes);
    status = read_at(file->fd, text, nbytes, LENGTH_NBYTES, err);
    if (status == HR_OK) {
        json_error_t why;
        file->header = json_loadb(text, nbytes, JSON_REJECT_DUPLICATES, &why);
        if (file->header == NULL) {
            status = hr_error_set(err, HR_INVALID_ARGUMENT, "header at byte %d: expected JSON: %s",
                                  why.position, hr_quote(why.text, strlen(why.text)).text);
        } else if (!json_is_object(file->header)) {
            status = hr_json_expected("header", NULL, "an object", file->header, err);
        }
    }
    free(text);
    *data_begin = LENGTH_NBYTES + nbytes;
    return status;
}

/* ---- One tensor of the header ---- */

static hr_status read_dtype(const json_t *entry, const char *where, hr_dtype *dtype, hr_error *err) {
    const json_t *value = json_object_get(entry, "dtype");
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (!json_is_string(value) || strcmp(json_string_value(value), dtypes[i].name) != 0) continue;
        *dtype = (hr_dtype)i;
        return HR_OK;
    }
    return hr_json_expected(where, "dtype", "F32, F16 or BF16", value, err);
}

/* A non-negative JSON integer. */
static bool as_size(const json_t *value, uint64_t *size) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *size = (uint64_t)json_integer_value(value);
    return true;
}

static hr_status read_shape(const json_t *entry, const char *where, hr_tensor *tensor, hr_error *err) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > HR_TENSOR_MAX_DIMS) {
        return hr_json_expected(where, "shape", "an array of at most 8 sizes", shape, err);
    }
    tensor->n_dims = (uint32_t)json_array_size(shape);
    tensor->n_values = 1;
    for (uint32_t i = 0; i < tensor->n_dims; i++) {
        if (!as_size(json_array_get(shape, i), &tensor->shape[i])) {
            return hr_json_expected(where, "shape", "sizes >= 0", json_array_get(shape, i), err);
        }
        if (__builtin_mul_overflow(tensor->n_values, tensor->shape[i], &tensor->n_values)) {
            return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: shape %s: expected fewer values than 2^64",
                                where, hr_shape_show(tensor->shape, tensor->n_dims).text);
        }
    }
    return HR_OK;
}

static hr_status read_offsets(const json_t *entry, const char *where, uint64_t data_nbytes, hr_tensor *tensor,
                              hr_error *err) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end, nbytes;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !as_size(json_array_get(offsets, 0), &begin) || !as_size(json_array_get(offsets, 1), &end)) {
        return hr_json_expected(where, "data_offsets", "[begin, end]", offsets, err);
    }
    if (begin > end || end > data_nbytes) {
        return hr_error_set(
            err, HR_INVALID_ARGUMENT,
            "%s: data_offsets: expected begin <= end <= %llu, the data's size, found [%llu, %llu]", where,
            (unsigned long long)data_nbytes, (unsigned long long)begin, (unsigned long long)end);
    }
    if (__builtin_mul_overflow(tensor->n_values, dtypes[tensor->dtype].nbytes, &nbytes) ||
        nbytes != end - begin) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "%s: data_offsets: expected as many bytes as %s %s has, found %llu", where,
                            hr_shape_show(tensor->shape, tensor->n_dims).text, dtypes[tensor->dtype].name,
                            (unsigned long long)(end - begin));
    }
    tensor->begin = begin;
    tensor->nbytes = nbytes;
    return HR_OK;
}

static hr_status read_tensor(const char *name, const json_t *entry, uint64_t data_nbytes, hr_tensor *tensor,
                             hr_error *err) {
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    char where[HR_QUOTE_SIZE + 8];
    snprintf(where, sizeof where, "tensor %s", hr_quote(name, strlen(name)).text);
    tensor->name = name;
    hr_status status = hr_json_check_keys(entry, where, keys, sizeof keys / sizeof keys[0], err);
    if (status == HR_OK) status = read_dtype(entry, where, &tensor->dtype, err);
    if (status == HR_OK) status = read_shape(entry, where, tensor, err);
    if (status == HR_OK) status = read_offsets(entry, where, data_nbytes, tensor, err);
    return status;
}

/* ---- All tensors ---- */

static int compare_begin(const void *a, const void *b) {
    const hr_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    /* An empty tensor before the one that starts where it does. */
    if (x->nbytes != y->nbytes) return x->nbytes < y->nbytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_name(const void *a, const void *b) {
    return strcmp((*(const hr_tensor *const *)a)->name, (*(const hr_tensor *const *)b)->name);
}

/* The tensors, sorted by begin, cover the data end to end. */
static hr_status check_coverage(const hr_safetensors *file, uint64_t data_nbytes, hr_error *err) {
    uint64_t covered = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const hr_tensor *tensor = &file->tensors[i];
        if (tensor->begin != covered) {
            return hr_error_set(
                err, HR_INVALID_ARGUMENT,
                "tensor %s: data_offsets: expected to begin at %llu, where the tensor before it ends, "
                "found %llu (%s)",
                hr_quote(tensor->name, strlen(tensor->name)).text, (unsigned long long)covered,
                (unsigned long long)tensor->begin, tensor->begin < covered ? "they overlap" : "a hole");
        }
        covered += tensor->nbytes;
    }
    if (covered != data_nbytes) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "expected %llu bytes of data, as the tensors have, found %llu",
                            (unsigned long long)covered, (unsigned long long)data_nbytes);
    }
    return HR_OK;
}

static hr_status read_tensors(hr_safetensors *file, uint64_t file_nbytes, uint64_t data_begin,
                              hr_error *err) {
    size_t most = json_object_size(file->header);
    file->tensors = calloc(most + 1, sizeof *file->tensors);
    file->by_name = calloc(most + 1, sizeof(const hr_tensor *));
    if (file->tensors == NULL || file->by_name == NULL) {
        return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the list of %zu tensors", most);
    }
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        hr_status status =
            read_tensor(name, entry, file_nbytes - data_begin, &file->tensors[file->n_tensors], err);
        if (status != HR_OK) return status;
        file->n_tensors++;
    }
    qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_begin);
    hr_status status = check_coverage(file, file_nbytes - data_begin, err);
    if (status != HR_OK) return status;
    for (size_t i = 0; i < file->n_tensors; i++) {
        file->tensors[i].begin += data_begin;
        file->by_name[i] = &file->tensors[i];
    }
    qsort(file->by_name, file->n_tensors, sizeof(const hr_tensor *), compare_name);
    return HR_OK;
}

hr_status hr_safetensors_open(const char *path, hr_safetensors **file, hr_error *err) {
    *file = NULL;
    hr_safetensors *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    opened->fd = -1;
    uint64_t nbytes = 0, data_begin = 0;
    hr_status status = open_regular(path, &opened->fd, &nbytes, err);
    if (status == HR_OK) status = read_header(opened, nbytes, &data_begin, err);
    if (status == HR_OK) status = read_tensors(opened, nbytes, data_begin, err);
    if (status != HR_OK) {
        hr_safetensors_close(opened);
        return status;
    }
    *file = opened;
    return HR_OK;
}

void hr_safetensors_close(hr_safetensors *file) {
    if (file == NULL) return;
    free(file->by_name);
    free(file->tensors);
    json_decref(file->header);
    if (file->fd >= 0) close(file->fd);
    free(file);
}

size_t hr_safetensors_count(const hr_safetensors *file) {
    return file->n_tensors;
}

const hr_tensor *hr_safetensors_at(const hr_safetensors *file, size_t index) {
    return &file->tensors[index];
}

const hr_tensor *hr_safetensors_find(const hr_safetensors *file, const char *name, size_t *index) {
    hr_tensor key = {.name = name};
    const hr_tensor *wanted = &key;
    const hr_tensor **found =
        bsearch(&wanted, file->by_name, file->n_tensors, sizeof(const hr_tensor *), compare_name);
    if (found == NULL) return NULL;
    if (index != NULL) *index = (size_t)(*found - file->tensors);
    return *found;
}

/* ---- Values ---- */

/* n 16-bit values from offset on, a chunk at a time. */
static hr_status read_half(const hr_safetensors *file, const hr_tensor *tensor, float *values,
                           hr_error *err) {
    float (*convert)(uint16_t) = tensor->dtype == HR_DTYPE_F16 ? hr_f16_to_f32 : hr_bf16_to_f32;
    uint16_t *chunk = calloc(CHUNK_VALUES, sizeof *chunk);
    if (chunk == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory");
    hr_status status = HR_OK;
    for (uint64_t done = 0; status == HR_OK && done < tensor->n_values;) {
        uint64_t left = tensor->n_values - done;
        size_t n = left < CHUNK_VALUES ? (size_t)left : CHUNK_VALUES;
        status = read_at(file->fd, chunk, n * sizeof *chunk, tensor->begin + done * sizeof *chunk, err);
        if (status != HR_OK) break;
        for (size_t i = 0; i < n; i++) values[done + i] = convert(chunk[i]);
        done += n;
    }
    free(chunk);
    return status;
}

hr_status hr_safetensors_read(const hr_safetensors *file, const hr_tensor *tensor, float *values,
                              hr_error *err) {
    hr_status status = tensor->dtype == HR_DTYPE_F32
                           ? read_at(file->fd, values, (size_t)tensor->nbytes, tensor->begin, err)
                           : read_half(file, tensor, values, err);
    if (status != HR_OK) {
        return hr_error_prefix(err, "tensor %s", hr_quote(tensor->name, strlen(tensor->name)).text);
    }
    for (uint64_t i = 0; i < tensor->n_values; i++) {
        if (isfinite(values[i])) continue;
        return hr_error_set(
            err, HR_INVALID_ARGUMENT, "tensor %s: expected finite values, found %g at index %llu",
            hr_quote(tensor->name, strlen(tensor->name)).text, (double)values[i], (unsigned long long)i);
    }
    return HR_OK;
}
