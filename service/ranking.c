/* From logits to the ranked answer: see ranking.h. Outputs and the fused score are computed in double. */
#include "service/ranking.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct ranked_item {
    double score;
    uint32_t row; /* position in the request */
    bool finite;  /* its score and all its outputs, as the floats they are answered in */
} ranked_item;

static hr_status too_large(hr_error *err) {
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the ranked answer exceeds the request's memory cap");
}

static hr_status choose_tasks(const hr_model *model, const hr_ranking_wish *wish, hr_arena *arena,
                              hr_ranking_choice *choice, hr_error *err) {
    const uint32_t n_all = hr_model_plan(model)->n_tasks;
    uint32_t *chosen = hr_arena_calloc(arena, n_all, sizeof *chosen);
    bool *seen = hr_arena_calloc(arena, n_all, sizeof *seen);
    if (chosen == NULL || seen == NULL) return too_large(err);
    choice->tasks = chosen;
    if (wish->n_tasks == 0) {
        for (uint32_t t = 0; t < n_all; t++) chosen[t] = t;
        choice->n_tasks = n_all;
        return HR_OK;
    }
    for (size_t i = 0; i < wish->n_tasks; i++) {
        const char *name = wish->tasks[i];
        int t = hr_model_task(model, name);
        if (t < 0 || seen[t])
            return hr_error_set(err, HR_INVALID_ARGUMENT, "tasks[%zu]: expected a task of %s%s, found %s", i,
                                hr_model_label(model), t < 0 ? "" : ", each once",
                                hr_quote(name, strlen(name)).text);
        seen[t] = true;
        chosen[choice->n_tasks++] = (uint32_t)t;
    }
    return HR_OK;
}

hr_status hr_ranking_choose(const hr_model *model, const hr_ranking_wish *wish, hr_arena *arena,
                            hr_ranking_choice *choice, hr_error *err) {
    const hr_plan *plan = hr_model_plan(model);
    *choice = (hr_ranking_choice){.fusion = hr_model_fusion(model)};
    hr_status status = choose_tasks(model, wish, arena, choice, err);
    if (status != HR_OK || wish->fusion == NULL) return status;
    return hr_fusion_bind(wish->fusion, plan->tasks, plan->n_tasks, arena, &choice->fusion, err);
}

/* Best score first; ties by position in the request; what is not finite last. A total order. */
static int compare_ranked(const void *left, const void *right) {
    const ranked_item *a = left, *b = right;
    if (a->finite != b->finite) return a->finite ? -1 : 1;
    if (a->finite && a->score != b->score) return a->score > b->score ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

/* Fills items, scores (n_items) and outputs (n_items, T) from logits; returns how many are not finite. */
static uint32_t score_items(const hr_plan *plan, const hr_fusion *fusion, const float *logits,
                            uint32_t n_items, double *row_outputs, float *scores, float *outputs,
                            ranked_item *items) {
    const uint32_t n_tasks = plan->n_tasks;
    uint32_t n_not_finite = 0;
    for (uint32_t row = 0; row < n_items; row++) {
        bool finite = true;
        for (uint32_t t = 0; t < n_tasks; t++) {
            size_t at = (size_t)row * n_tasks + t;
            row_outputs[t] = hr_output_apply(plan->tasks[t].output, (double)logits[at]);
            outputs[at] = (float)row_outputs[t];
            finite = finite && isfinite(outputs[at]);
        }
        double score = hr_fusion_score(fusion, row_outputs);
        scores[row] = (float)score;
        finite = finite && isfinite(scores[row]);
        items[row] = (ranked_item){.score = score, .row = row, .finite = finite};
        n_not_finite += !finite;
    }
    return n_not_finite;
}

hr_status hr_ranking_fill(const hr_model *model, const Homerank__V1__RankRequest *request,
                          const hr_ranking_choice *choice, const float *logits, hr_arena *arena,
                          Homerank__V1__RankResponse *response, hr_ranking_scores *all, hr_error *err) {
    const hr_plan *plan = hr_model_plan(model);
    const uint32_t n_items = (uint32_t)request->n_item_ids;
    const uint32_t n_tasks = choice->n_tasks;
    const uint32_t n_ranked = request->top_k == 0 || request->top_k > n_items ? n_items : request->top_k;
    double *row_outputs = hr_arena_calloc(arena, plan->n_tasks, sizeof *row_outputs);
    float *scores = hr_arena_calloc(arena, n_items, sizeof *scores);
    float *outputs = hr_arena_calloc(arena, (size_t)n_items * plan->n_tasks, sizeof *outputs);
    ranked_item *items = hr_arena_calloc(arena, n_items, sizeof *items);
    response->item_ids = hr_arena_calloc(arena, n_ranked, sizeof *response->item_ids);
    response->scores = hr_arena_calloc(arena, n_ranked, sizeof *response->scores);
    response->tasks = hr_arena_calloc(arena, n_tasks, sizeof *response->tasks);
    response->task_scores = hr_arena_calloc(arena, (size_t)n_ranked * n_tasks, sizeof *response->task_scores);
    if (row_outputs == NULL || scores == NULL || outputs == NULL || items == NULL ||
        response->item_ids == NULL || response->scores == NULL || response->tasks == NULL ||
        response->task_scores == NULL)
        return too_large(err);

    *all = (hr_ranking_scores){.scores = scores, .outputs = outputs};
    all->n_not_finite =
        score_items(plan, choice->fusion, logits, n_items, row_outputs, scores, outputs, items);
    qsort(items, n_items, sizeof *items, compare_ranked);
    response->n_item_ids = response->n_scores = n_ranked;
    response->n_tasks = n_tasks;
    response->n_task_scores = (size_t)n_ranked * n_tasks;
    for (uint32_t t = 0; t < n_tasks; t++) response->tasks[t] = (char *)plan->tasks[choice->tasks[t]].name;
    for (uint32_t i = 0; i < n_ranked; i++) {
        const float *row = outputs + (size_t)items[i].row * plan->n_tasks;
        response->item_ids[i] = request->item_ids[items[i].row];
        response->scores[i] = scores[items[i].row];
        for (uint32_t t = 0; t < n_tasks; t++)
            response->task_scores[(size_t)i * n_tasks + t] = row[choice->tasks[t]];
    }
    return HR_OK;
}
