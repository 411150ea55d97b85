/* Estimates: see estimate.h. */
#include "service/analysis/estimate.h"

#include <math.h>
#include <stdlib.h>

#include "service/analysis/statistics.h"

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
    mean.freedom = users - 1;
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

/* A user's parts of the area's error; 0 where it has no sample of the class. */
typedef struct component {
    double positive, negative;
    bool has_positive, has_negative;
} component;

static void add_sample(component *of, bool positive, double part) {
    *(positive ? &of->positive : &of->negative) += part;
    *(positive ? &of->has_positive : &of->has_negative) = true;
}

/* Adds to each user's parts, from the area itself and not yet from the error; returns the area. */
static double add_components(const hr_sample *samples, size_t n, size_t n_positive, component *of) {
    const double positives = (double)n_positive, negatives = (double)(n - n_positive);
    double area = 0, positives_below = 0, negatives_below = 0;
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; to < n && samples[to].prediction == samples[from].prediction;) to++;
        double tied_positives = (double)count_positive(samples + from, to - from);
        double tied_negatives = (double)(to - from) - tied_positives;
        double v10 = (negatives_below + tied_negatives / 2) / negatives;
        double v01 = 1 - (positives_below + tied_positives / 2) / positives;
        for (size_t i = from; i < to; i++) {
            bool positive = samples[i].positive;
            add_sample(&of[samples[i].user], positive, positive ? v10 / positives : v01 / negatives);
        }
        area += v10 * tied_positives / positives;
        positives_below += tied_positives;
        negatives_below += tied_negatives;
    }
    return area;
}

/* Takes the area out of the parts, and leaves its error. */
static void center_components(const hr_sample *samples, size_t n, size_t n_positive, double area,
                              component *of) {
    for (size_t i = 0; i < n; i++) {
        bool positive = samples[i].positive;
        add_sample(&of[samples[i].user], positive, -area / (double)(positive ? n_positive : n - n_positive));
    }
}

/* A sum of products over n users as an estimate of n terms' variance. */
static double unbiased(double sum, double n) {
    return sum * n / (n - 1);
}

static void set_error(const component *of, uint32_t n_users, hr_estimate *auc) {
    double positives = 0, negatives = 0, positive = 0, negative = 0, both = 0;
    for (uint32_t u = 0; u < n_users; u++) {
        auc->n_users += of[u].has_positive || of[u].has_negative;
        positives += of[u].has_positive;
        negatives += of[u].has_negative;
        positive += of[u].positive * of[u].positive;
        negative += of[u].negative * of[u].negative;
        both += of[u].positive * of[u].negative;
    }
    auc->has_error = positives >= 2 && negatives >= 2;
    if (!auc->has_error) return;
    positive = unbiased(positive, positives);
    negative = unbiased(negative, negatives);
    auc->standard_error = sqrt(fmax(positive + negative + 2 * unbiased(both, (double)auc->n_users), 0));
    auc->freedom = hr_pooled_freedom(sqrt(positive), positives - 1, sqrt(negative), negatives - 1);
}

hr_status hr_estimate_auc(const hr_outcomes *outcomes, uint32_t trial, uint32_t variation, uint32_t task,
                          hr_estimate *estimate, hr_error *err) {
    const uint32_t n_users = hr_interner_count(outcomes->trials->users);
    hr_estimate auc = {0};
    size_t n = 0;
    hr_sample *samples = samples_of(outcomes, trial, variation, task, &n);
    component *components = calloc((size_t)n_users + 1, sizeof *components);
    hr_status status = HR_OK;
    if (samples == NULL || components == NULL) {
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for %zu predictions", n);
    } else {
        size_t n_positive = count_positive(samples, n);
        auc.n = n;
        auc.known = n_positive > 0 && n_positive < n;
        if (auc.known) {
            auc.value = add_components(samples, n, n_positive, components);
            center_components(samples, n, n_positive, auc.value, components);
            set_error(components, n_users, &auc);
        }
    }
    free(samples);
    free(components);
    *estimate = auc;
    return status;
}

hr_estimate hr_estimate_difference(const hr_estimate *a, const hr_estimate *b) {
    return (hr_estimate){
        .known = a->known && b->known,
        .has_error = a->has_error && b->has_error,
        .value = b->value - a->value,
        .standard_error = hypot(a->standard_error, b->standard_error),
        .freedom = hr_pooled_freedom(a->standard_error, a->freedom, b->standard_error, b->freedom),
        .n_users = a->n_users + b->n_users,
        .n = a->n + b->n,
    };
}
