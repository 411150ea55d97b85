/* The parts that rules and experiments are made of: see program_internal.h. A part of the wrong kind is a
 * problem, and where that is only a warning, it is taken as one that lets nobody in. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/experiments/program_internal.h"

/* What is absent, null or otherwise false to JavaScript, and so counts as not given. */
static bool is_given(const json_t *json) {
    if (json == NULL || json_is_null(json) || json_is_false(json)) return false;
    if (json_is_number(json)) return json_number_value(json) != 0;
    return !json_is_string(json) || json_string_length(json) > 0;
}

hr_status hr_flag_part__text(hr_flag_builder *b, const json_t *object, const char *key, const char *fallback,
                             const char **text) {
    const json_t *json = json_object_get(object, key);
    char number[HR_JS_NUMBER_SIZE];
    const char *given = fallback;
    hr_status status = HR_OK;
    if (json_is_string(json) && json_string_length(json) > 0) {
        given = json_string_value(json);
    } else if (is_given(json)) {
        status = hr_flag_builder__problem(b, "%s: expected a string", key);
        if (json_is_number(json)) hr_js_number_text(json_number_value(json), number);
        given = json_is_number(json) ? number : fallback;
    }
    if (status != HR_OK) return status;
    *text = hr_arena_strndup(b->arena, given, strlen(given));
    return *text == NULL ? hr_flag_builder__no_room(b) : HR_OK;
}

hr_status hr_flag_part__number(hr_flag_builder *b, const json_t *object, const char *key, bool *present,
                               double *number) {
    const json_t *json = json_object_get(object, key);
    *present = json_is_number(json);
    if (*present) *number = json_number_value(json);
    if (*present || json == NULL || json_is_null(json)) return HR_OK;
    *present = true;
    *number = 0;
    return hr_flag_builder__problem(b, "%s: expected a number", key);
}

hr_status hr_flag_part__hash_version(hr_flag_builder *b, const json_t *object, int fallback, int *version) {
    const json_t *json = json_object_get(object, "hashVersion");
    double number = json_number_value(json);
    *version = !is_given(json) ? fallback : number == 1 ? 1 : number == 2 ? 2 : 0;
    if (*version != 0) return HR_OK;
    return hr_flag_builder__problem(b, "hashVersion: expected 1 or 2");
}

hr_status hr_flag_part__value(hr_flag_builder *b, const json_t *json, hr_flag_value *value) {
    static const hr_js_value no_value = {.kind = HR_JS_NULL};
    value->json = &no_value;
    if (json == NULL) return HR_OK;
    hr_status status = hr_js_from_json(json, b->arena, &value->json, b->err);
    if (status != HR_OK) hr_error_prefix(b->err, "%s", b->where);
    return status;
}

hr_status hr_flag_part__targeting(hr_flag_builder *b, const json_t *object, hr_targeting *targeting) {
    const json_t *json = json_object_get(object, "condition");
    if (!is_given(json)) return HR_OK;
    hr_flag_value value;
    hr_status status = hr_flag_part__value(b, json, &value);
    if (status != HR_OK) return status;
    targeting->json = value.json;
    status = hr_condition_compile(&b->conditions, json, true, &targeting->condition, b->err);
    if (status != HR_OK) hr_error_prefix(b->err, "%s", b->where);
    return status;
}

/* ---- Prerequisites ---- */

/* Its condition knows no saved groups: the specification gives it none. */
static hr_status prerequisite_condition(hr_flag_builder *b, const json_t *json,
                                        hr_prerequisite *prerequisite) {
    if (!is_given(json)) return HR_OK;
    const json_t *saved_groups = b->conditions.saved_groups;
    b->conditions.saved_groups = NULL;
    hr_status status = hr_condition_compile(&b->conditions, json, false, &prerequisite->condition, b->err);
    b->conditions.saved_groups = saved_groups;
    if (status != HR_OK) hr_error_prefix(b->err, "%s: parentConditions", b->where);
    return status;
}

static hr_status compile_prerequisite(hr_flag_builder *b, const json_t *json, hr_prerequisite *prerequisite) {
    const char *id = json_string_value(json_object_get(json, "id"));
    if (id == NULL) {
        hr_status status = hr_flag_builder__problem(b, "parentConditions: expected an object with an id");
        if (status != HR_OK) return status;
        id = "";
    }
    prerequisite->gate = is_given(json_object_get(json, "gate"));
    hr_status status = hr_flag_builder__feature(b, id, &prerequisite->feature);
    if (status != HR_OK) return status;
    return prerequisite_condition(b, json_object_get(json, "condition"), prerequisite);
}

hr_status hr_flag_part__prerequisites(hr_flag_builder *b, const json_t *object, uint32_t *n,
                                      const hr_prerequisite **prerequisites) {
    const json_t *json = json_object_get(object, "parentConditions");
    if (!is_given(json)) return HR_OK;
    if (!json_is_array(json)) return hr_flag_builder__problem(b, "parentConditions: expected a list");
    hr_prerequisite *made = hr_arena_calloc(b->arena, json_array_size(json), sizeof *made);
    if (made == NULL) return hr_flag_builder__no_room(b);
    *prerequisites = made;
    hr_status status = HR_OK;
    for (; *n < json_array_size(json) && status == HR_OK; ++*n)
        status = compile_prerequisite(b, json_array_get(json, *n), &made[*n]);
    return status;
}

/* ---- Ranges and weights ---- */

hr_status hr_flag_part__range(hr_flag_builder *b, const json_t *start, const json_t *end, const char *what,
                              hr_range *range) {
    *range = (hr_range){.start = NAN, .end = NAN};
    if (!json_is_number(start) || !json_is_number(end))
        return hr_flag_builder__problem(b, "%s: expected [start, end]", what);
    *range = (hr_range){.start = json_number_value(start), .end = json_number_value(end)};
    if (range->start >= 0 && range->start <= range->end && range->end <= 1) return HR_OK;
    return hr_flag_builder__problem(b, "%s: expected 0 <= start <= end <= 1, found [%g, %g]", what,
                                    range->start, range->end);
}

static int by_start(const void *a, const void *b) {
    const hr_range *x = a, *y = b;
    if (x->start != y->start) return x->start < y->start ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* Ranges that overlap: who is in two of them gets the first, which is not what either says. */
static hr_status check_overlaps(hr_flag_builder *b, const char *what, const hr_range *ranges, size_t n) {
    hr_range *sorted = calloc(n == 0 ? 1 : n, sizeof *sorted);
    if (sorted == NULL) return hr_error_set(b->err, HR_OUT_OF_MEMORY, "no memory for experiments");
    size_t n_sorted = 0;
    for (size_t i = 0; i < n; i++)
        if (ranges[i].start < ranges[i].end) sorted[n_sorted++] = ranges[i];
    qsort(sorted, n_sorted, sizeof *sorted, by_start);
    hr_status status = HR_OK;
    for (size_t i = 0; i + 1 < n_sorted && status == HR_OK; i++)
        if (sorted[i].end > sorted[i + 1].start)
            status = hr_flag_builder__problem(b, "%s: [%g, %g] and [%g, %g] overlap", what, sorted[i].start,
                                              sorted[i].end, sorted[i + 1].start, sorted[i + 1].end);
    free(sorted);
    return status;
}

hr_status hr_flag_part__ranges(hr_flag_builder *b, const json_t *json, const char *what, uint32_t *n,
                               const hr_range **ranges) {
    *n = 0;
    if (!json_is_array(json)) return hr_flag_builder__problem(b, "%s: expected a list of [start, end]", what);
    hr_range *made = hr_arena_calloc(b->arena, json_array_size(json), sizeof *made);
    if (made == NULL) return hr_flag_builder__no_room(b);
    *ranges = made;
    hr_status status = HR_OK;
    for (; *n < json_array_size(json) && status == HR_OK; ++*n) {
        const json_t *range = json_array_get(json, *n);
        char place[64];
        snprintf(place, sizeof place, "%s[%u]", what, (unsigned)*n);
        status = hr_flag_part__range(b, json_array_get(range, 0), json_array_get(range, 1), place, &made[*n]);
    }
    return status == HR_OK ? check_overlaps(b, what, made, *n) : status;
}

hr_status hr_flag_part__weights(hr_flag_builder *b, const json_t *json, const char *what, uint32_t *n,
                                const double **weights) {
    *n = 0;
    *weights = NULL;
    if (!is_given(json)) return HR_OK;
    size_t size = json_array_size(json);
    double *made = hr_arena_calloc(b->arena, size, sizeof *made);
    if (made == NULL) return hr_flag_builder__no_room(b);
    for (size_t i = 0; i < size; i++) {
        made[i] = json_number_value(json_array_get(json, i));
        if (!json_is_number(json_array_get(json, i)) || made[i] < 0)
            return hr_flag_builder__problem(b, "%s[%zu]: expected a number of at least 0", what, i);
    }
    if (!json_is_array(json)) return hr_flag_builder__problem(b, "%s: expected a list of numbers", what);
    *n = (uint32_t)size;
    *weights = made;
    return HR_OK;
}

/* ---- Filters ---- */

static hr_status compile_filter(hr_flag_builder *b, const json_t *json, hr_filter *filter) {
    const char *attribute = NULL, *seed = NULL;
    int version;
    hr_status status = hr_flag_part__text(b, json, "attribute", "id", &attribute);
    if (status == HR_OK) status = hr_flag_part__text(b, json, "seed", "", &seed);
    if (status == HR_OK) status = hr_flag_part__hash_version(b, json, 2, &version);
    if (status == HR_OK) status = hr_flag_builder__hash(b, attribute, version, seed, &filter->hash);
    if (status != HR_OK) return status;
    return hr_flag_part__ranges(b, json_object_get(json, "ranges"), "filters: ranges", &filter->n_ranges,
                                &filter->ranges);
}

hr_status hr_flag_part__filters(hr_flag_builder *b, const json_t *object, hr_filters *filters) {
    const json_t *json = json_object_get(object, "filters");
    if (!is_given(json)) return HR_OK;
    filters->present = true;
    if (!json_is_array(json)) return hr_flag_builder__problem(b, "filters: expected a list");
    hr_filter *made = hr_arena_calloc(b->arena, json_array_size(json), sizeof *made);
    if (made == NULL) return hr_flag_builder__no_room(b);
    filters->filters = made;
    hr_status status = HR_OK;
    for (; filters->n < json_array_size(json) && status == HR_OK; filters->n++)
        status = compile_filter(b, json_array_get(json, filters->n), &made[filters->n]);
    return status;
}
