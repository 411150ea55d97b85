/* Who was exposed to what: see trials.h. */
#include "service/analysis/trials.h"

#include <stdlib.h>
#include <string.h>

#include "service/analysis/lines.h"

typedef struct exposure {
    const char *user_id, *experiment, *key; /* borrowed; key: or NULL */
    int64_t time_us;
    uint32_t variation;
    bool in_experiment;
} exposure;

static hr_status out_of_memory(hr_error *err) {
    return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the exposures");
}

hr_status hr_trials_create(hr_trials *trials, hr_error *err) {
    *trials = (hr_trials){.users = hr_interner_create(), .experiments = hr_interner_create()};
    if (trials->users != NULL && trials->experiments != NULL) return HR_OK;
    hr_trials_destroy(trials);
    return out_of_memory(err);
}

void hr_trials_destroy(hr_trials *trials) {
    uint32_t n = trials->trials == NULL ? 0 : hr_interner_count(trials->experiments);
    for (uint32_t t = 0; t < n; t++) {
        hr_trial *trial = &trials->trials[t];
        for (uint32_t v = 0; v < HR_TRIAL_MAX_VARIATIONS; v++) free(trial->keys[v]);
        free(trial->variation);
        free(trial->since_us);
    }
    free(trials->trials);
    hr_interner_destroy(trials->users);
    hr_interner_destroy(trials->experiments);
    *trials = (hr_trials){0};
}

static hr_status exposure_read(const json_t *object, exposure *e, hr_error *err) {
    bool has_time;
    const json_t *variation = json_object_get(object, "variation");
    hr_status status = hr_line_text(object, "user_id", &e->user_id, err);
    if (status == HR_OK) status = hr_line_text(object, "experiment", &e->experiment, err);
    if (status == HR_OK) status = hr_line_time(object, "time", &has_time, &e->time_us, err);
    if (status != HR_OK) return status;
    if (!has_time) return hr_error_set(err, HR_INVALID_ARGUMENT, "time: expected a time, found nothing");
    json_int_t number = json_integer_value(variation);
    if (!json_is_integer(variation) || number < 0 || number >= HR_TRIAL_MAX_VARIATIONS)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "variation: expected an integer of 0 to %d",
                            HR_TRIAL_MAX_VARIATIONS - 1);
    const json_t *in = json_object_get(object, "in_experiment");
    if (!json_is_boolean(in))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "in_experiment: expected true or false");
    e->variation = (uint32_t)number;
    e->in_experiment = json_is_true(in);
    e->key = json_string_value(json_object_get(object, "variation_key"));
    return HR_OK;
}

static bool trial_grow(hr_trial *trial, uint32_t from, uint32_t to) {
    int32_t *variation = realloc(trial->variation, to * sizeof *variation);
    if (variation != NULL) trial->variation = variation;
    int64_t *since_us = realloc(trial->since_us, to * sizeof *since_us);
    if (since_us != NULL) trial->since_us = since_us;
    if (variation == NULL || since_us == NULL) return false;
    for (uint32_t u = from; u < to; u++) variation[u] = HR_TRIAL_NOT_IN;
    return true;
}

/* Room for every user so far in every trial; twice as much as before, where more is needed. */
static bool grow_users(hr_trials *trials, uint32_t n_users) {
    if (n_users <= trials->n_rooms) return true;
    uint32_t n_rooms = trials->n_rooms * 2 > n_users ? trials->n_rooms * 2 : n_users + 1023;
    uint32_t n_trials = hr_interner_count(trials->experiments);
    for (uint32_t t = 0; t < n_trials; t++) {
        if (!trial_grow(&trials->trials[t], trials->n_rooms, n_rooms)) return false;
    }
    trials->n_rooms = n_rooms;
    return true;
}

/* The experiment's trial, made on its first exposure. */
static hr_trial *trial_of(hr_trials *trials, const char *experiment) {
    uint32_t t = hr_interner_find(trials->experiments, experiment);
    if (t != HR_INTERNER_NONE) return &trials->trials[t];
    uint32_t n = hr_interner_count(trials->experiments);
    hr_trial *grown = realloc(trials->trials, (n + 1) * sizeof *grown);
    if (grown == NULL) return NULL;
    trials->trials = grown;
    memset(&grown[n], 0, sizeof grown[n]);
    if (!trial_grow(&grown[n], 0, trials->n_rooms) ||
        hr_interner_add(trials->experiments, experiment) == HR_INTERNER_NONE) {
        free(grown[n].variation);
        free(grown[n].since_us);
        return NULL;
    }
    return &grown[n];
}

static void assign(hr_trial *trial, uint32_t user, const exposure *e) {
    int32_t was = trial->variation[user];
    trial->n_exposures++;
    if (e->variation >= trial->n_variations) trial->n_variations = e->variation + 1;
    if (was == HR_TRIAL_NOT_IN) {
        trial->variation[user] = (int32_t)e->variation;
        trial->since_us[user] = e->time_us;
        trial->n_users[e->variation]++;
    } else if (was != HR_TRIAL_CROSSED && (uint32_t)was != e->variation) {
        trial->variation[user] = HR_TRIAL_CROSSED;
        trial->n_users[was]--;
        trial->n_crossed++;
    } else if (e->time_us < trial->since_us[user]) {
        trial->since_us[user] = e->time_us;
    }
}

static hr_status take_exposure(void *arg, const json_t *object, hr_error *err) {
    hr_trials *trials = arg;
    exposure e;
    if (json_object_get(object, "shadow") != NULL) return HR_OK; /* another kind of line */
    hr_status status = exposure_read(object, &e, err);
    if (status != HR_OK || !e.in_experiment) return status;
    uint32_t user = hr_interner_add(trials->users, e.user_id);
    if (user == HR_INTERNER_NONE || !grow_users(trials, hr_interner_count(trials->users)))
        return out_of_memory(err);
    hr_trial *trial = trial_of(trials, e.experiment);
    if (trial == NULL) return out_of_memory(err);
    if (e.key != NULL && trial->keys[e.variation] == NULL) {
        trial->keys[e.variation] = strdup(e.key);
        if (trial->keys[e.variation] == NULL) return out_of_memory(err);
    }
    assign(trial, user, &e);
    return HR_OK;
}

hr_status hr_trials_read(hr_trials *trials, const char *path, FILE *messages, uint64_t *n_bad,
                         hr_error *err) {
    return hr_lines_read(path, take_exposure, trials, messages, n_bad, err);
}
