/* The HoME paper's three diagnostics of a model's experts and gates (arXiv 2408.05430), gathered over many
 * rows of an observed forward pass:
 *
 *   collapse       an expert's activations are mostly zero, constant, or of another size than its peers'
 *   degradation    a gate lives on one expert; an expert meant for several gates serves one, or none
 *   underfitting   a task's gate passes its own experts by
 *
 * A neuron is one output of an expert's hidden layer (the paper's "unit"; a unit here is MODEL.md's). Weights
 * are means over rows, behind the softmax. One thread; the plan is borrowed. Measures of no rows are 0, and
 * fewer than two get no verdict. Activations may overflow: what saw such a row is not finite, and found so.
 */
#ifndef HOMERANK_SERVICE_DIAGNOSTICS_H
#define HOMERANK_SERVICE_DIAGNOSTICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/plan.h"

/* |activation| below 1e-6 counts as zero: swish seldom gives 0 itself. */
#define HR_DIAGNOSTIC_ZERO 1e-6

/* What is suspicious; hr_verdict_meaning says when, threshold included. */
typedef enum hr_verdict {
    HR_VERDICT_NONE,
    HR_VERDICT_NOT_FINITE,
    HR_VERDICT_COLLAPSED,
    HR_VERDICT_CONSTANT,
    HR_VERDICT_OUT_OF_SCALE,
    HR_VERDICT_TAKES_ALL,
    HR_VERDICT_USED_BY_ONE,
    HR_VERDICT_UNUSED,
    HR_VERDICT_UNDERFITS,
    HR_VERDICT_COUNT
} hr_verdict;

const char *hr_verdict_diagnostic(hr_verdict verdict); /* "collapse"; "" of NONE, as below */
const char *hr_verdict_word(hr_verdict verdict);
const char *hr_verdict_meaning(hr_verdict verdict);

/* What the measures' names mean, for whoever reads a report. */
typedef struct hr_diagnostic_term {
    const char *term, *meaning;
} hr_diagnostic_term;
extern const hr_diagnostic_term hr_diagnostics_terms[];
extern const size_t hr_diagnostics_n_terms;

typedef struct hr_diagnostics hr_diagnostics;

/* Errors: OUT_OF_MEMORY. */
hr_status hr_diagnostics_create(const hr_plan *plan, hr_diagnostics **diagnostics, hr_error *err);
void hr_diagnostics_destroy(hr_diagnostics *diagnostics); /* NULL is allowed */

/* ---- Gathering ---- */

/* For hr_observe of the same plan: adds each row's experts and gates. */
hr_observer hr_diagnostics_observer(hr_diagnostics *diagnostics);

/* Adds the rows' logits (n_rows, T), and counts the rows. */
void hr_diagnostics_add_logits(hr_diagnostics *diagnostics, const float *logits, uint32_t n_rows);

/* ---- What came out ---- */

const hr_plan *hr_diagnostics_plan(const hr_diagnostics *diagnostics);
uint64_t hr_diagnostics_rows(const hr_diagnostics *diagnostics);

/* Hidden layer i of expert k of unit u of layer y; the expert's output is the last. */
typedef struct hr_expert_measures {
    uint32_t width;
    double zero_share; /* of all activations */
    uint32_t n_dead;   /* neurons that are zero on every row */
    double mean, std;  /* over all rows and neurons */
    double row_std;    /* how far a neuron varies over the rows: root mean square of the neurons' std */
    hr_verdict verdict;
} hr_expert_measures;
hr_expert_measures hr_diagnostics_expert(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u,
                                         uint32_t k, uint32_t i);

/* The mean weights of mixing unit u: (n_mixed), owned by the diagnostics; and of its self gate: (E), or NULL.
 */
typedef struct hr_gate_measures {
    const double *weights;
    const double *self_weights;
    double entropy;     /* of the mean weights, over ln n_mixed: 1 is even, 0 is one expert (or only one) */
    double row_entropy; /* the mean of the rows' own, likewise: below entropy where rows differ */
    uint32_t largest;   /* the mixed expert with the largest mean weight */
    double own;         /* the unit's own experts' part of the mix */
    double own_even;    /* what it would be if all were alike: E / n_mixed, 0 where it does not mix its own */
    double self;        /* the self gate's weights together; 1 where E > 1 */
    double own_total;   /* (own + self) / (1 + self) */
    hr_verdict degradation, underfitting;
} hr_gate_measures;
hr_gate_measures hr_diagnostics_gate(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u);

/* How one expert's use is spread over the gates of its layer that see it. */
typedef struct hr_use_measures {
    uint32_t n_gates;
    double mean;           /* weight, over those gates */
    double largest_share;  /* of the sum of its weights; 0 where that is 0 */
    uint32_t largest_unit; /* whose gate has it */
    double entropy;        /* of the shares, over ln n_gates; 0 for one gate */
    hr_verdict verdict;
} hr_use_measures;
hr_use_measures hr_diagnostics_use(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u, uint32_t k);

/* Mean weight that unit `gate` gives expert k of unit u; -1 where it does not see it. */
double hr_diagnostics_weight(const hr_diagnostics *diagnostics, uint32_t y, uint32_t gate, uint32_t u,
                             uint32_t k);

/* The mean of a task's output (a probability, for sigmoid): sparse tasks show by it. */
double hr_diagnostics_output(const hr_diagnostics *diagnostics, uint32_t task);

/* Calls found for everything suspicious, layer by layer, with its figures in words. Returns how much that is.
 */
typedef void hr_finding_fn(void *arg, hr_verdict verdict, const char *subject, const char *figures);
size_t hr_diagnostics_findings(const hr_diagnostics *diagnostics, hr_finding_fn *found, void *arg);

enum { HR_DIAGNOSTIC_NAME_SIZE = 256 };
typedef struct hr_diagnostic_name {
    char text[HR_DIAGNOSTIC_NAME_SIZE]; /* cut where it is longer */
} hr_diagnostic_name;

/* "layer.unit", and "layer.unit[k]" for an expert. */
hr_diagnostic_name hr_diagnostics_unit_name(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u);
hr_diagnostic_name hr_diagnostics_expert_name(const hr_diagnostics *diagnostics, uint32_t y, uint32_t u,
                                              uint32_t k);

/* The expert at place j < n_mixed of the mix of unit `gate`. */
void hr_diagnostics_mixed(const hr_diagnostics *diagnostics, uint32_t y, uint32_t gate, uint32_t j,
                          uint32_t *u, uint32_t *k);

#endif
