/* A CSV file: its first row is the header, the others are records.
 *
 * Invariants: a row that is taken makes a record that packs and is one (valid texts, a name each); a refused
 * one says why.
 */
#include <stdlib.h>
#include <string.h>

#include "features/load_csv.h"
#include "proto/unpack.h"
#include "tests/fuzz/fuzz.h"

static hr_arena *arena;

static void require(bool held) {
    if (!held) abort();
}

static void check_record(const hr_load_line *line) {
    hr_error err = {HR_OK, ""};
    require(line->id != NULL && line->id[0] != '\0');
    const size_t n = homerank__v1__feature_map__get_packed_size(line->features);
    uint8_t *packed = hr_arena_alloc(arena, n);
    if (packed == NULL) return;
    require(homerank__v1__feature_map__pack(line->features, packed) == n);
    require(hr_proto_check(&homerank__v1__feature_map__descriptor, packed, n, &err) == HR_OK);
}

/* A row's end: the first line feed outside quotes. */
static size_t row_nbytes(const char *text, size_t nbytes) {
    bool open = false;
    size_t n = 0;
    for (; n < nbytes && (open || text[n] != '\n'); n++) open ^= text[n] == '"';
    require(hr_csv_is_open(text, n) == open);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    if (arena == NULL) arena = hr_arena_create(64 << 20);
    require(arena != NULL);
    static const hr_entity user = HR_ENTITY_USER;
    const hr_csv_header *header = NULL;
    char *text = hr_arena_strndup(arena, nbytes > 0 ? (const char *)data : "", nbytes);
    require(text != NULL);
    for (size_t at = 0, row = 0; at <= nbytes; row++) {
        const size_t n = row_nbytes(text + at, nbytes - at);
        hr_error err = {HR_OK, ""};
        hr_load_line line = {.id = NULL};
        text[at + n] = '\0';
        hr_status status = row == 0
                               ? hr_csv_header_read(text + at, n, n % 2 ? &user : NULL, arena, &header, &err)
                               : hr_csv_row_read(header, text + at, n, arena, &line, &err);
        if (status != HR_OK) require(status == HR_INVALID_ARGUMENT && err.message[0] != '\0');
        if (status != HR_OK && row == 0) break;
        if (status == HR_OK && row > 0) check_record(&line);
        at += n + 1;
    }
    hr_arena_reset(arena);
    return 0;
}
