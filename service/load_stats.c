/* What was seen: see load_stats.h. */
#include "service/load_stats.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t NS_PER_S = 1000000000;

hr_load_stats *hr_load_stats_create(const hr_load_plan *plan) {
    hr_load_stats *stats = calloc(1, sizeof *stats);
    if (stats == NULL) return NULL;
    const uint64_t end_ns = hr_load_plan_end_ns(plan);
    const uint64_t n_seconds = (end_ns + NS_PER_S - 1) / NS_PER_S;
    stats->plan = plan;
    stats->interval_ns = (n_seconds + HR_LOAD_MAX_INTERVALS - 1) / HR_LOAD_MAX_INTERVALS * NS_PER_S;
    stats->n_intervals = (uint32_t)((end_ns + stats->interval_ns - 1) / stats->interval_ns);
    stats->phases = calloc(plan->n_phases, sizeof *stats->phases);
    stats->intervals = calloc(stats->n_intervals, sizeof *stats->intervals);
    if (stats->phases == NULL || stats->intervals == NULL) {
        hr_load_stats_destroy(stats);
        return NULL;
    }
    return stats;
}

void hr_load_stats_destroy(hr_load_stats *stats) {
    if (stats == NULL) return;
    free(stats->intervals);
    free(stats->phases);
    free(stats);
}

static hr_load_phase_stats *phase_at(hr_load_stats *stats, uint64_t at_ns) {
    return &stats->phases[hr_load_plan_phase_at(stats->plan, at_ns)];
}

static hr_load_interval_stats *interval_at(hr_load_stats *stats, uint64_t at_ns) {
    uint64_t i = at_ns / stats->interval_ns;
    return &stats->intervals[i < stats->n_intervals ? i : stats->n_intervals - 1];
}

static void keep_text(hr_load_stats *stats, const hr_load_outcome *outcome) {
    char *text = stats->texts[outcome->code];
    if (text[0] != '\0' || outcome->text_nbytes == 0) return;
    size_t nbytes = outcome->text_nbytes < HR_LOAD_TEXT_SIZE ? outcome->text_nbytes : HR_LOAD_TEXT_SIZE - 1;
    memcpy(text, outcome->text, nbytes);
    text[nbytes] = '\0';
}

void hr_load_stats_record(hr_load_stats *stats, const hr_load_outcome *outcome) {
    hr_load_phase_stats *phase = phase_at(stats, outcome->intended_ns);
    hr_load_interval_stats *interval = interval_at(stats, outcome->intended_ns);
    phase->counts.by_end[outcome->end]++;
    interval->counts.by_end[outcome->end]++;
    phase->by_status[outcome->code]++;
    hr_histogram_record(&phase->lag, outcome->lag_ns);
    if (outcome->end == HR_LOAD_ANSWERED) {
        phase->counts.n_items += outcome->n_items;
        interval->counts.n_items += outcome->n_items;
        hr_histogram_record(&phase->answered, outcome->latency_ns);
        hr_histogram_record(&interval->answered, outcome->latency_ns);
        for (int s = 0; s < HR_LOAD_STAGES && outcome->has_timing; s++)
            hr_histogram_record(&phase->stages[s], outcome->stage_us[s] * 1000);
        return;
    }
    keep_text(stats, outcome);
    if (outcome->end != HR_LOAD_REFUSED) return;
    hr_histogram_record(&phase->refused, outcome->latency_ns);
    hr_histogram_record(&interval->refused, outcome->latency_ns);
}

void hr_load_stats_not_sent(hr_load_stats *stats, uint64_t intended_ns) {
    phase_at(stats, intended_ns)->counts.not_sent++;
    interval_at(stats, intended_ns)->counts.not_sent++;
}

static void merge_counts(hr_load_counts *into, const hr_load_counts *from) {
    for (int e = 0; e < HR_LOAD_ENDS; e++) into->by_end[e] += from->by_end[e];
    into->not_sent += from->not_sent;
    into->n_items += from->n_items;
}

static void merge_phase(hr_load_phase_stats *into, const hr_load_phase_stats *from) {
    merge_counts(&into->counts, &from->counts);
    for (int c = 0; c < HR_LOAD_STATUSES; c++) into->by_status[c] += from->by_status[c];
    hr_histogram_merge(&into->answered, &from->answered);
    hr_histogram_merge(&into->refused, &from->refused);
    hr_histogram_merge(&into->lag, &from->lag);
    for (int s = 0; s < HR_LOAD_STAGES; s++) hr_histogram_merge(&into->stages[s], &from->stages[s]);
}

void hr_load_stats_merge(hr_load_stats *into, const hr_load_stats *from) {
    for (uint32_t p = 0; p < into->plan->n_phases; p++) merge_phase(&into->phases[p], &from->phases[p]);
    for (uint32_t i = 0; i < into->n_intervals; i++) {
        merge_counts(&into->intervals[i].counts, &from->intervals[i].counts);
        hr_histogram_merge(&into->intervals[i].answered, &from->intervals[i].answered);
        hr_histogram_merge(&into->intervals[i].refused, &from->intervals[i].refused);
    }
    for (int c = 0; c < HR_LOAD_STATUSES; c++)
        if (into->texts[c][0] == '\0') memcpy(into->texts[c], from->texts[c], HR_LOAD_TEXT_SIZE);
}

uint64_t hr_load_counts_sent(const hr_load_counts *counts) {
    uint64_t sent = 0;
    for (int e = 0; e < HR_LOAD_ENDS; e++) sent += counts->by_end[e];
    return sent;
}

const char *hr_load_status_name(int code) {
    static const char *const names[HR_LOAD_STATUSES] = {
        "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED",
    };
    return names[code];
}
