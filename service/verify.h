/* verify.jsonl (MODEL.md 1): requests with every feature inline and the logits that the training code found.
 */
#ifndef HOMERANK_SERVICE_VERIFY_H
#define HOMERANK_SERVICE_VERIFY_H

#include "base/status.h"
#include "model/model.h"

/* Scores every line of the file at path with the model's own engine (worker 0, which nobody may be using) and
 * compares each logit within MODEL.md 5's bound of its precision. A file that is not there is HR_OK with
 * *n_lines = 0. Errors: INVALID_ARGUMENT "verify.jsonl:LINE: request ..., item ..., task ...: expected ...,
 * found ..."; IO; RESOURCE_EXHAUSTED. */
hr_status hr_verify_file(const hr_model *model, const char *path, uint32_t *n_lines, hr_error *err);

#endif
