/* Score fusion: see fusion.h. */
#include "model/fusion.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema/json_read.h"

typedef enum fusion_kind { WEIGHTED_SUM, POWER_PRODUCT } fusion_kind;

static const char *const TERM_KEYS[] = {"weights", "terms"}; /* by fusion_kind */

/* What a fusion says of one task. */
typedef struct fusion_term {
    bool named;           /* whether it says anything */
    double weight;        /* weighted_sum */
    double power, offset; /* power_product */
} fusion_term;

typedef struct named_term {
    char *task; /* owned */
    fusion_term term;
} named_term;

struct hr_fusion_spec {
    fusion_kind kind;
    size_t n_terms;
    named_term terms[]; /* (n_terms) */
};

struct hr_fusion {
    fusion_kind kind;
    uint32_t n_tasks;
    fusion_term terms[]; /* (T), so that the order in which a fusion names its tasks changes no bit */
};

/* ---- As it is written ---- */

/* {"power": 1.0, "offset": 0.0} */
static hr_status read_power(const json_t *value, const char *task, fusion_term *term, hr_error *err) {
    static const char *const keys[] = {"power", "offset"};
    char where[HR_QUOTE_SIZE + 16];
    snprintf(where, sizeof where, "fusion: terms: %.56s", task);
    term->power = 1.0;
    term->offset = 0.0;
    hr_status status = hr_json_check_keys(value, where, keys, sizeof keys / sizeof keys[0], err);
    if (status == HR_OK) status = hr_json_get_number(value, where, "power", false, &term->power, err);
    if (status == HR_OK) status = hr_json_get_number(value, where, "offset", false, &term->offset, err);
    if (status == HR_OK && term->offset < 0.0) {
        status = hr_json_expected(where, "offset", "a number >= 0", json_object_get(value, "offset"), err);
    }
    return status;
}

static hr_status read_terms(const json_t *terms, hr_fusion_spec *spec, hr_error *err) {
    const char *task;
    json_t *value;
    hr_status status = HR_OK;
    /* The iteration macros want a non-const object; nothing is changed. */
    json_object_foreach((json_t *)terms, task, value) {
        named_term *named = &spec->terms[spec->n_terms++];
        named->term.named = true;
        named->task = strdup(task);
        if (named->task == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "fusion: out of memory");
        status = spec->kind == WEIGHTED_SUM
                     ? hr_json_as_number(value, "fusion: weights", task, &named->term.weight, err)
                     : read_power(value, task, &named->term, err);
        if (status != HR_OK) break;
    }
    return status;
}

hr_status hr_fusion_spec_create(const json_t *value, hr_fusion_spec **spec, hr_error *err) {
    static const char *const kinds[] = {"weighted_sum", "power_product"}; /* as fusion_kind */
    *spec = NULL;
    if (!json_is_object(value)) return hr_json_expected("fusion", NULL, "an object", value, err);
    unsigned kind = WEIGHTED_SUM;
    hr_status status = hr_json_get_choice(value, "fusion", "kind", true, kinds, 2, &kind, err);
    if (status != HR_OK) return status;
    const char *const keys[] = {"kind", TERM_KEYS[kind]};
    status = hr_json_check_keys(value, "fusion", keys, 2, err);
    if (status != HR_OK) return status;
    const json_t *terms = NULL;
    status = hr_json_get_object(value, "fusion", TERM_KEYS[kind], true, &terms, err);
    if (status != HR_OK) return status;
    hr_fusion_spec *created = calloc(1, sizeof *created + json_object_size(terms) * sizeof created->terms[0]);
    if (created == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "fusion: out of memory");
    created->kind = (fusion_kind)kind;
    status = read_terms(terms, created, err);
    if (status != HR_OK) {
        hr_fusion_spec_destroy(created);
        return status;
    }
    *spec = created;
    return HR_OK;
}

void hr_fusion_spec_destroy(hr_fusion_spec *spec) {
    if (spec == NULL) return;
    for (size_t i = 0; i < spec->n_terms; i++) free(spec->terms[i].task);
    free(spec);
}

/* ---- For a network ---- */

static hr_status bind_term(const named_term *named, fusion_kind kind, const hr_task *tasks, uint32_t n_tasks,
                           fusion_term *terms, hr_error *err) {
    const char *task = named->task;
    uint32_t t = 0;
    while (t < n_tasks && strcmp(tasks[t].name, task) != 0) t++;
    if (t == n_tasks)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "fusion: %s: expected a task of the network, found %s",
                            TERM_KEYS[kind], hr_quote(task, strlen(task)).text);
    if (kind == POWER_PRODUCT && tasks[t].output == HR_OUTPUT_IDENTITY) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "fusion: terms: %.56s: expected a task with output sigmoid, softplus or exp, "
                            "found identity",
                            task);
    }
    terms[t] = named->term;
    return HR_OK;
}

/* Fills a fusion that is all zero. */
static hr_status bind(const hr_fusion_spec *spec, const hr_task *tasks, uint32_t n_tasks, hr_fusion *fusion,
                      hr_error *err) {
    hr_status status = HR_OK;
    fusion->kind = spec->kind;
    fusion->n_tasks = n_tasks;
    for (size_t i = 0; i < spec->n_terms && status == HR_OK; i++)
        status = bind_term(&spec->terms[i], spec->kind, tasks, n_tasks, fusion->terms, err);
    return status;
}

static size_t fusion_nbytes(uint32_t n_tasks) {
    return sizeof(hr_fusion) + n_tasks * sizeof(fusion_term);
}

hr_status hr_fusion_bind(const hr_fusion_spec *spec, const hr_task *tasks, uint32_t n_tasks, hr_arena *arena,
                         const hr_fusion **fusion, hr_error *err) {
    hr_fusion *bound = hr_arena_calloc(arena, 1, fusion_nbytes(n_tasks));
    *fusion = bound;
    if (bound == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the fusion exceeds the request's memory cap");
    return bind(spec, tasks, n_tasks, bound, err);
}

hr_status hr_fusion_create(const json_t *value, const hr_task *tasks, uint32_t n_tasks, hr_fusion **fusion,
                           hr_error *err) {
    *fusion = NULL;
    hr_fusion_spec *spec;
    hr_status status = hr_fusion_spec_create(value, &spec, err);
    if (spec == NULL) return status;
    hr_fusion *created = calloc(1, fusion_nbytes(n_tasks));
    status = created == NULL ? hr_error_set(err, HR_OUT_OF_MEMORY, "fusion: out of memory")
                             : bind(spec, tasks, n_tasks, created, err);
    hr_fusion_spec_destroy(spec);
    if (status == HR_OK)
        *fusion = created;
    else
        hr_fusion_destroy(created);
    return status;
}

void hr_fusion_destroy(hr_fusion *fusion) {
    free(fusion);
}

double hr_fusion_score(const hr_fusion *fusion, const double *outputs) {
    double score = fusion->kind == WEIGHTED_SUM ? 0.0 : 1.0;
    for (uint32_t t = 0; t < fusion->n_tasks; t++) {
        const fusion_term *term = &fusion->terms[t];
        if (!term->named) continue;
        if (fusion->kind == WEIGHTED_SUM) {
            score += term->weight * outputs[t];
        } else {
            score *= pow(term->offset + outputs[t], term->power);
        }
    }
    return score;
}
