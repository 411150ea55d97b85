/* A piece of a load's input: see load_block.h. */
#include "features/load_block.h"

#include <stdlib.h>
#include <string.h>

#include "base/text_file.h"

bool hr_load_block_create(hr_load_block *block, size_t n_lanes) {
    block->batches = calloc(n_lanes, sizeof *block->batches);
    return block->batches != NULL;
}

void hr_load_block_destroy(hr_load_block *block, size_t n_lanes) {
    for (size_t i = 0; block->batches != NULL && i < n_lanes; i++) hr_record_batch_clear(&block->batches[i]);
    free(block->batches);
    free(block->complaints);
    free(block->lines);
    free(block->text);
}

void hr_load_block_empty(hr_load_block *block, size_t n_lanes) {
    for (size_t i = 0; i < n_lanes; i++) hr_record_batch_empty(&block->batches[i]);
    block->nbytes = block->n_lines = block->n_records = block->n_complaints = 0;
}

/* Room for one more element of an array; false when out of memory. */
static bool grow(void **array, size_t *capacity, size_t n, size_t size) {
    if (n < *capacity) return true;
    void *grown = realloc(*array, (n + 1) * 2 * size);
    if (grown == NULL) return false;
    *array = grown;
    *capacity = (n + 1) * 2;
    return true;
}

static bool reserve_text(hr_load_block *block, size_t nbytes) {
    const size_t need = block->nbytes + nbytes;
    if (need <= block->capacity) return true;
    char *grown = realloc(block->text, need * 2);
    if (grown == NULL) return false;
    block->text = grown;
    block->capacity = need * 2;
    return true;
}

bool hr_load_block_add(hr_load_block *block, const char *text, size_t nbytes, uint64_t number, bool joins) {
    if (!reserve_text(block, nbytes + 1) ||
        !grow((void **)&block->lines, &block->lines_capacity, block->n_lines, sizeof *block->lines))
        return false;
    if (joins) {
        block->text[block->nbytes - 1] = '\n';
        block->lines[block->n_lines - 1].nbytes += 1 + nbytes;
    } else {
        block->lines[block->n_lines++] = (hr_block_line){block->nbytes, nbytes, number, false};
    }
    if (nbytes > 0) memcpy(block->text + block->nbytes, text, nbytes);
    block->nbytes += nbytes + 1;
    block->text[block->nbytes - 1] = '\0';
    return true;
}

bool hr_load_block_add_too_long(hr_load_block *block, uint64_t number) {
    if (!grow((void **)&block->lines, &block->lines_capacity, block->n_lines, sizeof *block->lines))
        return false;
    block->lines[block->n_lines++] = (hr_block_line){.number = number, .too_long = true};
    return true;
}

static hr_status complain(hr_load_block *block, uint64_t line, const hr_error *why, hr_error *err) {
    if (!grow((void **)&block->complaints, &block->complaints_capacity, block->n_complaints,
              sizeof *block->complaints))
        return hr_error_set(err, HR_OUT_OF_MEMORY, "load: out of memory");
    block->complaints[block->n_complaints++] = (hr_block_complaint){line, *why};
    return HR_OK;
}

static hr_status read_line(hr_load_block *block, hr_block_reader *r, const hr_block_line *of, hr_error *err) {
    const hr_record_writer *w = r->writer;
    char *text = block->text + of->at;
    hr_load_line line;
    if (of->too_long)
        return hr_error_set(err, HR_INVALID_ARGUMENT,
                            "expected a line of at most %d bytes, found a longer one", HR_LINE_MAX_NBYTES);
    if (r->csv == NULL && w->i->add_packed != NULL && hr_load_pack(&r->packer, text, of->nbytes)) {
        const hr_load_packer *p = &r->packer;
        hr_record_batch *batch = &block->batches[hr_record_writer_lane(w, p->entity, p->id)];
        return w->i->add_packed(w, batch, p->entity, p->id, p->packed, p->nbytes, err);
    }
    hr_arena_reset(r->arena);
    hr_status status = r->csv != NULL ? hr_csv_row_read(r->csv, text, of->nbytes, r->arena, &line, err)
                                      : hr_load_line_parse(text, of->nbytes, r->arena, &line, err);
    if (status != HR_OK) return status;
    hr_record_batch *batch = &block->batches[hr_record_writer_lane(w, line.entity, line.id)];
    return w->i->add_features(w, batch, line.entity, line.id, line.features, r->arena, err);
}

hr_status hr_load_block_read(hr_load_block *block, hr_block_reader *reader, hr_error *err) {
    for (size_t i = 0; i < block->n_lines; i++) {
        hr_error why = {HR_OK, ""};
        hr_status status = read_line(block, reader, &block->lines[i], &why);
        block->n_records += status == HR_OK;
        if (status == HR_INVALID_ARGUMENT)
            status = complain(block, block->lines[i].number, &why, err);
        else if (status != HR_OK)
            *err = why;
        if (status != HR_OK) return status;
    }
    return HR_OK;
}
