/* A table of texts for a terminal: columns as wide as their widest cell, numbers to the right.
 * One thread. Cells are copied; control characters in them are shown as '?', so that what comes from outside
 * cannot steer the terminal. */
#ifndef HOMERANK_SERVICE_TEXT_TABLE_H
#define HOMERANK_SERVICE_TEXT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/arena.h"

typedef struct hr_text_table hr_text_table;

/* In the arena, which must outlive it. NULL when out of memory. */
hr_text_table *hr_text_table_create(hr_arena *arena, size_t n_columns, size_t max_rows);

/* Column by column, before the first row. */
void hr_text_table_column(hr_text_table *table, const char *title, bool to_the_right);

/* The next cell, row by row. False when out of memory. */
bool hr_text_table_cell(hr_text_table *table, const char *text);
bool hr_text_table_cellf(hr_text_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

void hr_text_table_print(const hr_text_table *table, FILE *out);

/* Prints text with its control characters as '?'. */
void hr_text_print_safe(const char *text, FILE *out);

#endif
