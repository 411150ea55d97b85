/* Replies as trees: see redis_value.h. */
#include "features/redis_value.h"

#include <string.h>

bool hr_redis_value_is(const hr_redis_value *value, const char *text) {
    return (value->type == HR_REDIS_TEXT || value->type == HR_REDIS_STATUS) &&
           value->nbytes == strlen(text) && memcmp(value->text, text, value->nbytes) == 0;
}

void hr_redis_tree_begin(hr_redis_tree *tree, hr_arena *arena) {
    tree->arena = arena;
    tree->root = (hr_redis_value){.type = HR_REDIS_NIL};
    tree->open[0] = &tree->root;
}

static hr_redis_value *value_at(hr_redis_tree *tree, hr_redis_place place) {
    return &tree->open[place.depth][place.index];
}

bool hr_redis_tree_array(hr_redis_tree *tree, hr_redis_place place, size_t n_elements) {
    hr_redis_value *elements = hr_arena_calloc(tree->arena, n_elements, sizeof *elements);
    if (elements == NULL) return false;
    *value_at(tree, place) =
        (hr_redis_value){.type = HR_REDIS_ARRAY, .elements = elements, .n_elements = n_elements};
    tree->open[place.depth + 1] = elements;
    return true;
}

bool hr_redis_tree_text(hr_redis_tree *tree, hr_redis_place place, const hr_redis_piece *piece) {
    hr_redis_value *value = value_at(tree, place);
    if (piece->offset == 0) {
        char *text = hr_arena_alloc(tree->arena, piece->total + 1);
        if (text == NULL) return false;
        text[piece->total] = '\0';
        *value = (hr_redis_value){.type = HR_REDIS_TEXT, .text = text, .nbytes = piece->total};
    }
    memcpy((char *)value->text + piece->offset, piece->bytes, piece->nbytes); /* the arena's, ours */
    return true;
}

bool hr_redis_tree_line(hr_redis_tree *tree, hr_redis_place place, bool is_error, const char *text,
                        size_t nbytes) {
    const char *copy = hr_arena_strndup(tree->arena, text, nbytes);
    if (copy == NULL) return false;
    *value_at(tree, place) =
        (hr_redis_value){.type = is_error ? HR_REDIS_ERROR : HR_REDIS_STATUS, .text = copy, .nbytes = nbytes};
    return true;
}

void hr_redis_tree_integer(hr_redis_tree *tree, hr_redis_place place, int64_t value) {
    *value_at(tree, place) = (hr_redis_value){.type = HR_REDIS_INTEGER, .integer = value};
}
