/* Requests through an observed forward pass: see diagnostics_data.h. */
#include "service/diagnostics_data.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/text_file.h"
#include "features/encoder.h"
#include "features/store.h"
#include "proto/json.h"
#include "service/request_check.h"
#include "service/request_encode.h"

enum { MAX_ITEMS = 100000, MAX_ID_NBYTES = 4096, CALL_CAP_NBYTES = 256 << 20, SCRATCH_CAP_NBYTES = 1 << 20 };

typedef struct reading {
    const hr_diagnostics_source *source;
    hr_diagnostics *diagnostics;
    hr_diagnostics_counts *counts;
    hr_line_reader *reader;
    hr_store *store;
    hr_encoder *encoder;
    hr_engine *engine;
    hr_worker *worker;
    hr_arena *arena;   /* one request's */
    hr_arena *scratch; /* for the encoder */
} reading;

static hr_status fetch_records(const reading *r, const Homerank__V1__RankRequest *request, hr_fetch *fetch,
                               hr_error *err) {
    *fetch = (hr_fetch){
        .user_id = request->user_id,
        .item_ids = (const char *const *)request->item_ids,
        .n_items = request->n_item_ids,
        .fields = {[HR_ENTITY_USER] = hr_encoder_fields(r->encoder, HR_ENTITY_USER),
                   [HR_ENTITY_ITEM] = hr_encoder_fields(r->encoder, HR_ENTITY_ITEM)},
        .deadline_ns = UINT64_MAX,
        .arena = r->arena,
    };
    hr_store_fetch_wait(r->store, fetch);
    if (fetch->error.code == HR_OK) return HR_OK;
    return hr_error_set(err, HR_UNAVAILABLE, "features: %s", fetch->error.message);
}

/* The request's first rows, as many as are still wanted. */
static hr_status observe(const reading *r, hr_slice *slice, hr_error *err) {
    const hr_plan *plan = hr_diagnostics_plan(r->diagnostics);
    hr_observer observer = hr_diagnostics_observer(r->diagnostics);
    if (slice->n_rows > r->source->max_rows - r->counts->n_rows)
        slice->n_rows = (uint32_t)(r->source->max_rows - r->counts->n_rows);
    slice->logits = hr_arena_calloc(r->arena, (size_t)slice->n_rows * plan->n_tasks, sizeof *slice->logits);
    if (slice->logits == NULL)
        return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "the request's logits do not fit");
    hr_status status = hr_observe(r->worker, slice, 1, &observer, err);
    if (status == HR_OK) hr_diagnostics_add_logits(r->diagnostics, slice->logits, slice->n_rows);
    return status;
}

static void count(const reading *r, const hr_fetch *fetch, uint32_t n_rows, uint32_t n_invalid) {
    r->counts->n_requests++;
    r->counts->n_rows += n_rows;
    r->counts->n_invalid += n_invalid;
    r->counts->n_users_missing += fetch->user.kind == HR_RECORD_MISSING;
    for (uint32_t i = 0; i < n_rows; i++)
        r->counts->n_items_missing += fetch->items == NULL || fetch->items[i].kind == HR_RECORD_MISSING;
}

static hr_status parse_request(const reading *r, const char *line, size_t nbytes,
                               Homerank__V1__RankRequest **request, hr_error *err) {
    const hr_request_limits limits = {.max_items = MAX_ITEMS, .max_id_nbytes = MAX_ID_NBYTES};
    const hr_experiments_attributes *attributes;
    json_t *value = NULL;
    hr_status status = hr_json_parse(line, nbytes, &value, err);
    if (status == HR_OK) status = hr_json_to_request(value, r->arena, request, err);
    json_decref(value);
    if (status == HR_OK) status = hr_request_check(*request, &limits, r->arena, &attributes, err);
    return status;
}

/* A line that is no request, or one that the model cannot read, is INVALID_ARGUMENT or RESOURCE_EXHAUSTED. */
static hr_status read_request(const reading *r, const char *line, size_t nbytes, hr_error *err) {
    Homerank__V1__RankRequest *request = NULL;
    hr_fetch fetch;
    hr_slice slice;
    uint32_t n_invalid = 0;
    hr_arena_reset(r->arena);
    hr_status status = parse_request(r, line, nbytes, &request, err);
    if (status == HR_OK) status = fetch_records(r, request, &fetch, err);
    if (status == HR_OK)
        status = hr_request_encode(r->encoder, hr_diagnostics_plan(r->diagnostics)->schema, request, &fetch,
                                   r->arena, r->scratch, &slice, &n_invalid, err);
    if (status == HR_OK) status = observe(r, &slice, err);
    if (status == HR_OK) count(r, &fetch, slice.n_rows, n_invalid);
    return status;
}

static hr_status read_lines(const reading *r, hr_error *err) {
    while (r->counts->n_rows < r->source->max_rows) {
        const char *line = NULL;
        size_t nbytes;
        hr_error error;
        hr_status status = hr_line_reader_next(r->reader, &line, &nbytes, &error);
        if (status == HR_OK && line == NULL) break;
        if (status == HR_OK) status = read_request(r, line, nbytes, &error);
        if (status == HR_INVALID_ARGUMENT || status == HR_RESOURCE_EXHAUSTED) {
            r->counts->n_bad_lines++;
            fprintf(stderr, "%s:%" PRIu64 ": %s\n", r->source->path, hr_line_reader_number(r->reader),
                    error.message);
        } else if (status != HR_OK) {
            if (err != NULL) *err = error;
            return status;
        }
    }
    if (r->counts->n_rows > 0) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "%s: expected at least one request with an item, found none",
                        hr_quote(r->source->path, strlen(r->source->path)).text);
}

static hr_status open_all(reading *r, hr_error *err) {
    const hr_plan *plan = hr_diagnostics_plan(r->diagnostics);
    hr_status status = hr_line_reader_open(r->source->path, HR_LINE_MAX_NBYTES, NULL, &r->reader, err);
    if (status == HR_OK) status = hr_store_open(r->source->store, &hr_store_defaults, &r->store, err);
    if (status == HR_OK) status = hr_encoder_create(plan->schema, &r->encoder, err);
    if (status == HR_OK) status = hr_engine_create("reference", HR_PRECISION_F32, plan, &r->engine, err);
    if (status == HR_OK) status = hr_worker_create(r->engine, &r->worker, err);
    r->arena = hr_arena_create(CALL_CAP_NBYTES);
    r->scratch = hr_arena_create(SCRATCH_CAP_NBYTES);
    if (status == HR_OK && (r->arena == NULL || r->scratch == NULL))
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "inspect: a request's memory");
    return status;
}

hr_status hr_diagnostics_read(const hr_diagnostics_source *source, hr_diagnostics *diagnostics,
                              hr_diagnostics_counts *counts, hr_error *err) {
    reading r = {.source = source, .diagnostics = diagnostics, .counts = counts};
    *counts = (hr_diagnostics_counts){0};
    hr_status status = open_all(&r, err);
    if (status == HR_OK) status = read_lines(&r, err);
    hr_arena_destroy(r.scratch);
    hr_arena_destroy(r.arena);
    hr_worker_destroy(r.worker);
    hr_engine_destroy(r.engine);
    hr_encoder_destroy(r.encoder);
    hr_store_close(r.store);
    hr_line_reader_close(r.reader);
    return status;
}
