/* Small model folders for tests: see model_folder.h. */
#include "tests/model/model_folder.h"

#include <assert.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Tensors ---- */

size_t test_tensor_size(const test_tensor *tensor) {
    size_t n = 1;
    for (uint32_t i = 0; i < tensor->n_dims; i++) n *= tensor->shape[i];
    return n;
}

static void fill(test_tensor *tensor) {
    uint64_t state = 14695981039346656037U; /* FNV-1a of the name, then a linear congruence */
    for (const char *c = tensor->name; *c != '\0'; c++) state = (state ^ (unsigned char)*c) * 1099511628211U;
    float center = strstr(tensor->name, "running_var") != NULL ? 1.0F : 0.0F;
    for (size_t i = 0; i < test_tensor_size(tensor); i++) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        /* Multiples of 2^-7 that bf16 and binary16 hold exactly. */
        tensor->values[i] = center + (float)((int)(state >> 57) - 64) / 128.0F;
    }
}

test_tensor *test_tensors_add(test_tensors *tensors, const char *name, const char *dtype, uint32_t n_dims,
                              const uint64_t *shape) {
    tensors->list = realloc(tensors->list, (tensors->n + 1) * sizeof *tensors->list);
    assert(tensors->list != NULL);
    test_tensor *tensor = &tensors->list[tensors->n++];
    *tensor = (test_tensor){.name = strdup(name), .dtype = dtype, .n_dims = n_dims};
    memcpy(tensor->shape, shape, n_dims * sizeof *shape);
    tensor->values = calloc(test_tensor_size(tensor) + 1, sizeof *tensor->values);
    assert(tensor->name != NULL && tensor->values != NULL);
    fill(tensor);
    return tensor;
}

test_tensor *test_tensors_find(test_tensors *tensors, const char *name) {
    for (size_t i = 0; i < tensors->n; i++) {
        if (strcmp(tensors->list[i].name, name) == 0) return &tensors->list[i];
    }
    assert(!"no such tensor");
    return NULL;
}

void test_tensors_remove(test_tensors *tensors, const char *name) {
    test_tensor *tensor = test_tensors_find(tensors, name);
    free(tensor->name);
    free(tensor->values);
    *tensor = tensors->list[--tensors->n];
}

void test_tensors_clear(test_tensors *tensors) {
    for (size_t i = 0; i < tensors->n; i++) {
        free(tensors->list[i].name);
        free(tensors->list[i].values);
    }
    free(tensors->list);
    *tensors = (test_tensors){0};
}

uint16_t test_bf16_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    assert((bits & 0xFFFF) == 0);
    return (uint16_t)(bits >> 16);
}

uint16_t test_f16_of(float value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    if (isinf(value)) return sign | 0x7C00;
    if (isnan(value)) return sign | 0x7E00;
    if (value == 0.0F) return sign;
    int exponent;
    float fraction = frexpf(fabsf(value), &exponent); /* in [0.5, 1) */
    assert(exponent > -14 && exponent <= 16);
    return sign | (uint16_t)((exponent + 14) << 10) | (uint16_t)((fraction * 2.0F - 1.0F) * 1024.0F);
}

static size_t write_values(const test_tensor *tensor, FILE *out) {
    size_t n = test_tensor_size(tensor);
    if (strcmp(tensor->dtype, "F32") == 0) {
        return fwrite(tensor->values, sizeof(float), n, out) * sizeof(float);
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t half = strcmp(tensor->dtype, "F16") == 0 ? test_f16_of(tensor->values[i])
                                                          : test_bf16_of(tensor->values[i]);
        fwrite(&half, sizeof half, 1, out);
    }
    return n * sizeof(uint16_t);
}

void test_write_tensors(const char *dir, const test_tensors *tensors) {
    char *header, *data, path[512];
    size_t header_nbytes, data_nbytes, at = 0;
    FILE *h = open_memstream(&header, &header_nbytes);
    FILE *d = open_memstream(&data, &data_nbytes);
    assert(h != NULL && d != NULL);
    fprintf(h, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < tensors->n; i++) {
        const test_tensor *tensor = &tensors->list[i];
        size_t nbytes = write_values(tensor, d);
        fprintf(h, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name, tensor->dtype);
        for (uint32_t s = 0; s < tensor->n_dims; s++) {
            fprintf(h, "%s%llu", s == 0 ? "" : ",", (unsigned long long)tensor->shape[s]);
        }
        fprintf(h, "],\"data_offsets\":[%zu,%zu]}", at, at + nbytes);
        at += nbytes;
    }
    fprintf(h, "}   ");
    fclose(h);
    fclose(d);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *out = fopen(path, "wb");
    assert(out != NULL);
    uint64_t length = header_nbytes;
    fwrite(&length, sizeof length, 1, out);
    fwrite(header, 1, header_nbytes, out);
    fwrite(data, 1, data_nbytes, out);
    int closed = fclose(out);
    assert(closed == 0);
    (void)closed;
    free(header);
    free(data);
}

/* ---- Folders ---- */

void test_folder_make(char *dir, size_t size) {
    const char *base = getenv("TEST_TMPDIR");
    snprintf(dir, size, "%s/homerank-test-XXXXXX", base != NULL ? base : "/tmp");
    const char *made = mkdtemp(dir);
    assert(made != NULL);
    (void)made;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void test_folder_remove(const char *dir) {
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void test_folder_sub(const char *dir, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int made = mkdir(path, 0755);
    assert(made == 0);
    (void)made;
}

void test_write_bytes(const char *dir, const char *name, const void *bytes, size_t nbytes) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *out = fopen(path, "wb");
    assert(out != NULL);
    size_t written = fwrite(bytes, 1, nbytes, out);
    int closed = fclose(out);
    assert(written == nbytes && closed == 0);
    (void)written, (void)closed;
}

void test_write_config(const char *dir, const char *text) {
    test_write_bytes(dir, "config.json", text, strlen(text));
}

char *test_replace(const char *text, const char *old, const char *new_text) {
    const char *at = strstr(text, old);
    assert(at != NULL);
    char *out;
    int n = asprintf(&out, "%.*s%s%s", (int)(at - text), text, new_text, at + strlen(old));
    assert(n >= 0);
    (void)n;
    return out;
}

/* ---- The tiny model ---- */

const char test_tiny_config[] =
    "{\"format\": \"homerank/1\", \"description\": \"one of everything\",\n"
    " \"tables\": {\"user\": {\"rows\": 4, \"dim\": 2, \"index\": \"direct\"}},\n"
    " \"features\": [{\"name\": \"user_id\", \"entity\": \"user\", \"kind\": \"id\", \"table\": \"user\"},\n"
    "  {\"name\": \"price\", \"entity\": \"item\", \"kind\": \"number\"}],\n"
    " \"network\": {\"activation\": \"swish\", \"norm\": \"batch\", \"norm_eps\": 1e-5, "
    "\"tower_activation\": \"relu\",\n"
    "  \"layers\": [\n"
    "   {\"name\": \"meta\", \"units\": [\n"
    "    {\"name\": \"shared\", \"input\": [\"features\"], \"experts\": 2, \"hidden\": [4, 3],\n"
    "     \"feature_gate\": {\"loras\": 2, \"rank\": 2}, \"mix\": [\"shared\", \"extra\"], \"self_gate\": "
    "true},\n"
    "    {\"name\": \"extra\", \"input\": [\"features\"], \"experts\": 1, \"hidden\": [3]}]},\n"
    "   {\"name\": \"task\", \"units\": [\n"
    "    {\"name\": \"click\", \"input\": [\"meta.shared\", \"features\"], \"gate_input\": [\"features\"],\n"
    "     \"experts\": 1, \"hidden\": [2], \"mix\": [\"click\"], \"self_gate\": true},\n"
    "    {\"name\": \"time\", \"input\": [\"features\"], \"experts\": 0, \"hidden\": [], \"mix\": "
    "[\"click\"]}]}],\n"
    "  \"tasks\": [{\"name\": \"click\", \"input\": \"task.click\", \"tower\": [2], \"output\": "
    "\"sigmoid\"},\n"
    "   {\"name\": \"time\", \"input\": \"task.time\", \"tower\": [], \"output\": \"identity\"}]},\n"
    " \"fusion\": {\"kind\": \"weighted_sum\", \"weights\": {\"click\": 1.0, \"time\": 0.5}}}\n";

static const struct {
    const char *name;
    uint32_t n_dims;
    uint64_t shape[3];
} tiny_rows[] = {
    {"meta.shared.expert.0.weight", 3, {2, 4, 3}},
    {"meta.shared.expert.0.bias", 2, {2, 4}},
    {"meta.shared.expert.1.weight", 3, {2, 3, 4}},
    {"meta.shared.expert.1.bias", 2, {2, 3}},
    {"meta.shared.feature_gate.down", 3, {2, 2, 3}},
    {"meta.shared.feature_gate.up", 3, {2, 3, 2}},
    {"meta.shared.feature_gate.mix.weight", 2, {2, 3}},
    {"meta.shared.feature_gate.mix.bias", 1, {2}},
    {"meta.shared.gate.weight", 2, {3, 3}},
    {"meta.shared.gate.bias", 1, {3}},
    {"meta.shared.self_gate.weight", 2, {2, 3}},
    {"meta.shared.self_gate.bias", 1, {2}},
    {"meta.extra.expert.0.weight", 3, {1, 3, 3}},
    {"meta.extra.expert.0.bias", 2, {1, 3}},
    {"task.click.expert.0.weight", 3, {1, 2, 6}},
    {"task.click.expert.0.bias", 2, {1, 2}},
    {"task.click.self_gate.weight", 2, {1, 3}},
    {"task.click.self_gate.bias", 1, {1}},
    {"tower.click.0.weight", 2, {2, 2}},
    {"tower.click.0.bias", 1, {2}},
    {"tower.click.1.weight", 2, {1, 2}},
    {"tower.click.1.bias", 1, {1}},
    {"tower.time.0.weight", 2, {1, 2}},
    {"tower.time.0.bias", 1, {1}},
    {"embedding.user.weight", 2, {4, 2}},
};

void test_tiny_tensors(test_tensors *tensors, const char *norm) {
    static const char *const norm_keys[] = {"weight", "bias", "running_mean", "running_var"};
    size_t n_keys = strcmp(norm, "batch") == 0 ? 4 : strcmp(norm, "layer") == 0 ? 2 : 0;
    for (size_t i = 0; i < sizeof tiny_rows / sizeof tiny_rows[0]; i++) {
        const char *name = tiny_rows[i].name;
        test_tensors_add(tensors, name, "F32", tiny_rows[i].n_dims, tiny_rows[i].shape);
        const char *end = strstr(name, ".bias");
        if (strstr(name, ".expert.") == NULL || end == NULL) continue;
        for (size_t k = 0; k < n_keys; k++) {
            char norm_name[128];
            snprintf(norm_name, sizeof norm_name, "%.*s.norm.%s", (int)(end - name), name, norm_keys[k]);
            test_tensors_add(tensors, norm_name, "F32", 2, tiny_rows[i].shape);
        }
    }
}
