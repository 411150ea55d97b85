/* Estimates: see estimate.h. */
#include "service/analysis/estimate.h"

#include <math.h>
#include <stdlib.h>

hr_estimate hr_estimate_mean(const hr_outcomes *outcomes, uint32_t trial, uint32_t variation, uint32_t task) {
    const hr_trial *who = &outcomes->trials->trials[trial];
    const uint32_t n_users = hr_interner_count(outcomes->trials->users);
    hr_estimate mean = {0};
    double sum = 0, squares = 0;
    for (uint32_t u = 0; u < n_users; u++) {
        const hr_outcome_sum *of = hr_outcomes_of(outcomes, trial, task, u);
        if (who->variation[u] != (int32_t)variation || of->n == 0) continue;
        sum += of->sum;
        mean.n += of->n;
        mean.n_users++;
    }
    if (mean.n == 0) return mean;
    mean.known = true;
    mean.value = sum / (double)mean.n;
    mean.has_error = mean.n_users >= 2;
    if (!mean.has_error) return mean;
    for (uint32_t u = 0; u < n_users; u++) {
        const hr_outcome_sum *of = hr_outcomes_of(outcomes, trial, task, u);
        if (who->variation[u] != (int32_t)variation || of->n == 0) continue;
        double d = of->sum - mean.value * (double)of->n;
        squares += d * d;
    }
    double users = (double)mean.n_users;
    mean.standard_error = sqrt(squares * users / (users - 1)) / (double)mean.n;
    return mean;
}

static int by_prediction(const void *a, const void *b) {
    double x = ((const hr_sample *)a)->prediction, y = ((const hr_sample *)b)->prediction;
    return x < y ? -1 : x > y;
}

/* The task's samples that count for the variation, by prediction; owned by the caller, NULL out of memory. */
static hr_sample *samples_of(const hr_outcomes *outcomes, uint32_t trial, uint32_t variation, uint32_t task,
                             size_t *n) {
    const hr_trial *who = &outcomes->trials->trials[trial];
    const hr_samples *all = &outcomes->samples[task];
    hr_sample *chosen = malloc((all->n + 1) * sizeof *chosen);
    *n = 0;
    for (size_t i = 0; chosen != NULL && i < all->n; i++) {
        const hr_sample *s = &all->samples[i];
        if (who->variation[s->user] != (int32_t)variation || s->time_us < who->since_us[s->user]) continue;
        chosen[(*n)++] = *s;
    }
    if (chosen != NULL) qsort(chosen, *n, sizeof *chosen, by_prediction);
    return chosen;
}

static size_t count_positive(const hr_sample *samples, size_t n) {
    size_t n_positive = 0;
    for (size_t i = 0; i < n; i++) n_positive += samples[i].positive;
    return n_positive;
}

/* Adds each user's psi + A (its number of positives / P + of negatives / N) to psi[user]; returns A. */
static double add_components(const hr_sample *samples, size_t n, size_t n_positive, double *psi) {
    const double positives = (double)n_positive, negatives = (double)(n - n_positive);
    double area = 0, positives_below = 0, negatives_below = 0;
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; to < n && samples[to].prediction == samples[from].prediction;) to++;
        double tied_positives = (double)count_positive(samples + from, to - from);
        double tied_negatives = (double)(to - from) - tied_positives;
        double v10 = (negatives_below + tied_negatives / 2) / negatives;
        double v01 = 1 - (positives_below + tied_positives / 2) / positives;
        for (size_t i = from; i < to; i++)
            psi[samples[i].user] += samples[i].positive ? v10 / positives : v01 / negatives;
        area += v10 * tied_positives / positives;
        positives_below += tied_positives;
        negatives_below += tied_negatives;
    }
    return area;
}

/* Takes A's part out of psi; `seen` users are counted. */
static void center_components(const hr_sample *samples, size_t n, size_t n_positive, double area,
                              double *psi) {
    for (size_t i = 0; i < n; i++)
        psi[samples[i].user] -= area / (double)(samples[i].positive ? n_positive : n - n_positive);
}

/* The sum of psi^2 over the users, each taken once: psi is left zero. */
static double take_squares(const hr_sample *samples, size_t n, double *psi, bool *seen, uint64_t *n_users) {
    double squares = 0;
    *n_users = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = samples[i].user;
        *n_users += !seen[u];
        seen[u] = true;
        squares += psi[u] * psi[u];
        psi[u] = 0;
    }
    return squares;
}

hr_status hr_estimate_auc(const hr_outcomes *outcomes, uint32_t trial, uint32_t variation, uint32_t task,
                          hr_estimate *estimate, hr_error *err) {
    const uint32_t n_users = hr_interner_count(outcomes->trials->users);
    hr_estimate auc = {0};
    size_t n = 0;
    hr_sample *samples = samples_of(outcomes, trial, variation, task, &n);
    double *psi = calloc((size_t)n_users + 1, sizeof *psi);
    bool *seen = calloc((size_t)n_users + 1, sizeof *seen);
    hr_status status = HR_OK;
    if (samples == NULL || psi == NULL || seen == NULL) {
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %zu predictions", n);
    } else {
        size_t n_positive = count_positive(samples, n);
        auc.n = n;
        auc.known = n_positive > 0 && n_positive < n;
        if (auc.known) {
            auc.value = add_components(samples, n, n_positive, psi);
            center_components(samples, n, n_positive, auc.value, psi);
            double squares = take_squares(samples, n, psi, seen, &auc.n_users), users = (double)auc.n_users;
            auc.has_error = auc.n_users >= 2;
            if (auc.has_error) auc.standard_error = sqrt(squares * users / (users - 1));
        }
    }
    free(samples);
    free(psi);
    free(seen);
    *estimate = auc;
    return status;
}

hr_estimate hr_estimate_difference(const hr_estimate *a, const hr_estimate *b) {
    return (hr_estimate){
        .known = a->known && b->known,
        .has_error = a->has_error && b->has_error,
        .value = b->value - a->value,
        .standard_error = hypot(a->standard_error, b->standard_error),
        .n_users = a->n_users + b->n_users,
        .n = a->n + b->n,
    };
}
