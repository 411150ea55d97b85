/* Deadlines of things that wait: a thread that says when each is due.
 *
 * Thread rule: any thread adds and removes; `due` runs on the thread of the deadlines. Private to features/.
 */
#ifndef HOMERANK_FEATURES_DEADLINES_H
#define HOMERANK_FEATURES_DEADLINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct hr_deadlines hr_deadlines;

/* Part of the thing that waits. */
typedef struct hr_deadline {
    uint64_t at_ns; /* hr_clock_ns; the caller's */
    size_t place;   /* the deadlines' own; 0 before it is added */
} hr_deadline;

/* Starts the thread. Errors: OUT_OF_MEMORY, RESOURCE_EXHAUSTED. */
hr_status hr_deadlines_create(void (*due)(hr_deadline *deadline), hr_deadlines **deadlines, hr_error *err);

/* Ends the thread; what is still there is not due any more. NULL is allowed. */
void hr_deadlines_destroy(hr_deadlines *deadlines);

/* False where there is no memory for one more. */
bool hr_deadlines_add(hr_deadlines *deadlines, hr_deadline *deadline);

/* True where it was there and will not be due; false where it never was, or `due` is told of it, now or
 * before.
 */
bool hr_deadlines_remove(hr_deadlines *deadlines, hr_deadline *deadline);

#endif
