/* A set of JSON values: see js_set.h. Texts and numbers lie in a table with open addressing, at most half
 * full, or, where they are few, one behind the other; the words null, false and true in three bits. */
#include "service/experiments/js_set.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct hr_js_set {
    bool any_case;
    bool has_word[HR_JS_NUMBER]; /* null, false, true */
    size_t n_few;                /* at most FEW: the elements; more: 0, and mask counts */
    size_t mask;                 /* of the table's size, a power of two */
    hr_js_value *table;          /* (n_few), or (mask + 1); HR_JS_NULL: free */
};

enum { FEW = 6 };

static uint64_t hash_of(const hr_js_value *value) {
    if (value->kind == HR_JS_STRING) return XXH3_64bits(value->text.bytes, value->text.nbytes);
    double number = value->number == 0 ? 0 : value->number; /* both zeros are equal */
    return XXH3_64bits(&number, sizeof number);
}

/* The value's place in the table, or the free one where it would be. */
static hr_js_value *find(const hr_js_set *set, const hr_js_value *value) {
    size_t i = (size_t)hash_of(value) & set->mask;
    while (set->table[i].kind != HR_JS_NULL && !hr_js_strict_equal(&set->table[i], value))
        i = (i + 1) & set->mask;
    return &set->table[i];
}

static bool has_equal(const hr_js_set *set, const hr_js_value *value) {
    if (set->mask > 0) return find(set, value)->kind != HR_JS_NULL;
    for (size_t i = 0; i < set->n_few; i++)
        if (hr_js_strict_equal(&set->table[i], value)) return true;
    return false;
}

static void add(hr_js_set *set, const hr_js_value *value, hr_js_scratch *memory) {
    if (value->kind < HR_JS_NUMBER) {
        set->has_word[value->kind] = true;
    } else if (value->kind <= HR_JS_STRING) {
        hr_js_value element = *value;
        if (set->any_case && value->kind == HR_JS_STRING) element.text = hr_js_lower(value->text, memory);
        if (set->mask > 0)
            *find(set, &element) = element;
        else
            set->table[set->n_few++] = element;
    }
}

hr_status hr_js_set_create(const json_t *array, bool any_case, hr_arena *arena, const hr_js_set **set,
                           hr_error *err) {
    const bool few = json_array_size(array) <= FEW;
    size_t size = few ? json_array_size(array) : 16;
    while (!few && size < json_array_size(array) * 2) size *= 2;
    const hr_js_value *elements = NULL;
    hr_status status = array == NULL ? HR_OK : hr_js_from_json(array, arena, &elements, err);
    if (status != HR_OK) return status;
    hr_js_set *made = hr_arena_calloc(arena, 1, sizeof *made);
    hr_js_value *table = hr_arena_calloc(arena, size, sizeof *table);
    if (made == NULL || table == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "a list needs more memory than there is");
    *made = (hr_js_set){.any_case = any_case, .mask = few ? 0 : size - 1, .table = table};
    hr_js_scratch memory = {.arena = arena};
    for (const hr_js_value *at = elements == NULL ? NULL : elements->first; at != NULL; at = at->next)
        add(made, at, &memory);
    if (memory.failed)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "a list needs more memory than there is");
    *set = made;
    return HR_OK;
}

static bool has_one(const hr_js_set *set, const hr_js_value *value, hr_js_scratch *scratch) {
    hr_js_kind kind = hr_js_kind_of(value);
    if (kind < HR_JS_NUMBER) return set->has_word[kind];
    if (kind > HR_JS_STRING) return false;
    if (!set->any_case || kind == HR_JS_NUMBER) return has_equal(set, value);
    hr_js_value lowered = {.kind = HR_JS_STRING};
    lowered.text = hr_js_lower(value->text, scratch);
    return has_equal(set, &lowered);
}

bool hr_js_set_has(const hr_js_set *set, const hr_js_value *value, hr_js_scratch *scratch) {
    if (hr_js_kind_of(value) != HR_JS_ARRAY) return has_one(set, value, scratch);
    for (const hr_js_value *at = value->first; at != NULL; at = at->next)
        if (has_one(set, at, scratch)) return true;
    return false;
}
