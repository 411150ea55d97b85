/* What users did: see outcomes.h. */
#include "service/analysis/outcomes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/analysis/lines.h"

static hr_status out_of_memory(hr_error *err) {
    return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the outcomes");
}

void hr_outcomes_destroy(hr_outcomes *outcomes) {
    for (int task = 0; task < HR_OUTCOMES_MAX_TASKS; task++) {
        free(outcomes->sums[task]);
        free(outcomes->samples[task].samples);
    }
    hr_interner_destroy(outcomes->tasks);
}

static uint32_t n_users(const hr_outcomes *outcomes) {
    return hr_interner_count(outcomes->trials->users);
}

const hr_outcome_sum *hr_outcomes_of(const hr_outcomes *outcomes, uint32_t trial, uint32_t task,
                                     uint32_t user) {
    return &outcomes->sums[task][(size_t)trial * n_users(outcomes) + user];
}

/* The task's number, with room for its sums. */
static hr_status task_of(hr_outcomes *outcomes, const char *name, uint32_t *task, hr_error *err) {
    *task = hr_interner_find(outcomes->tasks, name);
    if (*task != HR_INTERNER_NONE) return HR_OK;
    if (hr_interner_count(outcomes->tasks) == HR_OUTCOMES_MAX_TASKS)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "outcomes: expected at most %d tasks, found one more, %s", HR_OUTCOMES_MAX_TASKS,
                            hr_quote(name, strlen(name)).text);
    size_t n = (size_t)hr_interner_count(outcomes->trials->experiments) * n_users(outcomes);
    hr_outcome_sum *sums = calloc(n + 1, sizeof *sums);
    *task = hr_interner_add(outcomes->tasks, name);
    if (sums == NULL || *task == HR_INTERNER_NONE) {
        free(sums);
        return out_of_memory(err);
    }
    outcomes->sums[*task] = sums;
    return HR_OK;
}

static hr_status add_sample(hr_samples *samples, hr_sample sample, hr_error *err) {
    if (samples->n == samples->room) {
        size_t room = samples->room == 0 ? 1024 : samples->room * 2;
        hr_sample *grown = realloc(samples->samples, room * sizeof *grown);
        if (grown == NULL) return out_of_memory(err);
        samples->samples = grown;
        samples->room = room;
    }
    samples->samples[samples->n++] = sample;
    return HR_OK;
}

static void add_to_trials(hr_outcomes *outcomes, uint32_t task, uint32_t user, int64_t time_us,
                          double value) {
    uint32_t n_trials = hr_interner_count(outcomes->trials->experiments);
    for (uint32_t t = 0; t < n_trials; t++) {
        const hr_trial *trial = &outcomes->trials->trials[t];
        if (trial->variation[user] < 0 || time_us < trial->since_us[user]) continue;
        hr_outcome_sum *sum = &outcomes->sums[task][(size_t)t * n_users(outcomes) + user];
        sum->sum += value;
        sum->n++;
    }
}

/* A line is taken whole or not at all. */
static hr_status check_values(const json_t *values, const char *what, hr_error *err) {
    const char *name;
    json_t *value;
    if (!json_is_object(values))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected an object of numbers, found %s", what,
                            values == NULL ? "nothing" : "another kind of value");
    json_object_foreach((json_t *)values, name, value) {
        if (!json_is_number(value) || !isfinite(json_number_value(value)))
            return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: %s: expected a number", what,
                                hr_quote(name, strlen(name)).text);
    }
    return HR_OK;
}

/* Makes all of the line's tasks known, before any of its values counts. */
static hr_status know_tasks(hr_outcomes *outcomes, const json_t *values, hr_error *err) {
    const char *name;
    json_t *value;
    uint32_t task;
    json_object_foreach((json_t *)values, name, value) {
        hr_status status = task_of(outcomes, name, &task, err);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

static hr_status take_values(hr_outcomes *outcomes, uint32_t user, int64_t time_us, const json_t *values,
                             const json_t *predictions, hr_error *err) {
    const char *name;
    json_t *value;
    hr_status status = know_tasks(outcomes, values, err);
    if (status != HR_OK) return status;
    json_object_foreach((json_t *)values, name, value) {
        const uint32_t task = hr_interner_find(outcomes->tasks, name);
        double number = json_number_value(value);
        add_to_trials(outcomes, task, user, time_us, number);
        const json_t *prediction = json_object_get(predictions, name);
        if (prediction == NULL || (number != 0 && number != 1)) continue;
        hr_sample sample = {json_number_value(prediction), time_us, user, number == 1};
        status = add_sample(&outcomes->samples[task], sample, err);
        if (status != HR_OK) return status;
    }
    return HR_OK;
}

static hr_status take_outcome(void *arg, const json_t *object, hr_error *err) {
    hr_outcomes *outcomes = arg;
    const json_t *values = json_object_get(object, "outcomes");
    const json_t *predictions = json_object_get(object, "predictions");
    const char *user_id;
    int64_t time_us = INT64_MAX;
    bool has_time;
    hr_status status = hr_line_text(object, "user_id", &user_id, err);
    if (status == HR_OK) status = hr_line_time(object, "time", &has_time, &time_us, err);
    if (status == HR_OK) status = check_values(values, "outcomes", err);
    if (status == HR_OK && predictions != NULL) status = check_values(predictions, "predictions", err);
    if (status != HR_OK) return status;
    outcomes->n_lines++;
    uint32_t user = hr_interner_find(outcomes->trials->users, user_id);
    if (user != HR_INTERNER_NONE) return take_values(outcomes, user, time_us, values, predictions, err);
    outcomes->n_unexposed++;
    return HR_OK;
}

hr_status hr_outcomes_read(hr_outcomes *outcomes, const hr_trials *trials, const char *path, FILE *messages,
                           uint64_t *n_bad, hr_error *err) {
    *outcomes = (hr_outcomes){.trials = trials, .tasks = hr_interner_create()};
    if (outcomes->tasks == NULL) return out_of_memory(err);
    return hr_lines_read(path, take_outcome, outcomes, messages, n_bad, err);
}
