/* The features of a GrowthBook SDK payload, compiled: rules, experiments, conditions. Private to
 * service/experiments.
 *
 * Only the features asked for are compiled, with those that they need as prerequisites. A program is
 * immutable once made; any thread may evaluate it (evaluate.h). What it points to lies in its arena.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_PROGRAM_H
#define HOMERANK_SERVICE_EXPERIMENTS_PROGRAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "service/experiments/bucketing.h"
#include "service/experiments/condition.h"
#include "service/experiments/js_value.h"

enum { HR_NO_HASH = -1, HR_MAX_FEATURES = 10000, HR_MAX_RULES = 10000, HR_MAX_VARIATIONS = 1000 };

/* One hash of one attribute: its bucket is computed once a request, however many rules ask for it. */
typedef struct hr_hash_spec {
    uint32_t attribute; /* of hr_flag_program.hash_attributes */
    int version;        /* 1 or 2 */
    hr_js_text seed;
    uint32_t state;   /* of version 2: behind the seed */
    uint32_t n_alike; /* 1 to HR_HASH_LANES: this one and those behind it of the same attribute and version */
} hr_hash_spec;

/* What a rule may give its feature. */
typedef struct hr_flag_value {
    const hr_js_value *json;
    const void *meaning; /* borrowed; set by whoever gives the feature one (ranking_value.h); else NULL */
} hr_flag_value;

typedef struct hr_prerequisite {
    uint32_t feature;
    const hr_condition *condition; /* of {"value": ...}; NULL: none */
    bool gate;
} hr_prerequisite;

typedef struct hr_filter {
    int32_t hash; /* HR_NO_HASH: it lets nobody in */
    uint32_t n_ranges;
    const hr_range *ranges; /* (n_ranges) */
} hr_filter;

typedef struct hr_filters {
    bool present; /* an empty list is one */
    uint32_t n;
    const hr_filter *filters; /* (n) */
} hr_filters;

typedef struct hr_targeting {
    const hr_condition *condition; /* NULL: everybody */
    const hr_js_value *json;       /* as it was written */
} hr_targeting;

typedef struct hr_variation {
    hr_flag_value value;
    const char *key;  /* of the meta, or its index */
    const char *name; /* "" : none */
    bool passthrough; /* of a holdout: in the experiment, and on to the next rule */
} hr_variation;

/* A contextual bandit's weights for those that meet its condition. */
typedef struct hr_bandit_leaf {
    hr_targeting targeting; /* unused of the fallback */
    double leaf_id;         /* -1: the fallback */
    uint32_t n_weights, n_ranges;
    const double *weights;
    const hr_range *ranges;
    const hr_bucket_span *spans; /* (n_ranges) the same; NULL where the experiment has no hash */
} hr_bandit_leaf;

typedef struct hr_bandit {
    bool has_version;
    double version;
    uint32_t n_leaves;
    const hr_bandit_leaf *leaves; /* (n_leaves) the first that fits */
    hr_bandit_leaf fallback;
} hr_bandit;

/* What every request asks stands first, together. */
typedef struct hr_experiment {
    uint32_t n_variations;
    uint32_t hash_attribute;
    int32_t hash; /* HR_NO_HASH: of an unknown version */
    uint32_t n_ranges;
    const hr_bucket_span *spans; /* (n_ranges) of the ranges; NULL where there is no hash */
    bool takes_most;             /* the ranges have at least half of the buckets */
    bool inactive, stopped, has_force;
    int32_t namespace_hash;
    const char *namespace_id; /* NULL: none */
    hr_targeting targeting;
    const hr_bandit *bandit; /* NULL: an experiment like any other */
    hr_filters filters;
    uint32_t n_prerequisites;
    uint32_t key_index;                   /* the same of experiments with one key */
    const hr_prerequisite *prerequisites; /* (n_prerequisites) only where it is run by itself */
    hr_range namespace_range;
    hr_variation *variations; /* (n_variations) */
    uint32_t index;           /* of hr_flag_program.experiments */
    int32_t force;
    const char *key, *name, *phase; /* name, phase: "" where there is none */
    const char *feature;            /* whose rule it is; "" of one by itself */
    const hr_range *ranges;         /* (n_ranges) */
    double coverage;
    uint32_t n_weights;
    const double *weights; /* (n_weights) as given, NULL: none */
} hr_experiment;

typedef struct hr_rule {
    enum { HR_RULE_SKIP, HR_RULE_FORCE, HR_RULE_EXPERIMENT } kind;
    uint32_t n_prerequisites;
    hr_experiment *experiment; /* of EXPERIMENT */
    hr_filters filters;
    const hr_prerequisite *prerequisites; /* (n_prerequisites) */
    const char *id;                       /* "" : none */
    /* Of FORCE: */
    hr_flag_value force;
    hr_targeting targeting;
    bool has_range, has_coverage;
    int32_t hash;
    hr_range range;
    double coverage;
} hr_rule;

typedef struct hr_flag {
    const char *name;
    bool known; /* in the payload */
    hr_flag_value fallback;
    uint32_t n_rules;
    hr_rule *rules; /* (n_rules) */
} hr_flag;

typedef struct hr_flag_program {
    hr_arena *arena;
    uint32_t n_features, n_experiments, n_keys, n_hashes, n_hash_attributes, n_paths;
    hr_flag *features;                 /* (n_features) those asked for first, in their order */
    hr_experiment *const *experiments; /* (n_experiments) */
    const hr_hash_spec *hashes;        /* (n_hashes) */
    const hr_js_text *hash_attributes; /* (n_hash_attributes) */
    const hr_path *const *paths;       /* (n_paths) */
    struct hr_regex_node *regexes;     /* owned */
} hr_flag_program;

typedef struct hr_flag_program_source {
    const json_t *payload;       /* an object: "features", "savedGroups", "contextualBandits" */
    const char *const *features; /* (n_features) those to compile */
    size_t n_features;
    const json_t *experiment; /* to be run by itself; NULL: none. It becomes experiments[0] */
    bool strict;              /* what would make an experiment of those features another than it says (weights
                                 that do not add up, overlapping ranges) is an error, not a warning */
    void (*warn)(void *arg, const char *what);
    void *warn_arg;
    size_t memory_nbytes; /* the arena's cap */
} hr_flag_program_source;

/* The source is borrowed for the call. Errors: INVALID_ARGUMENT naming feature and rule; RESOURCE_EXHAUSTED,
 * OUT_OF_MEMORY. */
hr_status hr_flag_program_create(const hr_flag_program_source *source, hr_flag_program **program,
                                 hr_error *err);
void hr_flag_program_destroy(hr_flag_program *program); /* NULL is allowed */

#endif
