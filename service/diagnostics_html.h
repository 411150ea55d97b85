/* Pieces of the diagnosis's page. Private to service/. */
#ifndef HOMERANK_SERVICE_DIAGNOSTICS_HTML_H
#define HOMERANK_SERVICE_DIAGNOSTICS_HTML_H

#include <stddef.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/status.h"
#include "service/diagnostics.h"

/* Writes text as HTML text or as a quoted attribute's value: markup escaped; what is no character of UTF-8,
 * or a control character, as U+FFFD. */
void hr_html_text(FILE *out, const char *text);

/* hr_html_text of at most max_chars characters, the last one "…" where more were there. */
void hr_html_text_cut(FILE *out, const char *text, size_t max_chars);

/* The verdict's word with its meaning behind it; nothing for NONE. */
void hr_html_verdict(FILE *out, hr_verdict verdict);

/* The network as one <svg>: layers from left to right, experts as boxes, edges by gate weight. The arena is
 * for the drawing's plan. Errors: OUT_OF_MEMORY. */
hr_status hr_html_network(const hr_diagnostics *diagnostics, hr_arena *arena, FILE *out, hr_error *err);

/* The gates of every layer as heat maps with numbers. Errors: OUT_OF_MEMORY. */
hr_status hr_html_gates(const hr_diagnostics *diagnostics, hr_arena *arena, FILE *out, hr_error *err);

#endif
