/* Where a load is to go on: a small file beside it, replaced as a whole, so that a load that was killed
 * knows.
 * {"in":"...","store":"...","line":123}. One thread at a time. Private to features/. */
#ifndef HOMERANK_FEATURES_LOAD_RESUME_H
#define HOMERANK_FEATURES_LOAD_RESUME_H

#include <stdint.h>

#include "base/status.h"

/* Sets *line to that of the file; leaves it where there is no file. store: without secrets.
 * Errors: INVALID_ARGUMENT (not such a file, or of another load), IO. */
hr_status hr_load_resume_read(const char *path, const char *in, const char *store, uint64_t *line,
                              hr_error *err);

/* Replaces the file; what it says survives the machine's end. Errors: IO, OUT_OF_MEMORY. */
hr_status hr_load_resume_write(const char *path, const char *in, const char *store, uint64_t line,
                               hr_error *err);

/* The load is done. Errors: IO. */
hr_status hr_load_resume_remove(const char *path, hr_error *err);

#endif
