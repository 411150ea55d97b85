/* `homerank experiments check`, `simulate` and `explain`. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "service/assignment.h"
#include "service/commands.h"
#include "service/experiments/experiments_report.h"

static void print_warning(void *arg, const char *what) {
    (void)arg;
    fprintf(stderr, "warning: %s\n", what);
}

/* The models, to check a file's targets against; NULL where none are given. They only load: nothing is
 * computed with them. */
static hr_status open_models(const hr_options *options, hr_repository **repository, hr_error *err) {
    const hr_repository_options models = {
        .model = {.backend = "reference", .precision = HR_PRECISION_F32, .n_workers = 1},
        .default_model = options->default_model,
        .policy = HR_POLICY_ALL,
    };
    *repository = NULL;
    if (options->models[0] == '\0') return HR_OK;
    return hr_repository_open(options->models, &models, repository, err);
}

static hr_status load(const hr_options *options, hr_repository *repository, hr_experiments **experiments,
                      hr_error *err) {
    const hr_experiments_options how = {
        .feature = options->experiments_feature,
        .check = repository == NULL ? NULL : hr_assignment_check,
        .check_arg = repository,
        .warn = print_warning,
    };
    return hr_experiments_load(options->arguments[0], &how, experiments, err);
}

/* What was printed must be out before the command is done. */
static int end(hr_status status, hr_error *err) {
    if (status == HR_OK && fflush(stdout) != 0) status = hr_error_set(err, HR_IO, "cannot write to stdout");
    return status == HR_OK ? 0 : hr_command_fail(err);
}

int hr_command_experiments_check(const hr_options *options) {
    hr_repository *repository;
    hr_experiments *experiments = NULL;
    hr_error err;
    hr_status status = open_models(options, &repository, &err);
    if (status == HR_OK) status = load(options, repository, &experiments, &err);
    if (status == HR_OK) status = hr_experiments_print_traffic(experiments, stdout, &err);
    hr_experiments_unref(experiments);
    hr_repository_close(repository);
    return end(status, &err);
}

/* The --attribute flags as a JSON object, "" for none; the caller frees it. A value is JSON where it reads as
 * JSON, else a string. */
static char *attributes_text(const hr_options *options) {
    json_t *object = json_object();
    int failed = object == NULL;
    for (size_t i = 0; i < options->attributes.n && !failed; i++) {
        const char *pair = options->attributes.values[i], *equals = strchr(pair, '=');
        json_t *value = NULL;
        if (hr_json_parse(equals + 1, strlen(equals + 1), &value, NULL) != HR_OK)
            value = json_string(equals + 1);
        failed = json_object_setn_new(object, pair, (size_t)(equals - pair), value);
    }
    char *text = failed ? NULL : options->attributes.n == 0 ? strdup("") : json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

/* Loads the file and hands it, with the attributes, to one of the two. */
static int with_attributes(const hr_options *options,
                           hr_status (*run)(const hr_options *options, const hr_experiments *experiments,
                                            const char *attributes, hr_error *err)) {
    hr_experiments *experiments = NULL;
    hr_error err;
    char *attributes = attributes_text(options);
    hr_status status = attributes == NULL ? hr_error_set(&err, HR_OUT_OF_MEMORY, "no memory for attributes")
                                          : load(options, NULL, &experiments, &err);
    if (status == HR_OK) status = run(options, experiments, attributes, &err);
    hr_experiments_unref(experiments);
    free(attributes);
    return end(status, &err);
}

static hr_status simulate(const hr_options *options, const hr_experiments *experiments,
                          const char *attributes, hr_error *err) {
    return hr_experiments_simulate(experiments, options->n_users, attributes, stdout, err);
}

static hr_status explain(const hr_options *options, const hr_experiments *experiments, const char *attributes,
                         hr_error *err) {
    return hr_experiments_explain(experiments, options->user, attributes, stdout, err);
}

int hr_command_experiments_simulate(const hr_options *options) {
    return with_attributes(options, simulate);
}

int hr_command_experiments_explain(const hr_options *options) {
    return with_attributes(options, explain);
}
