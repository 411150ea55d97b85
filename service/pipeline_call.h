/* A call's way through the pipeline, stage by stage: inside the pipeline only.
 *
 * Thread rule: one thread at a time works on a call, but for encode_items, which several workers may do for
 * different rows once the call is open.
 */
#ifndef HOMERANK_SERVICE_PIPELINE_CALL_H
#define HOMERANK_SERVICE_PIPELINE_CALL_H

#include "schema/slice.h"
#include "service/assignment.h"
#include "service/pipeline.h"
#include "service/scheduler.h"

/* In the call's arena. */
typedef struct hr_call_state {
    hr_scheduled scheduled; /* first: the scheduler hands it back */
    hr_rank_call *call;
    void *owner;              /* the pipeline's */
    hr_assignment assignment; /* owned */
    hr_fetch fetch;
    uint64_t fetch_begun_ns;
    hr_slice slice;           /* all its rows and logits, once it is open */
    bool fetched_when_opened; /* the fetch is part of preparing the first rows */
    atomic_uint n_invalid;
    hr_call_report report;
} hr_call_state;

/* Checks the request and decides what ranks it. *state is NULL where it did not come that far. Errors:
 * INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED. */
hr_status hr_call_prepare(const hr_pipeline_options *options, hr_repository *repository, hr_rank_call *call,
                          hr_call_state **state, hr_error *err);

/* Asks the store for the records; done gets the fetch, whose arg is the state. */
void hr_call_fetch(hr_call_state *state, hr_store *store, void (*done)(hr_fetch *fetch));
void hr_call_fetched(hr_call_state *state); /* first thing in done */

/* With its records there: begins the answer, makes room for the rows, encodes the user and the context.
 * Errors: UNAVAILABLE (strict features), INVALID_ARGUMENT, RESOURCE_EXHAUSTED. */
hr_status hr_call_open(hr_call_state *state, bool strict_features, hr_arena *scratch, hr_error *err);
hr_status hr_call_encode_items(hr_call_state *state, uint32_t first, uint32_t n, hr_arena *scratch,
                               hr_error *err);

/* The rows [first, first + n) as a part of a batch. */
hr_slice hr_call_slice(const hr_call_state *state, uint32_t first, uint32_t n);

/* Every row is computed: fuses, ranks, fills the answer. Errors: RESOURCE_EXHAUSTED. */
hr_status hr_call_answer(hr_call_state *state, hr_error *err);

/* Completes the report of an admitted call by its times, and the answer's timing. */
void hr_call_clock(hr_call_state *state);

#endif
