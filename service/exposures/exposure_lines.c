/* Exposures as JSON lines: see exposure_lines.h.
 *
 * Written twice: once to measure, once for good. Texts are valid UTF-8 (the request was checked) and are
 * escaped as JSON wants it. */
#include "service/exposures/exposure_lines.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct text {
    char *bytes; /* NULL: only measure */
    size_t nbytes;
} text;

static void put(text *t, const char *bytes, size_t nbytes) {
    if (t->bytes != NULL) memcpy(t->bytes + t->nbytes, bytes, nbytes);
    t->nbytes += nbytes;
}

static void put_text(text *t, const char *string) {
    put(t, string, strlen(string));
}

static void put_escaped(text *t, const char *string) {
    put_text(t, "\"");
    for (const char *at = string; *at != '\0';) {
        size_t plain = 0;
        while ((unsigned char)at[plain] >= 0x20 && at[plain] != '"' && at[plain] != '\\') plain++;
        put(t, at, plain);
        at += plain;
        if (*at == '\0') break;
        char escape[8];
        put(t, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", (unsigned char)*at++));
    }
    put_text(t, "\"");
}

/* Of the shortest forms that give the number back, one that does. */
static void put_number(text *t, double number) {
    char shown[32];
    snprintf(shown, sizeof shown, "%.15g", number);
    if (strtod(shown, NULL) != number) snprintf(shown, sizeof shown, "%.17g", number);
    put_text(t, shown);
}

static void put_member(text *t, const char *name, const char *value) {
    put_text(t, name);
    put_escaped(t, value);
}

static void put_time(text *t, uint64_t time_us) {
    char seconds[32], micros[16];
    time_t whole = (time_t)(time_us / 1000000u);
    struct tm parts;
    gmtime_r(&whole, &parts);
    put(t, seconds, strftime(seconds, sizeof seconds, "{\"time\":\"%Y-%m-%dT%H:%M:%S", &parts));
    snprintf(micros, sizeof micros, ".%06" PRIu64 "Z\"", time_us % 1000000u);
    put_text(t, micros);
}

static void put_assignment(text *t, const Homerank__V1__Assignment *a) {
    char variation[48];
    put_member(t, ",\"experiment\":", a->experiment);
    snprintf(variation, sizeof variation, ",\"variation\":%" PRId32, a->variation);
    put_text(t, variation);
    put_member(t, ",\"variation_key\":", a->variation_key);
    put_text(t, ",\"bucket\":");
    put_number(t, a->bucket);
    put_text(t, a->in_experiment ? ",\"in_experiment\":true" : ",\"in_experiment\":false");
}

static void put_lines(text *t, const Homerank__V1__RankRequest *request,
                      const Homerank__V1__RankResponse *response, const char *file, uint64_t time_us) {
    for (size_t i = 0; i < response->n_experiments; i++) {
        put_time(t, time_us);
        put_member(t, ",\"request_id\":", request->request_id);
        put_member(t, ",\"user_id\":", request->user_id);
        put_assignment(t, response->experiments[i]);
        put_member(t, ",\"model\":", response->model);
        put_member(t, ",\"file\":", file);
        put_text(t, "}\n");
    }
}

hr_exposure_lines *hr_exposure_lines_make(const Homerank__V1__RankRequest *request,
                                          const Homerank__V1__RankResponse *response, const char *file,
                                          uint64_t time_us) {
    text measured = {0};
    put_lines(&measured, request, response, file, time_us);
    hr_exposure_lines *lines = malloc(sizeof *lines + measured.nbytes);
    if (lines == NULL) return NULL;
    text written = {.bytes = lines->bytes};
    put_lines(&written, request, response, file, time_us);
    lines->nbytes = written.nbytes;
    lines->n_lines = (uint32_t)response->n_experiments;
    return lines;
}

static void put_number_member(text *t, const char *name, double value) {
    put_text(t, name);
    put_number(t, value);
}

static void put_shadow(text *t, const hr_shadow_line *line, uint64_t time_us) {
    put_time(t, time_us);
    put_member(t, ",\"request_id\":", line->request_id);
    put_member(t, ",\"user_id\":", line->user_id);
    put_member(t, ",\"shadow\":{\"model\":", line->shadow_model);
    put_member(t, ",\"answered\":", line->model);
    put_number_member(t, ",\"items\":", line->n_items);
    if (line->has_correlation)
        put_number_member(t, ",\"rank_correlation\":", line->rank_correlation);
    else
        put_text(t, ",\"rank_correlation\":null");
    put_number_member(t, ",\"top10_overlap\":", line->top_overlap);
    put_text(t, ",\"mean_absolute_difference\":{");
    for (uint32_t i = 0; i < line->n_tasks; i++) {
        if (i > 0) put_text(t, ",");
        put_escaped(t, line->tasks[i]);
        put_number_member(t, ":", line->differences[i]);
    }
    put_member(t, "}},\"file\":", line->file);
    put_text(t, "}\n");
}

hr_exposure_lines *hr_shadow_line_make(const hr_shadow_line *line, uint64_t time_us) {
    text measured = {0};
    put_shadow(&measured, line, time_us);
    hr_exposure_lines *lines = malloc(sizeof *lines + measured.nbytes);
    if (lines == NULL) return NULL;
    text written = {.bytes = lines->bytes};
    put_shadow(&written, line, time_us);
    lines->nbytes = written.nbytes;
    lines->n_lines = 1;
    return lines;
}
