/* Records from CSV (RFC 4180): a header names the columns, each row is a record.
 *
 *   entity    user or item; may be left out where the load is told the entity
 *   id        the id
 *   NAME      a feature, the cell's text (an integer's or a decimal's text is one: MODEL.md 3)
 *   NAME:number   its decimal number
 *   NAME:ids, NAME:numbers   a list, its elements between commas; an empty one is null
 *
 * An empty cell is a missing feature, quoted or not. A header is immutable once read: any thread may use it.
 * Private to features/.
 */
#ifndef HOMERANK_FEATURES_LOAD_CSV_H
#define HOMERANK_FEATURES_LOAD_CSV_H

#include <stdbool.h>

#include "features/load_line.h"

typedef struct hr_csv_header hr_csv_header;

/* entity: of rows without such a column; NULL: there must be one. The header lies in the arena, text is
 * changed. Errors: INVALID_ARGUMENT. */
hr_status hr_csv_header_read(char *text, size_t nbytes, const hr_entity *entity, hr_arena *arena,
                             const hr_csv_header **header, hr_error *err);

/* A row's record; text (NUL-terminated) is changed. Errors: INVALID_ARGUMENT naming the column; also where
 * the arena is full. */
hr_status hr_csv_row_read(const hr_csv_header *header, char *text, size_t nbytes, hr_arena *arena,
                          hr_load_line *line, hr_error *err);

/* Whether the text ends inside quotes: its row goes on in the next line. */
bool hr_csv_is_open(const char *text, size_t nbytes);

#endif
