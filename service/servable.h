/* What turns a loaded model into one that can serve: the feature encoder of its schema, and the check that it
 * computes what its training code computed (MODEL.md 1, verify.jsonl). */
#ifndef HOMERANK_SERVICE_SERVABLE_H
#define HOMERANK_SERVICE_SERVABLE_H

#include "base/status.h"
#include "features/encoder.h"
#include "model/model.h"
#include "service/service_time.h"

/* For hr_repository_options.prepare (its arg is unused): attaches the encoder, then checks verify.jsonl where
 * dir has one. Errors: OUT_OF_MEMORY; INVALID_ARGUMENT naming the line, request, item, task, expected, found.
 */
hr_status hr_servable_prepare(hr_model *model, const char *dir, void *arg, hr_error *err);

/* The model's encoder; borrowed, lives as long as the model. */
const hr_encoder *hr_servable_encoder(const hr_model *model);

/* How long its batches take, as measured by whoever runs them; likewise. */
hr_service_time *hr_servable_time(const hr_model *model);

#endif
