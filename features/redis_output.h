/* The commands that gather until a connection writes them. Private to features/. */
#ifndef HOMERANK_FEATURES_REDIS_OUTPUT_H
#define HOMERANK_FEATURES_REDIS_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* Zeroed: empty. data is owned; freed by hr_redis_output_free. */
typedef struct hr_redis_output {
    char *data;
    size_t nbytes, capacity;
    size_t mark;        /* where the command that is being built begins */
    bool out_of_memory; /* while it was built */
} hr_redis_output;

/* A command: begin, n_texts times text, end. A text is head and tail joined. end is OUT_OF_MEMORY, and the
 * command gone, where any part of it found no memory. */
void hr_redis_output_begin(hr_redis_output *output, size_t n_texts);
void hr_redis_output_text(hr_redis_output *output, const char *head, size_t head_nbytes, const char *tail,
                          size_t tail_nbytes);
hr_status hr_redis_output_end(hr_redis_output *output);
void hr_redis_output_take_back(hr_redis_output *output); /* the command that was ended last */

void hr_redis_output_free(hr_redis_output *output);

#endif
