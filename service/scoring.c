/* Offline scoring: see scoring.h.
 *
 * A ring of slots: the caller's thread reads and submits into free ones and writes the oldest as soon as it
 * is done, so that answers keep the order of the requests while all workers are busy.
 */
#include "service/scoring.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/text_file.h"
#include "proto/json.h"

typedef struct scoring scoring;

typedef struct slot {
    scoring *owner;
    hr_rank_call call;
    uint64_t line;
    bool done; /* guarded by owner->finished_lock */
} slot;

struct scoring {
    hr_pipeline *pipeline;
    const hr_scoring_options *options;
    hr_scoring_result *result;
    hr_line_reader *reader;
    hr_line_writer *writer;
    slot *slots; /* ring of options->n_in_flight */
    uint64_t n_submitted, n_written;
    uint64_t n_items; /* of the requests between the two */
    pthread_mutex_t finished_lock;
    pthread_cond_t finished;
};

static void call_done(hr_rank_call *call) {
    slot *s = call->arg;
    pthread_mutex_lock(&s->owner->finished_lock);
    s->done = true;
    pthread_cond_signal(&s->owner->finished);
    pthread_mutex_unlock(&s->owner->finished_lock);
}

static void report_failure(scoring *sc, uint64_t line, const char *message) {
    sc->result->n_failed++;
    fprintf(stderr, "%s:%" PRIu64 ": %s\n", sc->options->in_path, line, message);
}

static hr_status write_response(scoring *sc, const Homerank__V1__RankResponse *response, hr_error *err) {
    json_t *value = hr_json_from_response(response, false);
    char *text = value == NULL ? NULL : json_dumps(value, HR_JSON_RESPONSE_FLAGS);
    json_decref(value);
    if (text == NULL)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "an answer of %zu items", response->n_item_ids);
    hr_status status = hr_line_writer_put(sc->writer, text, strlen(text), err);
    free(text);
    return status;
}

/* Waits for the oldest call and writes its answer. */
static hr_status write_oldest(scoring *sc, hr_error *err) {
    slot *s = &sc->slots[sc->n_written % sc->options->n_in_flight];
    pthread_mutex_lock(&sc->finished_lock);
    while (!s->done) pthread_cond_wait(&sc->finished, &sc->finished_lock);
    pthread_mutex_unlock(&sc->finished_lock);
    sc->n_written++;
    const hr_rank_call *call = &s->call;
    sc->n_items -= call->request->n_item_ids;
    if (call->error.code != HR_OK) {
        report_failure(sc, s->line, call->error.message);
        return HR_OK;
    }
    sc->result->n_scored++;
    sc->result->n_items += call->response->n_item_ids;
    sc->result->n_warnings += call->response->n_warnings > 0;
    return write_response(sc, call->response, err);
}

static hr_status parse_line(slot *s, const char *line, size_t nbytes, hr_error *err) {
    json_t *value = NULL;
    Homerank__V1__RankRequest *request = NULL;
    hr_status status = hr_json_parse(line, nbytes, &value, err);
    if (status == HR_OK) status = hr_json_to_request(value, s->call.arena, &request, err);
    json_decref(value);
    s->call.request = request;
    return status;
}

/* Writes until there is room for n_items more, or nothing under way. */
static hr_status make_room(scoring *sc, size_t n_items, hr_error *err) {
    hr_status status = HR_OK;
    while (status == HR_OK && sc->n_written < sc->n_submitted &&
           sc->n_items + n_items > sc->options->n_items_in_flight)
        status = write_oldest(sc, err);
    return status;
}

/* Submits one line into the next free slot; a line that is no request is reported and takes none. */
static hr_status submit_line(scoring *sc, const char *line, size_t nbytes, hr_error *err) {
    slot *s = &sc->slots[sc->n_submitted % sc->options->n_in_flight];
    hr_error error;
    s->line = hr_line_reader_number(sc->reader);
    s->done = false;
    hr_arena_reset(s->call.arena);
    if (parse_line(s, line, nbytes, &error) != HR_OK) {
        report_failure(sc, s->line, error.message);
        return HR_OK;
    }
    hr_status status = make_room(sc, s->call.request->n_item_ids, err);
    if (status != HR_OK) return status;
    sc->n_items += s->call.request->n_item_ids;
    s->call.received_ns = hr_clock_ns();
    s->call.deadline_ns = UINT64_MAX;
    sc->n_submitted++;
    hr_pipeline_submit(sc->pipeline, &s->call);
    return HR_OK;
}

static hr_status score_lines(scoring *sc, hr_error *err) {
    for (;;) {
        const char *line;
        size_t nbytes;
        if (sc->n_submitted - sc->n_written == sc->options->n_in_flight) {
            hr_status status = write_oldest(sc, err);
            if (status != HR_OK) return status;
        }
        if (sc->options->stop != NULL && atomic_load(sc->options->stop))
            return hr_error_set(err, HR_CANCELLED, "stopped before line %" PRIu64,
                                hr_line_reader_number(sc->reader) + 1);
        hr_status status = hr_line_reader_next(sc->reader, &line, &nbytes, err);
        if (status == HR_INVALID_ARGUMENT) {
            report_failure(sc, hr_line_reader_number(sc->reader), err->message);
            continue;
        }
        if (status == HR_OK && line != NULL) status = submit_line(sc, line, nbytes, err);
        if (status != HR_OK || line == NULL) return status;
    }
}

/* Opening the output empties it: it must not be the input. */
static hr_status check_paths(const hr_scoring_options *options, hr_error *err) {
    struct stat in, out;
    if (stat(options->in_path, &in) != 0 || stat(options->out_path, &out) != 0) return HR_OK;
    if (!S_ISREG(in.st_mode) || in.st_dev != out.st_dev || in.st_ino != out.st_ino) return HR_OK;
    return hr_error_set(err, HR_INVALID_ARGUMENT,
                        "%s: expected an output other than the input, found the same file",
                        options->out_path);
}

static hr_status slots_create(scoring *sc, hr_error *err) {
    sc->slots = calloc(sc->options->n_in_flight, sizeof *sc->slots);
    if (sc->slots == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "score: requests in flight");
    for (uint32_t i = 0; i < sc->options->n_in_flight; i++) {
        slot *s = &sc->slots[i];
        s->owner = sc;
        s->call.done = call_done;
        s->call.patient = true;
        s->call.arg = s;
        s->call.arena = hr_arena_create(sc->options->max_call_nbytes);
        if (s->call.arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "score: requests in flight");
    }
    return HR_OK;
}

static void slots_destroy(scoring *sc) {
    if (sc->slots == NULL) return;
    for (uint32_t i = 0; i < sc->options->n_in_flight; i++) hr_arena_destroy(sc->slots[i].call.arena);
    free(sc->slots);
}

/* What is under way is finished and, unless writing failed, written, whatever ended the reading. */
static hr_status finish_slots(scoring *sc, hr_status status, hr_error *err) {
    hr_error ignored;
    while (sc->n_written < sc->n_submitted) {
        hr_status written = write_oldest(sc, status == HR_OK ? err : &ignored);
        if (status == HR_OK) status = written;
    }
    return status;
}

hr_status hr_score_file(hr_pipeline *pipeline, const hr_scoring_options *options, hr_scoring_result *result,
                        hr_error *err) {
    scoring sc = {.pipeline = pipeline,
                  .options = options,
                  .result = result,
                  .finished_lock = PTHREAD_MUTEX_INITIALIZER,
                  .finished = PTHREAD_COND_INITIALIZER};
    *result = (hr_scoring_result){0};
    hr_status status =
        hr_line_reader_open(options->in_path, HR_LINE_MAX_NBYTES, options->stop, &sc.reader, err);
    if (status == HR_OK) status = check_paths(options, err);
    if (status == HR_OK) status = hr_line_writer_open(options->out_path, &sc.writer, err);
    if (status == HR_OK) status = slots_create(&sc, err);
    if (status == HR_OK) status = score_lines(&sc, err);
    status = finish_slots(&sc, status, err);
    hr_error close_error;
    hr_status closed = hr_line_writer_close(sc.writer, &close_error);
    if (status == HR_OK && closed != HR_OK) {
        status = closed;
        if (err != NULL) *err = close_error;
    }
    slots_destroy(&sc);
    hr_line_reader_close(sc.reader);
    return status;
}
