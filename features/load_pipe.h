/* A load's blocks on their way from the file into the store: read by several threads, written lane by lane
 * in their order.
 *
 *   put (the loader) --> readers (any block) --> lanes (every block in order, its own batch) --> take
 *
 * Blocks are few and go round, so that memory does not grow with the file.
 * Thread rule: the loader's thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_LOAD_PIPE_H
#define HOMERANK_FEATURES_LOAD_PIPE_H

#include "features/load_block.h"

typedef struct hr_load_pipe hr_load_pipe;

/* The writer and the header (NULL: JSON lines) are borrowed. Errors: OUT_OF_MEMORY, RESOURCE_EXHAUSTED. */
hr_status hr_load_pipe_open(hr_record_writer *writer, const hr_csv_header *csv, size_t n_readers,
                            hr_load_pipe **pipe, hr_error *err);

/* An empty block to fill and put; NULL where all are on their way: take one first. */
hr_load_block *hr_load_pipe_block(hr_load_pipe *pipe);
void hr_load_pipe_put(hr_load_pipe *pipe);

/* The oldest block that was put, all of it in the store, to be given back; waits for it until until_ns
 * (hr_clock_ns). *block is NULL where it has not come by then, and where none is on its way. Errors: the
 * store's, or memory's: nothing behind that block is surely there. */
hr_status hr_load_pipe_take(hr_load_pipe *pipe, uint64_t until_ns, hr_load_block **block, hr_error *err);
void hr_load_pipe_give_back(hr_load_pipe *pipe);

bool hr_load_pipe_is_empty(const hr_load_pipe *pipe);

/* What is on its way and not yet being written stays unwritten. NULL is allowed. */
void hr_load_pipe_close(hr_load_pipe *pipe);

#endif
