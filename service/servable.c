/* A model that can serve: see servable.h. */
#include "service/servable.h"

#include <limits.h>
#include <stdio.h>

#include "base/log.h"
#include "service/verify.h"

static void encoder_destroy(void *encoder) {
    hr_encoder_destroy(encoder);
}

const hr_encoder *hr_servable_encoder(const hr_model *model) {
    return hr_model_attachment(model);
}

hr_status hr_servable_prepare(hr_model *model, const char *dir, void *arg, hr_error *err) {
    (void)arg;
    hr_encoder *encoder = NULL;
    hr_status status = hr_encoder_create(hr_model_schema(model), &encoder, err);
    if (status != HR_OK) return status;
    hr_model_attach(model, encoder, encoder_destroy);

    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/verify.jsonl", dir) >= (int)sizeof path)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "%s: the path is too long", hr_quote(dir, 64).text);
    uint32_t n_lines = 0;
    status = hr_verify_file(model, path, &n_lines, err);
    if (status == HR_OK)
        hr_log(HR_LOG_INFO, n_lines > 0 ? "model verified" : "model has no verify.jsonl",
               HR_LOG_STR("model", hr_model_label(model)), HR_LOG_INT("requests", n_lines));
    return status;
}
