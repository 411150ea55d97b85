/* The configuration of every command: one table of rows (options_table.c) from which the flag parser, the
 * YAML reader, `--help` and docs/configuration.md come.
 *
 * A value comes from the flag, else (of `serve`) from the YAML file that `--config` names, else from the
 * row's default. Each is checked against its row wherever it comes from. Thread rule: written by
 * hr_options_parse only; any thread may read.
 */
#ifndef HOMERANK_SERVICE_OPTIONS_H
#define HOMERANK_SERVICE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/status.h"

enum { HR_MAX_ARGUMENTS = 2 }; /* of a command, without a flag */

typedef enum hr_command {
    HR_COMMAND_SERVE,
    HR_COMMAND_SCORE,
    HR_COMMAND_RANK,
    HR_COMMAND_LOAD,
    HR_COMMAND_FEATURES_LOAD,
    HR_COMMAND_FEATURES_GET,
    HR_COMMAND_FEATURES_STATS,
    HR_COMMAND_FEATURES_CHECK,
    HR_COMMAND_INSPECT,
    HR_COMMAND_EXPERIMENTS_CHECK,
    HR_COMMAND_EXPERIMENTS_SIMULATE,
    HR_COMMAND_EXPERIMENTS_EXPLAIN,
    HR_COMMAND_EXPERIMENTS_ANALYZE,
    HR_COMMAND_COUNT
} hr_command;

/* Values of an option that may be given more than once, in order. */
typedef struct hr_option_list {
    const char **values; /* (n) */
    size_t n;
} hr_option_list;

/* One member per row of the table; those of other commands are zero. A text that was not given is "", never
 * NULL. */
typedef struct hr_options {
    bool help; /* `--help` was given: nothing else was checked */

    const char *config;
    const char *log_level, *log_format;

    const char *models, *default_model; /* serve */
    const char *version_policy;
    hr_option_list versions;
    uint32_t repository_poll_ms;
    const char *model; /* score: a folder; rank: RankRequest.model */
    const char *backend, *devices, *precision;
    uint32_t threads; /* never 0: resolved to the CPUs of this process */

    const char *store;
    uint32_t store_connections, store_connect_timeout_ms, store_timeout_ms;
    uint64_t cache_bytes; /* 0: no cache */
    uint32_t cache_ttl_ms, cache_max_stale_ms, cache_heartbeat_ms;

    const char *listen, *http, *admin;             /* http, admin "": not asked for */
    const char *experiments, *experiments_feature; /* "": none */
    bool allow_forced_variations;
    const char *exposures, *exposure_stream; /* "": not asked for */
    uint64_t exposures_max_bytes, exposures_buffer_bytes, exposure_stream_maxlen;
    uint32_t exposures_max_age_s;
    uint32_t pollers;
    uint32_t max_message_bytes, max_call_bytes, max_open_calls;
    uint64_t max_open_bytes;
    uint32_t max_items, max_id_bytes, max_queued_calls;
    uint64_t max_queued_items;
    uint32_t max_queue_ms, max_queue_delay_us, max_batch_rows;
    uint32_t grace_ms;
    bool strict_features;

    const char *in, *out; /* score, features load, load */
    uint64_t from_line, load_rate, sample;
    uint32_t load_threads, ttl_s;
    bool csv;
    const char *resume;

    const char *target, *user, *items; /* rank */
    hr_option_list context;
    uint32_t top_k, timeout_ms;
    bool json;

    const char *rate, *phases; /* load; items, users: see service/load_requests.h */
    const char *item_ids, *users, *zipf;
    uint32_t in_flight, duration_s, warmup_s, connections, requests, max_in_flight, cancel_percent, priority;
    uint64_t seed;
    bool timeline;

    const char *entity, *id; /* features get */

    const char *arguments[HR_MAX_ARGUMENTS]; /* those without a flag, in order */
    uint64_t n_users;                        /* experiments simulate */
    hr_option_list attributes;               /* experiments simulate, explain: KEY=VALUE */
    const char *experiment, *weights;        /* experiments analyze; "": not given */
    const char *data, *html;                 /* "": not asked for */
    uint64_t rows;

    hr_arena *arena; /* owns what was read from the file */
} hr_options;

/* Finds the command of argv[1..) ("serve"; "features", "load"); *n_words is how many arguments name it.
 * Errors: INVALID_ARGUMENT. */
hr_status hr_command_find(int argc, char **argv, hr_command *command, int *n_words, hr_error *err);
const char *hr_command_name(hr_command command); /* "features load" */

/* Reads args[0..n_args), the arguments behind the command's name, which must outlive the options. On failure
 * *options is NULL. Errors: INVALID_ARGUMENT naming the flag, or FILE:LINE and the key, expected and found;
 * IO (the file); OUT_OF_MEMORY. */
hr_status hr_options_parse(hr_command command, int n_args, char **args, hr_options **options, hr_error *err);
void hr_options_destroy(hr_options *options); /* NULL is allowed */

/* `homerank --help`, `homerank COMMAND --help`, and docs/configuration.md. */
void hr_options_print_overview(FILE *out);
void hr_options_print_help(hr_command command, FILE *out);
void hr_options_print_markdown(FILE *out);

#endif
