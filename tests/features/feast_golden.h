/* What the real Feast wrote (feast_store.py): the lines of feast_golden.jsonl. One thread at a time. */
#ifndef HOMERANK_TESTS_FEATURES_FEAST_GOLDEN_H
#define HOMERANK_TESTS_FEATURES_FEAST_GOLDEN_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "features/feast_key.h"

/* The array of its lines, a new reference. Fails the test where the file cannot be read. */
json_t *feast_golden_read(void);

/* Hexadecimal to bytes[size]; their number. */
size_t feast_golden_bytes(const json_t *hex, uint8_t *bytes, size_t size);

/* How the line's store is laid out. */
hr_feast_options feast_golden_options(const json_t *line);
hr_entity feast_golden_entity(const json_t *line);

const char *feast_golden_text(const json_t *line, const char *name);

/* What Feast read of a feature, as homerank's JSON has it (hr_json_from_features); a new reference. NULL:
 * bytes that are no text. */
json_t *feast_golden_expected(const json_t *read);

#endif
