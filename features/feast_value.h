/* A value of a Feast online store as a feature's value (MODEL.md 3).
 *
 *   string, uuid, decimal      the text
 *   bytes                      the text, where it is one
 *   int32, int64, a time       the integer's decimal text (a time in seconds since 1970; the smallest:
 * missing) double, float              the number bool                       the text 1 or 0 lists and sets of
 * these    texts, or numbers; elements of a set in the order in which they lie null, no kind at all missing
 *   map, struct, json, lists of lists, times with a zone    none: of a wrong kind
 *
 * Any thread. Private to features/.
 */
#ifndef HOMERANK_FEATURES_FEAST_VALUE_H
#define HOMERANK_FEATURES_FEAST_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "proto/homerank.pb-c.h"

/* data: a serialised feast.types.Value, from outside and unchecked. *value lies in the arena; its kind is not
 * set where the value is missing. NULL after an error: INVALID_ARGUMENT: not a Value, or of a kind that no
 * feature has; RESOURCE_EXHAUSTED: the arena's cap is reached. */
hr_status hr_feast_value_decode(const uint8_t *data, size_t nbytes, hr_arena *arena,
                                const Homerank__V1__FeatureValue **value, hr_error *err);

/* Seconds since 1970 of a serialised google.protobuf.Timestamp. False where it is none. */
bool hr_feast_time_read(const uint8_t *data, size_t nbytes, int64_t *seconds);

#endif
