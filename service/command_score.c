/* `homerank score`: offline, by the code that serves. */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "service/commands.h"
#include "service/runtime.h"
#include "service/scoring.h"

/* Enough that every worker has full batches while answers are written, however small or large the requests;
 * and no more items than that takes, for they need their memory all the while. */
enum { BATCHES_IN_FLIGHT = 16, LARGEST_IN_FLIGHT = 2 };

static uint32_t requests_in_flight(const hr_options *options) {
    uint64_t n = (uint64_t)options->threads * options->max_batch_rows * 2;
    return n < options->max_queued_calls ? (uint32_t)n : options->max_queued_calls;
}

static uint64_t items_in_flight(const hr_options *options) {
    uint64_t n = (uint64_t)options->threads * options->max_batch_rows * BATCHES_IN_FLIGHT;
    n += (uint64_t)options->max_items * LARGEST_IN_FLIGHT;
    return n < options->max_queued_items ? n : options->max_queued_items;
}

static void print_summary(const hr_scoring_result *result, double seconds) {
    fprintf(stderr,
            "scored %" PRIu64 " requests, %" PRIu64 " items in %.1f s (%.0f items/s), %" PRIu64
            " bad lines, %" PRIu64 " answers with warnings\n",
            result->n_scored, result->n_items, seconds, seconds > 0 ? (double)result->n_items / seconds : 0,
            result->n_failed, result->n_warnings);
}

int hr_command_score(const hr_options *options) {
    hr_runtime runtime;
    hr_error err;
    const atomic_bool *stop = hr_command_stop_flag();
    if (hr_runtime_start(options, NULL, &runtime, &err)) return hr_command_fail(&err);
    hr_scoring_options scoring = {
        .in_path = options->in,
        .out_path = options->out,
        .n_in_flight = requests_in_flight(options),
        .n_items_in_flight = items_in_flight(options),
        .max_call_nbytes = options->max_call_bytes,
        .stop = stop,
    };
    hr_scoring_result result;
    uint64_t begun_ns = hr_clock_ns();
    hr_status status = hr_score_file(runtime.pipeline, &scoring, &result, &err);
    print_summary(&result, (double)(hr_clock_ns() - begun_ns) / 1e9);
    hr_runtime_stop(&runtime);
    if (status) return hr_command_fail(&err);
    return result.n_failed == 0 ? 0 : 1;
}
