/* Exposures in a file of JSON lines, rotated by size and age. A place of a sink (exposure_sink.h).
 *
 * The file at `path` is added to. Past max_nbytes or max_age_s it is renamed to PATH.20261123T164000.123Z, by
 * the time of its end, and a new one begun; nothing is ever deleted. Where somebody else moved it away
 * (logrotate), a new one is begun within a second. A line stands in it whole or not at all. */
#ifndef HOMERANK_SERVICE_EXPOSURES_EXPOSURE_FILE_H
#define HOMERANK_SERVICE_EXPOSURES_EXPOSURE_FILE_H

#include <stdint.h>

#include "service/exposures/exposure_sink.h"

typedef struct hr_exposure_file_options {
    const char *path;    /* borrowed for the call */
    uint64_t max_nbytes; /* of a file; a longer line has one of its own */
    uint32_t max_age_s;  /* 0: none */
} hr_exposure_file_options;

extern const hr_sink_place_i hr_exposure_file_i;

/* Errors: IO naming the file and why it cannot be opened for writing; OUT_OF_MEMORY. */
hr_status hr_exposure_file_open(const hr_exposure_file_options *options, void **place, hr_error *err);

#endif
