/* A line of records, read in two ways.
 *
 * Invariants: what the quick reader takes, the thorough one takes, and both make the same record of it, to
 * the byte; a line that is refused says why.
 */
#include <stdlib.h>
#include <string.h>

#include "features/load_line.h"
#include "features/load_pack.h"
#include "tests/fuzz/fuzz.h"

static hr_arena *arena;

static void require(bool held) {
    if (!held) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    if (arena == NULL) arena = hr_arena_create(64 << 20);
    require(arena != NULL);
    hr_load_packer packer = {.packed = NULL};
    hr_load_line line;
    hr_error err = {HR_OK, ""};
    char *text = hr_arena_strndup(arena, nbytes > 0 ? (const char *)data : "", nbytes);
    require(text != NULL);
    hr_status status = hr_load_line_parse(text, nbytes, arena, &line, &err);
    if (status != HR_OK) require(err.message[0] != '\0');
    if (hr_load_pack(&packer, text, nbytes)) {
        require(status == HR_OK);
        require(packer.entity == line.entity && strcmp(packer.id, line.id) == 0);
        const size_t n = homerank__v1__feature_map__get_packed_size(line.features);
        uint8_t *packed = hr_arena_alloc(arena, n);
        require(packed != NULL && n == packer.nbytes);
        homerank__v1__feature_map__pack(line.features, packed);
        require(memcmp(packed, packer.packed, n) == 0);
    } else {
        require(nbytes == 0 || memcmp(text, data, nbytes) == 0); /* as it was */
    }
    hr_load_packer_clear(&packer);
    hr_arena_reset(arena);
    return 0;
}
