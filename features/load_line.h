/* One line of records: {"entity":"user"|"item","id":"...","features":{...}}. Private to features/. */
#ifndef HOMERANK_FEATURES_LOAD_LINE_H
#define HOMERANK_FEATURES_LOAD_LINE_H

#include "base/arena.h"
#include "base/status.h"
#include "proto/homerank.pb-c.h"
#include "schema/schema.h"

/* All of it lies in the arena. */
typedef struct hr_load_line {
    hr_entity entity;
    const char *id;
    const Homerank__V1__FeatureMap *features;
} hr_load_line;

/* Errors: INVALID_ARGUMENT naming the key, what was expected and found; also where the arena is full. */
hr_status hr_load_line_parse(const char *text, size_t nbytes, hr_arena *arena, hr_load_line *line,
                             hr_error *err);

/* "user" or "item". Errors: INVALID_ARGUMENT. */
hr_status hr_load_entity_parse(const char *name, hr_entity *entity, hr_error *err);

#endif
