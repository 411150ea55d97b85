/* A diagnosis made readable: tables for a terminal, and a page for a browser. */
#ifndef HOMERANK_SERVICE_DIAGNOSTICS_REPORT_H
#define HOMERANK_SERVICE_DIAGNOSTICS_REPORT_H

#include <stdio.h>

#include "base/status.h"
#include "service/diagnostics.h"
#include "service/diagnostics_data.h"

/* What a report is about; all borrowed. */
typedef struct hr_diagnosis {
    const char *model; /* "name@version" */
    const char *data;  /* the requests' file */
    hr_diagnostics_counts counts;
    const hr_diagnostics *diagnostics;
} hr_diagnosis;

/* Errors: OUT_OF_MEMORY; IO where out cannot be written. */
hr_status hr_diagnosis_print(const hr_diagnosis *diagnosis, FILE *out, hr_error *err);

/* One page that needs nothing else: inline style and SVG, no script. What is at path is overwritten.
 * Errors: OUT_OF_MEMORY; IO naming the path. */
hr_status hr_diagnosis_write_html(const hr_diagnosis *diagnosis, const char *path, hr_error *err);

#endif
