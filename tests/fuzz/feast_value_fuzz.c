/* A Feast store's values, times and keys.
 *
 * Invariants: a value that is accepted is one that a feature can be given (it packs, and unpacks again as
 * homerank's own), a refused one says why; a key that is somebody's is the key of the id that was read from
 * it.
 */
#include <stdlib.h>
#include <string.h>

#include "features/feast_key.h"
#include "features/feast_value.h"
#include "proto/unpack.h"
#include "tests/fuzz/fuzz.h"

static hr_arena *arena;

static void require(bool held) {
    if (!held) abort();
}

static void run_value(const uint8_t *data, size_t nbytes) {
    const Homerank__V1__FeatureValue *value;
    hr_error err = {HR_OK, ""};
    hr_status status = hr_feast_value_decode(data, nbytes, arena, &value, &err);
    require((status == HR_OK) == (value != NULL));
    if (status != HR_OK) {
        require(err.message[0] != '\0');
        return;
    }
    const size_t n = homerank__v1__feature_value__get_packed_size(value);
    uint8_t *packed = hr_arena_alloc(arena, n);
    if (packed == NULL) return;
    require(homerank__v1__feature_value__pack(value, packed) == n);
    require(hr_proto_check(&homerank__v1__feature_value__descriptor, packed, n, &err) == HR_OK);
}

static void run_key(const uint8_t *data, size_t nbytes) {
    hr_feast_options options = {
        .project = "p", .version = 3, .entities = {{"u", HR_FEAST_STRING, "v"}, {"i", HR_FEAST_INT64, "w"}}};
    for (int i = 0; i < 4; i++) {
        char decimal[24];
        const hr_entity entity = i % 2 == 0 ? HR_ENTITY_USER : HR_ENTITY_ITEM;
        size_t n_id;
        options.version = i < 2 ? 2 : 3;
        const char *id = hr_feast_key_id(&options, entity, (const char *)data, nbytes, decimal, &n_id);
        if (id == NULL || memchr(id, '\0', n_id) != NULL) continue;
        char *text = hr_arena_strndup(arena, id, n_id);
        char *key = hr_arena_alloc(arena, HR_FEAST_KEY_EXTRA + n_id);
        if (text == NULL || key == NULL) continue;
        require(hr_feast_key_write(&options, entity, text, key) == nbytes);
        require(memcmp(key, data, nbytes) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    if (arena == NULL) arena = hr_arena_create(8 << 20);
    require(arena != NULL);
    int64_t seconds;
    run_value(data, nbytes);
    hr_feast_time_read(data, nbytes, &seconds);
    run_key(data, nbytes);
    hr_arena_reset(arena);
    return 0;
}
