/* A record as one block of bytes: see record_blob.h. PACKED: its bytes. FIELDS and VALUES: their number, a
 * length each (NO_TEXT where there is none), then the texts one after another. */
#include "features/record_blob.h"

#include <stdint.h>
#include <string.h>

#define NO_TEXT UINT32_MAX

static bool has_fields(hr_record_kind kind) {
    return kind == HR_RECORD_FIELDS || kind == HR_RECORD_VALUES;
}

size_t hr_record_blob_nbytes(const hr_record *record, size_t n_fields) {
    if (record->kind == HR_RECORD_PACKED) return record->nbytes;
    if (!has_fields(record->kind)) return 0;
    size_t nbytes = (1 + n_fields) * sizeof(uint32_t);
    for (size_t i = 0; i < n_fields; i++)
        if (record->fields[i].text != NULL) nbytes += record->fields[i].nbytes;
    return nbytes;
}

static void write_fields(const hr_field_text *fields, size_t n_fields, void *blob) {
    uint32_t *lengths = blob;
    char *text = (char *)(lengths + 1 + n_fields);
    *lengths++ = (uint32_t)n_fields;
    for (size_t i = 0; i < n_fields; i++) {
        lengths[i] = fields[i].text == NULL ? NO_TEXT : (uint32_t)fields[i].nbytes;
        if (fields[i].text == NULL) continue;
        memcpy(text, fields[i].text, fields[i].nbytes);
        text += fields[i].nbytes;
    }
}

void hr_record_blob_write(const hr_record *record, size_t n_fields, void *blob) {
    if (record->kind == HR_RECORD_PACKED && record->nbytes > 0) memcpy(blob, record->data, record->nbytes);
    if (has_fields(record->kind)) write_fields(record->fields, n_fields, blob);
}

static bool read_fields(const uint32_t *blob, size_t nbytes, hr_arena *arena, hr_record *record) {
    const size_t n_fields = blob[0], n_head = (1 + n_fields) * sizeof *blob;
    hr_field_text *fields = hr_arena_calloc(arena, n_fields, sizeof *fields);
    char *text = hr_arena_strndup(arena, (const char *)blob + n_head, nbytes - n_head);
    if (fields == NULL || text == NULL) return false;
    for (size_t i = 0; i < n_fields; i++) {
        if (blob[1 + i] == NO_TEXT) continue;
        fields[i] = (hr_field_text){.text = text, .nbytes = blob[1 + i]};
        text += blob[1 + i];
    }
    record->fields = fields;
    return true;
}

bool hr_record_blob_read(hr_record_kind kind, const void *blob, size_t nbytes, hr_arena *arena,
                         hr_record *record) {
    if (has_fields(kind) && !read_fields(blob, nbytes, arena, record)) return false;
    if (kind == HR_RECORD_PACKED) {
        char *copy = hr_arena_strndup(arena, blob, nbytes);
        if (copy == NULL) return false;
        record->data = (const uint8_t *)copy;
        record->nbytes = nbytes;
    }
    record->kind = kind;
    return true;
}

static bool copy_fields(hr_record *record, size_t n_fields, hr_arena *arena) {
    hr_field_text *copies = hr_arena_calloc(arena, n_fields, sizeof *copies);
    if (copies == NULL) return false;
    for (size_t i = 0; i < n_fields; i++) {
        const hr_field_text *field = &record->fields[i];
        if (field->text == NULL) continue;
        copies[i] = (hr_field_text){hr_arena_strndup(arena, field->text, field->nbytes), field->nbytes};
        if (copies[i].text == NULL) return false;
    }
    record->fields = copies;
    return true;
}

bool hr_record_copy(hr_record *record, size_t n_fields, hr_arena *arena) {
    if (has_fields(record->kind)) return copy_fields(record, n_fields, arena);
    if (record->kind != HR_RECORD_PACKED) return true;
    record->data = (const uint8_t *)hr_arena_strndup(arena, (const char *)record->data, record->nbytes);
    return record->data != NULL;
}
