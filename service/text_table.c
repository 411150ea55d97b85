/* A table of texts for a terminal. */
#include "service/text_table.h"

#include <stdarg.h>
#include <string.h>

#include "base/utf8.h"

struct hr_text_table {
    hr_arena *arena;
    size_t n_columns, max_rows;
    size_t n_titles, n_cells;
    size_t *widths;     /* (n_columns) in characters */
    bool *to_the_right; /* (n_columns) */
    const char **cells; /* (1 + max_rows, n_columns): the titles, then the rows */
};

hr_text_table *hr_text_table_create(hr_arena *arena, size_t n_columns, size_t max_rows) {
    hr_text_table *table = hr_arena_calloc(arena, 1, sizeof(*table));
    if (!table) return NULL;
    *table = (hr_text_table){.arena = arena, .n_columns = n_columns, .max_rows = max_rows};
    table->widths = hr_arena_calloc(arena, n_columns, sizeof(*table->widths));
    table->to_the_right = hr_arena_calloc(arena, n_columns, sizeof(*table->to_the_right));
    table->cells = hr_arena_calloc(arena, (max_rows + 1) * n_columns, sizeof(*table->cells));
    return table->widths && table->to_the_right && table->cells ? table : NULL;
}

/* The bytes of the character at text, 1 for a byte that begins none; sets whether it may be printed. */
static size_t next_char(const char *text, size_t nbytes, bool *printable) {
    size_t n = hr_utf8_char(text, nbytes);
    unsigned char first = (unsigned char)text[0];
    bool c0 = n == 1 && (first < 0x20 || first == 0x7f);
    bool c1 = n == 2 && first == 0xc2 && (unsigned char)text[1] < 0xa0;
    *printable = n > 0 && !c0 && !c1;
    return n ? n : 1;
}

static size_t width_of(const char *text) {
    size_t nbytes = strlen(text), width = 0;
    bool printable;
    for (size_t i = 0; i < nbytes; i += next_char(text + i, nbytes - i, &printable)) width++;
    return width;
}

void hr_text_print_safe(const char *text, FILE *out) {
    size_t nbytes = strlen(text);
    for (size_t i = 0; i < nbytes;) {
        bool printable;
        size_t n = next_char(text + i, nbytes - i, &printable);
        if (printable)
            fwrite(text + i, 1, n, out);
        else
            fputc('?', out);
        i += n;
    }
}

static void put(hr_text_table *table, size_t index, const char *text) {
    size_t column = index % table->n_columns, width = width_of(text);
    table->cells[index] = text;
    if (width > table->widths[column]) table->widths[column] = width;
}

void hr_text_table_column(hr_text_table *table, const char *title, bool to_the_right) {
    if (table->n_titles == table->n_columns) return;
    table->to_the_right[table->n_titles] = to_the_right;
    put(table, table->n_titles++, title);
}

bool hr_text_table_cell(hr_text_table *table, const char *text) {
    if (table->n_cells == table->max_rows * table->n_columns) return false;
    char *copy = hr_arena_strndup(table->arena, text, strlen(text));
    if (!copy) return false;
    put(table, table->n_columns + table->n_cells++, copy);
    return true;
}

bool hr_text_table_cellf(hr_text_table *table, const char *format, ...) {
    char text[64];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return hr_text_table_cell(table, text);
}

static void print_row(const hr_text_table *table, const char *const *cells, FILE *out) {
    for (size_t c = 0; c < table->n_columns; c++) {
        const char *text = cells[c] ? cells[c] : "";
        int padding = (int)(table->widths[c] - width_of(text));
        bool last = c + 1 == table->n_columns;
        fprintf(out, "%s%*s", c ? "  " : "", table->to_the_right[c] ? padding : 0, "");
        hr_text_print_safe(text, out);
        if (!table->to_the_right[c] && !last) fprintf(out, "%*s", padding, "");
    }
    fputc('\n', out);
}

void hr_text_table_print(const hr_text_table *table, FILE *out) {
    print_row(table, table->cells, out);
    for (size_t c = 0; c < table->n_columns; c++) {
        if (c) fputs("  ", out);
        for (size_t i = 0; i < table->widths[c]; i++) fputs("─", out);
    }
    fputc('\n', out);
    for (size_t i = 0; i + table->n_columns <= table->n_cells; i += table->n_columns)
        print_row(table, table->cells + table->n_columns + i, out);
}
