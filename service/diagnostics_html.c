/* A diagnosis as one page for a browser: see diagnostics_report.h. */
#include "service/diagnostics_html.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/utf8.h"
#include "service/diagnostics_report.h"

enum { ARENA_CAP_NBYTES = 64 << 20 };

/* clang-format off */
static const char style[] =
    ":root{--ink:#1b2430;--soft:#667085;--line:#e3e7ed;--paper:#fff;--blue:#2463b4;--violet:#7a4fb5;--teal:#0d8a72;"
    "--amber:#fdebc8;--amberink:#8a4b00}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:#f4f6f9;color:var(--ink);font:14px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,"
    "'DejaVu Sans',sans-serif;font-variant-numeric:tabular-nums}\n"
    "main{max-width:1376px;margin:0 auto;padding:28px 16px 48px}\n"
    "h1{font-size:24px;margin:0 0 2px}h2{font-size:17px;margin:0 0 4px}h3{font-size:14px;margin:18px 0 6px}\n"
    "p{margin:0 0 10px}.soft{color:var(--soft)}\n"
    "section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:18px 20px;"
    "margin-top:16px;overflow-x:auto}\n"
    ".tiles{display:flex;flex-wrap:wrap;gap:12px;margin-top:16px}\n"
    ".tile{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:10px 18px;min-width:120px}\n"
    ".tile b{display:block;font-size:21px;font-weight:650}.tile.bad{background:var(--amber);color:var(--amberink)}\n"
    "table{border-collapse:collapse}th,td{padding:3px 12px;text-align:left;white-space:nowrap;"
    "border-bottom:1px solid var(--line)}\n"
    "th{font-weight:600;color:var(--soft);font-size:12.5px;vertical-align:bottom}td.n,th.n{text-align:right}\n"
    "tr.first td{border-top:1px solid #c3cad5}\n"
    ".chip{background:var(--amber);color:var(--amberink);border-radius:9px;padding:0 8px;font-size:12.5px;font-weight:600}\n"
    ".wide td:last-child{white-space:normal}\n"
    ".heat th,.heat td{padding:3px 5px;border:2px solid var(--paper);text-align:center}\n"
    ".heat td.w{min-width:46px}.heat td.off{background:#f3f5f8}\n"
    ".heat td.unit,.heat th.unit{text-align:left;padding-right:14px;font-weight:600;position:sticky;left:-20px;"
    "padding-left:20px;background:var(--paper)}.heat{margin-left:-20px}\n"
    ".heat td.gap,.heat th.gap{padding:0 4px}.heat td.v{text-align:left}\n"
    ".tall span{writing-mode:vertical-rl;transform:rotate(180deg)}\n"
    ".bar{background:linear-gradient(90deg,#c9d9ef var(--p),transparent var(--p))}\n"
    "svg.network{display:block;width:100%;margin-top:6px}\n"
    "svg text{font-size:12px;fill:var(--ink)}svg .head{font-weight:650;font-size:13px;fill:var(--soft)}\n"
    "svg .name{font-weight:600}svg .middle{text-anchor:middle}svg .end{text-anchor:end;fill:var(--soft);font-size:11.5px}\n"
    "svg rect{fill:#fff;stroke:#b8c2d0}svg .features{fill:#e9edf3}svg .unit{fill:#f7f9fc}\n"
    "svg .expert{fill:#d9e6f8;stroke:#9bb8de}svg .bad{fill:#fbd48a;stroke:#d89a2b}svg .task{fill:#eef6f1;stroke:#a9cdb8}\n"
    "svg path{fill:none}svg .link{stroke:#c6ced9;stroke-width:1.3}\n"
    "svg .lent{stroke:var(--blue)}svg .own{stroke:var(--violet)}svg .self{stroke:var(--teal);stroke-dasharray:7 4}\n"
    "svg path[stroke-width]:hover{stroke:#d4380d;stroke-opacity:1}\n"
    ".key span{margin-right:18px}.key i{display:inline-block;width:26px;border-top:4px solid;margin-right:6px;"
    "vertical-align:middle}\n"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:0}dt{font-weight:600}dd{margin:0}\n";

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";

static const char network_caption[] =
    "<h2>The network</h2>\n"
    "<p class=\"soft\">An edge is as wide as the mean weight that a gate gives an expert; hover for the number. "
    "The number at a gate is its entropy, at a task its mean output. What gates read is not drawn.</p>\n"
    "<p class=\"key soft\"><span><i style=\"color:var(--blue)\"></i>another unit's expert</span>"
    "<span><i style=\"color:var(--violet)\"></i>the unit's own</span>"
    "<span><i style=\"color:var(--teal);border-top-style:dashed\"></i>self gate</span>"
    "<span><i style=\"color:#f0b64d;border-top-width:10px\"></i>suspicious</span></p>\n";
/* clang-format on */

typedef struct page {
    const hr_diagnosis *diagnosis;
    const hr_diagnostics *d;
    const hr_plan *plan;
    FILE *out;
} page;

/* ---- Text ---- */

/* One character that is not plain as HTML; n is its length, 0 where its first byte begins none. */
static void put_char(FILE *out, const char *bytes, size_t n) {
    const unsigned char c = (unsigned char)bytes[0];
    const bool c1 = n == 2 && c == 0xc2 && (unsigned char)bytes[1] < 0xa0;
    switch (c) {
    case '&': fputs("&amp;", out); break;
    case '<': fputs("&lt;", out); break;
    case '>': fputs("&gt;", out); break;
    case '"': fputs("&quot;", out); break;
    case '\'': fputs("&#39;", out); break;
    default:
        if (n == 0 || c < 0x20 || c == 0x7f || c1) {
            fputs("\xef\xbf\xbd", out); /* U+FFFD */
        } else {
            fwrite(bytes, 1, n, out);
        }
    }
}

void hr_html_text_cut(FILE *out, const char *text, size_t max_chars) {
    size_t nbytes = strlen(text);
    for (size_t at = 0, n_chars = 1; at < nbytes; n_chars++) {
        size_t n = hr_utf8_char(text + at, nbytes - at), step = n > 0 ? n : 1;
        if (n_chars == max_chars && at + step < nbytes) {
            fputs("…", out);
            return;
        }
        put_char(out, text + at, n);
        at += step;
    }
}

void hr_html_text(FILE *out, const char *text) {
    hr_html_text_cut(out, text, SIZE_MAX);
}

/* A cell of text, and one of a number. */
static void cell(const page *p, const char *text) {
    fputs("<td>", p->out);
    hr_html_text(p->out, text);
    fputs("</td>", p->out);
}

static void number(const page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void number(const page *p, const char *format, ...) {
    va_list args;
    fputs("<td class=\"n\">", p->out);
    va_start(args, format);
    vfprintf(p->out, format, args);
    va_end(args);
    fputs("</td>", p->out);
}

void hr_html_verdict(FILE *out, hr_verdict verdict) {
    if (verdict == HR_VERDICT_NONE) return;
    fprintf(out, "<span class=\"chip\" title=\"%s\">%s</span>", hr_verdict_meaning(verdict),
            hr_verdict_word(verdict));
}

static void verdict_cell(const page *p, hr_verdict verdict) {
    fputs("<td>", p->out);
    hr_html_verdict(p->out, verdict);
    fputs("</td></tr>\n", p->out);
}

/* ---- What it is about, and what was found ---- */

static void tile(const page *p, uint64_t value, const char *word, bool bad) {
    fprintf(p->out, "<div class=\"tile%s\"><b>%" PRIu64 "</b>%s</div>\n", bad ? " bad" : "", value, word);
}

static void count_finding(void *arg, hr_verdict verdict, const char *subject, const char *figures) {
    (void)arg, (void)verdict, (void)subject, (void)figures;
}

static void finding_row(void *arg, hr_verdict verdict, const char *subject, const char *figures) {
    const page *p = arg;
    fputs("<tr>", p->out);
    cell(p, hr_verdict_diagnostic(verdict));
    fputs("<td>", p->out);
    hr_html_verdict(p->out, verdict);
    fputs("</td>", p->out);
    cell(p, subject);
    cell(p, figures);
    fputs("</tr>\n", p->out);
}

static void write_summary(page *p) {
    const hr_diagnostics_counts *n = &p->diagnosis->counts;
    uint64_t n_experts = 0, n_gates = 0;
    size_t n_findings = hr_diagnostics_findings(p->d, count_finding, NULL);
    for (uint32_t y = 0; y < p->plan->n_layers; y++) {
        for (uint32_t u = 0; u < p->plan->layers[y].n_units; u++) {
            n_experts += p->plan->layers[y].units[u].n_experts;
            n_gates += p->plan->layers[y].units[u].n_mix > 0;
        }
    }
    fputs("<h1>", p->out);
    hr_html_text(p->out, p->diagnosis->model);
    fputs("</h1>\n<p class=\"soft\">Experts and gates on ", p->out);
    hr_html_text(p->out, p->diagnosis->data);
    fprintf(p->out,
            ". Without a stored record: %" PRIu64 " requests' users, %" PRIu64 " rows' items; %" PRIu64
            " stored values of a wrong kind, %" PRIu64 " bad lines.</p>\n<div class=\"tiles\">\n",
            n->n_users_missing, n->n_items_missing, n->n_invalid, n->n_bad_lines);
    tile(p, n->n_rows, "rows", false);
    tile(p, n->n_requests, "requests", false);
    tile(p, p->plan->n_layers, "layers", false);
    tile(p, n_experts, "experts", false);
    tile(p, n_gates, "gates", false);
    tile(p, p->plan->n_tasks, "tasks", false);
    tile(p, n_findings, n_findings == 1 ? "finding" : "findings", n_findings > 0);
    fputs("</div>\n<section>\n<h2>Findings</h2>\n", p->out);
    if (n_findings > 0) {
        fputs("<table class=\"wide\">\n", p->out);
        hr_diagnostics_findings(p->d, finding_row, p);
        fputs("</table>\n", p->out);
    } else {
        fputs("<p>Nothing suspicious.</p>\n", p->out);
    }
    fputs("</section>\n", p->out);
}

/* ---- Tables ---- */

static void begin_table(const page *p, const char *const *titles, size_t n_text, size_t n_numbers) {
    fputs("<table>\n<tr>", p->out);
    for (size_t c = 0; titles[c] != NULL; c++) {
        bool is_number = c >= n_text && c < n_text + n_numbers;
        fprintf(p->out, "<th%s>%s</th>", is_number ? " class=\"n\"" : "", titles[c]);
    }
    fputs("</tr>\n", p->out);
}

/* A share as a number over a bar. */
static void share_cell(const page *p, double share) {
    fprintf(p->out, "<td class=\"n bar\" style=\"--p:%.1f%%\">%.1f %%</td>", 100.0 * share, 100.0 * share);
}

static void collapse_row(const page *p, uint32_t y, uint32_t u, uint32_t k, uint32_t i) {
    hr_expert_measures m = hr_diagnostics_expert(p->d, y, u, k, i);
    fputs(i == 0 ? "<tr class=\"first\">" : "<tr>", p->out);
    cell(p, i == 0 ? hr_diagnostics_expert_name(p->d, y, u, k).text : "");
    number(p, "%u of %u", (unsigned)i + 1, (unsigned)p->plan->layers[y].units[u].n_expert_layers);
    number(p, "%u", (unsigned)m.width);
    share_cell(p, m.zero_share);
    number(p, "%u", (unsigned)m.n_dead);
    number(p, "%.4g", m.mean);
    number(p, "%.4g", m.std);
    number(p, "%.4g", m.row_std);
    verdict_cell(p, m.verdict);
}

static void write_collapse(const page *p) {
    static const char *const titles[] = {"expert", "layer", "width",   "zeros", "dead",
                                         "mean",   "std",   "row std", "",      NULL};
    fputs("<section>\n<h2>Collapse: what the experts put out</h2>\n", p->out);
    begin_table(p, titles, 1, 7);
    for (uint32_t y = 0; y < p->plan->n_layers; y++) {
        for (uint32_t u = 0; u < p->plan->layers[y].n_units; u++) {
            const hr_unit *unit = &p->plan->layers[y].units[u];
            for (uint32_t k = 0; k < unit->n_experts; k++)
                for (uint32_t i = 0; i < unit->n_expert_layers; i++) collapse_row(p, y, u, k, i);
        }
    }
    fputs("</table>\n</section>\n", p->out);
}

static void use_row(const page *p, uint32_t y, uint32_t u, uint32_t k) {
    hr_use_measures m = hr_diagnostics_use(p->d, y, u, k);
    if (m.n_gates == 1 && m.verdict == HR_VERDICT_NONE) return;
    fputs("<tr>", p->out);
    cell(p, hr_diagnostics_expert_name(p->d, y, u, k).text);
    cell(p, m.n_gates == 0 ? "" : p->plan->layers[y].units[m.largest_unit].name);
    share_cell(p, m.largest_share);
    number(p, "%u", (unsigned)m.n_gates);
    number(p, "%.3f", m.mean);
    number(p, "%.3f", m.entropy);
    verdict_cell(p, m.verdict);
}

static void write_use(const page *p) {
    static const char *const titles[] = {
        "expert", "mostly from", "largest share", "gates", "mean weight", "entropy", "", NULL};
    fputs("<section>\n<h2>Degradation: how the gates share the experts that several of them see</h2>\n",
          p->out);
    begin_table(p, titles, 2, 4);
    for (uint32_t y = 0; y < p->plan->n_layers; y++) {
        for (uint32_t u = 0; u < p->plan->layers[y].n_units; u++) {
            for (uint32_t k = 0; k < p->plan->layers[y].units[u].n_experts; k++) use_row(p, y, u, k);
        }
    }
    fputs("</table>\n</section>\n", p->out);
}

static void number_or_blank(const page *p, bool there, double value) {
    if (there) {
        number(p, "%.3f", value);
    } else {
        cell(p, "");
    }
}

static void write_underfitting(const page *p) {
    static const char *const titles[] = {"task", "unit",      "mean output", "experts", "own weight",
                                         "even", "self gate", "own in all",  "",        NULL};
    fputs("<section>\n<h2>Underfitting: what each task's unit draws from its own experts</h2>\n", p->out);
    begin_table(p, titles, 2, 6);
    for (uint32_t t = 0; t < p->plan->n_tasks; t++) {
        const hr_source *input = &p->plan->tasks[t].input;
        const uint32_t y = (uint32_t)input->layer;
        const hr_unit *unit = &p->plan->layers[y].units[input->unit];
        hr_gate_measures m = hr_diagnostics_gate(p->d, y, input->unit);
        fputs("<tr>", p->out);
        cell(p, p->plan->tasks[t].name);
        cell(p, hr_diagnostics_unit_name(p->d, y, input->unit).text);
        number(p, "%.4g", hr_diagnostics_output(p->d, t));
        number(p, "%u", (unsigned)unit->n_experts);
        number_or_blank(p, m.own_even > 0.0, m.own);
        number_or_blank(p, m.own_even > 0.0, m.own_even);
        number_or_blank(p, unit->self_gate, m.self);
        number_or_blank(p, unit->self_gate, m.own_total);
        verdict_cell(p, m.underfitting);
    }
    fputs("</table>\n</section>\n", p->out);
}

static void write_legend(const page *p) {
    fputs("<section>\n<h2>Legend</h2>\n<dl>\n", p->out);
    for (size_t i = 0; i < hr_diagnostics_n_terms; i++)
        fprintf(p->out, "<dt>%s</dt><dd>%s</dd>\n", hr_diagnostics_terms[i].term,
                hr_diagnostics_terms[i].meaning);
    for (hr_verdict v = HR_VERDICT_NONE + 1; v < HR_VERDICT_COUNT; v++)
        fprintf(p->out, "<dt><span class=\"chip\">%s</span></dt><dd>%s: %s</dd>\n", hr_verdict_word(v),
                hr_verdict_diagnostic(v), hr_verdict_meaning(v));
    fputs("</dl>\n</section>\n", p->out);
}

/* ---- The whole ---- */

static hr_status write_page(page *p, hr_error *err) {
    hr_arena *arena = hr_arena_create(ARENA_CAP_NBYTES);
    if (arena == NULL) return hr_error_set(err, HR_OUT_OF_MEMORY, "inspect: the page");
    fputs(head, p->out);
    hr_html_text(p->out, p->diagnosis->model);
    fprintf(p->out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", style);
    write_summary(p);
    fprintf(p->out, "<section>\n%s", network_caption);
    hr_status status = hr_html_network(p->d, arena, p->out, err);
    fputs("</section>\n", p->out);
    if (status == HR_OK) status = hr_html_gates(p->d, arena, p->out, err);
    write_use(p);
    write_underfitting(p);
    write_collapse(p);
    write_legend(p);
    fputs("</main>\n</body>\n</html>\n", p->out);
    hr_arena_destroy(arena);
    return status;
}

hr_status hr_diagnosis_write_html(const hr_diagnosis *diagnosis, const char *path, hr_error *err) {
    page p = {.diagnosis = diagnosis, .d = diagnosis->diagnostics, .out = fopen(path, "w")};
    if (p.out == NULL)
        return hr_error_set(err, HR_IO, "%s: %s", hr_quote(path, strlen(path)).text, strerror(errno));
    p.plan = hr_diagnostics_plan(p.d);
    hr_status status = write_page(&p, err);
    bool failed = ferror(p.out) != 0;
    if (fclose(p.out) != 0) failed = true;
    if (status == HR_OK && failed)
        status = hr_error_set(err, HR_IO, "%s: cannot write the page", hr_quote(path, strlen(path)).text);
    return status;
}
