/* A reply as a tree, for the few replies whose shape is not known beforehand: a cluster's map, a published
 * message. Built from a reader's events (redis_reader.h) in an arena, whose cap bounds it.
 *
 * Thread rule: one thread at a time. Private to features/.
 */
#ifndef HOMERANK_FEATURES_REDIS_VALUE_H
#define HOMERANK_FEATURES_REDIS_VALUE_H

#include "base/arena.h"
#include "features/redis_reader.h"

typedef enum hr_redis_type {
    HR_REDIS_NIL, /* also what an array holds where nothing has come yet */
    HR_REDIS_TEXT,
    HR_REDIS_STATUS,
    HR_REDIS_ERROR,
    HR_REDIS_INTEGER,
    HR_REDIS_ARRAY
} hr_redis_type;

typedef struct hr_redis_value hr_redis_value;
struct hr_redis_value {
    hr_redis_type type;
    const char *text; /* TEXT, STATUS, ERROR: nbytes bytes and a NUL; a line is cut at HR_REDIS_LINE_SIZE */
    size_t nbytes;
    int64_t integer;                /* INTEGER */
    const hr_redis_value *elements; /* ARRAY */
    size_t n_elements;
};

/* Is it a text (or status) of exactly these bytes? */
bool hr_redis_value_is(const hr_redis_value *value, const char *text);

/* Being built. */
typedef struct hr_redis_tree {
    hr_arena *arena; /* borrowed */
    hr_redis_value root;
    hr_redis_value *open[HR_REDIS_MAX_DEPTH + 1]; /* by depth: the elements that are being filled */
} hr_redis_tree;

void hr_redis_tree_begin(hr_redis_tree *tree, hr_arena *arena);

/* A reader's events; false where the arena is full. After the last of a reply `root` is whole. */
bool hr_redis_tree_array(hr_redis_tree *tree, hr_redis_place place, size_t n_elements);
bool hr_redis_tree_text(hr_redis_tree *tree, hr_redis_place place, const hr_redis_piece *piece);
bool hr_redis_tree_line(hr_redis_tree *tree, hr_redis_place place, bool is_error, const char *text,
                        size_t nbytes);
void hr_redis_tree_integer(hr_redis_tree *tree, hr_redis_place place, int64_t value);

#endif
