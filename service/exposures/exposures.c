/* The exposure log: see exposures.h. */
#include "service/exposures/exposures.h"

#include <stdlib.h>

#include "base/clock.h"
#include "features/redis_stream.h"
#include "service/exposures/exposure_file.h"

struct hr_exposures {
    hr_sink *sinks[HR_EXPOSURES_MAX_SINKS]; /* (n_sinks) owned */
    size_t n_sinks;
    uint32_t grace_ms;
};

static hr_status stream_write(void *place, const char *lines, size_t nbytes, size_t *n_done, hr_error *err) {
    return hr_redis_stream_add(place, lines, nbytes, n_done, err);
}

static void stream_destroy(void *place) {
    hr_redis_stream_close(place);
}

static const hr_sink_place_i stream_i = {.name = "stream", .write = stream_write, .destroy = stream_destroy};

static hr_status add_sink(hr_exposures *exposures, const hr_sink_place_i *i, void *place, size_t max_nbytes,
                          hr_error *err) {
    hr_status status = hr_sink_create(i, place, max_nbytes, &exposures->sinks[exposures->n_sinks], err);
    exposures->n_sinks += status == HR_OK;
    return status;
}

static hr_status add_file(hr_exposures *exposures, const hr_exposures_options *options, hr_error *err) {
    const hr_exposure_file_options file = {options->path, options->max_file_nbytes, options->max_file_age_s};
    void *place;
    hr_status status = hr_exposure_file_open(&file, &place, err);
    if (status != HR_OK) return hr_error_prefix(err, "exposures");
    return add_sink(exposures, &hr_exposure_file_i, place, options->max_waiting_nbytes, err);
}

static hr_status add_stream(hr_exposures *exposures, const hr_exposures_options *options, hr_error *err) {
    hr_redis_stream *stream;
    hr_status status = hr_redis_stream_open(options->stream, options->stream_maxlen, &stream, err);
    if (status != HR_OK) return hr_error_prefix(err, "exposures");
    return add_sink(exposures, &stream_i, stream, options->max_waiting_nbytes, err);
}

hr_status hr_exposures_open(const hr_exposures_options *options, hr_exposures **result, hr_error *err) {
    *result = NULL;
    hr_exposures *exposures = calloc(1, sizeof *exposures);
    if (exposures == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "out of memory for the exposures");
    exposures->grace_ms = options->grace_ms;
    hr_status status = HR_OK;
    if (options->path[0] != '\0') status = add_file(exposures, options, err);
    if (status == HR_OK && options->stream[0] != '\0') status = add_stream(exposures, options, err);
    if (status != HR_OK) {
        hr_exposures_close(exposures);
        return status;
    }
    *result = exposures;
    return HR_OK;
}

void hr_exposures_close(hr_exposures *exposures) {
    if (exposures == NULL) return;
    const uint64_t end_ns = hr_clock_ns() + exposures->grace_ms * UINT64_C(1000000); /* of all */
    for (size_t i = 0; i < exposures->n_sinks; i++) hr_sink_destroy(exposures->sinks[i], end_ns);
    free(exposures);
}

void hr_exposures_log(hr_exposures *exposures, hr_exposure_lines *lines) {
    for (size_t i = 0; i < exposures->n_sinks; i++)
        hr_sink_put(exposures->sinks[i], lines->bytes, lines->nbytes, lines->n_lines);
    free(lines);
}

size_t hr_exposures_count(hr_exposures *exposures, hr_exposures_counts counts[HR_EXPOSURES_MAX_SINKS]) {
    for (size_t i = 0; i < exposures->n_sinks; i++) {
        counts[i].name = hr_sink_name(exposures->sinks[i]);
        hr_sink_count(exposures->sinks[i], &counts[i].counts);
    }
    return exposures->n_sinks;
}

void hr_exposures_collect(hr_metrics_text *text, void *arg) {
    hr_exposures_counts sinks[HR_EXPOSURES_MAX_SINKS];
    const size_t n = hr_exposures_count(arg, sinks);
    hr_metrics_text_family(text, HR_METRIC_COUNTER, "homerank_exposures_written_total",
                           "Exposures of sent answers that were written.");
    for (size_t i = 0; i < n; i++)
        hr_metrics_text_sample(text, (double)sinks[i].counts.written, &(hr_label){"sink", sinks[i].name}, 1);
    hr_metrics_text_family(text, HR_METRIC_COUNTER, "homerank_exposures_dropped_total",
                           "Exposures of sent answers that were lost: too many waited to be written.");
    for (size_t i = 0; i < n; i++)
        hr_metrics_text_sample(text, (double)sinks[i].counts.dropped, &(hr_label){"sink", sinks[i].name}, 1);
    hr_metrics_text_family(text, HR_METRIC_GAUGE, "homerank_exposures_waiting",
                           "Exposures of sent answers that wait to be written.");
    for (size_t i = 0; i < n; i++)
        hr_metrics_text_sample(text, (double)sinks[i].counts.waiting, &(hr_label){"sink", sinks[i].name}, 1);
}
