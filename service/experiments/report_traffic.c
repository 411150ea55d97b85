/* The traffic table: see experiments_report.h. */
#include <string.h>

#include "service/experiments/experiments_internal.h"
#include "service/experiments/experiments_report.h"
#include "service/text_table.h"

enum { N_COLUMNS = 7, TEXT_NBYTES = 200, MEMORY_NBYTES = 1 << 30 };

typedef struct traffic {
    const hr_flag_program *program;
    hr_arena *arena;
    hr_text_table *table;
    bool failed;
} traffic;

static void cell(traffic *t, const char *text) {
    char cut[TEXT_NBYTES];
    snprintf(cut, sizeof cut, "%s", text);
    if (strlen(text) >= sizeof cut) memcpy(cut + sizeof cut - 4, "...", 4);
    t->failed |= !hr_text_table_cell(t->table, cut);
}

static const char *json_text(traffic *t, const hr_js_value *value) {
    hr_js_scratch scratch = {.arena = t->arena};
    hr_js_text text = hr_js_print(value, &scratch);
    t->failed |= scratch.failed;
    return scratch.failed ? "" : text.bytes;
}

/* ---- Whom a rule asks ---- */

typedef struct who {
    char text[TEXT_NBYTES];
    size_t n;
} who;

__attribute__((format(printf, 2, 3))) static void say(who *w, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (w->n > 0 && w->n < sizeof w->text)
        w->n += (size_t)snprintf(w->text + w->n, sizeof w->text - w->n, "; ");
    if (w->n < sizeof w->text) {
        int n = vsnprintf(w->text + w->n, sizeof w->text - w->n, format, args);
        w->n += n > 0 ? (size_t)n : 0;
    }
    va_end(args);
}

static void say_prerequisites(const traffic *t, who *w, const hr_rule *rule) {
    for (uint32_t i = 0; i < rule->n_prerequisites; i++)
        say(w, "%s of %s", rule->prerequisites[i].gate ? "gate" : "prerequisite",
            t->program->features[rule->prerequisites[i].feature].name);
}

static void say_filters(const traffic *t, who *w, const hr_filters *filters) {
    for (uint32_t i = 0; i < filters->n; i++) {
        const hr_filter *filter = &filters->filters[i];
        double share = 0;
        for (uint32_t r = 0; r < filter->n_ranges; r++)
            share += filter->ranges[r].end - filter->ranges[r].start;
        say(w, "filter \"%s\" of %.4g %%",
            filter->hash == HR_NO_HASH ? "" : t->program->hashes[filter->hash].seed.bytes, share * 100);
    }
}

static void say_targeting(traffic *t, who *w, const hr_targeting *targeting) {
    if (targeting->condition != NULL) say(w, "%s", json_text(t, targeting->json));
}

static void say_experiment(traffic *t, who *w, const hr_experiment *x) {
    const hr_js_text attribute = t->program->hash_attributes[x->hash_attribute];
    if (!hr_js_text_is(attribute, "id")) say(w, "by %s", attribute.bytes);
    if (x->namespace_id != NULL && !x->filters.present)
        say(w, "namespace \"%s\" [%.4g, %.4g)", x->namespace_id, x->namespace_range.start,
            x->namespace_range.end);
    if (x->bandit != NULL) say(w, "contextual bandit, %u contexts", (unsigned)x->bandit->n_leaves);
    say_targeting(t, w, &x->targeting);
}

/* ---- Rows ---- */

/* The first row of a rule says which; the others leave that empty. */
static void begin_row(traffic *t, const hr_flag *feature, int rule, const char *experiment) {
    char number[24];
    snprintf(number, sizeof number, "%d", rule);
    cell(t, feature->name);
    cell(t, rule < 0 ? "" : number);
    cell(t, experiment);
}

static void share_cell(traffic *t, double share) {
    char text[32];
    snprintf(text, sizeof text, "%.4g %%", share * 100);
    cell(t, text);
}

static double share_of(const hr_range *ranges, uint32_t n, uint32_t i) {
    return i < n && ranges[i].end > ranges[i].start ? ranges[i].end - ranges[i].start : 0;
}

static void add_experiment(traffic *t, const hr_flag *feature, int rule, const hr_experiment *x,
                           const char *asked) {
    for (uint32_t v = 0; v < x->n_variations; v++) {
        const hr_variation *variation = &x->variations[v];
        begin_row(t, feature, rule, x->key);
        cell(t, variation->key);
        share_cell(t, share_of(x->ranges, x->n_ranges, v));
        cell(t, variation->passthrough ? "(on to the next rule)" : json_text(t, variation->value.json));
        cell(t, v == 0 ? asked : "");
    }
}

static void add_rule(traffic *t, const hr_flag *feature, uint32_t index) {
    const hr_rule *rule = &feature->rules[index];
    who w = {.text = ""};
    say_prerequisites(t, &w, rule);
    say_filters(t, &w, &rule->filters);
    if (rule->kind == HR_RULE_EXPERIMENT) {
        say_experiment(t, &w, rule->experiment);
        add_experiment(t, feature, (int)index, rule->experiment, w.text);
    } else if (rule->kind == HR_RULE_FORCE) {
        say_targeting(t, &w, &rule->targeting);
        begin_row(t, feature, (int)index, "");
        cell(t, "");
        share_cell(t, rule->has_range      ? rule->range.end - rule->range.start
                      : rule->has_coverage ? rule->coverage
                                           : 1);
        cell(t, json_text(t, rule->force.json));
        cell(t, w.text);
    } else {
        begin_row(t, feature, (int)index, "");
        cell(t, "");
        cell(t, "");
        cell(t, "");
        cell(t, w.text);
    }
}

static void add_feature(traffic *t, const hr_flag *feature) {
    for (uint32_t i = 0; i < feature->n_rules; i++) add_rule(t, feature, i);
    begin_row(t, feature, -1, "");
    cell(t, "");
    cell(t, "");
    cell(t, json_text(t, feature->fallback.json));
    cell(t, "all others");
}

/* ---- The table ---- */

static size_t count_rows(const hr_flag *feature) {
    size_t n = 1;
    for (uint32_t i = 0; i < feature->n_rules; i++)
        n += feature->rules[i].kind == HR_RULE_EXPERIMENT ? feature->rules[i].experiment->n_variations : 1;
    return n;
}

static hr_status print(traffic *t, const hr_experiments *experiments, FILE *out, hr_error *err) {
    static const char *const titles[N_COLUMNS] = {"feature", "rule",  "experiment", "variation",
                                                  "share",   "value", "of"};
    size_t n_rows = 0, n_layers = 0;
    for (int f = 0; f < HR_RANKING_N_FEATURES; f++) {
        const hr_flag *feature = &t->program->features[f];
        n_rows += feature->known ? count_rows(feature) : 0;
        n_layers += feature->known;
    }
    t->table = hr_text_table_create(t->arena, N_COLUMNS, n_rows);
    if (t->table == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the table");
    for (size_t c = 0; c < N_COLUMNS; c++) hr_text_table_column(t->table, titles[c], c == 1 || c == 4);
    for (int f = 0; f < HR_RANKING_N_FEATURES; f++)
        if (t->program->features[f].known) add_feature(t, &t->program->features[f]);
    if (t->failed) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the table");
    hr_text_table_print(t->table, out);
    fprintf(out, "\n%u experiments in %zu layers; version %s\n", (unsigned)t->program->n_keys, n_layers,
            hr_experiments_version(experiments));
    return HR_OK;
}

hr_status hr_experiments_print_traffic(const hr_experiments *experiments, FILE *out, hr_error *err) {
    traffic t = {.program = experiments->program, .arena = hr_arena_create(MEMORY_NBYTES)};
    if (t.arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for the table");
    hr_status status = print(&t, experiments, out, err);
    hr_arena_destroy(t.arena);
    return status;
}
