/* The loader's messages: bad lines, and on a terminal a bar below them. Private to features/. */
#ifndef HOMERANK_FEATURES_LOAD_PROGRESS_H
#define HOMERANK_FEATURES_LOAD_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct hr_load_progress {
    FILE *out; /* NULL: nothing is said */
    bool bar;
    bool visible;                /* the bar stands on the terminal's last line */
    uint64_t begin_ns, drawn_ns; /* hr_clock_ns */
} hr_load_progress;

hr_load_progress hr_load_progress_begin(FILE *out, bool bar);

/* Draws the bar where it was last drawn long enough ago. nbytes_total 0: unknown. */
void hr_load_progress_draw(hr_load_progress *progress, uint64_t n_records, uint64_t nbytes,
                           uint64_t nbytes_total);

/* A line of text, in the place of the bar. */
void hr_load_progress_say(hr_load_progress *progress, const char *path, uint64_t line, const char *message);

void hr_load_progress_end(hr_load_progress *progress);

#endif
