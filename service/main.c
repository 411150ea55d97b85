/* `homerank COMMAND`: finds the command, reads its options, runs it. Exit codes: 0 done, 1 failed, 2 wrong
 * usage. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "kernels/backend.h"
#include "service/commands.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int hr_command_fail(const hr_error *err) {
    fprintf(stderr, "homerank: %s\n", err->message);
    return EXIT_FAILED;
}

static atomic_bool stop_flag;

static void on_signal(int signal_number) {
    (void)signal_number;
    atomic_store(&stop_flag, true);
}

const atomic_bool *hr_command_stop_flag(void) {
    /* Without SA_RESTART, so that a blocking read ends. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    return &stop_flag;
}

static int print_version(void) {
    printf("homerank %s (backends: %s)\n", HR_VERSION, hr_backend_names());
    return EXIT_DONE;
}

static int usage_error(const char *command, const hr_error *err) {
    fprintf(stderr, "homerank%s%s: %s; see homerank %s%s--help\n", command ? " " : "", command ? command : "",
            err->message, command ? command : "", command ? " " : "");
    return EXIT_USAGE;
}

/* `homerank help`, `homerank help COMMAND`, `homerank help --markdown`. */
static int print_help(int argc, char **argv) {
    hr_command command;
    int n_words;
    hr_error err;
    if (argc == 2) {
        hr_options_print_overview(stdout);
    } else if (argc == 3 && strcmp(argv[2], "--markdown") == 0) {
        hr_options_print_markdown(stdout);
    } else {
        if (hr_command_find(argc - 1, argv + 1, &command, &n_words, &err)) return usage_error(NULL, &err);
        hr_options_print_help(command, stdout);
    }
    return EXIT_DONE;
}

static int run_command(hr_command command, const hr_options *options) {
    static int (*const run[HR_COMMAND_COUNT])(const hr_options *) = {
        [HR_COMMAND_SERVE] = hr_command_serve,
        [HR_COMMAND_SCORE] = hr_command_score,
        [HR_COMMAND_RANK] = hr_command_rank,
        [HR_COMMAND_LOAD] = hr_command_load,
        [HR_COMMAND_FEATURES_LOAD] = hr_command_features_load,
        [HR_COMMAND_FEATURES_GET] = hr_command_features_get,
        [HR_COMMAND_FEATURES_STATS] = hr_command_features_stats,
        [HR_COMMAND_FEATURES_CHECK] = hr_command_features_check,
        [HR_COMMAND_INSPECT] = hr_command_inspect,
        [HR_COMMAND_EXPERIMENTS_CHECK] = hr_command_experiments_check,
        [HR_COMMAND_EXPERIMENTS_SIMULATE] = hr_command_experiments_simulate,
        [HR_COMMAND_EXPERIMENTS_EXPLAIN] = hr_command_experiments_explain,
        [HR_COMMAND_EXPERIMENTS_ANALYZE] = hr_command_experiments_analyze,
    };
    hr_error err;
    if (hr_log_configure(options->log_level, options->log_format, &err)) return hr_command_fail(&err);
    return run[command](options);
}

static int parse_and_run(int argc, char **argv) {
    hr_command command;
    int n_words = 0;
    hr_error err;
    hr_options *options = NULL;
    if (hr_command_find(argc, argv, &command, &n_words, &err)) return usage_error(NULL, &err);
    if (hr_options_parse(command, argc - 1 - n_words, argv + 1 + n_words, &options, &err)) {
        if (err.code != HR_INVALID_ARGUMENT) return hr_command_fail(&err);
        return usage_error(hr_command_name(command), &err);
    }
    int code = EXIT_DONE;
    if (options->help)
        hr_options_print_help(command, stdout);
    else
        code = run_command(command, options);
    hr_options_destroy(options);
    return code;
}

int main(int argc, char **argv) {
    int code;
    const char *first = argc > 1 ? argv[1] : "";
    if (strcmp(first, "--version") == 0 || strcmp(first, "version") == 0) {
        code = print_version();
    } else if (strcmp(first, "help") == 0) {
        code = print_help(argc, argv);
    } else if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        code = print_help(2, argv);
    } else {
        code = parse_and_run(argc, argv);
    }
    if (fflush(stdout) != 0 && code == EXIT_DONE) {
        fprintf(stderr, "homerank: stdout: %s\n", strerror(errno));
        code = EXIT_FAILED;
    }
    return code;
}
