/* Evaluating a program's features for one request, by the GrowthBook SDK's specification (evalFeature, run).
 * Private to service/experiments.
 *
 * An evaluation belongs to one thread and allocates from its arena only; the program and all inputs are
 * borrowed and must outlive it, and so must what its results point to.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_EVALUATE_H
#define HOMERANK_SERVICE_EXPERIMENTS_EVALUATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "service/experiments/forced_variation.h"
#include "service/experiments/program.h"

/* X(name, what `explain` says) */
#define HR_REASON_MAP(X)                                                                                     \
    X(UNKNOWN_FEATURE, "no such feature")                                                                    \
    X(CYCLE, "a cycle of prerequisites: the feature has no value")                                           \
    X(GATED, "blocked by a prerequisite: the feature has no value")                                          \
    X(PREREQUISITE, "skipped: a prerequisite does not hold")                                                 \
    X(FILTERED, "skipped: outside its filters")                                                              \
    X(CONDITION, "skipped: its condition does not hold")                                                     \
    X(ROLLOUT, "skipped: outside its share")                                                                 \
    X(GATE_OPEN, "passed: its prerequisites hold")                                                           \
    X(NO_KIND, "skipped: neither force nor variations")                                                      \
    X(FORCED_VALUE, "applies: gives its value")                                                              \
    X(DEFAULT_VALUE, "no rule applies: the default value")                                                   \
    X(TOO_FEW_VARIATIONS, "not in: fewer than two variations")                                               \
    X(DISABLED, "not in: experiments are disabled")                                                          \
    X(URL_FORCED, "in: the variation is forced by the url")                                                  \
    X(REQUEST_FORCED, "the variation is forced by the request")                                              \
    X(INACTIVE, "not in: inactive")                                                                          \
    X(NO_HASH_VALUE, "not in: the hash attribute is empty")                                                  \
    X(OUTSIDE_FILTERS, "not in: outside its filters")                                                        \
    X(OUTSIDE_NAMESPACE, "not in: outside its part of the namespace")                                        \
    X(NOT_TARGETED, "not in: its condition does not hold")                                                   \
    X(NOT_PREREQUISITE, "not in: a prerequisite does not hold")                                              \
    X(HASH_VERSION, "not in: an unknown hash version")                                                       \
    X(NOT_COVERED, "not in: the bucket is in no variation's range")                                          \
    X(EXPERIMENT_FORCED, "the variation is forced by the experiment")                                        \
    X(QA_MODE, "not in: QA mode")                                                                            \
    X(STOPPED, "not in: stopped")                                                                            \
    X(ASSIGNED, "in: by its bucket")                                                                         \
    X(PASSED_THROUGH, "in, and on to the next rule (a holdout)")

typedef enum hr_reason {
#define HR_REASON_ENUM(name, text) HR_REASON_##name,
    HR_REASON_MAP(HR_REASON_ENUM)
#undef HR_REASON_ENUM
} hr_reason;

const char *hr_reason_text(hr_reason reason);

typedef struct hr_run {
    const hr_experiment *experiment;
    hr_reason reason;
    uint32_t variation; /* 0 where not in the experiment */
    bool in_experiment;
    bool hash_used;
    uint32_t bucket;            /* its number, where hash_used or NOT_COVERED */
    const hr_bandit_leaf *leaf; /* whose weights assign; NULL: no contextual bandit */
} hr_run;

typedef enum hr_flag_source {
    HR_FLAG_SOURCE_UNKNOWN_FEATURE,
    HR_FLAG_SOURCE_DEFAULT_VALUE,
    HR_FLAG_SOURCE_FORCE,
    HR_FLAG_SOURCE_EXPERIMENT,
    HR_FLAG_SOURCE_PREREQUISITE,
    HR_FLAG_SOURCE_CYCLIC_PREREQUISITE
} hr_flag_source;

typedef struct hr_flag_result {
    enum { HR_RESULT_NONE, HR_RESULT_UNDER_WAY, HR_RESULT_DONE } state;
    hr_flag_source source;
    const hr_flag_value *value;
    const hr_rule *rule; /* FORCE, EXPERIMENT; else NULL */
    const hr_run *run;   /* EXPERIMENT; else NULL */
} hr_flag_result;

/* What is told of each rule that is looked at, in order; rule and run may be NULL. */
typedef struct hr_trace {
    void (*step)(void *arg, const hr_flag *feature, const hr_rule *rule, const hr_run *run, hr_reason reason);
    void *arg;
} hr_trace;

typedef struct hr_subject {
    const hr_js_value *attributes;     /* an object; NULL: none */
    const char *user_id;               /* "id" and "user_id" where the attributes lack them; NULL: none */
    const hr_forced_variation *forced; /* (n_forced) */
    size_t n_forced;
    hr_js_text url; /* whose query may force variations; empty: none */
    bool disabled, qa_mode;
} hr_subject;

/* An attribute that is hashed: its text, and the state of version 1's hash behind it. */
typedef struct hr_hash_value {
    bool known;      /* the rest was looked up */
    bool present;    /* and is not false to JavaScript: there is something to hash */
    hr_js_text text; /* which may be empty, of an empty list */
    uint32_t state;
} hr_hash_value;

typedef struct hr_evaluation {
    const hr_flag_program *program;
    hr_subject subject;
    hr_js_scratch scratch;
    hr_attributes attributes;
    hr_js_value user_id;
    hr_hash_value *hash_values; /* (n_hash_attributes) */
    uint32_t *buckets;          /* (n_hashes) */
    hr_flag_result *results;    /* (n_features) */
    hr_run *runs;               /* (n_runs) of the experiments looked at, in order; room for all */
    uint32_t n_runs;
    int depth;
    const hr_trace *trace; /* NULL: nobody listens */
} hr_evaluation;

/* False where the arena is full. */
bool hr_evaluation_begin(hr_evaluation *evaluation, const hr_flag_program *program, const hr_subject *subject,
                         hr_arena *arena, const hr_trace *trace);

/* evalFeature. Each feature is evaluated once; the result is of the evaluation. Where scratch.failed is set
 * afterwards, no result is to be used. */
const hr_flag_result *hr_evaluate_flag(hr_evaluation *evaluation, uint32_t feature);

/* run: of an experiment that no rule has. */
const hr_run *hr_evaluate_experiment(hr_evaluation *evaluation, const hr_experiment *experiment);

/* Where the run's bucket lies between 0 and 1; -1 where it was not assigned by one. */
double hr_run_place(const hr_evaluation *evaluation, const hr_run *run);

/* The text of the attribute that an experiment hashes; empty where there is none. */
hr_js_text hr_evaluation_hash_text(hr_evaluation *evaluation, uint32_t hash_attribute);

/* getQueryStringOverride: the variation that the url's query gives the experiment; -1: none. */
int hr_url_variation(const char *experiment, hr_js_text url, uint32_t n_variations);

#endif
