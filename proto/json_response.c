/* A RankResponse as JSON. The answer may come off the wire of some server: its lists need not fit each other.
 */
#include <math.h>

#include "proto/json.h"

/* An object being made; a member that cannot be made spoils the whole. */
typedef struct maker {
    json_t *object;
    bool whole;
} maker;

static maker begin(void) {
    json_t *object = json_object();
    return (maker){.object = object, .whole = object != NULL};
}

/* Takes value's reference. */
static void put(maker *to, const char *key, json_t *value) {
    if (!to->whole)
        json_decref(value);
    else
        to->whole = json_object_set_new(to->object, key, value) == 0;
}

static json_t *end(maker *made) {
    if (made->whole) return made->object;
    json_decref(made->object);
    return NULL;
}

static json_t *text(const char *string) {
    return json_string(string == NULL ? "" : string);
}

static json_t *integer(uint64_t value) {
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* values[i], null past the end. */
static json_t *number_at(const float *values, size_t n_values, size_t i) {
    return i < n_values ? number(values[i]) : json_null();
}

static json_t *item(const Homerank__V1__RankResponse *response, size_t i) {
    maker made = begin(), tasks = begin();
    for (size_t t = 0; t < response->n_tasks; t++)
        put(&tasks, response->tasks[t],
            number_at(response->task_scores, response->n_task_scores, i * response->n_tasks + t));
    put(&made, "item_id", text(response->item_ids[i]));
    put(&made, "score", number_at(response->scores, response->n_scores, i));
    put(&made, "tasks", end(&tasks));
    return end(&made);
}

/* A list of n elements; takes their references. */
static json_t *list(size_t n, const Homerank__V1__RankResponse *response,
                    json_t *(*element)(const Homerank__V1__RankResponse *response, size_t i)) {
    json_t *made = json_array();
    bool whole = made != NULL;
    for (size_t i = 0; whole && i < n; i++) whole = json_array_append_new(made, element(response, i)) == 0;
    if (whole) return made;
    json_decref(made);
    return NULL;
}

static json_t *experiment(const Homerank__V1__RankResponse *response, size_t i) {
    const Homerank__V1__Assignment *assignment = response->experiments[i];
    maker made = begin();
    put(&made, "experiment", text(assignment->experiment));
    put(&made, "variation", json_integer(assignment->variation));
    put(&made, "bucket", number(assignment->bucket));
    put(&made, "in_experiment", json_boolean(assignment->in_experiment));
    put(&made, "variation_key", text(assignment->variation_key));
    return end(&made);
}

static json_t *warning(const Homerank__V1__RankResponse *response, size_t i) {
    return text(response->warnings[i]);
}

static json_t *feature_status(const Homerank__V1__FeatureStatus *status) {
    maker made = begin();
    put(&made, "user_found", json_boolean(status->user_found));
    put(&made, "items_missing", integer(status->items_missing));
    put(&made, "items_stale", integer(status->items_stale));
    put(&made, "values_invalid", integer(status->values_invalid));
    put(&made, "store_error", text(status->store_error));
    return end(&made);
}

static json_t *timing(const Homerank__V1__Timing *spent) {
    maker made = begin();
    put(&made, "queue_us", integer(spent->queue_us));
    put(&made, "features_us", integer(spent->features_us));
    put(&made, "model_us", integer(spent->model_us));
    put(&made, "total_us", integer(spent->total_us));
    return end(&made);
}

json_t *hr_json_from_response(const Homerank__V1__RankResponse *response, bool details) {
    maker made = begin();
    put(&made, "request_id", text(response->request_id));
    put(&made, "model", text(response->model));
    put(&made, "items", list(response->n_item_ids, response, item));
    if (details) {
        put(&made, "experiments", list(response->n_experiments, response, experiment));
        if (response->features != NULL) put(&made, "features", feature_status(response->features));
        if (response->timing != NULL) put(&made, "timing", timing(response->timing));
        put(&made, "warnings", list(response->n_warnings, response, warning));
    }
    return end(&made);
}
