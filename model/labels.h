/* labels.json of a model's folder: an object of label names and the versions they name, {"stable": 2}.
 * Internal to model/. */
#ifndef HOMERANK_MODEL_LABELS_H
#define HOMERANK_MODEL_LABELS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "model/repository.h"

enum { HR_LABELS_MAX = 256 };

/* Whether text may be a label: a name of MODEL.md 1 that fits. */
bool hr_label_is_name(const char *text);

/* Reads the file into *labels (n_labels; owned by the caller, free), `served` 0 in each. A file that is not
 * there has none. Errors: INVALID_ARGUMENT (the key, expected, found), IO, OUT_OF_MEMORY. */
hr_status hr_labels_read(const char *path, hr_version_label **labels, size_t *n_labels, hr_error *err);

/* Replaces the file in one step: after a crash it is the old or the new one, whole. Errors: IO,
 * OUT_OF_MEMORY. */
hr_status hr_labels_write(const char *path, const hr_version_label *labels, size_t n_labels, hr_error *err);

#endif
