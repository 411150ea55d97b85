/* The rows of the configuration, for the files that read, check and print it. */
#ifndef HOMERANK_SERVICE_OPTIONS_TABLE_H
#define HOMERANK_SERVICE_OPTIONS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "service/options.h"

typedef enum hr_option_type {
    HR_OPTION_TEXT,   /* const char *; choices, if any, are the texts allowed */
    HR_OPTION_LIST,   /* hr_option_list; a flag that may be given again and again, a list in the file */
    HR_OPTION_UINT32, /* uint32_t in [min, max] */
    HR_OPTION_UINT64, /* uint64_t in [min, max] */
    HR_OPTION_BOOL    /* bool; a flag alone means true */
} hr_option_type;

/* Whether a text has the form that its row wants: INVALID_ARGUMENT "expected ..., found ..." where not.
 * before: the values of a LIST given before this one; NULL for a TEXT. */
typedef hr_status hr_option_check(const char *text, const hr_option_list *before, hr_error *err);

typedef struct hr_option_row {
    const char *name;  /* of the flag, without "--", and of the YAML key */
    const char *value; /* what stands for the value in help texts; NULL for BOOL */
    hr_option_type type;
    size_t offset;              /* of the member in hr_options */
    const char *fallback;       /* the default, as it would be given; NULL: none, the member is "" or zero */
    uint64_t min, max;          /* UINT32, UINT64 */
    const char *const *choices; /* TEXT: NULL-terminated, or NULL: any text */
    hr_option_check *check;     /* (optional) of a TEXT or LIST value's form */
    unsigned commands;          /* bit per hr_command that has it */
    bool required;              /* by those commands */
    bool in_file;               /* may stand in the YAML file (of `serve`, the command that reads one) */
    const char *help;           /* one sentence */
} hr_option_row;

typedef struct hr_command_row {
    const char *name; /* its words, with a space between them */
    const char
        *arguments[HR_MAX_ARGUMENTS]; /* "DIR": what it takes without a flag, in order; NULL: no more */
    const char *summary;              /* one sentence */
    const char *example;              /* a command line to try */
} hr_command_row;

enum { HR_OPTION_ROWS_MAX = 160 };

extern const hr_option_row hr_option_rows[];
extern const size_t hr_option_n_rows; /* <= HR_OPTION_ROWS_MAX */
extern const hr_command_row hr_command_rows[HR_COMMAND_COUNT];

/* The row `name` of the command, or NULL. name need not end in NUL. */
const hr_option_row *hr_option_find(hr_command command, const char *name, size_t nbytes);

/* Checks a text against the row and stores it; texts are borrowed. Errors: INVALID_ARGUMENT "expected ...,
 * found ...", which the caller prefixes with where it stands; OUT_OF_MEMORY. */
hr_status hr_option_store(const hr_option_row *row, const char *text, hr_options *options, hr_error *err);

/* The checks of the table's rows. */
hr_option_check hr_option_check_address; /* HOST:PORT */
hr_option_check hr_option_check_store;   /* a store's URI */
hr_option_check hr_option_check_pair;    /* KEY=VALUE, each KEY once */
hr_option_check hr_option_check_rate;    /* of `load`: requests per second */
hr_option_check hr_option_check_phases;  /* RATE:SECONDS,... */
hr_option_check hr_option_check_sizes;   /* N,... */
hr_option_check hr_option_check_range;   /* v0..v9999 */
hr_option_check hr_option_check_weights; /* W,W,... */
hr_option_check hr_option_check_zipf;    /* an exponent */
hr_option_check hr_option_check_version; /* NAME@VERSION, each once */

/* Reads the YAML file at options->config into the rows that are not yet given[hr_option_n_rows], and marks
 * them. Errors: IO, INVALID_ARGUMENT "FILE:LINE: ...", OUT_OF_MEMORY. */
hr_status hr_options_read_file(hr_command command, hr_options *options, bool *given, hr_error *err);

#endif
