/* Score fusion: see fusion.h. */
#include "model/fusion.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema/json_read.h"

typedef enum fusion_kind { WEIGHTED_SUM, POWER_PRODUCT } fusion_kind;

/* What the fusion says of one task. */
typedef struct fusion_term {
    bool named;           /* whether it says anything */
    double weight;        /* weighted_sum */
    double power, offset; /* power_product */
} fusion_term;

struct hr_fusion {
    fusion_kind kind;
    uint32_t n_tasks;
    fusion_term terms[]; /* (T), so that the order in which a fusion names its tasks changes no bit */
};

static hr_status find_task(const char *name, const hr_task *tasks, uint32_t n_tasks, const char *where,
                           uint32_t *task, hr_error *err) {
    for (uint32_t t = 0; t < n_tasks; t++) {
        if (strcmp(tasks[t].name, name) != 0) continue;
        *task = t;
        return HR_OK;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected a task of the network, found %s", where,
                        hr_quote(name, strlen(name)).text);
}

/* {"power": 1.0, "offset": 0.0} of a task whose output is never negative. */
static hr_status read_power(const json_t *value, const hr_task *task, fusion_term *term, hr_error *err) {
    static const char *const keys[] = {"power", "offset"};
    char where[HR_QUOTE_SIZE + 16];
    snprintf(where, sizeof where, "fusion: terms: %.56s", task->name);
    term->power = 1.0;
    term->offset = 0.0;
    if (task->output == HR_OUTPUT_IDENTITY) {
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "%s: expected a task with output sigmoid, softplus or exp, found identity",
                            where);
    }
    hr_status status = hr_json_check_keys(value, where, keys, sizeof keys / sizeof keys[0], err);
    if (status == HR_OK) status = hr_json_get_number(value, where, "power", false, &term->power, err);
    if (status == HR_OK) status = hr_json_get_number(value, where, "offset", false, &term->offset, err);
    if (status == HR_OK && term->offset < 0.0) {
        status = hr_json_expected(where, "offset", "a number >= 0", json_object_get(value, "offset"), err);
    }
    return status;
}

static hr_status read_terms(const json_t *terms, const hr_task *tasks, hr_fusion *fusion, hr_error *err) {
    const char *where = fusion->kind == WEIGHTED_SUM ? "fusion: weights" : "fusion: terms";
    const char *name;
    json_t *value;
    /* The iteration macros want a non-const object; nothing is changed. */
    json_object_foreach((json_t *)terms, name, value) {
        uint32_t task = 0;
        hr_status status = find_task(name, tasks, fusion->n_tasks, where, &task, err);
        if (status != HR_OK) return status;
        fusion_term *term = &fusion->terms[task];
        term->named = true;
        status = fusion->kind == WEIGHTED_SUM
                     ? hr_json_as_number(value, where, tasks[task].name, &term->weight, err)
                     : read_power(value, &tasks[task], term, err);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

hr_status hr_fusion_create(const json_t *value, const hr_task *tasks, uint32_t n_tasks, hr_fusion **fusion,
                           hr_error *err) {
    static const char *const kinds[] = {"weighted_sum", "power_product"}; /* as fusion_kind */
    static const char *const term_keys[] = {"weights", "terms"};
    *fusion = NULL;
    if (!json_is_object(value)) return hr_json_expected("fusion", NULL, "an object", value, err);
    unsigned kind = WEIGHTED_SUM;
    hr_status status = hr_json_get_choice(value, "fusion", "kind", true, kinds, 2, &kind, err);
    if (status != HR_OK) return status;
    const char *const keys[] = {"kind", term_keys[kind]};
    status = hr_json_check_keys(value, "fusion", keys, 2, err);
    if (status != HR_OK) return status;
    const json_t *terms = NULL;
    status = hr_json_get_object(value, "fusion", term_keys[kind], true, &terms, err);
    if (status != HR_OK) return status;
    hr_fusion *created = calloc(1, sizeof *created + n_tasks * sizeof created->terms[0]);
    if (created == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "fusion: out of memory");
    created->kind = (fusion_kind)kind;
    created->n_tasks = n_tasks;
    status = read_terms(terms, tasks, created, err);
    if (status != HR_OK) {
        hr_fusion_destroy(created);
        return status;
    }
    *fusion = created;
    return HR_OK;
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
