/* `homerank inspect DIR`: a model as text: the network as a tree, tasks, tables, features, sizes. */
#ifndef HOMERANK_SERVICE_INSPECT_H
#define HOMERANK_SERVICE_INSPECT_H

#include <stdio.h>

#include "base/status.h"

/* Loads the model folder dir with all its checks and writes the text to out.
 * Errors: those of hr_model_load; IO where out cannot be written. */
hr_status hr_inspect(const char *dir, FILE *out, hr_error *err);

#endif
