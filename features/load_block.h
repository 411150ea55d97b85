/* A piece of a load's input on its way: lines, then the batches and the complaints that they were made into.
 *
 * Thread rule: one thread at a time. Private to features/.
 */
#ifndef HOMERANK_FEATURES_LOAD_BLOCK_H
#define HOMERANK_FEATURES_LOAD_BLOCK_H

#include "features/load_csv.h"
#include "features/load_pack.h"
#include "features/record_writer.h"

typedef struct hr_block_line {
    size_t at, nbytes; /* in text, NUL-terminated */
    uint64_t number;
    bool too_long; /* it was passed over */
} hr_block_line;

/* A bad line and what is wrong with it. */
typedef struct hr_block_complaint {
    uint64_t line;
    hr_error why;
} hr_block_complaint;

typedef struct hr_load_block {
    char *text; /* nbytes of capacity, owned */
    size_t nbytes, capacity;
    hr_block_line *lines; /* (n_lines) owned */
    size_t n_lines, lines_capacity;
    uint64_t next_line;             /* the one behind the last */
    hr_record_batch *batches;       /* (lanes of the writer) owned */
    size_t n_records;               /* in all batches */
    hr_block_complaint *complaints; /* (n_complaints) owned, by line */
    size_t n_complaints, complaints_capacity;
    uint64_t file_nbytes; /* of the file had been read when it was filled */
} hr_load_block;

/* All zero at first. False when out of memory. */
bool hr_load_block_create(hr_load_block *block, size_t n_lanes);
void hr_load_block_destroy(hr_load_block *block, size_t n_lanes);
void hr_load_block_empty(hr_load_block *block, size_t n_lanes); /* keeps its memory */

/* Adds a line; joins: it goes on with the last one, behind a line feed. False when out of memory. */
bool hr_load_block_add(hr_load_block *block, const char *text, size_t nbytes, uint64_t number, bool joins);
bool hr_load_block_add_too_long(hr_load_block *block, uint64_t number);

/* What lines are read by; one per thread. */
typedef struct hr_block_reader {
    const hr_record_writer *writer;
    const hr_csv_header *csv; /* NULL: JSON lines */
    hr_arena *arena;          /* owned: one line's */
    hr_load_packer packer;
} hr_block_reader;

/* Reads all lines into the batches. Bad ones are complaints. Errors: OUT_OF_MEMORY. */
hr_status hr_load_block_read(hr_load_block *block, hr_block_reader *reader, hr_error *err);

#endif
