/* What a Redis server, or whoever answers in its place, may send: through the reader, as trees, as maps of a
 * cluster, as redirections.
 *
 * The first byte says into which pieces the rest is cut (0: none).
 *
 * Invariants: the events, and the error, do not depend on how the bytes are cut; a map that is taken names
 * only shards that it has, and nodes with a host and a port; one that is refused says what was expected.
 */
#include <stdlib.h>
#include <string.h>

#include "features/redis_slots.h"
#include "tests/fuzz/fuzz.h"

enum { ARENA_NBYTES = 4 << 20 };

/* One pass over the input. */
typedef struct pass {
    uint64_t hash; /* of all events: FNV-1a */
    hr_arena *arena;
    hr_redis_tree tree;
} pass;

/* Made once, kept for the process. */
static hr_arena *arena, *map_arena;
static hr_redis_map *map;

static void require(bool held) {
    if (!held) abort();
}

static void mix_number(pass *p, uint64_t n) {
    p->hash = (p->hash ^ n) * 0x100000001b3;
}

static void mix(pass *p, const void *bytes, size_t nbytes) {
    for (size_t i = 0; i < nbytes; i++) mix_number(p, ((const uint8_t *)bytes)[i]);
}

static void mix_event(pass *p, char event, hr_redis_place place, uint64_t value) {
    require(place.depth <= HR_REDIS_MAX_DEPTH);
    mix_number(p, (uint8_t)event);
    mix_number(p, place.depth);
    mix_number(p, place.index);
    mix_number(p, value);
}

static bool on_array(void *context, hr_redis_place place, size_t n_elements) {
    pass *p = context;
    mix_event(p, '*', place, n_elements);
    return hr_redis_tree_array(&p->tree, place, n_elements);
}

static bool on_text(void *context, hr_redis_place place, const hr_redis_piece *piece) {
    pass *p = context;
    require(piece->offset + piece->nbytes <= piece->total);
    if (piece->offset == 0) mix_event(p, '$', place, piece->total);
    if (!hr_redis_tree_text(&p->tree, place, piece)) return false; /* too large: known with its first piece */
    mix(p, piece->bytes, piece->nbytes);
    return true;
}

static void check_refusal(const char *text) {
    const hr_redis_refusal refusal = hr_redis_refusal_read(text, "asked");
    if (refusal.kind > HR_REDIS_ASK) return;
    require(refusal.slot < HR_REDIS_N_SLOTS && refusal.address.port != 0);
    require(hr_host_is_valid(refusal.address.host, strlen(refusal.address.host)));
}

static bool on_line(void *context, hr_redis_place place, bool is_error, const char *text, size_t nbytes) {
    pass *p = context;
    char copy[HR_REDIS_LINE_SIZE];
    require(nbytes < HR_REDIS_LINE_SIZE);
    memcpy(copy, text, nbytes);
    copy[nbytes] = '\0';
    if (is_error) check_refusal(copy);
    mix_event(p, is_error ? '-' : '+', place, nbytes);
    mix(p, text, nbytes);
    return hr_redis_tree_line(&p->tree, place, is_error, text, nbytes);
}

static bool on_integer(void *context, hr_redis_place place, int64_t value) {
    pass *p = context;
    mix_event(p, ':', place, (uint64_t)value);
    hr_redis_tree_integer(&p->tree, place, value);
    return true;
}

static bool on_nil(void *context, hr_redis_place place) {
    mix_event(context, '~', place, 0);
    return true;
}

static void check_map(const hr_redis_value *reply, bool slots) {
    hr_error err = {HR_OK, ""};
    hr_status status =
        (slots ? hr_redis_map_read_slots : hr_redis_map_read_shards)(reply, "asked", map_arena, map, &err);
    require((status == HR_OK) == (err.message[0] == '\0'));
    for (size_t s = 0; status == HR_OK && s < map->n_shards; s++) {
        require(map->shards[s].n_nodes > 0);
        for (size_t i = 0; i < map->shards[s].n_nodes; i++) {
            const hr_address *node = &map->shards[s].nodes[i];
            require(node->port != 0 && hr_host_is_valid(node->host, strlen(node->host)));
        }
    }
    for (size_t slot = 0; status == HR_OK && slot < HR_REDIS_N_SLOTS; slot++)
        require(map->shard_of[slot] < map->n_shards || map->shard_of[slot] == HR_REDIS_NO_SHARD);
    hr_arena_reset(map_arena);
}

static bool on_end(void *context) {
    pass *p = context;
    mix_event(p, '.', (hr_redis_place){0, 0}, 0);
    check_map(&p->tree.root, false);
    check_map(&p->tree.root, true);
    hr_arena_reset(p->arena);
    hr_redis_tree_begin(&p->tree, p->arena);
    return true;
}

static const hr_redis_reader_i pass_i = {on_array, on_text, on_line, on_integer, on_nil, on_end};

/* Each piece in memory of its own, so that a read past it is seen. */
static hr_redis_read feed(hr_redis_reader *reader, const uint8_t *data, size_t nbytes) {
    char *piece = malloc(nbytes > 0 ? nbytes : 1);
    require(piece != NULL);
    if (nbytes > 0) memcpy(piece, data, nbytes);
    hr_redis_read read = hr_redis_reader_feed(reader, piece, nbytes);
    free(piece);
    return read;
}

static hr_redis_read run(pass *p, const uint8_t *data, size_t nbytes, uint8_t cut, char error[128]) {
    hr_redis_reader reader;
    *p = (pass){.hash = 0xcbf29ce484222325, .arena = arena};
    hr_arena_reset(arena);
    hr_redis_tree_begin(&p->tree, arena);
    hr_redis_reader_init(&reader, &pass_i, p);
    hr_redis_read read = HR_REDIS_READ_ALL;
    for (size_t at = 0; at < nbytes && read == HR_REDIS_READ_ALL;) {
        size_t n = cut == 0 ? nbytes - at : 1 + (at * 7 + cut) % cut;
        if (n > nbytes - at) n = nbytes - at;
        read = feed(&reader, data + at, n);
        at += n;
    }
    require((read == HR_REDIS_READ_INVALID) == (reader.error[0] != '\0'));
    memcpy(error, reader.error, sizeof reader.error);
    return read;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes) {
    if (arena == NULL) {
        arena = hr_arena_create(ARENA_NBYTES);
        map_arena = hr_arena_create(ARENA_NBYTES);
        map = malloc(sizeof *map);
        require(arena != NULL && map_arena != NULL && map != NULL);
    }
    if (nbytes == 0) return 0;
    pass whole, cut;
    char whole_error[128], cut_error[128];
    hr_redis_read at_once = run(&whole, data + 1, nbytes - 1, 0, whole_error);
    hr_redis_read in_pieces = run(&cut, data + 1, nbytes - 1, data[0], cut_error);
    require(at_once == in_pieces && whole.hash == cut.hash);
    require((whole_error[0] == '\0') == (cut_error[0] == '\0'));
    return 0;
}
