/* The C core's log: see rpc_log.h. Whatever fails is told by our own errors and counters; the core's lines,
 * in its own words about its own sources, are for debugging. */
#include "service/rpc_log.h"

#include <grpc/support/log.h>

#include "base/log.h"

static void write_line(gpr_log_func_args *line) {
    hr_log(HR_LOG_DEBUG, "grpc core", HR_LOG_STR("severity", gpr_log_severity_string(line->severity)),
           HR_LOG_STR("file", line->file), HR_LOG_INT("line", line->line), HR_LOG_STR("text", line->message));
}

void hr_rpc_log_install(void) {
    gpr_set_log_function(write_line);
}
