/* What a load generator reads of an answer, without unpacking it: how many items, and the server's timing. */
#ifndef HOMERANK_SERVICE_LOAD_ANSWER_H
#define HOMERANK_SERVICE_LOAD_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "service/load_stats.h"

/* Fills n_items, has_timing and stage_us from a packed RankResponse; bytes that are none leave has_timing
 * false. Any thread. */
void hr_load_answer_read(const uint8_t *data, size_t nbytes, hr_load_outcome *outcome);

#endif
