/* The flag parser: `--name value`, `--name=value`, `--switch`; checks and stores values by the table. */
#include "service/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "base/utf8.h"
#include "service/options_table.h"

enum { FILE_ARENA_CAP_NBYTES = 16 << 20, LIST_MAX = 1024 };

/* How many of argv[1..argc) spell the command's name; 0 where they do not. */
static int match_words(const char *name, int argc, char **argv) {
    for (int n = 1; n < argc; n++) {
        size_t nbytes = strcspn(name, " ");
        if (strlen(argv[n]) != nbytes || memcmp(argv[n], name, nbytes) != 0) return 0;
        if (name[nbytes] == '\0') return n;
        name += nbytes + 1;
    }
    return 0;
}

/* `"features load" or "features get"`: the commands that begin with the word; empty where none does. */
static void list_commands(const char *word, char *text, size_t size) {
    const size_t n_word = strlen(word);
    size_t n = 0, n_left = 0;
    text[0] = '\0';
    for (int c = 0; c < HR_COMMAND_COUNT; c++) {
        const char *name = hr_command_rows[c].name;
        n_left += strncmp(name, word, n_word) == 0 && name[n_word] == ' ';
    }
    for (int c = 0; c < HR_COMMAND_COUNT; c++) {
        const char *name = hr_command_rows[c].name;
        if (strncmp(name, word, n_word) != 0 || name[n_word] != ' ') continue;
        const char *separator = n == 0 ? "" : n_left == 1 ? " or " : ", ";
        int more = snprintf(text + n, size - n, "%s\"%s\"", separator, name);
        if (more > 0 && n + (size_t)more < size) n += (size_t)more;
        n_left--;
    }
}

hr_status hr_command_find(int argc, char **argv, hr_command *command, int *n_words, hr_error *err) {
    for (int c = 0; c < HR_COMMAND_COUNT; c++) {
        *command = (hr_command)c;
        *n_words = match_words(hr_command_rows[c].name, argc, argv);
        if (*n_words > 0) return HR_OK;
    }
    if (argc < 2) return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a command");
    char commands[192];
    list_commands(argv[1], commands, sizeof commands);
    if (commands[0] != '\0') return hr_error_set(err, HR_INVALID_ARGUMENT, "expected %s", commands);
    return hr_error_set(err, HR_INVALID_ARGUMENT, "unknown command %s",
                        hr_quote(argv[1], strlen(argv[1])).text);
}

const char *hr_command_name(hr_command command) {
    return hr_command_rows[command].name;
}

const hr_option_row *hr_option_find(hr_command command, const char *name, size_t nbytes) {
    for (size_t i = 0; i < hr_option_n_rows; i++) {
        const hr_option_row *row = &hr_option_rows[i];
        if ((row->commands & (1u << command)) && strlen(row->name) == nbytes &&
            memcmp(row->name, name, nbytes) == 0)
            return row;
    }
    return NULL;
}

/* Decimal digits only: no sign, space, or base. */
static hr_status parse_integer(const hr_option_row *row, const char *text, uint64_t *value, hr_error *err) {
    char *end = NULL;
    errno = 0;
    bool ok = text[0] >= '0' && text[0] <= '9';
    if (ok) {
        *value = strtoull(text, &end, 10);
        ok = *end == '\0' && errno == 0 && *value >= row->min && *value <= row->max;
    }
    if (ok) return HR_OK;
    if (row->max == UINT64_MAX)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected an integer of at least %llu, found %s",
                            (unsigned long long)row->min, hr_quote(text, strlen(text)).text);
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected an integer from %llu to %llu, found %s",
                        (unsigned long long)row->min, (unsigned long long)row->max,
                        hr_quote(text, strlen(text)).text);
}

static hr_status check_text(const hr_option_row *row, const char *text, const void *member, hr_error *err) {
    if (text[0] == '\0')
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected %s, found an empty text", row->value);
    if (!hr_utf8_valid(text, strlen(text)))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected valid UTF-8, found %s",
                            hr_quote(text, strlen(text)).text);
    if (row->check) {
        const hr_option_list *list = row->type == HR_OPTION_LIST ? member : NULL;
        return row->check(text, list, err);
    }
    if (!row->choices) return HR_OK;
    char names[128] = "";
    size_t n = 0;
    for (const char *const *choice = row->choices; *choice; choice++) {
        if (strcmp(*choice, text) == 0) return HR_OK;
        int more = snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", *choice);
        if (more > 0 && n + (size_t)more < sizeof names) n += (size_t)more;
    }
    return hr_error_set(err, HR_INVALID_ARGUMENT, "expected one of %s, found %s", names,
                        hr_quote(text, strlen(text)).text);
}

static hr_status list_add(hr_option_list *list, const char *text, hr_arena *arena, hr_error *err) {
    if (list->n == LIST_MAX)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected at most %d of them, found more", LIST_MAX);
    if (!list->values) list->values = hr_arena_calloc(arena, LIST_MAX, sizeof(*list->values));
    if (!list->values) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for options");
    list->values[list->n++] = text;
    return HR_OK;
}

hr_status hr_option_store(const hr_option_row *row, const char *text, hr_options *options, hr_error *err) {
    char *member = (char *)options + row->offset;
    uint64_t value = 0;
    hr_status status = HR_OK;
    switch (row->type) {
    case HR_OPTION_TEXT:
        status = check_text(row, text, member, err);
        if (!status) *(const char **)(void *)member = text;
        return status;
    case HR_OPTION_LIST:
        status = check_text(row, text, member, err);
        return status ? status : list_add((hr_option_list *)(void *)member, text, options->arena, err);
    case HR_OPTION_UINT32:
        status = parse_integer(row, text, &value, err);
        if (!status) *(uint32_t *)(void *)member = (uint32_t)value;
        return status;
    case HR_OPTION_UINT64:
        status = parse_integer(row, text, &value, err);
        if (!status) *(uint64_t *)(void *)member = value;
        return status;
    case HR_OPTION_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return hr_error_set(err, HR_INVALID_ARGUMENT, "expected true or false, found %s",
                                hr_quote(text, strlen(text)).text);
        *(bool *)(void *)member = text[0] == 't';
        return HR_OK;
    }
    return hr_error_set(err, HR_INTERNAL, "option %s has no type", row->name);
}

/* One flag at args[*i], and its value; moves *i behind what it read. */
static hr_status parse_flag(hr_command command, int n_args, char **args, int *i, hr_options *options,
                            bool *given, hr_error *err) {
    const char *name = args[*i] + 2;
    const char *equals = strchr(name, '=');
    size_t nbytes = equals ? (size_t)(equals - name) : strlen(name);
    const hr_option_row *row = hr_option_find(command, name, nbytes);
    if (!row) return hr_error_set(err, HR_INVALID_ARGUMENT, "unknown flag --%s", hr_quote(name, nbytes).text);
    const char *text = equals ? equals + 1 : NULL;
    *i += 1;
    if (!text && row->type == HR_OPTION_BOOL) text = "true";
    if (!text && *i < n_args && strncmp(args[*i], "--", 2) != 0) text = args[(*i)++];
    if (!text)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "--%s: expected %s, found nothing", row->name,
                            row->value);
    size_t r = (size_t)(row - hr_option_rows);
    if (given[r] && row->type != HR_OPTION_LIST)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "--%s: expected once, found again", row->name);
    given[r] = true;
    if (hr_option_store(row, text, options, err)) return hr_error_prefix(err, "--%s", row->name);
    return HR_OK;
}

static hr_status parse_args(hr_command command, int n_args, char **args, hr_options *options, bool *given,
                            hr_error *err) {
    size_t n_arguments = 0;
    for (int i = 0; i < n_args;) {
        if (strcmp(args[i], "-h") == 0) {
            options->help = true;
            i++;
        } else if (strncmp(args[i], "--", 2) == 0) {
            hr_status status = parse_flag(command, n_args, args, &i, options, given, err);
            if (status) return status;
        } else if (n_arguments < HR_MAX_ARGUMENTS && hr_command_rows[command].arguments[n_arguments]) {
            options->arguments[n_arguments++] = args[i++];
        } else {
            return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a flag, found %s",
                                hr_quote(args[i], strlen(args[i])).text);
        }
    }
    return HR_OK;
}

/* The default of one row that was not given; texts of other commands' rows become "" too. */
static hr_status fill(hr_command command, const hr_option_row *row, hr_options *options, hr_error *err) {
    bool ours = row->commands & (1u << command);
    if (ours && row->required)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "--%s %s is required", row->name, row->value);
    if (ours && row->fallback) return hr_option_store(row, row->fallback, options, err);
    if (row->type == HR_OPTION_TEXT) {
        const char **member = (const char **)(void *)((char *)options + row->offset);
        if (!*member) *member = "";
    }
    return HR_OK;
}

/* Defaults for what was not given; what is required must have been. */
static hr_status complete(hr_command command, hr_options *options, const bool *given, hr_error *err) {
    for (size_t r = 0; r < hr_option_n_rows; r++) {
        if (given[r]) continue;
        hr_status status = fill(command, &hr_option_rows[r], options, err);
        if (status) return status;
    }
    if (options->max_queued_items < options->max_items)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "--max-queued-items: expected room for one request of --max-items %u, found %llu",
                            options->max_items, (unsigned long long)options->max_queued_items);
    if (command == HR_COMMAND_SERVE &&
        (strcmp(options->version_policy, "specific") == 0) != (options->versions.n > 0))
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "--versions: expected with --version-policy specific, and only then, found %zu",
                            options->versions.n);
    for (size_t i = 0; i < HR_MAX_ARGUMENTS; i++) {
        const char *argument = hr_command_rows[command].arguments[i];
        if (argument && !options->arguments[i])
            return hr_error_set(err, HR_INVALID_ARGUMENT, "%s is required", argument);
    }
    if (options->threads == 0) options->threads = hr_cpu_count();
    return HR_OK;
}

hr_status hr_options_parse(hr_command command, int n_args, char **args, hr_options **options, hr_error *err) {
    bool given[HR_OPTION_ROWS_MAX] = {false};
    *options = NULL;
    hr_options *made = calloc(1, sizeof(*made));
    if (!made) return hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for options");
    hr_status status = HR_OK;
    made->arena = hr_arena_create(FILE_ARENA_CAP_NBYTES);
    if (!made->arena) status = hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for options");
    if (!status) status = parse_args(command, n_args, args, made, given, err);
    if (!status && !made->help && made->config) status = hr_options_read_file(command, made, given, err);
    if (!status && !made->help) status = complete(command, made, given, err);
    if (status) {
        hr_options_destroy(made);
        return status;
    }
    *options = made;
    return HR_OK;
}

void hr_options_destroy(hr_options *options) {
    if (!options) return;
    hr_arena_destroy(options->arena);
    free(options);
}
