/* `homerank features load` and `homerank features get`. */
#include <unistd.h>

#include "features/loader.h"
#include "service/commands.h"

int hr_command_features_load(const hr_options *options) {
    hr_load_options load = {
        .store = options->store,
        .in = options->in,
        .from_line = options->from_line,
        .stop = hr_command_stop_flag(),
        .messages = stderr,
        .progress = isatty(STDERR_FILENO) == 1,
        .csv = options->csv,
        .entity = options->entity[0] != '\0' ? options->entity : NULL,
        .n_threads = options->load_threads,
        .n_connections = options->connections,
        .ttl_s = options->ttl_s,
        .rate = options->load_rate,
        .resume = options->resume[0] != '\0' ? options->resume : NULL,
    };
    hr_load_result result = {0};
    hr_error err;
    hr_status status = hr_features_load(&load, &result, &err);
    double rate = result.seconds > 0 ? (double)result.n_records / result.seconds : 0;
    fprintf(stderr, "loaded %llu records in %.1f s (%.0f records/s), %llu bad lines\n",
            (unsigned long long)result.n_records, result.seconds, rate,
            (unsigned long long)result.n_bad_lines);
    if (status) return hr_command_fail(&err);
    return result.n_bad_lines == 0 ? 0 : 1;
}

int hr_command_features_get(const hr_options *options) {
    hr_error err;
    hr_status status = hr_features_get(options->store, options->entity, options->id, stdout, &err);
    return status ? hr_command_fail(&err) : 0;
}
