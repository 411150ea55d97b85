/* A call's way through the pipeline: see pipeline_call.h. */
#include "service/pipeline_call.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "service/request_check.h"
#include "service/request_encode.h"
#include "service/servable.h"

/* What outlives the call: its shadow and the exposure log go on with the arena alone. */
static hr_status say_experiments(hr_call_state *state, hr_error *err) {
    hr_rank_call *call = state->call;
    const hr_assignment *assignment = &state->assignment;
    if (assignment->experiments == NULL) return HR_OK;
    const char *version = hr_experiments_version(assignment->experiments);
    const char *shadow = assignment->decision.shadow_model;
    call->experiments_version = hr_arena_strndup(call->arena, version, strlen(version));
    if (shadow != NULL) call->shadow_model = hr_arena_strndup(call->arena, shadow, strlen(shadow));
    if (call->experiments_version != NULL && (shadow == NULL || call->shadow_model != NULL)) return HR_OK;
    call->experiments_version = "";
    hr_assignment_release(&state->assignment);
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the experiments exceed the request's memory cap");
}

hr_status hr_call_prepare(const hr_pipeline_options *options, hr_repository *repository, hr_rank_call *call,
                          hr_call_state **out, hr_error *err) {
    const hr_request_limits limits = {.max_items = options->max_items,
                                      .max_id_nbytes = options->max_id_nbytes,
                                      .allow_forced_variations = options->allow_forced_variations};
    hr_asked asked = {.request = call->request,
                      .experiments = options->experiments,
                      .may_force = options->allow_forced_variations,
                      .draw = call->received_ns};
    *out = NULL;
    hr_status status = hr_request_check(call->request, &limits, call->arena, &asked.attributes, err);
    if (status != HR_OK) return status;
    hr_call_state *state = hr_arena_calloc(call->arena, 1, sizeof *state);
    if (state == NULL) return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the request exceeds its memory cap");
    state->call = call;
    status = hr_assignment_make(repository, &asked, call->arena, &state->assignment, err);
    if (status == HR_OK) status = say_experiments(state, err);
    if (status != HR_OK) return status;
    const hr_model *model = state->assignment.model;
    state->report.model = hr_model_label(model);
    state->scheduled.model = model;
    state->scheduled.time = hr_servable_time(model);
    state->scheduled.n_rows = (uint32_t)call->request->n_item_ids;
    state->scheduled.class = call->priority;
    state->scheduled.received_ns = call->received_ns;
    state->scheduled.deadline_ns = call->deadline_ns;
    state->scheduled.patient = call->patient;
    state->scheduled.cancelled = &call->cancelled;
    state->scheduled.slot = &call->scheduled;
    *out = state;
    return HR_OK;
}

/* Of the time that a call has left its records may take three quarters: late ones are defaults, and those are
 * scored before its deadline. */
static uint64_t fetch_deadline_ns(const hr_rank_call *call, uint64_t now_ns) {
    if (call->deadline_ns == UINT64_MAX || call->deadline_ns <= now_ns) return call->deadline_ns;
    return call->deadline_ns - (call->deadline_ns - now_ns) / 4;
}

void hr_call_fetch(hr_call_state *state, hr_store *store, void (*done)(hr_fetch *fetch)) {
    const Homerank__V1__RankRequest *request = state->call->request;
    const hr_encoder *encoder = hr_servable_encoder(state->assignment.model);
    hr_fetch *fetch = &state->fetch;
    fetch->user_id = request->user_id;
    fetch->item_ids = (const char *const *)request->item_ids;
    fetch->n_items = request->n_item_ids;
    fetch->fields[HR_ENTITY_USER] = hr_encoder_fields(encoder, HR_ENTITY_USER);
    fetch->fields[HR_ENTITY_ITEM] = hr_encoder_fields(encoder, HR_ENTITY_ITEM);
    fetch->schema = hr_model_schema(state->assignment.model);
    state->fetch_begun_ns = hr_clock_ns();
    fetch->deadline_ns = fetch_deadline_ns(state->call, state->fetch_begun_ns);
    fetch->arena = state->call->arena;
    fetch->done = done;
    fetch->arg = state;
    state->fetched_when_opened = hr_store_is_synchronous(store);
    hr_store_fetch(store, fetch);
}

void hr_call_fetched(hr_call_state *state) {
    state->report.features_ns = hr_clock_ns() - state->fetch_begun_ns;
}

/* ---- Opening ---- */

static hr_status too_large(hr_error *err) {
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the answer exceeds the request's memory cap");
}

static hr_status add_warning(hr_rank_call *call, const char *text, hr_error *err) {
    Homerank__V1__RankResponse *response = call->response;
    char *copy = hr_arena_strndup(call->arena, text, strlen(text));
    if (copy == NULL) return too_large(err);
    response->warnings[response->n_warnings++] = copy;
    return HR_OK;
}

static hr_status response_create(hr_call_state *state, hr_error *err) {
    enum { MAX_WARNINGS = 4 };
    hr_rank_call *call = state->call;
    Homerank__V1__RankResponse *response = hr_arena_alloc(call->arena, sizeof *response);
    Homerank__V1__FeatureStatus *features = hr_arena_alloc(call->arena, sizeof *features);
    Homerank__V1__Timing *timing = hr_arena_alloc(call->arena, sizeof *timing);
    char **warnings = hr_arena_calloc(call->arena, MAX_WARNINGS, sizeof *warnings);
    const char *label = hr_model_label(state->assignment.model);
    char *model = hr_arena_strndup(call->arena, label, strlen(label));
    if (response == NULL || features == NULL || timing == NULL || warnings == NULL || model == NULL)
        return too_large(err);
    homerank__v1__rank_response__init(response);
    homerank__v1__feature_status__init(features);
    homerank__v1__timing__init(timing);
    response->request_id = call->request->request_id;
    response->model = model;
    response->features = features;
    response->timing = timing;
    response->warnings = warnings;
    call->response = response;
    return HR_OK;
}

/* The experiments that the user is in; what they decided and is not served is a warning. */
static hr_status report_experiments(hr_call_state *state, hr_error *err) {
    hr_rank_call *call = state->call;
    const hr_assignment *assignment = &state->assignment;
    const size_t n = assignment->decision.n_assigned;
    if (assignment->unserved != NULL) {
        char text[HR_ERROR_MESSAGE_SIZE + 64];
        snprintf(text, sizeof text, "experiments: left aside, for they cannot be served: %s",
                 assignment->unserved);
        return add_warning(call, text, err);
    }
    if (n == 0) return HR_OK;
    Homerank__V1__Assignment *all = hr_arena_calloc(call->arena, n, sizeof *all);
    Homerank__V1__Assignment **list = hr_arena_calloc(call->arena, n, sizeof(void *));
    if (all == NULL || list == NULL) return too_large(err);
    for (size_t i = 0; i < n; i++) {
        const hr_assigned *assigned = &assignment->decision.assigned[i];
        homerank__v1__assignment__init(&all[i]);
        all[i].experiment = (char *)assigned->experiment;
        all[i].variation = (int32_t)assigned->variation;
        all[i].variation_key = (char *)assigned->variation_key;
        all[i].bucket = assigned->bucket;
        all[i].in_experiment = true;
        list[i] = &all[i];
    }
    call->response->experiments = list;
    call->response->n_experiments = n;
    return HR_OK;
}

typedef struct record_counts {
    uint32_t n_missing;   /* items that the store does not have, or did not give */
    uint32_t n_stale;     /* items of which an older record stands in */
    uint32_t n_defaulted; /* records, the user's too, that the store did not give and nothing stands in for */
} record_counts;

static record_counts count_records(const hr_fetch *fetch) {
    record_counts counts = {.n_defaulted = !fetch->user.answered && !fetch->user.stale};
    if (fetch->items == NULL)
        counts.n_missing = (uint32_t)fetch->n_items; /* there was not even room to say more */
    for (size_t i = 0; fetch->items != NULL && i < fetch->n_items; i++) {
        const hr_record *record = &fetch->items[i];
        counts.n_missing += record->kind == HR_RECORD_MISSING;
        counts.n_stale += record->stale;
        counts.n_defaulted += !record->answered && !record->stale;
    }
    return counts;
}

/* The store has failed, and the caller takes what there is. */
static hr_status report_degradation(hr_call_state *state, const record_counts *counts, hr_error *err) {
    const hr_fetch *fetch = &state->fetch;
    const uint32_t n_stale = counts->n_stale + fetch->user.stale;
    char stale[40] = "", text[HR_ERROR_MESSAGE_SIZE + 128];
    state->call->response->features->store_error = (char *)fetch->error.message;
    if (n_stale > 0) snprintf(stale, sizeof stale, "%" PRIu32 " stale records", n_stale);
    snprintf(text, sizeof text, "features: %s%s%s used where the store did not answer: %s", stale,
             n_stale > 0 && counts->n_defaulted > 0 ? " and " : "",
             n_stale == 0 || counts->n_defaulted > 0 ? "defaults" : "", fetch->error.message);
    return add_warning(state->call, text, err);
}

/* What the caller is told of the features, and whether they may be used at all. */
static hr_status report_features(hr_call_state *state, bool strict, hr_error *err) {
    hr_rank_call *call = state->call;
    const hr_fetch *fetch = &state->fetch;
    const record_counts counts = count_records(fetch);
    Homerank__V1__FeatureStatus *features = call->response->features;
    features->user_found = fetch->user.kind != HR_RECORD_MISSING;
    features->items_missing = counts.n_missing;
    features->items_stale = counts.n_stale;
    state->report.user_missing = !features->user_found;
    state->report.items_missing = counts.n_missing;
    state->report.items_stale = counts.n_stale;
    state->report.store_failed = fetch->error.code != HR_OK;
    if (fetch->error.code == HR_OK) return HR_OK;
    if (call->request->strict_features || strict)
        return hr_error_set(err, HR_UNAVAILABLE, "features: %s", fetch->error.message);
    return report_degradation(state, &counts, err);
}

static hr_status encode_shared(hr_call_state *state, hr_arena *scratch, hr_error *err) {
    hr_rank_call *call = state->call;
    const hr_model *model = state->assignment.model;
    uint32_t n_invalid;
    hr_status status =
        hr_request_encode_shared(hr_servable_encoder(model), hr_model_schema(model), call->request,
                                 &state->fetch, call->arena, scratch, &state->slice, &n_invalid, err);
    if (status != HR_OK) return status;
    state->slice.logits =
        hr_arena_calloc(call->arena, (size_t)state->slice.n_rows * hr_model_plan(model)->n_tasks,
                        sizeof *state->slice.logits);
    if (state->slice.logits == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the scores exceed the request's memory cap");
    atomic_init(&state->n_invalid, n_invalid);
    return HR_OK;
}

hr_status hr_call_open(hr_call_state *state, bool strict_features, hr_arena *scratch, hr_error *err) {
    hr_status status = response_create(state, err);
    if (status == HR_OK) status = report_experiments(state, err);
    if (status == HR_OK) status = report_features(state, strict_features, err);
    return status == HR_OK ? encode_shared(state, scratch, err) : status;
}

/* ---- Rows ---- */

hr_status hr_call_encode_items(hr_call_state *state, uint32_t first, uint32_t n, hr_arena *scratch,
                               hr_error *err) {
    const hr_model *model = state->assignment.model;
    uint32_t n_invalid;
    hr_status status =
        hr_request_encode_items(hr_servable_encoder(model), hr_model_schema(model), state->call->request,
                                &state->fetch, scratch, &state->slice, first, n, &n_invalid, err);
    atomic_fetch_add_explicit(&state->n_invalid, n_invalid, memory_order_relaxed);
    return status;
}

hr_slice hr_call_slice(const hr_call_state *state, uint32_t first, uint32_t n) {
    const hr_model *model = state->assignment.model;
    hr_slice part = state->slice;
    part.items = (const uint32_t *)part.items + first * hr_row_words(hr_model_schema(model), HR_ENTITY_ITEM);
    part.logits += (size_t)first * hr_model_plan(model)->n_tasks;
    part.n_rows = n;
    return part;
}

/* ---- The end ---- */

hr_status hr_call_answer(hr_call_state *state, hr_error *err) {
    hr_rank_call *call = state->call;
    uint64_t begun_ns = hr_clock_ns();
    hr_ranking_scores scores;
    hr_status status = hr_ranking_fill(state->assignment.model, call->request, &state->assignment.choice,
                                       state->slice.logits, call->arena, call->response, &scores, err);
    if (status == HR_OK) {
        call->model = state->assignment.model;
        call->scores = scores.scores;
        call->outputs = scores.outputs;
    }
    if (status == HR_OK && scores.n_not_finite > 0) {
        char text[96];
        snprintf(text, sizeof text,
                 "%" PRIu32 " items have a score or output that is not finite and rank last",
                 scores.n_not_finite);
        status = add_warning(call, text, err);
    }
    state->report.model_ns = hr_clock_ns() - begun_ns;
    return status;
}

void hr_call_clock(hr_call_state *state) {
    const hr_rank_call *call = state->call;
    hr_call_report *report = &state->report;
    report->values_invalid = atomic_load(&state->n_invalid);
    report->encode_ns = state->scheduled.preparing_ns;
    if (state->fetched_when_opened && report->encode_ns >= report->features_ns)
        report->encode_ns -= report->features_ns;
    report->model_ns += state->scheduled.computing_ns;
    report->total_ns = hr_clock_ns() - call->received_ns;
    const uint64_t worked_ns = report->features_ns + report->encode_ns + report->model_ns;
    report->queue_ns = report->total_ns > worked_ns ? report->total_ns - worked_ns : 0;
    if (call->response == NULL) return;
    call->response->features->values_invalid = report->values_invalid;
    Homerank__V1__Timing *timing = call->response->timing;
    timing->queue_us = report->queue_ns / 1000;
    timing->features_us = (report->features_ns + report->encode_ns) / 1000;
    timing->model_us = report->model_ns / 1000;
    timing->total_us = report->total_ns / 1000;
}
