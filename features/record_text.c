/* Texts of a hash record's fields: see record_text.h. */
#include "features/record_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_SIZE = 32 };

/* An empty text for what is not finite: a missing element of a list. */
static size_t format_number(double x, char text[NUMBER_SIZE]) {
    text[0] = '\0';
    for (int digits = 15; digits <= 17 && isfinite(x); digits++) {
        int n = snprintf(text, NUMBER_SIZE, "%.*g", digits, x);
        if (strtod(text, NULL) == x) return (size_t)n;
    }
    return 0;
}

static hr_status out_of_room(hr_error *err) {
    return hr_error_set(err, HR_INVALID_ARGUMENT, "the record is too large");
}

static hr_status text_of_ids(const Homerank__V1__IdList *ids, hr_arena *arena, const char **text,
                             hr_error *err) {
    size_t nbytes = 0;
    if (ids->n_values == 1 && ids->values[0][0] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "layout hash cannot hold a list of one empty text");
    for (size_t i = 0; i < ids->n_values; i++) {
        if (strchr(ids->values[i], ',') != NULL)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "element %zu: layout hash cannot hold the comma in %s", i,
                                hr_quote(ids->values[i], strlen(ids->values[i])).text);
        nbytes += strlen(ids->values[i]) + 1;
    }
    char *at = hr_arena_alloc(arena, nbytes + 1);
    if (at == NULL) return out_of_room(err);
    if (ids->n_values > 0) *text = at;
    for (size_t i = 0; i < ids->n_values; i++) {
        if (i > 0) *at++ = ',';
        at = stpcpy(at, ids->values[i]);
    }
    return HR_OK;
}

static hr_status text_of_numbers(const Homerank__V1__NumberList *numbers, hr_arena *arena, const char **text,
                                 hr_error *err) {
    char *at = hr_arena_calloc(arena, numbers->n_values + 1, NUMBER_SIZE);
    if (at == NULL) return out_of_room(err);
    if (numbers->n_values > 0) *text = at;
    for (size_t i = 0; i < numbers->n_values; i++) {
        if (i > 0) *at++ = ',';
        at += format_number(numbers->values[i], at);
    }
    return HR_OK;
}

hr_status hr_record_text(const Homerank__V1__FeatureValue *value, hr_arena *arena, const char **text,
                         hr_error *err) {
    char number[NUMBER_SIZE];
    size_t n;
    *text = NULL;
    switch (value->kind_case) {
    case HOMERANK__V1__FEATURE_VALUE__KIND_ID: *text = value->id; return HR_OK;
    case HOMERANK__V1__FEATURE_VALUE__KIND_IDS: return text_of_ids(value->ids, arena, text, err);
    case HOMERANK__V1__FEATURE_VALUE__KIND_NUMBERS: return text_of_numbers(value->numbers, arena, text, err);
    case HOMERANK__V1__FEATURE_VALUE__KIND_NUMBER:
        n = format_number(value->number, number);
        if (n == 0) return HR_OK;
        *text = hr_arena_strndup(arena, number, n);
        return *text != NULL ? HR_OK : out_of_room(err);
    default: return HR_OK;
    }
}
