/* Two rankings beside each other: see shadow_compare.h. */
#include "service/shadow_compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct placed {
    float score;
    uint32_t row;
} placed;

/* Best first, as answers are ranked: ties by position, what is not finite last. */
static int by_rank(const void *left, const void *right) {
    const placed *a = left, *b = right;
    bool a_finite = isfinite(a->score), b_finite = isfinite(b->score);
    if (a_finite != b_finite) return a_finite ? -1 : 1;
    if (a_finite && a->score != b->score) return a->score > b->score ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

static bool is_tie(const placed *a, const placed *b) {
    return a->score == b->score || (!isfinite(a->score) && !isfinite(b->score));
}

/* Sorts the items into order (n) and gives each its rank (n) from 0, ties sharing their mean. */
static void rank_items(const float *scores, uint32_t n, placed *order, double *ranks) {
    for (uint32_t i = 0; i < n; i++) order[i] = (placed){scores[i], i};
    qsort(order, n, sizeof *order, by_rank);
    for (uint32_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && is_tie(&order[from], &order[to]);) to++;
        for (uint32_t i = from; i < to; i++) ranks[order[i].row] = (from + to - 1) / 2.0;
    }
}

/* Pearson's correlation of the ranks, whose mean is (n - 1) / 2. */
static bool correlate(const double *a, const double *b, uint32_t n, double *correlation) {
    double mean = (n - 1) / 2.0, ab = 0, aa = 0, bb = 0;
    for (uint32_t i = 0; i < n; i++) {
        ab += (a[i] - mean) * (b[i] - mean);
        aa += (a[i] - mean) * (a[i] - mean);
        bb += (b[i] - mean) * (b[i] - mean);
    }
    *correlation = aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
    return aa > 0 && bb > 0;
}

static double overlap(const placed *a, const placed *b, uint32_t n, bool *in_top) {
    uint32_t top = n < HR_SHADOW_TOP ? n : HR_SHADOW_TOP, n_both = 0;
    memset(in_top, 0, n);
    for (uint32_t i = 0; i < top; i++) in_top[a[i].row] = true;
    for (uint32_t i = 0; i < top; i++) n_both += in_top[b[i].row];
    return (double)n_both / top;
}

static double task_difference(const hr_scored *a, int a_task, const hr_scored *b, int b_task, uint32_t n) {
    const uint32_t a_tasks = hr_model_plan(a->model)->n_tasks, b_tasks = hr_model_plan(b->model)->n_tasks;
    double sum = 0;
    uint32_t n_finite = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a->outputs[i * a_tasks + (size_t)a_task] -
                        (double)b->outputs[i * b_tasks + (size_t)b_task]);
        if (!isfinite(d)) continue;
        sum += d;
        n_finite++;
    }
    return n_finite > 0 ? sum / n_finite : 0;
}

bool hr_shadow_compare(const hr_scored *a, const hr_scored *b, uint32_t n, hr_arena *arena,
                       hr_shadow_difference *difference) {
    const hr_plan *plan = hr_model_plan(a->model);
    placed *a_order = hr_arena_calloc(arena, n, sizeof *a_order);
    placed *b_order = hr_arena_calloc(arena, n, sizeof *b_order);
    double *a_ranks = hr_arena_calloc(arena, n, sizeof *a_ranks);
    double *b_ranks = hr_arena_calloc(arena, n, sizeof *b_ranks);
    bool *in_top = hr_arena_calloc(arena, n, sizeof *in_top);
    hr_shadow_difference d = {.tasks = hr_arena_calloc(arena, plan->n_tasks, sizeof *d.tasks),
                              .differences = hr_arena_calloc(arena, plan->n_tasks, sizeof *d.differences)};
    if (a_order == NULL || b_order == NULL || a_ranks == NULL || b_ranks == NULL || in_top == NULL ||
        d.tasks == NULL || d.differences == NULL)
        return false;
    rank_items(a->scores, n, a_order, a_ranks);
    rank_items(b->scores, n, b_order, b_ranks);
    d.has_correlation = correlate(a_ranks, b_ranks, n, &d.rank_correlation);
    d.top_overlap = overlap(a_order, b_order, n, in_top);
    for (uint32_t t = 0; t < plan->n_tasks; t++) {
        int other = hr_model_task(b->model, plan->tasks[t].name);
        if (other < 0) continue;
        d.tasks[d.n_tasks] = plan->tasks[t].name;
        d.differences[d.n_tasks++] = task_difference(a, (int)t, b, other, n);
    }
    *difference = d;
    return true;
}
