/* The JSON form of requests, records and answers (DESIGN 5).
 * Thread-safe; messages are built in the caller's arena and need no free. */
#ifndef HOMERANK_PROTO_JSON_H
#define HOMERANK_PROTO_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/status.h"
#include "proto/homerank.pb-c.h"

/* Parses one JSON text strictly (no duplicate keys, no NUL, nothing after it). *value is a new reference.
 * Errors: INVALID_ARGUMENT with the position and jansson's reason. */
hr_status hr_json_parse(const char *text, size_t nbytes, json_t **value, hr_error *err);

/* A RankRequest from its JSON object. Errors: INVALID_ARGUMENT naming the key, expected and found;
 * RESOURCE_EXHAUSTED when the arena's cap is reached. */
hr_status hr_json_to_request(const json_t *value, hr_arena *arena, Homerank__V1__RankRequest **request,
                             hr_error *err);

/* A FeatureMap from {feature: value}; a plain value from string, number, array or null. Errors: as above. */
hr_status hr_json_to_features(const json_t *value, hr_arena *arena, Homerank__V1__FeatureMap **features,
                              hr_error *err);

/* {feature: value} from a FeatureMap, so that reading it gives the same values; a new reference, NULL when
 * out of memory. A text that is an integer's shortest decimal form becomes that integer, alone or where all
 * of its list are; an empty text in a list, and a number that is not finite, become null. */
json_t *hr_json_from_features(const Homerank__V1__FeatureMap *features);

/* How an answer is dumped: 9 significant digits give a float back as it was. */
#define HR_JSON_RESPONSE_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(9))

/* {"request_id","model","items":[{"item_id","score","tasks":{...}},...]} and, if `details`, the answer's
 * experiments, features, timing and warnings. Scores that are not finite are null. New reference or NULL. */
json_t *hr_json_from_response(const Homerank__V1__RankResponse *response, bool details);

#endif
