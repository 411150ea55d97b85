/* verify.jsonl: see verify.h. */
#include "service/verify.h"

#include <math.h>
#include <string.h>

#include "base/text_file.h"
#include "proto/json.h"
#include "service/request_check.h"
#include "service/request_encode.h"
#include "service/servable.h"

enum { MAX_ITEMS = 100000, MAX_ID_NBYTES = 4096, CALL_CAP_NBYTES = 256 << 20, SCRATCH_CAP_NBYTES = 1 << 20 };

/* MODEL.md 5: the bound on |found - expected|, relative to max(1, |expected|). */
static double logit_bound(hr_precision precision, double expected) {
    return (precision == HR_PRECISION_BF16 ? 5e-2 : 1e-4) * fmax(1.0, fabs(expected));
}

typedef struct verification {
    const hr_model *model;
    hr_arena *arena;   /* one line's */
    hr_arena *scratch; /* for the encoder */
} verification;

static hr_status compare_logit(const verification *v, const Homerank__V1__RankRequest *request, size_t row,
                               const float *logits, const char *task, const json_t *expected, hr_error *err) {
    int t = hr_model_task(v->model, task);
    if (t < 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a task of the model, found %s",
                            hr_quote(task, strlen(task)).text);
    if (!json_is_number(expected))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "task %s: expected a number", task);
    double z = json_number_value(expected);
    double found = (double)logits[row * hr_model_plan(v->model)->n_tasks + (size_t)t];
    hr_precision precision = hr_engine_precision(hr_model_engine(v->model));
    if (fabs(found - z) <= logit_bound(precision, z)) return HR_OK; /* false for NaN */
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "request %s, item %s, task %s: expected %.9g, found %.9g (%s)",
                        hr_quote(request->request_id, strlen(request->request_id)).text,
                        hr_quote(request->item_ids[row], strlen(request->item_ids[row])).text, task, z, found,
                        hr_precision_name(precision));
}

/* Every item and task named in `expected`; an item that stands twice in the request is compared twice. */
static hr_status compare_items(const verification *v, const Homerank__V1__RankRequest *request,
                               const float *logits, json_t *expected, hr_error *err) {
    if (json_object_size(expected) == 0)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "logits: expected at least one item, found none");
    const char *item, *task;
    json_t *tasks, *logit;
    json_object_foreach(expected, item, tasks) {
        bool found = false;
        if (!json_is_object(tasks) || json_object_size(tasks) == 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT,
                                "logits, item %s: expected an object of at least one task",
                                hr_quote(item, strlen(item)).text);
        for (size_t row = 0; row < request->n_item_ids; row++) {
            if (strcmp(request->item_ids[row], item) != 0) continue;
            found = true;
            json_object_foreach(tasks, task, logit) {
                hr_status status = compare_logit(v, request, row, logits, task, logit, err);
                if (status != HR_OK) return status;
            }
        }
        if (!found)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "logits: expected an item of the request, found %s",
                                hr_quote(item, strlen(item)).text);
    }
    return HR_OK;
}

static hr_status score(const verification *v, const Homerank__V1__RankRequest *request, const float **logits,
                       hr_error *err) {
    hr_slice slice;
    uint32_t n_invalid;
    const hr_request_limits limits = {.max_items = MAX_ITEMS, .max_id_nbytes = MAX_ID_NBYTES};
    const hr_experiments_attributes *attributes;
    hr_status status = hr_request_check(request, &limits, v->arena, &attributes, err);
    if (status == HR_OK)
        status = hr_request_encode(hr_servable_encoder(v->model), hr_model_schema(v->model), request, NULL,
                                   v->arena, v->scratch, &slice, &n_invalid, err);
    if (status != HR_OK) return status;
    slice.logits = hr_arena_calloc(v->arena, (size_t)slice.n_rows * hr_model_plan(v->model)->n_tasks,
                                   sizeof *slice.logits);
    if (slice.logits == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the request's logits do not fit");
    *logits = slice.logits;
    return hr_model_forward(v->model, 0, &slice, 1, err);
}

static hr_status check_line(const verification *v, const char *line, size_t nbytes, hr_error *err) {
    json_t *value = NULL;
    Homerank__V1__RankRequest *request = NULL;
    const float *logits = NULL;
    hr_status status = hr_json_parse(line, nbytes, &value, err);
    if (status != HR_OK) return status;
    json_t *expected = json_object_get(value, "logits");
    if (!json_is_object(value) || json_object_size(value) != 2 || !json_is_object(expected) ||
        json_object_get(value, "request") == NULL)
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "expected {\"request\": {...}, \"logits\": {...}}");
    if (status == HR_OK)
        status = hr_json_to_request(json_object_get(value, "request"), v->arena, &request, err);
    if (status == HR_OK) status = score(v, request, &logits, err);
    if (status == HR_OK) status = compare_items(v, request, logits, expected, err);
    json_decref(value);
    return status;
}

static hr_status check_lines(const verification *v, hr_line_reader *reader, uint32_t *n_lines,
                             hr_error *err) {
    for (;;) {
        const char *line;
        size_t nbytes;
        hr_status status = hr_line_reader_next(reader, &line, &nbytes, err);
        if (status == HR_OK && line == NULL) break;
        hr_arena_reset(v->arena);
        if (status == HR_OK) status = check_line(v, line, nbytes, err);
        if (status != HR_OK)
            return hr_error_prefix(err, "verify.jsonl:%llu",
                                   (unsigned long long)hr_line_reader_number(reader));
        ++*n_lines;
    }
    if (*n_lines > 0) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT, "verify.jsonl: expected at least one line, found none");
}

hr_status hr_verify_file(const hr_model *model, const char *path, uint32_t *n_lines, hr_error *err) {
    hr_line_reader *reader = NULL;
    *n_lines = 0;
    hr_status status = hr_line_reader_open(path, HR_LINE_MAX_NBYTES, NULL, &reader, err);
    if (status == HR_NOT_FOUND) return HR_OK;
    if (status != HR_OK) return status;
    verification v = {.model = model,
                      .arena = hr_arena_create(CALL_CAP_NBYTES),
                      .scratch = hr_arena_create(SCRATCH_CAP_NBYTES)};
    if (v.arena == NULL || v.scratch == NULL)
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "%s", hr_quote(path, strlen(path)).text);
    else
        status = check_lines(&v, reader, n_lines, err);
    hr_arena_destroy(v.scratch);
    hr_arena_destroy(v.arena);
    hr_line_reader_close(reader);
    return status;
}
