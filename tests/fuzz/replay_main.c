/* Replays a fuzz corpus without libFuzzer: every file as it is, then some hundred mutations of each, the same
 * ones in every run. Usage: replay CORPUS_DIR. An empty corpus is a failure: it would prove nothing.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

enum { MUTATIONS_PER_FILE = 300, EDITS_AT_MOST = 6, FILE_NBYTES_AT_MOST = 1 << 20 };

typedef struct input {
    char *name;
    uint8_t *data; /* exactly nbytes, so that a sanitizer sees the first byte read past it */
    size_t nbytes;
} input;

typedef struct corpus {
    input *inputs; /* sorted by name */
    size_t n_inputs;
} corpus;

/* splitmix64 */
static uint64_t draw(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static size_t draw_below(uint64_t *state, size_t n) {
    return n == 0 ? 0 : (size_t)(draw(state) % n);
}

static void *must(void *p) {
    if (p == NULL) {
        fprintf(stderr, "replay: out of memory\n");
        exit(1);
    }
    return p;
}

static void call(const uint8_t *data, size_t nbytes) {
    uint8_t *exact = must(malloc(nbytes == 0 ? 1 : nbytes));
    if (nbytes > 0) memcpy(exact, data, nbytes);
    LLVMFuzzerTestOneInput(exact, nbytes);
    free(exact);
}

/* Replaces buffer[at, at + cut) by paste[0..n). The buffer has room. */
static size_t splice(uint8_t *buffer, size_t nbytes, size_t at, size_t cut, const uint8_t *paste, size_t n) {
    memmove(buffer + at + n, buffer + at + cut, nbytes - at - cut);
    if (n > 0) memcpy(buffer + at, paste, n);
    return nbytes - cut + n;
}

/* One edit; grows the buffer by 64 bytes at most. other is a file to take a piece of. */
static size_t edit(uint8_t *buffer, size_t nbytes, const input *other, uint64_t *state) {
    static const uint8_t edges[] = {0x00, 0x01, 0x7F, 0x80, 0xC0, 0xE0, 0xED, 0xF4,
                                    0xFF, '"',  '{',  '[',  '\\', '-',  '9'};
    size_t at = draw_below(state, nbytes);
    uint8_t run[8];
    switch (draw_below(state, 6)) {
    case 0:
        if (nbytes > 0) buffer[at] ^= (uint8_t)(1u << draw_below(state, 8));
        return nbytes;
    case 1:
        if (nbytes > 0) buffer[at] = edges[draw_below(state, sizeof edges)];
        return nbytes;
    case 2: return draw_below(state, 4) == 0 ? at : nbytes;
    case 3: return splice(buffer, nbytes, at, draw_below(state, nbytes - at + 1) % 16, NULL, 0);
    case 4:
        memset(run, edges[draw_below(state, sizeof edges)], sizeof run);
        return splice(buffer, nbytes, at, 0, run, 1 + draw_below(state, sizeof run));
    default: {
        size_t from = draw_below(state, other->nbytes);
        size_t n = draw_below(state, other->nbytes - from + 1);
        return splice(buffer, nbytes, at, 0, other->data + from, n < 64 ? n : 64);
    }
    }
}

static void mutate_and_call(const corpus *all, size_t of, uint64_t *state) {
    const input *seed = &all->inputs[of];
    uint8_t *buffer = must(malloc(seed->nbytes + 64 * EDITS_AT_MOST + 1));
    memcpy(buffer, seed->data, seed->nbytes);
    size_t nbytes = seed->nbytes;
    size_t n_edits = 1 + draw_below(state, EDITS_AT_MOST);
    for (size_t i = 0; i < n_edits; i++)
        nbytes = edit(buffer, nbytes, &all->inputs[draw_below(state, all->n_inputs)], state);
    call(buffer, nbytes);
    free(buffer);
}

static bool read_input(const char *dir, const char *name, input *in) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) return false;
    in->name = must(strdup(name));
    in->data = must(malloc(FILE_NBYTES_AT_MOST));
    in->nbytes = fread(in->data, 1, FILE_NBYTES_AT_MOST, file);
    in->data = must(realloc(in->data, in->nbytes == 0 ? 1 : in->nbytes));
    bool whole = ferror(file) == 0;
    fclose(file);
    return whole;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const input *)a)->name, ((const input *)b)->name);
}

static bool read_corpus(const char *path, corpus *all) {
    DIR *dir = opendir(path);
    if (dir == NULL) return false;
    bool whole = true;
    for (struct dirent *entry = readdir(dir); whole && entry != NULL; entry = readdir(dir)) {
        if (entry->d_name[0] == '.') continue;
        all->inputs = must(realloc(all->inputs, (all->n_inputs + 1) * sizeof(input)));
        whole = read_input(path, entry->d_name, &all->inputs[all->n_inputs++]);
    }
    closedir(dir);
    if (whole && all->n_inputs > 0) qsort(all->inputs, all->n_inputs, sizeof(input), by_name);
    return whole && all->n_inputs > 0;
}

int main(int argc, char **argv) {
    corpus all = {NULL, 0};
    if (argc != 2 || !read_corpus(argv[1], &all)) {
        fprintf(stderr, "usage: replay CORPUS_DIR (readable, not empty)\n");
        return 1;
    }
    uint64_t state = 1;
    call(NULL, 0);
    for (size_t i = 0; i < all.n_inputs; i++) {
        call(all.inputs[i].data, all.inputs[i].nbytes);
        for (int m = 0; m < MUTATIONS_PER_FILE; m++) mutate_and_call(&all, i, &state);
    }
    printf("%zu files, %d mutations of each\n", all.n_inputs, MUTATIONS_PER_FILE);
    for (size_t i = 0; i < all.n_inputs; i++) {
        free(all.inputs[i].name);
        free(all.inputs[i].data);
    }
    free(all.inputs);
    return 0;
}
