/* A model that can serve: see servable.h. */
#include "service/servable.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "service/verify.h"

/* What the service attaches to a model. */
typedef struct servable {
    hr_encoder *encoder;
    hr_service_time time;
} servable;

static void servable_destroy(void *attachment) {
    servable *attached = attachment;
    hr_encoder_destroy(attached->encoder);
    free(attached);
}

const hr_encoder *hr_servable_encoder(const hr_model *model) {
    return ((const servable *)hr_model_attachment(model))->encoder;
}

hr_service_time *hr_servable_time(const hr_model *model) {
    return &((servable *)hr_model_attachment(model))->time;
}

hr_status hr_servable_prepare(hr_model *model, const char *dir, void *arg, hr_error *err) {
    (void)arg;
    servable *attached = calloc(1, sizeof *attached);
    if (attached == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "model %s", hr_model_label(model));
    hr_status status = hr_encoder_create(hr_model_schema(model), &attached->encoder, err);
    if (status != HR_OK) {
        free(attached);
        return status;
    }
    hr_model_attach(model, attached, servable_destroy);

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
