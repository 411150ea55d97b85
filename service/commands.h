/* The commands of the homerank binary: each runs to its end and returns the process's exit code, 0 done or
 * 1 failed, having said why on stderr in one line (hr_command_fail). */
#ifndef HOMERANK_SERVICE_COMMANDS_H
#define HOMERANK_SERVICE_COMMANDS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/status.h"
#include "service/options.h"

#define HR_VERSION "0.1.0"

int hr_command_serve(const hr_options *options);
int hr_command_score(const hr_options *options);
int hr_command_rank(const hr_options *options);
int hr_command_load(const hr_options *options);
int hr_command_features_load(const hr_options *options);
int hr_command_features_get(const hr_options *options);
int hr_command_features_stats(const hr_options *options);
int hr_command_features_check(const hr_options *options);
int hr_command_inspect(const hr_options *options);
int hr_command_experiments_check(const hr_options *options);
int hr_command_experiments_simulate(const hr_options *options);
int hr_command_experiments_explain(const hr_options *options);
int hr_command_experiments_analyze(const hr_options *options);

/* Prints "homerank: MESSAGE" to stderr; returns 1. */
int hr_command_fail(const hr_error *err);

/* Makes SIGINT and SIGTERM set the flag that it returns instead of ending the process, and a write to a
 * closed pipe an error; a second signal ends the process. For commands that can stop cleanly half-way. */
const atomic_bool *hr_command_stop_flag(void);

#endif
