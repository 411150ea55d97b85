/* Files of JSON objects, a line each, of which bad ones are said and passed over. One thread. */
#ifndef HOMERANK_SERVICE_ANALYSIS_LINES_H
#define HOMERANK_SERVICE_ANALYSIS_LINES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

/* Called for each object; borrowed. INVALID_ARGUMENT: a bad line; anything else ends the reading. */
typedef hr_status (*hr_line_take)(void *arg, const json_t *object, hr_error *err);

enum { HR_BAD_LINES_SAID = 10 }; /* of a file; the others are only counted */

/* path: as hr_line_reader_open. Bad lines go to messages as "PATH:LINE: why" and are counted in *n_bad.
 * Errors: those of the file and of take. */
hr_status hr_lines_read(const char *path, hr_line_take take, void *arg, FILE *messages, uint64_t *n_bad,
                        hr_error *err);

/* The member's text. Errors: INVALID_ARGUMENT naming the key (missing, or no text). */
hr_status hr_line_text(const json_t *object, const char *key, const char **text, hr_error *err);

/* The member as a time in microseconds since 1970 UTC: a text like "2026-11-23T16:40:00.123Z", or seconds as
 * a number. *is_there is false where there is no such member. Errors: INVALID_ARGUMENT naming the key. */
hr_status hr_line_time(const json_t *object, const char *key, bool *is_there, int64_t *time_us,
                       hr_error *err);

#endif
