/* What the real Feast wrote: see feast_golden.h. */
#include "tests/features/feast_golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"

json_t *feast_golden_read(void) {
    FILE *file = fopen("tests/features/feast_golden.jsonl", "r");
    if (file == NULL) fail_msg("cannot open tests/features/feast_golden.jsonl");
    json_t *lines = json_array(), *line;
    while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL)
        json_array_append_new(lines, line);
    fclose(file);
    assert_true(json_array_size(lines) > 0);
    return lines;
}

size_t feast_golden_bytes(const json_t *hex, uint8_t *bytes, size_t size) {
    size_t n = json_string_length(hex) / 2;
    assert_true(n <= size);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(json_string_value(hex) + 2 * i, "%2x", &byte), 1);
        bytes[i] = (uint8_t)byte;
    }
    return n;
}

const char *feast_golden_text(const json_t *line, const char *name) {
    const char *text = json_string_value(json_object_get(line, name));
    assert_non_null(text);
    return text;
}

hr_entity feast_golden_entity(const json_t *line) {
    return strcmp(feast_golden_text(line, "entity"), "user") == 0 ? HR_ENTITY_USER : HR_ENTITY_ITEM;
}

hr_feast_options feast_golden_options(const json_t *line) {
    hr_feast_options options = {
        .version = (uint32_t)json_integer_value(json_object_get(line, "version")),
        .entities = {[HR_ENTITY_USER] = {"user_id", HR_FEAST_STRING, "user_profile"},
                     [HR_ENTITY_ITEM] = {"item_id", HR_FEAST_INT64, "item_stats"}},
    };
    snprintf(options.project, sizeof options.project, "%s", feast_golden_text(line, "project"));
    return options;
}

static json_t *expected_bytes(const json_t *hex) {
    uint8_t bytes[64];
    size_t n = feast_golden_bytes(hex, bytes, sizeof bytes);
    if (!hr_utf8_valid(bytes, n) || memchr(bytes, '\0', n) != NULL) return NULL;
    return json_stringn((const char *)bytes, n);
}

json_t *feast_golden_expected(const json_t *read) {
    if (json_is_boolean(read)) return json_integer(json_is_true(read));
    if (json_is_object(read)) {
        const json_t *bytes = json_object_get(read, "bytes");
        return bytes != NULL ? expected_bytes(bytes) : json_null();
    }
    if (!json_is_array(read)) return json_deep_copy(read);
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(read); i++)
        json_array_append_new(list, feast_golden_expected(json_array_get(read, i)));
    return list;
}
