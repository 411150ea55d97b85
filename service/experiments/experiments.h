/* Experiments: which model, fusion and tasks rank a user's request, and whether a second model scores it in
 * the shadow (docs/experiments.md).
 *
 * The file is a GrowthBook SDK payload. Its feature `ranking` holds the value {"model", "fusion", "tasks",
 * "shadow"}; each key may also come from a feature of its own (`ranking.model`, ...), which then wins, so
 * that independent experiments run side by side. The file is compiled once, into an immutable program that
 * any thread may ask; deciding allocates in the caller's arena only.
 */
#ifndef HOMERANK_SERVICE_EXPERIMENTS_EXPERIMENTS_H
#define HOMERANK_SERVICE_EXPERIMENTS_EXPERIMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/status.h"
#include "model/fusion.h"
#include "service/experiments/forced_variation.h"

typedef struct hr_experiments hr_experiments;

enum { HR_EXPERIMENTS_MAX_NBYTES = 32 << 20, HR_EXPERIMENTS_VERSION_SIZE = 17 };

typedef struct hr_experiments_options {
    const char
        *feature; /* "ranking"; the features of single keys are named after it. Borrowed for the call */
    /* (optional) Whether what a value asks for can be served: a model (NULL: the default one), and with it a
     * fusion (NULL: its own) and tasks. Called for every combination that the file makes possible; a failure
     * refuses the file. */
    hr_status (*check)(void *arg, const char *model, const hr_fusion_spec *fusion, const char *const *tasks,
                       size_t n_tasks, hr_error *err);
    void *check_arg;
    /* (optional) Told what the file says that is not understood, or cannot be what was meant; else the log
     * is. */
    void (*warn)(void *arg, const char *what);
    void *warn_arg;
} hr_experiments_options;

/* Reads a file. Its errors name the file, the feature and the rule: NOT_FOUND, IO, INVALID_ARGUMENT (too
 * large, not JSON, a bad ranking value, an experiment of a ranking feature whose weights do not add up, ...),
 * those of `check`, RESOURCE_EXHAUSTED, OUT_OF_MEMORY. */
hr_status hr_experiments_load(const char *path, const hr_experiments_options *options,
                              hr_experiments **experiments, hr_error *err);

/* The same from its text; errors have no file's name. */
hr_status hr_experiments_parse(const char *text, size_t nbytes, const hr_experiments_options *options,
                               hr_experiments **experiments, hr_error *err);

/* One reference is the loader's. Any thread. NULL is allowed. */
hr_experiments *hr_experiments_ref(hr_experiments *experiments);
void hr_experiments_unref(hr_experiments *experiments);

/* The hash of the file's bytes (XXH64, 16 hexadecimal digits): what exposures name. */
const char *hr_experiments_version(const hr_experiments *experiments);

/* ---- Deciding ---- */

/* A request's attributes, read once. */
typedef struct hr_js_value hr_experiments_attributes;

/* text is NUL-terminated and must outlive the attributes; "" gives NULL, for none. Errors: INVALID_ARGUMENT
 * (not a JSON object, nested too deep), RESOURCE_EXHAUSTED. */
hr_status hr_experiments_read_attributes(const char *text, hr_arena *arena,
                                         const hr_experiments_attributes **attributes, hr_error *err);

/* Who asks. All of it is borrowed and must outlive the decision. */
typedef struct hr_experiments_subject {
    const char *user_id; /* the attributes "id" and "user_id", where attributes has none of its own */
    const hr_experiments_attributes *attributes; /* NULL: none */
    const hr_forced_variation *forced;           /* (n_forced) whoever may force variations */
    size_t n_forced;
    bool may_force; /* a query of the attribute "url" forces variations too */
    bool has_tasks; /* the request names its tasks: what experiments say of them is not asked */
    uint64_t draw;  /* of this request: what chooses those that are shadowed */
} hr_experiments_subject;

/* An experiment that the user is in. Borrowed from the experiments and the arena. */
typedef struct hr_assigned {
    const char *experiment; /* its key */
    const char *feature;
    const char *variation_key;
    uint32_t variation;
    double bucket; /* in [0, 1); -1 where the variation was forced */
} hr_assigned;

/* NULL and 0 where no experiment says anything. Borrowed from the experiments and the arena. */
typedef struct hr_decision {
    const char *model; /* name, name@version or name:label */
    const hr_fusion_spec *fusion;
    const char *const *tasks; /* (n_tasks) */
    size_t n_tasks;
    const char *shadow_model;    /* this request is one of those it scores too */
    const hr_assigned *assigned; /* (n_assigned) each experiment once, in the order they were asked */
    size_t n_assigned;
} hr_decision;

/* Errors: RESOURCE_EXHAUSTED (the arena). */
hr_status hr_experiments_decide(const hr_experiments *experiments, const hr_experiments_subject *subject,
                                hr_arena *arena, hr_decision *decision, hr_error *err);

#endif
