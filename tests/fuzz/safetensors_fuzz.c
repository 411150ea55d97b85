/* Any bytes as a model.safetensors: refused with a reason, or tensors that cover the data and can all be
 * read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/utf8.h"
#include "model/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void require(int holds) {
    if (!holds) abort();
}

static void require_message(hr_status status, const hr_error *err) {
    require(err->code == status && err->message[0] != '\0');
    require(hr_utf8_valid(err->message, strlen(err->message)));
}

static void read_all(const hr_safetensors *file, size_t file_nbytes) {
    uint64_t covered = 0;
    for (size_t i = 0; i < hr_safetensors_count(file); i++) {
        const hr_tensor *tensor = hr_safetensors_at(file, i);
        require(hr_safetensors_find(file, tensor->name, NULL) == tensor);
        require(tensor->begin <= file_nbytes && tensor->nbytes <= file_nbytes - tensor->begin);
        require(tensor->n_values <= tensor->nbytes);
        covered += tensor->nbytes;
        float *values = malloc(tensor->n_values * sizeof *values + 1); /* exact, so that an overrun is seen */
        if (values == NULL) continue;
        hr_error err = {.code = HR_OK, .message = ""};
        hr_status status = hr_safetensors_read(file, tensor, values, &err);
        if (status != HR_OK) require_message(status, &err);
        free(values);
    }
    require(covered <= file_nbytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    char path[64];
    int fd = memfd_create("safetensors", MFD_CLOEXEC);
    if (fd < 0) return 0;
    require(write(fd, data, nbytes) == (ssize_t)nbytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    hr_safetensors *file;
    hr_error err = {.code = HR_OK, .message = ""};
    hr_status status = hr_safetensors_open(path, &file, &err);
    if (status == HR_OK) {
        read_all(file, nbytes);
    } else {
        require(file == NULL);
        require_message(status, &err);
    }
    hr_safetensors_close(file);
    close(fd);
    return 0;
}
