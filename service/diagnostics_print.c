/* A diagnosis as tables for a terminal: see diagnostics_report.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "service/diagnostics_report.h"
#include "service/text_table.h"

enum { ARENA_CAP_NBYTES = 256 << 20 };

typedef struct printing {
    const hr_diagnostics *d;
    const hr_plan *plan;
    hr_arena *arena; /* one table's */
    hr_text_table *table;
    bool ok; /* no memory was refused */
    FILE *out;
} printing;

/* ---- Tables ---- */

typedef struct column {
    const char *title;
    bool to_the_right;
} column;

static void begin_table(printing *p, const char *title, const column *columns, size_t n_columns,
                        size_t max_rows) {
    fprintf(p->out, "\n%s\n", title);
    hr_arena_reset(p->arena);
    p->table = hr_text_table_create(p->arena, n_columns, max_rows);
    if (p->table == NULL) p->ok = false;
    for (size_t c = 0; p->ok && c < n_columns; c++)
        hr_text_table_column(p->table, columns[c].title, columns[c].to_the_right);
}

static void cell(printing *p, const char *text) {
    if (p->ok) p->ok = hr_text_table_cell(p->table, text);
}

#define cellf(p, ...) ((p)->ok = (p)->ok && hr_text_table_cellf((p)->table, __VA_ARGS__))

static void end_table(printing *p) {
    if (p->ok) hr_text_table_print(p->table, p->out);
}

static size_t count_units(const hr_plan *plan) {
    size_t n = 0;
    for (uint32_t y = 0; y < plan->n_layers; y++) n += plan->layers[y].n_units;
    return n;
}

static size_t count_hidden_layers(const hr_plan *plan) {
    size_t n = 0;
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        for (uint32_t u = 0; u < plan->layers[y].n_units; u++) {
            const hr_unit *unit = &plan->layers[y].units[u];
            n += (size_t)unit->n_experts * unit->n_expert_layers;
        }
    }
    return n;
}

/* ---- Collapse ---- */

static void collapse_row(printing *p, uint32_t y, uint32_t u, uint32_t k, uint32_t i) {
    hr_expert_measures m = hr_diagnostics_expert(p->d, y, u, k, i);
    cell(p, i == 0 ? hr_diagnostics_expert_name(p->d, y, u, k).text : "");
    cellf(p, "%u of %u", (unsigned)i + 1, (unsigned)p->plan->layers[y].units[u].n_expert_layers);
    cellf(p, "%u", (unsigned)m.width);
    cellf(p, "%.1f %%", 100.0 * m.zero_share);
    cellf(p, "%u", (unsigned)m.n_dead);
    cellf(p, "%.4g", m.mean);
    cellf(p, "%.4g", m.std);
    cellf(p, "%.4g", m.row_std);
    cell(p, hr_verdict_word(m.verdict));
}

static void print_collapse(printing *p) {
    static const column columns[] = {{"expert", false}, {"layer", false},  {"width", true},
                                     {"zeros", true},   {"dead", true},    {"mean", true},
                                     {"std", true},     {"row std", true}, {"verdict", false}};
    begin_table(p, "collapse: what the experts put out", columns, sizeof columns / sizeof columns[0],
                count_hidden_layers(p->plan));
    for (uint32_t y = 0; y < p->plan->n_layers; y++) {
        for (uint32_t u = 0; u < p->plan->layers[y].n_units; u++) {
            const hr_unit *unit = &p->plan->layers[y].units[u];
            for (uint32_t k = 0; k < unit->n_experts; k++)
                for (uint32_t i = 0; i < unit->n_expert_layers; i++) collapse_row(p, y, u, k, i);
        }
    }
    end_table(p);
}

/* ---- Degradation ---- */

/* "shared[0] .312  watch[1] .688": what a gate gives each expert that it sees. */
static void weights_cell(printing *p, uint32_t y, uint32_t gate, const double *weights) {
    const hr_layer *layer = &p->plan->layers[y];
    char *text = NULL;
    size_t nbytes;
    FILE *stream = open_memstream(&text, &nbytes);
    for (uint32_t j = 0; stream != NULL && j < layer->units[gate].n_mixed; j++) {
        uint32_t u, k;
        hr_diagnostics_mixed(p->d, y, gate, j, &u, &k);
        fprintf(stream, "%s%s[%u] %.3f", j == 0 ? "" : "  ", layer->units[u].name, (unsigned)k, weights[j]);
    }
    if (stream == NULL || fclose(stream) != 0) p->ok = false;
    cell(p, p->ok ? text : "");
    free(text);
}

static void gate_row(printing *p, uint32_t y, uint32_t u) {
    const hr_unit *unit = &p->plan->layers[y].units[u];
    hr_gate_measures m = hr_diagnostics_gate(p->d, y, u);
    cell(p, hr_diagnostics_unit_name(p->d, y, u).text);
    cellf(p, "%u", (unsigned)unit->n_mixed);
    cellf(p, "%.3f", m.weights[m.largest]);
    cellf(p, "%.3f", m.entropy);
    cellf(p, "%.3f", m.row_entropy);
    cell(p, hr_verdict_word(m.degradation));
    weights_cell(p, y, u, m.weights);
}

static void print_gates(printing *p) {
    static const column columns[] = {{"gate", false},        {"experts", true},     {"largest", true},
                                     {"entropy", true},      {"row entropy", true}, {"verdict", false},
                                     {"mean weights", false}};
    begin_table(p, "degradation: what each gate mixes", columns, sizeof columns / sizeof columns[0],
                count_units(p->plan));
    for (uint32_t y = 0; y < p->plan->n_layers; y++) {
        for (uint32_t u = 0; u < p->plan->layers[y].n_units; u++) {
            if (p->plan->layers[y].units[u].n_mix > 0) gate_row(p, y, u);
        }
    }
    end_table(p);
}

static void use_row(printing *p, uint32_t y, uint32_t u, uint32_t k) {
    hr_use_measures m = hr_diagnostics_use(p->d, y, u, k);
    if (m.n_gates == 1 && m.verdict == HR_VERDICT_NONE) return;
    cell(p, hr_diagnostics_expert_name(p->d, y, u, k).text);
    cellf(p, "%u", (unsigned)m.n_gates);
    cellf(p, "%.3f", m.mean);
    cellf(p, "%.0f %%", 100.0 * m.largest_share);
    cell(p, m.n_gates == 0 ? "" : p->plan->layers[y].units[m.largest_unit].name);
    cellf(p, "%.3f", m.entropy);
    cell(p, hr_verdict_word(m.verdict));
}

static void print_use(printing *p) {
    static const column columns[] = {{"expert", false},       {"gates", true}, {"mean weight", true},
                                     {"largest share", true}, {"from", false}, {"entropy", true},
                                     {"verdict", false}};
    begin_table(p, "degradation: how the gates share the experts that several of them see", columns,
                sizeof columns / sizeof columns[0], count_hidden_layers(p->plan));
    for (uint32_t y = 0; y < p->plan->n_layers; y++) {
        for (uint32_t u = 0; u < p->plan->layers[y].n_units; u++) {
            for (uint32_t k = 0; k < p->plan->layers[y].units[u].n_experts; k++) use_row(p, y, u, k);
        }
    }
    end_table(p);
}

/* ---- Underfitting ---- */

static void cell_or_blank(printing *p, bool there, double value) {
    if (there) {
        cellf(p, "%.3f", value);
    } else {
        cell(p, "");
    }
}

static void underfitting_row(printing *p, const hr_task *task) {
    const uint32_t y = (uint32_t)task->input.layer, u = task->input.unit;
    const hr_unit *unit = &p->plan->layers[y].units[u];
    hr_gate_measures m = hr_diagnostics_gate(p->d, y, u);
    cell(p, task->name);
    cellf(p, "%.4g", hr_diagnostics_output(p->d, (uint32_t)(task - p->plan->tasks)));
    cell(p, hr_diagnostics_unit_name(p->d, y, u).text);
    cellf(p, "%u", (unsigned)unit->n_experts);
    cell_or_blank(p, m.own_even > 0.0, m.own);
    cell_or_blank(p, m.own_even > 0.0, m.own_even);
    cell_or_blank(p, unit->self_gate, m.self);
    cell_or_blank(p, unit->self_gate, m.own_total);
    cell(p, hr_verdict_word(m.underfitting));
}

static void print_underfitting(printing *p) {
    static const column columns[] = {{"task", false},     {"mean output", true}, {"unit", false},
                                     {"experts", true},   {"own weight", true},  {"even", true},
                                     {"self gate", true}, {"own in all", true},  {"verdict", false}};
    begin_table(p, "underfitting: what each task's unit draws from its own experts", columns,
                sizeof columns / sizeof columns[0], p->plan->n_tasks);
    for (uint32_t t = 0; t < p->plan->n_tasks; t++) underfitting_row(p, &p->plan->tasks[t]);
    end_table(p);
}

/* ---- The whole ---- */

static void print_heading(const hr_diagnosis *diagnosis, FILE *out) {
    const hr_diagnostics_counts *n = &diagnosis->counts;
    hr_text_print_safe(diagnosis->model, out);
    fputs(" on ", out);
    hr_text_print_safe(diagnosis->data, out);
    fprintf(out,
            "\n%" PRIu64 " rows of %" PRIu64 " requests; without a stored record: %" PRIu64
            " requests' users, %" PRIu64 " rows' items; %" PRIu64 " stored values of a wrong kind, %" PRIu64
            " bad lines\n",
            n->n_rows, n->n_requests, n->n_users_missing, n->n_items_missing, n->n_invalid, n->n_bad_lines);
}

static void print_legend(FILE *out) {
    fputs("\nlegend\n", out);
    for (size_t i = 0; i < hr_diagnostics_n_terms; i++)
        fprintf(out, "  %-14s  %s\n", hr_diagnostics_terms[i].term, hr_diagnostics_terms[i].meaning);
    fputs("\nverdicts\n", out);
    for (hr_verdict v = HR_VERDICT_NONE + 1; v < HR_VERDICT_COUNT; v++)
        fprintf(out, "  %-14s  %s: %s\n", hr_verdict_word(v), hr_verdict_diagnostic(v),
                hr_verdict_meaning(v));
}

static void print_finding(void *out, hr_verdict verdict, const char *subject, const char *figures) {
    fprintf(out, "  %-13s %-14s %s: %s\n", hr_verdict_diagnostic(verdict), hr_verdict_word(verdict), subject,
            figures);
}

hr_status hr_diagnosis_print(const hr_diagnosis *diagnosis, FILE *out, hr_error *err) {
    const hr_diagnostics *d = diagnosis->diagnostics;
    printing p = {.d = d, .plan = hr_diagnostics_plan(d), .ok = true, .out = out};
    p.arena = hr_arena_create(ARENA_CAP_NBYTES);
    if (p.arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "inspect: the tables");
    print_heading(diagnosis, out);
    print_collapse(&p);
    print_gates(&p);
    print_use(&p);
    print_underfitting(&p);
    hr_arena_destroy(p.arena);
    if (!p.ok) return hr_error_set(err, HR_OUT_OF_MEMORY, "inspect: the tables");
    print_legend(out);
    fputs("\nfindings\n", out);
    if (hr_diagnostics_findings(d, print_finding, out) == 0) fputs("  nothing suspicious\n", out);
    if (fflush(out) != 0 || ferror(out)) return hr_error_set(err, HR_IO, "inspect: cannot write the tables");
    return HR_OK;
}
