/* The YAML file of `--config`: one mapping of option names to scalars, or lists of them, read with libyaml.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

#include "service/options_table.h"

enum { FILE_MAX_NBYTES = 32 << 10 };

/* What is being read: where an error stands is its file and a node's line. */
typedef struct reader {
    hr_command command;
    const char *path;
    yaml_document_t *document;
    hr_options *options;
    bool *given; /* (hr_option_n_rows) by flags, which win; then also by the file */
    bool seen[HR_OPTION_ROWS_MAX];
} reader;

static hr_status at_line(const reader *r, const yaml_node_t *node, hr_error *err) {
    return hr_error_prefix(err, "%s:%zu", r->path, node->start_mark.line + 1);
}

/* The scalar as a NUL-terminated text in the options' arena. */
static hr_status scalar_text(const reader *r, const yaml_node_t *node, char **text, hr_error *err) {
    static const char *const names[] = {
        [YAML_NO_NODE] = "nothing", [YAML_SEQUENCE_NODE] = "a list", [YAML_MAPPING_NODE] = "a mapping"};
    if (node->type != YAML_SCALAR_NODE)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected one value, found %s", names[node->type]);
    const char *bytes = (const char *)node->data.scalar.value;
    size_t nbytes = node->data.scalar.length;
    if (memchr(bytes, '\0', nbytes))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a text without NUL, found %s",
                            hr_quote(bytes, nbytes).text);
    *text = hr_arena_strndup(r->options->arena, bytes, nbytes);
    return *text ? HR_OK : hr_error_set(err, HR_OUT_OF_MEMORY, "no memory for options");
}

/* YAML's types, as far as they matter: a number or a truth value is a plain scalar, a text may be quoted. */
static hr_status check_style(const hr_option_row *row, const yaml_node_t *node, const char *text,
                             hr_error *err) {
    bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (plain && (text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0))
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected a value, found none");
    if (!plain && row->type != HR_OPTION_TEXT && row->type != HR_OPTION_LIST)
        return hr_error_set(err, HR_INVALID_ARGUMENT, "expected %s, found a quoted text",
                            row->type == HR_OPTION_BOOL ? "true or false" : "an integer");
    return HR_OK;
}

/* One value of the row; flags have won where it is given already. */
static hr_status read_value(reader *r, const hr_option_row *row, const yaml_node_t *node, hr_error *err) {
    char *text = NULL;
    hr_status status = scalar_text(r, node, &text, err);
    if (!status) status = check_style(row, node, text, err);
    if (!status && !r->given[row - hr_option_rows]) status = hr_option_store(row, text, r->options, err);
    return status;
}

/* The value of the row, or all of a list's. */
static hr_status read_values(reader *r, const hr_option_row *row, const yaml_node_t *node, hr_error *err) {
    if (row->type != HR_OPTION_LIST || node->type != YAML_SEQUENCE_NODE) return read_value(r, row, node, err);
    for (const yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top;
         item++) {
        hr_status status = read_value(r, row, yaml_document_get_node(r->document, *item), err);
        if (status) return status;
    }
    return HR_OK;
}

static hr_status read_pair(reader *r, const yaml_node_pair_t *pair, hr_error *err) {
    yaml_node_t *key_node = yaml_document_get_node(r->document, pair->key);
    yaml_node_t *value_node = yaml_document_get_node(r->document, pair->value);
    char *key = NULL;
    if (scalar_text(r, key_node, &key, err)) return at_line(r, key_node, err);
    const hr_option_row *row = hr_option_find(r->command, key, strlen(key));
    if (!row || !row->in_file) {
        hr_error_set(err, HR_INVALID_ARGUMENT, "unknown key %s", hr_quote(key, strlen(key)).text);
        return at_line(r, key_node, err);
    }
    size_t index = (size_t)(row - hr_option_rows);
    hr_status status = HR_OK;
    if (r->seen[index]) status = hr_error_set(err, HR_INVALID_ARGUMENT, "expected once, found again");
    r->seen[index] = true;
    if (!status) status = read_values(r, row, value_node, err);
    r->given[index] = true;
    if (!status) return HR_OK;
    hr_error_prefix(err, "%s", row->name);
    return at_line(r, key_node, err);
}

static hr_status read_mapping(reader *r, hr_error *err) {
    yaml_node_t *root = yaml_document_get_root_node(r->document);
    if (!root) return HR_OK; /* an empty file */
    if (root->type != YAML_MAPPING_NODE) {
        hr_error_set(err, HR_INVALID_ARGUMENT, "expected \"name: value\" lines, found %s",
                     root->type == YAML_SEQUENCE_NODE ? "a list" : "one value");
        return at_line(r, root, err);
    }
    for (yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top;
         pair++) {
        hr_status status = read_pair(r, pair, err);
        if (status) return status;
    }
    return HR_OK;
}

/* Loads the next document of the stream; one without a root is the stream's end. */
static hr_status load_document(yaml_parser_t *parser, const char *path, yaml_document_t *document,
                               hr_error *err) {
    if (yaml_parser_load(parser, document)) return HR_OK;
    if (parser->error == YAML_MEMORY_ERROR)
        return hr_error_set(err, HR_OUT_OF_MEMORY, "%s: no memory to read it", path);
    return hr_error_set(err, HR_INVALID_ARGUMENT, "%s:%zu: not YAML: %s", path, parser->problem_mark.line + 1,
                        parser->problem ? parser->problem : "unreadable");
}

static hr_status read_stream(reader *r, yaml_parser_t *parser, hr_error *err) {
    yaml_document_t first, second;
    hr_status status = load_document(parser, r->path, &first, err);
    if (status) return status;
    r->document = &first;
    bool empty = yaml_document_get_root_node(&first) == NULL;
    status = read_mapping(r, err);
    if (!status && !empty) {
        status = load_document(parser, r->path, &second, err);
        yaml_node_t *root = status ? NULL : yaml_document_get_root_node(&second);
        if (root) {
            hr_error_set(err, HR_INVALID_ARGUMENT, "expected one document, found a second");
            status = at_line(r, root, err);
        }
        if (root || !status) yaml_document_delete(&second);
    }
    r->document = NULL;
    yaml_document_delete(&first);
    return status;
}

hr_status hr_options_read_file(hr_command command, hr_options *options, bool *given, hr_error *err) {
    reader r = {.command = command, .path = options->config, .options = options, .given = given};
    hr_status status = HR_OK;
    yaml_parser_t parser;
    struct stat info;
    FILE *file = fopen(r.path, "rb");
    if (!file) return hr_error_set(err, HR_IO, "%s: %s", r.path, strerror(errno));
    if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        status = hr_error_set(err, HR_IO, "%s: expected a file", r.path);
    } else if (info.st_size > FILE_MAX_NBYTES) {
        status = hr_error_set(err, HR_INVALID_ARGUMENT, "%s: expected at most %d bytes, found %lld", r.path,
                              FILE_MAX_NBYTES, (long long)info.st_size);
    } else if (!yaml_parser_initialize(&parser)) {
        status = hr_error_set(err, HR_OUT_OF_MEMORY, "%s: no memory to read it", r.path);
    } else {
        yaml_parser_set_input_file(&parser, file);
        status = read_stream(&r, &parser, err);
        yaml_parser_delete(&parser);
    }
    fclose(file);
    return status;
}
