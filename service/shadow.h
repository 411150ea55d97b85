/* Shadow scoring: a share of the answered requests is ranked by a second model too, for nobody but the log.
 *
 * A shadow begins when its answer was sent, as a call of the lowest class: it runs when no other work waits,
 * and where there is too much it is refused by the scheduler's own bounds. What came of it, how much the two
 * rankings differ, goes to the exposure log and to the metrics. Any thread, but for create and close.
 */
#ifndef HOMERANK_SERVICE_SHADOW_H
#define HOMERANK_SERVICE_SHADOW_H

#include "base/metrics_text.h"
#include "service/exposures/exposures.h"
#include "service/pipeline.h"

typedef struct hr_shadow hr_shadow;
typedef struct hr_shadow_call hr_shadow_call;

/* exposures may be NULL. Both are borrowed until the close. max_nbytes: of the requests' memory that all
 * shadows may hold together, as it is when they are answered. NULL when out of memory. */
hr_shadow *hr_shadow_create(hr_pipeline *pipeline, hr_exposures *exposures, size_t max_nbytes);

/* Gives up the shadows under way, waits for them, and frees it. No other function may be running. */
void hr_shadow_close(hr_shadow *shadow); /* NULL is allowed */

/* Gives the memory of a call back to whoever it is from; nbytes as given to prepare. */
typedef void (*hr_shadow_give_back)(void *arg, hr_arena *arena, size_t nbytes);

/* In the `done` of a call whose shadow_model is set: takes its arena over (call->arena is NULL then) for the
 * shadow to come. NULL, counted as dropped and nothing taken, where memory is short. */
hr_shadow_call *hr_shadow_prepare(hr_shadow *shadow, hr_rank_call *call, size_t nbytes,
                                  hr_shadow_give_back give_back, void *arg);

/* One of them, once: the answer was sent; or it was not. */
void hr_shadow_start(hr_shadow_call *call);
void hr_shadow_drop(hr_shadow_call *call);

/* Prints what came of them; a collector (hr_metrics_add) whose arg is the shadow. */
void hr_shadow_collect(hr_metrics_text *text, void *shadow);

#endif
