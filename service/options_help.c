/* Help texts and docs/configuration.md, printed from the table. */
#include <string.h>

#include "service/options_table.h"

enum { HELP_COLUMN = 8, HELP_WIDTH = 100 };

/* Prints text in lines of at most HELP_WIDTH, each indented by HELP_COLUMN. */
static void print_wrapped(const char *text, FILE *out) {
    size_t column = 0;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column && column + 1 + word > HELP_WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        if (column) {
            fputc(' ', out);
            column++;
        } else {
            column = (size_t)fprintf(out, "%*s", HELP_COLUMN, "");
        }
        fwrite(text, 1, word, out);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

/* "one of f32, bf16; default f32": what a value may be, where there is something to say. */
static void print_range(const hr_option_row *row, FILE *out) {
    const char *separator = "";
    if (row->choices) {
        for (const char *const *choice = row->choices; *choice; choice++)
            fprintf(out, "%s%s", choice == row->choices ? "one of " : ", ", *choice);
        separator = "; ";
    } else if ((row->type == HR_OPTION_UINT32 || row->type == HR_OPTION_UINT64) && row->max != UINT64_MAX) {
        fprintf(out, "%llu to %llu", (unsigned long long)row->min, (unsigned long long)row->max);
        separator = "; ";
    }
    if (row->required)
        fprintf(out, "%srequired", separator);
    else if (row->fallback)
        fprintf(out, "%sdefault %s", separator, row->fallback);
}

/* "homerank COMMAND ARGUMENT ARGUMENT" */
static void print_usage(hr_command command, FILE *out) {
    fprintf(out, "homerank %s", hr_command_name(command));
    for (size_t i = 0; i < HR_MAX_ARGUMENTS; i++) {
        const char *argument = hr_command_rows[command].arguments[i];
        if (argument) fprintf(out, " %s", argument);
    }
}

static bool has_range(const hr_option_row *row) {
    return row->required || row->fallback || row->choices;
}

void hr_options_print_help(hr_command command, FILE *out) {
    const hr_command_row *row = &hr_command_rows[command];
    fprintf(out, "%s\n\nusage: ", row->summary);
    print_usage(command, out);
    fputs(" [flags]\n\n", out);
    for (size_t i = 0; i < hr_option_n_rows; i++) {
        const hr_option_row *option = &hr_option_rows[i];
        if (!(option->commands & (1u << command))) continue;
        fprintf(out, "  --%s%s%s", option->name, option->value ? " " : "",
                option->value ? option->value : "");
        if (has_range(option)) {
            fputs("  (", out);
            print_range(option, out);
            fputc(')', out);
        }
        fputc('\n', out);
        print_wrapped(option->help, out);
    }
    fprintf(out, "\nexample: %s\n", row->example);
}

void hr_options_print_overview(FILE *out) {
    fputs("homerank ranks candidate items for a user with a HoME model.\n\n"
          "usage: homerank COMMAND [flags]\n\n",
          out);
    for (int c = 0; c < HR_COMMAND_COUNT; c++)
        fprintf(out, "  %-21s %s\n", hr_command_name((hr_command)c), hr_command_rows[c].summary);
    fputs("\n`homerank COMMAND --help` says a command's flags, `homerank --version` the version.\n", out);
}

/* A cell of a Markdown table: a bar would end it. */
static void print_cell(const char *text, FILE *out) {
    for (; *text; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text, out);
    }
}

static void print_markdown_command(hr_command command, FILE *out) {
    const hr_command_row *row = &hr_command_rows[command];
    fputs("\n## ", out);
    print_usage(command, out);
    fprintf(out, "\n\n%s\n\n    %s\n\n| flag | value | meaning |\n|---|---|---|\n", row->summary,
            row->example);
    for (size_t i = 0; i < hr_option_n_rows; i++) {
        const hr_option_row *option = &hr_option_rows[i];
        if (!(option->commands & (1u << command))) continue;
        fprintf(out, "| `--%s%s%s` | ", option->name, option->value ? " " : "",
                option->value ? option->value : "");
        print_range(option, out);
        fputs(" | ", out);
        print_cell(option->help, out);
        fputs(" |\n", out);
    }
}

void hr_options_print_markdown(FILE *out) {
    fputs("# Configuration\n\n"
          "Made from the options' table by `homerank help --markdown`; change service/options_table.c "
          "instead.\n\n"
          "A flag is written `--name value` or `--name=value`. `homerank serve --config FILE.yaml` reads the "
          "same\n"
          "names, without the dashes in front, from a YAML file; a flag wins over the file:\n\n"
          "    models: models\n"
          "    store: redis://127.0.0.1:6379/0\n"
          "    precision: bf16\n"
          "    strict-features: true\n\n"
          "(YAML wants quotes around a text that ends in a colon: `store: \"none:\"`.)\n\n"
          "A key or flag that is not listed here, a value of the wrong type or out of range, or one given "
          "twice is\n"
          "an error that says where it stands, what was expected and what was found. Exit codes: 0 done, 1 "
          "failed,\n"
          "2 wrong usage.\n",
          out);
    for (int c = 0; c < HR_COMMAND_COUNT; c++) print_markdown_command((hr_command)c, out);
}
