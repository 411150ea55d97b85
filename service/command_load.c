/* `homerank load`: requests at a rate against a running server, and what became of them. */
#include <stdio.h>

#include "service/commands.h"
#include "service/load.h"
#include "service/load_print.h"

enum { EXIT_USAGE = 2 };

/* One of --rate, --phases and --in-flight says what to do; the table has checked the form of each. */
static hr_status plan_of(const hr_options *options, hr_load_plan *plan, hr_error *err) {
    const bool has_rate = options->rate[0] != '\0', has_phases = options->phases[0] != '\0';
    const int n_given = has_rate + has_phases + (options->in_flight > 0);
    double rate = 0;
    hr_status status = HR_OK;
    *plan = (hr_load_plan){.n_in_flight = options->in_flight};
    if (n_given != 1)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "expected one of --rate, --phases and --in-flight, found %s",
                            n_given == 0 ? "none" : "several");
    if (has_phases) {
        if (hr_load_plan_read_phases(plan, options->phases, options->warmup_s, err) == HR_OK) return HR_OK;
        return hr_error_prefix(err, "--phases");
    }
    if (has_rate) status = hr_load_read_rate(options->rate, &rate, err);
    if (!status && options->warmup_s > 0) status = hr_load_plan_add(plan, rate, options->warmup_s, true, err);
    if (!status) status = hr_load_plan_add(plan, rate, options->duration_s, false, err);
    return status ? hr_error_prefix(err, "--duration-s") : HR_OK;
}

static hr_status requests_of(const hr_options *options, hr_load_requests **requests, hr_error *err) {
    const hr_load_requests_options made = {
        .in = options->in,
        .sizes = options->items,
        .item_ids = options->item_ids,
        .users = options->users,
        .zipf = options->zipf,
        .n_requests = options->requests,
        .seed = options->seed,
        .model = options->model,
        .priority = options->priority,
    };
    return hr_load_requests_create(&made, requests, err);
}

static hr_status run(const hr_options *options, const hr_load_plan *plan, const hr_load_requests *requests,
                     hr_load_stats **stats, hr_error *err) {
    const hr_load_options load = {
        .target = options->target,
        .n_connections = options->connections,
        .n_threads = options->threads,
        .timeout_ms = options->timeout_ms,
        .max_in_flight = options->max_in_flight,
        .cancel_percent = options->cancel_percent,
        .seed = options->seed,
        .stop = hr_command_stop_flag(),
    };
    return hr_load_run(&load, plan, requests, stats, err);
}

static hr_status print(const hr_options *options, const hr_load_requests *requests,
                       const hr_load_stats *stats, hr_error *err) {
    const hr_load_heading heading = {
        .target = options->target,
        .n_connections = options->connections,
        .n_requests = hr_load_requests_count(requests),
    };
    return options->json ? hr_load_print_json(stats, &heading, err)
                         : hr_load_print_tables(stats, options->timeline, err);
}

int hr_command_load(const hr_options *options) {
    hr_error err;
    hr_load_plan plan;
    hr_load_requests *requests = NULL;
    hr_load_stats *stats = NULL;
    hr_status status = plan_of(options, &plan, &err);
    bool from_file = !status && options->in[0] != '\0';
    if (!status) status = requests_of(options, &requests, &err);
    bool misused = status == HR_INVALID_ARGUMENT && !from_file;
    if (!status) status = run(options, &plan, requests, &stats, &err);
    if (!status) status = print(options, requests, stats, &err);
    if (!status && atomic_load(hr_command_stop_flag()))
        status = hr_error_set(&err, HR_CANCELLED, "stopped by a signal before the end");
    hr_load_stats_destroy(stats);
    hr_load_requests_destroy(requests);
    if (!status) return 0;
    int code = hr_command_fail(&err);
    return misused ? EXIT_USAGE : code;
}
