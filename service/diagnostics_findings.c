/* The words of a diagnosis: terms, names, findings. See diagnostics.h. */
#include <stdarg.h>
#include <stdio.h>

#include "service/diagnostics.h"

const hr_diagnostic_term hr_diagnostics_terms[] = {
    {"zeros", "the share of a hidden layer's activations that are zero: less than 1e-6 away from it"},
    {"dead", "neurons that are zero on every row"},
    {"mean, std", "of a hidden layer's activations, over all rows and neurons"},
    {"row std", "how far a neuron varies over the rows: the root mean square of the neurons' std"},
    {"mean weight", "what a gate's softmax gives an expert, mean over the rows"},
    {"entropy", "of the mean weights, as a part of ln n: 1 is an even mix, 0 is one expert alone"},
    {"row entropy", "the mean of each row's own entropy; below the entropy where a gate decides row by row"},
    {"largest share", "of all the weight that an expert gets, the part that comes from one gate"},
    {"mean output", "of a task's predictions over the rows: small where the task is sparse"},
    {"own weight", "the part of a unit's mix that comes from its own experts"},
    {"even", "the own weight if a gate gave every expert the same"},
    {"self gate", "its mean weight, summed over the own experts: 1 where there are several"},
    {"own in all",
     "the own experts' part of a unit's output weights: (own weight + self gate) / (1 + self gate)"},
};
const size_t hr_diagnostics_n_terms = sizeof hr_diagnostics_terms / sizeof hr_diagnostics_terms[0];

/* ---- Names ---- */

hr_diagnostic_name hr_diagnostics_unit_name(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u) {
    const hr_layer *layer = &hr_diagnostics_plan(diagnostics)->layers[y];
    hr_diagnostic_name name;
    snprintf(name.text, sizeof name.text, "%s.%s", layer->name, layer->units[u].name);
    return name;
}

hr_diagnostic_name hr_diagnostics_expert_name(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u,
                                              uint32_t k) {
    const hr_layer *layer = &hr_diagnostics_plan(diagnostics)->layers[y];
    hr_diagnostic_name name;
    snprintf(name.text, sizeof name.text, "%s.%s[%u]", layer->name, layer->units[u].name, (unsigned)k);
    return name;
}

void hr_diagnostics_mixed(const hr_diagnostics *diagnostics, uint32_t y, uint32_t gate, uint32_t j,
                          uint32_t *u, uint32_t *k) {
    const hr_layer *layer = &hr_diagnostics_plan(diagnostics)->layers[y];
    const uint32_t *mix = layer->units[gate].mix;
    while (j >= layer->units[*mix].n_experts) j -= layer->units[*mix++].n_experts;
    *u = *mix;
    *k = j;
}

/* ---- Findings ---- */

typedef struct findings {
    const hr_diagnostics *d;
    hr_finding_fn *found;
    void *arg;
    size_t n;
} findings;

static void report(findings *f, hr_verdict verdict, hr_diagnostic_name subject, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void report(findings *f, hr_verdict verdict, hr_diagnostic_name subject, const char *format, ...) {
    char figures[2 * HR_DIAGNOSTIC_NAME_SIZE];
    va_list args;
    if (verdict == HR_VERDICT_NONE) return;
    va_start(args, format);
    vsnprintf(figures, sizeof figures, format, args);
    va_end(args);
    f->n++;
    f->found(f->arg, verdict, subject.text, figures);
}

static void judge_expert(findings *f, uint32_t y, uint32_t u, uint32_t k) {
    const hr_layer *layer = &hr_diagnostics_plan(f->d)->layers[y];
    hr_diagnostic_name name = hr_diagnostics_expert_name(f->d, y, u, k);
    const uint32_t n_hidden = layer->units[u].n_expert_layers;
    for (uint32_t i = 0; i < n_hidden; i++) {
        hr_expert_measures m = hr_diagnostics_expert(f->d, y, u, k, i);
        report(
            f, m.verdict, name,
            "layer %u of %u: %.1f %% zeros, %u of %u neurons dead, mean %.3g, std %.3g, over the rows %.3g",
            (unsigned)i + 1, (unsigned)n_hidden, 100.0 * m.zero_share, (unsigned)m.n_dead, (unsigned)m.width,
            m.mean, m.std, m.row_std);
    }
    hr_use_measures use = hr_diagnostics_use(f->d, y, u, k);
    report(f, use.verdict, name, "mean weight %.3f over %u gate%s, %.0f %% of it from %s", use.mean,
           (unsigned)use.n_gates, use.n_gates == 1 ? "" : "s", 100.0 * use.largest_share,
           layer->units[use.largest_unit].name);
}

static void judge_gate(findings *f, uint32_t y, uint32_t u) {
    hr_diagnostic_name name = hr_diagnostics_unit_name(f->d, y, u);
    hr_gate_measures m = hr_diagnostics_gate(f->d, y, u);
    uint32_t lender, k;
    hr_diagnostics_mixed(f->d, y, u, m.largest, &lender, &k);
    report(f, m.degradation, name, "%s[%u] has %.3f", hr_diagnostics_plan(f->d)->layers[y].units[lender].name,
           (unsigned)k, m.weights[m.largest]);
    report(f, m.underfitting, name, "own experts %.3f, with the self gate %.3f, an even share is %.3f", m.own,
           m.own_total, m.own_even);
}

size_t hr_diagnostics_findings(const hr_diagnostics *diagnostics, hr_finding_fn *found, void *arg) {
    const hr_plan *plan = hr_diagnostics_plan(diagnostics);
    findings f = {.d = diagnostics, .found = found, .arg = arg};
    for (uint32_t y = 0; y < plan->n_layers; y++) {
        for (uint32_t u = 0; u < plan->layers[y].n_units; u++) {
            const hr_unit *unit = &plan->layers[y].units[u];
            for (uint32_t k = 0; k < unit->n_experts; k++) judge_expert(&f, y, u, k);
            if (unit->n_mix > 0) judge_gate(&f, y, u);
        }
    }
    return f.n;
}
