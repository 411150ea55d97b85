/* A feature's value as the plain text of a Redis hash's field (layout=hash). Private to features/. */
#ifndef HOMERANK_FEATURES_RECORD_TEXT_H
#define HOMERANK_FEATURES_RECORD_TEXT_H

#include "base/arena.h"
#include "base/status.h"
#include "proto/homerank.pb-c.h"

/* The text, in the arena; *text is NULL for what has none and is simply not stored: a missing value, an empty
 * list, a number that is not finite. Lists are joined by commas; numbers are the shortest text that reads
 * back as they are. Errors: INVALID_ARGUMENT (an element with a comma, a list of one empty text: they would
 * read back as something else; or the arena is full). */
hr_status hr_record_text(const Homerank__V1__FeatureValue *value, hr_arena *arena, const char **text,
                         hr_error *err);

#endif
