/* From a request and its fetched records to encoded rows (DESIGN 3, step 4). */
#ifndef HOMERANK_SERVICE_REQUEST_ENCODE_H
#define HOMERANK_SERVICE_REQUEST_ENCODE_H

#include "base/arena.h"
#include "base/status.h"
#include "features/encoder.h"
#include "proto/homerank.pb-c.h"
#include "schema/slice.h"

/* Encodes the user once, the context once and each item once; inline features override stored ones.
 * records: the finished fetch of the request's ids, or NULL where only inline features count. The rows live
 * in arena; scratch is reset as it goes. slice->logits is left to the caller. *n_invalid counts stored values
 * of the wrong kind. Errors: INVALID_ARGUMENT naming the part ("item_features[3]: feature ..."),
 * RESOURCE_EXHAUSTED (an arena's cap). */
hr_status hr_request_encode(const hr_encoder *encoder, const hr_schema *schema,
                            const Homerank__V1__RankRequest *request, const hr_fetch *records,
                            hr_arena *arena, hr_arena *scratch, hr_slice *slice, uint32_t *n_invalid,
                            hr_error *err);

#endif
