/* A load generator's report, as tables and as JSON: see load_print.h. */
#include "service/load_print.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "base/arena.h"
#include "service/text_table.h"

enum { TABLES_CAP_NBYTES = 16 << 20 };

static const struct quantile {
    const char *name;
    double q;
} QUANTILES[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};
/* sent, the ends, not sent */
enum { COUNT_COLUMNS = HR_LOAD_ENDS + 2 };

enum { N_QUANTILES = sizeof QUANTILES / sizeof QUANTILES[0] };

static const char *const END_NAMES[HR_LOAD_ENDS] = {"answered", "refused", "late", "cancelled", "failed"};
static const char *const STAGE_NAMES[HR_LOAD_STAGES] = {"queue", "features", "model", "total"};

/* Past this the generator, not the server, made the figures. */
static const uint64_t MUCH_LAG_NS = 1000000;

static double seconds_of(const hr_load_phase *phase) {
    return (double)(phase->end_ns - phase->begin_ns) / 1e9;
}

/* ---- Tables ---- */

static hr_status out_of_memory(hr_error *err) {
    return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the report");
}

static bool add_counts(hr_text_table *table, const hr_load_counts *counts) {
    bool ok = hr_text_table_cellf(table, "%" PRIu64, hr_load_counts_sent(counts));
    for (int e = 0; e < HR_LOAD_ENDS; e++)
        ok = ok && hr_text_table_cellf(table, "%" PRIu64, counts->by_end[e]);
    return ok && hr_text_table_cellf(table, "%" PRIu64, counts->not_sent);
}

static void add_count_columns(hr_text_table *table) {
    hr_text_table_column(table, "sent", true);
    for (int e = 0; e < HR_LOAD_ENDS; e++) hr_text_table_column(table, END_NAMES[e], true);
    hr_text_table_column(table, "not sent", true);
}

static hr_status print_phases(const hr_load_stats *stats, hr_arena *arena, hr_error *err) {
    const hr_load_plan *plan = stats->plan;
    hr_text_table *table = hr_text_table_create(arena, 4 + COUNT_COLUMNS, plan->n_phases);
    if (table == NULL) return out_of_memory(err);
    hr_text_table_column(table, plan->n_in_flight > 0 ? "in flight" : "requests/s", true);
    hr_text_table_column(table, "seconds", true);
    add_count_columns(table);
    hr_text_table_column(table, "answers/s", true);
    hr_text_table_column(table, "items/s", true);
    bool ok = true;
    for (uint32_t p = 0; p < plan->n_phases && ok; p++) {
        const hr_load_phase *phase = &plan->phases[p];
        const hr_load_counts *counts = &stats->phases[p].counts;
        const double seconds = seconds_of(phase);
        if (phase->warm_up) continue;
        ok = (plan->n_in_flight > 0 ? hr_text_table_cellf(table, "%" PRIu32, plan->n_in_flight)
                                    : hr_text_table_cellf(table, "%g", phase->rate)) &&
             hr_text_table_cellf(table, "%g", seconds) && add_counts(table, counts) &&
             hr_text_table_cellf(table, "%.1f", (double)counts->by_end[HR_LOAD_ANSWERED] / seconds) &&
             hr_text_table_cellf(table, "%.0f", (double)counts->n_items / seconds);
    }
    if (!ok) return out_of_memory(err);
    hr_text_table_print(table, stdout);
    return HR_OK;
}

static bool add_histogram(hr_text_table *table, const char *name, const hr_histogram *histogram) {
    if (histogram->count == 0) return true;
    bool ok = hr_text_table_cell(table, name) && hr_text_table_cellf(table, "%" PRIu64, histogram->count);
    for (int i = 0; i < N_QUANTILES && ok; i++)
        ok = hr_text_table_cellf(table, "%.3f",
                                 (double)hr_histogram_quantile(histogram, QUANTILES[i].q) / 1e6);
    return ok;
}

static hr_status print_latencies(const hr_load_phase_stats *phase, hr_arena *arena, hr_error *err) {
    hr_text_table *table = hr_text_table_create(arena, 2 + N_QUANTILES, 3 + HR_LOAD_STAGES);
    if (table == NULL) return out_of_memory(err);
    hr_text_table_column(table, "milliseconds", false);
    hr_text_table_column(table, "calls", true);
    for (int i = 0; i < N_QUANTILES; i++) hr_text_table_column(table, QUANTILES[i].name, true);
    bool ok = add_histogram(table, "answered", &phase->answered);
    for (int s = 0; s < HR_LOAD_STAGES && ok; s++) {
        char name[32];
        snprintf(name, sizeof name, "  server's %s", STAGE_NAMES[s]);
        ok = add_histogram(table, name, &phase->stages[s]);
    }
    ok = ok && add_histogram(table, "refused", &phase->refused) &&
         add_histogram(table, "send lag", &phase->lag);
    if (!ok) return out_of_memory(err);
    hr_text_table_print(table, stdout);
    return HR_OK;
}

static void print_heading(const hr_load_plan *plan, uint32_t p) {
    if (plan->n_in_flight > 0)
        printf("\nclosed loop, %" PRIu32 " in flight\n\n", plan->n_in_flight);
    else
        printf("\nopen loop, %g requests/s from second %g on\n\n", plan->phases[p].rate,
               (double)plan->phases[p].begin_ns / 1e9);
}

static void print_statuses(const hr_load_stats *stats) {
    for (int code = 1; code < HR_LOAD_STATUSES; code++) {
        uint64_t n = 0;
        for (uint32_t p = 0; p < stats->plan->n_phases; p++) n += stats->phases[p].by_status[code];
        if (n == 0) continue;
        printf("\n%s, %" PRIu64 " times", hr_load_status_name(code), n);
        if (stats->texts[code][0] != '\0') fputs(": ", stdout);
        hr_text_print_safe(stats->texts[code], stdout);
    }
    putchar('\n');
}

static hr_status print_timeline(const hr_load_stats *stats, hr_arena *arena, hr_error *err) {
    static const char *const columns[] = {"p50", "p99", "max", "refused p99"};
    hr_text_table *table = hr_text_table_create(arena, 5 + COUNT_COLUMNS, stats->n_intervals);
    if (table == NULL) return out_of_memory(err);
    hr_text_table_column(table, "second", true);
    add_count_columns(table);
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        hr_text_table_column(table, columns[i], true);
    bool ok = true;
    for (uint32_t i = 0; i < stats->n_intervals && ok; i++) {
        const hr_load_interval_stats *in = &stats->intervals[i];
        const uint64_t ns[] = {hr_histogram_quantile(&in->answered, 0.5),
                               hr_histogram_quantile(&in->answered, 0.99), in->answered.max,
                               hr_histogram_quantile(&in->refused, 0.99)};
        ok = hr_text_table_cellf(table, "%" PRIu64, i * (stats->interval_ns / 1000000000)) &&
             add_counts(table, &in->counts);
        for (size_t q = 0; q < sizeof ns / sizeof ns[0] && ok; q++)
            ok = hr_text_table_cellf(table, "%.3f", (double)ns[q] / 1e6);
    }
    if (!ok) return out_of_memory(err);
    putchar('\n');
    hr_text_table_print(table, stdout);
    return HR_OK;
}

/* A figure of a generator that could not keep up is none of the server's. */
static void print_warnings(const hr_load_stats *stats) {
    for (uint32_t p = 0; p < stats->plan->n_phases; p++) {
        const hr_load_phase_stats *phase = &stats->phases[p];
        const uint64_t lag_ns = hr_histogram_quantile(&phase->lag, 0.99);
        if (stats->plan->phases[p].warm_up || (lag_ns < MUCH_LAG_NS && phase->counts.not_sent == 0)) continue;
        printf(
            "\nwarning: the generator could not keep up with %g requests/s: 1 %% of the calls left %.1f ms "
            "late or later, %" PRIu64 " were not sent\n",
            stats->plan->phases[p].rate, (double)lag_ns / 1e6, phase->counts.not_sent);
    }
}

hr_status hr_load_print_tables(const hr_load_stats *stats, bool timeline, hr_error *err) {
    hr_arena *arena = hr_arena_create(TABLES_CAP_NBYTES);
    if (arena == NULL) return out_of_memory(err);
    hr_status status = print_phases(stats, arena, err);
    for (uint32_t p = 0; p < stats->plan->n_phases && status == HR_OK; p++) {
        if (stats->plan->phases[p].warm_up || hr_load_counts_sent(&stats->phases[p].counts) == 0) continue;
        print_heading(stats->plan, p);
        status = print_latencies(&stats->phases[p], arena, err);
    }
    if (status == HR_OK && timeline) status = print_timeline(stats, arena, err);
    if (status == HR_OK) {
        print_statuses(stats);
        print_warnings(stats);
    }
    hr_arena_destroy(arena);
    return status;
}

/* ---- JSON ---- */

/* Microseconds. */
static json_t *histogram_json(const hr_histogram *histogram) {
    json_t *value = json_object();
    json_object_set_new(value, "count", json_integer((json_int_t)histogram->count));
    if (histogram->count == 0) return value;
    json_object_set_new(value, "mean", json_real((double)histogram->sum / (double)histogram->count / 1e3));
    for (int i = 0; i < N_QUANTILES; i++)
        json_object_set_new(value, QUANTILES[i].name,
                            json_real((double)hr_histogram_quantile(histogram, QUANTILES[i].q) / 1e3));
    return value;
}

/* [[largest value, how many], ...] of what was seen, so that several runs can be read as one. */
static json_t *buckets_json(const hr_histogram *histogram) {
    json_t *buckets = json_array();
    for (unsigned b = 0; b < HR_HISTOGRAM_BUCKETS; b++) {
        if (histogram->counts[b] == 0) continue;
        json_t *bucket = json_array();
        json_array_append_new(bucket, json_real((double)hr_histogram_bucket_top(b) / 1e3));
        json_array_append_new(bucket, json_integer((json_int_t)histogram->counts[b]));
        json_array_append_new(buckets, bucket);
    }
    return buckets;
}

static json_t *counts_json(const hr_load_counts *counts) {
    json_t *value = json_object();
    json_object_set_new(value, "sent", json_integer((json_int_t)hr_load_counts_sent(counts)));
    for (int e = 0; e < HR_LOAD_ENDS; e++)
        json_object_set_new(value, END_NAMES[e], json_integer((json_int_t)counts->by_end[e]));
    json_object_set_new(value, "not_sent", json_integer((json_int_t)counts->not_sent));
    json_object_set_new(value, "items", json_integer((json_int_t)counts->n_items));
    return value;
}

static json_t *phase_json(const hr_load_phase *phase, const hr_load_phase_stats *stats) {
    json_t *value = counts_json(&stats->counts), *statuses = json_object(), *server = json_object();
    json_t *latency = histogram_json(&stats->answered);
    const double seconds = seconds_of(phase);
    json_object_set_new(value, "rate", json_real(phase->rate));
    json_object_set_new(value, "seconds", json_real(seconds));
    json_object_set_new(value, "answers_per_s",
                        json_real((double)stats->counts.by_end[HR_LOAD_ANSWERED] / seconds));
    json_object_set_new(value, "items_per_s", json_real((double)stats->counts.n_items / seconds));
    for (int code = 0; code < HR_LOAD_STATUSES; code++)
        if (stats->by_status[code] > 0)
            json_object_set_new(statuses, hr_load_status_name(code),
                                json_integer((json_int_t)stats->by_status[code]));
    json_object_set_new(value, "statuses", statuses);
    json_object_set_new(latency, "buckets", buckets_json(&stats->answered));
    json_object_set_new(value, "latency_us", latency);
    json_object_set_new(value, "refusal_us", histogram_json(&stats->refused));
    json_object_set_new(value, "lag_us", histogram_json(&stats->lag));
    for (int s = 0; s < HR_LOAD_STAGES; s++)
        json_object_set_new(server, STAGE_NAMES[s], histogram_json(&stats->stages[s]));
    json_object_set_new(value, "server_us", server);
    return value;
}

static json_t *timeline_json(const hr_load_stats *stats) {
    json_t *timeline = json_array();
    for (uint32_t i = 0; i < stats->n_intervals; i++) {
        const hr_load_interval_stats *interval = &stats->intervals[i];
        json_t *value = counts_json(&interval->counts);
        const uint64_t second = i * (stats->interval_ns / 1000000000);
        json_object_set_new(value, "second", json_integer((json_int_t)second));
        json_object_set_new(value, "latency_us", histogram_json(&interval->answered));
        json_object_set_new(value, "refusal_us", histogram_json(&interval->refused));
        json_array_append_new(timeline, value);
    }
    return timeline;
}

static json_t *texts_json(const hr_load_stats *stats) {
    json_t *texts = json_object();
    for (int code = 1; code < HR_LOAD_STATUSES; code++)
        if (stats->texts[code][0] != '\0')
            json_object_set_new(texts, hr_load_status_name(code), json_string(stats->texts[code]));
    return texts;
}

/* The setters take NULL for a value and refuse it, so that only the whole is checked: a member that is
 * missing for want of memory is worth no code of its own. */
hr_status hr_load_print_json(const hr_load_stats *stats, const hr_load_heading *heading, hr_error *err) {
    json_t *value = json_object(), *phases = json_array();
    json_object_set_new(value, "target", json_string(heading->target));
    json_object_set_new(value, "connections", json_integer(heading->n_connections));
    json_object_set_new(value, "requests", json_integer(heading->n_requests));
    json_object_set_new(value, "in_flight", json_integer(stats->plan->n_in_flight));
    for (uint32_t p = 0; p < stats->plan->n_phases; p++)
        if (!stats->plan->phases[p].warm_up)
            json_array_append_new(phases, phase_json(&stats->plan->phases[p], &stats->phases[p]));
    json_object_set_new(value, "phases", phases);
    json_object_set_new(value, "timeline", timeline_json(stats));
    json_object_set_new(value, "texts", texts_json(stats));
    int rc = value == NULL ? -1 : json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(value);
    if (rc != 0) return hr_error_set(err, HR_IO, "stdout: cannot write the report");
    putchar('\n');
    return HR_OK;
}
