/* Deciding what ranks a request: see experiments.h. */
#include <string.h>

#include "service/experiments/experiments_internal.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

hr_status hr_experiments_read_attributes(const char *text, hr_arena *arena,
                                         const hr_experiments_attributes **attributes, hr_error *err) {
    *attributes = NULL;
    if (text[0] == '\0') return HR_OK;
    hr_status status = hr_js_parse(text, strlen(text), arena, attributes, err);
    if (status == HR_OK && (*attributes)->kind != HR_JS_OBJECT)
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "expected a JSON object");
    return status;
}

/* ---- The subject ---- */

static hr_js_text url_of(const hr_experiments_subject *subject) {
    const hr_js_value *url = hr_js_get(subject->attributes, hr_js_text_of("url", 3));
    bool counts = subject->may_force && hr_js_kind_of(url) == HR_JS_STRING;
    return counts ? url->text : hr_js_text_of("", 0);
}

hr_status hr_experiments__begin(const hr_experiments *experiments, const hr_experiments_subject *subject,
                                hr_arena *arena, const hr_trace *trace, hr_evaluation *evaluation,
                                hr_error *err) {
    hr_subject who = {.attributes = subject->attributes,
                      .user_id = subject->user_id,
                      .forced = subject->forced,
                      .n_forced = subject->may_force ? subject->n_forced : 0,
                      .url = url_of(subject)};
    if (hr_evaluation_begin(evaluation, experiments->program, &who, arena, trace)) return HR_OK;
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the experiments exceed the request's memory cap");
}

/* ---- The decision ---- */

/* A feature's value of its own wins over the same key of the whole. */
static void take(hr_decision *decision, const hr_ranking_value *value, double *shadow_percent) {
    if (value == NULL) return;
    if (value->model != NULL) decision->model = value->model;
    if (value->fusion != NULL) decision->fusion = value->fusion;
    if (value->n_tasks > 0) {
        decision->tasks = value->tasks;
        decision->n_tasks = value->n_tasks;
    }
    if (value->shadow_model != NULL) {
        decision->shadow_model = value->shadow_model;
        *shadow_percent = value->shadow_percent;
    }
}

/* Whether this request is one of the share; the same for the same draw. */
static bool is_drawn(const hr_experiments_subject *subject, double percent) {
    uint64_t hash = XXH3_64bits_withSeed(subject->user_id, strlen(subject->user_id), subject->draw);
    return (double)(hash >> 11) * 0x1p-53 * 100 < percent;
}

/* The experiments that the user is in; one that several features ask, and give the same variation of, is one.
 */
static hr_status list_assigned(const hr_evaluation *e, hr_decision *decision, hr_error *err) {
    hr_assigned *assigned = hr_arena_alloc(e->scratch.arena, e->n_runs * sizeof *assigned);
    uint32_t *seen = hr_arena_calloc(e->scratch.arena, e->program->n_keys, sizeof *seen); /* variation + 1 */
    if (assigned == NULL || seen == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the experiments exceed the request's memory cap");
    decision->assigned = assigned;
    for (uint32_t i = 0; i < e->n_runs; i++) {
        const hr_run *run = &e->runs[i];
        uint32_t *before = &seen[run->experiment->key_index];
        if (!run->in_experiment || *before == run->variation + 1) continue;
        *before = run->variation + 1;
        assigned[decision->n_assigned++] =
            (hr_assigned){.experiment = run->experiment->key,
                          .feature = run->experiment->feature,
                          .variation_key = run->experiment->variations[run->variation].key,
                          .variation = run->variation,
                          .bucket = hr_run_place(e, run)};
    }
    return HR_OK;
}

hr_status hr_experiments_decide(const hr_experiments *experiments, const hr_experiments_subject *subject,
                                hr_arena *arena, hr_decision *decision, hr_error *err) {
    hr_evaluation e;
    double shadow_percent = 0;
    *decision = (hr_decision){0};
    hr_status status = hr_experiments__begin(experiments, subject, arena, NULL, &e, err);
    if (status != HR_OK) return status;
    for (uint32_t f = 0; f < HR_RANKING_N_FEATURES; f++)
        if (f != HR_RANKING_TASKS || !subject->has_tasks)
            take(decision, hr_evaluate_flag(&e, f)->value->meaning, &shadow_percent);
    if (e.scratch.failed)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the experiments exceed the request's memory cap");
    if (decision->shadow_model != NULL && !is_drawn(subject, shadow_percent)) decision->shadow_model = NULL;
    return list_assigned(&e, decision, err);
}
