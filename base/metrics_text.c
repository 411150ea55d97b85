/* Prometheus' text: see metrics_text.h. */
#include "base/metrics_text.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Backslash and line feed are escaped everywhere, the quote in label values. */
static void print_escaped(FILE *out, const char *bytes, bool quote) {
    for (; *bytes != '\0'; bytes++) {
        if (*bytes == '\n')
            fputs("\\n", out);
        else if (*bytes == '\\' || (quote && *bytes == '"'))
            fprintf(out, "\\%c", *bytes);
        else
            fputc(*bytes, out);
    }
}

/* The shortest text that reads back as the same double; Prometheus spells what is not finite its own way. */
static void format_value(double value, char text[32]) {
    if (isnan(value)) {
        strcpy(text, "NaN");
    } else if (isinf(value)) {
        strcpy(text, value > 0 ? "+Inf" : "-Inf");
    } else {
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, 32, "%.*g", digits, value);
            if (strtod(text, NULL) == value) break;
        }
    }
}

static void print_line(const hr_metrics_text *text, const char *suffix, double value, const hr_label *labels,
                       size_t n_labels) {
    char shown[32];
    format_value(value, shown);
    fprintf(text->out, "%s%s", text->name, suffix);
    for (size_t i = 0; i < n_labels; i++) {
        fprintf(text->out, "%s%s=\"", i == 0 ? "{" : ",", labels[i].name);
        print_escaped(text->out, labels[i].value, true);
        fputc('"', text->out);
    }
    fprintf(text->out, "%s %s\n", n_labels > 0 ? "}" : "", shown);
}

void hr_metrics_text_family(hr_metrics_text *text, hr_metric_kind kind, const char *name, const char *help) {
    static const char *const kinds[] = {
        [HR_METRIC_COUNTER] = "counter", [HR_METRIC_GAUGE] = "gauge", [HR_METRIC_HISTOGRAM] = "histogram"};
    text->name = name;
    fprintf(text->out, "# HELP %s ", name);
    print_escaped(text->out, help, false);
    fprintf(text->out, "\n# TYPE %s %s\n", name, kinds[kind]);
}

void hr_metrics_text_sample(hr_metrics_text *text, double value, const hr_label *labels, size_t n_labels) {
    print_line(text, "", value, labels, n_labels);
}

void hr_metrics_text_histogram(hr_metrics_text *text, const hr_metrics_buckets *buckets,
                               const hr_label *labels, size_t n_labels) {
    hr_label with_le[HR_METRIC_MAX_LABELS];
    assert(n_labels < HR_METRIC_MAX_LABELS);
    for (size_t i = 0; i < n_labels; i++) with_le[i] = labels[i];
    const double divisor = (double)buckets->divisor;
    uint64_t count = 0;
    for (size_t i = 0; i <= buckets->n_bounds; i++) {
        char le[32];
        format_value(i < buckets->n_bounds ? (double)buckets->bounds[i] / divisor : HUGE_VAL, le);
        with_le[n_labels] = (hr_label){"le", le};
        count += buckets->counts[i];
        print_line(text, "_bucket", (double)count, with_le, n_labels + 1);
    }
    print_line(text, "_sum", (double)buckets->sum / divisor, labels, n_labels);
    print_line(text, "_count", (double)count, labels, n_labels);
}

void hr_metrics_text_counter(hr_metrics_text *text, const char *name, const char *help, double value) {
    hr_metrics_text_family(text, HR_METRIC_COUNTER, name, help);
    hr_metrics_text_sample(text, value, NULL, 0);
}

void hr_metrics_text_gauge(hr_metrics_text *text, const char *name, const char *help, double value) {
    hr_metrics_text_family(text, HR_METRIC_GAUGE, name, help);
    hr_metrics_text_sample(text, value, NULL, 0);
}
