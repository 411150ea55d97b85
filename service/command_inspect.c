/* `homerank inspect DIR`: the model as text, or how it behaves on data. */
#include <stdio.h>

#include "model/model.h"
#include "service/commands.h"
#include "service/diagnostics_data.h"
#include "service/diagnostics_report.h"
#include "service/inspect.h"

enum { NAME_SIZE = 256 };

static hr_status load_model(const char *dir, hr_model **model, hr_error *err) {
    static const hr_model_options options = {
        .backend = "reference", .precision = HR_PRECISION_F32, .n_workers = 1};
    char name[NAME_SIZE];
    uint64_t version;
    hr_status status = hr_model_identify(dir, name, sizeof name, &version, err);
    return status ? status : hr_model_load(dir, name, version, &options, model, err);
}

static hr_status diagnose(const hr_options *options, hr_diagnosis *diagnosis, hr_diagnostics *diagnostics,
                          hr_error *err) {
    const hr_diagnostics_source source = {
        .path = options->data, .store = options->store, .max_rows = options->rows};
    hr_status status = hr_diagnostics_read(&source, diagnostics, &diagnosis->counts, err);
    if (!status) status = hr_diagnosis_print(diagnosis, stdout, err);
    if (!status && options->html[0] != '\0') status = hr_diagnosis_write_html(diagnosis, options->html, err);
    return status;
}

/* Fails, like score, where a line of the data was no request. */
static int inspect_data(const hr_options *options) {
    hr_error err;
    hr_model *model = NULL;
    hr_diagnostics *diagnostics = NULL;
    hr_diagnosis diagnosis = {.data = options->data};
    hr_status status = load_model(options->arguments[0], &model, &err);
    if (!status) status = hr_diagnostics_create(hr_model_plan(model), &diagnostics, &err);
    if (!status) {
        diagnosis.model = hr_model_label(model);
        diagnosis.diagnostics = diagnostics;
        status = diagnose(options, &diagnosis, diagnostics, &err);
    }
    hr_diagnostics_destroy(diagnostics);
    hr_model_unref(model);
    if (status) return hr_command_fail(&err);
    return diagnosis.counts.n_bad_lines == 0 ? 0 : 1;
}

int hr_command_inspect(const hr_options *options) {
    hr_error err;
    if (options->data[0] != '\0') return inspect_data(options);
    if (options->html[0] != '\0') {
        hr_error_set(&err, HR_INVALID_ARGUMENT, "inspect: --html: expected --data FILE with it, found none");
        return hr_command_fail(&err);
    }
    return hr_inspect(options->arguments[0], stdout, &err) ? hr_command_fail(&err) : 0;
}
