/* A program while it is compiled. Private to service/experiments. */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_PROGRAM_INTERNAL_H
#define HOMERANK_SERVICE_EXPERIMENTS_PROGRAM_INTERNAL_H

#include "service/experiments/program.h"

/* A list that grows; the elements are copied into the arena at the end. */
typedef struct hr_flag_list {
    void *elements; /* owned */
    size_t n, capacity, size;
} hr_flag_list;

typedef struct hr_flag_builder {
    const hr_flag_program_source *source;
    hr_arena *arena; /* the program's */
    hr_condition_builder conditions;
    hr_flag_list features;        /* of hr_flag */
    hr_flag_list experiments;     /* of hr_experiment * */
    hr_flag_list hashes;          /* of hr_hash_spec */
    hr_flag_list hash_attributes; /* of hr_js_text */
    size_t n_rules;
    uint32_t n_keys;
    const char *feature; /* at hand */
    bool strict;         /* of the feature at hand */
    char where[160];     /* "feature "x": rules[2]" */
    hr_error *err;
} hr_flag_builder;

hr_status hr_flag_builder__no_room(hr_flag_builder *b);

/* A problem of the payload at b->where: an error where the feature is strict, else a warning and OK. */
hr_status hr_flag_builder__problem(hr_flag_builder *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void hr_flag_builder__warn(hr_flag_builder *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

hr_status hr_flag_builder__push(hr_flag_builder *b, hr_flag_list *list, const void *element);

/* The number of the feature, which is compiled sooner or later. */
hr_status hr_flag_builder__feature(hr_flag_builder *b, const char *name, uint32_t *index);

/* The numbers of a hash attribute, and of a hash; HR_NO_HASH for a version that is not known. */
hr_status hr_flag_builder__hash_attribute(hr_flag_builder *b, const char *name, uint32_t *index);
hr_status hr_flag_builder__hash(hr_flag_builder *b, const char *attribute, int version, const char *seed,
                                int32_t *index);

/* ---- Parts of rules and experiments (program_parts.c) ---- */

/* A member's text; the fallback where it is absent or false to JavaScript. */
hr_status hr_flag_part__text(hr_flag_builder *b, const json_t *object, const char *key, const char *fallback,
                             const char **text);
hr_status hr_flag_part__number(hr_flag_builder *b, const json_t *object, const char *key, bool *present,
                               double *number);
/* 1 or 2; 0 of one that is not known. */
hr_status hr_flag_part__hash_version(hr_flag_builder *b, const json_t *object, int fallback, int *version);
hr_status hr_flag_part__value(hr_flag_builder *b, const json_t *json, hr_flag_value *value);
hr_status hr_flag_part__targeting(hr_flag_builder *b, const json_t *object, hr_targeting *targeting);
hr_status hr_flag_part__prerequisites(hr_flag_builder *b, const json_t *object, uint32_t *n,
                                      const hr_prerequisite **prerequisites);
hr_status hr_flag_part__range(hr_flag_builder *b, const json_t *start, const json_t *end, const char *what,
                              hr_range *range);
hr_status hr_flag_part__ranges(hr_flag_builder *b, const json_t *json, const char *what, uint32_t *n,
                               const hr_range **ranges);
hr_status hr_flag_part__weights(hr_flag_builder *b, const json_t *json, const char *what, uint32_t *n,
                                const double **weights);
hr_status hr_flag_part__filters(hr_flag_builder *b, const json_t *object, hr_filters *filters);

/* ---- Experiments (program_experiment.c) ---- */

/* Of a rule, with the feature's name as its default key, or of an experiment by itself. */
hr_status hr_experiment__compile(hr_flag_builder *b, const json_t *json, const json_t *variations,
                                 const char *default_key, hr_experiment **experiment);

#endif
