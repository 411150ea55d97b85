/* From a request and its fetched records to encoded rows (DESIGN 3, step 4). */
#ifndef HOMERANK_SERVICE_REQUEST_ENCODE_H
#define HOMERANK_SERVICE_REQUEST_ENCODE_H

#include "base/arena.h"
#include "base/status.h"
#include "features/encoder.h"
#include "proto/homerank.pb-c.h"
#include "schema/slice.h"

/* Encodes the user once, the context once and each item once; inline features override stored ones.
 * records: the finished fetch of the request's ids, or NULL where only inline features count; rows that it
 * has of a cache are taken as they are, and those encoded here are offered to it. The rows live in arena;
 * scratch is reset as it goes. slice->logits is left to the caller. *n_invalid counts stored values of the
 * wrong kind, but for the fields that are given inline. Errors: INVALID_ARGUMENT naming the part
 * ("item_features[3]: feature ..."), RESOURCE_EXHAUSTED (an arena's cap). */
hr_status hr_request_encode(const hr_encoder *encoder, const hr_schema *schema,
                            const Homerank__V1__RankRequest *request, const hr_fetch *records,
                            hr_arena *arena, hr_arena *scratch, hr_slice *slice, uint32_t *n_invalid,
                            hr_error *err);

/* The same in two steps. First the rows of the slice, of which the user's and the context's are encoded. */
hr_status hr_request_encode_shared(const hr_encoder *encoder, const hr_schema *schema,
                                   const Homerank__V1__RankRequest *request, const hr_fetch *records,
                                   hr_arena *arena, hr_arena *scratch, hr_slice *slice, uint32_t *n_invalid,
                                   hr_error *err);

/* Then the items [first, first + n) into their rows. Threads may encode different items of a slice side by
 * side, each with its own scratch. */
hr_status hr_request_encode_items(const hr_encoder *encoder, const hr_schema *schema,
                                  const Homerank__V1__RankRequest *request, const hr_fetch *records,
                                  hr_arena *scratch, const hr_slice *slice, uint32_t first, uint32_t n,
                                  uint32_t *n_invalid, hr_error *err);

#endif
