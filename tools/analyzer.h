/* Included before every file that tools/lint analyses: says that hr_error_set and hr_error_prefix return a
 * failure, which the analyzer cannot see from one file alone, so that it does not follow failed calls as
 * successes. */
#ifndef HOMERANK_TOOLS_ANALYZER_H
#define HOMERANK_TOOLS_ANALYZER_H

#include "base/status.h"

#define hr_error_set(err, code, ...)                                                                         \
    __extension__({                                                                                          \
        hr_status set_ = (hr_error_set)(err, code, __VA_ARGS__);                                             \
        if (set_ == HR_OK) __builtin_unreachable();                                                          \
        set_;                                                                                                \
    })
#define hr_error_prefix(err, ...)                                                                            \
    __extension__({                                                                                          \
        hr_status prefixed_ = (hr_error_prefix)(err, __VA_ARGS__);                                           \
        if (prefixed_ == HR_OK) __builtin_unreachable();                                                     \
        prefixed_;                                                                                           \
    })

#endif
