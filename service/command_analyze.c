/* `homerank experiments analyze`. */
#include <inttypes.h>
#include <stdio.h>

#include "service/analysis/analysis.h"
#include "service/commands.h"

int hr_command_experiments_analyze(const hr_options *options) {
    double weights[HR_ANALYSIS_MAX_WEIGHTS];
    size_t n_weights = 0;
    hr_error err;
    if (options->weights[0] != '\0' && hr_analysis_read_weights(options->weights, weights, &n_weights, &err))
        return hr_command_fail(&err); /* it was checked already */
    const hr_analysis_options analysis = {
        .exposures = options->arguments[0],
        .outcomes = options->arguments[1],
        .experiment = options->experiment,
        .weights = weights,
        .n_weights = n_weights,
        .json = options->json,
        .out = stdout,
        .messages = stderr,
    };
    uint64_t n_bad;
    hr_status status = hr_analyze(&analysis, &n_bad, &err);
    if (status == HR_OK && fflush(stdout) != 0)
        status = hr_error_set(&err, HR_IO, "cannot write the analysis");
    if (status != HR_OK) return hr_command_fail(&err);
    if (n_bad == 0) return 0;
    fprintf(stderr, "homerank: %" PRIu64 " bad lines were passed over\n", n_bad);
    return 1;
}
