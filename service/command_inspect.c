/* `homerank inspect DIR`. */
#include "service/commands.h"
#include "service/inspect.h"

int hr_command_inspect(const hr_options *options) {
    hr_error err;
    return hr_inspect(options->folder, stdout, &err) ? hr_command_fail(&err) : 0;
}
